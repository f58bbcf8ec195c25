//! Random packets: new connections, what follows in them, and what belongs to none.

use std::net::{IpAddr, SocketAddr};

use tests::{
    model::Says,
    packet::{
        ACK, FIN, ICMP, ICMPV6, RST, SCTP, SCTP_ABORT, SCTP_COOKIE_ECHO, SCTP_DATA, SCTP_INIT, SCTP_INIT_ACK,
        SCTP_SHUTDOWN, SCTP_SHUTDOWN_COMPLETE, SYN, TCP, UDP,
    },
};

use super::PORTS;
use crate::{
    random::Random,
    scenario::{Local, OTHER_NODE, OWN_NODE, Packet, Part, host},
};

/// RFC 9260, sections 3.3.12 and 3.3.9.
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_ACK: u8 = 8;
/// A protocol without ports that we know (GRE).
const OTHER: u8 = 47;
/// Nobody has these.
const OUTSIDE: [&str; 6] = ["10.0.0.200", "10.0.1.7", "192.0.2.1", "fd00::c8", "fd01::7", "2001:db8::1"];
/// Few, so that connections meet; some that servers have.
const CLIENT_PORTS: [u16; 5] = [40000, 40001, 40002, 53, 80];
/// How many conversations are remembered.
const KEPT: usize = 40;
/// Identifications of packets in fragments: few, so that they meet.
const IDS: [u32; 3] = [1, 2, 70_000];

/// A conversation under way: between whom, and how much of its script was said.
#[derive(Clone, Debug)]
struct Talk {
    proto: u8,
    ends: [SocketAddr; 2],
    said: usize,
    script: &'static [(usize, u8)],
}

/// TCP: who, and flags.
const TCP_SCRIPTS: [&[(usize, u8)]; 4] = [
    &[(0, SYN), (1, SYN | ACK), (0, ACK), (0, ACK), (1, ACK), (0, ACK), (1, ACK)],
    &[(0, SYN), (1, SYN | ACK), (0, ACK), (0, FIN | ACK), (1, ACK), (1, FIN | ACK), (0, ACK), (0, SYN), (1, SYN | ACK)],
    &[(0, SYN), (1, SYN | ACK), (0, ACK), (1, ACK), (1, RST), (1, SYN), (0, SYN | ACK), (1, ACK)],
    &[(0, SYN), (1, SYN), (0, SYN | ACK), (1, SYN | ACK), (0, ACK), (1, FIN | ACK), (1, SYN)],
];
/// SCTP: who, and the chunk.
const SCTP_SCRIPT: &[(usize, u8)] = &[
    (0, SCTP_INIT),
    (1, SCTP_INIT_ACK),
    (0, SCTP_COOKIE_ECHO),
    (1, COOKIE_ACK),
    (0, SCTP_DATA),
    (1, SCTP_SHUTDOWN),
    (0, SHUTDOWN_ACK),
    (1, SCTP_SHUTDOWN_COMPLETE),
    (1, SCTP_INIT),
];
/// Others: who.
const OTHER_SCRIPT: &[(usize, u8)] = &[(0, 0), (1, 0), (0, 0), (1, 0), (0, 0)];

/// Conversations of a world.
#[derive(Default, Debug)]
pub(super) struct Talks {
    local: Vec<IpAddr>,
    all: Vec<IpAddr>,
    under_way: Vec<Talk>,
    /// First fragments whose others are still to come.
    begun: Vec<Packet>,
}

impl Talks {
    /// Which pods take part in those that begin from now on. Others go on with pods that are no more.
    pub(super) fn are_among(&mut self, locals: &[Local]) {
        self.local = locals.iter().flat_map(|local| local.ips.clone()).collect();
        // Some of the first have a pod of the node, had one, or will have one.
        let hosts =
            (0..super::REMOTE + 2 * super::MOST_REMOTE).flat_map(|number| [host(false, number), host(true, number)]);
        let outside = OUTSIDE.iter().map(|ip| ip.parse().expect("an address"));
        self.all = hosts.chain(outside).chain(OWN_NODE).chain(OTHER_NODE).collect();
    }

    /// The next packet.
    pub(super) fn packet(&mut self, random: &mut Random) -> Packet {
        if !self.begun.is_empty() && random.chance(20) {
            return self.later(random);
        }
        let packet = self.whole(random);
        if !random.chance(8) {
            return packet;
        }
        let first = Packet { part: Part::First(random.pick(&IDS)), ..packet };
        self.begun.push(first.clone());
        first
    }

    /// A later fragment: mostly of a packet whose first one was sent.
    fn later(&mut self, random: &mut Random) -> Packet {
        let at = random.below(self.begun.len());
        let mut packet = self.begun[at].clone();
        if random.chance(50) {
            self.begun.swap_remove(at);
        }
        let id = match packet.part {
            Part::First(id) if random.chance(90) => id,
            _ => random.pick(&IDS),
        };
        if random.chance(7) {
            std::mem::swap(&mut packet.source, &mut packet.destination);
        }
        Packet { says: Says::Data, part: Part::Later(id), ..packet }
    }

    fn whole(&mut self, random: &mut Random) -> Packet {
        let talk = match self.under_way.len() {
            0 => self.begin(random),
            _ if random.chance(45) => self.begin(random),
            // The latest ones are the least far.
            many => {
                let among = if random.chance(60) { many.min(6) } else { many };
                many - 1 - random.below(among)
            }
        };
        let talk = &mut self.under_way[talk];
        let (who, what) = match talk.script.get(talk.said) {
            Some(step) if random.chance(85) => {
                talk.said += 1;
                *step
            }
            _ => (random.below(2), anything(talk.proto, random)),
        };
        let [source, destination] = [talk.ends[who], talk.ends[1 - who]];
        let says = match talk.proto {
            TCP => Says::Tcp(what),
            SCTP => Says::Sctp(vec![what]),
            ICMP | ICMPV6 => {
                // The identifier is the asker's, whoever sends.
                let identifier = talk.ends[0].port();
                let request = if random.chance(90) { who == 0 } else { random.chance(50) };
                return Packet {
                    proto: talk.proto,
                    source: SocketAddr::new(source.ip(), identifier),
                    destination: SocketAddr::new(destination.ip(), 0),
                    says: Says::Echo { request },
                    round: random.chance(5),
                    part: Part::Whole,
                };
            }
            _ => Says::Data,
        };
        let round = random.chance(5);
        Packet { proto: talk.proto, source, destination, says, round, part: Part::Whole }
    }

    /// Begins a conversation in which a pod of the node takes part; its place.
    fn begin(&mut self, random: &mut Random) -> usize {
        let one = random.pick(&self.local);
        let others = if random.chance(50) { &self.local } else { &self.all };
        let others: Vec<IpAddr> =
            others.iter().copied().filter(|ip| ip.is_ipv4() == one.is_ipv4() && *ip != one).collect();
        let others = if others.is_empty() { self.all.clone() } else { others };
        let other = random.pick(&others);
        let other = if other.is_ipv4() == one.is_ipv4() { other } else { OWN_NODE[usize::from(one.is_ipv6())] };
        let ips = if random.chance(50) { [one, other] } else { [other, one] };
        let proto = random.weighted(&[
            (9, TCP),
            (4, UDP),
            (3, SCTP),
            (1, if one.is_ipv4() { ICMP } else { ICMPV6 }),
            (1, OTHER),
        ]);
        let (ports, script) = match proto {
            ICMP | ICMPV6 => ([random.within(7..=8) as u16, 0], OTHER_SCRIPT),
            OTHER => ([0, 0], OTHER_SCRIPT),
            TCP => ([random.pick(&CLIENT_PORTS), server_port(random)], random.pick(&TCP_SCRIPTS)),
            SCTP => ([random.pick(&CLIENT_PORTS), server_port(random)], SCTP_SCRIPT),
            _ => ([random.pick(&CLIENT_PORTS), server_port(random)], OTHER_SCRIPT),
        };
        let ends = [SocketAddr::new(ips[0], ports[0]), SocketAddr::new(ips[1], ports[1])];
        if self.under_way.len() >= KEPT {
            self.under_way.remove(random.below(KEPT / 2));
        }
        // Somebody may speak as if it had begun before.
        let said = if random.chance(7) { random.below(script.len()) } else { 0 };
        self.under_way.push(Talk { proto, ends, said, script });
        self.under_way.len() - 1
    }
}

/// Where rules begin and end, beside it, or between.
fn server_port(random: &mut Random) -> u16 {
    let port = random.pick(&PORTS);
    match random.below(10) {
        0 => port.wrapping_sub(1),
        1 => port.wrapping_add(1),
        2 => port.wrapping_add(random.below(220) as u16),
        _ => port,
    }
}

/// TCP flags or an SCTP chunk that may come at any time.
fn anything(proto: u8, random: &mut Random) -> u8 {
    let usual: &[u8] = match proto {
        TCP => &[SYN, SYN | ACK, ACK, ACK, FIN | ACK, FIN | ACK, RST, RST | ACK],
        SCTP => &[SCTP_DATA, SCTP_INIT, SCTP_INIT_ACK, SCTP_COOKIE_ECHO, SCTP_ABORT, SCTP_SHUTDOWN, SHUTDOWN_ACK],
        _ => return 0,
    };
    if random.chance(5) { random.below(256) as u8 } else { random.pick(usual) }
}
