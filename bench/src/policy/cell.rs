//! One world, measured in a process that does nothing else: everything from nothing, as one node that has
//! to know the rules of all pods would, and then a node with its own pods while things change.

use std::{
    alloc::System,
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use daemon::{
    datapath::{
        load::{self, Capacities, program},
        maps::Tables,
    },
    reconcile::{Capacity, Change, EndpointKey, Identities, LocalEndpoint, Mirror, Planner},
};
use datapath_abi::{
    maps,
    policy::{PeerEntry, PeerKey, PortKey, RegionKey},
};
use policy::{
    Direction, Index, RuleTable, Universe,
    compile::Compiler,
    identity::Config,
    lower::{CookieTable, Limits, PodAddress, PortSet, lower_within},
    model::{Labels, Object, ObjectKey, PodKey},
};
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use super::world::World;
use crate::stats::quantile;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Pods of the node: what a kubelet runs at most by default (`--max-pods`).
const LOCAL_PODS: usize = 110;

/// What one step took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) ms: f64,
    pub(super) allocations: usize,
}

/// A change, measured again and again on a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) what: String,
    /// From the object to the list of writes, milliseconds, nearest rank.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// From the object to the last write into the kernel's maps, if there are any.
    pub(super) written: Option<Written>,
    /// Writes to maps, the median.
    pub(super) writes: usize,
}

/// Until the last write, milliseconds, nearest rank.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

/// What was found of a world.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Found {
    /// Objects into the index.
    pub(super) index: Step,
    /// Both tables of every pod, and their digests.
    pub(super) compile: Step,
    /// Every rule set into entries.
    pub(super) lower: Step,
    /// The three together, milliseconds.
    pub(super) total_ms: f64,
    /// Peak of the resident memory beyond what the bare objects take, MiB.
    pub(super) peak_mib: f64,
    pub(super) identities: usize,
    pub(super) rule_sets: usize,
    /// Rule sets that are refused, because they are too large for the maps' default sizes.
    pub(super) refused: usize,
    /// Entries of PEERS, REGIONS and PORTS.
    pub(super) entries: [usize; 3],
    /// What those take without the kernel's own share, bytes.
    pub(super) entry_bytes: usize,
    /// The first plan of a node with [`LOCAL_PODS`] of these pods.
    pub(super) node: Step,
    /// Entries of that plan.
    pub(super) node_writes: usize,
    pub(super) events: Vec<Event>,
}

pub(super) fn measure(world: World, rounds: usize, kernel: bool) -> anyhow::Result<Found> {
    let objects = world.objects();
    let before = resident()?;
    let (index, index_step) = timed(|| {
        let mut index = Index::new(Config::default());
        for object in &objects {
            index.apply(object.clone());
        }
        index
    });
    let (tables, compile_step) = timed(|| {
        let mut tables: HashMap<[u8; 16], Arc<RuleTable>> = HashMap::new();
        let mut compiler = Compiler::new(&index);
        for pod in index.pods() {
            for direction in [Direction::Egress, Direction::Ingress] {
                let (digest, table) = compiler.compile(&pod.key, direction);
                if !table.is_open() {
                    tables.insert(digest, table);
                }
            }
        }
        tables
    });
    let mut lowered = Lowered::default();
    let (universe, lower_step) = timed(|| {
        let universe = universe(&index);
        let mut cookies = CookieTable::default();
        for table in tables.values() {
            lowered.add(table, &universe, &mut cookies);
        }
        universe
    });
    let (identities, rule_sets) = (universe.len(), tables.len());
    let peak_mib = (peak()? - before) / 1024.0;
    drop((index, tables, universe));
    let Lowered { refused, entries, port_sets: _ } = lowered;
    let sizes =
        [size_of::<PeerKey>() + size_of::<PeerEntry>(), 4 + size_of::<RegionKey>() + size_of::<PeerEntry>(), 16];
    debug_assert_eq!(sizes[2], size_of::<PortKey>() + size_of::<datapath_abi::policy::Decision>());

    let mut node = Node::new(world, kernel)?;
    let (plan, node_step) = timed(|| {
        for object in &objects {
            node.planner.apply(object.clone());
        }
        node.planner.plan(&node.mirror)
    });
    let plan = plan?;
    node.carry_out(&plan.changes)?;
    let node_writes = plan.changes.len();
    let events = node.events(rounds)?;
    Ok(Found {
        total_ms: index_step.ms + compile_step.ms + lower_step.ms,
        index: index_step,
        compile: compile_step,
        lower: lower_step,
        peak_mib,
        identities,
        rule_sets,
        refused,
        entry_bytes: entries.iter().zip(sizes).map(|(count, size)| count * size).sum(),
        entries,
        node: node_step,
        node_writes,
        events,
    })
}

/// Everybody's identity, numbered in the order of the pods.
fn universe(index: &Index) -> Universe {
    let (mut universe, mut numbers) = (Universe::default(), Identities::default());
    for pod in index.pods() {
        let Some(key) = index.identity_key(&pod.key) else { continue };
        let Ok(number) = numbers.number(&key) else { break };
        universe.insert(number, key).expect("Identities gives numbers of pods only");
        universe.put_pod(number, pod.key.clone(), PodAddress::from(pod));
    }
    universe
}

/// Counts entries; keeps none.
#[derive(Debug, Default)]
struct Lowered {
    refused: usize,
    entries: [usize; 3],
    port_sets: HashSet<Arc<PortSet>>,
}

impl Lowered {
    fn add(&mut self, table: &RuleTable, universe: &Universe, cookies: &mut CookieTable) {
        let Ok(rules) = lower_within(table, universe, cookies, &Limits::default()) else {
            self.refused += 1;
            return;
        };
        self.entries[0] += rules.peers.len();
        self.entries[1] += rules.regions.len();
        for peer in rules.peers.into_values().chain(rules.regions.into_values()) {
            if !peer.ports.is_empty() && !self.port_sets.contains(&peer.ports) {
                self.entries[2] += peer.ports.entries.len();
                self.port_sets.insert(peer.ports);
            }
        }
    }
}

/// A node's planner, and a mirror of what the kernel holds, or would.
struct Node {
    world: World,
    planner: Planner,
    mirror: Mirror,
    kernel: Option<Tables>,
}

/// What one event took, milliseconds.
struct Took {
    /// Until the list of writes.
    planned: f64,
    /// Until the last of them.
    written: Option<f64>,
    writes: usize,
}

impl Node {
    fn new(world: World, kernel: bool) -> anyhow::Result<Self> {
        // As large as needed: what is measured is time, not what is refused.
        let capacity = Capacity::from_fn(|_| 1 << 22);
        let kernel = if kernel { Some(tables()?) } else { None };
        let pools = vec!["10.0.0.0/8".parse().expect("a network")];
        let mut planner = Planner::new(Config::default(), pools, Identities::default(), capacity);
        let step = (world.pods / LOCAL_PODS).max(1);
        for (slot, pod) in (0..world.pods).step_by(step).take(LOCAL_PODS).enumerate() {
            planner.add_endpoint(endpoint(world, slot as u32 + 1, pod));
        }
        let mirror = kernel.as_ref().map(Tables::read).transpose()?.unwrap_or_default();
        Ok(Self { world, planner, mirror, kernel })
    }

    fn carry_out(&mut self, changes: &[Change]) -> anyhow::Result<()> {
        for change in changes {
            if let Some(tables) = &mut self.kernel {
                tables.apply(change).with_context(|| format!("{change:?}"))?;
            }
            self.mirror.apply(change);
        }
        Ok(())
    }

    /// One event, and what follows from it; the clean-up that comes later is not part of it.
    fn event(&mut self, apply: Vec<Object>, delete: &[ObjectKey]) -> anyhow::Result<Took> {
        let began = Instant::now();
        for object in apply {
            self.planner.apply(object);
        }
        for key in delete {
            self.planner.delete(key);
        }
        let plan = self.planner.plan(&self.mirror)?;
        let planned = ms(began.elapsed());
        self.carry_out(&plan.changes)?;
        let written = self.kernel.is_some().then(|| ms(began.elapsed()));
        let garbage = self.planner.garbage(&self.mirror);
        self.carry_out(&garbage)?;
        Ok(Took { planned, written, writes: plan.changes.len() })
    }

    fn events(&mut self, rounds: usize) -> anyhow::Result<Vec<Event>> {
        let world = self.world;
        let step = (world.pods / LOCAL_PODS).max(1);
        // A pod of the node, and one of another.
        let (near, far) = (0, if step > 1 { 1 } else { world.pods - 1 });
        let labelled = |pod: usize, round: usize| {
            let mut pod = world.pod(pod);
            pod.labels = pod.labels.with("version", &format!("v{}", round % 2));
            pod.into()
        };
        let stranger = World { pods: world.pods + 1, ..world };
        let new = |label: Option<String>| {
            let mut pod = world.pod(far);
            pod.key = PodKey::new(&pod.key.namespace, "pod-new");
            pod.ips = [World::address(stranger.pods).into()].into();
            if let Some(label) = label {
                pod.labels = pod.labels.with("version", &label);
            }
            Object::from(pod)
        };
        let new_key = [new(None).key()];
        let namespace = |round: usize| {
            let team = ["red", "green"][round % 2];
            let name = world.key(near).namespace.clone();
            Object::Namespace(policy::model::Namespace::new(name, Labels::from_iter([("team", team)])))
        };
        type Make<'a> = Box<dyn Fn(usize) -> (Vec<Object>, Vec<ObjectKey>) + 'a>;
        let kinds: [(&str, Make<'_>); 7] = [
            (
                "a policy of pods here changes",
                Box::new(|round| (vec![Object::NetworkPolicy(world.policy(near, 1 + (round % 2) as u16))], Vec::new())),
            ),
            (
                "a policy comes and goes",
                Box::new(|round| {
                    let mut policy = world.policy(near, 3);
                    policy.name = "policy-new".to_owned();
                    let object = Object::NetworkPolicy(policy);
                    if round % 2 == 0 { (vec![object], Vec::new()) } else { (Vec::new(), vec![object.key()]) }
                }),
            ),
            (
                "a pod elsewhere comes and goes",
                Box::new(
                    |round| {
                        if round % 2 == 0 { (vec![new(None)], Vec::new()) } else { (Vec::new(), new_key.to_vec()) }
                    },
                ),
            ),
            (
                "the same, of a new identity",
                Box::new(|round| {
                    let label = format!("v{round}");
                    if round % 2 == 0 { (vec![new(Some(label))], Vec::new()) } else { (Vec::new(), new_key.to_vec()) }
                }),
            ),
            ("a label of a pod elsewhere changes", Box::new(|round| (vec![labelled(far, round)], Vec::new()))),
            ("a label of a pod here changes", Box::new(|round| (vec![labelled(near, round)], Vec::new()))),
            ("a label of a namespace changes", Box::new(|round| (vec![namespace(round)], Vec::new()))),
        ];
        let mut events = Vec::new();
        for (what, make) in kinds {
            let mut found = Vec::new();
            for round in 0..rounds {
                let (apply, delete) = make(round);
                found.push(self.event(apply, &delete).context(what)?);
            }
            events.push(Event::of(what, found));
        }
        Ok(events)
    }
}

impl Event {
    fn of(what: &str, found: Vec<Took>) -> Self {
        let quantiles = |took: Vec<f64>| [0.5, 0.99, 1.0].map(|share| quantile(&took, share));
        let [p50_ms, p99_ms, max_ms] = quantiles(found.iter().map(|took| took.planned).collect());
        let written: Option<Vec<f64>> = found.iter().map(|took| took.written).collect();
        let written = written.map(quantiles).map(|[p50_ms, p99_ms, max_ms]| Written { p50_ms, p99_ms, max_ms });
        let mut writes: Vec<usize> = found.iter().map(|took| took.writes).collect();
        writes.sort_unstable();
        Self { what: what.to_owned(), p50_ms, p99_ms, max_ms, written, writes: writes[writes.len() / 2] }
    }
}

/// Maps of the kernel that nobody else has, with room for any of the worlds.
fn tables() -> anyhow::Result<Tables> {
    let mut capacities = Capacities::default();
    for map in [maps::ADDRESSES, maps::PEERS, maps::REGIONS, maps::PORTS, maps::RULESETS] {
        capacities.set(map, 1 << 20)?;
    }
    Ok(Tables::new(load::load_some(None, &capacities, &[program::SWING])?)?)
}

fn endpoint(world: World, slot: u32, pod: usize) -> LocalEndpoint {
    let [_, a, b, c] = World::address(pod).octets();
    LocalEndpoint {
        key: EndpointKey { container_id: format!("container-{slot}"), ifname: "eth0".to_owned() },
        pod: world.key(pod),
        slot,
        ifindex: 100 + slot,
        mac: [2, 0, 0, a, b, c],
        v4: Some(Ipv4Addr::from(u32::from(World::address(pod)))),
        v6: None,
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Step) {
    let region = Region::new(ALLOCATOR);
    let began = Instant::now();
    let result = work();
    let ms = ms(began.elapsed());
    (result, Step { ms, allocations: region.change().allocations })
}

fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// KiB that the process has in memory now, and at most so far (proc_pid_status(5)).
fn resident() -> anyhow::Result<f64> {
    memory("VmRSS")
}

fn peak() -> anyhow::Result<f64> {
    memory("VmHWM")
}

fn memory(field: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let fields: BTreeMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let value = fields.get(field).with_context(|| format!("{field} in /proc/self/status"))?;
    value.trim().trim_end_matches(" kB").trim().parse().with_context(|| format!("{field}: {value}"))
}
