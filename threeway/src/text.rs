//! Scenarios as text: objects as `policy::fixture::text` has them, and a line for everything else.
//!
//! ```text
//! local a/web 10.0.0.1 fd00::1
//! pod a/web app=web
//! policy a/p {}
//!   ingress from 10.0.0.0/24
//! send TCP 10.0.0.7:40000 10.0.0.1:80 flags=2
//! send ICMP 10.0.0.1:7 10.0.0.7:0 request
//! send UDP 10.0.0.7:53 10.0.0.1:53 data round first=1
//! send UDP 10.0.0.7:53 10.0.0.1:53 data later=1
//! start a/db 10.0.0.2
//! stop a/web
//! delete NetworkPolicy a/p
//! restart
//! collect
//! ```

use std::fmt;

use ::tests::{model::Says, packet as wire};
use policy::{
    fixture::text as fixture,
    model::{
        Action, ClusterNetworkPolicy, ClusterRule, IpBlock, NamespaceScope, NetworkPolicy, Object, ObjectKey, Peer,
        Peers, Pod, PodKey, PolicyRef, Ports, Rule,
    },
};

use crate::scenario::{Local, Packet, Part, Scenario, Step};

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for local in &self.locals {
            writeln!(f, "local {}", self::local(local))?;
        }
        for step in &self.steps {
            match step {
                Step::Apply(object) => writeln!(f, "{}", self::object(object))?,
                Step::Delete(key) => writeln!(f, "delete {key}")?,
                Step::Start(local) => writeln!(f, "start {}", self::local(local))?,
                Step::Stop(pod) => writeln!(f, "stop {pod}")?,
                Step::Restart => writeln!(f, "restart")?,
                Step::Collect => writeln!(f, "collect")?,
                Step::Send(packet) => writeln!(f, "{}", self::packet(packet))?,
            }
        }
        Ok(())
    }
}

fn local(Local { pod, ips }: &Local) -> String {
    ips.iter().fold(pod.to_string(), |text, ip| format!("{text} {ip}"))
}

/// A packet as a line.
pub fn packet(packet: &Packet) -> String {
    let Packet { proto, source, destination, says, round, part } = packet;
    let proto = match *proto {
        wire::TCP => "TCP".to_owned(),
        wire::UDP => "UDP".to_owned(),
        wire::SCTP => "SCTP".to_owned(),
        wire::ICMP | wire::ICMPV6 => "ICMP".to_owned(),
        other => other.to_string(),
    };
    let says = match says {
        Says::Tcp(flags) => format!("flags={flags}"),
        Says::Sctp(chunks) => format!("chunk={}", chunks[0]),
        Says::Echo { request: true } => "request".to_owned(),
        Says::Echo { request: false } => "reply".to_owned(),
        Says::Data => "data".to_owned(),
    };
    let round = if *round { " round" } else { "" };
    let part = match part {
        Part::Whole => String::new(),
        Part::First(id) => format!(" first={id}"),
        Part::Later(id) => format!(" later={id}"),
    };
    format!("send {proto} {source} {destination} {says}{round}{part}")
}

fn object(object: &Object) -> String {
    match object {
        Object::Namespace(namespace) => {
            let labels: String = namespace.labels().iter().map(|(key, value)| format!(" {key}={value}")).collect();
            format!("namespace {}{labels}", namespace.name())
        }
        Object::Pod(pod) => self::pod(pod),
        Object::Node(node) => {
            let labels: String = node.labels.iter().map(|(key, value)| format!(" {key}={value}")).collect();
            let ips: String = node.ips.iter().map(|ip| format!(" ip={ip}")).collect();
            format!("node {}{labels}{ips}", node.name)
        }
        // Worlds have none: they are written down as what says nothing.
        Object::Service(_) | Object::EndpointSlice(_) => format!("# {}", object.key()),
        Object::NetworkPolicy(policy) => network_policy(policy),
        Object::ClusterNetworkPolicy(policy) => cluster_policy(policy),
    }
}

fn cluster_policy(policy: &ClusterNetworkPolicy) -> String {
    let ClusterNetworkPolicy { name, tier, priority, subject, ingress, egress, staged } = policy;
    let (tier, staged) = (tier.as_str().to_lowercase(), if *staged { " staged" } else { "" });
    let mut lines =
        vec![format!("cluster {name} {tier} {priority} {} in {}{staged}", subject.pods, subject.namespaces)];
    for (direction, rules, word) in [("ingress", ingress, "from"), ("egress", egress, "to")] {
        lines.extend(rules.iter().map(|ClusterRule { name: _, action, rule }| {
            let action = match action {
                Action::Allow => "accept",
                Action::Deny => "deny",
                Action::Pass => "pass",
            };
            format!("  {direction} {action} {word} {}", self::rule(rule))
        }));
    }
    lines.join("\n")
}

fn pod(pod: &Pod) -> String {
    let mut words = vec!["pod".to_owned(), pod.key.to_string()];
    words.extend(pod.labels.iter().map(|(key, value)| format!("{key}={value}")));
    words.extend(pod.ips.iter().map(|ip| format!("ip={ip}")));
    words.extend(pod.ports.iter().map(|port| format!("port={}:{}:{}", port.name, port.protocol, port.port)));
    words.push(format!("sa={}", pod.service_account));
    words.extend(pod.host_network.then(|| "hostNetwork".to_owned()));
    words.extend(pod.finished.then(|| "finished".to_owned()));
    words.join(" ")
}

fn network_policy(policy: &NetworkPolicy) -> String {
    let staged = if policy.staged { " staged" } else { "" };
    let mut lines = vec![format!("policy {}/{} {}{staged}", policy.namespace, policy.name, policy.pod_selector)];
    for (direction, rules, word) in [("ingress", &policy.ingress, "from"), ("egress", &policy.egress, "to")] {
        match rules.as_deref() {
            None => {}
            Some([]) => lines.push(format!("  {direction} none")),
            Some(rules) => lines.extend(rules.iter().map(|rule| format!("  {direction} {word} {}", self::rule(rule)))),
        }
    }
    lines.join("\n")
}

fn rule(Rule { peers, ports }: &Rule) -> String {
    let mut text = match peers {
        Peers::Anyone => "anyone".to_owned(),
        Peers::These(peers) => peers.iter().map(peer).collect::<Vec<_>>().join(" or "),
    };
    if let Ports::These(ports) = ports {
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        text += &format!(" ports {}", ports.join(", "));
    }
    text
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Pods { namespaces: NamespaceScope::Own, pods } => pods.to_string(),
        Peer::Pods { namespaces: NamespaceScope::Matching(namespaces), pods } => format!("{pods} in {namespaces}"),
        Peer::Block(block) => IpBlock::to_string(block),
        Peer::Nodes(nodes) => format!("nodes {nodes}"),
        Peer::Domains(names) => format!("domains {}", names.join(",")),
    }
}

/// Reads a scenario.
///
/// # Errors
/// Names what is not understood.
pub fn parse(text: &str) -> Result<Scenario, String> {
    let mut scenario = Scenario::default();
    let mut objects = String::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let step = match words[..] {
            ["local", pod, ref ips @ ..] => {
                scenario.locals.push(running(pod, ips)?);
                continue;
            }
            ["start", pod, ref ips @ ..] => Step::Start(running(pod, ips)?),
            ["stop", pod] => Step::Stop(pod_key(pod)?),
            ["delete", kind, name] => Step::Delete(key(kind, name)?),
            ["restart"] => Step::Restart,
            ["collect"] => Step::Collect,
            ["send", proto, source, destination, says, ref more @ ..] => Step::Send(Packet {
                source: source.parse().map_err(|error| format!("{line}: {error}"))?,
                destination: destination.parse().map_err(|error| format!("{line}: {error}"))?,
                proto: protocol(proto, destination)?,
                says: self::says(says)?,
                round: more.contains(&"round"),
                part: part(more)?,
            }),
            _ => {
                objects += line;
                objects += "\n";
                continue;
            }
        };
        let before = fixture::parse(&std::mem::take(&mut objects))?;
        scenario.steps.extend(before.into_iter().map(Step::Apply));
        scenario.steps.push(step);
    }
    scenario.steps.extend(fixture::parse(&objects)?.into_iter().map(Step::Apply));
    Ok(scenario)
}

fn running(pod: &str, ips: &[&str]) -> Result<Local, String> {
    let ips = ips.iter().map(|ip| ip.parse().map_err(|error| format!("{ip:?}: {error}")));
    Ok(Local { pod: pod_key(pod)?, ips: ips.collect::<Result<_, _>>()? })
}

fn part(words: &[&str]) -> Result<Part, String> {
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text:?}: {error}"));
    for word in words {
        match word.split_once('=') {
            Some(("first", id)) => return Ok(Part::First(number(id)?)),
            Some(("later", id)) => return Ok(Part::Later(number(id)?)),
            _ if *word == "round" => {}
            _ => return Err(format!("{word:?} is not round, first= or later=")),
        }
    }
    Ok(Part::Whole)
}

fn pod_key(text: &str) -> Result<PodKey, String> {
    let (namespace, name) = text.split_once('/').ok_or_else(|| format!("{text:?} is no namespace/name"))?;
    Ok(PodKey::new(namespace, name))
}

fn key(kind: &str, name: &str) -> Result<ObjectKey, String> {
    Ok(match kind {
        "Namespace" => ObjectKey::Namespace(name.to_owned()),
        "Pod" => ObjectKey::Pod(pod_key(name)?),
        "Node" => ObjectKey::Node(name.to_owned()),
        "ClusterNetworkPolicy" => ObjectKey::Policy(PolicyRef::cluster(name)),
        "NetworkPolicy" => {
            let (namespace, name) = name.split_once('/').ok_or_else(|| format!("{name:?} is no namespace/name"))?;
            ObjectKey::Policy(PolicyRef::network_policy(namespace, name))
        }
        other => return Err(format!("{other:?} is no kind")),
    })
}

fn protocol(text: &str, destination: &str) -> Result<u8, String> {
    Ok(match text {
        "TCP" => wire::TCP,
        "UDP" => wire::UDP,
        "SCTP" => wire::SCTP,
        "ICMP" if destination.starts_with('[') => wire::ICMPV6,
        "ICMP" => wire::ICMP,
        other => other.parse().map_err(|error| format!("{other:?}: {error}"))?,
    })
}

fn says(text: &str) -> Result<Says, String> {
    let number = |text: &str| text.parse::<u8>().map_err(|error| format!("{text:?}: {error}"));
    Ok(match text.split_once('=') {
        Some(("flags", flags)) => Says::Tcp(number(flags)?),
        Some(("chunk", chunk)) => Says::Sctp(vec![number(chunk)?]),
        None if text == "request" => Says::Echo { request: true },
        None if text == "reply" => Says::Echo { request: false },
        None if text == "data" => Says::Data,
        _ => return Err(format!("{text:?} is not flags=, chunk=, request, reply or data")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{generate, random::Random};

    #[test]
    fn scenarios_read_as_they_print() {
        for world in 0..200 {
            let scenario = generate::scenario(&mut Random::new(1, world), &generate::Shape::default());
            let printed = scenario.to_string();
            let read = parse(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
            assert_eq!(read, scenario, "{printed}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, wrong) in [
            ("send TCP 10.0.0.1 10.0.0.2:1 flags=2", "invalid socket address"),
            ("send TCP 10.0.0.1:1 10.0.0.2:1 flag=2", "is not flags="),
            ("delete Service a/b", "is no kind"),
            ("local a", "is no namespace/name"),
            ("start a/b 10.0.0", "invalid IP address"),
            ("send UDP 10.0.0.1:1 10.0.0.2:1 data round last=1", "is not round"),
            ("podd a/b", "expected namespace"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}
