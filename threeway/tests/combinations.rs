//! Every combination of: who is isolated, whether the rule names the peer, whether it names the port; for
//! each way to name either, in both directions and families. What should come of it is a formula here,
//! and the three sides must agree with it as they do with each other.

use anyhow::{anyhow, ensure};
use tests::trial::trial;
use threeway::{node::Node, play::play, scenario::Step, text};

/// One direction's policy: none, or one whose rule names the peer or not, the port or not.
#[derive(Clone, Copy, Debug)]
enum Policy {
    None,
    Isolates { peer: bool, port: bool },
}

const POLICIES: [Policy; 5] = [
    Policy::None,
    Policy::Isolates { peer: false, port: false },
    Policy::Isolates { peer: false, port: true },
    Policy::Isolates { peer: true, port: false },
    Policy::Isolates { peer: true, port: true },
];

impl Policy {
    fn allows(self) -> bool {
        match self {
            Self::None => true,
            Self::Isolates { peer, port } => peer && port,
        }
    }
}

/// Ways to name a peer: so that it is the one with label and address `P`, and so that it is not.
const PEERS: [(&str, [&str; 2]); 5] = [
    ("pods of the own namespace", ["{app=other}", "{app=P}"]),
    ("all pods of a namespace", ["{} in {team=z}", "{} in {team=a}"]),
    ("pods of a namespace", ["{app=P} in {team=z}", "{app=P} in {team=a}"]),
    ("a block", ["192.0.2.0/24", "10.0.0.0/28 or fd00::/124"]),
    ("a block with an exception", ["BLOCK except ADDRESS", "BLOCK except OTHER"]),
];

/// Ways to name a port: so that it is number 80 of protocol `T`, and so that it is not.
const PORTS: [(&str, [&str; 2]); 5] = [
    ("a number", ["T/81", "T/80"]),
    ("a range", ["T/81-90", "T/70-80"]),
    ("a name", ["T/other", "T/web"]),
    ("a protocol", ["U/*", "T/*"]),
    ("a number of a protocol", ["U/80", "T/80"]),
];

/// Who is on the node.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Place {
    Both,
    Client,
    Server,
}

struct Row {
    egress: Policy,
    ingress: Policy,
    peer: [&'static str; 2],
    port: [&'static str; 2],
    v6: bool,
    place: Place,
    /// Names of a protocol and another one, and what begins and answers a connection.
    proto: (&'static str, &'static str, [&'static str; 2]),
}

const PROTOCOLS: [(&str, &str, [&str; 2]); 3] = [
    ("TCP", "UDP", ["flags=2", "flags=18"]),
    ("UDP", "SCTP", ["data", "data"]),
    ("SCTP", "TCP", ["chunk=1", "chunk=2"]),
];

impl Row {
    fn passes(&self) -> bool {
        match self.place {
            Place::Both => self.egress.allows() && self.ingress.allows(),
            Place::Client => self.egress.allows(),
            Place::Server => self.ingress.allows(),
        }
    }

    /// As a scenario: pods, their policies, the first packet, and an answer if it passes.
    fn text(&self) -> String {
        let Self { v6, place, proto: (proto, other, says), .. } = self;
        let ips = if *v6 { ["fd00::1", "fd00::2"] } else { ["10.0.0.1", "10.0.0.2"] };
        let mut text = String::new();
        for (name, ip, elsewhere) in [("client", ips[0], Place::Server), ("server", ips[1], Place::Client)] {
            if *place != elsewhere {
                text += &format!("local a/{name} {ip}\n");
            }
        }
        text += "namespace a team=a\n";
        for (name, ip) in ["client", "server"].into_iter().zip(ips) {
            text += &format!("pod a/{name} app={name} ip={ip} port=web:{proto}:80\n");
        }
        let sides = [
            ("egress to", "client", self.egress, "server", ips[1]),
            ("ingress from", "server", self.ingress, "client", ips[0]),
        ];
        for (rule, subject, policy, peer, ip) in sides {
            let Policy::Isolates { peer: names_peer, port: names_port } = policy else { continue };
            let (block, length) = if *v6 { ("fd00::/124", 128) } else { ("10.0.0.0/28", 32) };
            let beside = if *v6 { "fd00::7" } else { "10.0.0.7" };
            let who = self.peer[usize::from(names_peer)]
                .replace('P', peer)
                .replace("BLOCK", block)
                .replace("ADDRESS", &format!("{ip}/{length}"))
                .replace("OTHER", &format!("{beside}/{length}"));
            let (which, ports) = self.port[usize::from(names_port)].split_once('/').expect("a protocol and ports");
            let which = if which == "T" { proto } else { other };
            text += &format!("policy a/{subject} {{app={subject}}}\n  {rule} {who} ports {which}/{ports}\n");
        }
        let [client, server] = if *v6 {
            [format!("[{}]:40000", ips[0]), format!("[{}]:80", ips[1])]
        } else {
            [format!("{}:40000", ips[0]), format!("{}:80", ips[1])]
        };
        text += &format!("send {proto} {client} {server} {}\n", says[0]);
        if self.passes() {
            text += &format!("send {proto} {server} {client} {}\n", says[1]);
        }
        text
    }
}

#[test]
fn every_combination_of_peer_and_port_and_isolation_is_what_the_formula_says() {
    trial(|| {
        let mut node = Node::new()?;
        let mut rows = 0;
        let mut kinds = PEERS.iter().flat_map(|peer| PORTS.iter().map(move |port| (peer, port)));
        kinds.try_for_each(|((peer_kind, peer), (port_kind, port))| {
            for (egress, ingress) in POLICIES.iter().flat_map(|egress| POLICIES.map(|ingress| (*egress, ingress))) {
                for (place, v6) in
                    [Place::Both, Place::Client, Place::Server].map(|it| [(it, false), (it, true)]).concat()
                {
                    let proto = PROTOCOLS[rows % PROTOCOLS.len()];
                    let row = Row { egress, ingress, peer: *peer, port: *port, v6, place, proto };
                    prove(&mut node, &row).map_err(|error| anyhow!("{peer_kind}, {port_kind}: {error:#}"))?;
                    rows += 1;
                }
            }
            anyhow::Ok(())
        })?;
        assert_eq!(rows, 5 * 5 * 25 * 3 * 2);
        Ok(())
    });
}

fn prove(node: &mut Node, row: &Row) -> anyhow::Result<()> {
    let text = row.text();
    let scenario = text::parse(&text).map_err(|error| anyhow!("{error}\n{text}"))?;
    let played = play(node, &scenario).map_err(|it| anyhow!("{}\n{text}", it.text))?;
    let sent = scenario.steps.iter().filter(|step| matches!(step, Step::Send(_))).count() as u64;
    ensure!(played.packets == sent, "{} of {sent} were sent\n{text}", played.packets);
    let wanted = if row.passes() { sent } else { 0 };
    ensure!(played.passed == wanted, "{} of {sent} passed, and {wanted} should have\n{text}", played.passed);
    Ok(())
}
