//! One direction of an explanation: every rule that was considered, in words, and what is in force
//! in place of rules that could not be.

use datapath_abi::endpoint::RulesPtr;
use policy::{
    Direction, RuleSet,
    explain::{Considered, SideExplanation, Walk},
    map_model::MapModel,
    model::{Pod, PodKey},
    world::{End, Flow, Side},
};
use proto::bulkhead::admin::v1 as pb;

use super::{Known, ends};
use crate::{
    app::admin::{convert, status, words},
    reconcile::{DirectionView, Remains},
};

/// Reasons that are told for one rule.
const MAX_REASONS: usize = 5;

/// `None` if the end is no pod.
pub(super) fn explained(known: &Known, flow: &Flow, side: &SideExplanation) -> Option<pb::DirectionExplained> {
    let SideExplanation { direction, walk, staged } = side;
    let Walk { outcome, isolated_by, considered } = walk;
    let (End::Pod(key, _), peer) = flow.seen_from(*direction) else { return None };
    let view = known.endpoint(key);
    let mut answer = pb::DirectionExplained {
        direction: convert::direction(*direction),
        pod: Some(convert::pod_name(key)),
        isolated: !isolated_by.is_empty(),
        isolated_by: isolated_by.iter().map(convert::policy).collect(),
        verdict: verdict(outcome.passes()) as i32,
        reason: reason(outcome, considered.len()),
        deciding: outcome.rule().map(|rule| convert::rule(rule, known.cookie(rule))),
        considered: considered.iter().map(|it| considered_rule(known, flow, key, walk, it)).collect(),
        enforced_here: view.is_some(),
        text: side.text(flow),
        instead: String::new(),
        staged: staged.as_ref().map(|walk| pb::StagedExplained {
            verdict: verdict(walk.outcome.passes()) as i32,
            reason: reason(&walk.outcome, walk.considered.len()),
            deciding: walk.outcome.rule().map(|rule| convert::rule(rule, known.cookie(rule))),
            considered: walk.considered.iter().map(|it| considered_rule(known, flow, key, walk, it)).collect(),
        }),
    };
    let in_force = view.and_then(|view| view.directions.iter().find(|it| it.direction == *direction));
    if let Some(in_force) = in_force.filter(|it| !it.complete && !matches!(outcome, Side::Exempt(_))) {
        replace(known, flow, key, peer, in_force, &mut answer);
    }
    Some(answer)
}

fn verdict(passes: bool) -> pb::Verdict {
    if passes { pb::Verdict::Allow } else { pb::Verdict::Deny }
}

fn reason(outcome: &Side, rules: usize) -> String {
    match outcome {
        Side::Exempt(_) | Side::Open => outcome.to_string(),
        Side::Allowed(rule) => format!("allowed by {}", convert::rule_words(rule)),
        Side::Denied(rule) => format!("denied by {}", convert::rule_words(rule)),
        Side::Isolated(policies) => {
            let by: Vec<String> = policies.iter().map(convert::policy_words).collect();
            let considered = convert::counted(rules, "rule");
            format!("isolated by {}; nothing allowed it ({considered} considered)", convert::listed(&by))
        }
    }
}

/// What is in force in place of what is written.
#[derive(Clone, Copy, Debug)]
enum Instead<'a> {
    /// Not isolated: everything passes.
    Open,
    /// Isolated without rules: nothing passes.
    Nothing,
    /// These.
    Rules(&'a RuleSet),
}

impl<'a> Instead<'a> {
    fn of(known: &'a Known, rules: RulesPtr) -> Option<Self> {
        match (rules.has(RulesPtr::ISOLATED), rules.ruleset()) {
            (false, 0) => Some(Self::Open),
            (true, 0) => Some(Self::Nothing),
            (_, number) => known.instead.get(&number).map(Self::Rules),
        }
    }
}

/// What is in force is older than what is written: it decides.
fn replace(
    known: &Known,
    flow: &Flow,
    pod: &PodKey,
    peer: &End,
    in_force: &DirectionView,
    answer: &mut pb::DirectionExplained,
) {
    let Some(instead) = Instead::of(known, in_force.rules) else { return };
    let (passes, cookie) = match instead {
        Instead::Open => (true, 0),
        Instead::Nothing => (false, 0),
        Instead::Rules(rules) => {
            let (model, identity) = (MapModel::new(rules), ends::identity_of(known, peer));
            let decision = model.decide(identity, peer.ip(), flow.proto, flow.port);
            (model.passes(identity, peer.ip(), flow.proto, flow.port), decision.cookie)
        }
    };
    let refusal = known
        .refusals
        .iter()
        .find(|it| it.pod == *pod && it.direction == in_force.direction && it.remains != Remains::Unevaluated);
    let why = match refusal {
        None => "its rules are being brought up to date; until then the older ones decide".to_owned(),
        Some(refusal) => {
            let meanwhile = status::meanwhile(refusal);
            format!("its rules as written are not in force ({}); meanwhile {meanwhile}", refusal.reason)
        }
    };
    let rule = known.rule_by(cookie);
    let word = if passes { "allowed" } else { "denied" };
    let by = rule.map(|rule| format!(" by {}", convert::rule_words(rule))).unwrap_or_default();
    answer.verdict = verdict(passes) as i32;
    answer.reason = format!("{word}{by}: {why}");
    answer.instead.clone_from(&answer.reason);
    answer.deciding = rule.map(|rule| convert::rule(rule, cookie));
    for considered in &mut answer.considered {
        considered.decides = answer.deciding.is_some() && considered.rule == answer.deciding;
    }
}

fn considered_rule(
    known: &Known,
    flow: &Flow,
    subject: &PodKey,
    walk: &Walk,
    considered: &Considered,
) -> pb::ConsideredRule {
    let Considered { rule, name, standing, staged, action, decides, passes_on, .. } = considered;
    pb::ConsideredRule {
        rule: Some(convert::rule(rule, known.cookie(rule))),
        verdict: convert::action(*action),
        matched: considered.matches(),
        decides: *decides,
        why: why(known, flow, subject, considered),
        tier: standing.as_str().to_owned(),
        name: name.clone().unwrap_or_default(),
        staged: *staged,
        passes_on: *passes_on,
        not_asked: !walk.is_asked(*standing),
    }
}

/// `peer matches pods with app=web; port 5432 is tcp 5432`, or whatever does not match.
fn why(known: &Known, flow: &Flow, subject: &PodKey, considered: &Considered) -> String {
    if considered.fails_closed {
        return "domain names are for Accept rules only, so it denies everything".to_owned();
    }
    let mut words = Vec::new();
    match considered.peers.as_slice() {
        [] if considered.matches() => words.push(matching_peer(known, flow, considered)),
        [] => {}
        reasons => words.push(format!("peer: {}", some(reasons))),
    }
    match considered.ports.as_slice() {
        [] if considered.matches() => words.push(matching_port(known, flow, subject, considered)),
        [] => {}
        reasons => words.push(format!("port: {}", some(reasons))),
    }
    words.join("; ")
}

/// Reasons, not too many of them.
fn some<T: ToString>(reasons: &[T]) -> String {
    let mut words: Vec<String> = reasons.iter().take(MAX_REASONS).map(T::to_string).collect();
    if reasons.len() > MAX_REASONS {
        words.push(format!("{} more like these", reasons.len() - MAX_REASONS));
    }
    words.join(", and ")
}

fn matching_peer(known: &Known, flow: &Flow, considered: &Considered) -> String {
    let (_, peer) = flow.seen_from(considered.rule.direction);
    let pod = pod_of(known, peer);
    let peers = &considered.written.peers;
    match words::admitting(&known.index, &considered.rule.policy.namespace, peers, pod, peer.ip()) {
        Some(found) => format!("peer matches {}", words::peer(found)),
        None => "every peer matches".to_owned(),
    }
}

fn pod_of<'a>(known: &'a Known, end: &End) -> Option<&'a Pod> {
    match end {
        End::Pod(key, _) => known.index.pod(key),
        End::LocalNode(_) | End::Node(_) | End::Outside(_) => None,
    }
}

fn matching_port(known: &Known, flow: &Flow, subject: &PodKey, considered: &Considered) -> String {
    let owner = match considered.rule.direction {
        Direction::Ingress => known.index.pod(subject),
        Direction::Egress => pod_of(known, &flow.destination),
    };
    match words::admitting_port(&considered.written.ports, owner, flow.proto, flow.port) {
        Some(port) => format!("port {} is {}", flow.port, words::port(port)),
        None => "every port matches".to_owned(),
    }
}

/// One sentence for both directions: who denies, or why it passes.
pub(super) fn summary(sides: &[pb::DirectionExplained]) -> String {
    let denies = |side: &pb::DirectionExplained| side.verdict == pb::Verdict::Deny as i32;
    let any = sides.iter().any(denies);
    let told = sides.iter().filter(|side| !any || denies(side)).map(|side| {
        let pb::PodName { namespace, name } = side.pod.clone().unwrap_or_default();
        let egress = side.direction == pb::Direction::Egress as i32;
        format!("{} of {namespace}/{name}: {}", if egress { "egress" } else { "ingress" }, side.reason)
    });
    let told: Vec<String> = told.collect();
    if told.is_empty() { "neither end is a pod, so no policy applies".to_owned() } else { told.join("; ") }
}
