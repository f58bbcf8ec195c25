//! What becomes of a packet when connections are remembered, written from promise 3 and the conntrack ADR
//! and without the datapath's code: the rules are asked about every packet anew, as the connection was
//! opened, and nothing is remembered of what they said before.
//!
//! How far a connection is follows `tests::model`, which is written from the RFCs.

use std::{collections::BTreeMap, net::IpAddr};

use datapath_abi::{conntrack::CtState, policy::Direction};
use policy::{
    compile::RuleRef,
    world::{End, Flow},
};
use tests::{
    model::{End as Side, Model, Says},
    packet::TCP,
};

use crate::{
    paper::{Rules, Said},
    scenario::Packet,
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
    /// How far it is.
    pub model: Model,
    /// The rules that forbade it when its last packet came.
    revoked: Option<Direction>,
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
    /// What becomes of it.
    pub fate: Fate,
    /// The connection afterwards; `None` if there is none.
    pub after: Option<Connection>,
}

/// All connections.
#[derive(Clone, Debug, Default)]
pub struct Tracker(BTreeMap<Key, Connection>);

/// Whom to ask about a packet: who has an address now, and what rules say. `is_local`: whether rules of
/// that end are known here at all.
pub struct Asked<'a> {
    /// Who has an address.
    pub end: &'a dyn Fn(IpAddr) -> End,
    /// Whether it is a pod of this node.
    pub is_local: &'a dyn Fn(IpAddr) -> bool,
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

    /// Both ends' rules, the source's first.
    fn judge(&self, flow: &Flow) -> Result<[Option<RuleRef>; 2], (Direction, Said)> {
        let mut rules = [None, None];
        for direction in [Direction::Egress, Direction::Ingress] {
            let (subject, _) = flow.seen_from(direction);
            if !(self.is_local)(subject.ip()) {
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
    /// What becomes of a packet. `bytes`: its length from the network header on.
    pub fn step(&self, packet: &Packet, bytes: u64, asked: &Asked<'_>) -> Step {
        match self.0.get(&key(packet)) {
            Some(connection) => known(connection, packet, bytes, asked),
            None => unknown(packet, bytes, asked),
        }
    }

    /// Notes what has become of it.
    pub fn note(&mut self, packet: &Packet, step: &Step) {
        match &step.after {
            Some(connection) => self.0.insert(key(packet), connection.clone()),
            None => self.0.remove(&key(packet)),
        };
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
    let verdict = asked.judge(&asked.flow(&connection.opened));
    connection.revoked = verdict.err().map(|(direction, _)| direction);
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
            connection.model.next(from, &packet.says, bytes);
            Fate::Passes
        }
    };
    Step { fate, after: Some(connection) }
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
        Step { fate, .. } => Step { fate, after: Some(connection.clone()) },
    })
}

fn unknown(packet: &Packet, bytes: u64, asked: &Asked<'_>) -> Step {
    let middle = packet.proto == TCP && !packet.opens() && !packet.resets();
    let from_node = matches!((asked.end)(packet.source.ip()), End::LocalNode(_));
    if middle && !from_node && asked.judge(&asked.answered(packet)).is_err() {
        return Step { fate: Fate::Midstream, after: None };
    }
    first(packet, bytes, asked)
}

fn first(packet: &Packet, bytes: u64, asked: &Asked<'_>) -> Step {
    match asked.judge(&asked.flow(packet)) {
        Err((direction, said)) => Step { fate: Fate::Refused(direction, said), after: None },
        Ok(rules) => match Model::first(&packet.says, bytes) {
            Some(model) => {
                let connection = Connection { opened: packet.clone(), model, revoked: None };
                Step { fate: Fate::Opens(rules), after: Some(connection) }
            }
            None => Step { fate: Fate::Passes, after: None },
        },
    }
}
