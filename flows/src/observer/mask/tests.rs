//! Masks on a flow with every field that we fill.

use std::collections::BTreeSet;

use super::*;
use crate::{fixture, observer::convert};

fn mask(paths: &[&str]) -> Result<Mask, MaskError> {
    Mask::parse(Some(&FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() }))
}

fn masked(paths: &[&str]) -> Flow {
    let record = fixture::record(&fixture::opened());
    convert::masked_flow(&record, &mask(paths).unwrap(), &convert::ExtensionForm::Typed)
}

#[test]
fn no_mask_and_an_empty_mask_send_everything() {
    assert_eq!(Mask::parse(None), Ok(Mask::default()));
    let flow = masked(&[]);
    assert!(flow.extensions.is_some() && !flow.source.unwrap().labels.is_empty() && !flow.uuid.is_empty());
}

#[test]
fn only_what_is_asked_for_is_sent_and_the_six_policy_fields() {
    let flow = masked(&["verdict", "source.pod_name", "IP.destination", "l4.TCP.destination_port"]);
    let full = convert::flow(&fixture::record(&fixture::opened()));
    let source = Endpoint { pod_name: "web-0".to_owned(), ..Endpoint::default() };
    let expected = Flow {
        verdict: full.verdict,
        source: Some(source),
        ip: Some(Ip { destination: "10.1.0.9".to_owned(), ..Ip::default() }),
        l4: full.l4,
        traffic_direction: full.traffic_direction,
        policy_match_type: full.policy_match_type,
        ingress_allowed_by: full.ingress_allowed_by,
        ..Flow::default()
    };
    assert_eq!(flow, expected);
    assert_ne!(flow.traffic_direction, 0);
    assert_ne!(flow.policy_match_type, 0);
    assert_eq!(flow.ingress_allowed_by.len(), 1);
}

#[test]
fn a_whole_message_brings_all_its_fields() {
    let flow = masked(&["source", "destination.labels", "source.identity"]);
    assert!(flow.source.as_ref().unwrap().identity == 256 && !flow.source.unwrap().labels.is_empty());
    let destination = flow.destination.unwrap();
    assert!(!destination.labels.is_empty() && destination.pod_name.is_empty());
}

#[test]
fn the_default_mask_of_the_hubble_cli_is_understood() {
    let paths = [
        "time",
        "verdict",
        "ethernet",
        "IP",
        "l4",
        "source.identity",
        "source.namespace",
        "source.pod_name",
        "destination.identity",
        "destination.namespace",
        "destination.pod_name",
        "Type",
        "node_name",
        "l7",
        "event_type",
        "source_service",
        "destination_service",
        "is_reply",
        "Summary",
        "ip_trace_id",
    ];
    let mask = mask(&paths).unwrap();
    assert!(!mask.wants_labels() && !mask.wants_extensions());
}

#[test]
fn unknown_paths_are_refused_by_name() {
    for path in ["nonsense", "source.nonsense", "IP.ID", "l4.TCPv9", "", ".", "source.", "ip", "verdict.x", "summary"] {
        assert_eq!(mask(&["time", path]), Err(MaskError::Unknown(path.to_owned())), "{path}");
    }
    assert_eq!(mask(&["time"; 513]), Err(MaskError::TooMany(513)));
    let long = "x".repeat(100_000);
    assert!(matches!(mask(&[&long]), Err(MaskError::Unknown(shown)) if shown.len() == 100));
}

#[test]
fn every_field_of_a_flow_has_its_own_bit() {
    assert!(FLOW.len() <= 64);
    for names in [FLOW, ENDPOINT, IP] {
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
    let full = convert::flow(&fixture::record(&fixture::opened()));
    let mut flow = full.clone();
    clear_flow(&mut flow, u64::MAX);
    assert_eq!(flow, full);
    clear_flow(&mut flow, 0);
    assert_eq!(flow, Flow::default());
}

#[test]
fn an_exact_mask_keeps_what_it_names_and_no_more() {
    let exactly = |paths: &[&str]| Mask::exactly(&paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>());
    let mask = exactly(&["uuid", "source.pod_name", "IP"]).unwrap();
    for (path, kept) in [
        ("uuid", true),
        ("source", true),
        ("source.pod_name", true),
        ("source.labels", false),
        ("destination", false),
        ("destination.labels", false),
        ("IP.source", true),
        ("traffic_direction", false),
        ("uuid.x", false),
        ("nonsense", false),
    ] {
        assert_eq!(mask.keeps(path), kept, "{path}");
    }
    assert!(exactly(&[]).unwrap().keeps("destination.labels"));
    assert_eq!(exactly(&["nonsense"]), Err(MaskError::Unknown("nonsense".to_owned())));
}
