//! A lookup in the terms of the Hubble API, and what that has no field for.

use dns::{
    Data, Lookup, Outcome, Record,
    lookup::{class_name, rcode_name, type_name},
};
use proto::{
    bulkhead::flow::v1 as ext,
    flow::{Dns, L7FlowType, Layer7, layer7},
};

/// What the API calls whoever looks at packets, rather than a proxy that takes them apart.
const OBSERVER: &str = "Query";

/// One flow stands for question and answer; without an answer for the question alone.
pub(super) fn layer7(lookup: &Lookup) -> Layer7 {
    let Lookup { question, id: _, tries: _, outcome: _ } = lookup;
    let answer = lookup.answer();
    let mut rrtypes: Vec<String> =
        answer.iter().flat_map(|answer| &answer.records).map(|record| type_name(record.rtype)).collect();
    rrtypes.dedup();
    let dns = Dns {
        query: with_dot(&question.name),
        ips: answer.iter().flat_map(|answer| answer.addresses()).map(|ip| ip.to_string()).collect(),
        ttl: answer.map_or(0, |answer| answer.ttl_s()),
        cnames: answer.iter().flat_map(|answer| answer.aliases()).map(with_dot).collect(),
        observation_source: OBSERVER.to_owned(),
        rcode: answer.map_or(0, |answer| answer.rcode.into()),
        qtypes: vec![type_name(question.rtype)],
        rrtypes,
    };
    Layer7 {
        r#type: if answer.is_some() { L7FlowType::Response } else { L7FlowType::Request } as i32,
        latency_ns: answer.map_or(0, |answer| answer.latency_ns),
        record: Some(layer7::Record::Dns(dns)),
    }
}

/// One line.
pub(super) fn summary(lookup: &Lookup) -> String {
    let asked = format!("{} {}", with_dot(&lookup.question.name), type_name(lookup.question.rtype));
    let answer = match &lookup.outcome {
        Outcome::Answered(answer) => answer,
        Outcome::Unanswered => return format!("DNS Query {asked}, no answer"),
        Outcome::Unfollowed => return format!("DNS Query {asked}, not followed"),
    };
    let mut parts = Vec::new();
    if answer.rcode != 0 {
        parts.push(format!("RCode: {}", rcode_name(answer.rcode)));
    }
    let addresses: Vec<String> = answer.addresses().map(|ip| ip.to_string()).collect();
    if !addresses.is_empty() {
        parts.push(format!("{:?}", addresses.join(",")));
    }
    if answer.ttl_s() != 0 {
        parts.push(format!("TTL: {}", answer.ttl_s()));
    }
    let aliases: Vec<String> = answer.aliases().map(with_dot).collect();
    if !aliases.is_empty() {
        parts.push(format!("CNAMEs: {:?}", aliases.join(",")));
    }
    parts.push(format!("({OBSERVER} {asked})"));
    format!("DNS Answer {}", parts.join(" "))
}

/// All of it.
pub(super) fn extended(lookup: &Lookup) -> ext::Lookup {
    let Lookup { question, id, tries, outcome } = lookup;
    let asked = ext::Lookup {
        name: question.name.to_string(),
        r#type: type_name(question.rtype),
        class: class_name(question.class),
        id: u32::from(*id),
        tries: u32::from(*tries),
        outcome: match outcome {
            Outcome::Answered(_) => ext::LookupOutcome::Answered,
            Outcome::Unanswered => ext::LookupOutcome::Unanswered,
            Outcome::Unfollowed => ext::LookupOutcome::Unfollowed,
        } as i32,
        ..ext::Lookup::default()
    };
    let Outcome::Answered(answer) = outcome else { return asked };
    let dns::Answer { latency_ns, rcode, flags, records, announced, cut } = answer;
    ext::Lookup {
        rcode: rcode_name(*rcode),
        latency_ns: *latency_ns,
        flags: u32::from(*flags),
        records: records.iter().map(record).collect(),
        announced: u32::from(*announced),
        cut: *cut,
        ..asked
    }
}

fn record(record: &Record) -> ext::LookupRecord {
    let Record { rtype, class, ttl_s, data } = record;
    let data = match data {
        Data::Address(ip) => ip.to_string(),
        Data::Text(text) => text.to_string(),
    };
    ext::LookupRecord { r#type: type_name(*rtype), class: class_name(*class), ttl: *ttl_s, data }
}

/// Readers of the API expect it.
fn with_dot(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}
