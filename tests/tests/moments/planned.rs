//! As `atomic`, at the programs' own rate and with the daemon's own writes: its planner changes the rules of two pods
//! as fast as one processor carries the plans out through the daemon's tables, rule sets left over are removed as the
//! engine does it, and on another processor the programs run on the same packets over and over.
//! BULKHEAD_PLAN_SECONDS says for how long.
//!
//! The rules take turns between two kinds. What one packet meets under each:
//!
//! ```text
//!                     kind 0                          kind 1                          some of each
//! A to X    address denies before the pod    pod denies before the address    pod of 0, address of 1: accepts
//! A to Y    pod denies before the address    address denies before the pod    pod of 1, address of 0: accepts
//! C to D    pod admits                       address admits                   pod of 1, address of 0: nobody admits
//! ```
//!
//! A's packets are denied by a rule under both kinds; nothing isolates A, so that a rule set that is not complete yet
//! lets them pass. C's are admitted under both; C is isolated, so that such a one denies them for want of a rule. D
//! denies them by a rule, so that no connection comes about and each packet is decided anew. Hence every packet must be
//! dropped for `deny_rule`, whatever happens, and the counters tell of tens of millions at once.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use daemon::{
    datapath::{
        load::{self, Capacities, program},
        maps::Tables,
    },
    reconcile::{Capacity, Change, EndpointKey, Identities, LocalEndpoint, Mirror, Planner},
};
use datapath_abi::{event::Hook, maps, reason::DropReason};
use policy::{
    fixture::{self, text},
    identity::Config,
};
use tests::{
    bpffs::Bpffs,
    count::{Count, Counts},
    effort::times,
    host::{A, B, C, FAMILIES, Family, Host, REMOTE, UPLINK},
    lab::At,
    netns::Netns,
    prog::Programs,
    trial::trial,
};

/// How long it lasts unless told.
const SECONDS: u32 = 4;
/// How long packets may be under way that have begun before a swing, as in the engine.
const GRACE: Duration = Duration::from_millis(50);
/// Packets of one run.
const REPEAT: u32 = 20_000;
/// Least number of packets decided, on a machine that has other things to do: on a quiet one they are millions a second.
const LEAST: u64 = 100_000;

/// A receiver of A's packets, a pod of another node.
const X: Host = REMOTE;

/// Another.
fn y() -> Host {
    let [v4, v6] = FAMILIES.map(|family| neighbour(X.addr(family)));
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (v4, v6) else { unreachable!("a neighbour is of the same family") };
    Host { name: "Y", v4, v6, ..X }
}

fn neighbour(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::from((u32::from(ip) - 1).to_be_bytes()),
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) - 1).to_be_bytes()),
    }
}

/// A host's addresses as blocks.
fn block(host: &Host) -> String {
    format!("{}/32 or {}/128", host.v4, host.v6)
}

/// What is there all the time. D denies everything.
fn world() -> String {
    let remote = |name: &str, host: &Host| format!("pod far/{name} app={name} ip={} ip={}\n", host.v4, host.v6);
    format!(
        "namespace shop\nnamespace far\npod shop/a app=a\npod shop/c app=c\npod shop/d app=d\n{}{}\
         cluster d admin 1 {{app=d}} in {{}}\n ingress deny from {{}} in {{}}\n",
        remote("x", &X),
        remote("y", &y()),
    )
}

/// What changes in a round: the rules, which are of content that was never there before, and a pod of another node
/// that comes with an identity of its own, whom all of them admit.
fn edit(round: usize) -> String {
    let (x, y) = (block(&X), block(&y()));
    let a = if round.is_multiple_of(2) {
        format!(
            "deny to {x}\n egress deny to {{app=y}} in {{}}\n egress accept to {{app=x}} in {{}}\n egress accept to {y}"
        )
    } else {
        format!(
            "deny to {{app=x}} in {{}}\n egress deny to {y}\n egress accept to {x}\n egress accept to {{app=y}} in {{}}"
        )
    };
    let c = if round.is_multiple_of(2) { "{app=d}".to_owned() } else { block(&B) };
    format!(
        "cluster a admin 2 {{app=a}} in {{}}\n egress {a}\n egress accept to {{guest=yes}} in {{}} or {{round=r{round}}} in {{}}\n\
         policy shop/c {{app=c}}\n egress to {c} or {{guest=yes}} in {{}} or {{round=r{round}}}\n\
         pod far/guest guest=yes visit=v{} ip=10.244.9.77\n",
        round % 64
    )
}

fn endpoint(name: &str, host: &Host) -> LocalEndpoint {
    LocalEndpoint {
        key: EndpointKey { container_id: name.to_owned(), ifname: "eth0".to_owned() },
        pod: fixture::key(&format!("shop/{name}")),
        slot: host.slot,
        ifindex: host.ifindex,
        mac: host.mac,
        v4: Some(host.v4),
        v6: Some(host.v6),
    }
}

/// A daemon without its ring: what should be, what is, and how it gets there.
struct Daemon {
    planner: Planner,
    mirror: Mirror,
    tables: Tables,
    /// Plans whose leftovers are to be removed, when that may be.
    leftovers: VecDeque<(Instant, u64)>,
    /// Carries the swing out before everything else of a plan.
    hasty: bool,
}

impl Daemon {
    fn start(pins: &Bpffs, capacities: &Capacities, hasty: bool) -> anyhow::Result<Self> {
        let tables = Tables::new(load::load_some(Some(pins.path()), capacities, &[program::SWING])?)?;
        let capacity = Capacity::from_fn(|map| capacities.of(map));
        let pools = vec!["10.244.0.0/24".parse()?, "fd00:244::/64".parse()?];
        let mut planner = Planner::new(Config::default(), pools, Identities::default(), capacity);
        for (name, host) in [("a", A), ("c", C), ("d", B)] {
            planner.add_endpoint(endpoint(name, &host));
        }
        let mirror = tables.read()?;
        let mut daemon = Self { planner, mirror, tables, leftovers: VecDeque::new(), hasty: false };
        daemon.tell(&world())?;
        daemon.tell(&edit(0))?;
        daemon.hasty = hasty;
        Ok(daemon)
    }

    /// Takes objects, and brings the maps up to date.
    fn tell(&mut self, objects: &str) -> anyhow::Result<()> {
        for object in text::parse(objects).map_err(|error| anyhow!("{error}"))? {
            self.planner.apply(object);
        }
        let plan = self.planner.plan(&self.mirror)?;
        ensure!(plan.refusals.is_empty(), "{:?}", plan.refusals);
        let mut changes = plan.changes;
        if self.hasty {
            changes.sort_by_key(|change| !matches!(change, Change::Swing(_)));
        }
        self.carry_out(&changes)?;
        self.leftovers.push_back((Instant::now(), self.planner.round()));
        Ok(())
    }

    fn carry_out(&mut self, changes: &[Change]) -> anyhow::Result<()> {
        for change in changes {
            self.tables.apply(change).with_context(|| format!("{change:?}"))?;
            self.mirror.apply(change);
        }
        Ok(())
    }

    /// Removes what no packet needs any more.
    fn collect(&mut self) -> anyhow::Result<()> {
        let ripe = self.leftovers.iter().take_while(|(since, _)| since.elapsed() > GRACE).count();
        let Some((_, round)) = self.leftovers.drain(..ripe).next_back() else { return Ok(()) };
        let changes = self.planner.garbage_until(&self.mirror, round);
        self.carry_out(&changes)
    }

    /// Changes the rules again and again. Returns how often.
    fn run_until(mut self, stop: &AtomicBool) -> anyhow::Result<usize> {
        let mut round = 0;
        let mut most = 0;
        while !stop.load(Ordering::Relaxed) {
            // Not more than there is room for until the first may be removed.
            if self.mirror.rulesets.len() < 4_000 {
                round += 1;
                self.tell(&edit(round))?;
            } else {
                thread::yield_now();
            }
            most = most.max(self.mirror.rulesets.len());
            if round.is_multiple_of(16) {
                self.collect()?;
            }
        }
        ensure!(self.tables.read()? == self.mirror, "the maps do not hold what the daemon believes");
        thread::sleep(GRACE);
        self.collect()?;
        let left = self.mirror.rulesets.len();
        ensure!(left < 8, "{left} rule sets are left of at most {most}");
        Ok(round)
    }
}

/// Packets dropped for each of the reasons, and those that went on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outcome {
    by_rule: u64,
    unadmitted: u64,
    passed: u64,
}

/// Runs the programs while the rules change. Returns what has become of the packets, and how often rules changed.
fn run(length: Duration, hasty: bool) -> anyhow::Result<(Outcome, usize)> {
    let _inside = interfaces()?.enter()?;
    let pins = Bpffs::new()?;
    let mut capacities = Capacities::default();
    for (map, entries) in [(maps::CONNTRACK, 1024), (maps::PENDING, 1024), (maps::EVENTS, 1 << 16)] {
        capacities.set(map, entries)?;
    }
    let daemon = Daemon::start(&pins, &capacities, hasty)?;
    let programs = Programs::of(load::load_some(Some(pins.path()), &capacities, &[program::FROM_POD])?)?;
    let stop = AtomicBool::new(false);
    let before = Counts::read(&programs.ebpf);
    let planned = thread::scope(|scope| {
        let planning = scope.spawn(|| daemon.run_until(&stop));
        let sent = send_for(length, &programs, || planning.is_finished());
        stop.store(true, Ordering::Relaxed);
        let rounds = planning.join().expect("the planner does not panic");
        sent.and(rounds)
    })?;
    let moved = Counts::read(&programs.ebpf).since(&before);
    let dropped = |reason| moved.of(Count::Dropped(Hook::FromPod, reason));
    let outcome = Outcome {
        by_rule: dropped(DropReason::DenyRule),
        unadmitted: dropped(DropReason::DefaultDeny),
        passed: moved.of(Count::Passed(Hook::FromPod)),
    };
    Ok((outcome, planned))
}

fn send_for(length: Duration, programs: &Programs, over: impl Fn() -> bool) -> anyhow::Result<()> {
    let y = y();
    let flows = [(A, X), (A, y), (C, B)];
    let packets =
        FAMILIES.map(|family: Family| flows.map(|(from, to)| (from, from.udp(&to, family, [4000, 53]).bytes())));
    let began = Instant::now();
    while began.elapsed() < length && !over() {
        for (from, packet) in packets.iter().flatten() {
            let at = At::From(*from);
            programs.run(at.program(), packet, at.context(), REPEAT)?;
        }
    }
    Ok(())
}

/// A namespace with interfaces of fixed numbers, for the kernel runs programs on those that exist.
fn interfaces() -> anyhow::Result<&'static Netns> {
    static NETNS: OnceLock<Result<Netns, String>> = OnceLock::new();
    let made = NETNS.get_or_init(|| {
        let links = [A.ifindex, B.ifindex, C.ifindex, UPLINK].map(|index| {
            let peer = 100 + index;
            format!("link add h{index} index {index} type veth peer name p{index} index {peer}\n")
        });
        Netns::new(&links.concat()).map_err(|error| format!("{error:#}"))
    });
    made.as_ref().map_err(|error| anyhow!("{error}"))
}

#[test]
fn no_packet_at_full_rate_is_judged_by_some_of_the_old_and_some_of_the_new_rules() {
    trial(|| {
        let length = Duration::from_secs(times("BULKHEAD_PLAN_SECONDS", SECONDS).into());
        let (outcome, rounds) = run(length, false)?;
        println!("{outcome:?}, {rounds} plans in {length:?}");
        ensure!((outcome.unadmitted, outcome.passed) == (0, 0), "a mix: {outcome:?} in {rounds} plans");
        ensure!(outcome.by_rule > LEAST && rounds > 20, "hardly anything was tried: {outcome:?}, {rounds} plans");
        Ok(())
    });
}

/// That the test above would see it.
#[test]
fn pointers_that_swing_before_the_rules_are_written_are_seen() {
    trial(|| {
        let mut last = None;
        for _ in 0..10 {
            let (outcome, rounds) = run(Duration::from_secs(1), true)?;
            if outcome.unadmitted > 0 && outcome.passed > 0 {
                return Ok(());
            }
            last = Some((outcome, rounds));
        }
        Err(anyhow!("not seen in ten seconds: {last:?}"))
    });
}
