//! Random conversations: after each packet the datapath's conntrack is what the RFCs' state machines
//! say (`tests::model`), but for the rows of [`SIMPLER`]. First its library half alone, then the
//! real program in the kernel, whose entry must also have the right counters and be in the right
//! table.

use std::cell::RefCell;

use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, CtState, FLAG_INITIATOR_HIGH, FLAG_MIDSTREAM},
    event::{EndReason, EventKind},
    maps,
};
use datapath_ebpf::{
    ct::{self, FIN_OF, From, RST_OF},
    parse,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestError, TestRunner},
};
use tests::{
    host::{A, B, FAMILIES, Family, Host},
    lab::{At, Lab},
    model::{Effect, End, Model, Row, SIMPLER, Says},
    packet::{
        ACK, Body, FIN, ICMP, Packet, RST, SCTP, SCTP_ABORT, SCTP_COOKIE_ECHO, SCTP_DATA, SCTP_INIT, SCTP_INIT_ACK,
        SCTP_SHUTDOWN, SCTP_SHUTDOWN_COMPLETE, SYN, TCP, UDP,
    },
    seen::REDIRECT,
};

/// RFC 9260, section 3.2.
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_ACK: u8 = 8;
/// RFC 9293, section 3.1.
const PSH: u8 = 0x08;

/// One of the two ends, whoever has begun.
type Side = usize;
/// Packets in order.
type Talk = Vec<(Side, Says)>;

/// A protocol and what its ends say.
#[derive(Clone, Debug)]
struct Conversation {
    proto: u8,
    talk: Talk,
}

fn conversation(length: usize) -> impl Strategy<Value = Conversation> {
    let of = |proto: u8, talk: BoxedStrategy<Talk>| talk.prop_map(move |talk| Conversation { proto, talk });
    prop_oneof![
        6 => of(TCP, tcp(length)),
        4 => of(SCTP, sctp(length)),
        1 => of(UDP, vec((0..2usize, Just(Says::Data)), 1..length).boxed()),
        1 => of(47, vec((0..2usize, Just(Says::Data)), 1..length).boxed()),
        1 => of(ICMP, vec((0..2usize).prop_map(|side| (side, Says::Echo { request: side == 0 })), 1..length).boxed()),
    ]
}

/// An ordinary beginning, or none, then anything.
fn tcp(length: usize) -> BoxedStrategy<Talk> {
    let begun: [&[(Side, u8)]; 7] = [
        &[],
        &[(0, SYN)],
        &[(0, SYN), (1, SYN | ACK), (0, ACK)],
        &[(0, SYN), (1, SYN), (0, SYN | ACK), (1, SYN | ACK)],
        &[(0, SYN), (1, SYN | ACK), (0, ACK), (1, FIN | ACK), (0, ACK)],
        &[(0, SYN), (1, SYN | ACK), (0, ACK), (0, FIN | ACK), (1, FIN | ACK), (0, ACK)],
        &[(0, ACK), (1, ACK), (0, ACK)],
    ];
    let usual = select(&[SYN, SYN | ACK, ACK, ACK, PSH | ACK, FIN | ACK, FIN | ACK, RST, RST | ACK][..]);
    let flags = prop_oneof![8 => usual, 1 => any::<u8>()];
    (select(begun.to_vec()), vec((0..2usize, flags), 1..length))
        .prop_map(|(begun, rest)| begun.iter().copied().chain(rest).map(|(side, it)| (side, Says::Tcp(it))).collect())
        .boxed()
}

fn sctp(length: usize) -> BoxedStrategy<Talk> {
    let open = [(0, SCTP_INIT), (1, SCTP_INIT_ACK), (0, SCTP_COOKIE_ECHO), (1, COOKIE_ACK)];
    let close = [(1, SCTP_SHUTDOWN), (0, SHUTDOWN_ACK), (1, SCTP_SHUTDOWN_COMPLETE)];
    let all: Vec<(Side, u8)> = open.into_iter().chain(close).collect();
    let usual = [SCTP_DATA, SCTP_INIT, SCTP_INIT_ACK, SCTP_COOKIE_ECHO, COOKIE_ACK, 3, SCTP_ABORT, SCTP_SHUTDOWN];
    let usual = select([&usual[..], &[SHUTDOWN_ACK, SCTP_SHUTDOWN_COMPLETE]].concat());
    let chunk = prop_oneof![8 => usual, 1 => any::<u8>()];
    let chunks = prop_oneof![3 => vec(chunk.clone(), 1), 1 => vec(chunk, 2..4)];
    (0..=all.len(), vec((0..2usize, chunks), 1..length))
        .prop_map(move |(begun, rest)| {
            let begun = all[..begun].iter().map(|(side, chunk)| (*side, vec![*chunk]));
            begun.chain(rest).map(|(side, chunks)| (side, Says::Sctp(chunks))).collect()
        })
        .boxed()
}

// The library half.

/// The steps of `bpf/conntrack.rs` (`first`, `found`, `progress`) without a kernel.
#[derive(Clone, Copy, Debug)]
struct Follower {
    state: CtState,
    said: u8,
}

impl Follower {
    fn first(packet: &parse::Packet) -> Option<Self> {
        if packet.proto == TCP && packet.flags & RST != 0 {
            return None;
        }
        Some(Self { state: ct::begins(packet), said: said(packet, From::Initiator) })
    }

    fn next(&mut self, from: End, packet: &parse::Packet) -> Effect {
        if ct::opens(packet) && self.state >= CtState::Closing {
            *self = Self::first(packet).expect("what opens is no RST");
            return Effect::Anew;
        }
        let from = if from == End::Initiator { From::Initiator } else { From::Responder };
        self.state = ct::next(self.state, packet, from, self.said);
        self.said |= said(packet, from);
        Effect::Same
    }
}

fn said(packet: &parse::Packet, from: From) -> u8 {
    let tcp = if packet.proto == TCP { packet.flags } else { 0 };
    let bit = |flag: u8, said: u8| if tcp & flag != 0 { said << from as u8 } else { 0 };
    bit(FIN, FIN_OF) | bit(RST, RST_OF)
}

fn parsed(proto: u8, says: &Says) -> parse::Packet {
    let (flags, icmp) = match says {
        Says::Tcp(flags) => (*flags, 0),
        Says::Sctp(chunks) => (chunks[0], 0),
        Says::Echo { request } => (0, if *request { 8 } else { 0 }),
        Says::Data => (0, 0),
    };
    parse::Packet { proto, flags, icmp: [icmp, 0], ..parse::Packet::EMPTY }
}

/// A conversation as model and follower see it, step by step.
#[derive(Default)]
struct Both {
    current: Option<(Model, Follower, Side)>,
}

impl Both {
    fn step(&mut self, proto: u8, side: Side, says: &Says) -> Result<(), String> {
        let packet = parsed(proto, says);
        let Some((model, follower, initiator)) = &mut self.current else {
            self.current = match (Model::first(says, 1), Follower::first(&packet)) {
                (Some(model), Some(follower)) => Some((model, follower, side)),
                (None, None) => None,
                (model, follower) => return Err(format!("begins: model {model:?}, datapath {follower:?}")),
            };
            return Ok(());
        };
        let before = (model.clone(), *follower);
        let from = if side == *initiator { End::Initiator } else { End::Responder };
        let effects = (model.next(from, says, 1), follower.next(from, &packet));
        if effects.0 == Effect::Anew {
            *initiator = side;
        }
        if effects.0 != effects.1 || model.state() != follower.state {
            return Err(format!("{from:?} {says:?}: {before:?}\nbecomes {model:?}, {follower:?}, {effects:?}"));
        }
        let (wanted, got) = (model.lifetime_s(proto), ct::timeout_s(proto, follower.state));
        if wanted != got { Err(format!("{:?} lives {got} s, not {wanted}", follower.state)) } else { Ok(()) }
    }
}

proptest! {
    #![proptest_config(Config { cases: 4096, failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_library_half_follows_the_model(conversation in conversation(24)) {
        let mut both = Both::default();
        for (step, (side, says)) in conversation.talk.iter().enumerate() {
            if let Err(difference) = both.step(conversation.proto, *side, says) {
                return Err(TestCaseError::fail(format!("step {step}: {difference}")));
            }
        }
    }
}

/// Every row of the table makes a difference, or it would hide one.
#[test]
fn each_row_of_what_is_simpler_is_needed() {
    let t = Says::Tcp;
    let s = |chunk: u8| Says::Sctp(vec![chunk]);
    let open = [(0, s(SCTP_INIT)), (1, s(SCTP_INIT_ACK)), (0, s(SCTP_COOKIE_ECHO)), (1, s(COOKIE_ACK))];
    let after = |more: &[(Side, Says)]| -> Talk { open.iter().chain(more).cloned().collect() };
    let shook = |more: &[(Side, Says)]| -> Talk {
        [(0, t(SYN)), (1, t(SYN | ACK)), (0, t(ACK))].iter().chain(more).cloned().collect()
    };
    let cases: [(Row, u8, Talk); 12] = [
        (Row::Midstream, TCP, vec![(0, t(ACK))]),
        (Row::AnyAnswer, TCP, vec![(0, t(SYN)), (1, t(ACK))]),
        (Row::CrossedSyn, TCP, vec![(0, t(SYN)), (1, t(SYN)), (0, t(SYN | ACK))]),
        (Row::EarlyFin, TCP, vec![(0, t(SYN)), (0, t(FIN))]),
        (Row::SynWhileClosing, TCP, shook(&[(0, t(FIN | ACK)), (0, t(SYN))])),
        (Row::ResetDoubted, TCP, shook(&[(0, t(RST)), (0, t(ACK))])),
        (Row::OneMore, UDP, vec![(0, Says::Data), (1, Says::Data)]),
        (Row::CookieEcho, SCTP, open[..3].to_vec()),
        (Row::AnyChunk, SCTP, vec![(0, s(SCTP_INIT)), (1, s(SCTP_DATA))]),
        (Row::InitWhileClosing, SCTP, after(&[(0, s(SCTP_SHUTDOWN)), (0, s(SCTP_INIT))])),
        (Row::StrayComplete, SCTP, after(&[(0, s(SCTP_SHUTDOWN_COMPLETE))])),
        (Row::FirstChunk, SCTP, after(&[(0, Says::Sctp(vec![SCTP_DATA, SCTP_ABORT]))])),
    ];
    for (row, proto, talk) in &cases {
        let [(_, first), rest @ ..] = &talk[..] else { panic!("{row:?} has a packet") };
        let (mut model, mut strict) = (Model::first(first, 1).unwrap(), Model::strict(first, 1));
        let mut both = Both::default();
        both.step(*proto, 0, first).unwrap();
        for (side, says) in rest {
            let from = [End::Initiator, End::Responder][*side];
            model.next(from, says, 1);
            if let Some(strict) = &mut strict {
                strict.next(from, says, 1);
            }
            both.step(*proto, *side, says).unwrap();
        }
        assert!(model.used.contains(row), "{row:?} is not used by {talk:?}: {model:?}");
        assert_ne!(strict.map(|strict| strict.state()), Some(model.state()), "{row:?} makes no difference");
    }
    let rows: Vec<Row> = cases.iter().map(|(row, ..)| *row).collect();
    assert_eq!(rows, SIMPLER.map(|(row, ..)| row), "the table");
    assert!(SIMPLER.iter().all(|(_, rfc, ours, why)| !rfc.is_empty() && !ours.is_empty() && !why.is_empty()));
}

// The real program.

/// Conversations in the kernel: fewer, as each packet costs two system calls and a look at all tables.
const IN_KERNEL: u32 = 160;

const PORTS: [u16; 2] = [40_000, 80];

fn packet(from: &Host, to: &Host, family: Family, side: Side, conversation: &Conversation, says: &Says) -> Packet {
    let port = if side == 0 { PORTS } else { [PORTS[1], PORTS[0]] };
    let body = match says {
        Says::Tcp(flags) => Body::Tcp { port, flags: *flags },
        Says::Sctp(chunks) if chunks.len() == 1 => Body::Sctp { port, chunk: chunks[0] },
        Says::Sctp(chunks) => {
            // Without a checksum, which the programs leave to the ends.
            let mut payload = port.map(u16::to_be_bytes).concat();
            payload.extend([0, 0, 0, 7, 0, 0, 0, 0]);
            payload.extend(chunks.iter().flat_map(|chunk| [*chunk, 0, 0, 8, 0, 0, 0, 0]));
            return from.packet(to, family, Body::Raw { proto: SCTP }).payload(&payload);
        }
        Says::Echo { request: true } => return from.ping(to, family, 7),
        Says::Echo { request: false } => return from.pong(to, family, 7),
        Says::Data if conversation.proto == UDP => Body::Udp { port },
        Says::Data => Body::Raw { proto: conversation.proto },
    };
    // Of any length, so that bytes are not a multiple of packets.
    from.packet(to, family, body).payload(&vec![0x55; usize::from(says_length(says))])
}

fn says_length(says: &Says) -> u8 {
    match says {
        Says::Tcp(flags) => *flags,
        Says::Sctp(chunks) => chunks[0],
        Says::Echo { .. } | Says::Data => 9,
    }
}

/// What the tables hold: the only entry of all, and whether it is in CONNTRACK.
fn entry(lab: &mut Lab) -> Result<Option<(CtKey, CtEntry, bool)>, String> {
    let found = [maps::CONNTRACK, maps::PENDING].map(|table| lab.connections(table));
    match (&found[0][..], &found[1][..]) {
        ([], []) => Ok(None),
        ([(key, entry)], []) => Ok(Some((*key, *entry, true))),
        ([], [(key, entry)]) => Ok(Some((*key, *entry, false))),
        _ => Err(format!("more than one entry: {found:?}")),
    }
}

fn clear(lab: &mut Lab) {
    for table in [maps::CONNTRACK, maps::PENDING] {
        for (key, _) in lab.connections(table) {
            lab.programs.hash::<CtKey, CtEntry>(table).remove(&key).expect("the entry is there");
        }
    }
}

/// Plays a conversation between two pods; the error says what is different.
fn play(lab: &mut Lab, pods: [&Host; 2], family: Family, conversation: &Conversation) -> Result<(), String> {
    let mut model: Option<(Model, Side, bool)> = None;
    for (step, (side, says)) in conversation.talk.iter().enumerate() {
        let (from, to) = (pods[*side], pods[1 - side]);
        let packet = packet(from, to, family, *side, conversation, says);
        let bytes = packet.bytes().len() as u64 - 14;
        let mut events = Vec::new();
        model = match model {
            None => Model::first(says, bytes).map(|model| {
                events.push((EventKind::Opened, 0));
                (model, *side, false)
            }),
            Some((mut model, mut initiator, mut established)) => {
                let end = match model.state() {
                    CtState::Reset => EndReason::Rst,
                    CtState::TimeWait => EndReason::Fin,
                    _ => EndReason::Replaced,
                };
                let sender = if *side == initiator { End::Initiator } else { End::Responder };
                if model.next(sender, says, bytes) == Effect::Anew {
                    events = vec![(EventKind::Closed, end as u8), (EventKind::Opened, 0)];
                    (initiator, established) = (*side, false);
                }
                established |= model.state() == CtState::Established;
                Some((model, initiator, established))
            }
        };
        let seen = lab.send(At::From(*from), &packet);
        let verdict = seen.returned();
        let told: Vec<(u8, u8)> = seen.events().map(|event| (event.kind, event.end)).collect();
        seen.whatever();
        let found = entry(lab)?;
        let here = || format!("step {step}, {} says {says:?}: {model:?}\nthe program has {found:?}", from.name);
        if verdict != REDIRECT {
            return Err(format!("verdict {verdict}, {}", here()));
        }
        let events: Vec<(u8, u8)> = events.into_iter().map(|(kind, end)| (kind as u8, end)).collect();
        if told != events {
            return Err(format!("events {told:?}, wanted {events:?}, {}", here()));
        }
        let wanted = model.as_ref().map(|(model, initiator, established)| Looks {
            state: model.state() as u8,
            packets: model.packets,
            bytes: model.bytes,
            tcp_flags: model.tcp_flags.map(|flags| flags & NOTED),
            midstream: model.midstream,
            initiator: pods[*initiator].addr(family).into(),
            established: *established,
        });
        let got = found.map(|(key, entry, established)| Looks::of(&key, &entry, established));
        if got != wanted {
            return Err(format!("{got:?}\nwanted {wanted:?}\n{}", here()));
        }
    }
    Ok(())
}

/// The fast path notes no flags: those that it may meet are not asked for.
const NOTED: u8 = SYN | FIN | RST;

/// What is compared of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Looks {
    state: u8,
    packets: [u64; 2],
    bytes: [u64; 2],
    tcp_flags: [u8; 2],
    midstream: bool,
    initiator: Addr,
    /// In the table of established ones.
    established: bool,
}

impl Looks {
    fn of(key: &CtKey, entry: &CtEntry, established: bool) -> Self {
        Self {
            state: entry.state,
            packets: entry.packets(),
            bytes: entry.bytes(),
            tcp_flags: entry.tcp_flags.map(|flags| flags & NOTED),
            midstream: entry.flags & FLAG_MIDSTREAM != 0,
            initiator: key.addr[usize::from(entry.flags & FLAG_INITIATOR_HIGH != 0)],
            established,
        }
    }
}

#[test]
fn the_program_in_the_kernel_follows_the_model() {
    let lab = RefCell::new(Lab::new());
    let mut runner = TestRunner::new(Config { cases: IN_KERNEL, failure_persistence: None, ..Config::default() });
    let inputs = (conversation(20), any::<bool>(), select(&FAMILIES[..]));
    let result = runner.run(&inputs, |(conversation, turned, family)| {
        let lab = &mut *lab.borrow_mut();
        clear(lab);
        // ICMP here is IPv4's.
        let family = if conversation.proto == ICMP { Family::V4 } else { family };
        let pods = if turned { [&B, &A] } else { [&A, &B] };
        play(lab, pods, family, &conversation).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, (conversation, turned, family))) => {
            panic!("{why}\nby the smallest conversation that shows it: {conversation:?}, turned {turned}, {family:?}")
        }
        Err(abort) => panic!("{abort}"),
    }
}
