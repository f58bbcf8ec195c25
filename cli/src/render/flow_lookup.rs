//! Lookups as people read them.

use proto::bulkhead::flow::v1::{FlowExtension, Lookup, LookupOutcome};

use super::table::Tone;

/// What came of it, in a word.
pub(super) fn word(extension: Option<&FlowExtension>) -> (Tone, &'static str) {
    match extension.and_then(|extension| extension.lookup.as_ref()) {
        Some(lookup) if lookup.outcome() == LookupOutcome::Answered && lookup.rcode == "NOERROR" => {
            (Tone::Faint, "DNS")
        }
        Some(_) => (Tone::Warn, "DNS"),
        None => (Tone::Warn, "UNKNOWN"),
    }
}

/// `www.example.com A: 192.0.2.1 in 1.2 ms`
pub(super) fn text(extension: &FlowExtension) -> String {
    let Some(lookup) = &extension.lookup else { return "-".to_owned() };
    let Lookup { name, r#type, rcode, latency_ns, records, announced, cut, tries, .. } = lookup;
    let asked = format!("{name} {}", r#type);
    let again = if *tries > 1 { format!(", asked {tries} times") } else { String::new() };
    match lookup.outcome() {
        LookupOutcome::Answered => {
            let mut said: Vec<&str> =
                records.iter().map(|record| record.data.as_str()).filter(|data| !data.is_empty()).collect();
            if rcode != "NOERROR" || said.is_empty() {
                said.insert(0, rcode);
            }
            let more = *announced as usize > records.len() || *cut;
            let more = if more { ", ..." } else { "" };
            let (ms, tenths) = (latency_ns / 1_000_000, latency_ns / 100_000 % 10);
            format!("{asked}: {}{more} in {ms}.{tenths} ms{again}", said.join(", "))
        }
        LookupOutcome::Unanswered => format!("{asked}: no answer{again}"),
        LookupOutcome::Unfollowed | LookupOutcome::Unspecified => format!("{asked}: not followed"),
    }
}
