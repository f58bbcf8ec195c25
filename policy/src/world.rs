//! A whole flow between two ends: egress rules of the source, ingress rules of the destination.
//!
//! A [`World`] is an index with every pod given an identity number, for previews, explanations
//! and tests. It runs the very compiler the datapath uses and looks entries up as the kernel does.

mod party;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use datapath_abi::identity::{FIRST_POD, HOST, REMOTE_NODE, WORLD};
use datapath_abi::policy::{Decision, Direction};

use crate::compile::{RuleTable, compile, compile_staged};
use crate::index::Index;
use crate::lower::{CookieTable, LowerError, PodAddress, RuleSet, Universe, lower};
use crate::map_model::MapModel;
use crate::model::{PodKey, PolicyRef, Protocol};
use crate::{compile::RuleRef, identity::IdentityKey};

pub use party::{NoFlow, NotAParty, Party};

/// All objects, with numbers.
#[derive(Clone, Debug)]
pub struct World<'a> {
    index: &'a Index,
    universe: Universe,
    numbers: BTreeMap<PodKey, u32>,
    owners: BTreeMap<IpAddr, PodKey>,
    nodes: Nodes,
}

/// Addresses of nodes. Rules do not need them (a node is whoever is no pod), but the traffic of
/// a pod's own node is exempt from ingress rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Nodes {
    /// Of the node that the pods in question run on.
    pub local: BTreeSet<IpAddr>,
    /// Of all others.
    pub others: BTreeSet<IpAddr>,
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

impl Flow {
    /// Whose rules count in a direction, and who is the peer there.
    pub fn seen_from(&self, direction: Direction) -> (&End, &End) {
        match direction {
            Direction::Egress => (&self.source, &self.destination),
            Direction::Ingress => (&self.destination, &self.source),
        }
    }
}

/// What one end's rules say about a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Side {
    /// No rules apply.
    Exempt(Exemption),
    /// No policy isolates the pod in this direction, and no rule of another decides.
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
        matches!(self, Self::Exempt(_) | Self::Open | Self::Allowed(_))
    }

    /// The rule that decided, if one did.
    pub fn rule(&self) -> Option<&RuleRef> {
        match self {
            Self::Allowed(rule) | Self::Denied(rule) => Some(rule),
            Self::Exempt(_) | Self::Open | Self::Isolated(_) => None,
        }
    }
}

/// Why no rules apply to one end of a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Exemption {
    /// It is no pod.
    NoPod,
    /// It is a hostNetwork pod, whose traffic is its node's.
    HostNetwork,
    /// It talks to itself: a pod cannot block access to itself, and such packets never leave it.
    Itself,
    /// The traffic comes from the pod's own node, which the datapath lets in before it looks at
    /// rules, as the API asks for.
    OwnNode,
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
        let mut owners = BTreeMap::new();
        for pod in index.pods() {
            let Some(key) = index.identity_key(&pod.key) else { continue };
            let next = FIRST_POD + u32::try_from(by_key.len()).unwrap_or(u32::MAX - FIRST_POD);
            let number = *by_key.entry(key.clone()).or_insert(next);
            if universe.insert(number, key).is_ok() {
                universe.put_pod(number, pod.key.clone(), PodAddress::from(pod));
                numbers.insert(pod.key.clone(), number);
                owners.extend(pod.ips.iter().map(|ip| (*ip, pod.key.clone())));
            }
        }
        universe.set_nodes(index.nodes());
        Self { index, universe, numbers, owners, nodes: Nodes::default() }
    }

    /// The same, knowing nodes by their addresses.
    #[must_use]
    pub fn with_nodes(self, nodes: Nodes) -> Self {
        Self { nodes, ..self }
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

    /// Who is behind an address: the pod that has it, a node, or somebody outside.
    pub fn end(&self, ip: IpAddr) -> End {
        match self.owners.get(&ip) {
            Some(key) => End::Pod(key.clone(), ip),
            None if self.nodes.local.contains(&ip) => End::LocalNode(ip),
            None if self.nodes.others.contains(&ip) => End::Node(ip),
            None => End::Outside(ip),
        }
    }

    /// What both ends' rules say about a flow.
    ///
    /// # Errors
    ///
    /// When one of the rule sets is too large to be lowered.
    pub fn verdict(&self, flow: &Flow) -> Result<FlowVerdict, LowerError> {
        Ok(FlowVerdict { egress: self.side(Direction::Egress, flow)?, ingress: self.side(Direction::Ingress, flow)? })
    }

    /// What the rules of one end say: of the source for egress, of the destination for ingress.
    ///
    /// # Errors
    ///
    /// When the rule set is too large to be lowered.
    pub fn side(&self, direction: Direction, flow: &Flow) -> Result<Side, LowerError> {
        match self.exemption(direction, flow) {
            Some(exemption) => Ok(Side::Exempt(exemption)),
            None => {
                let (subject, peer) = flow.seen_from(direction);
                let End::Pod(key, _) = subject else { return Ok(Side::Exempt(Exemption::NoPod)) };
                self.under(&compile(self.index, key, direction), peer, flow)
            }
        }
    }

    /// What they would say if the staged policies were enforced. `None` if none of those has a say.
    ///
    /// # Errors
    ///
    /// When the rule set is too large to be lowered.
    pub fn staged(&self, direction: Direction, flow: &Flow) -> Result<Option<Side>, LowerError> {
        let (End::Pod(key, _), peer) = flow.seen_from(direction) else { return Ok(None) };
        if self.exemption(direction, flow).is_some() {
            return Ok(None);
        }
        let Some(table) = compile_staged(self.index, key, direction) else { return Ok(None) };
        self.under(&table, peer, flow).map(Some)
    }

    /// Why no rules apply to one end; `None` if they do.
    pub fn exemption(&self, direction: Direction, flow: &Flow) -> Option<Exemption> {
        let (subject, peer) = flow.seen_from(direction);
        let End::Pod(key, _) = subject else { return Some(Exemption::NoPod) };
        if self.index.pod(key).is_some_and(|pod| pod.host_network) {
            return Some(Exemption::HostNetwork);
        }
        if matches!(peer, End::Pod(other, _) if other == key) {
            return Some(Exemption::Itself);
        }
        (direction == Direction::Ingress && matches!(peer, End::LocalNode(_))).then_some(Exemption::OwnNode)
    }

    fn under(&self, table: &RuleTable, peer: &End, flow: &Flow) -> Result<Side, LowerError> {
        let mut cookies = CookieTable::default();
        let rules = lower(table, &self.universe, &mut cookies)?;
        Ok(self.look_up(table, &rules, &cookies, peer, flow))
    }

    /// What a rule set says about a flow with `peer`.
    pub fn look_up(&self, table: &RuleTable, rules: &RuleSet, cookies: &CookieTable, peer: &End, flow: &Flow) -> Side {
        let model = MapModel::new(rules);
        let Decision { cookie, .. } = model.decide(self.identity(peer), peer.ip(), flow.proto, flow.port);
        let passes = model.passes(self.identity(peer), peer.ip(), flow.proto, flow.port);
        match cookies.rule(cookie) {
            Some(rule) if passes => Side::Allowed(rule.clone()),
            Some(rule) => Side::Denied(rule.clone()),
            None if passes => Side::Open,
            None => Side::Isolated(table.isolated_by.clone()),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key, ip) => write!(f, "{key} ({ip})"),
            Self::LocalNode(ip) => write!(f, "{ip} (the pod's own node)"),
            Self::Node(ip) => write!(f, "{ip} (a node)"),
            Self::Outside(ip) => write!(f, "{ip}"),
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ", self.source, self.destination)?;
        match (Protocol::from_number(self.proto), self.proto) {
            (Some(protocol), _) => write!(f, "{protocol}/{}", self.port),
            (None, 1) => f.write_str("ICMP"),
            (None, 58) => f.write_str("ICMPv6"),
            (None, other) => write!(f, "protocol {other}"),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exempt(Exemption::NoPod) => f.write_str("no pod, so no policy applies"),
            Self::Exempt(Exemption::HostNetwork) => f.write_str("a hostNetwork pod, so no policy applies"),
            Self::Exempt(Exemption::Itself) => f.write_str("a pod can always reach itself"),
            Self::Exempt(Exemption::OwnNode) => f.write_str("a pod's own node can always reach it"),
            Self::Open => f.write_str("no policy isolates it"),
            Self::Allowed(rule) => write!(f, "allowed by {rule}"),
            Self::Denied(rule) => write!(f, "denied by {rule}"),
            Self::Isolated(policies) => {
                f.write_str("isolated by ")?;
                for (position, policy) in policies.iter().enumerate() {
                    let separator = match position {
                        0 => "",
                        _ if position + 1 == policies.len() => " and ",
                        _ => ", ",
                    };
                    write!(f, "{separator}{policy}")?;
                }
                f.write_str(", nothing allowed it")
            }
        }
    }
}
