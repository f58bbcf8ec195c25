//! Why a flow gets its verdict: every rule that was asked, why it did or did not match, and which
//! one decided. For the operator's command line and for failed tests alike.
//!
//! The verdict comes from the entries, as the kernel sees them; the reasons come from the policies
//! as they are written. Tests hold that the two never contradict each other.

mod mismatch;
mod text;

use datapath_abi::policy::Direction;

use crate::compile::RuleRef;
use crate::lower::LowerError;
use crate::model::{Action, NetworkPolicy, Pod, PolicyRef, Rule};
use crate::world::{End, Flow, FlowVerdict, Side, World};

pub use mismatch::{PeerMismatch, PortMismatch};

/// Why a flow gets its verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// The flow.
    pub flow: Flow,
    /// The source's egress.
    pub egress: SideExplanation,
    /// The destination's ingress.
    pub ingress: SideExplanation,
}

impl Explanation {
    /// What both ends say.
    pub fn verdict(&self) -> FlowVerdict {
        FlowVerdict { egress: self.egress.outcome.clone(), ingress: self.ingress.outcome.clone() }
    }
}

/// What one end says, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SideExplanation {
    /// Which end.
    pub direction: Direction,
    /// What comes out.
    pub outcome: Side,
    /// The policies that isolate the pod.
    pub isolated_by: Vec<PolicyRef>,
    /// Every rule of theirs, in the order in which they are asked.
    pub considered: Vec<Considered>,
}

/// One rule, and what it says about the flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Considered {
    /// The rule.
    pub rule: RuleRef,
    /// What it does with what it matches.
    pub action: Action,
    /// The rule as it is written.
    pub written: Rule,
    /// Why the peer is not among its peers: a reason for each of them. None if it is.
    pub peers: Vec<PeerMismatch>,
    /// Why the port is not among its ports: a reason for each of them. None if it is.
    pub ports: Vec<PortMismatch>,
    /// Whether it is the rule that decided. Others that match may have come too late.
    pub decides: bool,
}

impl Considered {
    /// Whether it matches the flow.
    pub fn matches(&self) -> bool {
        self.peers.is_empty() && self.ports.is_empty()
    }
}

/// Explains a flow.
///
/// # Errors
///
/// When a rule set is too large to be lowered.
pub fn explain(world: &World<'_>, flow: &Flow) -> Result<Explanation, LowerError> {
    Ok(Explanation {
        flow: flow.clone(),
        egress: side(world, flow, Direction::Egress)?,
        ingress: side(world, flow, Direction::Ingress)?,
    })
}

fn side(world: &World<'_>, flow: &Flow, direction: Direction) -> Result<SideExplanation, LowerError> {
    let outcome = world.side(direction, flow)?;
    let mut explanation = SideExplanation { direction, outcome, isolated_by: Vec::new(), considered: Vec::new() };
    let (End::Pod(key, _), peer) = flow.seen_from(direction) else { return Ok(explanation) };
    if matches!(explanation.outcome, Side::Exempt(_)) {
        return Ok(explanation);
    }
    let unknown = Pod::new(key.clone());
    let subject = world.index().pod(key).unwrap_or(&unknown);
    let asked = Asked { world, flow, subject, peer };
    for policy in world.index().isolating(subject, direction) {
        explanation.isolated_by.push(policy.policy_ref());
        let rules = policy.rules(direction).into_iter().flatten();
        let considered = (0u32..).zip(rules).map(|(index, rule)| {
            let rule_ref = RuleRef { policy: policy.policy_ref(), direction, index };
            asked.considered(policy, rule_ref, rule, &explanation.outcome)
        });
        let considered: Vec<Considered> = considered.collect();
        explanation.considered.extend(considered);
    }
    Ok(explanation)
}

/// What a rule is asked about.
struct Asked<'a> {
    world: &'a World<'a>,
    flow: &'a Flow,
    subject: &'a Pod,
    peer: &'a End,
}

impl Asked<'_> {
    fn considered(&self, policy: &NetworkPolicy, rule_ref: RuleRef, rule: &Rule, outcome: &Side) -> Considered {
        let decides = matches!(outcome, Side::Allowed(it) | Side::Denied(it) if *it == rule_ref);
        let peers = mismatch::peers(self.world, policy, &rule.peers, self.peer);
        let ports = match rule_ref.direction {
            Direction::Ingress => mismatch::ports(&rule.ports, self.flow, Some(self.subject)),
            Direction::Egress => mismatch::ports(&rule.ports, self.flow, self.peer_pod()),
        };
        Considered { rule: rule_ref, action: Action::Allow, written: rule.clone(), peers, ports, decides }
    }

    fn peer_pod(&self) -> Option<&Pod> {
        mismatch::selectable(self.world, self.peer).ok()
    }
}
