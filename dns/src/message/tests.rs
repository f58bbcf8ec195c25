//! Messages of servers, and what becomes of them where they are broken.

use super::*;
use proptest::prelude::*;

/// A name on the wire, without compression.
fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut out: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    out.push(0);
    out
}

/// A message with one question.
fn wire(id: u16, flags: u16, asked: &str, rtype: u16, answers: &[Vec<u8>]) -> Vec<u8> {
    let words = [id, flags, 1, answers.len() as u16, 0, 0];
    let mut out: Vec<u8> = words.into_iter().flat_map(u16::to_be_bytes).collect();
    out.extend(name(asked));
    out.extend([rtype, 1].into_iter().flat_map(u16::to_be_bytes));
    out.extend(answers.concat());
    out
}

/// A record.
fn record(owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = owner.to_vec();
    out.extend([rtype, 1].into_iter().flat_map(u16::to_be_bytes));
    out.extend(ttl.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend(data);
    out
}

const ANSWER: u16 = 0x8180;
/// Where the question's name stands.
const ASKED: &[u8] = &[0xc0, 12];

#[test]
fn a_question_is_read() {
    let message = parse(&wire(7, 0x0100, "WWW.Example.COM", 28, &[]), true).unwrap();
    assert_eq!((message.id, message.is_answer, message.cut), (7, false, false));
    assert_eq!(message.question, Question { name: "www.example.com".into(), rtype: 28, class: 1 });
}

#[test]
fn aliases_lead_to_the_addresses_of_the_name_that_was_asked_for() {
    let answers = [
        record(ASKED, 5, 300, &name("cdn.example.net")),
        record(&name("CDN.example.net"), 5, 20, &name("edge.example.org")),
        record(&name("edge.example.org"), 1, 60, &[192, 0, 2, 1]),
        record(&name("edge.example.org"), 28, 10, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        record(&name("bank.example"), 1, 60, &[192, 0, 2, 66]),
        record(ASKED, 1, 60, &[192, 0, 2, 67]),
    ];
    let message = parse(&wire(7, ANSWER, "www.example.com", 1, &answers), true).unwrap();
    let resolved = [("192.0.2.1".parse().unwrap(), 20), ("2001:db8::1".parse().unwrap(), 10)];
    assert_eq!(message.resolved, resolved, "what belongs to nobody who was asked for is not believed");
    assert_eq!(message.records.len(), 6);
    assert_eq!(message.records[0].data, Data::Text("cdn.example.net".into()));
    assert_eq!((message.announced, message.cut), (6, false));
}

#[test]
fn an_answer_is_read_as_far_as_it_goes() {
    let one = record(ASKED, 1, 60, &[192, 0, 2, 1]);
    let whole = wire(7, ANSWER, "www.example.com", 1, &[one.clone(), one.clone(), one]);
    for length in 0..=whole.len() {
        match parse(&whole[..length], length == whole.len()) {
            Err(error) => {
                assert!(length < 33, "{length}");
                assert_eq!(error, if length < 12 { Unreadable::Short } else { Unreadable::Question });
            }
            Ok(message) => {
                assert!(length >= 33, "{length}");
                assert_eq!(message.records.len(), (length - 33) / 16);
                assert_eq!(message.cut, length < whole.len());
            }
        }
    }
}

#[test]
fn failures_have_their_codes_also_those_of_edns() {
    assert_eq!(parse(&wire(7, ANSWER | 3, "a", 1, &[]), true).unwrap().rcode, 3);
    let mut extended = wire(7, ANSWER, "a", 1, &[]);
    extended[11] = 1;
    extended.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
    assert_eq!(parse(&extended, true).unwrap().rcode, 16);
}

#[test]
fn whatever_is_no_single_question_is_refused() {
    let good = wire(7, 0, "a", 1, &[]);
    for (place, value, error) in
        [(5, 0, Unreadable::NotOneQuestion), (5, 2, Unreadable::NotOneQuestion), (2, 0x28, Unreadable::OtherOpcode)]
    {
        let mut bad = good.clone();
        bad[place] = value;
        assert_eq!(parse(&bad, true), Err(error));
    }
}

#[test]
fn names_and_texts_obey_no_terminal() {
    let mut asked = wire(7, ANSWER, "abcd", 16, &[record(ASKED, 16, 1, b"\x04\x1b[2J")]);
    asked[13..17].copy_from_slice(b"\x1b.\\\n");
    let message = parse(&asked, true).unwrap();
    assert_eq!(&*message.question.name, "\\027\\046\\092\\010");
    let Data::Text(text) = &message.records[0].data else { panic!() };
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
}

#[test]
fn much_is_not_kept() {
    let long = name(&format!("{0}.{0}.{0}", "x".repeat(60)));
    let answers: Vec<Vec<u8>> = (0..40).map(|_| record(ASKED, 5, 1, &long)).collect();
    let message = parse(&wire(7, ANSWER, "a", 1, &answers), true).unwrap();
    assert_eq!((message.records.len(), message.announced, message.cut), (MOST_RECORDS, 40, false));
    let text: usize = message.records.iter().map(|record| record.data.to_string().len()).sum();
    assert!(text <= MOST_TEXT, "{text}");
}

#[test]
fn a_name_that_leads_to_itself_ends() {
    let mut bytes = wire(7, ANSWER, "a", 1, &[]);
    bytes.truncate(12);
    bytes.extend([0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(parse(&bytes, true), Err(Unreadable::Question));
}

proptest! {
    #[test]
    fn any_bytes_are_bounded(head in 0u8..=255, mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if bytes.len() >= 12 {
            (bytes[2], bytes[4], bytes[5]) = (head & 0x87, 0, 1);
        }
        if let Ok(message) = parse(&bytes, head & 1 == 0) {
            prop_assert!(message.question.name.len() <= 4 * 255);
            prop_assert!(message.records.len() <= MOST_RECORDS && message.resolved.len() <= MOST_RECORDS);
            prop_assert!(message.records.iter().map(|record| record.data.to_string().len()).sum::<usize>() <= MOST_TEXT + 64 * MOST_RECORDS);
            prop_assert!(!message.question.name.contains(char::is_control));
        }
    }
}
