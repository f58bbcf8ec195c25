//! A small world for tests and examples: a shop of three tiers, a stranger in another namespace,
//! and the events that the datapath would report about them. Not part of the product: behind the
//! feature `test-util`.
//!
//! ```text
//! shop/web  10.1.0.5   slot 1  identity 256   egress open,            ingress open
//! shop/db   10.1.0.9   slot 2  identity 257   egress isolated (8001), ingress isolated (8002)
//! other/eve 10.1.0.66  slot 3  identity 258   open
//! shop/far  10.1.1.7   on another node, identity 259
//! ```

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use datapath_abi::{
    addr::Addr,
    dns::DnsPacket,
    endpoint::RulesPtr,
    event::{DIRECTION_NONE, EndReason, EventKind, FlowEvent},
    identity,
    policy::Direction,
    reason::DropReason,
    service::Translation,
};
use dns::{Data, Lookup, Outcome, Question, Told, lookup::flag};

use crate::{
    enrich::{Context, WallClock, enrich, enrich_lookup},
    record::{
        FlowRecord, IdentityInfo, Node, PodInfo, PolicyInfo, RuleInfo, RuleScope, ServiceInfo, Workload, protocol,
    },
};

/// Monotonic time of the first event.
pub const START_NS: u64 = 5_000_000_000;
/// Time of day of the first event: 2026-01-02T03:04:05Z.
pub const START_UNIX_NS: u64 = 1_767_323_045_000_000_000;

/// Cookie of rule 1 of the ingress of `shop/db-clients`: web may reach port 5432.
pub const DB_INGRESS_COOKIE: u32 = 71;
/// Cookie of rule 0 of the egress of `shop/web-out`: to db only.
pub const WEB_EGRESS_COOKIE: u32 = 72;
/// Rules of db's egress: isolated, with nothing allowed.
pub const DB_EGRESS_RULES: RulesPtr = RulesPtr(9 << 32 | (RulesPtr::ISOLATED as u64) << 24 | 8001);
/// Rules of db's ingress: isolated.
pub const DB_INGRESS_RULES: RulesPtr = RulesPtr(10 << 32 | (RulesPtr::ISOLATED as u64) << 24 | 8002);
/// Rules of web's egress where a test wants it isolated.
pub const WEB_EGRESS_RULES: RulesPtr = RulesPtr(11 << 32 | (RulesPtr::ISOLATED as u64) << 24 | 8003);
/// Rules of an open endpoint.
pub const OPEN_RULES: RulesPtr = RulesPtr(12 << 32);

/// web, see the head of this file.
pub const WEB: usize = 0;
/// db.
pub const DB: usize = 1;
/// eve.
pub const EVE: usize = 2;
/// far.
pub const FAR: usize = 3;

/// Everything known: maps that a test may fill further.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// By identity.
    pub identities: HashMap<u32, Arc<IdentityInfo>>,
    /// By address.
    pub pods: HashMap<IpAddr, Arc<PodInfo>>,
    /// By slot.
    pub slots: HashMap<u32, Arc<PodInfo>>,
    /// By cookie.
    pub rules: HashMap<u32, Arc<RuleInfo>>,
    /// By rule set.
    pub isolating: HashMap<u32, Arc<[Arc<PolicyInfo>]>>,
    /// By address and port.
    pub services: HashMap<(IpAddr, u16), Arc<ServiceInfo>>,
    /// By address.
    pub dns_names: HashMap<IpAddr, Arc<[String]>>,
}

impl Context for World {
    fn identity(&self, number: u32) -> Option<Arc<IdentityInfo>> {
        self.identities.get(&number).cloned()
    }

    fn pod_by_addr(&self, addr: IpAddr, _time_ns: u64) -> Option<Arc<PodInfo>> {
        self.pods.get(&addr).cloned()
    }

    fn pod_by_slot(&self, slot: u32, _time_ns: u64) -> Option<Arc<PodInfo>> {
        self.slots.get(&slot).cloned()
    }

    fn rule(&self, cookie: u32) -> Option<Arc<RuleInfo>> {
        self.rules.get(&cookie).cloned()
    }

    fn isolating(&self, rules: RulesPtr) -> Option<Arc<[Arc<PolicyInfo>]>> {
        self.isolating.get(&rules.ruleset()).cloned()
    }

    fn service(&self, addr: IpAddr, port: u16, _protocol: u8) -> Option<Arc<ServiceInfo>> {
        self.services.get(&(addr, port)).cloned()
    }

    fn dns_names(&self, _slot: u32, addr: IpAddr, _time_ns: u64) -> Option<Arc<[String]>> {
        self.dns_names.get(&addr).cloned()
    }
}

/// A pod of the fixture: namespace, name, address, slot, identity, workload kind.
type Resident = (&'static str, &'static str, [u8; 4], u32, u32, &'static str);

const RESIDENTS: [Resident; 4] = [
    ("shop", "web", [10, 1, 0, 5], 1, 256, "Deployment"),
    ("shop", "db", [10, 1, 0, 9], 2, 257, "StatefulSet"),
    ("other", "eve", [10, 1, 0, 66], 3, 258, ""),
    ("shop", "far", [10, 1, 1, 7], 0, 259, "Deployment"),
];

/// Address of a resident.
pub fn address(resident: usize) -> IpAddr {
    IpAddr::from(RESIDENTS[resident].2)
}

/// The node that sees it all.
pub fn node() -> Arc<Node> {
    let labels = [("zone".to_owned(), "a".to_owned())].into();
    Arc::new(Node { name: "node-a".to_owned(), cluster: "default".to_owned(), labels, epoch: 1 })
}

/// The clock that [`START_NS`] and [`START_UNIX_NS`] were read from.
pub fn clock() -> WallClock {
    WallClock::new(START_NS, START_UNIX_NS)
}

fn policy(name: &str) -> Arc<PolicyInfo> {
    Arc::new(PolicyInfo {
        kind: "NetworkPolicy".to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        revision: 3,
    })
}

/// The world at the head of this file.
pub fn world() -> World {
    let mut world = World::default();
    for (namespace, name, address, slot, identity, kind) in RESIDENTS {
        let labels: std::collections::BTreeMap<String, String> =
            [("app".to_owned(), name.to_owned()), ("tier".to_owned(), format!("{name}-tier"))].into();
        let service_account = format!("{name}-sa");
        world.identities.insert(
            identity,
            Arc::new(IdentityInfo {
                namespace: namespace.to_owned(),
                labels: labels.clone().into(),
                service_account: service_account.clone(),
            }),
        );
        let pod = Arc::new(PodInfo {
            namespace: namespace.to_owned(),
            name: format!("{name}-0"),
            uid: format!("uid-{name}-0"),
            labels: labels.into(),
            service_account,
            workload: (!kind.is_empty()).then(|| Workload { kind: kind.to_owned(), name: name.to_owned() }),
            identity,
        });
        if slot != 0 {
            world.slots.insert(slot, pod.clone());
        }
        world.pods.insert(address.into(), pod);
    }
    let rule = |name, direction, index, scope| Arc::new(RuleInfo { policy: policy(name), direction, index, scope });
    world.rules.insert(DB_INGRESS_COOKIE, rule("db-clients", Direction::Ingress, 1, RuleScope::PeersAndPorts));
    world.rules.insert(WEB_EGRESS_COOKIE, rule("web-out", Direction::Egress, 0, RuleScope::Peers));
    world.isolating.insert(DB_EGRESS_RULES.ruleset(), [policy("default-deny")].into());
    world.isolating.insert(DB_INGRESS_RULES.ruleset(), [policy("db-clients"), policy("default-deny")].into());
    world.isolating.insert(WEB_EGRESS_RULES.ruleset(), [policy("web-out")].into());
    world
}

/// A TCP SYN from one resident to another, not yet judged: neither opened nor dropped.
fn packet(from: usize, to: usize, port: u16) -> FlowEvent {
    let (_, _, source, source_slot, source_identity, _) = RESIDENTS[from];
    let (_, _, destination, destination_slot, destination_identity, _) = RESIDENTS[to];
    FlowEvent {
        time_ns: START_NS,
        created_ns: START_NS,
        addr: [Addr::from_v4(source), Addr::from_v4(destination)],
        packets: [1, 0],
        bytes: [60, 0],
        identity: [source_identity, destination_identity],
        slot: [source_slot, destination_slot],
        port: [41_000, port],
        proto: protocol::TCP,
        direction: DIRECTION_NONE,
        tcp_flags: [0x02, 0],
        ifindex: 7,
        ..FlowEvent::default()
    }
}

/// web opens a connection to db: web is open, rule 1 of db-clients allows it.
pub fn opened() -> FlowEvent {
    FlowEvent {
        kind: EventKind::Opened as u8,
        rules: [OPEN_RULES.0, DB_INGRESS_RULES.0],
        cookie: [0, DB_INGRESS_COOKIE],
        ..packet(WEB, DB, 5432)
    }
}

/// eve is denied at db: isolated by db-clients and default-deny, nothing allows it.
pub fn denied() -> FlowEvent {
    FlowEvent {
        kind: EventKind::Dropped as u8,
        reason: DropReason::DefaultDeny as u8,
        direction: Direction::Ingress as u8,
        rules: [OPEN_RULES.0, DB_INGRESS_RULES.0],
        ..packet(EVE, DB, 5432)
    }
}

/// A packet from web that is no good in itself.
pub fn bad_packet() -> FlowEvent {
    FlowEvent { kind: EventKind::Dropped as u8, reason: DropReason::TruncatedHeader as u8, ..packet(WEB, DB, 5432) }
}

/// The connection of [`opened`] after two seconds, closed by both.
pub fn closed() -> FlowEvent {
    FlowEvent {
        kind: EventKind::Closed as u8,
        end: EndReason::Fin as u8,
        time_ns: START_NS + 2_000_000_000,
        packets: [10, 8],
        bytes: [1200, 9000],
        tcp_flags: [0x1b, 0x1b],
        rtt_us: 150,
        ..opened()
    }
}

/// The world sends web a UDP packet over IPv6 through the host's stack.
pub fn from_outside() -> FlowEvent {
    let outside: [u8; 16] = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets();
    let web: [u8; 16] = std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5).octets();
    FlowEvent {
        kind: EventKind::Opened as u8,
        addr: [Addr::from_octets(outside), Addr::from_octets(web)],
        identity: [identity::WORLD, RESIDENTS[WEB].4],
        slot: [0, RESIDENTS[WEB].3],
        rules: [0, OPEN_RULES.0],
        proto: protocol::UDP,
        tcp_flags: [0, 0],
        hook: 1,
        ..packet(FAR, WEB, 53)
    }
}

/// web pings db: allowed by the rule that allows its connections.
pub fn ping() -> FlowEvent {
    FlowEvent { proto: protocol::ICMP, port: [8, 0], tcp_flags: [0, 0], ..opened() }
}

/// web asks far, by a Service's address, for a name, and gets an alias and its address; or, without an answer, nothing.
pub fn lookup(outcome: Outcome) -> Told {
    let FlowEvent { addr, identity, slot, port, .. } = packet(WEB, FAR, 53);
    let packet = DnsPacket {
        time_ns: START_NS,
        created_ns: START_NS,
        addr,
        service: Translation { addr: Addr::from_v4([10, 96, 0, 10]), port: 53, from_port: port[0], set: 1 },
        identity,
        slot,
        port,
        length: 33,
        ifindex: 7,
        proto: protocol::UDP,
        ..DnsPacket::default()
    };
    let question = Question { name: "www.example.com".into(), rtype: 1, class: 1 };
    let answer_bytes = if matches!(outcome, Outcome::Answered(_)) { 80 } else { 0 };
    Told {
        packet,
        time_ns: START_NS + 1_250_000,
        bytes: [33, answer_bytes],
        lookup: Lookup { question, id: 4711, tries: 1, outcome },
        resolved: Vec::new(),
    }
}

/// What [`lookup`] may be answered.
pub fn answer() -> dns::Answer {
    let record = |rtype, ttl_s, data| dns::Record { rtype, class: 1, ttl_s, data };
    dns::Answer {
        latency_ns: 1_250_000,
        rcode: 0,
        flags: flag::RD | flag::RA,
        records: [
            record(5, 300, Data::Text("edge.example.net".into())),
            record(1, 30, Data::Address(IpAddr::from([192, 0, 2, 7]))),
        ]
        .into(),
        announced: 2,
        cut: false,
    }
}

/// [`lookup`]s of each kind as records in a world.
///
/// # Panics
/// Never: fixtures follow the contract.
pub fn lookups(world: &World) -> Vec<FlowRecord> {
    let missing = dns::Answer { rcode: 3, records: [].into(), announced: 0, ..answer() };
    let outcomes =
        [Outcome::Answered(answer()), Outcome::Answered(missing), Outcome::Unanswered, Outcome::Unfollowed].map(lookup);
    let record = |told| enrich_lookup(told, 1, &node(), clock(), world).expect("fixtures follow the contract");
    outcomes.into_iter().map(record).collect()
}

/// The record of an event in [`world`], numbered 1.
///
/// # Panics
/// If the event does not follow the contract.
pub fn record(event: &FlowEvent) -> FlowRecord {
    record_in(event, &world())
}

/// The record of an event in a world, numbered 1.
///
/// # Panics
/// If the event does not follow the contract.
pub fn record_in(event: &FlowEvent, world: &World) -> FlowRecord {
    enrich(event, 1, &node(), clock(), world).expect("fixtures follow the contract")
}
