//! What stands in for a policy that cannot be read: one that selects the same pods and allows them nothing.
//!
//! Without it a policy with a mistake in a rule would isolate nobody, and the pods that it is there to protect would be
//! open. Read are the fields that say whom it is about; where these cannot be read either, nothing can stand in.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use policy::Direction;
use policy::model::{self, Action, ClusterRule, Object, Peers, Ports, Rule};

use crate::cluster_policy::{cluster_policy, types::ClusterNetworkPolicy};
use crate::decode::decode;
use crate::kind::Kind;
use crate::network_policy::network_policy;
use crate::node::{Entry, Node, Value};

const NAMES: [&str; 3] = ["name", "namespace", "annotations"];

/// What stands in for a refused document. `None`: it is no policy, cannot be said to select anybody, or is staged
/// and would deny nothing.
pub(crate) fn closed(kind: Kind, document: &Node) -> Option<Object> {
    match kind {
        Kind::Namespace | Kind::Pod | Kind::Node | Kind::Service | Kind::EndpointSlice => None,
        Kind::NetworkPolicy => closed_network_policy(document),
        Kind::ClusterNetworkPolicy => closed_cluster_policy(document),
    }
}

/// In the directions that it names, in both where it does not.
fn closed_network_policy(document: &Node) -> Option<Object> {
    // What is missing may be what could not be read: then it does not mean everybody.
    document.get("spec")?.get("podSelector")?;
    let read = |spec: &[&str]| {
        let read = |names: &[&str]| network_policy(&decode::<NetworkPolicy>(&only(document, names, spec)).ok()?).ok();
        read(&NAMES).or_else(|| read(&NAMES[..2]))
    };
    let named = read(&["podSelector", "policyTypes"]).filter(|_| says(document, "policyTypes"));
    let policy = match named {
        Some(policy) => {
            let nothing = |rules: Option<Vec<Rule>>| rules.map(|_| Vec::new());
            model::NetworkPolicy { ingress: nothing(policy.ingress), egress: nothing(policy.egress), ..policy }
        }
        None => model::NetworkPolicy { ingress: Some(Vec::new()), egress: Some(Vec::new()), ..read(&["podSelector"])? },
    };
    (!policy.staged).then(|| policy.into())
}

/// It isolates nobody, so it denies: in each direction in which it has rules that do more than accept. What would have
/// been accepted is left to those who are asked later.
fn closed_cluster_policy(document: &Node) -> Option<Object> {
    let read = |names: &[&str]| {
        let rest = only(document, names, &["tier", "priority", "subject"]);
        cluster_policy(&decode::<ClusterNetworkPolicy>(&rest).ok()?).ok()
    };
    let policy = read(&NAMES).or_else(|| read(&NAMES[..2]))?;
    let rules = |direction| match more_than_accepts(document, direction) {
        true => vec![ClusterRule {
            name: None,
            action: Action::Deny,
            rule: Rule { peers: Peers::Anyone, ports: Ports::All },
        }],
        false => Vec::new(),
    };
    let (ingress, egress) = (rules(Direction::Ingress), rules(Direction::Egress));
    let policy = model::ClusterNetworkPolicy { ingress, egress, ..policy };
    (!policy.staged).then(|| policy.into())
}

fn more_than_accepts(document: &Node, direction: Direction) -> bool {
    let field = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    match document.get("spec").and_then(|spec| spec.get(field)).map(|rules| &rules.value) {
        None | Some(Value::Null) => false,
        Some(Value::List(rules)) => {
            rules.iter().any(|rule| rule.get("action").and_then(Node::text).is_none_or(|action| action != "Accept"))
        }
        Some(_) => true,
    }
}

/// Whether a list of the spec has something in it.
fn says(document: &Node, field: &str) -> bool {
    let given = document.get("spec").and_then(|spec| spec.get(field)).map(|given| &given.value);
    matches!(given, Some(Value::List(items)) if !items.is_empty())
}

/// The document with these fields of metadata and spec, and no other.
fn only(document: &Node, metadata: &[&str], spec: &[&str]) -> Node {
    let part = |node: &Node, fields: &[&str]| {
        let value = match &node.value {
            Value::Object(entries) => {
                let kept = entries.iter().filter(|entry| fields.contains(&&*entry.key));
                Value::Object(kept.cloned().collect())
            }
            other => other.clone(),
        };
        Node::new(node.line, value)
    };
    let mut rest = part(document, &["apiVersion", "kind", "metadata", "spec"]);
    if let Value::Object(entries) = &mut rest.value {
        for Entry { key, node, .. } in entries {
            match &**key {
                "metadata" => *node = part(node, metadata),
                "spec" => *node = part(node, spec),
                _ => {}
            }
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use policy::model::Object;

    use crate::{Outcome, parse_documents};

    fn read(kind: &str, version: &str, spec: &str) -> Option<Object> {
        let text = format!("apiVersion: {version}\nkind: {kind}\n{spec}");
        let mut found = parse_documents("a.yaml", text.as_bytes());
        let document = found.pop().unwrap();
        assert!(matches!(document.outcome, Outcome::Refused(_)), "{text}");
        document.closed.map(|object| *object)
    }

    fn directions(spec: &str) -> Option<(String, bool, bool)> {
        match read("NetworkPolicy", "networking.k8s.io/v1", spec)? {
            Object::NetworkPolicy(policy) => {
                let empty = |rules: &Option<Vec<_>>| rules.as_ref().is_none_or(Vec::is_empty);
                assert!(empty(&policy.ingress) && empty(&policy.egress) && !policy.staged);
                Some((policy.pod_selector.to_string(), policy.ingress.is_some(), policy.egress.is_some()))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_network_policy_that_cannot_be_read_denies_whom_it_selects_in_the_directions_it_names() {
        let of = |spec: &str| directions(&format!("metadata: {{name: p, namespace: shop}}\nspec: {spec}"));
        let app = |ingress, egress| Some(("{app=db}".to_owned(), ingress, egress));
        let selector = "podSelector: {matchLabels: {app: db}}";
        let bad = "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]";
        assert_eq!(of(&format!("{{{selector}, policyTypes: [Ingress], {bad}}}")), app(true, false));
        assert_eq!(of(&format!("{{{selector}, policyTypes: [Egress], egress: [{{tow: []}}]}}")), app(false, true));
        // What it does not say, or not so that it can be read, may be either.
        assert_eq!(of(&format!("{{{selector}, {bad}}}")), app(true, true));
        assert_eq!(of(&format!("{{{selector}, policyTypes: [Ingres], {bad}}}")), app(true, true));
        assert_eq!(of(&format!("{{{selector}, policyTypes: 7}}")), app(true, true));
        assert_eq!(of(&format!("{{{selector}, onlyOnSundays: true, policyTypes: [Ingress]}}")), app(true, false));
        assert!(of(&format!("{{podSelector: {{}}, policyTypes: [Ingress], {bad}}}")).is_some_and(|it| it.1));
        // Nobody can say whom these are about.
        assert_eq!(of(&format!("{{podSelector: {{matchLabels: {{app: -}}}}, {bad}}}")), None);
        assert_eq!(of(&format!("{{podSelectr: {{}}, {bad}}}")), None);
        assert_eq!(of("[]"), None);
    }

    #[test]
    fn how_it_is_enforced_is_read_too_and_what_cannot_be_read_of_it_is_enforced() {
        let of = |value: &str| {
            directions(&format!(
                "metadata: {{name: p, namespace: shop, annotations: {{policy.bulkhead.io/enforcement: {value}}}}}\n\
                 spec: {{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{form: []}}]}}"
            ))
        };
        assert_eq!(of("staged"), None);
        assert!(of("stagd").is_some() && of("7").is_some());
        assert_eq!(directions("metadata: {name: P_}\nspec: {podSelector: {}, policyTypes: [Ingres]}"), None);
    }

    #[test]
    fn a_cluster_policy_that_cannot_be_read_denies_where_it_would_do_more_than_accept() {
        let of = |spec: &str| {
            let spec = format!("metadata: {{name: p}}\nspec: {spec}");
            match read("ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2", &spec)? {
                Object::ClusterNetworkPolicy(policy) => {
                    Some((policy.priority, policy.ingress.len(), policy.egress.len()))
                }
                other => panic!("{other:?}"),
            }
        };
        let head = "tier: Admin, priority: 7, subject: {namespaces: {}}";
        let deny = "{action: Deny, from: [{pods: {}}]}";
        assert_eq!(of(&format!("{{{head}, ingress: [{deny}]}}")), Some((7, 1, 0)));
        assert_eq!(of(&format!("{{{head}, ingress: [{{action: Accept, from: [{{podz: 1}}]}}]}}")), Some((7, 0, 0)));
        assert_eq!(of(&format!("{{{head}, egress: [{{action: Alow}}], ingress: []}}")), Some((7, 0, 1)));
        assert_eq!(of(&format!("{{{head}, egress: 3, ingress: [{{}}]}}")), Some((7, 1, 1)));
        assert_eq!(of(&format!("{{tier: Admn, priority: 7, subject: {{namespaces: {{}}}}, ingress: [{deny}]}}")), None);
        assert_eq!(of(&format!("{{tier: Admin, priority: 7, subject: {{}}, ingress: [{deny}]}}")), None);
    }

    #[test]
    fn nothing_stands_in_for_what_is_no_policy() {
        assert_eq!(read("Namespace", "v1", "metadata: {name: a, labels: {v: 1}}"), None);
    }
}
