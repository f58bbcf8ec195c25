//! Messages of every kind of record, as text in a golden file.

use std::fmt::Write as _;

use flows::ledger::Loss;

use super::*;
use crate::{
    golden::{assert_golden, records},
    notice::Gap,
};

const OBSERVED: u64 = 1_767_323_050_000_000_000;

fn words(record: &LogRecord) -> String {
    let body = record.body.as_ref().and_then(|body| body.value.clone());
    let mut text = format!(
        "{} {} {} {} {body:?}\n",
        record.event_name, record.time_unix_nano, record.severity_number, record.severity_text
    );
    for KeyValue { key, value } in &record.attributes {
        let value = match value.as_ref().and_then(|it| it.value.clone()) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::ArrayValue(list)) => format!(
                "{:?}",
                list.values
                    .into_iter()
                    .filter_map(|it| it.value)
                    .map(|it| if let Value::StringValue(text) = it { text } else { format!("{it:?}") })
                    .collect::<Vec<_>>()
            ),
            other => format!("{other:?}"),
        };
        writeln!(text, "  {key} = {value}").unwrap();
    }
    text
}

#[test]
fn every_kind_of_record_has_its_attributes() {
    let mut text = String::new();
    for record in records() {
        text.push_str(&words(&log_record(&record, &Wanted::everything(), OBSERVED)));
    }
    let gap = Gap::Before(Loss::KernelRingFull);
    let notice = Notice { gap, count: 12, time_unix_ns: OBSERVED, after: 41, before: 54, exporter: "siem".to_owned() };
    text.push_str(&words(&loss(&notice, &records()[0].node)));
    assert_golden("otlp.txt", &text);
}

#[test]
fn no_attribute_is_there_twice_and_the_mask_holds() {
    let wanted = Wanted::of(&["source.pod_name".to_owned()]).unwrap();
    for record in records() {
        let all = log_record(&record, &Wanted::everything(), OBSERVED);
        let mut keys: Vec<_> = all.attributes.iter().map(|it| &it.key).collect();
        keys.sort();
        let count = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), count);
        let few = log_record(&record, &wanted, OBSERVED);
        assert!(few.body.is_none());
        for KeyValue { key, .. } in few.attributes {
            let always =
                ["bulkhead.sequence", "bulkhead.node.epoch", "bulkhead.event", "bulkhead.verdict", "bulkhead.reason"];
            let always = always.contains(&&*key) || key.starts_with("bulkhead.aggregate.");
            assert!(always || key == "source.k8s.pod.name", "{key}");
        }
    }
}
