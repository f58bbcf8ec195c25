//! What the kernel programs do with a rule set, in plain code: the reference for tests and the
//! engine of `explain`. Follows `datapath_abi::policy`, not the API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use datapath_abi::addr::Addr;
use datapath_abi::endpoint::RulesPtr;
use datapath_abi::identity::{CLASS_ANY, class};
use datapath_abi::policy::{Decision, Verdict};

use crate::lower::{Peer, RuleSet, Stage};

type Peers = BTreeMap<u32, Peer>;
type Regions = BTreeMap<(Addr, u8), Peer>;

/// A rule set as the programs look into it.
#[derive(Clone, Copy, Debug)]
pub struct MapModel<'a> {
    rules: &'a RuleSet,
}

/// One lookup: what either map said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lookup {
    /// From PEERS.
    pub peers: Decision,
    /// From REGIONS.
    pub regions: Decision,
}

impl Lookup {
    /// The one that counts: greater precedence, PEERS' if both are equal.
    pub fn decision(self) -> Decision {
        if self.regions.precedence > self.peers.precedence { self.regions } else { self.peers }
    }
}

impl<'a> MapModel<'a> {
    /// Looks into these rules.
    pub fn new(rules: &'a RuleSet) -> Self {
        Self { rules }
    }

    /// What both maps of the first stage say about the peer `identity` at `ip`, for a protocol (IANA
    /// number) and destination port (0 for protocols without).
    pub fn lookup(&self, identity: u32, ip: IpAddr, proto: u8, port: u16) -> Lookup {
        self.ask(&self.rules.peers, &self.rules.regions, identity, ip, proto, port)
    }

    /// What both maps of the second stage say, which is asked where the first says Pass. Nothing if
    /// there is none.
    pub fn second(&self, identity: u32, ip: IpAddr, proto: u8, port: u16) -> Lookup {
        let Some(Stage { peers, regions }) = &self.rules.second else { return Lookup::default() };
        self.ask(peers, regions, identity, ip, proto, port)
    }

    /// The decision that counts, [`Verdict::None`] if no rule matches. Never [`Verdict::Pass`].
    pub fn decide(&self, identity: u32, ip: IpAddr, proto: u8, port: u16) -> Decision {
        let decision = self.lookup(identity, ip, proto, port).decision();
        match Verdict::try_from(decision.verdict) {
            Ok(Verdict::Pass) => {
                let after = self.second(identity, ip, proto, port).decision();
                // What passes there, too, no rule has decided.
                if after.verdict == Verdict::Pass as u8 { Decision::default() } else { after }
            }
            _ => decision,
        }
    }

    /// Whether it passes: allowed by a rule, or not isolated and not denied by one.
    pub fn passes(&self, identity: u32, ip: IpAddr, proto: u8, port: u16) -> bool {
        match Verdict::try_from(self.decide(identity, ip, proto, port).verdict) {
            Ok(Verdict::Allow) => true,
            Ok(Verdict::Deny) | Err(_) => false,
            // `decide` gives no Pass.
            Ok(Verdict::None | Verdict::Pass) => !self.has(RulesPtr::ISOLATED),
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.rules.flags & flag != 0
    }

    fn ask(&self, peers: &Peers, regions: &Regions, identity: u32, ip: IpAddr, proto: u8, port: u16) -> Lookup {
        let answer = |peer: Option<&Peer>| peer.map_or(Decision::default(), |peer| peer.decide(proto, port));
        Lookup { peers: answer(self.peer(peers, identity)), regions: answer(self.region(regions, ip)) }
    }

    fn peer<'b>(&self, peers: &'b Peers, identity: u32) -> Option<&'b Peer> {
        let exact = peers.get(&identity).filter(|_| self.has(RulesPtr::HAS_PEERS));
        exact.or_else(|| {
            let classes = [class(identity), CLASS_ANY];
            classes.iter().filter(|_| self.has(RulesPtr::HAS_CLASSES)).find_map(|class| peers.get(class))
        })
    }

    fn region<'b>(&self, regions: &'b Regions, ip: IpAddr) -> Option<&'b Peer> {
        if !self.has(RulesPtr::HAS_REGIONS) {
            return None;
        }
        let bits = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        (0..=128u8).rev().find_map(|length| {
            let mask = u128::MAX.checked_shl(u32::from(128 - length)).unwrap_or(0);
            let first = Addr::from_octets((bits & mask).to_be_bytes());
            regions.get(&(first, length))
        })
    }
}
