//! What the API server refuses, by our definition of the kind; and what it lets in and we refuse: that is told with
//! its field, and closed until it is mended.

use anyhow::{bail, ensure};
use serde_json::{Value, json};

use super::{
    ALL, Case, cleared, people, turn,
    write::{admin, anybody, app, from, named, node, on, policy, port, ports, team, to},
};
use crate::{
    install::{NAMESPACE, agent_of},
    stage::{Stage, soon},
};

/// Policies, and the part of the API server's message that names the field.
fn wrong() -> Vec<(Value, &'static str)> {
    let red = &team("red");
    let deny = || from("Deny", &[anybody()]);
    let rule = |rule: Value| admin("wrong", 1, red, &[rule]);
    let protocol = |protocol: Value| rule(on(deny(), &[protocol]));
    let without = |field: &str| {
        let mut policy = admin("wrong", 1, red, &[deny()]);
        if let Some(spec) = policy["spec"].as_object_mut() {
            spec.remove(field);
        }
        policy
    };
    let mut long = deny();
    long["name"] = json!("a".repeat(101));
    let networks = |blocks: &[&str]| rule(to("Deny", &[json!({"networks": blocks})]));
    vec![
        (policy("wrong", "NetworkPolicy", 1, red, &[]), "spec.tier: Unsupported value"),
        (without("tier"), "spec.tier: Required value"),
        (admin("wrong", 1001, red, &[]), "spec.priority: Invalid value: 1001"),
        (admin("wrong", -1, red, &[]), "spec.priority: Invalid value: -1"),
        (without("priority"), "spec.priority: Required value"),
        (without("subject"), "spec.subject: Required value"),
        (admin("wrong", 1, &json!({}), &[]), "spec.subject: Invalid value"),
        (admin("wrong", 1, &json!({"namespaces": {}, "pods": {"podSelector": {}}}), &[]), "spec.subject: "),
        (admin("wrong", 1, red, &vec![deny(); 26]), "spec.ingress: Too many: 26"),
        (rule(from("Allow", &[anybody()])), "spec.ingress[0].action: Unsupported value"),
        (rule(from("Deny", &[])), "spec.ingress[0].from: Invalid value"),
        (rule(from("Deny", &vec![anybody(); 26])), "spec.ingress[0].from: Too many: 26"),
        (rule(from("Deny", &[json!({})])), "spec.ingress[0].from[0]: Invalid value"),
        (rule(from("Deny", &[json!({"pods": {}})])), "spec.ingress[0].from[0].pods.podSelector: Required value"),
        (rule(from("Deny", &[node("n1")])), "unknown field \"spec.ingress[0].from[0].nodes\""),
        (rule(long), "spec.ingress[0].name: Too long"),
        (networks(&["10.0.0.0"]), "spec.egress[0].to[0].networks[0]: Invalid value"),
        (networks(&["10.0.0.0/8", "10.0.0.0/8"]), "spec.egress[0].to[0].networks[1]: Duplicate value"),
        (rule(to("Accept", &[json!({"domainNames": ["com"]})])), "spec.egress[0].to[0].domainNames[0]: Invalid value"),
        (protocol(port("tcp", 0)), "spec.ingress[0].protocols[0].tcp.destinationPort.number: Invalid value: 0"),
        (protocol(ports("udp", 81, 80)), "spec.ingress[0].protocols[0].udp.destinationPort.range: Invalid value"),
        (protocol(named("Not_A_Name")), "spec.ingress[0].protocols[0].destinationNamedPort: Invalid value"),
        (protocol(json!({"icmp": {}})), "unknown field \"spec.ingress[0].protocols[0].icmp\""),
        (rule(on(to("Deny", &[node("n1")]), &[named("http")])), "spec.egress[0]: Invalid value"),
    ]
}

pub(crate) fn by_the_api_server(stage: &mut Stage) -> anyhow::Result<()> {
    let said = |policy: &Value| {
        let apply = ["apply", "--dry-run=server", "-f", "-"];
        stage.cluster.control.kubectl_with(&apply, &policy.to_string())
    };
    said(&admin("right", 1000, &team("red"), &vec![from("Deny", &[anybody()]); 25]))?;
    let mut otherwise = Vec::new();
    for (policy, named) in wrong() {
        match said(&policy) {
            Ok(_) => otherwise.push(format!("{named}: taken")),
            Err(error) => {
                let message = format!("{error:#}");
                if !message.contains(named) {
                    otherwise.push(format!("{named}: {message}"));
                }
            }
        }
    }
    ensure!(otherwise.is_empty(), "{} are not refused so:\n{}", otherwise.len(), otherwise.join("\n"));
    Ok(())
}

/// What the agent of a node says of a policy.
fn told(stage: &Stage, node: &str, policy: &str) -> anyhow::Result<String> {
    let agent = agent_of(stage, node)?;
    stage.kubectl(&["exec", "-n", NAMESPACE, &agent, "--", "bulkhead", "policy", "get", policy])
}

/// Waits until the agent of each node says all of this of a policy.
fn says(stage: &Stage, policy: &str, parts: &[&str]) -> anyhow::Result<()> {
    for node in ["n1", "n2"] {
        soon(&format!("{node} on {policy}"), || {
            let said = told(stage, node, policy)?;
            ensure!(parts.iter().all(|part| said.contains(part)), "{said}, not {parts:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// The one Event about a policy, told by one of the nodes.
fn event(stage: &Stage, policy: &str) -> anyhow::Result<String> {
    let fields = format!("regarding.kind=ClusterNetworkPolicy,regarding.name={policy},reason=NotInForce");
    let found =
        stage.kubectl(&["get", "events.events.k8s.io", "-n", "default", "--field-selector", &fields, "-o", "json"])?;
    let found: Value = serde_json::from_str(&found)?;
    let [event] = found["items"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        bail!("not one Event: {found:#}")
    };
    Ok(event["note"].as_str().unwrap_or_default().to_owned())
}

pub(crate) fn by_the_agent(stage: &mut Stage) -> anyhow::Result<()> {
    let result = people(stage).and_then(|pods| {
        let web = &app("red", "web");
        let operator =
            |operator: &str| json!({"namespaces": {"matchExpressions": [{"key": "team", "operator": operator}]}});
        let guard =
            |word: &str| admin("guard", 1, web, &[from("Accept", &[team("red")]), from("Deny", &[operator(word)])]);
        let mut annotated = admin("audited", 2, &app("blue", "db"), &[from("Deny", &[anybody()])]);
        annotated["metadata"]["annotations"] = json!({"policy.bulkhead.io/enforcement": "audit"});
        let names = admin("names", 3, &app("blue", "web"), &[to("Accept", &[json!({"domainNames": ["example.com"]})])]);
        let holds =
            |name, denied: &[_]| Case { name, policies: Vec::new(), denied: denied.to_vec() }.holds(stage, &pods);

        // Never good: what it selects is denied, in the direction in which it would deny somebody.
        let first = [guard("Contains"), annotated, names];
        turn(stage, &[], &first)?;
        holds("refused from the beginning", &[("red/api blue/web blue/db", "red/web", ALL), (ALL, "blue/db", ALL)])?;
        let field = "spec.ingress[1].from[0].namespaces.matchExpressions[0].operator";
        says(stage, "guard", &["refused", field, "Contains", "until then what it selects is denied"])?;
        let annotation = "metadata.annotations[\"policy.bulkhead.io/enforcement\"]";
        says(stage, "audited", &["refused", annotation, "\"audit\" is no way to enforce a policy"])?;
        says(stage, "names", &["accepted", "spec.egress[0].to[0]", "not yet: domain names match nothing"])?;
        soon("an Event about each", || {
            let note = event(stage, "guard")?;
            ensure!(note.contains(field) && note.ends_with("until then what it selects is denied"), "{note}");
            let note = event(stage, "audited")?;
            ensure!(note.contains(annotation), "{note}");
            Ok(())
        })?;

        // Mended, and then wrong again: what was good stays.
        let second = [guard("Exists")];
        turn(stage, &first, &second)?;
        holds("mended", &[("blue/web blue/db", "red/web", ALL)])?;
        turn(stage, &second, &[guard("Contains")])?;
        says(stage, "guard", &["last-good", field])?;
        holds("refused again", &[("blue/web blue/db", "red/web", ALL)])
    });
    cleared(stage, result)
}
