//! ClusterNetworkPolicy: validated as its CustomResourceDefinition (experimental channel of
//! network-policy-api, v1alpha2) has the API server validate it.
//!
//! Peers by domain name are taken and kept, for what they mean to a rule is the compiler's business.

mod peers;
mod ports;
pub mod types;

use policy::model::{self, Action, ClusterRule, Peers, Ports, Rule, Subject, Tier};

use crate::error::Problem;
use crate::findings::Findings;
use crate::nearest::nearest;
use crate::path::{FieldPath, Quoted};
use crate::{metadata, syntax};

use peers::PeerParts;
use types::{ClusterNetworkPolicy, ClusterNetworkPolicyProtocol, ClusterNetworkPolicySpec};

/// How long any list of the object may be.
const MAX_ITEMS: usize = 25;
/// Greatest priority.
const MAX_PRIORITY: i32 = 1000;
/// Characters that the name of a rule may have.
const MAX_RULE_NAME: usize = 100;

const ACTIONS: [&str; 3] = ["Accept", "Deny", "Pass"];

/// Validates a ClusterNetworkPolicy and turns it into the policy model's.
///
/// # Errors
///
/// Everything that is wrong with it, by field.
pub fn cluster_policy(object: &ClusterNetworkPolicy) -> Result<model::ClusterNetworkPolicy, Vec<Problem>> {
    let mut findings = Findings::default();
    let ClusterNetworkPolicy { api_version: _, kind: _, metadata: meta, spec } = object;
    metadata::no_namespace("ClusterNetworkPolicy", meta, &mut findings);
    let name = metadata::name(meta, syntax::dns_subdomain, &mut findings);
    metadata::labels(meta, &mut findings);
    let staged = metadata::is_staged(meta, &mut findings);

    let path = FieldPath::of(&["spec"]);
    let none = ClusterNetworkPolicySpec::default();
    let ClusterNetworkPolicySpec { tier, priority, subject, ingress, egress } = spec.as_ref().unwrap_or(&none);
    let tier = tier_of(&path.key("tier"), tier.as_deref(), &mut findings);
    let priority = priority_of(&path.key("priority"), *priority, &mut findings);
    let subject = peers::subject(&path.key("subject"), subject.as_ref(), &mut findings);
    let parts = ingress.iter().flatten().map(|rule| RuleParts {
        name: rule.name.as_deref(),
        action: rule.action.as_deref(),
        peers_field: "from",
        peers: rule.from.as_ref().map(|peers| peers.iter().map(PeerParts::from).collect()),
        protocols: rule.protocols.as_deref(),
    });
    let ingress = rules(&path.key("ingress"), parts, &mut findings);
    let parts = egress.iter().flatten().map(|rule| RuleParts {
        name: rule.name.as_deref(),
        action: rule.action.as_deref(),
        peers_field: "to",
        peers: rule.to.as_ref().map(|peers| peers.iter().map(PeerParts::from).collect()),
        protocols: rule.protocols.as_deref(),
    });
    let egress = rules(&path.key("egress"), parts, &mut findings);
    let policy = match (name, tier, priority, subject) {
        (Some(name), Some(tier), Some(priority), Some(Subject { namespaces, pods })) => {
            let subject = Subject { namespaces, pods };
            Some(model::ClusterNetworkPolicy { name, tier, priority, subject, ingress, egress, staged })
        }
        _ => None,
    };
    findings.finish(policy)
}

fn tier_of(path: &FieldPath, given: Option<&str>, findings: &mut Findings) -> Option<Tier> {
    let given = required(path, given, "tier", "write Admin or Baseline", findings)?;
    let tier = Tier::ALL.into_iter().find(|tier| tier.as_str() == given);
    if tier.is_none() {
        let fix = match nearest(given, Tier::ALL.map(Tier::as_str)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => "use Admin or Baseline; the tier between them is NetworkPolicy".to_owned(),
        };
        findings.add(path, format!("there is no tier {}", Quoted(given)), fix);
    }
    tier
}

fn priority_of(path: &FieldPath, given: Option<i32>, findings: &mut Findings) -> Option<u16> {
    let fix = "write a number from 0 to 1000; the lowest is asked first";
    let given = required(path, given, "priority", fix, findings)?;
    let priority = u16::try_from(given).ok().filter(|_| given <= MAX_PRIORITY);
    if priority.is_none() {
        findings.add(path, format!("{given} is no priority"), fix);
    }
    priority
}

/// A field that must be there.
fn required<T>(path: &FieldPath, given: Option<T>, what: &str, fix: &str, findings: &mut Findings) -> Option<T> {
    if given.is_none() {
        findings.add(path, format!("there is no {what}"), fix);
    }
    given
}

/// Whether a list is longer than the API takes.
fn bound(path: &FieldPath, len: usize, what: &str, findings: &mut Findings) {
    if len > MAX_ITEMS {
        let fix = format!("write at most {MAX_ITEMS}, and the rest in another");
        findings.add(path, format!("there are {len} {what}"), fix);
    }
}

/// A rule of either direction.
struct RuleParts<'a> {
    name: Option<&'a str>,
    action: Option<&'a str>,
    peers_field: &'static str,
    peers: Option<Vec<PeerParts<'a>>>,
    protocols: Option<&'a [ClusterNetworkPolicyProtocol]>,
}

fn rules<'a>(
    path: &FieldPath,
    rules: impl Iterator<Item = RuleParts<'a>>,
    findings: &mut Findings,
) -> Vec<ClusterRule> {
    let mut converted = Vec::new();
    let mut count = 0;
    for (index, parts) in rules.enumerate() {
        count = index + 1;
        converted.extend(rule(&path.index(index), &parts, findings));
    }
    bound(path, count, "rules", findings);
    converted
}

fn rule(path: &FieldPath, parts: &RuleParts<'_>, findings: &mut Findings) -> Option<ClusterRule> {
    let RuleParts { name, action, peers_field, peers, protocols } = parts;
    if name.is_some_and(|name| name.chars().count() > MAX_RULE_NAME) {
        let what = format!("the name has more than {MAX_RULE_NAME} characters");
        findings.add(&path.key("name"), what, "shorten it");
    }
    let action = action_of(&path.key("action"), *action, findings);
    let peers_path = path.key(peers_field);
    let given = peers.as_deref().unwrap_or_default();
    if given.is_empty() {
        let fix = "list at least one peer; namespaces: {} is every pod";
        findings.add(&peers_path, format!("there is nobody in {peers_field}"), fix);
    }
    bound(&peers_path, given.len(), "peers", findings);
    let mut converted = Vec::new();
    for (index, peer) in given.iter().enumerate() {
        peers::peer(&peers_path.index(index), peer, &mut converted, findings);
    }
    let protocols_path = path.key("protocols");
    let without_names = given.iter().any(PeerParts::has_no_port_names);
    let ports = match protocols {
        None => Ports::All,
        Some(given) => Ports::These(ports::ports(&protocols_path, given, without_names, findings)),
    };
    let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
    Some(ClusterRule { name, action: action?, rule: Rule { peers: Peers::These(converted), ports } })
}

fn action_of(path: &FieldPath, given: Option<&str>, findings: &mut Findings) -> Option<Action> {
    match required(path, given, "action", "write Accept, Deny or Pass", findings)? {
        "Accept" => Some(Action::Allow),
        "Deny" => Some(Action::Deny),
        "Pass" => Some(Action::Pass),
        other => {
            let fix = match nearest(other, ACTIONS) {
                Some(meant) => format!("did you mean {meant}?"),
                None if other.eq_ignore_ascii_case("allow") => "write Accept".to_owned(),
                None => format!("use {}", ACTIONS.join(", ")),
            };
            findings.add(path, format!("there is no action {}", Quoted(other)), fix);
            None
        }
    }
}
