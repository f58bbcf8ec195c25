//! Lines of every kind of event, as a golden file, and what must hold for all of them.

use flows::ledger::{ExportLoss, Loss};
use serde_json::Value;

use super::*;
use crate::{
    golden::{assert_golden, records},
    notice::Gap,
};

const LOGGED: u64 = 1_767_323_050_000_000_000;

fn lines(wanted: &Wanted) -> String {
    let mut out = Vec::new();
    for record in records() {
        event(&record, wanted, LOGGED, &mut out);
    }
    String::from_utf8(out).unwrap()
}

fn notice(gap: Gap) -> Notice {
    Notice { gap, count: 12, time_unix_ns: LOGGED, after: 41, before: 54, exporter: "siem".to_owned() }
}

#[test]
fn one_line_for_each_event() {
    let mut text = lines(&Wanted::everything());
    let mut out = Vec::new();
    for gap in [Gap::Before(Loss::KernelRingFull), Gap::Here(ExportLoss::RingOverrun)] {
        loss(&notice(gap), &records()[0].node, &mut out);
    }
    text.push_str(&String::from_utf8(out).unwrap());
    assert_golden("ocsf.ndjson", &text);
}

#[test]
fn what_the_mask_leaves_out_is_not_there_and_the_verdict_always_is() {
    let paths = ["time", "source.pod_name", "source.namespace", "IP.destination"].map(str::to_owned);
    let text = lines(&Wanted::of(&paths).unwrap());
    assert_golden("ocsf-masked.ndjson", &text);
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["action_id"].is_u64() && event["time"].is_u64());
        assert!([4001, 4003].iter().any(|class| event["class_uid"] == *class) && event.get("query").is_none());
        assert!(event["metadata"].get("uid").is_none() && event.get("unmapped").is_none());
        assert!(event["src_endpoint"].get("ip").is_none());
    }
}

/// OCSF: type_uid is the class times 100 plus the activity.
#[test]
fn numbers_agree_with_each_other() {
    for (line, record) in lines(&Wanted::everything()).lines().zip(records()) {
        let event: Value = serde_json::from_str(line).unwrap();
        let number = |name: &str| event[name].as_u64().unwrap();
        assert_eq!(number("type_uid"), 100 * number("class_uid") + number("activity_id"));
        assert_eq!(event["metadata"]["uid"].as_str().unwrap(), record.uuid().to_string());
        let denied = facts::verdict(&record) == Verdict::Denied;
        assert_eq!(number("action_id") == 2, denied, "{line}");
    }
}

#[test]
fn a_denial_names_every_policy_that_isolates() {
    let text = lines(&Wanted::everything());
    let event: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(event["firewall_rule"]["type"], "implicit-deny");
    assert_eq!(event["firewall_rule"]["match_details"], serde_json::json!(["shop/db-clients", "shop/default-deny"]));
    assert_eq!(event["status_code"], "default_deny");
}
