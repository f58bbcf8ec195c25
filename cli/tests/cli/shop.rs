//! Canned answers: a shop of three tiers on one node, one policy of which is broken.

use proto::bulkhead::admin::v1::{
    self as pb, Condition, Counter, CountersResponse, Direction, Endpoint, EndpointDetail, EndpointDirection,
    EndpointState, GetEndpointResponse, GetPolicyResponse, Identity, Label, ListEndpointsResponse,
    ListIdentitiesResponse, ListPoliciesResponse, LoweredEntry, MapEntry, MapFill, ObjectRef, Origin, PodName, Policy,
    PolicyStatus, PolicyWarning, Pool, Refusal, RuleRef, RuleSummary, Severity, SourceError, StatusResponse, Verdict,
    Workload, lowered_entry::Peer,
};

use crate::{fake::Answers, shop_explain};

/// Everything, as a daemon would answer.
pub(crate) fn answers() -> Answers {
    Answers {
        status: healthy(),
        endpoints: ListEndpointsResponse { endpoints: vec![db(), web(), bare()] },
        endpoint: GetEndpointResponse { endpoints: vec![db_detail()] },
        identities: identities(),
        policies: ListPoliciesResponse { policies: vec![db_ingress(), stale_policy(), refused_policy()] },
        policy: policy_detail(),
        services: crate::shop_services::services(),
        explain: shop_explain::denied(),
        counters: counters(),
        flow_stats: flow_stats(),
        maps: maps(),
        ..Answers::default()
    }
}

pub(crate) fn network_policy(name: &str) -> ObjectRef {
    ObjectRef { kind: "NetworkPolicy".into(), namespace: "shop".into(), name: name.into() }
}

pub(crate) fn rule(name: &str, direction: Direction, index: u32) -> RuleRef {
    RuleRef { policy: Some(network_policy(name)), direction: direction as i32, index, cookie: 40 + index }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Vec<Label> {
    pairs.iter().map(|(key, value)| Label { key: (*key).into(), value: (*value).into() }).collect()
}

pub(crate) fn pod(name: &str) -> PodName {
    PodName { namespace: "shop".into(), name: name.into() }
}

/// All is well.
pub(crate) fn healthy() -> StatusResponse {
    let map = |name: &str, kind: &str, entries, capacity, purpose: &str| MapFill {
        name: name.into(),
        kind: kind.into(),
        entries,
        capacity,
        purpose: purpose.into(),
    };
    StatusResponse {
        build: Some(pb::Build {
            version: "0.1.0".into(),
            commit: "0123456789ab".into(),
            abi_version: datapath_abi::ABI_VERSION,
        }),
        node: "node-a".into(),
        uptime_seconds: 11_520,
        datapath: Some(pb::Datapath {
            kernel: "6.12.9".into(),
            attach_mode: "tcx".into(),
            device: "veth".into(),
            pin_path: "/sys/fs/bpf/bulkhead/v1".into(),
            uplink: "eth0".into(),
            mtu: 1500,
            routing: "native".into(),
            gate: Some(pb::Gate {
                interfaces: vec![pb::GateInterface { name: "eth0".into(), way: "driver".into() }],
                denied_ranges: 3,
            }),
        }),
        counts: Some(pb::Counts {
            endpoints: 3,
            endpoints_isolated: 2,
            identities: 3,
            namespaces: 2,
            pods: 2,
            policies: 1,
            rule_sets: 4,
        }),
        source: Some(pb::Source {
            spec: "directory:/etc/bulkhead/objects".into(),
            synced: true,
            last_change_seconds: Some(12),
            errors: Vec::new(),
        }),
        refusals: Vec::new(),
        maps: vec![
            map("CONNTRACK", "hash", 112, 131_072, "connections with packets in both directions"),
            map("PEERS", "hash", 60_000, 65_536, "who may talk, by rule set and identity or class"),
            map("REGIONS", "lpm_trie", 0, 65_536, "who may talk, by rule set and address (ipBlock)"),
        ],
        conntrack: Some(pb::Conntrack { established: 112, pending: 3, redecided: 7, full: 0 }),
        pools: vec![
            Pool { range: "10.88.0.0/24".into(), used: 3, free: 250 },
            Pool { range: "fd88::/64".into(), used: 3, free: u64::MAX },
        ],
        events: Some(pb::Events { written: 1204, lost: 0, records: 900, record_capacity: 4096 }),
        conditions: Vec::new(),
    }
}

/// A file is broken, a policy does not fit, events were lost.
pub(crate) fn unwell() -> StatusResponse {
    let condition = |severity: Severity, code: &str, message: &str, fix: &str| Condition {
        severity: severity as i32,
        code: code.into(),
        message: message.into(),
        fix: fix.into(),
    };
    let mut status = healthy();
    status.conditions = vec![
        condition(Severity::Error, "source-errors", "2 objects of the source are refused", "see below, file by file"),
        condition(Severity::Warning, "events-lost", "17 events found the ring buffer full", "raise maps.events"),
        condition(Severity::Info, "no-uplink", "no default route: pods reach only this node", ""),
    ];
    status.refusals = vec![Refusal {
        object: Some(ObjectRef { kind: "Pod".into(), namespace: "shop".into(), name: "db-0".into() }),
        direction: Direction::Ingress as i32,
        reason: "needs 70000 entries of PEERS, 5536 of 65536 are free".into(),
        fix: "raise maps.peers or select fewer peers".into(),
        meanwhile: "its last complete rules stay".into(),
    }];
    if let Some(source) = &mut status.source {
        source.last_change_seconds = None;
        source.synced = false;
        source.errors = vec![
            SourceError {
                origin: Some(Origin { file: "db.yaml".into(), document: 2, line: 14 }),
                object: Some(network_policy("db-ingress")),
                field: "spec.ingress[0].from[1].ipBlock.cidr".into(),
                // Whoever may write a file must not be able to write to the operator's terminal.
                message: "not a CIDR: \"10.0.0.0/33\u{1b}[2J\"".into(),
                fix: "use a prefix length of at most 32".into(),
                last_good_in_force: true,
                denied_meanwhile: false,
            },
            SourceError {
                origin: Some(Origin { file: "junk.yaml".into(), document: 1, line: 0 }),
                object: None,
                field: String::new(),
                message: "not YAML: mapping values are not allowed here".into(),
                fix: String::new(),
                last_good_in_force: false,
                denied_meanwhile: true,
            },
        ];
    }
    status
}

fn endpoint(name: &str, slot: u32, identity: u32) -> Endpoint {
    Endpoint {
        namespace: "shop".into(),
        pod: name.into(),
        container_id: format!("{slot:02}aa9c41d7e35b"),
        ifname: "eth0".into(),
        host_ifname: format!("bh{slot:08x}"),
        ifindex: 20 + slot,
        ips: vec![format!("10.88.0.{}", 1 + slot), format!("fd88::{}", 1 + slot)],
        mac: format!("0a:58:0a:58:00:{:02x}", 1 + slot),
        identity,
        slot,
        state: EndpointState::Ready as i32,
        has_object: true,
        netns: format!("/run/netns/{name}"),
        created_unix_seconds: 1_767_323_045,
        ..Endpoint::default()
    }
}

fn side(direction: Direction, rule_set: u32, policies: &[&str]) -> EndpointDirection {
    EndpointDirection {
        direction: direction as i32,
        isolated: !policies.is_empty(),
        rule_set,
        generation: 5,
        policies: policies.iter().map(|name| network_policy(name)).collect(),
    }
}

fn db() -> Endpoint {
    Endpoint {
        labels: labels(&[("app", "db"), ("tier", "back")]),
        service_account: "db".into(),
        workload: Some(Workload { kind: "StatefulSet".into(), name: "db".into() }),
        directions: vec![side(Direction::Egress, 0, &[]), side(Direction::Ingress, 3, &["db-ingress", "deny-all"])],
        ..endpoint("db-0", 1, 301)
    }
}

fn web() -> Endpoint {
    Endpoint {
        labels: labels(&[("app", "web")]),
        directions: vec![side(Direction::Egress, 2, &["web-egress"]), side(Direction::Ingress, 0, &[])],
        state: EndpointState::Stale as i32,
        state_reason: "the new rules do not fit".into(),
        ..endpoint("web-0", 2, 302)
    }
}

/// A pod that a runtime started and nobody described.
fn bare() -> Endpoint {
    Endpoint {
        directions: vec![side(Direction::Egress, 0, &[]), side(Direction::Ingress, 0, &[])],
        has_object: false,
        state: EndpointState::Lost as i32,
        ..endpoint("zz-debug", 3, 303)
    }
}

fn db_detail() -> EndpointDetail {
    let entry = |peer: Peer, text: &str, protocol: &str, ports: (u32, u32), verdict: Verdict, rule: Option<RuleRef>| {
        LoweredEntry {
            direction: Direction::Ingress as i32,
            peer: Some(peer),
            peer_text: text.into(),
            protocol: protocol.into(),
            port_first: ports.0,
            port_last: ports.1,
            verdict: verdict as i32,
            precedence: 100,
            rule,
        }
    };
    let by = |index| Some(rule("db-ingress", Direction::Ingress, index));
    EndpointDetail {
        endpoint: Some(db()),
        entries: vec![
            entry(Peer::Identity(302), "shop app=web", "tcp", (5432, 5432), Verdict::Allow, by(0)),
            entry(Peer::Class("any".into()), "", "udp", (60, 63), Verdict::Allow, by(1)),
            entry(Peer::Cidr("192.0.2.0/24".into()), "", "", (0, 0), Verdict::Deny, None),
        ],
    }
}

fn identities() -> ListIdentitiesResponse {
    let identity = |number, app: &str, pods| Identity {
        number,
        namespace: "shop".into(),
        labels: labels(&[("app", app)]),
        namespace_labels: labels(&[("kubernetes.io/metadata.name", "shop"), ("team", "a")]),
        service_account: "default".into(),
        pods,
        local_pods: pods.min(1),
        ..Identity::default()
    };
    let world = Identity { number: 2, reserved_name: "world".into(), ..Identity::default() };
    ListIdentitiesResponse { identities: vec![world, identity(301, "db", 1), identity(302, "web", 12)] }
}

fn db_ingress() -> Policy {
    Policy {
        policy: Some(network_policy("db-ingress")),
        selected_endpoints: 1,
        selected_pods: 2,
        directions: vec![Direction::Ingress as i32],
        ingress_rules: 2,
        entries: 3,
        status: PolicyStatus::Accepted as i32,
        origin: Some(Origin { file: "db.yaml".into(), document: 2, line: 9 }),
        warnings: 1,
        ..Policy::default()
    }
}

fn stale_policy() -> Policy {
    Policy {
        policy: Some(network_policy("web-egress")),
        directions: vec![Direction::Egress as i32, Direction::Ingress as i32],
        egress_rules: 1,
        status: PolicyStatus::LastGood as i32,
        reason: "web.yaml:3: unknown field spec.egres".into(),
        ..db_ingress()
    }
}

fn refused_policy() -> Policy {
    Policy {
        policy: Some(network_policy("zz-huge")),
        entries: 0,
        status: PolicyStatus::Refused as i32,
        reason: "needs 70000 entries of PEERS, 5536 are free".into(),
        origin: None,
        ..db_ingress()
    }
}

fn policy_detail() -> GetPolicyResponse {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let summary = |index, peers: &[&str], ports: &[&str], matching_pods| RuleSummary {
        rule: Some(rule("db-ingress", Direction::Ingress, index)),
        verdict: Verdict::Allow as i32,
        peers: own(peers),
        ports: own(ports),
        matching_pods,
        ..RuleSummary::default()
    };
    GetPolicyResponse {
        policy: Some(db_ingress()),
        selects: "pods of shop with app=db".into(),
        selected: vec![pod("db-0")],
        rules: vec![
            summary(0, &["pods with app=web", "192.0.2.0/24 without 192.0.2.7/32"], &["tcp 5432"], 12),
            summary(1, &[], &["udp 60-63", "tcp named metrics"], 14),
            summary(2, &["pods with app=gone"], &[], 0),
        ],
        warnings: vec![PolicyWarning {
            code: "named-port-unknown".into(),
            field: "spec.ingress[1].ports[1].port".into(),
            message: "no pod it selects has a port named metrics".into(),
        }],
    }
}

fn counters() -> CountersResponse {
    let counter = |hook: &str, reason, name: &str, text: &str, packets, bytes| Counter {
        hook: hook.into(),
        reason,
        reason_name: name.into(),
        reason_text: text.into(),
        packets,
        bytes,
    };
    let scalar = |name: &str, value| pb::Scalar { name: name.into(), value };
    CountersResponse {
        counters: vec![
            counter("from_pod", 0, "passed", "not dropped", 123_456, 98_765_432),
            counter("from_pod", 1, "default_deny", "isolated by policy and no rule allows it", 17, 1020),
            counter("to_pod", 0, "passed", "not dropped", 99, 5940),
        ],
        scalars: vec![scalar("events_lost", 0), scalar("events_written", 1204)],
    }
}

fn flow_stats() -> pb::FlowStatsResponse {
    let dropped = |reason: &str, count| pb::Dropped { reason: reason.into(), count };
    let exporter = |name: &str, kind: &str, counts: [u64; 5], lost: [u64; 2], trouble: &str| pb::Exporter {
        name: name.into(),
        kind: kind.into(),
        carried: counts[0],
        observed: counts[1],
        exported: counts[2],
        filtered: counts[3],
        spooled: counts[4],
        dropped: vec![dropped("ring_overrun", lost[0]), dropped("spool_full", lost[1])],
        spool_bytes: counts[4] * 700,
        // Seven that had nobody to be told with.
        aggregated: 7,
        aggregates: 7,
        retries: 4,
        trouble: trouble.into(),
    };
    pb::FlowStatsResponse {
        observed: 1210,
        kept: 1204,
        dropped: vec![dropped("kernel_ring_full", 6), dropped("malformed", 0)],
        readers: Some(pb::FlowReaders { now: 2, passed: 300, delivered: 250, filtered: 40, lost: 10 }),
        exporters: vec![
            exporter("archive", "file", [0, 1204, 1204, 0, 0], [0, 0], ""),
            exporter("siem", "otlp", [50, 1204, 900, 100, 244], [3, 7], "collector:4317: connection refused"),
        ],
        problems: vec![
            "exporter \"old\": exporters[2].file.path: logs is no absolute path of a file; begin it with /".into(),
        ],
    }
}

fn maps() -> Vec<MapEntry> {
    let entry = |map: &str, key: &str, value: &str| MapEntry {
        map: map.into(),
        key: key.into(),
        value: value.into(),
        note: String::new(),
    };
    vec![
        entry("PEERS", "rule set 3, identity 302", "port set 1, lengths 16, otherwise none"),
        entry("PORTS", "port set 1, tcp 5432/16", "allow, precedence 100, cookie 40"),
    ]
}
