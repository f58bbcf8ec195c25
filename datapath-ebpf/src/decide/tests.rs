//! The answer of the rules against a table and against a second reading of the contract
//! (`datapath_abi::policy`), written without looking for speed.

use std::{collections::BTreeMap, vec, vec::Vec};

use datapath_abi::identity::{self, CLASS_ANY, CLASS_CLUSTER, CLASS_NODE, CLASS_WORLD};
use proptest::prelude::*;

use super::*;

const TCP: u8 = 6;
const UDP: u8 = 17;

#[derive(Clone, Debug, Default)]
struct Model {
    peers: BTreeMap<(u32, u32), PeerEntry>,
    /// By rule set: everybody is at one address.
    regions: BTreeMap<u32, PeerEntry>,
    ports: BTreeMap<PortKey, Decision>,
}

impl Rules for Model {
    fn peer(&self, ruleset: u32, identity: u32) -> Option<PeerEntry> {
        self.peers.get(&(ruleset, identity)).copied()
    }

    fn region(&self, ruleset: u32) -> Option<PeerEntry> {
        self.regions.get(&ruleset).copied()
    }

    fn port(&self, key: PortKey) -> Option<Decision> {
        self.ports.get(&key).copied()
    }
}

fn allow(cookie: u32, precedence: u16) -> Decision {
    Decision { cookie, precedence, verdict: Verdict::Allow as u8, pad: 0 }
}

fn deny(cookie: u32, precedence: u16) -> Decision {
    Decision { cookie, precedence, verdict: Verdict::Deny as u8, pad: 0 }
}

const ALL: u8 = RulesPtr::HAS_PEERS | RulesPtr::HAS_CLASSES | RulesPtr::HAS_REGIONS;

fn otherwise(decision: Decision) -> PeerEntry {
    PeerEntry { portset: 0, lengths: 0, otherwise: decision }
}

#[test]
fn flags_say_where_to_look() {
    let mut model = Model::default();
    model.peers.insert((5, 300), otherwise(allow(1, 1)));
    model.peers.insert((5, CLASS_CLUSTER), otherwise(allow(2, 1)));
    model.regions.insert(5, otherwise(allow(3, 9)));
    let asked = |flags| ask(&model, RulesPtr::new(1, flags, 5), 300, TCP, 80).cookie;
    assert_eq!(asked(0), 0);
    assert_eq!(asked(RulesPtr::HAS_PEERS), 1);
    assert_eq!(asked(RulesPtr::HAS_CLASSES), 2);
    assert_eq!(asked(RulesPtr::HAS_PEERS | RulesPtr::HAS_CLASSES), 1);
    assert_eq!(asked(RulesPtr::HAS_REGIONS), 3);
    assert_eq!(asked(ALL), 3);
    // Another rule set has none of these.
    assert_eq!(ask(&model, RulesPtr::new(1, RulesPtr::HAS_PEERS, 6), 300, TCP, 80), Decision::default());
}

#[test]
fn each_identity_asks_its_class_then_any() {
    let mut model = Model::default();
    for (cookie, class) in [(1, CLASS_ANY), (2, CLASS_CLUSTER), (3, CLASS_WORLD), (4, CLASS_NODE)] {
        model.peers.insert((1, class), otherwise(allow(cookie, 1)));
    }
    let ptr = RulesPtr::new(1, RulesPtr::HAS_CLASSES, 1);
    for (identity, cookie) in [
        (identity::UNKNOWN, 1),
        (identity::UNMANAGED, 1),
        (200, 1),
        (identity::WORLD, 3),
        (identity::HOST, 4),
        (identity::REMOTE_NODE, 4),
        (identity::KUBE_APISERVER, 4),
        (identity::FIRST_POD, 2),
        (identity::MAX, 2),
        (identity::MAX + 1, 1),
    ] {
        assert_eq!(ask(&model, ptr, identity, TCP, 80).cookie, cookie, "{identity}");
    }
    model.peers.remove(&(1, CLASS_CLUSTER));
    assert_eq!(ask(&model, ptr, 300, TCP, 80).cookie, 1);
}

#[test]
fn verdicts() {
    let (open, isolated) = (RulesPtr::new(1, 0, 0), RulesPtr::new(1, RulesPtr::ISOLATED, 0));
    for (ptr, decision, wanted) in [
        (open, Decision::default(), Ok(())),
        (isolated, Decision::default(), Err(DropReason::DefaultDeny)),
        (open, allow(1, 1), Ok(())),
        (isolated, allow(1, 1), Ok(())),
        (open, deny(1, 1), Err(DropReason::DenyRule)),
        (isolated, deny(1, 1), Err(DropReason::DenyRule)),
        // A number that is no verdict admits nothing to an isolated pod.
        (isolated, Decision { verdict: 77, ..allow(1, 1) }, Err(DropReason::DefaultDeny)),
    ] {
        assert_eq!(verdict(ptr, decision), wanted, "{ptr:?} {decision:?}");
    }
}

#[test]
fn a_port_is_under_its_longest_prefix() {
    let mut model = Model::default();
    let mut entry = PeerEntry { portset: 9, lengths: 0, otherwise: deny(99, 1) };
    for (cookie, port, length) in [(1, 0u16, 0u8), (2, 0x8000, 1), (3, 0xff00, 8), (4, 0xff80, 16)] {
        entry.lengths |= 1 << length;
        model.ports.insert(PortKey { portset: 9, port, proto: TCP, length }, allow(cookie, 1));
    }
    model.peers.insert((1, 300), entry);
    let ptr = RulesPtr::new(1, RulesPtr::HAS_PEERS, 1);
    for (port, cookie) in
        [(0, 1), (0x7fff, 1), (0x8000, 2), (0xfeff, 2), (0xff00, 3), (0xff7f, 3), (0xff80, 4), (0xff81, 3), (0xffff, 3)]
    {
        assert_eq!(ask(&model, ptr, 300, TCP, port).cookie, cookie, "{port:#x}");
        assert_eq!(ask(&model, ptr, 300, UDP, port).cookie, 99);
    }
    // Another port set is another's.
    model.peers.insert((1, 300), PeerEntry { portset: 8, ..entry });
    assert_eq!(ask(&model, ptr, 300, TCP, 0xff80).cookie, 99);
}

fn pass(cookie: u32, precedence: u16) -> Decision {
    Decision { cookie, precedence, verdict: Verdict::Pass as u8, pad: 0 }
}

#[test]
fn what_passes_is_decided_by_the_next_rule_set() {
    let mut model = Model::default();
    let ptr = RulesPtr::new(1, ALL, 4);
    let asked = |model: &Model| ask(model, ptr, 300, TCP, 80);
    model.peers.insert((4, 300), otherwise(pass(1, 9)));
    assert_eq!(asked(&model), Decision::default(), "the second is empty");
    model.peers.insert((5, 300), otherwise(allow(2, 3)));
    assert_eq!(asked(&model), allow(2, 3));
    // Found by address, of lower precedence, in the same tier: the pass stands.
    model.regions.insert(4, otherwise(deny(3, 8)));
    assert_eq!(asked(&model), allow(2, 3));
    model.regions.insert(4, otherwise(deny(3, 10)));
    assert_eq!(asked(&model), deny(3, 10));
    model.regions.insert(4, otherwise(pass(3, 10)));
    model.regions.insert(5, otherwise(deny(4, 4)));
    assert_eq!(asked(&model), deny(4, 4));
    // Fails closed: there is no third.
    model.regions.insert(5, otherwise(pass(4, 4)));
    assert_eq!(asked(&model), Decision::default());
    // What does not pass has no second.
    model.regions.clear();
    model.peers.insert((4, 300), otherwise(deny(5, 9)));
    assert_eq!(asked(&model), deny(5, 9));
    model.peers.remove(&(4, 300));
    assert_eq!(asked(&model), Decision::default());
    // Nor is an odd number one half of itself.
    model.peers.insert((5, 300), otherwise(pass(6, 9)));
    assert_eq!(ask(&model, RulesPtr::new(1, ALL, 5), 300, TCP, 80), Decision::default());
}

#[test]
fn a_pass_that_nobody_decides_admits_nothing_to_the_isolated() {
    let (open, isolated) = (RulesPtr::new(1, 0, 0), RulesPtr::new(1, RulesPtr::ISOLATED, 0));
    assert_eq!(verdict(open, pass(1, 1)), Ok(()));
    assert_eq!(verdict(isolated, pass(1, 1)), Err(DropReason::DefaultDeny));
}

#[test]
fn other_rules_make_no_difference_to_what_is_forged_or_broken() {
    let others: Vec<DropReason> =
        DropReason::ALL.iter().copied().filter(|reason| !is_by_rules(*reason as u8)).collect();
    assert_eq!(
        others,
        [
            DropReason::InvalidSourceIp,
            DropReason::InvalidSourceMac,
            DropReason::TruncatedHeader,
            DropReason::UnsupportedL3,
            DropReason::ForgedNeighbourDiscovery,
            DropReason::NoEndpoint,
            DropReason::Invalid,
            DropReason::Martian,
            DropReason::OverlaySource,
            DropReason::NoBackend,
            DropReason::ServicePorts,
            DropReason::TcpFlags,
            DropReason::DenyList,
        ]
    );
    assert!(is_by_rules(0), "what is let through");
}

/// The contract's words, one after the other.
fn plainly(model: &Model, ptr: RulesPtr, identity: u32, proto: u8, port: u16) -> Decision {
    let mut ruleset = ptr.ruleset();
    for _ in 0..2 {
        let decision = one_plainly(model, RulesPtr::new(0, ptr.flags(), ruleset), identity, proto, port);
        if decision.verdict != 3 {
            return decision;
        }
        ruleset |= 1;
    }
    Decision::default()
}

fn one_plainly(model: &Model, ptr: RulesPtr, identity: u32, proto: u8, port: u16) -> Decision {
    let at_port = |entry: &PeerEntry| {
        (0..=16u8)
            .rev()
            .filter(|length| entry.lengths >> length & 1 == 1)
            .find_map(|length| {
                let below = if length == 16 { 0 } else { u16::MAX >> length };
                model.port(PortKey { portset: entry.portset, port: port & !below, proto, length })
            })
            .unwrap_or(entry.otherwise)
    };
    let mut keys = Vec::new();
    if ptr.has(RulesPtr::HAS_PEERS) {
        keys.push(identity);
    }
    if ptr.has(RulesPtr::HAS_CLASSES) {
        keys.extend([identity::class(identity), CLASS_ANY]);
    }
    let by_identity = keys.iter().find_map(|key| model.peer(ptr.ruleset(), *key)).map(|entry| at_port(&entry));
    let by_region = model.region(ptr.ruleset()).filter(|_| ptr.has(RulesPtr::HAS_REGIONS)).map(|entry| at_port(&entry));
    match (by_identity, by_region) {
        (Some(one), Some(other)) if other.precedence > one.precedence => other,
        (Some(one), _) => one,
        (None, Some(other)) if other.precedence > 0 => other,
        (None, _) => Decision::default(),
    }
}

fn any_decision() -> impl Strategy<Value = Decision> {
    (1..5u32, 0..4u16, 0..4u8).prop_map(|(cookie, precedence, verdict)| match (precedence, verdict) {
        // Precedence 0 belongs to "no rule" alone.
        (0, _) | (_, 0) => Decision::default(),
        (precedence, verdict) => Decision { cookie, precedence, verdict, pad: 0 },
    })
}

fn any_entry() -> impl Strategy<Value = PeerEntry> {
    (0..3u32, any::<u32>(), any_decision()).prop_map(|(portset, lengths, otherwise)| PeerEntry {
        portset,
        lengths: lengths & 0x1_ffff,
        otherwise,
    })
}

const IDENTITIES: [u32; 6] = [identity::UNKNOWN, identity::HOST, identity::WORLD, 256, 300, identity::MAX];

prop_compose! {
    fn any_model()(
        peers in prop::collection::btree_map(
            (2..5u32, prop::sample::select(vec![0, 1, 2, 256, 300, CLASS_ANY, CLASS_CLUSTER, CLASS_NODE, CLASS_WORLD])),
            any_entry(),
            0..12,
        ),
        regions in prop::collection::btree_map(2..5u32, any_entry(), 0..4),
        ports in prop::collection::vec((0..3u32, any::<u16>(), 0..=16u8, any::<bool>(), any_decision()), 0..30),
    ) -> Model {
        let ports = ports
            .into_iter()
            .map(|(portset, port, length, udp, decision)| {
                let port = if length == 0 { 0 } else { port >> (16 - length) << (16 - length) };
                (PortKey { portset, port, proto: if udp { UDP } else { TCP }, length }, decision)
            })
            .collect();
        Model { peers, regions, ports }
    }
}

proptest! {
    #[test]
    fn the_fast_reading_is_the_plain_one(
        model in any_model(),
        flags in 0..32u8,
        ruleset in 2..5u32,
        identity in prop::sample::select(&IDENTITIES[..]),
        port in any::<u16>(),
        udp in any::<bool>(),
    ) {
        let proto = if udp { UDP } else { TCP };
        // A port that some entry is about, as often as one that none is.
        let near = model.ports.keys().next().map_or(port, |key| key.port);
        let ptr = RulesPtr::new(7, flags, ruleset);
        for port in [port, near] {
            prop_assert_eq!(ask(&model, ptr, identity, proto, port), plainly(&model, ptr, identity, proto, port));
        }
    }
}
