//! Why a flow gets its verdict: every rule that was asked, why it did or did not match, and which
//! one decided. For the operator's command line and for failed tests alike.
//!
//! The verdict comes from the entries, as the kernel sees them; the reasons come from the policies
//! as they are written. Tests hold that the two never contradict each other.

mod mismatch;
mod text;

use datapath_abi::policy::Direction;

use crate::compile::RuleRef;
use crate::index::View;
use crate::lower::LowerError;
use crate::model::{Action, ClusterRule, Pod, PolicyRef, Rule, Tier};
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
        FlowVerdict { egress: self.egress.walk.outcome.clone(), ingress: self.ingress.walk.outcome.clone() }
    }

    /// What both ends would say if the staged policies were enforced. `None` if none of those has a say.
    pub fn staged_verdict(&self) -> Option<FlowVerdict> {
        if self.egress.staged.is_none() && self.ingress.staged.is_none() {
            return None;
        }
        let outcome = |side: &SideExplanation| side.staged.as_ref().unwrap_or(&side.walk).outcome.clone();
        Some(FlowVerdict { egress: outcome(&self.egress), ingress: outcome(&self.ingress) })
    }
}

/// What one end says, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SideExplanation {
    /// Which end.
    pub direction: Direction,
    /// What is enforced.
    pub walk: Walk,
    /// What would be if the staged policies were enforced. `None` if none of those has a say.
    pub staged: Option<Walk>,
}

/// The walk through the tiers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk {
    /// What comes out.
    pub outcome: Side,
    /// The NetworkPolicies that isolate the pod.
    pub isolated_by: Vec<PolicyRef>,
    /// Every rule, in the order in which they are asked, also those that are not any more.
    pub considered: Vec<Considered>,
}

impl Walk {
    /// Whether a tier is asked at all, or decided before its turn.
    pub fn is_asked(&self, standing: Standing) -> bool {
        let decided = self.considered.iter().find(|it| it.decides).map(|it| it.standing);
        match standing {
            Standing::Admin => true,
            Standing::NetworkPolicy => decided != Some(Standing::Admin),
            Standing::Baseline => decided != Some(Standing::Admin) && self.isolated_by.is_empty(),
        }
    }
}

/// Which tier a rule belongs to. In the order in which they are asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// ClusterNetworkPolicies of the Admin tier.
    Admin,
    /// NetworkPolicies.
    NetworkPolicy,
    /// ClusterNetworkPolicies of the Baseline tier.
    Baseline,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Admin, Self::NetworkPolicy, Self::Baseline];

    /// As the API calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => "Baseline",
        }
    }
}

/// One rule, and what it says about the flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Considered {
    /// The rule.
    pub rule: RuleRef,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its tier.
    pub standing: Standing,
    /// Whether its policy is staged.
    pub staged: bool,
    /// What it does with what it matches.
    pub action: Action,
    /// The rule as it is written.
    pub written: Rule,
    /// Whether it denies everything, because it names something that is not known.
    pub fails_closed: bool,
    /// Why the peer is not among its peers: a reason for each of them. None if it is.
    pub peers: Vec<PeerMismatch>,
    /// Why the port is not among its ports: a reason for each of them. None if it is.
    pub ports: Vec<PortMismatch>,
    /// Whether it is the rule that decided. Others that match may have come too late.
    pub decides: bool,
    /// Whether it is the rule that passed the flow on to the next tier.
    pub passes_on: bool,
}

impl Considered {
    /// Whether it matches the flow.
    pub fn matches(&self) -> bool {
        self.fails_closed || (self.peers.is_empty() && self.ports.is_empty())
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
    let enforced = walk(world, flow, direction, View::Enforced, world.side(direction, flow)?);
    let staged = world.staged(direction, flow)?.map(|it| walk(world, flow, direction, View::WithStaged, it));
    Ok(SideExplanation { direction, walk: enforced, staged })
}

fn walk(world: &World<'_>, flow: &Flow, direction: Direction, view: View, outcome: Side) -> Walk {
    let mut walk = Walk { outcome, isolated_by: Vec::new(), considered: Vec::new() };
    let (End::Pod(key, _), peer) = flow.seen_from(direction) else { return walk };
    if matches!(walk.outcome, Side::Exempt(_)) {
        return walk;
    }
    let unknown = Pod::new(key.clone());
    let subject = world.index().pod(key).unwrap_or(&unknown);
    let asked = Asked { world, flow, subject, peer };
    asked.tier(&mut walk, Tier::Admin, direction, view);
    for policy in world.index().isolating(subject, direction, view) {
        walk.isolated_by.push(policy.policy_ref());
        for (index, rule) in (0u32..).zip(policy.rules(direction).into_iter().flatten()) {
            let rule_ref = RuleRef { policy: policy.policy_ref(), direction, index };
            let (peers, ports) = asked.mismatches(&policy.namespace, rule, direction);
            walk.considered.push(Considered {
                decides: walk.outcome.rule() == Some(&rule_ref),
                rule: rule_ref,
                name: None,
                standing: Standing::NetworkPolicy,
                staged: policy.staged,
                action: Action::Allow,
                written: rule.clone(),
                fails_closed: false,
                peers,
                ports,
                passes_on: false,
            });
        }
    }
    asked.tier(&mut walk, Tier::Baseline, direction, view);
    walk
}

/// What a rule is asked about.
struct Asked<'a> {
    world: &'a World<'a>,
    flow: &'a Flow,
    subject: &'a Pod,
    peer: &'a End,
}

impl Asked<'_> {
    fn tier(&self, walk: &mut Walk, tier: Tier, direction: Direction, view: View) {
        let standing = match tier {
            Tier::Admin => Standing::Admin,
            Tier::Baseline => Standing::Baseline,
        };
        let mut open = walk.is_asked(standing);
        for policy in self.world.index().ruling(self.subject, tier, direction, view) {
            for (index, rule) in (0u32..).zip(policy.rules(direction)) {
                let fails_closed = rule.fails_closed();
                let ClusterRule { name, action, rule: written } = rule;
                let rule_ref = RuleRef { policy: policy.policy_ref(), direction, index };
                let (peers, ports) = self.mismatches("", written, direction);
                let mut considered = Considered {
                    decides: walk.outcome.rule() == Some(&rule_ref),
                    rule: rule_ref,
                    name: name.clone(),
                    standing,
                    staged: policy.staged,
                    action: if fails_closed { Action::Deny } else { *action },
                    written: written.clone(),
                    fails_closed,
                    peers,
                    ports,
                    passes_on: false,
                };
                if open && considered.matches() {
                    considered.passes_on = considered.action == Action::Pass;
                    open = false;
                }
                walk.considered.push(considered);
            }
        }
    }

    fn mismatches(&self, own: &str, rule: &Rule, direction: Direction) -> (Vec<PeerMismatch>, Vec<PortMismatch>) {
        let peers = mismatch::peers(self.world, own, &rule.peers, self.peer);
        let ports = match direction {
            Direction::Ingress => mismatch::ports(&rule.ports, self.flow, Some(self.subject)),
            Direction::Egress => mismatch::ports(&rule.ports, self.flow, self.peer_pod()),
        };
        (peers, ports)
    }

    fn peer_pod(&self) -> Option<&Pod> {
        mismatch::selectable(self.world, self.peer).ok()
    }
}
