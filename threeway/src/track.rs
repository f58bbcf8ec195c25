//! What becomes of a packet when connections are remembered, written from promise 3 and the conntrack ADR
//! and without the datapath's code: the rules are asked about every packet anew, as the connection was
//! opened, and nothing is remembered of what they said before.
//!
//! How far a connection is follows `tests::model`, which is written from the RFCs.

use std::{collections::BTreeMap, net::IpAddr};

use datapath_abi::{conntrack::CtState, policy::Direction};
use policy::{
    compile::RuleRef,
    model::PodKey,
    world::{End, Flow},
};
use tests::{
    model::{End as Side, Model, Says},
    packet::{SCTP, SCTP_ABORT, SCTP_COOKIE_ECHO, SCTP_SHUTDOWN, SCTP_SHUTDOWN_COMPLETE, TCP},
};

use crate::{
    paper::{Rules, Said},
    scenario::{Packet, Part},
};

/// What becomes of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It passes, as part of a connection or of none.
    Passes,
    /// It passes and begins a connection, by these rules: the source's and the destination's.
    Opens([Option<RuleRef>; 2]),
    /// An end's rules refuse it; why, and by which rule, as far as the one who was asked knows.
    Refused(Direction, Said),
    /// Its connection was allowed and is not any more.
    Revoked(Direction),
    /// It is from the middle of a connection that nobody has seen begin, and that the other end might not
    /// have been allowed to open.
    Midstream,
    /// It is a later fragment, nobody knows of which connection, and an end is under rules.
    Fragment,
}

impl Fate {
    /// Whether it passes.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Passes | Self::Opens(_))
    }

    /// Without what only some know: rules and the kind of refusal.
    #[must_use]
    pub fn coarse(&self) -> Self {
        match self {
            Self::Opens(_) => Self::Opens([None, None]),
            Self::Refused(direction, _) => Self::Refused(*direction, Said::Refuses(None, None)),
            other => other.clone(),
        }
    }
}

/// A fragment's packet: source, destination, identification, and in IPv4 the protocol.
type Whole = (IpAddr, IpAddr, u32, u8);

/// Names a connection: protocol, both ends with their ports, the lesser first.
pub type Key = (u8, [(IpAddr, u16); 2]);

/// The connection that a packet belongs to.
pub fn key(packet: &Packet) -> Key {
    let [from, to] = packet.ports();
    let mut ends = [(packet.source.ip(), from), (packet.destination.ip(), to)];
    ends.sort_unstable();
    (packet.proto, ends)
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The packet that has opened it.
    opened: Packet,
    /// Numbers of the starts of the pods that were its initiator and its responder then.
    pods: [Option<usize>; 2],
    /// How far it is.
    pub model: Model,
    /// The rules that forbade it when its last packet came.
    revoked: Option<Direction>,
    /// Whether any rules were in force at its ends then.
    ruled: bool,
    /// SCTP: whether the tags of packets to the initiator and to the responder are known, from INIT and from
    /// the COOKIE ECHO after its answer.
    tags: [bool; 2],
    /// Whether it has been in the table of established ones, where tags are not noted any more.
    promoted: bool,
}

impl Connection {
    /// Who has opened it.
    pub fn initiator(&self) -> (IpAddr, u16) {
        (self.opened.source.ip(), self.opened.ports()[0])
    }
}

/// What a packet does, and what its connection is after it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its connection's.
    pub key: Key,
    /// What becomes of it.
    pub fate: Fate,
    /// The connection afterwards; `None` if there is none.
    pub after: Option<Connection>,
}

/// All connections.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    connections: BTreeMap<Key, Connection>,
    /// Of which connections the packets are whose first fragments have passed.
    parts: BTreeMap<Whole, Key>,
}

/// Whom to ask about a packet: who has an address now, and what rules say.
pub struct Asked<'a> {
    /// Who has an address.
    pub end: &'a dyn Fn(IpAddr) -> End,
    /// The number of the start of the pod of this node that has it. Rules are known of these alone.
    pub running: &'a dyn Fn(IpAddr) -> Option<usize>,
    /// Whether any rules are in force for a pod.
    pub is_ruled: &'a dyn Fn(Direction, &PodKey) -> bool,
    /// What rules say.
    pub rules: &'a dyn Rules,
}

impl std::fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asked")
    }
}

impl Asked<'_> {
    /// The flow that a packet opens.
    pub fn flow(&self, packet: &Packet) -> Flow {
        self.directed(packet, [packet.source.ip(), packet.destination.ip()], packet.ports()[1])
    }

    /// The flow of which it would be an answer.
    pub fn answered(&self, packet: &Packet) -> Flow {
        self.directed(packet, [packet.destination.ip(), packet.source.ip()], packet.ports()[0])
    }

    fn directed(&self, packet: &Packet, [source, destination]: [IpAddr; 2], port: u16) -> Flow {
        // An echo has no ports that rules could name.
        let port = if matches!(packet.says, Says::Echo { .. }) { 0 } else { port };
        Flow { source: (self.end)(source), destination: (self.end)(destination), proto: packet.proto, port }
    }

    /// The pods that have two addresses now.
    fn pods(&self, ips: [IpAddr; 2]) -> [Option<usize>; 2] {
        ips.map(|ip| (self.running)(ip))
    }

    /// What the rules say of a packet by itself.
    fn judge(&self, flow: &Flow) -> Result<[Option<RuleRef>; 2], (Direction, Said)> {
        self.judge_for(flow, self.pods([flow.source.ip(), flow.destination.ip()]))
    }

    /// Both ends' rules, the source's first; of those ends alone that are pods of this node.
    fn judge_for(&self, flow: &Flow, pods: [Option<usize>; 2]) -> Result<[Option<RuleRef>; 2], (Direction, Said)> {
        let mut rules = [None, None];
        for direction in [Direction::Egress, Direction::Ingress] {
            if pods[direction as usize].is_none() {
                continue;
            }
            match self.rules.side(direction, flow) {
                Said::Passes(rule) => rules[direction as usize] = rule,
                refused => return Err((direction, refused)),
            }
        }
        Ok(rules)
    }
}

impl Tracker {
    /// The connection that a packet belongs to: a later fragment to that of its first.
    pub fn key(&self, packet: &Packet) -> Key {
        self.of_first(packet).unwrap_or_else(|| key(packet))
    }

    fn of_first(&self, packet: &Packet) -> Option<Key> {
        match packet.part {
            Part::Later(id) => self.parts.get(&whole(packet, id)).copied(),
            Part::Whole | Part::First(_) => None,
        }
    }

    /// What becomes of a packet. `bytes`: its length from the network header on.
    pub fn step(&self, packet: &Packet, bytes: u64, asked: &Asked<'_>) -> Step {
        if matches!(packet.part, Part::Later(_)) {
            return self.later(packet, bytes, asked);
        }
        match self.connections.get(&key(packet)) {
            Some(connection) if is_stranger(connection, packet, asked) => {
                let fate = match asked.judge(&asked.flow(packet)) {
                    Ok(_) => Fate::Passes,
                    Err((direction, said)) => Fate::Refused(direction, said),
                };
                Step { key: key(packet), fate, after: Some(connection.clone()) }
            }
            Some(connection) if !is_gone(connection, asked) => known(connection, packet, bytes, asked),
            _ => unknown(packet, bytes, asked),
        }
    }

    /// A later fragment: a packet of its first one's connection, if that is known.
    fn later(&self, packet: &Packet, bytes: u64, asked: &Asked<'_>) -> Step {
        let key = self.key(packet);
        let found = self.connections.get(&key);
        let own = found.filter(|connection| {
            self.of_first(packet).is_some() && !is_gone(connection, asked) && !is_stranger(connection, packet, asked)
        });
        if let Some(connection) = own {
            let mut connection = connection.clone();
            let fate = match connection.decide(asked) {
                Some(direction) => Fate::Revoked(direction),
                None => {
                    let from = connection.side_of(packet.source.ip()) as usize;
                    connection.model.packets[from] += 1;
                    connection.model.bytes[from] += bytes;
                    Fate::Passes
                }
            };
            return Step { key, fate, after: Some(connection) };
        }
        // Nobody looks at a connection without knowing that the packet is of it.
        let after = found.filter(|connection| self.of_first(packet).is_none() || !is_gone(connection, asked)).cloned();
        let [source, destination] = [packet.source.ip(), packet.destination.ip()];
        let is_ruled = |direction, ip| match (asked.end)(ip) {
            End::Pod(pod, _) => (asked.running)(ip).is_some() && (asked.is_ruled)(direction, &pod),
            _ => false,
        };
        let from_node = matches!((asked.end)(source), End::LocalNode(_));
        let asks = is_ruled(Direction::Egress, source) || !from_node && is_ruled(Direction::Ingress, destination);
        Step { key, fate: if asks { Fate::Fragment } else { Fate::Passes }, after }
    }

    /// Notes what has become of it.
    pub fn note(&mut self, packet: &Packet, step: &Step) {
        match &step.after {
            Some(connection) => self.connections.insert(step.key, connection.clone()),
            None => self.connections.remove(&step.key),
        };
        // Between ends without rules later fragments pass without it.
        if let (Part::First(id), true, Some(connection)) = (packet.part, step.fate.passes(), &step.after)
            && connection.ruled
        {
            self.parts.insert(whole(packet, id), step.key);
        }
    }
}

/// Later fragments name another protocol than the first may, in IPv6 (RFC 8200, 4.5).
fn whole(packet: &Packet, id: u32) -> Whole {
    let proto = if packet.source.is_ipv4() { packet.proto } else { 0 };
    (packet.source.ip(), packet.destination.ip(), id, proto)
}

/// Whether a pod that was an end of it has stopped.
fn is_gone(connection: &Connection, asked: &Asked<'_>) -> bool {
    let now = asked.pods(connection.ends());
    connection.pods.iter().zip(now).any(|(then, now)| then.is_some() && *then != now)
}

/// Whether a packet has a connection's addresses and ports and is met at a pod that has started since: whoever
/// had the address then was another one.
fn is_stranger(connection: &Connection, packet: &Packet, asked: &Asked<'_>) -> bool {
    let [source, destination] = [packet.source.ip(), packet.destination.ip()];
    let by_stack = (asked.running)(source).is_none() || packet.round && (asked.running)(destination).is_some();
    let here = if by_stack { destination } else { source };
    let place = usize::from(connection.ends()[0] != here);
    !is_gone(connection, asked) && connection.pods[place].is_none() && (asked.running)(here).is_some()
}

impl Connection {
    /// Addresses of the initiator and the responder.
    fn ends(&self) -> [IpAddr; 2] {
        [self.opened.source.ip(), self.opened.destination.ip()]
    }

    /// Asks the rules anew, as it was opened. `Some`: they forbid it.
    fn decide(&mut self, asked: &Asked<'_>) -> Option<Direction> {
        let verdict = asked.judge_for(&asked.flow(&self.opened), self.pods);
        self.revoked = verdict.err().map(|(direction, _)| direction);
        self.ruled = self.is_ruled(asked);
        self.promoted |= self.revoked.is_some() && self.model.state() != CtState::New;
        self.revoked
    }

    /// A packet that passes. What ends an association counts with the right tag, which a packet in pieces does not show; the
    /// tags of packets here are all right.
    fn next(&mut self, from: Side, packet: &Packet, bytes: u64) {
        let chunk = match &packet.says {
            Says::Sctp(chunks) => chunks.first().copied(),
            _ => None,
        };
        let whole = packet.part == Part::Whole;
        let ends = matches!(chunk, Some(SCTP_ABORT | SCTP_SHUTDOWN | SCTP_SHUTDOWN_COMPLETE));
        if ends && !whole && self.tags[from.other() as usize] {
            self.model.packets[from as usize] += 1;
            self.model.bytes[from as usize] += bytes;
        } else {
            let answered = self.model.state() == CtState::SynReceived;
            self.model.next(from, &packet.says, bytes);
            let ends_handshake = chunk == Some(SCTP_COOKIE_ECHO) && from == Side::Initiator && answered;
            self.tags[1] |= ends_handshake && whole && !self.promoted;
        }
        self.promoted |= self.model.state() == CtState::Established;
    }

    /// Which end has sent a packet of it that does not say its ports.
    fn side_of(&self, source: IpAddr) -> Side {
        if self.ends()[0] == source { Side::Initiator } else { Side::Responder }
    }

    /// Whether any rules are in force at its ends, in its direction.
    fn is_ruled(&self, asked: &Asked<'_>) -> bool {
        [Direction::Egress, Direction::Ingress].into_iter().any(|direction| {
            let ip = self.ends()[direction as usize];
            match (asked.end)(ip) {
                End::Pod(pod, _) => self.pods[direction as usize].is_some() && (asked.is_ruled)(direction, &pod),
                _ => false,
            }
        })
    }
}

fn known(connection: &Connection, packet: &Packet, bytes: u64, asked: &Asked<'_>) -> Step {
    let mut connection = connection.clone();
    let from = if connection.initiator() == (packet.source.ip(), packet.ports()[0]) {
        Side::Initiator
    } else {
        Side::Responder
    };
    if let Some(step) = anew(&connection, packet, bytes, asked) {
        return step;
    }
    let was_revoked = connection.revoked.is_some();
    connection.decide(asked);
    // Found to be cut by the very packet that could open it anew.
    if !was_revoked
        && connection.revoked.is_some()
        && let Some(step) = anew(&connection, packet, bytes, asked)
    {
        return step;
    }
    let fate = match connection.revoked {
        Some(direction) => Fate::Revoked(direction),
        None => {
            connection.next(from, packet, bytes);
            Fate::Passes
        }
    };
    Step { key: key(packet), fate, after: Some(connection) }
}

/// What opens anew what is over or was cut is judged on its own; what was there stays unless it is allowed.
fn anew(connection: &Connection, packet: &Packet, bytes: u64, asked: &Asked<'_>) -> Option<Step> {
    let over = connection.model.state() >= CtState::Closing;
    let cut = connection.revoked.is_some() && packet.proto == TCP;
    if !(packet.opens() && (over || cut)) {
        return None;
    }
    Some(match first(packet, bytes, asked) {
        step @ Step { fate: Fate::Opens(_), .. } => step,
        Step { key, fate, .. } => Step { key, fate, after: Some(connection.clone()) },
    })
}

fn unknown(packet: &Packet, bytes: u64, asked: &Asked<'_>) -> Step {
    let middle = packet.proto == TCP && !packet.opens() && !packet.resets();
    let from_node = matches!((asked.end)(packet.source.ip()), End::LocalNode(_));
    if middle && !from_node && asked.judge(&asked.answered(packet)).is_err() {
        return Step { key: key(packet), fate: Fate::Midstream, after: None };
    }
    first(packet, bytes, asked)
}

fn first(packet: &Packet, bytes: u64, asked: &Asked<'_>) -> Step {
    let key = key(packet);
    match asked.judge(&asked.flow(packet)) {
        Err((direction, said)) => Step { key, fate: Fate::Refused(direction, said), after: None },
        Ok(rules) => match Model::first(&packet.says, bytes) {
            Some(model) => {
                let pods = asked.pods([packet.source.ip(), packet.destination.ip()]);
                let opened = packet.clone();
                let tags = [packet.proto == SCTP && packet.opens() && packet.part == Part::Whole, false];
                let mut connection =
                    Connection { opened, pods, model, revoked: None, ruled: false, tags, promoted: false };
                connection.ruled = connection.is_ruled(asked);
                Step { key, fate: Fate::Opens(rules), after: Some(connection) }
            }
            None => Step { key, fate: Fate::Passes, after: None },
        },
    }
}
