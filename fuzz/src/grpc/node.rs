//! A node that exists only in memory, for the admin API to tell of: three pods, two policies, maps
//! that a plan has filled, no kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use daemon::{
    app::{
        admin::{AdminParts, AdminService, Facts, Look, Question, Tally},
        engine::{EngineError, State},
        gate::GateState,
    },
    reconcile::{Capacity, EndpointKey, Identities, LocalEndpoint, Mirror, Planner},
    source::SourceStatus,
};
use datapath_abi::{
    event::FlowEvent,
    maps::{self, Counter, Scalar},
};
use flows::{Pipeline, fixture};
use futures::future::BoxFuture;
use objects::{Outcome, parse_documents};
use policy::model::PodKey;
use tokio::sync::watch;

const OBJECTS: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
- {apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: shop, labels: {app: web}}}
- {apiVersion: v1, kind: Pod, metadata: {name: db-0, namespace: shop, labels: {app: db}}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: db, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: db}}
    ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{protocol: TCP, port: 5432}, {protocol: UDP, port: 60, endPort: 63}]
    - from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.7/32]}}]
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: web-out, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: web}}
    policyTypes: [Egress]
    egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]
";

/// The service. Always the same one: nothing that is asked changes it.
pub(super) fn service() -> &'static AdminService {
    static SERVICE: OnceLock<AdminService> = OnceLock::new();
    SERVICE.get_or_init(|| AdminService::new(parts()))
}

/// The state behind a lock instead of the engine's thread.
struct Held(Mutex<State>);

impl Look for Held {
    fn look(&self, question: Question) -> BoxFuture<'_, Result<(), EngineError>> {
        question(&self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async { Ok(()) })
    }
}

/// Counters of programs that are not there.
struct Nothing;

impl Tally for Nothing {
    fn by_reason(&self) -> Result<Vec<(u32, u32, Counter)>, String> {
        Ok(Vec::new())
    }

    fn scalar(&self, _: Scalar) -> Result<u64, String> {
        Ok(0)
    }
}

fn parts() -> AdminParts {
    let pools = ["10.88.0.0/24", "fd88::/64"].map(|range| range.parse().expect("a range"));
    let mut planner =
        Planner::new(policy::identity::Config::default(), pools.into(), Identities::default(), Capacity::default());
    for document in parse_documents("node.yaml", OBJECTS.as_bytes()) {
        match document.outcome {
            Outcome::Object(object) => planner.apply(*object),
            other => unreachable!("the objects are right: {other:?}"),
        }
    }
    for (slot, pod) in [(1, "web-0"), (2, "db-0"), (3, "stranger")] {
        planner.add_endpoint(LocalEndpoint {
            key: EndpointKey { container_id: format!("c0ffee{slot}aa9c41d7"), ifname: "eth0".to_owned() },
            pod: PodKey::new("shop", pod),
            slot,
            ifindex: 20 + slot,
            mac: [0x0a, 0x58, 10, 88, 0, 1 + slot as u8],
            v4: Some(Ipv4Addr::new(10, 88, 0, 1 + slot as u8)),
            v6: Some(Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, 1 + slot as u16)),
        });
    }
    planner.set_host_addresses(BTreeSet::from([[10, 0, 0, 1].into()]));
    let mut mirror = Mirror::default();
    let plan = planner.plan(&mirror).expect("numbers are left");
    for change in &plan.changes {
        mirror.apply(change);
    }
    let state = State {
        planner,
        mirror,
        refusals: plan.refusals,
        trouble: None,
        synced: true,
        last_change: None,
        plans: 1,
        last_plan: Duration::ZERO,
        services: daemon::app::engine::Services::default(),
    };
    // The sender may go: the last value stays.
    let (_, source) = watch::channel(Arc::new(SourceStatus { synced: true, ..SourceStatus::default() }));
    let (_, obstacles) = watch::channel(Vec::new());
    let (_, gate) = watch::channel(GateState::default());
    AdminParts {
        facts: facts(),
        engine: Arc::new(Held(Mutex::new(state))),
        source,
        counts: Arc::new(Nothing),
        sweep: Arc::default(),
        put_back: Arc::new(Default::default),
        shared: Arc::new(|| None),
        gate,
        flow_trouble: watch::channel(None).1,
        connections: None,
        uplink: Arc::new(|| Box::pin(async { None })),
        pools: Arc::new(Vec::new),
        pipeline: Arc::new(Pipeline::new(fixture::node(), NonZeroUsize::MIN)),
        extras: Arc::new(|_| None),
        obstacles,
    }
}

fn facts() -> Facts {
    Facts {
        version: "1.2.3".to_owned(),
        commit: String::new(),
        abi_version: datapath_abi::ABI_VERSION,
        node: "node-a".to_owned(),
        kernel: "6.12.9".to_owned(),
        attach_mode: "tcx".to_owned(),
        device: "veth".to_owned(),
        pin_path: format!("/sys/fs/bpf/bulkhead/v{}", datapath_abi::ABI_VERSION).into(),
        mtu: 1500,
        routing: "native".to_owned(),
        source: "directory:/etc/bulkhead/objects".to_owned(),
        started: Instant::now(),
        capacities: maps::ALL.iter().map(|info| (info.name.to_owned(), info.capacity)).collect::<BTreeMap<_, _>>(),
    }
}

/// An event as the ring buffer has it.
pub(super) fn bytes_of(event: &FlowEvent) -> Vec<u8> {
    zerocopy::IntoBytes::as_bytes(event).to_vec()
}
