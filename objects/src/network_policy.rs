//! NetworkPolicy: validated as the API server validates it, and defaulted as it defaults.
//!
//! Meaning of missing and empty fields: reference of `networking.k8s.io/v1`, NetworkPolicySpec.
//! As there, a block may have bits set beyond its prefix (`10.1.2.3/8`), which are cleared, and
//! leading zeros in IPv4, which are decimal; a block of IPv4-mapped addresses is an IPv4 block.

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use policy::Direction;
use policy::model::{self, IpBlock, NamespaceScope, Peer, Peers, Port, PortRange, PortSpec, Ports, Protocol, Rule};
use policy::selector::Selector;

use crate::error::Problem;
use crate::findings::Findings;
use crate::nearest::nearest;
use crate::path::{FieldPath, Quoted};
use crate::selector::selector;
use crate::{metadata, syntax};

/// Validates a NetworkPolicy and turns it into the policy model's.
///
/// # Errors
///
/// Everything that is wrong with it, by field.
pub fn network_policy(object: &NetworkPolicy) -> Result<model::NetworkPolicy, Vec<Problem>> {
    let mut findings = Findings::default();
    let NetworkPolicy { metadata: meta, spec } = object;
    let name = metadata::name(meta, syntax::dns_subdomain, &mut findings);
    let namespace = metadata::namespace(meta, &mut findings);
    // Well-formed labels are asked for, but a policy's own labels mean nothing to policy.
    metadata::labels(meta, &mut findings);
    let staged = metadata::is_staged(meta, &mut findings);

    let none = NetworkPolicySpec::default();
    let NetworkPolicySpec { pod_selector, policy_types, ingress, egress } = spec.as_ref().unwrap_or(&none);
    let path = FieldPath::of(&["spec"]);
    let pod_selector = optional_selector(&path.key("podSelector"), pod_selector.as_ref(), &mut findings);
    let egress_has_rules = egress.as_ref().is_some_and(|rules| !rules.is_empty());
    let types = policy_types_of(&path.key("policyTypes"), policy_types.as_deref(), egress_has_rules, &mut findings);
    let ingress = rules(&path.key("ingress"), ingress.iter().flatten().map(RuleParts::from), &mut findings);
    let egress = rules(&path.key("egress"), egress.iter().flatten().map(RuleParts::from), &mut findings);
    let policy = name.zip(namespace).map(|(name, namespace)| model::NetworkPolicy {
        namespace,
        name,
        pod_selector,
        ingress: types.contains(&Direction::Ingress).then_some(ingress),
        egress: types.contains(&Direction::Egress).then_some(egress),
        staged,
    });
    findings.finish(policy)
}

/// Missing means the same as empty only where this is called: `podSelector` of the policy
/// itself, and `podSelector` beside a `namespaceSelector`.
fn optional_selector(
    path: &FieldPath,
    given: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    findings: &mut Findings,
) -> Selector {
    given.map_or(Selector::everything(), |given| selector(path, given, findings))
}

fn policy_types_of(
    path: &FieldPath,
    given: Option<&[String]>,
    egress_has_rules: bool,
    findings: &mut Findings,
) -> Vec<Direction> {
    let given = given.unwrap_or_default();
    if given.is_empty() {
        let egress = egress_has_rules.then_some(Direction::Egress);
        return std::iter::once(Direction::Ingress).chain(egress).collect();
    }
    if given.len() > 2 {
        findings.add(path, "there are more than two policyTypes", "list each of Ingress and Egress at most once");
    }
    let mut types = Vec::new();
    for (index, name) in given.iter().enumerate() {
        match name.as_str() {
            "Ingress" => types.push(Direction::Ingress),
            "Egress" => types.push(Direction::Egress),
            other => {
                let fix = match nearest(other, ["Ingress", "Egress"]) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => "use Ingress or Egress".to_owned(),
                };
                findings.add(&path.index(index), format!("there is no policy type {}", Quoted(other)), fix);
            }
        }
    }
    types
}

/// A rule of either direction.
struct RuleParts<'a> {
    peers_field: &'static str,
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

impl<'a> From<&'a NetworkPolicyIngressRule> for RuleParts<'a> {
    fn from(rule: &'a NetworkPolicyIngressRule) -> Self {
        let NetworkPolicyIngressRule { from, ports } = rule;
        let peers = from.as_deref().unwrap_or_default();
        Self { peers_field: "from", peers, ports: ports.as_deref().unwrap_or_default() }
    }
}

impl<'a> From<&'a NetworkPolicyEgressRule> for RuleParts<'a> {
    fn from(rule: &'a NetworkPolicyEgressRule) -> Self {
        let NetworkPolicyEgressRule { to, ports } = rule;
        let peers = to.as_deref().unwrap_or_default();
        Self { peers_field: "to", peers, ports: ports.as_deref().unwrap_or_default() }
    }
}

fn rules<'a>(path: &FieldPath, rules: impl Iterator<Item = RuleParts<'a>>, findings: &mut Findings) -> Vec<Rule> {
    let mut converted = Vec::new();
    for (index, rule) in rules.enumerate() {
        let path = path.index(index);
        let (peers_path, ports_path) = (path.key(rule.peers_field), path.key("ports"));
        let mut peers = Vec::new();
        for (index, given) in rule.peers.iter().enumerate() {
            peers.extend(peer(&peers_path.index(index), given, findings));
        }
        let mut ports = Vec::new();
        for (index, given) in rule.ports.iter().enumerate() {
            ports.extend(port(&ports_path.index(index), given, findings));
        }
        converted.push(Rule { peers: Peers::from(peers), ports: Ports::from(ports) });
    }
    converted
}

fn peer(path: &FieldPath, peer: &NetworkPolicyPeer, findings: &mut Findings) -> Option<Peer> {
    let NetworkPolicyPeer { pod_selector, namespace_selector, ip_block } = peer;
    if let Some(given) = ip_block {
        let block = block(&path.key("ipBlock"), given, findings);
        if pod_selector.is_some() || namespace_selector.is_some() {
            findings.add(
                path,
                "ipBlock stands beside a selector, and no traffic comes from both",
                "make them two elements of the list, each with its own dash",
            );
            return None;
        }
        return block.map(Peer::Block);
    }
    let namespaces = match (namespace_selector, pod_selector) {
        (Some(given), _) => NamespaceScope::Matching(selector(&path.key("namespaceSelector"), given, findings)),
        (None, Some(_)) => NamespaceScope::Own,
        (None, None) => {
            findings.add(
                path,
                "this peer names nobody",
                "write podSelector, namespaceSelector or ipBlock; {} as a selector means all",
            );
            return None;
        }
    };
    let pods = optional_selector(&path.key("podSelector"), pod_selector.as_ref(), findings);
    Some(Peer::Pods { namespaces, pods })
}

fn block(path: &FieldPath, block: &IPBlock, findings: &mut Findings) -> Option<IpBlock> {
    let IPBlock { cidr, except } = block;
    let cidr = network(&path.key("cidr"), cidr, findings);
    let path = path.key("except");
    let mut holes = Vec::new();
    for (index, text) in except.iter().flatten().enumerate() {
        let path = path.index(index);
        let Some(hole) = network(&path, text, findings) else { continue };
        let Some(cidr) = cidr else { continue };
        if hole.is_ipv4() != cidr.is_ipv4() {
            findings.add(
                &path,
                format!("{} is not of the family of {cidr}", Quoted(text)),
                "make the exceptions IPv4 or IPv6 as cidr is; a block of the other family is an element of its own",
            );
        } else if hole.prefix() <= cidr.prefix() || !model::network_contains(cidr, hole) {
            findings.add(
                &path,
                format!("{} is not strictly inside {cidr}", Quoted(text)),
                "write a part of cidr, smaller than all of it, or remove the exception",
            );
        } else {
            holes.push(hole);
        }
    }
    IpBlock::new(cidr?, holes).ok()
}

fn network(path: &FieldPath, text: &str, findings: &mut Findings) -> Option<IpNetwork> {
    findings.check(path, text, syntax::cidr(text)).map(model::canonical_network)
}

fn port(path: &FieldPath, port: &NetworkPolicyPort, findings: &mut Findings) -> Option<Port> {
    let NetworkPolicyPort { protocol: protocol_name, port, end_port } = port;
    let protocol = protocol(&path.key("protocol"), protocol_name.as_deref(), findings);
    let end_path = path.key("endPort");
    let spec = match (port, end_port) {
        (None, None) => Some(PortSpec::Numbers(PortRange::ALL)),
        (None, Some(_)) => {
            findings.add(&path.key("port"), "endPort needs a port to begin from", "write port, or remove endPort");
            None
        }
        (Some(IntOrString::Int(number)), None) => {
            number_at(&path.key("port"), *number, findings).map(|port| PortSpec::Numbers(PortRange::single(port)))
        }
        (Some(IntOrString::Int(from)), Some(to)) => {
            let ends = number_at(&path.key("port"), *from, findings).zip(number_at(&end_path, *to, findings));
            let range = ends.and_then(|(from, to)| PortRange::new(from, to).ok());
            if range.is_none() && to < from {
                findings.add(&end_path, format!("{to} is below port {from}"), format!("make endPort {from} or more"));
            }
            range.map(PortSpec::Numbers)
        }
        (Some(IntOrString::String(name)), end_port) => {
            if end_port.is_some() {
                findings.add(
                    &end_path,
                    "a port given by name has no range",
                    "remove endPort, or give port as a number",
                );
            }
            port_name(&path.key("port"), name, findings)
        }
    };
    Some(Port { protocol: protocol?, port: spec? })
}

fn port_name(path: &FieldPath, name: &str, findings: &mut Findings) -> Option<PortSpec> {
    if name.parse::<u16>().is_ok_and(|port| port > 0) {
        findings.add(path, format!("{} is text, so it is the name of a port", Quoted(name)), "remove the quotes");
        return None;
    }
    findings.check(path, name, syntax::port_name(name)).map(|()| PortSpec::Named(name.to_owned()))
}

fn number_at(path: &FieldPath, number: i32, findings: &mut Findings) -> Option<u16> {
    findings.check_shown(path, number, syntax::port_number(number))
}

/// `protocol` of a rule's or a container's port; TCP if there is none.
pub(crate) fn protocol(path: &FieldPath, given: Option<&str>, findings: &mut Findings) -> Option<Protocol> {
    let Some(given) = given else { return Some(Protocol::Tcp) };
    match given.parse() {
        Ok(protocol) => Some(protocol),
        Err(_) => {
            let upper = given.to_ascii_uppercase();
            let fix = match upper.parse::<Protocol>() {
                Ok(_) => format!("write {upper}, in capitals"),
                Err(_) if upper.starts_with("ICMP") => {
                    "use TCP, UDP or SCTP; only a rule without ports lets ICMP through".to_owned()
                }
                Err(_) => "use TCP, UDP or SCTP".to_owned(),
            };
            findings.add(path, format!("there is no protocol {}", Quoted(given)), fix);
            None
        }
    }
}
