//! The service on a node that exists only in memory: a planner filled as the engine fills it, a
//! mirror in place of the kernel, canned counters. Each file asks one noun.

mod dump;
mod endpoints;
mod explain;
mod health;
mod hostile;
mod policies;
mod services;
mod status;
mod wire;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{Arc, MutexGuard},
};

use datapath_abi::maps;
use flows::record::Node as FlowNode;
use policy::{
    fixture::{key, text},
    model::{Object, ObjectKey, Workload},
};

use super::*;
use crate::{
    reconcile::{Capacity, Identities, LocalEndpoint, Mirror, Planner},
    source::folder::{Change, Folder},
    telemetry::metrics::HOOKS,
};

/// A shop of three tiers, of which `web-1` runs elsewhere; a stranger that nobody has described.
pub(super) const SHOP: &str = "
namespace shop team=a
namespace dev
pod shop/web-0 app=web
pod shop/web-1 app=web ip=10.99.0.3
pod shop/db-0 app=db sa=db port=pg:TCP:5432
pod shop/db-old app=db finished ip=10.99.0.9
policy shop/db-clients {app=db}
  ingress from {app=web} ports TCP/pg, UDP/60-63
  ingress from 192.0.2.0/24 except 192.0.2.7/32
policy shop/web-out {app=web}
  egress to {app=db} ports TCP/5432
  egress to {} in {}
";

/// What the engine holds, behind a lock instead of a thread.
pub(super) struct Held(Mutex<State>);

impl Look for Held {
    fn look(&self, question: Question) -> BoxFuture<'_, Result<(), EngineError>> {
        question(&lock(&self.0));
        Box::pin(async { Ok(()) })
    }
}

/// An engine that has ended.
pub(super) struct Gone;

impl Look for Gone {
    fn look(&self, _: Question) -> BoxFuture<'_, Result<(), EngineError>> {
        Box::pin(async { Err(EngineError::Stopped) })
    }
}

/// Counters of programs that are not there.
#[derive(Clone, Default)]
pub(super) struct Canned {
    pub(super) counters: Vec<(u32, u32, Counter)>,
    pub(super) scalars: BTreeMap<Scalar, u64>,
    pub(super) broken: bool,
}

impl Tally for Mutex<Canned> {
    fn by_reason(&self) -> Result<Vec<(u32, u32, Counter)>, String> {
        let canned = lock(self);
        if canned.broken { Err("map COUNTERS: read: no such file".to_owned()) } else { Ok(canned.counters.clone()) }
    }

    fn scalar(&self, scalar: Scalar) -> Result<u64, String> {
        Ok(lock(self).scalars.get(&scalar).copied().unwrap_or(0))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node to be asked.
pub(super) struct Node {
    pub(super) held: Arc<Held>,
    pub(super) counts: Arc<Mutex<Canned>>,
    pub(super) source: watch::Sender<Arc<SourceStatus>>,
    pub(super) extras: Arc<Mutex<BTreeMap<EndpointKey, EndpointExtra>>>,
    pub(super) pools: Arc<Mutex<Vec<(IpNetwork, u64, u64)>>>,
    pub(super) obstacles: watch::Sender<Vec<String>>,
    pub(super) gate: watch::Sender<GateState>,
    pub(super) parts: AdminParts,
}

/// The shop, planned.
pub(super) fn shop() -> Node {
    Node::new(Capacity::default(), SHOP)
}

impl Node {
    /// With maps of these capacities and these objects, all brought up to date.
    pub(super) fn new(capacity: Capacity, objects: &str) -> Self {
        let node = Self::empty(capacity);
        node.apply(objects);
        for (slot, pod, last) in [(1, "shop/web-0", 2), (2, "shop/db-0", 3), (3, "dev/stranger", 4)] {
            node.add(slot, pod, last);
        }
        node.state().planner.set_host_addresses(BTreeSet::from([IpAddr::from([10, 0, 0, 1])]));
        node.state().synced = true;
        node.plan();
        node
    }

    fn empty(capacity: Capacity) -> Self {
        let pools: Vec<IpNetwork> = ["10.88.0.0/24", "fd88::/64"].map(|range| range.parse().unwrap()).into();
        let planner = Planner::new(policy::identity::Config::default(), pools.clone(), Identities::default(), capacity);
        let held = Arc::new(Held(Mutex::new(State {
            planner,
            mirror: Mirror::default(),
            refusals: Vec::new(),
            trouble: None,
            synced: false,
            last_change: None,
            plans: 0,
            last_plan: Duration::ZERO,
            services: crate::app::engine::Services::default(),
        })));
        let counts = Arc::new(Mutex::new(Canned::default()));
        let (source, receiver) = watch::channel(Arc::new(SourceStatus { synced: true, ..SourceStatus::default() }));
        let extras: Arc<Mutex<BTreeMap<EndpointKey, EndpointExtra>>> = Arc::default();
        let usage: Arc<Mutex<Vec<(IpNetwork, u64, u64)>>> =
            Arc::new(Mutex::new(vec![(pools[1], 1, u64::MAX), (pools[0], 3, 250)]));
        let flow_node =
            FlowNode { name: "node-a".to_owned(), cluster: String::new(), labels: BTreeMap::new(), epoch: 0 };
        let (tell_extras, tell_pools) = (extras.clone(), usage.clone());
        let (obstacles, told_obstacles) = watch::channel(Vec::new());
        let (gate, told_gate) = watch::channel(GateState::default());
        let parts = AdminParts {
            facts: facts(),
            engine: held.clone(),
            source: receiver,
            counts: counts.clone(),
            sweep: Arc::default(),
            connections: None,
            uplink: Arc::new(|| Box::pin(async { Some("eth0".to_owned()) })),
            pools: Arc::new(move || lock(&tell_pools).clone()),
            pipeline: Arc::new(Pipeline::new(Arc::new(flow_node), NonZeroUsize::new(64).unwrap())),
            extras: Arc::new(move |key| lock(&tell_extras).get(key).cloned()),
            put_back: Arc::new(Default::default),
            shared: Arc::new(|| None),
            obstacles: told_obstacles,
            gate: told_gate,
            flow_trouble: watch::channel(None).1,
        };
        Self { held, counts, source, extras, pools: usage, obstacles, gate, parts }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.held.0)
    }

    pub(super) fn service(&self) -> AdminService {
        AdminService::new(self.parts.clone())
    }

    /// Removes what nobody refers to any more.
    pub(super) fn collect(&self) {
        let State { planner, mirror, .. } = &mut *self.state();
        planner.garbage(mirror).iter().for_each(|change| mirror.apply(change));
    }

    /// How many entries of rules the maps hold.
    pub(super) fn entries(&self) -> u64 {
        let State { mirror, .. } = &*self.state();
        (mirror.peers.len() + mirror.regions.len() + mirror.ports.len()) as u64
    }

    /// Objects as text; those of workloads get one.
    pub(super) fn apply(&self, objects: &str) {
        for object in text::parse(objects).unwrap() {
            let object = match object {
                Object::Pod(mut pod) => {
                    let tier = pod.key.name.split('-').next().unwrap_or_default().to_owned();
                    Arc::make_mut(&mut pod).workload = Some(Workload { kind: "Deployment".to_owned(), name: tier });
                    Object::Pod(pod)
                }
                other => other,
            };
            self.state().planner.apply(object);
        }
    }

    pub(super) fn delete(&self, key: &ObjectKey) {
        self.state().planner.delete(key);
    }

    /// An endpoint of a pod, at `10.88.0.LAST` and `fd88::LAST`.
    pub(super) fn add(&self, slot: u32, pod: &str, last: u8) {
        self.state().planner.add_endpoint(LocalEndpoint {
            key: endpoint_key(slot),
            pod: key(pod),
            slot,
            ifindex: 20 + slot,
            mac: [0x0a, 0x58, 10, 88, 0, last],
            v4: Some(Ipv4Addr::new(10, 88, 0, last)),
            v6: Some(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, last.into())),
        });
    }

    /// Plans and carries out, as the engine does.
    pub(super) fn plan(&self) {
        let state = &mut *self.state();
        let plan = state.planner.plan(&state.mirror).unwrap();
        for change in &plan.changes {
            state.mirror.apply(change);
        }
        state.refusals = plan.refusals;
        state.plans += 1;
        state.last_plan = Duration::from_micros(250);
    }

    /// Reads files as the source does, and tells the service of them. Nothing reaches the planner.
    pub(super) fn files(&self, versions: &[(&str, &str)]) {
        let mut folder = Folder::new(objects::Limits::default());
        for (name, content) in versions {
            folder.update([((*name).to_owned(), Change::Content(content.as_bytes().to_vec()))]);
        }
        self.source.send_replace(Arc::new(folder.status(true)));
    }
}

pub(super) fn endpoint_key(slot: u32) -> EndpointKey {
    EndpointKey { container_id: format!("c0ffee{slot}aa9c41d7"), ifname: "eth0".to_owned() }
}

pub(super) fn extra(stage: Stage) -> EndpointExtra {
    EndpointExtra {
        netns: "/run/netns/a".to_owned(),
        host_ifname: "bh0001".to_owned(),
        created: SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_323_045_900),
        stage,
    }
}

fn facts() -> Facts {
    Facts {
        version: "1.2.3".to_owned(),
        commit: "0123456789ab".to_owned(),
        abi_version: datapath_abi::ABI_VERSION,
        node: "node-a".to_owned(),
        kernel: "6.12.9".to_owned(),
        attach_mode: "tcx".to_owned(),
        device: "veth".to_owned(),
        pin_path: "/sys/fs/bpf/bulkhead/v1".into(),
        mtu: 1500,
        routing: "native".to_owned(),
        source: "directory:/etc/bulkhead/objects".to_owned(),
        started: Instant::now(),
        capacities: maps::ALL.iter().map(|info| (info.name.to_owned(), info.capacity)).collect(),
    }
}

/// The code and message of a refusal.
pub(super) fn refused<T: fmt::Debug>(answer: Result<Response<T>, Status>) -> String {
    let status = answer.unwrap_err();
    format!("{:?}: {}", status.code(), status.message())
}

pub(super) fn pod(path: &str) -> pb::PodName {
    super::convert::pod_name(&key(path))
}

/// An object for people: `NetworkPolicy shop/db`.
pub(super) fn path(object: Option<&pb::ObjectRef>) -> String {
    object.map_or_else(|| "-".to_owned(), |it| format!("{} {}/{}", it.kind, it.namespace, it.name))
}

/// A rule for people: `shop/db ingress[0]`.
pub(super) fn rule(rule: Option<&pb::RuleRef>) -> String {
    let Some(rule) = rule else { return "-".to_owned() };
    assert!(rule.cookie != 0, "a rule in force has a number");
    let direction = if rule.direction == pb::Direction::Egress as i32 { "egress" } else { "ingress" };
    let policy = rule.policy.clone().unwrap_or_default();
    format!("{}/{} {direction}[{}]", policy.namespace, policy.name, rule.index)
}

#[tokio::test]
async fn identities_have_their_pods_counted() {
    let node = shop();
    let ask = |reserved| pb::ListIdentitiesRequest { reserved };
    let answer = node.service().list_identities(Request::new(ask(false))).await.unwrap().into_inner();
    let of = |identity: &pb::Identity| {
        let labels: Vec<String> =
            identity.labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect();
        let account = &identity.service_account;
        format!("{} {} {account} {}/{}", identity.namespace, labels.join(","), identity.local_pods, identity.pods)
    };
    let lines: Vec<String> = answer.identities.iter().map(of).collect();
    let mut sorted = lines.clone();
    sorted.sort();
    assert_eq!(sorted, ["dev  default 1/1", "shop app=db db 1/1", "shop app=web default 1/2"]);
    let numbers: Vec<u32> = answer.identities.iter().map(|identity| identity.number).collect();
    assert_eq!(numbers, [256, 257, 258]);
    let shop = answer.identities.iter().find(|identity| identity.service_account == "db").unwrap();
    let labels: Vec<&str> = shop.namespace_labels.iter().map(|label| label.value.as_str()).collect();
    assert_eq!(labels, ["shop", "a"]);

    let answer = node.service().list_identities(Request::new(ask(true))).await.unwrap().into_inner();
    let numbers: Vec<u32> = answer.identities.iter().map(|identity| identity.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 6, 7, 256, 257, 258]);
    assert_eq!(answer.identities[4].reserved_name, "remote-node");
}

#[tokio::test]
async fn counters_leave_zeroes_out_and_sort() {
    let node = shop();
    let counter = |packets| Counter { packets, bytes: packets * 100 };
    *lock(&node.counts) = Canned {
        counters: vec![(1, 0, counter(5)), (0, 2, counter(0)), (0, 16, counter(1)), (0, 1, counter(2))],
        scalars: BTreeMap::from([(Scalar::EventsWritten, 8)]),
        broken: false,
    };
    let answer = node.service().counters(Request::new(pb::CountersRequest {})).await.unwrap().into_inner();
    let lines: Vec<String> = answer
        .counters
        .iter()
        .map(|it| format!("{} {} {} {}p {}b", it.hook, it.reason, it.reason_name, it.packets, it.bytes))
        .collect();
    assert_eq!(lines, ["from_pod 1 default_deny 2p 200b", "from_pod 16 martian 1p 100b", "to_pod 0 passed 5p 500b"]);
    assert!(answer.counters.iter().all(|it| HOOKS.contains(&it.hook.as_str()) && !it.reason_text.is_empty()));
    let scalars: Vec<(&str, u64)> = answer.scalars.iter().map(|it| (it.name.as_str(), it.value)).collect();
    let expected: Vec<(&str, u64)> =
        Scalar::ALL.iter().map(|&(scalar, name)| (name, if scalar == Scalar::EventsWritten { 8 } else { 0 })).collect();
    assert_eq!(scalars, expected);

    lock(&node.counts).broken = true;
    let error = refused(node.service().counters(Request::new(pb::CountersRequest {})).await);
    assert!(error.starts_with("Internal: the counters cannot be read: map COUNTERS: read: no such file;"), "{error}");
}
