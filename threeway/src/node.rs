//! The third side: a daemon's planner, the maps that it fills through the daemon's own tables, and the
//! real programs, run by `BPF_PROG_TEST_RUN`.

use std::{collections::BTreeSet, net::IpAddr, sync::OnceLock};

use anyhow::{Context as _, anyhow, ensure};
use daemon::{
    datapath::{
        load::{self, Capacities, program},
        maps::Tables,
    },
    reconcile::{Capacity, EndpointKey, Identities, LocalEndpoint, Mirror, Planner},
};
use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, FragmentEntry, FragmentKey},
    endpoint::{Endpoint, HOST_MAC},
    event::FlowEvent,
    maps,
};
use policy::{compile::RuleRef, identity::Config};
use tests::{
    bpffs::Bpffs,
    model::Says,
    netns::{Inside, Netns},
    packet::{self, Body},
    prog::{Context, Programs},
    seen::{NEXT, REDIRECT, SHOT},
};

use crate::{
    scenario::{Local, MOST_LOCAL, MOST_STARTED, OWN_NODE, Packet, Part, Step},
    track,
    truth::Truth,
};

/// Interface to the outside.
const UPLINK: u32 = 40;
/// Interface of the first pod.
const FIRST: u32 = 11;
/// Where later fragments begin, in units of eight bytes: behind the longest header.
const BEHIND: u16 = 3;

/// What a program has done.
#[derive(Clone, Debug)]
pub struct Did {
    /// Whether the packet goes on.
    pub passed: bool,
    /// What it returned.
    pub returned: i32,
    /// What it has told, in order.
    pub events: Vec<FlowEvent>,
    /// The packet's connection afterwards, and whether it is in CONNTRACK.
    pub entry: Option<(CtEntry, bool)>,
}

/// A pod that runs.
#[derive(Clone, Debug)]
struct Running {
    local: Local,
    /// Index into ENDPOINTS.
    slot: u32,
    /// How many have started before it.
    number: usize,
}

/// A node in miniature. Its thread must not be another one later.
pub struct Node {
    tables: Tables,
    programs: Programs,
    planner: Planner,
    mirror: Mirror,
    running: Vec<Running>,
    started: usize,
    capacity: Capacity,
    /// Connections that packets may have made.
    touched: BTreeSet<track::Key>,
    _inside: Inside,
    _pins: Bpffs,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("planner", &self.planner).finish_non_exhaustive()
    }
}

impl Node {
    /// An empty one: programs loaded, as the daemon loads them, on pinned maps that are small.
    ///
    /// # Errors
    /// We are not root, or the kernel refuses a program.
    pub fn new() -> anyhow::Result<Self> {
        let inside = interfaces()?.enter()?;
        let pins = Bpffs::new()?;
        let mut capacities = Capacities::default();
        for (map, entries) in [
            (maps::CONNTRACK, 4096),
            (maps::PENDING, 4096),
            (maps::FRAGMENTS, 4096),
            (maps::ENDPOINTS, 16),
            (maps::ADDRESSES, 256),
            (maps::EVENTS, 1 << 16),
        ] {
            capacities.set(map, entries)?;
        }
        let tables = Tables::new(load::load_some(Some(pins.path()), &capacities, &[program::SWING])?)?;
        let shown = load::load_some(Some(pins.path()), &capacities, &[program::FROM_POD, program::TO_POD])?;
        let capacity = Capacity::from_fn(|map| capacities.of(map));
        Ok(Self {
            planner: planner(&capacity, Identities::default()),
            mirror: tables.read()?,
            programs: Programs::of(shown)?,
            tables,
            running: Vec::new(),
            started: 0,
            capacity,
            touched: BTreeSet::new(),
            _inside: inside,
            _pins: pins,
        })
    }

    /// Forgets everything, and begins with these pods.
    ///
    /// # Errors
    /// The kernel refuses a write.
    pub fn begin(&mut self, locals: &[Local]) -> anyhow::Result<()> {
        ensure!(locals.len() <= MOST_LOCAL, "{} pods on one node; {MOST_LOCAL} have interfaces", locals.len());
        for key in std::mem::take(&mut self.touched) {
            let key = ct_key(&key);
            for table in [maps::CONNTRACK, maps::PENDING] {
                let _ = self.programs.hash::<CtKey, CtEntry>(table).remove(&key);
            }
        }
        let mut fragments = self.programs.hash::<FragmentKey, FragmentEntry>(maps::FRAGMENTS);
        let parts: Vec<FragmentKey> = fragments.keys().collect::<Result<_, _>>()?;
        parts.iter().try_for_each(|part| fragments.remove(part))?;
        self.programs.drain();
        self.planner = planner(&self.capacity, Identities::default());
        self.planner.set_host_addresses(BTreeSet::new());
        self.reconcile()?;
        self.collect()?;
        (self.running, self.started) = (Vec::new(), 0);
        locals.iter().try_for_each(|local| self.start(local))?;
        self.planner.set_host_addresses(OWN_NODE.into());
        Ok(())
    }

    /// The source tells something, or the daemon is replaced.
    ///
    /// # Errors
    /// The kernel refuses a write, or what the maps hold is not what the daemon believes.
    pub fn step(&mut self, step: &Step, truth: &Truth) -> anyhow::Result<()> {
        match step {
            Step::Apply(object) => self.planner.apply(object.clone()),
            Step::Delete(key) => self.planner.delete(key),
            Step::Start(local) if truth.may_start(local) => self.start(local)?,
            Step::Stop(pod) => {
                if let Some(place) = self.running.iter().position(|running| running.local.pod == *pod) {
                    self.planner.remove_endpoint(self.running.remove(place).slot);
                }
            }
            Step::Collect => {
                self.reconcile()?;
                self.collect()?;
            }
            Step::Restart if truth.is_told() => self.restart(truth)?,
            Step::Start(_) | Step::Restart | Step::Send(_) => {}
        }
        Ok(())
    }

    /// As the daemon takes in a pod.
    fn start(&mut self, local: &Local) -> anyhow::Result<()> {
        let slot = self.planner.free_slot(&self.mirror, &BTreeSet::new()).context("a slot is free")?;
        let running = Running { local: local.clone(), slot, number: self.started };
        self.planner.add_endpoint(running.endpoint());
        self.running.push(running);
        self.started += 1;
        Ok(())
    }

    /// Plans and carries out.
    ///
    /// # Errors
    /// The kernel refuses a write, or the planner refuses rules.
    pub fn reconcile(&mut self) -> anyhow::Result<()> {
        let plan = self.planner.plan(&self.mirror)?;
        for change in &plan.changes {
            self.tables.apply(change).with_context(|| format!("{change:?}"))?;
            self.mirror.apply(change);
        }
        match plan.refusals.first() {
            Some(refusal) => Err(anyhow!("a world is small, and yet rules are refused: {refusal:?}")),
            None => Ok(()),
        }
    }

    fn collect(&mut self) -> anyhow::Result<()> {
        for change in self.planner.garbage(&self.mirror) {
            self.tables.apply(&change).with_context(|| format!("{change:?}"))?;
            self.mirror.apply(&change);
        }
        Ok(())
    }

    /// Another daemon takes over what is in the kernel.
    fn restart(&mut self, truth: &Truth) -> anyhow::Result<()> {
        self.same_maps()?;
        let known = self.planner.identities().iter().map(|(number, key)| (number, key.clone()));
        let identities = Identities::restore(known, self.mirror.highest_identity());
        let mut planner = planner(&self.capacity, identities);
        for endpoint in self.running.iter().map(Running::endpoint) {
            let identity = self.mirror.endpoints.get(&endpoint.slot).map(|found| found.identity);
            planner.restore_endpoint(endpoint, identity);
        }
        planner.set_host_addresses(OWN_NODE.into());
        for object in truth.told() {
            planner.apply(object.clone());
        }
        self.planner = planner;
        Ok(())
    }

    /// Whether the maps hold what the daemon believes.
    ///
    /// # Errors
    /// They do not.
    pub fn same_maps(&mut self) -> anyhow::Result<()> {
        let found = self.tables.read()?;
        ensure!(found == self.mirror, "the maps hold\n{found:#?}\nand the daemon believes\n{:#?}", self.mirror);
        Ok(())
    }

    /// The rule behind a number in an event.
    pub fn rule(&self, cookie: u32) -> Option<&RuleRef> {
        self.planner.cookies().rule(cookie)
    }

    /// What the maps hold, as the daemon believes.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// What the maps hold of the pod that has an address.
    pub fn endpoint(&self, ip: IpAddr) -> Option<&Endpoint> {
        self.mirror.endpoints.get(&self.at(ip)?.slot)
    }

    fn at(&self, ip: IpAddr) -> Option<&Running> {
        self.running.iter().find(|running| running.local.ips.contains(&ip))
    }

    /// Sends a packet, and looks at this connection afterwards. `None`: no pod of the node takes part, or it
    /// would not leave its pod.
    ///
    /// # Errors
    /// The kernel does not run the program.
    pub fn send(&mut self, packet: &Packet, key: &track::Key) -> anyhow::Result<Option<(Did, u64)>> {
        let Some((program, context, bytes)) = self.frame(packet) else { return Ok(None) };
        let ct = ct_key(key);
        self.touched.extend([*key, track::key(packet)]);
        let ran = self.programs.run(program, &bytes, context, 1)?;
        let passed = match ran.verdict {
            NEXT | REDIRECT => true,
            SHOT => false,
            other => return Err(anyhow!("{program} returned {other}")),
        };
        let mut entry = |table| self.programs.hash::<CtKey, CtEntry>(table).get(&ct, 0).ok();
        let found = match entry(maps::CONNTRACK) {
            Some(found) => Some((found, true)),
            None => entry(maps::PENDING).map(|found| (found, false)),
        };
        let events = self.programs.events();
        Ok(Some((Did { passed, returned: ran.verdict, events, entry: found }, bytes.len() as u64 - 14)))
    }

    /// Which program sees a packet, what it is told, and the packet's bytes.
    fn frame(&self, sent: &Packet) -> Option<(&'static str, Context, Vec<u8>)> {
        let number = |ip: IpAddr| self.at(ip).map(|running| running.number);
        let (from, to) = (number(sent.source.ip()), number(sent.destination.ip()));
        let (program, at, by) = match (from, to) {
            (Some(from), Some(to)) if from == to => return None,
            (Some(from), Some(to)) if sent.round => (program::TO_POD, ifindex(to), ifindex(from)),
            (Some(from), _) => (program::FROM_POD, ifindex(from), ifindex(from)),
            (None, Some(to)) if OWN_NODE.contains(&sent.source.ip()) => (program::TO_POD, ifindex(to), 0),
            (None, Some(to)) => (program::TO_POD, ifindex(to), UPLINK),
            (None, None) => return None,
        };
        let context = Context { ifindex: at, ingress_ifindex: by, ..Context::default() };
        let mac = [from.map_or(HOST_MAC, mac), to.map_or(HOST_MAC, mac)];
        let port = [sent.source.port(), sent.destination.port()];
        let [high, low] = port[0].to_be_bytes();
        let v4 = sent.source.is_ipv4();
        let mut payload = b"bulkhead".to_vec();
        let body = match &sent.says {
            Says::Tcp(flags) => Body::Tcp { port, flags: *flags },
            Says::Sctp(chunks) => Body::Sctp { port, chunk: chunks[0] },
            Says::Echo { request } => {
                let kind = match (v4, request) {
                    (true, true) => 8,
                    (true, false) => 0,
                    (false, true) => 128,
                    (false, false) => 129,
                };
                Body::Icmp { kind, code: 0, rest: [high, low, 0, 1] }
            }
            Says::Data if sent.proto == packet::UDP => Body::Udp { port },
            Says::Data => Body::Raw { proto: sent.proto },
        };
        // So that bytes are no multiple of packets.
        payload.truncate(4 + usize::from(port[0] % 4));
        let addr = [sent.source.ip(), sent.destination.ip()];
        let mac = if program == program::FROM_POD { [mac[0], HOST_MAC] } else { [HOST_MAC, mac[1]] };
        let packet = packet::Packet::new(mac, addr, body).payload(&payload);
        let packet = match sent.part {
            Part::Whole => packet,
            Part::First(id) => packet.part(id, 0, true),
            Part::Later(id) => packet.part(id, BEHIND, false),
        };
        Some((program, context, packet.bytes()))
    }
}

/// A connection's key as the programs have it: ends in the order of [`Addr::words`], then ports.
fn ct_key(&(proto, ends): &track::Key) -> CtKey {
    let mut ends = ends.map(|(ip, port)| (Addr::from(ip), port));
    ends.sort_unstable_by_key(|(addr, port)| (addr.words, *port));
    CtKey { addr: ends.map(|(addr, _)| addr), port: ends.map(|(_, port)| port), proto, pad: [0; 3] }
}

fn planner(capacity: &Capacity, identities: Identities) -> Planner {
    let pools = ["10.0.0.0/24", "fd00::/64"].map(|pool| pool.parse().expect("a network"));
    Planner::new(Config::default(), pools.into(), identities, capacity.clone())
}

fn ifindex(number: usize) -> u32 {
    FIRST + number as u32
}

fn mac(number: usize) -> [u8; 6] {
    [2, 0, 0, 0, 1, number as u8]
}

impl Running {
    fn endpoint(&self) -> LocalEndpoint {
        let Self { local: Local { pod, ips }, slot, number } = self;
        LocalEndpoint {
            key: EndpointKey { container_id: format!("c{number}"), ifname: "eth0".to_owned() },
            pod: pod.clone(),
            slot: *slot,
            ifindex: ifindex(*number),
            mac: mac(*number),
            v4: ips.iter().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }),
            v6: ips.iter().find_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }),
        }
    }
}

/// One namespace for all nodes of a process, with interfaces of fixed numbers.
fn interfaces() -> anyhow::Result<&'static Netns> {
    static NETNS: OnceLock<Result<Netns, String>> = OnceLock::new();
    let made = NETNS.get_or_init(|| {
        let mut batch = String::new();
        for index in (0..MOST_STARTED).map(ifindex).chain([UPLINK]) {
            let peer = 100 + index;
            batch += &format!("link add h{index} index {index} type veth peer name p{index} index {peer}\n");
        }
        Netns::new(&batch).map_err(|error| format!("{error:#}"))
    });
    made.as_ref().map_err(|error| anyhow!("{error}"))
}
