//! A whole flow between two ends: egress rules of the source, ingress rules of the destination.
//!
//! A [`World`] is an index with every pod given an identity number, for previews, explanations
//! and tests. It runs the very compiler the datapath uses and looks entries up as the kernel does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use datapath_abi::identity::{FIRST_POD, HOST, REMOTE_NODE, WORLD};
use datapath_abi::policy::{Decision, Direction};

use crate::compile::{RuleTable, compile};
use crate::index::Index;
use crate::lower::{CookieTable, LowerError, PodAddress, RuleSet, Universe, lower};
use crate::map_model::MapModel;
use crate::model::{PodKey, PolicyRef};
use crate::{compile::RuleRef, identity::IdentityKey};

/// All objects, with numbers.
#[derive(Clone, Debug)]
pub struct World<'a> {
    index: &'a Index,
    universe: Universe,
    numbers: BTreeMap<PodKey, u32>,
}

/// One end of a flow, with the address it uses.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum End {
    /// A pod, known to the index or not.
    Pod(PodKey, IpAddr),
    /// The node that the other end runs on.
    LocalNode(IpAddr),
    /// Another node of the cluster.
    Node(IpAddr),
    /// Anybody else.
    Outside(IpAddr),
}

impl End {
    /// Its address.
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Pod(_, ip) | Self::LocalNode(ip) | Self::Node(ip) | Self::Outside(ip) => *ip,
        }
    }
}

/// A connection that somebody wants to open. Port and protocol are those of the destination
/// pod, after services have been translated.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    /// Who opens it.
    pub source: End,
    /// To whom.
    pub destination: End,
    /// IANA protocol number.
    pub proto: u8,
    /// Destination port, 0 for protocols without.
    pub port: u16,
}

/// What one end's rules say about a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Side {
    /// No rules apply: the end is no pod with rules, or the traffic is exempt from them.
    Exempt,
    /// No policy isolates the pod in this direction.
    Open,
    /// A rule allows it.
    Allowed(RuleRef),
    /// A rule denies it.
    Denied(RuleRef),
    /// Isolated by these, and nothing allows it.
    Isolated(Vec<PolicyRef>),
}

impl Side {
    /// Whether this end lets it pass.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Exempt | Self::Open | Self::Allowed(_))
    }
}

/// What both ends say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowVerdict {
    /// The source's egress rules.
    pub egress: Side,
    /// The destination's ingress rules.
    pub ingress: Side,
}

impl FlowVerdict {
    /// Whether the flow passes: both ends must agree.
    pub fn passes(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }
}

impl<'a> World<'a> {
    /// Numbers every pod that is a peer.
    pub fn new(index: &'a Index) -> Self {
        let mut by_key: BTreeMap<IdentityKey, u32> = BTreeMap::new();
        let mut universe = Universe::default();
        let mut numbers = BTreeMap::new();
        for pod in index.pods() {
            let Some(key) = index.identity_key(&pod.key) else { continue };
            let next = FIRST_POD + u32::try_from(by_key.len()).unwrap_or(u32::MAX - FIRST_POD);
            let number = *by_key.entry(key.clone()).or_insert(next);
            if universe.insert(number, key).is_ok() {
                universe.put_pod(number, pod.key.clone(), PodAddress::from(pod));
                numbers.insert(pod.key.clone(), number);
            }
        }
        Self { index, universe, numbers }
    }

    /// The objects.
    pub fn index(&self) -> &'a Index {
        self.index
    }

    /// The identities.
    pub fn universe(&self) -> &Universe {
        &self.universe
    }

    /// The identity number that a flow's end shows to the other.
    pub fn identity(&self, end: &End) -> u32 {
        match end {
            End::Pod(key, _) => match self.numbers.get(key) {
                Some(number) => *number,
                None if self.index.pod(key).is_some_and(|pod| pod.host_network) => REMOTE_NODE,
                None => WORLD,
            },
            End::LocalNode(_) => HOST,
            End::Node(_) => REMOTE_NODE,
            End::Outside(_) => WORLD,
        }
    }

    /// Who is behind an address: the pod that has it, else somebody outside.
    pub fn end(&self, ip: IpAddr) -> End {
        let owner = self.index.pods().find(|pod| pod.is_peer() && pod.ips.contains(&ip));
        owner.map_or(End::Outside(ip), |pod| End::Pod(pod.key.clone(), ip))
    }

    /// What both ends' rules say about a flow.
    ///
    /// # Errors
    ///
    /// When one of the rule sets is too large to be lowered.
    pub fn verdict(&self, flow: &Flow) -> Result<FlowVerdict, LowerError> {
        if let (End::Pod(source, _), End::Pod(destination, _)) = (&flow.source, &flow.destination)
            && source == destination
        {
            // A pod cannot block access to itself: such packets never leave its namespace.
            return Ok(FlowVerdict { egress: Side::Exempt, ingress: Side::Exempt });
        }
        Ok(FlowVerdict {
            egress: self.side(Direction::Egress, &flow.source, &flow.destination, flow)?,
            ingress: self.side(Direction::Ingress, &flow.destination, &flow.source, flow)?,
        })
    }

    fn side(&self, direction: Direction, subject: &End, peer: &End, flow: &Flow) -> Result<Side, LowerError> {
        let End::Pod(key, _) = subject else { return Ok(Side::Exempt) };
        if self.index.pod(key).is_some_and(|pod| pod.host_network) {
            return Ok(Side::Exempt);
        }
        // The datapath lets in what comes from the pod's own node, before it looks at rules.
        if direction == Direction::Ingress && matches!(peer, End::LocalNode(_)) {
            return Ok(Side::Exempt);
        }
        let table = compile(self.index, key, direction);
        let mut cookies = CookieTable::default();
        let rules = lower(&table, &self.universe, &mut cookies)?;
        Ok(self.look_up(&table, &rules, &cookies, peer, flow))
    }

    /// What a rule set says about a flow with `peer`.
    pub fn look_up(&self, table: &RuleTable, rules: &RuleSet, cookies: &CookieTable, peer: &End, flow: &Flow) -> Side {
        if !table.is_isolated() {
            return Side::Open;
        }
        let model = MapModel::new(rules);
        let Decision { cookie, .. } = model.decide(self.identity(peer), peer.ip(), flow.proto, flow.port);
        let passes = model.passes(self.identity(peer), peer.ip(), flow.proto, flow.port);
        match cookies.rule(cookie) {
            Some(rule) if passes => Side::Allowed(rule.clone()),
            Some(rule) => Side::Denied(rule.clone()),
            None => Side::Isolated(table.isolated_by.clone()),
        }
    }
}
