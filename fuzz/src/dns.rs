//! Hostile DNS: packets of pods and servers, and whatever is made of them.
//!
//! Of each packet: a byte that says whose it is and how it came, its length in two bytes, its bytes.

use ::dns::{Names, Outcome, Tracker};
use datapath_abi::{
    addr::Addr,
    dns::{DnsPacket, MOST_BYTES},
};
use flows::{enrich::enrich_lookup, fixture};

const NS_PER_S: u64 = 1_000_000_000;
/// What a record of a lookup may take in memory, generously.
const MOST_TEXT: usize = 4096;

/// A packet's first byte.
const ANSWER: u8 = 0x80;
const TCP: u8 = 0x40;
const LATER: u8 = 0x20;
const LONGER: u8 = 0x10;
const OTHER_PORT: u8 = 0x08;

/// Runs tracker, names and records on packets.
///
/// # Panics
///
/// On a defect.
pub fn packets(mut bytes: &[u8]) {
    let (mut tracker, mut names, mut told) = (Tracker::default(), Names::default(), Vec::new());
    let (mut now_ns, mut sequence) = (NS_PER_S, 1u32);
    while let [head, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (message, after) = rest.split_at(length);
        bytes = after;
        let is = |bit: u8| head & bit != 0;
        now_ns += if is(LATER) { 3 * NS_PER_S } else { 1000 };
        let taken = message.len().min(MOST_BYTES);
        let packet = DnsPacket {
            time_ns: now_ns,
            created_ns: 1,
            addr: [Addr::from_v4([10, 1, 0, 5]), Addr::from_v4([10, 1, 1, 7])],
            identity: [256, 259],
            slot: [1, 0],
            port: [if is(OTHER_PORT) { 4001 } else { 4000 }, 53],
            length: message.len() as u32 + if is(LONGER) { 9 } else { 0 },
            seq: sequence,
            taken: taken as u16,
            proto: if is(TCP) { 6 } else { 17 },
            reply: u8::from(is(ANSWER)),
            ..DnsPacket::default()
        };
        sequence = sequence.wrapping_add(packet.length);
        tracker.push(&packet, &message[..taken], |it| told.push(it));
        tracker.expire(now_ns, |it| told.push(it));
    }
    tracker.expire(u64::MAX, |it| told.push(it));
    assert_eq!(tracker.open(), 0, "whatever was asked comes to an end");
    let figures = tracker.figures();
    assert_eq!(figures.answered + figures.unanswered + figures.unfollowed, told.len() as u64);

    let world = fixture::world();
    for it in told {
        let question = &it.lookup.question;
        let mut text = question.name.len();
        assert!(question.name.is_ascii() && !question.name.contains(|c: char| c.is_ascii_control() || c == ' '));
        if let Outcome::Answered(answer) = &it.lookup.outcome {
            for record in &answer.records {
                let data = record.data.to_string();
                assert!(!data.contains(char::is_control), "{data:?}");
                text += data.len();
            }
        }
        assert!(text <= MOST_TEXT, "{text} bytes of text");
        for (address, ttl_s) in &it.resolved {
            names.learn(1, *address, &question.name, it.time_ns, *ttl_s);
            let known = names.names(1, *address, it.time_ns).expect("just learnt");
            assert_eq!(known[0], *question.name);
        }
        let record = enrich_lookup(it, 1, &fixture::node(), fixture::clock(), &world).expect("of our own making");
        let flow = flows::observer::convert::flow(&record);
        assert!(!flow.summary_text().contains(char::is_control));
        let mut line = Vec::new();
        ::export::ocsf::event(&record, &::export::Wanted::everything(), 0, &mut line);
        serde_json::from_slice::<serde_json::Value>(&line).expect("a line is JSON");
        let _ = ::export::otlp::log_record(&record, &::export::Wanted::everything(), 0);
    }
}

/// The field is deprecated in the API and yet what its clients print.
trait SummaryText {
    fn summary_text(&self) -> &str;
}

impl SummaryText for proto::flow::Flow {
    #[allow(deprecated)]
    fn summary_text(&self) -> &str {
        &self.summary
    }
}

/// A packet of the input.
fn packet(head: u8, message: &[u8]) -> Vec<u8> {
    [&[head][..], &(message.len() as u16).to_be_bytes(), message].concat()
}

/// A message with one question for `www.a`, and answers.
fn message(id: u8, flags: u16, counts: u8, answers: &[u8]) -> Vec<u8> {
    let [high, low] = flags.to_be_bytes();
    [&[0, id, high, low, 0, 1, 0, counts, 0, 0, 0, 0][..], b"\x03www\x01a\0\0\x01\0\x01", answers].concat()
}

/// Lookups of each kind, and what is wrong in each way that was thought of.
pub fn seeds() -> Vec<Vec<u8>> {
    const FINE: u16 = 0x8180;
    let asked = message(1, 0x0100, 0, b"");
    let address = b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x07";
    let alias =
        b"\xc0\x0c\0\x05\0\x01\0\0\0\x1e\0\x04\x01b\xc0\x10\x01b\xc0\x10\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x08";
    let text = b"\xc0\x0c\0\x10\0\x01\0\0\0\x1e\0\x05\x04\x1b[2J";
    let service = b"\xc0\x0c\0\x21\0\x01\0\0\0\x1e\0\x08\0\x01\0\x02\0\x50\xc0\x0c";
    let circle = b"\xc0\x1c\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x07";
    let framed = |message: &[u8]| [&(message.len() as u16).to_be_bytes()[..], message].concat();
    let answered = |answer: Vec<u8>| [packet(0, &asked), packet(ANSWER, &answer)].concat();
    vec![
        answered(message(1, FINE, 1, address)),
        answered(message(1, FINE, 2, alias)),
        answered(message(1, FINE, 1, text)),
        answered(message(1, FINE, 1, service)),
        answered(message(1, FINE, 9, circle)),
        answered(message(1, FINE | 3, 0, b"")),
        answered(message(2, FINE, 1, address)),
        [packet(0, &asked), packet(LATER, &asked), packet(LATER, b""), packet(LATER, b""), packet(LATER, b"")].concat(),
        [packet(0, &asked), packet(ANSWER | OTHER_PORT, &message(1, FINE, 1, address))].concat(),
        [packet(TCP, &framed(&asked)), packet(TCP | ANSWER, &framed(&message(1, FINE, 1, address)))].concat(),
        [packet(TCP, &framed(&asked)[..2]), packet(TCP, &asked), packet(TCP | LONGER, b"\0\x60abc")].concat(),
    ]
}
