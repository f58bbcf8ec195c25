//! What class DNS Activity (4003) has that Network Activity has not.

use ::dns::{
    Answer, Lookup, Outcome,
    lookup::{class_name, flag, rcode_name, type_name},
};
use flows::FlowRecord;

use super::{NS_PER_MS, Word};
use crate::{facts, json::Object};

pub(super) const CLASS: Word = (4003, "DNS Activity");

/// The bits of the header by the schema's numbers.
const FLAGS: [(u16, u64); 6] =
    [(flag::AA, 1), (flag::TC, 2), (flag::RD, 3), (flag::RA, 4), (flag::AD, 5), (flag::CD, 6)];

/// One event stands for question and answer; without an answer for the question alone.
pub(super) fn activity(record: &FlowRecord) -> Word {
    match record.dns.as_deref().and_then(Lookup::answer) {
        Some(_) => (6, "Traffic"),
        None => (1, "Query"),
    }
}

pub(super) fn status(lookup: &Lookup) -> Word {
    match &lookup.outcome {
        Outcome::Answered(answer) if answer.rcode == 0 => (1, "Success"),
        Outcome::Answered(_) | Outcome::Unanswered => (2, "Failure"),
        Outcome::Unfollowed => (0, "Unknown"),
    }
}

/// Question, answer, and when.
pub(super) fn lookup(event: &mut Object<'_>, record: &FlowRecord, lookup: &Lookup) {
    let Lookup { question, id, tries: _, outcome: _ } = lookup;
    let answer = lookup.answer();
    let latency_ns = answer.map_or(0, |answer| answer.latency_ns);
    event.object("query", |it| {
        it.text("hostname", &question.name).text("type", &type_name(question.rtype));
        it.text("class", &class_name(question.class)).word("opcode", (0, "Query")).number("packet_uid", (*id).into());
    });
    let Some(Answer { rcode, flags, records, .. }) = answer else { return };
    event.number("query_time", record.time_unix_ns.saturating_sub(latency_ns) / NS_PER_MS);
    event.number("response_time", record.time_unix_ns / NS_PER_MS);
    event.number("rcode_id", rcode_id(*rcode)).text("rcode", &rcode_name(*rcode));
    let flags: Vec<u64> = FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, number)| *number).collect();
    event.objects("answers", records.iter(), |it, record| {
        let data = record.data.to_string();
        it.text("rdata", if data.is_empty() { "?" } else { &data });
        it.text("type", &type_name(record.rtype)).text("class", &class_name(record.class));
        it.number("ttl", record.ttl_s.into()).number("packet_uid", (*id).into());
        it.numbers("flag_ids", &flags);
    });
}

/// The registry's number where the schema has it.
fn rcode_id(rcode: u16) -> u64 {
    match rcode {
        0..=11 | 16..=23 => rcode.into(),
        _ => 99,
    }
}

/// What there is no field for.
pub(super) fn unmapped(out: &mut Object<'_>, lookup: &Lookup) {
    out.number("dns_tries", lookup.tries.into()).text("dns_outcome", &facts::lookup_outcome(lookup));
    if let Some(Answer { latency_ns, announced, cut, .. }) = lookup.answer() {
        out.number("dns_latency_us", latency_ns / 1000).number("dns_answers_announced", (*announced).into());
        if *cut {
            out.flag("dns_answer_cut", true);
        }
    }
}
