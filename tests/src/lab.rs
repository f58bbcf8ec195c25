//! A node in miniature for one test: the programs with maps of their own, three pods in them,
//! and interfaces that exist, so that the kernel runs the programs on our packets.

use std::sync::OnceLock;

use aya::maps::lpm_trie::Key;
use daemon::datapath::load::{Capacities, program};
use datapath_abi::{
    addr::{Addr, AddrEntry, V4_PREFIX_BITS},
    conntrack::{CtEntry, CtKey, FragmentEntry, FragmentKey},
    control::{Clock, SWINGS_AT, Sweep, SweepReport},
    endpoint::{Endpoint, RulesPtr, Swing},
    event::Hook,
    maps,
    policy::Direction,
    service::{Backend, BackendKey, Frontend, FrontendKey},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::{
    count::Counts,
    host::{A, B, C, FAMILIES, Host, NODE, REMOTE, UPLINK},
    netns::{Inside, Netns},
    packet::Packet,
    prog::{Context, Programs},
    rules::{Rule, Rulesets},
    seen::Seen,
};

/// Where a packet meets a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// This pod sends it.
    From(Host),
    /// The host's stack gives it to this pod; it came in by the interface of the second one.
    To(Host, Host),
}

impl At {
    /// The hook.
    pub fn hook(self) -> Hook {
        match self {
            At::From(_) => Hook::FromPod,
            At::To(..) => Hook::ToPod,
        }
    }

    /// Name of the program.
    pub fn program(self) -> &'static str {
        match self {
            At::From(_) => program::FROM_POD,
            At::To(..) => program::TO_POD,
        }
    }

    /// What the program is told.
    pub fn context(self) -> Context {
        match self {
            At::From(pod) => Context { ifindex: pod.ifindex, ingress_ifindex: pod.ifindex, ..Context::default() },
            At::To(pod, via) => Context { ifindex: pod.ifindex, ingress_ifindex: via.ifindex, ..Context::default() },
        }
    }
}

/// Interface index for a second life of a pod.
pub const SPARE: u32 = 30;
/// An interface that no endpoint is behind.
pub const STRAY: u32 = 31;

/// Programs, maps and interfaces.
#[derive(Debug)]
pub struct Lab {
    /// The loaded object.
    pub programs: Programs,
    rulesets: Rulesets,
    generation: u32,
    _inside: Inside,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// With small maps, all pods open.
    pub fn new() -> Self {
        let mut capacities = Capacities::default();
        for (map, entries) in [
            (maps::CONNTRACK, 256),
            (maps::PENDING, 256),
            (maps::FRAGMENTS, 256),
            (maps::ENDPOINTS, 16),
            (maps::ADDRESSES, 256),
            (maps::EVENTS, 1 << 16),
        ] {
            capacities.set(map, entries).expect("a valid capacity");
        }
        Self::with(&capacities)
    }

    /// With these capacities, all pods open.
    pub fn with(capacities: &Capacities) -> Self {
        Self::of(Programs::load(capacities).expect("the programs load"))
    }

    /// With these programs, all pods open.
    pub fn of(programs: Programs) -> Self {
        let inside = interfaces().enter().expect("the namespace can be entered");
        let mut lab = Self { programs, rulesets: Rulesets::default(), generation: 0, _inside: inside };
        for pod in [A, B, C] {
            lab.add(&pod);
        }
        for host in [REMOTE, NODE] {
            for family in FAMILIES {
                lab.address(&host, family, host.identity, 0);
            }
        }
        lab
    }

    /// Puts a pod into its slot, open in both directions.
    pub fn add(&mut self, pod: &Host) {
        self.generation += 1;
        let open = RulesPtr::new(self.generation, 0, 0).0;
        let endpoint = Endpoint {
            rules: [open; 2],
            addr6: Addr::from(pod.addr(crate::host::Family::V6)),
            addr4: Addr::from(pod.addr(crate::host::Family::V4)),
            ifindex: pod.ifindex,
            identity: pod.identity,
            mac: pod.mac,
            pad: [0; 2],
        };
        self.programs.array(maps::ENDPOINTS).set(pod.slot, endpoint, 0).expect("ENDPOINTS has the slot");
        self.programs.hash(maps::INTERFACES).insert(pod.ifindex, pod.slot, 0).expect("INTERFACES has room");
        for family in FAMILIES {
            self.address(pod, family, pod.identity, pod.slot);
        }
    }

    /// Takes a pod out of its slot, as the daemon does after DEL.
    pub fn remove(&mut self, pod: &Host) {
        self.programs.hash::<u32, u32>(maps::INTERFACES).remove(&pod.ifindex).expect("the pod is there");
        for family in FAMILIES {
            let addr = Addr::from(pod.addr(family));
            self.programs.hash::<Addr, AddrEntry>(maps::ADDRESSES).remove(&addr).expect("the pod is there");
        }
        self.programs.array(maps::ENDPOINTS).set(pod.slot, Endpoint::default(), 0).expect("ENDPOINTS has the slot");
    }

    /// Puts backends behind an address and port; those that were there before are gone. Returns the number of the set.
    pub fn service(
        &mut self,
        addressed: &Host,
        family: crate::host::Family,
        proto: u8,
        port: u16,
        backends: &[(Host, u16)],
    ) -> u32 {
        let key = FrontendKey { addr: Addr::from(addressed.addr(family)), port, proto, pad: [0; 5] };
        let frontends = self.programs.hash::<FrontendKey, Frontend>(maps::FRONTENDS);
        let had = frontends.get(&key, 0).ok();
        let set = had.map_or(frontends.keys().count() as u32 + 1, |had| had.set);
        let mut places = self.programs.hash::<BackendKey, Backend>(maps::BACKENDS);
        for (place, (host, port)) in (0..).zip(backends) {
            let backend = Backend { addr: Addr::from(host.addr(family)), port: *port, pad: [0; 6] };
            places.insert(BackendKey { set, place }, backend, 0).expect("BACKENDS has room");
        }
        let count = backends.len() as u32;
        let mut frontends = self.programs.hash::<FrontendKey, Frontend>(maps::FRONTENDS);
        frontends.insert(key, Frontend { set, count }, 0).expect("FRONTENDS has room");
        let mut places = self.programs.hash::<BackendKey, Backend>(maps::BACKENDS);
        for place in count..had.map_or(0, |had| had.count) {
            places.remove(&BackendKey { set, place }).expect("the place is there");
        }
        set
    }

    /// Says who owns an address.
    pub fn address(&mut self, host: &Host, family: crate::host::Family, identity: u32, slot: u32) {
        self.programs
            .hash(maps::ADDRESSES)
            .insert(Addr::from(host.addr(family)), AddrEntry { identity, slot }, 0)
            .expect("ADDRESSES has room");
    }

    /// Gives an IPv4 or IPv6 prefix an identity.
    pub fn cidr(&mut self, prefix: &str, identity: u32) {
        let (addr, length) = prefix.split_once('/').expect("a prefix has a length");
        let addr: std::net::IpAddr = addr.parse().expect("an address");
        let length: u32 = length.parse().expect("a length");
        let bits = length + if addr.is_ipv4() { V4_PREFIX_BITS } else { 0 };
        self.programs
            .trie(maps::CIDRS)
            .insert(&Key::new(bits, Addr::from(addr).octets()), AddrEntry { identity, slot: 0 }, 0)
            .expect("CIDRS has room");
    }

    /// Isolates a pod in one direction but for `rules`.
    pub fn isolate(&mut self, pod: &Host, direction: Direction, rules: &[Rule]) {
        let (ruleset, flags) = self.rulesets.write(&mut self.programs, rules);
        self.point(pod, direction, flags | RulesPtr::ISOLATED, ruleset);
    }

    /// Gives a pod rules in one direction without isolating it.
    pub fn restrict(&mut self, pod: &Host, direction: Direction, rules: &[Rule]) {
        let (ruleset, flags) = self.rulesets.write(&mut self.programs, rules);
        self.point(pod, direction, flags, ruleset);
    }

    /// Gives a pod rules of two tiers in one direction; `flags`: none, or [`RulesPtr::ISOLATED`].
    pub fn tiers(&mut self, pod: &Host, direction: Direction, flags: u8, first: &[Rule], after_pass: &[Rule]) {
        let (ruleset, more) = self.rulesets.write_pair(&mut self.programs, first, after_pass);
        self.point(pod, direction, flags | more, ruleset);
    }

    /// Says what would hold for a pod in one direction with staged policies; `flags` as in
    /// [`Self::tiers`]. What is in force stays.
    pub fn stage(&mut self, pod: &Host, direction: Direction, flags: u8, rules: &[Rule]) {
        let (ruleset, more) = self.rulesets.write(&mut self.programs, rules);
        self.stage_at(pod, direction, flags | more, ruleset);
    }

    /// The same with rules of two tiers.
    pub fn stage_tiers(&mut self, pod: &Host, direction: Direction, flags: u8, first: &[Rule], after_pass: &[Rule]) {
        let (ruleset, more) = self.rulesets.write_pair(&mut self.programs, first, after_pass);
        self.stage_at(pod, direction, flags | more, ruleset);
    }

    fn stage_at(&mut self, pod: &Host, direction: Direction, flags: u8, ruleset: u32) {
        self.generation += 1;
        let mut staged = self.programs.array::<[u64; 2]>(maps::STAGED);
        let mut rules = staged.get(&pod.slot, 0).expect("STAGED has the slot");
        rules[direction as usize] = RulesPtr::new(self.generation, flags, ruleset).0;
        staged.set(pod.slot, rules, 0).expect("STAGED has the slot");
        let enforced = RulesPtr(self.endpoint(pod).rules[direction as usize]);
        self.point(pod, direction, enforced.flags() | RulesPtr::HAS_STAGED, enforced.ruleset());
    }

    /// Adds an entry to the rule set a pod is under, as the daemon does for a new identity.
    pub fn widen(&mut self, pod: &Host, direction: Direction, rule: &Rule) {
        let word = RulesPtr(self.endpoint(pod).rules[direction as usize]);
        self.rulesets.add(&mut self.programs, word.ruleset(), rule);
    }

    /// Opens a pod in one direction.
    pub fn open(&mut self, pod: &Host, direction: Direction) {
        self.point(pod, direction, 0, 0);
    }

    /// Points a pod at a rule set, by the program `swing`, as the daemon does.
    pub fn point(&mut self, pod: &Host, direction: Direction, flags: u8, ruleset: u32) {
        self.generation += 1;
        let Endpoint { mut rules, identity, .. } = self.endpoint(pod);
        rules[direction as usize] = RulesPtr::new(self.generation, flags, ruleset).0;
        let done = self.swing(&[Swing { rules, slot: pod.slot, identity }]);
        assert_eq!(done, 1, "swing carried out {done} orders of one");
    }

    /// Runs `swing`; returns how many orders it has carried out.
    pub fn swing(&mut self, orders: &[Swing]) -> i32 {
        let mut data = vec![0; SWINGS_AT];
        data.extend(orders.as_bytes());
        self.programs.run(program::SWING, &data, Context::default(), 1).expect("swing runs").verdict
    }

    /// The endpoint in a pod's slot.
    pub fn endpoint(&mut self, pod: &Host) -> Endpoint {
        self.programs.array(maps::ENDPOINTS).get(&pod.slot, 0).expect("ENDPOINTS has the slot")
    }

    /// Forgets all connections and fragments, and opens all pods: for what begins anew where loading the
    /// programs again would take too long.
    pub fn reset(&mut self) {
        for table in [maps::CONNTRACK, maps::PENDING] {
            for (key, _) in self.connections(table) {
                self.forget(table, &key);
            }
        }
        let mut fragments = self.programs.hash::<FragmentKey, FragmentEntry>(maps::FRAGMENTS);
        let keys: Vec<FragmentKey> = fragments.keys().map(|key| key.expect("a key")).collect();
        for key in keys {
            fragments.remove(&key).expect("the entry is there");
        }
        for pod in [A, B, C] {
            self.add(&pod);
        }
    }

    /// Runs a packet through a program.
    pub fn send(&mut self, at: At, packet: &Packet) -> Seen {
        let bytes = packet.bytes();
        self.run(at, at.context(), &bytes, Some(packet))
    }

    /// The same for a packet that the kernel will cut into segments with this much payload.
    pub fn send_gso(&mut self, at: At, packet: &Packet, size: u32) -> Seen {
        let bytes = packet.bytes();
        self.run(at, Context { gso_size: size, ..at.context() }, &bytes, Some(packet))
    }

    /// Whether the kernel runs a program on these bytes at all: newer ones refuse what ends
    /// before the IP header that its EtherType promises does.
    pub fn can_send(&self, at: At, bytes: &[u8]) -> bool {
        let header = match bytes.get(12..14) {
            Some([0x08, 0x00]) => 20,
            Some([0x86, 0xdd]) => 40,
            _ => 1,
        };
        bytes.len() >= 14 + header || self.programs.run(program::PROBE, bytes, at.context(), 1).is_ok()
    }

    /// Runs bytes through a program.
    pub fn send_bytes(&mut self, at: At, bytes: &[u8]) -> Seen {
        self.run(at, at.context(), bytes, None)
    }

    fn run(&mut self, at: At, context: Context, bytes: &[u8], packet: Option<&Packet>) -> Seen {
        let before = Counts::read(&self.programs.ebpf);
        let ran = self.programs.run(at.program(), bytes, context, 1).expect("the program runs");
        let change = Counts::read(&self.programs.ebpf).since(&before);
        Seen::new(at, bytes, packet.cloned(), ran, change, self.programs.events())
    }

    /// Runs `sweep`.
    pub fn sweep(&mut self, order: Sweep) -> (SweepReport, Seen) {
        let mut bytes = order.as_bytes().to_vec();
        bytes.extend(SweepReport::default().as_bytes());
        let before = Counts::read(&self.programs.ebpf);
        let ran = self.programs.run(program::SWEEP, &bytes, Context::default(), 1).expect("sweep runs");
        assert_eq!(ran.verdict, 0, "sweep refused its order");
        let change = Counts::read(&self.programs.ebpf).since(&before);
        let report = SweepReport::read_from_bytes(&ran.bytes[size_of::<Sweep>()..]).expect("the report is there");
        (report, Seen::of_sweep(ran, change, self.programs.events()))
    }

    /// Runs `clock`.
    pub fn clock(&mut self) -> Clock {
        let ran =
            self.programs.run(program::CLOCK, Clock::default().as_bytes(), Context::default(), 1).expect("clock runs");
        assert_eq!(ran.verdict, 0, "clock refused its order");
        Clock::read_from_bytes(&ran.bytes).expect("the clock is there")
    }

    /// All entries of a conntrack table, by its name.
    pub fn connections(&mut self, table: &str) -> Vec<(CtKey, CtEntry)> {
        self.programs.hash::<CtKey, CtEntry>(table).iter().map(|entry| entry.expect("an entry")).collect()
    }

    /// The one entry of a conntrack table.
    pub fn connection(&mut self, table: &str) -> (CtKey, CtEntry) {
        let mut all = self.connections(table);
        assert_eq!(all.len(), 1, "connections in {table}: {all:#?}");
        all.remove(0)
    }

    /// How many entries CONNTRACK and PENDING have.
    pub fn sizes(&mut self) -> (usize, usize) {
        (self.connections(maps::CONNTRACK).len(), self.connections(maps::PENDING).len())
    }

    /// Takes an entry out of a conntrack table.
    pub fn forget(&mut self, table: &str, key: &CtKey) {
        self.programs.hash::<CtKey, CtEntry>(table).remove(key).expect("the entry is there");
    }

    /// Writes an entry of a conntrack table.
    pub fn put(&mut self, table: &str, key: CtKey, entry: CtEntry) {
        self.programs.hash(table).insert(key, entry, 0).expect("the table has room");
    }
}

/// One namespace for all tests of a process, with interfaces of fixed numbers.
fn interfaces() -> &'static Netns {
    static NETNS: OnceLock<Netns> = OnceLock::new();
    NETNS.get_or_init(|| {
        let mut batch = String::new();
        for index in [A.ifindex, B.ifindex, C.ifindex, UPLINK, SPARE, STRAY] {
            let peer = 100 + index;
            batch += &format!("link add h{index} index {index} type veth peer name p{index} index {peer}\n");
        }
        Netns::new(&batch).expect("a network namespace with interfaces (needs root and iproute2)")
    })
}
