//! What a connection's state should be, written from the RFCs and without the datapath's own code,
//! so that an error in one does not hide in the other.
//!
//! ```text
//! tcp    the two state machines of RFC 9293, as whoever sits between the ends can follow them
//! sctp   those of RFC 9260
//! other  UDP, ICMP echo and the rest: a request, an answer
//! ```
//!
//! The datapath sees neither sequence numbers nor what an end makes of a packet, and is simpler on
//! purpose in some places. Each of them is a row of [`SIMPLER`] with the reason; without its rows
//! ([`Model::strict`]) the model is the RFCs alone.

mod other;
mod sctp;
mod tcp;

use std::collections::BTreeSet;

use datapath_abi::conntrack::CtState;

use crate::packet;

/// An end of a connection: who has sent its first packet, and the other one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The client.
    Initiator = 0,
    /// The server.
    Responder = 1,
}

impl End {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            End::Initiator => End::Responder,
            End::Responder => End::Initiator,
        }
    }
}

/// What a packet says about its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// TCP flags.
    Tcp(u8),
    /// Types of the SCTP chunks, in order; at least one.
    Sctp(Vec<u8>),
    /// ICMP echo, asking or answering.
    Echo {
        /// Whether it asks.
        request: bool,
    },
    /// UDP and protocols that nobody here knows.
    Data,
}

/// Where the datapath is simpler than the RFCs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Row {
    /// See [`SIMPLER`]; so for all.
    Midstream,
    AnyAnswer,
    CrossedSyn,
    EarlyFin,
    SynWhileClosing,
    ResetDoubted,
    OneMore,
    CookieEcho,
    AnyChunk,
    InitWhileClosing,
    StrayComplete,
    FirstChunk,
}

/// The rows: what the RFC says, what the datapath does, why.
pub const SIMPLER: [(Row, &str, &str, &str); 12] = [
    (
        Row::Midstream,
        "a packet without a SYN or INIT before it belongs to a connection that we have not seen begin (RFC 9293, 3.10.7)",
        "it begins one, that is established by an answer and one more packet",
        "after a restart without our maps connections must go on; the rules are asked about both readings",
    ),
    (
        Row::AnyAnswer,
        "only a segment with SYN answers a SYN (RFC 9293, 3.10.7.3); an ACK alone is an old connection's, and is reset",
        "any segment of the other end is an answer",
        "nothing is promoted before the initiator has accepted the answer, and it would send RST; lifetime 60 s, not 120 s",
    ),
    (
        Row::CrossedSyn,
        "when SYNs cross, both SYN-ACKs are needed (RFC 9293, figure 7)",
        "the initiator's alone establishes",
        "both ends have spoken and the initiator has acknowledged: as good as a handshake against a flood",
    ),
    (
        Row::EarlyFin,
        "FIN in CLOSED, LISTEN and SYN-SENT is ignored (RFC 9293, 3.10.7)",
        "it closes its side",
        "no stack sends it, scanners do: the shorter lifetime is right for them",
    ),
    (
        Row::SynWhileClosing,
        "SYN in a state after ESTABLISHED other than TIME-WAIT is answered by a challenge ACK (RFC 9293, 3.10.7.4)",
        "it opens a new connection, judged by the rules",
        "who sends it has forgotten the old one; if the other end refuses, the counters have begun anew and nothing else",
    ),
    (
        Row::ResetDoubted,
        "RST outside of the window is ignored (RFC 9293, 3.10.7.4)",
        "it counts, until its sender goes on: then the connection is closing; a FIN beside it is remembered",
        "the window is known to the ends alone; a forged RST shortens the entry's life and drops nothing",
    ),
    (
        Row::OneMore,
        "a request and its answer are a session (RFC 4787, 4.3; RFC 792; RFC 5508, 3.1)",
        "the requester must speak again before it is established",
        "a flood of requests that are answered must not fill the table of established connections",
    ),
    (
        Row::CookieEcho,
        "the initiator is ESTABLISHED by COOKIE ACK (RFC 9260, 5.1)",
        "COOKIE ECHO establishes",
        "the responder is ESTABLISHED by then, and a flood cannot make up its cookie",
    ),
    (
        Row::AnyChunk,
        "only INIT ACK answers INIT, only COOKIE ECHO that (RFC 9260, 4)",
        "any chunk but INIT does, and SHUTDOWN before its time is one of them",
        "the handshake is followed by direction; tags are asked of what ends an association",
    ),
    (
        Row::InitWhileClosing,
        "INIT during a shutdown is answered by SHUTDOWN ACK (RFC 9260, 9.2)",
        "it opens a new association, judged by the rules",
        "as for SYN",
    ),
    (
        Row::StrayComplete,
        "SHUTDOWN COMPLETE counts in SHUTDOWN-ACK-SENT alone (RFC 9260, 9.2)",
        "SHUTDOWN COMPLETE ends the association whenever it comes, if its tag is right",
        "the ends would not send it otherwise; the entry lives 10 s after each packet and drops nothing",
    ),
    (
        Row::FirstChunk,
        "chunks may share a packet (RFC 9260, 6.10)",
        "the first one speaks for all",
        "those that begin and end an association travel alone, but for an ABORT behind others, whose entry then idles out",
    ),
];

/// A connection as the model follows it.
#[derive(Clone, Debug)]
pub struct Model {
    machine: Machine,
    rows: bool,
    /// Which rows have made a difference so far.
    pub used: BTreeSet<Row>,
    /// Picked up from its middle.
    pub midstream: bool,
    /// By direction.
    pub packets: [u64; 2],
    /// By direction, from the network header on.
    pub bytes: [u64; 2],
    /// TCP flags by direction.
    pub tcp_flags: [u8; 2],
}

#[derive(Clone, Debug)]
enum Machine {
    Tcp(tcp::Tcp),
    Sctp(sctp::Sctp),
    Other(other::Session),
}

/// What a packet does to the connection that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// It goes on.
    Same,
    /// Its place is taken by a new one, of which this is the first packet.
    Anew,
}

/// How a machine is told to go on: whether a row holds, noting that it has made a difference.
struct Rows<'a> {
    hold: bool,
    used: &'a mut BTreeSet<Row>,
}

impl Rows<'_> {
    fn apply(&mut self, row: Row) -> bool {
        if self.hold {
            self.used.insert(row);
        }
        self.hold
    }
}

impl Model {
    /// A connection that begins with this packet, with the datapath's simplifications. `None`: the
    /// packet begins nothing.
    pub fn first(says: &Says, bytes: u64) -> Option<Self> {
        Self::begin(says, bytes, true)
    }

    /// The same without them.
    pub fn strict(says: &Says, bytes: u64) -> Option<Self> {
        Self::begin(says, bytes, false)
    }

    fn begin(says: &Says, bytes: u64, hold: bool) -> Option<Self> {
        let mut used = BTreeSet::new();
        let mut rows = Rows { hold, used: &mut used };
        let (machine, midstream) = match says {
            Says::Tcp(flags) => {
                let (machine, midstream) = tcp::Tcp::first(*flags, &mut rows)?;
                (Machine::Tcp(machine), midstream)
            }
            Says::Sctp(chunks) => {
                let (machine, midstream) = sctp::Sctp::first(chunks, &mut rows)?;
                (Machine::Sctp(machine), midstream)
            }
            Says::Echo { request } => (Machine::Other(other::Session::first()), !request),
            Says::Data => (Machine::Other(other::Session::first()), false),
        };
        let tcp_flags = [if let Says::Tcp(flags) = says { *flags } else { 0 }, 0];
        Some(Self { machine, rows: hold, used, midstream, packets: [1, 0], bytes: [bytes, 0], tcp_flags })
    }

    /// Another packet with the same addresses and ports.
    pub fn next(&mut self, from: End, says: &Says, bytes: u64) -> Effect {
        let mut rows = Rows { hold: self.rows, used: &mut self.used };
        let effect = match (&mut self.machine, says) {
            (Machine::Tcp(machine), Says::Tcp(flags)) => machine.next(from, *flags, &mut rows),
            (Machine::Sctp(machine), Says::Sctp(chunks)) => machine.next(from, chunks, &mut rows),
            (Machine::Other(machine), Says::Echo { .. } | Says::Data) => {
                machine.next(from, &mut rows);
                Effect::Same
            }
            (machine, says) => panic!("{says:?} is no packet of {machine:?}"),
        };
        if effect == Effect::Anew {
            let used = std::mem::take(&mut self.used);
            *self = Self::begin(says, bytes, self.rows).expect("what opens anew begins something");
            self.used.extend(used);
            return effect;
        }
        self.packets[from as usize] += 1;
        self.bytes[from as usize] += bytes;
        if let Says::Tcp(flags) = says {
            self.tcp_flags[from as usize] |= flags;
        }
        effect
    }

    /// In the datapath's words.
    pub fn state(&self) -> CtState {
        match &self.machine {
            Machine::Tcp(machine) => machine.state(),
            Machine::Sctp(machine) => machine.state(),
            Machine::Other(machine) => machine.state(),
        }
    }

    /// Seconds that it lives without a packet. RFC 5382 and RFC 4787 ask translators, whom we are
    /// none of, for more in the short ones: there a forgotten entry breaks a connection, here it is
    /// judged again.
    pub fn lifetime_s(&self, proto: u8) -> u32 {
        use CtState::{Closing, Established, New, Reset, SynReceived, TimeWait};
        match (proto, self.state()) {
            // RFC 5382, REQ-5: two hours and four minutes at least.
            (packet::TCP, Established) => 8000,
            // RFC 9293, 3.8.3: a SYN is given up after 3 minutes at least; Linux repeats it for 127 s.
            (packet::TCP, New | Closing) => 120,
            (packet::TCP, SynReceived) => 60,
            // RFC 9293, 3.4.1: 2 MSL; Linux has 60 s for both.
            (packet::TCP, TimeWait) => 60,
            (packet::TCP, Reset) => 10,
            // RFC 9260, 16: HB.interval is 30 s, Path.Max.Retrans 5.
            (packet::SCTP, Established) => 210,
            (packet::SCTP, _) => 10,
            (packet::ICMP | packet::ICMPV6, _) => 30,
            // RFC 4787, REQ-5: two minutes at least.
            (_, Established) => 120,
            (_, _) => 30,
        }
    }
}
