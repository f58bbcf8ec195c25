//! Filters as they are written: the fields of the flow API's `FlowFilter` in their JSON form. Those that our records
//! cannot answer are not taken; the rest is checked by the API's own filters.

use proto::flow::{self, FlowFilter};
use serde::Deserialize;

/// One filter: matches if every field that is set does, and a field if one of its values does.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename = "filter", default)]
pub(super) struct FilterSpec {
    uuid: Vec<String>,
    source_ip: Vec<String>,
    source_pod: Vec<String>,
    source_fqdn: Vec<String>,
    source_label: Vec<String>,
    source_service: Vec<String>,
    source_workload: Vec<WorkloadSpec>,
    source_cluster_name: Vec<String>,
    destination_ip: Vec<String>,
    destination_pod: Vec<String>,
    destination_fqdn: Vec<String>,
    destination_label: Vec<String>,
    destination_service: Vec<String>,
    destination_workload: Vec<WorkloadSpec>,
    destination_cluster_name: Vec<String>,
    traffic_direction: Vec<String>,
    verdict: Vec<String>,
    drop_reason_desc: Vec<String>,
    event_type: Vec<EventTypeSpec>,
    protocol: Vec<String>,
    source_port: Vec<String>,
    destination_port: Vec<String>,
    reply: Vec<bool>,
    source_identity: Vec<u32>,
    destination_identity: Vec<u32>,
    node_name: Vec<String>,
    node_labels: Vec<String>,
    ip_version: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename = "workload", default)]
struct WorkloadSpec {
    name: String,
    kind: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename = "event_type", default)]
struct EventTypeSpec {
    r#type: i32,
    match_sub_type: bool,
    sub_type: i32,
}

impl FilterSpec {
    /// The API's message; or what no number is known for.
    pub(super) fn to_proto(&self) -> Result<FlowFilter, String> {
        let spec = self.clone();
        let workloads = |list: Vec<WorkloadSpec>| {
            list.into_iter().map(|WorkloadSpec { name, kind }| flow::Workload { name, kind }).collect()
        };
        Ok(FlowFilter {
            uuid: spec.uuid,
            source_ip: spec.source_ip,
            source_pod: spec.source_pod,
            source_fqdn: spec.source_fqdn,
            source_label: spec.source_label,
            source_service: spec.source_service,
            source_workload: workloads(spec.source_workload),
            source_cluster_name: spec.source_cluster_name,
            destination_ip: spec.destination_ip,
            destination_pod: spec.destination_pod,
            destination_fqdn: spec.destination_fqdn,
            destination_label: spec.destination_label,
            destination_service: spec.destination_service,
            destination_workload: workloads(spec.destination_workload),
            destination_cluster_name: spec.destination_cluster_name,
            traffic_direction: words("traffic_direction", &spec.traffic_direction, |word| {
                flow::TrafficDirection::from_str_name(word).map(|it| it as i32)
            })?,
            verdict: words("verdict", &spec.verdict, |word| flow::Verdict::from_str_name(word).map(|it| it as i32))?,
            drop_reason_desc: words("drop_reason_desc", &spec.drop_reason_desc, |word| {
                flow::DropReason::from_str_name(word).map(|it| it as i32)
            })?,
            ip_version: words("ip_version", &spec.ip_version, |word| {
                flow::IpVersion::from_str_name(word).map(|it| it as i32)
            })?,
            event_type: spec
                .event_type
                .into_iter()
                .map(|EventTypeSpec { r#type, match_sub_type, sub_type }| flow::EventTypeFilter {
                    r#type,
                    match_sub_type,
                    sub_type,
                })
                .collect(),
            protocol: spec.protocol,
            source_port: spec.source_port,
            destination_port: spec.destination_port,
            reply: spec.reply,
            source_identity: spec.source_identity,
            destination_identity: spec.destination_identity,
            node_name: spec.node_name,
            node_labels: spec.node_labels,
            ..FlowFilter::default()
        })
    }
}

/// Numbers of an enum's names.
fn words(field: &str, words: &[String], number: impl Fn(&str) -> Option<i32>) -> Result<Vec<i32>, String> {
    let known = |word: &String| number(word).ok_or_else(|| format!("{field}: unknown name {word:?}"));
    words.iter().map(known).collect()
}
