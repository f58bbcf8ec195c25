//! `protocols` of a ClusterNetworkPolicy's rule.

use policy::model::{Port, PortRange, PortSpec, Protocol};

use super::types::{self, ClusterNetworkPolicyProtocol, ClusterNetworkPolicyProtocolPorts};
use super::{bound, required};
use crate::findings::Findings;
use crate::path::{FieldPath, Quoted};
use crate::syntax;

/// The ports of a rule. `without_names`: the rule has peers that give ports no names.
pub(super) fn ports(
    path: &FieldPath,
    given: &[ClusterNetworkPolicyProtocol],
    without_names: bool,
    findings: &mut Findings,
) -> Vec<Port> {
    if given.is_empty() {
        findings.add(path, "the list is empty", "remove it for every protocol and port, or list some");
    }
    bound(path, given.len(), "protocols", findings);
    let mut ports = Vec::new();
    for (index, given) in given.iter().enumerate() {
        let path = path.index(index);
        let ClusterNetworkPolicyProtocol { tcp, udp, sctp, destination_named_port } = given;
        let numbered = [(Protocol::Tcp, "tcp", tcp), (Protocol::Udp, "udp", udp), (Protocol::Sctp, "sctp", sctp)];
        let name = destination_named_port.as_deref().filter(|name| !name.is_empty());
        match numbered.iter().filter(|(.., given)| given.is_some()).count() + usize::from(name.is_some()) {
            0 => findings.add(&path, "this protocol is none", "write tcp, udp, sctp or destinationNamedPort"),
            1 => {}
            _ => {
                let fix = "make each of them an element of the list, with its own dash";
                findings.add(&path, "this has more than one of tcp, udp, sctp and destinationNamedPort", fix);
                continue;
            }
        }
        for (protocol, field, given) in numbered {
            let Some(given) = given else { continue };
            let port = range(&path.key(field), given, findings).map(PortSpec::Numbers);
            ports.extend(port.map(|port| Port { protocol, port }));
        }
        let Some(name) = name else { continue };
        let path = path.key("destinationNamedPort");
        if without_names {
            let fix = "give the port by number, or make the rule two";
            findings.add(&path, "nodes, networks and domainNames give no port a name", fix);
        } else if findings.check(&path, name, syntax::port_name(name)).is_some() {
            // A container port has one protocol, and the rule means whichever that is.
            ports.extend(Protocol::ALL.map(|protocol| Port { protocol, port: PortSpec::Named(name.to_owned()) }));
        }
    }
    ports
}

fn range(path: &FieldPath, given: &ClusterNetworkPolicyProtocolPorts, findings: &mut Findings) -> Option<PortRange> {
    let ClusterNetworkPolicyProtocolPorts { destination_port } = given;
    let path = path.key("destinationPort");
    let fix = "write number or range; 1 to 65535 is every port";
    let types::Port { number, range } = required(&path, destination_port.as_ref(), "destinationPort", fix, findings)?;
    match (number, range) {
        (Some(number), None) => port(&path.key("number"), *number, findings).map(PortRange::single),
        (None, Some(types::PortRange { start, end })) => {
            let path = path.key("range");
            let (start_path, end_path) = (path.key("start"), path.key("end"));
            let start = required(&start_path, *start, "start", "write the first port", findings);
            let end = required(&end_path, *end, "end", "write the last port", findings);
            let (start, end) = start.zip(end)?;
            let ends = port(&start_path, start, findings).zip(port(&end_path, end, findings))?;
            if end <= start {
                let what = format!("{} does not come after {}", Quoted(&end.to_string()), Quoted(&start.to_string()));
                findings.add(&end_path, what, "make end greater than start, or use number for a single port");
            }
            PortRange::new(ends.0, ends.1).ok()
        }
        (None, None) => {
            findings.add(&path, "this port is none", fix);
            None
        }
        (Some(_), Some(_)) => {
            findings.add(&path, "number stands beside range", "keep one of them");
            None
        }
    }
}

fn port(path: &FieldPath, number: i32, findings: &mut Findings) -> Option<u16> {
    findings.check_shown(path, number, syntax::port_number(number))
}
