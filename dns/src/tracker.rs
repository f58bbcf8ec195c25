//! Questions that wait for their answers. An answer belongs to a question if it comes on the same connection, has its number,
//! and repeats what was asked (RFC 5452, section 9.1); whatever else comes changes nothing and is counted.

use std::collections::{BTreeMap, HashMap};

use datapath_abi::{addr::Addr, dns::DnsPacket};

use crate::{
    lookup::{Answer, Lookup, Outcome, Question},
    message::{Message, parse},
    stream::{self, Stream},
};

/// Most open questions of one pod. Others are not followed.
pub(crate) const MOST_OF_POD: usize = 256;
/// Most open questions of all pods.
pub(crate) const MOST: usize = 4096;
/// How long an answer is waited for, nanoseconds: resolvers ask anew or give up after five seconds.
pub(crate) const PATIENCE_NS: u64 = 10_000_000_000;
/// Most directions of TCP connections that are followed. Beyond, all are forgotten and taken up anew.
const MOST_STREAMS: usize = 1024;

/// IANA protocol number.
const TCP: u8 = 6;

/// A connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Connection {
    addr: [Addr; 2],
    port: [u16; 2],
    proto: u8,
    created_ns: u64,
}

/// An open question.
#[derive(Debug)]
struct Waiting {
    question: Question,
    packet: DnsPacket,
    tries: u16,
    serial: u64,
}

/// A lookup that has come to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The packet that asked first.
    pub packet: DnsPacket,
    /// When it came to its end, CLOCK_MONOTONIC in nanoseconds.
    pub time_ns: u64,
    /// Bytes of question and answer, as they were sent.
    pub bytes: [u32; 2],
    /// What was asked, and what came of it.
    pub lookup: Lookup,
    /// Addresses that the name has by this answer, and for how many seconds.
    pub resolved: Vec<(std::net::IpAddr, u32)>,
}

/// How much of what came in was what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Packets.
    pub packets: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Answers that belong to no open question: late, unasked for, forged.
    pub unsolicited: u64,
    /// Questions that were answered.
    pub answered: u64,
    /// Questions without an answer.
    pub unanswered: u64,
    /// Questions that were not followed.
    pub unfollowed: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tracker {
    waiting: HashMap<(Connection, u16), Waiting>,
    /// In the order in which they were asked.
    order: BTreeMap<u64, (Connection, u16)>,
    /// How many each slot has.
    of_pod: HashMap<u32, usize>,
    streams: HashMap<(Connection, u8), Stream>,
    serial: u64,
    figures: Figures,
}

impl Tracker {
    /// Takes a packet in; `tell` gets every lookup that it ends.
    pub fn push(&mut self, packet: &DnsPacket, bytes: &[u8], mut tell: impl FnMut(Told)) {
        self.figures.packets += 1;
        let bytes = &bytes[..bytes.len().min(packet.taken.into())];
        let connection =
            Connection { addr: packet.addr, port: packet.port, proto: packet.proto, created_ns: packet.created_ns };
        if packet.proto != TCP {
            let whole = bytes.len() as u32 == packet.length && packet.fragment == 0;
            return self.message(connection, packet, bytes, whole, &mut tell);
        }
        let key = (connection, packet.reply);
        let stream = self.streams.remove(&key);
        let mut found = Vec::new();
        let stream = stream::cut(stream, packet.seq, packet.length, bytes, |here, whole| found.push((here, whole)));
        if self.streams.len() >= MOST_STREAMS {
            self.streams.clear();
        }
        self.streams.insert(key, stream);
        for (here, whole) in found {
            self.message(connection, packet, here, whole, &mut tell);
        }
    }

    /// Gives up on questions that have waited too long at `now_ns`.
    pub fn expire(&mut self, now_ns: u64, mut tell: impl FnMut(Told)) {
        while let Some(oldest) = self.order.first_entry() {
            let key = *oldest.get();
            let due = self.waiting.get(&key).is_none_or(|it| it.packet.time_ns.saturating_add(PATIENCE_NS) <= now_ns);
            if !due {
                return;
            }
            oldest.remove();
            if let Some(waiting) = self.take(&key) {
                self.figures.unanswered += 1;
                tell(waiting.end(key.1, now_ns, 0, Outcome::Unanswered, Vec::new()));
            }
        }
    }

    /// Counts since the start.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// How many questions are open.
    pub fn open(&self) -> usize {
        self.waiting.len()
    }

    fn message(
        &mut self,
        connection: Connection,
        packet: &DnsPacket,
        bytes: &[u8],
        whole: bool,
        tell: &mut impl FnMut(Told),
    ) {
        let Ok(message) = parse(bytes, whole) else {
            self.figures.malformed += 1;
            return;
        };
        // Whose it is says the connection, not the message.
        if message.is_answer != (packet.reply != 0) {
            self.figures.malformed += 1;
            return;
        }
        if message.is_answer {
            self.answer((connection, message.id), packet, message, tell);
        } else {
            self.ask((connection, message.id), packet, message, tell);
        }
    }

    fn ask(&mut self, key: (Connection, u16), packet: &DnsPacket, message: Message, tell: &mut impl FnMut(Told)) {
        if let Some(waiting) = self.waiting.get_mut(&key) {
            if waiting.question == message.question {
                waiting.tries = waiting.tries.saturating_add(1);
                return;
            }
            // Another question by the same number: nobody can tell their answers apart.
            if let Some(waiting) = self.take(&key) {
                self.figures.unfollowed += 1;
                tell(waiting.end(key.1, packet.time_ns, 0, Outcome::Unfollowed, Vec::new()));
            }
        }
        self.serial += 1;
        let waiting = Waiting { question: message.question, packet: *packet, tries: 1, serial: self.serial };
        let of_pod = self.of_pod.entry(packet.slot[0]).or_default();
        if *of_pod >= MOST_OF_POD || self.waiting.len() >= MOST {
            if *of_pod == 0 {
                self.of_pod.remove(&packet.slot[0]);
            }
            self.figures.unfollowed += 1;
            tell(waiting.end(key.1, packet.time_ns, 0, Outcome::Unfollowed, Vec::new()));
            return;
        }
        *of_pod += 1;
        self.order.insert(self.serial, key);
        self.waiting.insert(key, waiting);
    }

    fn answer(&mut self, key: (Connection, u16), packet: &DnsPacket, message: Message, tell: &mut impl FnMut(Told)) {
        let Message { id: _, is_answer: _, rcode, flags, question, records, announced, cut, resolved } = message;
        if self.waiting.get(&key).is_none_or(|waiting| waiting.question != question) {
            self.figures.unsolicited += 1;
            return;
        }
        let Some(waiting) = self.take(&key) else { return };
        self.figures.answered += 1;
        let latency_ns = packet.time_ns.saturating_sub(waiting.packet.time_ns);
        let answer = Answer { latency_ns, rcode, flags, records: records.into(), announced, cut };
        tell(waiting.end(key.1, packet.time_ns, packet.length, Outcome::Answered(answer), resolved));
    }

    fn take(&mut self, key: &(Connection, u16)) -> Option<Waiting> {
        let waiting = self.waiting.remove(key)?;
        self.order.remove(&waiting.serial);
        let slot = waiting.packet.slot[0];
        if let Some(of_pod) = self.of_pod.get_mut(&slot) {
            *of_pod -= 1;
            if *of_pod == 0 {
                self.of_pod.remove(&slot);
            }
        }
        Some(waiting)
    }
}

impl Waiting {
    fn end(
        self,
        id: u16,
        time_ns: u64,
        answer_bytes: u32,
        outcome: Outcome,
        resolved: Vec<(std::net::IpAddr, u32)>,
    ) -> Told {
        let Waiting { question, packet, tries, serial: _ } = self;
        let bytes = [packet.length, answer_bytes];
        Told { packet, time_ns, bytes, lookup: Lookup { question, id, tries, outcome }, resolved }
    }
}

#[cfg(test)]
mod tests;
