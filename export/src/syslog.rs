//! Records as messages of RFC 5424, framed by octet counting (RFC 5425, section 4.3.1; RFC 6587, section 3.4.1). The
//! message is the record's OCSF event, or one line for people. Structured data are those that are registered: `origin`
//! says who we are, `meta` has the record's sequence. Pure.

use std::{fmt::Write as _, time::Duration};

use flows::{FlowRecord, calendar::Stamp, record::Node};

use crate::{
    facts::{self, Verdict},
    notice::Notice,
    ocsf,
    wanted::Wanted,
};

/// RFC 5424, section 6.2.1: 6 is informational, 4 a warning.
const INFORMATIONAL: u8 = 6;
const WARNING: u8 = 4;
/// Bits of `sequenceId` (section 7.3.1), which begins anew at 1 after the greatest.
const GREATEST_SEQUENCE: u64 = 2_147_483_647;

/// How messages are to look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Style {
    /// Facility, 0 to 23.
    pub facility: u8,
    /// APP-NAME.
    pub app_name: String,
    /// The OCSF event as JSON, else one line for people.
    pub json: bool,
}

/// One message, framed.
pub fn message(record: &FlowRecord, wanted: &Wanted, style: &Style, now_unix_ns: u64) -> Vec<u8> {
    let severity = if facts::verdict(record) == Verdict::Allowed { INFORMATIONAL } else { WARNING };
    let head = head(style, severity, record.time_unix_ns, &record.node, "flow", Some(record.sequence));
    let mut text = Vec::new();
    if style.json {
        ocsf::event(record, wanted, now_unix_ns, &mut text);
    } else {
        text.extend(facts::summary(record).bytes());
    }
    framed(head, &text)
}

/// One notice, framed.
pub fn loss(notice: &Notice, node: &Node, style: &Style) -> Vec<u8> {
    let head = head(style, WARNING, notice.time_unix_ns, node, "lost", None);
    let mut text = Vec::new();
    if style.json {
        ocsf::loss(notice, node, &mut text);
    } else {
        text.extend(notice.summary().bytes());
    }
    framed(head, &text)
}

fn head(style: &Style, severity: u8, time_unix_ns: u64, node: &Node, id: &str, sequence: Option<u64>) -> String {
    let priority = u16::from(style.facility) * 8 + u16::from(severity);
    let time = Stamp::since_1970(Duration::from_nanos(time_unix_ns));
    let (host, app) = (printable(&node.name, 255), printable(&style.app_name, 48));
    let mut head = format!("<{priority}>1 {time} {host} {app} - {id} ");
    let version = env!("CARGO_PKG_VERSION");
    let _ = write!(head, "[origin software=\"bulkhead\" swVersion=\"{version}\"]");
    if let Some(sequence) = sequence {
        let _ = write!(head, "[meta sequenceId=\"{}\"]", sequence.saturating_sub(1) % GREATEST_SEQUENCE + 1);
    }
    head
}

/// PRINTUSASCII of at most so many characters; `-` if nothing is left.
fn printable(text: &str, most: usize) -> String {
    let text: String = text.chars().filter(char::is_ascii_graphic).take(most).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// Length, space, message.
fn framed(head: String, text: &[u8]) -> Vec<u8> {
    let text = text.trim_ascii_end();
    let length = head.len() + 1 + text.len();
    let mut out = format!("{length} {head} ").into_bytes();
    out.extend_from_slice(text);
    out
}

#[cfg(test)]
mod tests {
    use flows::ledger::ExportLoss;

    use super::*;
    use crate::{
        golden::{assert_golden, records},
        notice::Gap,
    };

    const NOW: u64 = 1_767_323_050_000_000_000;

    fn style(json: bool) -> Style {
        Style { facility: 16, app_name: "bulkhead".to_owned(), json }
    }

    fn notice() -> Notice {
        let gap = Gap::Here(ExportLoss::SpoolFull);
        Notice { gap, count: 12, time_unix_ns: NOW, after: 41, before: 54, exporter: "siem".to_owned() }
    }

    #[test]
    fn messages_of_every_kind() {
        let mut text = String::new();
        for json in [false, true] {
            for record in records() {
                text += &String::from_utf8(message(&record, &Wanted::everything(), &style(json), NOW)).unwrap();
                text.push('\n');
            }
            text += &String::from_utf8(loss(&notice(), &records()[0].node, &style(json))).unwrap();
            text.push('\n');
        }
        assert_golden("syslog.txt", &text);
    }

    #[test]
    fn the_count_is_that_of_the_octets_and_nothing_breaks_out_of_its_field() {
        let mut record = records().remove(1);
        let node = Node { name: "nöde a\n<1>".to_owned(), ..(*record.node).clone() };
        record.node = node.into();
        record.sequence = GREATEST_SEQUENCE + 5;
        for json in [false, true] {
            let style = Style { app_name: " \u{7f}".to_owned(), ..style(json) };
            let text = String::from_utf8(message(&record, &Wanted::everything(), &style, NOW)).unwrap();
            let (length, rest) = text.split_once(' ').unwrap();
            assert_eq!(length.parse(), Ok(rest.len()));
            assert!(rest.starts_with("<132>1 2026-01-02T03:04:05.000000Z ndea<1> - - flow [origin "), "{rest}");
            assert!(rest.contains("[meta sequenceId=\"5\"]") && !rest.contains('\n'), "{rest}");
        }
    }
}
