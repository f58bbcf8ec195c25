//! Every map: name, default capacity, who writes, who reads. `docs/abi.md` is made from [`ALL`].

/// Who writes a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// The daemon.
    Daemon,
    /// The programs.
    Programs,
    /// Both, different fields.
    Both,
}

/// One map, for documentation, sizing and pins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapInfo {
    /// Name in the object file and of the pin.
    pub name: &'static str,
    /// Kernel's map type.
    pub kind: &'static str,
    /// Key type.
    pub key: &'static str,
    /// Value type.
    pub value: &'static str,
    /// Default capacity in entries (bytes for the ring buffer).
    pub capacity: u32,
    /// Who writes.
    pub writer: Writer,
    /// What it is for.
    pub purpose: &'static str,
}

/// Conntrack of connections with packets in both directions.
pub const CONNTRACK: &str = "CONNTRACK";
/// Conntrack of connections without an answer yet.
pub const PENDING: &str = "PENDING";
/// How much of PENDING each endpoint has, by slot.
pub const WAITING: &str = "WAITING";
/// Ports of packets that come in fragments.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Local endpoints by slot.
pub const ENDPOINTS: &str = "ENDPOINTS";
/// What would hold with the staged policies, by slot.
pub const STAGED: &str = "STAGED";
/// Slot of the endpoint behind an interface.
pub const INTERFACES: &str = "INTERFACES";
/// Exact addresses.
pub const ADDRESSES: &str = "ADDRESSES";
/// Everything else, by longest prefix.
pub const CIDRS: &str = "CIDRS";
/// Peers of rule sets.
pub const PEERS: &str = "PEERS";
/// Address regions of rule sets.
pub const REGIONS: &str = "REGIONS";
/// Port sets.
pub const PORTS: &str = "PORTS";
/// Digests of rule sets.
pub const RULESETS: &str = "RULESETS";
/// Where packets from other nodes' addresses come from.
pub const ORIGINS: &str = "ORIGINS";
/// Identity numbers that packets may carry.
pub const NUMBERS: &str = "NUMBERS";
/// What packets have carried.
pub const CARRIED: &str = "CARRIED";
/// Addresses and ports of Services.
pub const FRONTENDS: &str = "FRONTENDS";
/// What stands behind them.
pub const BACKENDS: &str = "BACKENDS";
/// What stood behind them.
pub const GONE: &str = "GONE";
/// Addresses whose packets do not get in from outside.
pub const DENIED: &str = "DENIED";
/// How many records of refused packets each CPU has written lately.
pub const BUDGET: &str = "BUDGET";
/// Flow events.
pub const EVENTS: &str = "EVENTS";
/// DNS messages of pods.
pub const DNS: &str = "DNS";
/// Packets by hook and reason.
pub const COUNTERS: &str = "COUNTERS";
/// The next generation of rules, see [`crate::endpoint::RulesPtr`]. Lives as long as conntrack,
/// so that none is given out twice.
pub const GENERATION: &str = "GENERATION";
/// Single numbers, see [`Scalar`].
pub const SCALARS: &str = "SCALARS";

/// Every map.
pub const ALL: &[MapInfo] = &[
    MapInfo {
        name: CONNTRACK,
        kind: "hash",
        key: "CtKey",
        value: "CtEntry",
        capacity: 131_072,
        writer: Writer::Programs,
        purpose: "connections with packets in both directions",
    },
    MapInfo {
        name: PENDING,
        kind: "lru_hash",
        key: "CtKey",
        value: "CtEntry",
        capacity: 16_384,
        writer: Writer::Programs,
        purpose: "connections without an answer yet; a flood of them evicts only its like",
    },
    MapInfo {
        name: WAITING,
        kind: "array",
        key: "u32 slot",
        value: "Waiting",
        capacity: 1_024,
        writer: Writer::Programs,
        purpose: "connections in PENDING by endpoint, so that none takes all of it; as many as ENDPOINTS",
    },
    MapInfo {
        name: FRAGMENTS,
        kind: "lru_hash",
        key: "FragmentKey",
        value: "FragmentEntry",
        capacity: 8_192,
        writer: Writer::Programs,
        purpose: "ports of packets whose first fragment was let through",
    },
    MapInfo {
        name: ENDPOINTS,
        kind: "array",
        key: "u32 slot",
        value: "Endpoint",
        capacity: 1_024,
        writer: Writer::Both,
        purpose: "local endpoints; `rules` is written by the program `swing`, the rest by the daemon",
    },
    MapInfo {
        name: STAGED,
        kind: "array",
        key: "u32 slot",
        value: "[u64; 2]",
        capacity: 1_024,
        writer: Writer::Daemon,
        purpose: "`RulesPtr` bits `[egress, ingress]` of what would hold with the staged policies, 0 for none; as many as ENDPOINTS",
    },
    MapInfo {
        name: INTERFACES,
        kind: "hash",
        key: "u32 ifindex",
        value: "u32 slot",
        capacity: 1_024,
        writer: Writer::Daemon,
        purpose: "which endpoint is behind an interface",
    },
    MapInfo {
        name: ADDRESSES,
        kind: "hash",
        key: "Addr",
        value: "AddrEntry",
        capacity: 131_072,
        writer: Writer::Daemon,
        purpose: "pods and nodes by exact address",
    },
    MapInfo {
        name: CIDRS,
        kind: "lpm_trie",
        key: "Addr",
        value: "AddrEntry",
        capacity: 16_384,
        writer: Writer::Daemon,
        purpose: "identities of address ranges; what is in neither is the world",
    },
    MapInfo {
        name: PEERS,
        kind: "hash",
        key: "PeerKey",
        value: "PeerEntry",
        capacity: 131_072,
        writer: Writer::Daemon,
        purpose: "who may talk, by rule set and identity or class",
    },
    MapInfo {
        name: REGIONS,
        kind: "lpm_trie",
        key: "RegionKey",
        value: "PeerEntry",
        capacity: 65_536,
        writer: Writer::Daemon,
        purpose: "who may talk, by rule set and address (ipBlock)",
    },
    MapInfo {
        name: PORTS,
        kind: "hash",
        key: "PortKey",
        value: "Decision",
        capacity: 65_536,
        writer: Writer::Daemon,
        purpose: "verdicts by port set, protocol and port prefix",
    },
    MapInfo {
        name: RULESETS,
        kind: "hash",
        key: "u32 rule set",
        value: "RulesetInfo",
        capacity: 16_384,
        writer: Writer::Daemon,
        purpose: "what each rule set is made of, for a restarted daemon",
    },
    MapInfo {
        name: GENERATION,
        kind: "array",
        key: "u32 0",
        value: "u64",
        capacity: 1,
        writer: Writer::Daemon,
        purpose: "the next generation of rules that has not been given out",
    },
    MapInfo {
        name: ORIGINS,
        kind: "lpm_trie",
        key: "Addr",
        value: "Origin",
        capacity: 16_384,
        writer: Writer::Daemon,
        purpose: "with an overlay, from which node packets from a range come",
    },
    MapInfo {
        name: NUMBERS,
        kind: "hash",
        key: "u32 identity",
        value: "u32",
        capacity: 65_536,
        writer: Writer::Daemon,
        purpose: "with an overlay, identities whose numbers packets may carry; 0: any of them may",
    },
    MapInfo {
        name: CARRIED,
        kind: "lru_hash",
        key: "Addr",
        value: "u32 identity",
        capacity: 16_384,
        writer: Writer::Programs,
        purpose: "with an overlay, senders of whom their packets say something else than their address does",
    },
    MapInfo {
        name: FRONTENDS,
        kind: "hash",
        key: "FrontendKey",
        value: "Frontend",
        capacity: 65_536,
        writer: Writer::Daemon,
        purpose: "addresses and ports of Services",
    },
    MapInfo {
        name: BACKENDS,
        kind: "hash",
        key: "BackendKey",
        value: "Backend",
        capacity: 262_144,
        writer: Writer::Daemon,
        purpose: "who serves, by set and place; places of a set are without gap",
    },
    MapInfo {
        name: GONE,
        kind: "hash",
        key: "GoneKey",
        value: "u32",
        capacity: 65_536,
        writer: Writer::Daemon,
        purpose: "backends that a set has no more, for the next sweep",
    },
    MapInfo {
        name: DENIED,
        kind: "lpm_trie",
        key: "Addr",
        value: "Denied",
        capacity: 65_536,
        writer: Writer::Daemon,
        purpose: "the deny list of the uplink by source address, and what is spared within it",
    },
    MapInfo {
        name: BUDGET,
        kind: "percpu_array",
        key: "u32 0",
        value: "Budget",
        capacity: 1,
        writer: Writer::Programs,
        purpose: "records of packets refused at the uplink, by CPU, so that a flood of them does not fill EVENTS",
    },
    MapInfo {
        name: EVENTS,
        kind: "ringbuf",
        key: "",
        value: "FlowEvent",
        capacity: 4 << 20,
        writer: Writer::Programs,
        purpose: "flow events",
    },
    MapInfo {
        name: DNS,
        kind: "ringbuf",
        key: "",
        value: "DnsPacket",
        capacity: 512 << 10,
        writer: Writer::Programs,
        purpose: "DNS messages of pods, each with its bytes behind it; apart from EVENTS, so that a flood of them pushes out only its like",
    },
    MapInfo {
        name: COUNTERS,
        kind: "percpu_array",
        key: "u32 hook * REASONS + reason",
        value: "Counter",
        capacity: crate::event::HOOKS * crate::reason::REASONS,
        writer: Writer::Programs,
        purpose: "packets and bytes by hook and reason, reason 0 for what passed",
    },
    MapInfo {
        name: SCALARS,
        kind: "percpu_array",
        key: "u32 Scalar",
        value: "u64",
        capacity: Scalar::COUNT,
        writer: Writer::Programs,
        purpose: "counters that belong to no packet reason",
    },
];

/// Default capacity of a map by its name; 0 if there is no such map.
pub fn default_capacity(name: &str) -> u32 {
    ALL.iter().find(|info| info.name == name).map_or(0, |info| info.capacity)
}

/// Value of COUNTERS.
#[repr(C)]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug,
    Default,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the network header on.
    pub bytes: u64,
}
crate::assert_size!(Counter, 16);

/// Index into SCALARS.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Scalar {
    /// Events that found the ring buffer full.
    EventsLost = 0,
    /// Connections that got an answer but found CONNTRACK full; they stay in PENDING.
    ConntrackFull = 1,
    /// New connections that PENDING refused.
    PendingFull = 2,
    /// Events that were written.
    EventsWritten = 3,
    /// Connections decided anew because rules had changed.
    Redecided = 4,
    /// New connections of an endpoint that has its share of PENDING.
    PendingShare = 5,
    /// Packets dropped at the uplink without a record, as there were too many of them.
    UplinkUnrecorded = 6,
    /// DNS messages that found their ring buffer full.
    DnsLost = 7,
    /// DNS messages that were written.
    DnsWritten = 8,
}

impl Scalar {
    /// How many there are.
    pub const COUNT: u32 = 9;
    /// Every one, with the name its metric bears.
    pub const ALL: &'static [(Scalar, &'static str)] = &[
        (Scalar::EventsLost, "events_lost"),
        (Scalar::ConntrackFull, "conntrack_full"),
        (Scalar::PendingFull, "pending_full"),
        (Scalar::EventsWritten, "events_written"),
        (Scalar::Redecided, "redecided"),
        (Scalar::PendingShare, "pending_share"),
        (Scalar::UplinkUnrecorded, "uplink_unrecorded"),
        (Scalar::DnsLost, "dns_lost"),
        (Scalar::DnsWritten, "dns_written"),
    ];
}
