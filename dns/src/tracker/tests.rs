//! What belongs together, and what does not.

use proptest::prelude::*;

use super::*;
use crate::Data;

const S: u64 = 1_000_000_000;
const UDP: u8 = 17;

/// A packet of the pod in slot 1 or of its server, at a time.
fn packet(time_ns: u64, reply: u8, bytes: &[u8]) -> DnsPacket {
    DnsPacket {
        time_ns,
        created_ns: 5,
        port: [4000, 53],
        slot: [1, 0],
        proto: UDP,
        length: bytes.len() as u32,
        taken: bytes.len() as u16,
        reply,
        ..DnsPacket::default()
    }
}

fn message(id: u16, flags: u16, name: &str, address: Option<[u8; 4]>) -> Vec<u8> {
    let words = [id, flags, 1, address.is_some().into(), 0, 0];
    let mut out: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
    out.extend([&[name.len() as u8], name.as_bytes(), &[0, 0, 1, 0, 1]].concat());
    if let Some(address) = address {
        out.extend([&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4][..], &address].concat());
    }
    out
}

fn question(id: u16, name: &str) -> Vec<u8> {
    message(id, 0x0100, name, None)
}

fn answer(id: u16, name: &str) -> Vec<u8> {
    message(id, 0x8180, name, Some([192, 0, 2, 1]))
}

/// A tracker, and what it has told.
#[derive(Default)]
struct Seen {
    tracker: Tracker,
    told: Vec<Told>,
}

impl Seen {
    fn push(&mut self, packet: DnsPacket, bytes: &[u8]) {
        let told = &mut self.told;
        self.tracker.push(&packet, bytes, |it| told.push(it));
    }

    fn ask(&mut self, time_ns: u64, bytes: &[u8]) {
        self.push(packet(time_ns, 0, bytes), bytes);
    }

    fn say(&mut self, time_ns: u64, bytes: &[u8]) {
        self.push(packet(time_ns, 1, bytes), bytes);
    }

    fn expire(&mut self, now_ns: u64) {
        let told = &mut self.told;
        self.tracker.expire(now_ns, |it| told.push(it));
    }

    /// Names, and how they ended.
    fn ends(&self) -> Vec<(&str, &'static str)> {
        let word = |outcome: &Outcome| match outcome {
            Outcome::Answered(_) => "answered",
            Outcome::Unanswered => "unanswered",
            Outcome::Unfollowed => "unfollowed",
        };
        self.told.iter().map(|told| (&*told.lookup.question.name, word(&told.lookup.outcome))).collect()
    }
}

#[test]
fn an_answer_ends_a_lookup_with_its_latency() {
    let mut seen = Seen::default();
    seen.ask(S, &question(1, "a"));
    seen.ask(2 * S, &question(1, "a"));
    seen.say(3 * S, &answer(1, "A"));
    let [told] = &seen.told[..] else { panic!("{:?}", seen.told) };
    let answered = told.lookup.answer().unwrap();
    assert_eq!((told.lookup.tries, answered.latency_ns, answered.rcode), (2, 2 * S, 0));
    assert_eq!((told.time_ns, told.packet.time_ns), (3 * S, S));
    assert_eq!(told.bytes, [question(1, "a").len() as u32, answer(1, "a").len() as u32]);
    assert_eq!(told.resolved, [("192.0.2.1".parse().unwrap(), 30)]);
    assert_eq!(answered.records[0].data, Data::Address("192.0.2.1".parse().unwrap()));
    assert_eq!(seen.tracker.open(), 0);
}

#[test]
fn what_was_not_asked_for_changes_nothing() {
    let mut seen = Seen::default();
    seen.ask(S, &question(1, "a"));
    seen.say(S, &answer(2, "a"));
    seen.say(S, &answer(1, "b"));
    let other = |change: fn(&mut DnsPacket)| {
        let mut other = packet(S, 1, &answer(1, "a"));
        change(&mut other);
        other
    };
    for forged in [
        other(|it| it.port[0] = 4001),
        other(|it| it.addr[1] = Addr::from_v4([10, 0, 0, 1])),
        other(|it| it.created_ns = 6),
        other(|it| it.proto = TCP),
    ] {
        seen.push(forged, &answer(1, "a"));
    }
    assert_eq!(seen.ends(), []);
    assert_eq!(seen.tracker.figures().unsolicited, 5, "over TCP it is nothing that can be read");
    // An answer that the client sends, a question that the server sends.
    seen.ask(S, &answer(1, "a"));
    seen.say(S, &question(1, "a"));
    assert_eq!((seen.ends(), seen.tracker.open()), (vec![], 1));
    seen.say(2 * S, &answer(1, "a"));
    seen.say(2 * S, &answer(1, "a"));
    assert_eq!(seen.ends(), [("a", "answered")], "once");
}

#[test]
fn what_nobody_answers_is_told_in_the_order_it_was_asked() {
    let mut seen = Seen::default();
    for (at, name) in [(1, "a"), (2, "b"), (3, "c")] {
        seen.ask(at * S, &question(at as u16, name));
    }
    seen.say(4 * S, &answer(2, "b"));
    seen.expire(11 * S - 1);
    assert_eq!(seen.ends(), [("b", "answered")]);
    seen.expire(13 * S);
    assert_eq!(seen.ends(), [("b", "answered"), ("a", "unanswered"), ("c", "unanswered")]);
    assert_eq!(seen.tracker.figures().unanswered, 2);
}

#[test]
fn a_number_that_is_used_again_is_another_question() {
    let mut seen = Seen::default();
    seen.ask(S, &question(1, "a"));
    seen.ask(S, &question(1, "b"));
    seen.say(S, &answer(1, "a"));
    seen.say(S, &answer(1, "b"));
    assert_eq!(seen.ends(), [("a", "unfollowed"), ("b", "answered")]);
}

#[test]
fn a_pod_has_its_share_of_open_questions() {
    let mut seen = Seen::default();
    for id in 0..=MOST_OF_POD as u16 {
        seen.ask(S, &question(id, "a"));
    }
    assert_eq!((seen.tracker.open(), seen.ends()), (MOST_OF_POD, vec![("a", "unfollowed")]));
    let bytes = question(1, "other");
    seen.push(DnsPacket { slot: [2, 0], port: [5000, 53], ..packet(S, 0, &bytes) }, &bytes);
    assert_eq!(seen.tracker.open(), MOST_OF_POD + 1);
    seen.say(S, &answer(0, "a"));
    seen.ask(S, &question(999, "after"));
    assert_eq!(seen.tracker.open(), MOST_OF_POD + 1);
    seen.expire(20 * S);
    assert!(seen.tracker.of_pod.is_empty() && seen.tracker.order.is_empty());
}

#[test]
fn over_tcp_messages_are_found_in_packets() {
    let mut seen = Seen::default();
    let framed = |messages: &[Vec<u8>]| -> Vec<u8> {
        messages.iter().flat_map(|it| [&(it.len() as u16).to_be_bytes()[..], it].concat()).collect()
    };
    let asked = framed(&[question(1, "a"), question(2, "b")]);
    seen.push(DnsPacket { proto: TCP, seq: 9, ..packet(S, 0, &asked) }, &asked);
    assert_eq!(seen.tracker.open(), 2);
    let said = framed(&[answer(2, "b"), answer(1, "a")]);
    let (first, rest) = said.split_at(50);
    seen.push(DnsPacket { proto: TCP, seq: 70, ..packet(2 * S, 1, first) }, first);
    seen.push(DnsPacket { proto: TCP, seq: 120, ..packet(2 * S, 1, rest) }, rest);
    assert_eq!(seen.ends()[0], ("b", "answered"));
    assert_eq!(seen.tracker.figures().answered, 1, "of one that is split only the beginning is read");
}

#[test]
fn a_fragment_is_read_as_far_as_it_goes() {
    let mut seen = Seen::default();
    seen.ask(S, &question(1, "a"));
    let whole = answer(1, "a");
    let here = &whole[..whole.len() - 3];
    seen.push(DnsPacket { length: whole.len() as u32, fragment: 1, ..packet(S, 1, here) }, here);
    assert!(seen.told[0].lookup.answer().unwrap().cut && seen.told[0].resolved.is_empty());
}

proptest! {
    /// Whatever comes: no more is open than may be, all that was opened ends, and the books agree.
    #[test]
    fn any_packets_are_accounted_for(
        packets in prop::collection::vec((0u16..4, 0u8..2, 0u32..3, prop::collection::vec(any::<u8>(), 0..40), 0u8..4), 0..200)
    ) {
        let mut seen = Seen::default();
        let mut time_ns = 0;
        for (id, reply, slot, noise, what) in packets {
            time_ns += S / 4;
            let bytes = match what {
                0 => question(id, "a"),
                1 => answer(id, "a"),
                2 => [&[0, noise.len() as u8][..], &noise].concat(),
                _ => noise,
            };
            let proto = if what == 2 { TCP } else { UDP };
            seen.push(DnsPacket { slot: [slot, 0], proto, seq: time_ns as u32, ..packet(time_ns, reply, &bytes) }, &bytes);
            seen.expire(time_ns);
        }
        seen.expire(time_ns + PATIENCE_NS);
        prop_assert_eq!(seen.tracker.open(), 0);
        prop_assert!(seen.tracker.order.is_empty() && seen.tracker.of_pod.is_empty());
        let figures = seen.tracker.figures();
        prop_assert_eq!(figures.answered + figures.unanswered + figures.unfollowed, seen.told.len() as u64);
    }
}
