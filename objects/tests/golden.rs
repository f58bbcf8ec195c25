//! Every case in `testdata/*.txt`: a file as a user would write it, and what we say about it.
//!
//! A case is a line `=== title`, the file, a line `>>>`, and the expected text. The title ends
//! with the file's name in brackets if that is not `case.yaml`. `UPDATE_GOLDEN=1 cargo test -p
//! objects` rewrites what is expected; read the difference before you commit it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use objects::{DocumentResult, Outcome, parse_documents};
use policy::model::{ClusterNetworkPolicy, EndpointSlice, NetworkPolicy, Object, Peers, Pod, Ports, Rule, Service};

struct Case {
    title: String,
    file: String,
    input: String,
    expected: String,
}

fn cases(text: &str) -> (String, Vec<Case>) {
    let mut preamble = String::new();
    let mut cases: Vec<Case> = Vec::new();
    let mut in_expected = false;
    for line in text.split_inclusive('\n') {
        if let Some(title) = line.strip_prefix("=== ") {
            let title = title.trim_end();
            let named = title.strip_suffix(']').and_then(|title| title.rsplit_once('['));
            let file = named.map_or("case.yaml", |(_, file)| file).to_owned();
            cases.push(Case { title: title.to_owned(), file, input: String::new(), expected: String::new() });
            in_expected = false;
        } else if line.trim_end() == ">>>" {
            in_expected = true;
        } else {
            match cases.last_mut() {
                None => preamble.push_str(line),
                Some(case) if in_expected => case.expected.push_str(line),
                Some(case) => case.input.push_str(line),
            }
        }
    }
    (preamble, cases)
}

fn run(case: &Case) -> String {
    let mut text = String::new();
    for result in parse_documents(&case.file, case.input.as_bytes()) {
        describe(&mut text, &result).expect("writing to a string does not fail");
    }
    text
}

fn describe(text: &mut String, result: &DocumentResult) -> std::fmt::Result {
    match &result.outcome {
        Outcome::Refused(error) => {
            writeln!(text, "{error}")?;
            match &result.key {
                Some(key) => writeln!(text, "  refused: {key}"),
                None => Ok(()),
            }
        }
        Outcome::Skipped { api_version } => {
            let name = result.name.as_ref().map(ToString::to_string).unwrap_or_default();
            writeln!(text, "line {}: passed over {name} ({api_version})", result.line)
        }
        Outcome::Object(object) => {
            writeln!(text, "line {}: {}", result.line, object.key())?;
            match &**object {
                Object::Namespace(namespace) => writeln!(text, "  labels {}", namespace.labels()),
                Object::Pod(pod) => describe_pod(text, pod),
                Object::Node(node) => writeln!(text, "  labels {}; ips {:?}", node.labels, node.ips),
                Object::Service(service) => describe_service(text, service),
                Object::EndpointSlice(slice) => describe_slice(text, slice),
                Object::NetworkPolicy(policy) => describe_policy(text, policy),
                Object::ClusterNetworkPolicy(policy) => describe_cluster_policy(text, policy),
            }
        }
    }
}

fn describe_pod(text: &mut String, pod: &Pod) -> std::fmt::Result {
    let Pod { key: _, uid, labels, service_account, ips, ports, host_network, finished, workload } = pod;
    writeln!(text, "  labels {labels}; account {service_account}; uid {uid:?}")?;
    let ports: Vec<_> = ports.iter().map(|port| format!("{}={}/{}", port.name, port.protocol, port.port)).collect();
    writeln!(text, "  ips {ips:?}; ports {ports:?}; host network {host_network}; finished {finished}")?;
    let workload = workload.as_ref().map_or("itself".to_owned(), ToString::to_string);
    writeln!(text, "  workload {workload}")
}

fn describe_service(text: &mut String, service: &Service) -> std::fmt::Result {
    let Service { key: _, created, service_type, headless, cluster_ips, ports, proxy } = service;
    let ports: Vec<_> = ports.iter().map(|port| format!("{:?}={}/{}", port.name, port.port, port.protocol)).collect();
    writeln!(text, "  {service_type}; headless {headless}; ips {cluster_ips:?}; ports [{}]", ports.join(" "))?;
    writeln!(text, "  created {created:?}; proxy {proxy:?}")
}

fn describe_slice(text: &mut String, slice: &EndpointSlice) -> std::fmt::Result {
    let EndpointSlice { key: _, service: _, address_type, ports, endpoints } = slice;
    let ports: Vec<_> = ports.iter().map(|port| format!("{:?}={}/{}", port.name, port.port, port.protocol)).collect();
    let service = slice.service_key().map_or("nobody".to_owned(), |key| key.to_string());
    writeln!(text, "  for {service}; {}; ports [{}]", address_type.as_str(), ports.join(" "))?;
    for endpoint in endpoints {
        let states = [("ready", endpoint.ready), ("serving", endpoint.serving), ("terminating", endpoint.terminating)];
        let states: Vec<&str> = states.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        writeln!(text, "  {}: {}", endpoint.ip, states.join(" "))?;
    }
    Ok(())
}

fn describe_policy(text: &mut String, policy: &NetworkPolicy) -> std::fmt::Result {
    let staged = if policy.staged { "; staged" } else { "" };
    writeln!(text, "  selects {}{staged}", policy.pod_selector)?;
    describe_rules(text, "ingress", policy.ingress.as_deref())?;
    describe_rules(text, "egress", policy.egress.as_deref())
}

fn describe_cluster_policy(text: &mut String, policy: &ClusterNetworkPolicy) -> std::fmt::Result {
    let ClusterNetworkPolicy { name: _, tier, priority, subject, ingress, egress, staged } = policy;
    let staged = if *staged { "; staged" } else { "" };
    writeln!(text, "  {tier} {priority}; {subject}{staged}")?;
    for (direction, rules) in [("ingress", ingress), ("egress", egress)] {
        for rule in rules {
            let name = rule.name.as_ref().map(|name| format!(" {name:?}")).unwrap_or_default();
            writeln!(text, "  {direction}{name}: {} {}; {}", rule.action, rule.rule.peers, rule.rule.ports)?;
        }
    }
    Ok(())
}

fn describe_rules(text: &mut String, direction: &str, rules: Option<&[Rule]>) -> std::fmt::Result {
    let Some(rules) = rules else { return writeln!(text, "  {direction}: not isolated") };
    writeln!(text, "  {direction}: isolated, {} rules", rules.len())?;
    for rule in rules {
        let peers = match &rule.peers {
            Peers::Anyone => "anyone".to_owned(),
            Peers::These(peers) => peers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        };
        let ports = match &rule.ports {
            Ports::All => "all ports".to_owned(),
            Ports::These(ports) => ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        };
        writeln!(text, "    {peers} | {ports}")?;
    }
    Ok(())
}

fn check(name: &str, at_least: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (preamble, cases) = cases(&text);
    assert!(cases.len() >= at_least, "{name} has only {} cases", cases.len());
    let mut differences = String::new();
    let mut rewritten = preamble;
    for case in &cases {
        let got = run(case);
        // One blank line separates cases and belongs to neither.
        let expected = case.expected.trim_end();
        if got.trim_end() != expected {
            write!(differences, "=== {}\nexpected:\n{expected}\ngot:\n{got}\n", case.title).expect("a string");
        }
        let input = case.input.trim_end_matches('\n');
        let got = got.trim_end();
        write!(rewritten, "=== {}\n{input}\n>>>\n{got}\n\n", case.title).expect("a string");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, rewritten.trim_end().to_owned() + "\n").expect("the file that was just read can be written");
    } else {
        assert!(differences.is_empty(), "{name}; UPDATE_GOLDEN=1 rewrites it\n{differences}");
    }
}

#[test]
fn accepted_objects_mean_what_the_api_says() {
    check("accepted.txt", 20);
}

#[test]
fn cluster_policies_mean_what_their_crd_says() {
    check("cluster_policies.txt", 15);
}

#[test]
fn services_and_slices_mean_what_the_api_says() {
    check("services.txt", 8);
}

#[test]
fn text_that_is_no_document_is_refused_with_its_place() {
    check("refused_text.txt", 30);
}

#[test]
fn wrong_fields_and_types_are_refused_with_a_hint() {
    check("refused_fields.txt", 25);
}

#[test]
fn what_an_api_server_refuses_is_refused() {
    check("refused_values.txt", 33);
}
