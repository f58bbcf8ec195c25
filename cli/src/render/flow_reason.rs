//! Why a flow was allowed or denied, as one phrase: from our extension where it is there, else
//! from what the Hubble API's own fields say.

use proto::{
    bulkhead::flow::v1::{FlowExtension, Outcome, Policy, Ruling},
    flow::{DropReason, Flow, Policy as PlainPolicy},
};

/// From the extension; `reason` is the API's own for a drop.
pub(crate) fn of(extension: &FlowExtension, reason: Option<DropReason>) -> String {
    let FlowExtension { drop_reason, drop_text, .. } = extension;
    if drop_reason.is_empty() {
        return allowed(extension);
    }
    let by = denied(extension);
    match (drop_reason.as_str(), by) {
        // The policies say it all.
        ("default_deny" | "deny_rule", Some(by)) => by,
        (_, Some(by)) => format!("{}; {by}", text(drop_text, reason)),
        (_, None) => text(drop_text, reason),
    }
}

/// What both ends said, in the order they were asked.
fn rulings(extension: &FlowExtension) -> impl Iterator<Item = (&'static str, &Ruling)> {
    let both = [("egress", extension.egress.as_ref()), ("ingress", extension.ingress.as_ref())];
    both.into_iter().filter_map(|(direction, ruling)| Some((direction, ruling?)))
}

/// What would happen if the staged policies were enforced, with the rule; `None` if none of those has a
/// say in either direction.
pub(crate) fn staged(extension: &FlowExtension) -> Option<String> {
    let FlowExtension { egress, ingress, staged_egress, staged_ingress, .. } = extension;
    if staged_egress.is_none() && staged_ingress.is_none() {
        return None;
    }
    // A direction without staged policies says what it says.
    let would = FlowExtension {
        egress: staged_egress.clone().or_else(|| egress.clone()),
        ingress: staged_ingress.clone().or_else(|| ingress.clone()),
        ..FlowExtension::default()
    };
    Some(match denied(&would) {
        Some(by) if by.starts_with("denied") => by,
        Some(by) => format!("denied, {by}"),
        None => match allowed(&would) {
            by if by.starts_with("by ") => format!("allowed {by}"),
            why => format!("allowed, {why}"),
        },
    })
}

/// The reason of a drop in words.
fn text(drop_text: &str, reason: Option<DropReason>) -> String {
    match (drop_text, reason) {
        ("", Some(reason)) => reason.as_str_name().to_lowercase().replace('_', " "),
        ("", None) => "dropped for an unknown reason".to_owned(),
        (text, _) => text.to_owned(),
    }
}

/// Why both ends let it pass.
fn allowed(extension: &FlowExtension) -> String {
    let mut rules = Vec::new();
    let mut exempt = false;
    for (direction, ruling) in rulings(extension) {
        match Outcome::try_from(ruling.outcome) {
            Ok(Outcome::RuleAllows) => rules.push(rule(direction, ruling)),
            Ok(Outcome::Exempt) => exempt = true,
            Ok(Outcome::Open | Outcome::Unspecified | Outcome::Isolated | Outcome::RuleDenies) | Err(_) => {}
        }
    }
    match (rules.is_empty(), exempt) {
        (false, _) => format!("by {}", listed(&rules)),
        (true, true) => "the pod's own node always may".to_owned(),
        (true, false) => "no policy isolates either end".to_owned(),
    }
}

/// Who denied it, if a policy did.
pub(crate) fn denied(extension: &FlowExtension) -> Option<String> {
    rulings(extension).find_map(|(direction, ruling)| match Outcome::try_from(ruling.outcome) {
        Ok(Outcome::RuleDenies) => Some(format!("denied by {}", rule(direction, ruling))),
        Ok(Outcome::Isolated) => {
            let names: Vec<String> = ruling.isolated_by.iter().map(policy).collect();
            let by = if names.is_empty() { "policy".to_owned() } else { listed(&names) };
            Some(format!("{direction} isolated by {by}; nothing allowed it"))
        }
        Ok(Outcome::Unspecified | Outcome::Open | Outcome::RuleAllows | Outcome::Exempt) | Err(_) => None,
    })
}

/// `shop/db-ingress ingress[0]`
fn rule(direction: &str, ruling: &Ruling) -> String {
    match &ruling.rule {
        Some(rule) => match &rule.policy {
            Some(name) => format!("{} {direction}[{}]", policy(name), rule.index),
            None => format!("{direction} rule {} of a policy that is gone", rule.cookie),
        },
        None => format!("an {direction} rule"),
    }
}

/// `shop/db-ingress`; any kind but NetworkPolicy is named.
fn policy(Policy { kind, namespace, name, uid: _ }: &Policy) -> String {
    named(kind, namespace, name)
}

/// `a`, `a and b`, `a, b and c`.
fn listed(names: &[String]) -> String {
    match names {
        [most @ .., last] if !most.is_empty() => format!("{} and {last}", most.join(", ")),
        _ => names.concat(),
    }
}

/// A policy's name as everywhere in this program.
fn named(kind: &str, namespace: &str, name: &str) -> String {
    crate::view::Object { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }.to_string()
}

/// From the API's own fields: policies without rules.
pub(crate) fn without_extension(flow: &Flow) -> String {
    let Flow { egress_allowed_by, ingress_allowed_by, egress_denied_by, ingress_denied_by, .. } = flow;
    let names = |policies: [&[PlainPolicy]; 2]| -> Option<String> {
        let names: Vec<String> =
            policies.into_iter().flatten().map(|policy| named(&policy.kind, &policy.namespace, &policy.name)).collect();
        (!names.is_empty()).then(|| format!("by {}", listed(&names)))
    };
    let reason = DropReason::try_from(flow.drop_reason_desc).ok().filter(|reason| *reason != DropReason::Unknown);
    match (reason, names([egress_denied_by, ingress_denied_by])) {
        (Some(reason), Some(by)) => format!("{} {by}", text("", Some(reason))),
        (Some(reason), None) => text("", Some(reason)),
        (None, Some(by)) => format!("denied {by}"),
        (None, None) => names([egress_allowed_by, ingress_allowed_by]).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
