//! One line for each reader of flows: who, from where, what. Written to the log with target [`TARGET`], so that it can be
//! kept apart from the rest.

use std::fmt::Write as _;

use proto::{flow::FlowFilter, observer::GetFlowsRequest};
use tracing::info;

use super::Caller;

/// Target of the lines in the log.
pub const TARGET: &str = "bulkhead::audit";
/// Longest text of filters, in bytes: who asks chooses it.
const MOST: usize = 1024;

/// Says who begins to read.
pub(super) fn begins(caller: Option<&Caller>, request: &GetFlowsRequest) {
    let caller = caller.map_or("unknown", |caller| &caller.0);
    let (only, not) = (filters(&request.whitelist), filters(&request.blacklist));
    let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| time.seconds);
    info!(
        target: TARGET,
        %caller, follow = request.follow, number = request.number, since = ?time(&request.since),
        until = ?time(&request.until), %only, %not, "Reads flows"
    );
}

/// Says why somebody may not.
pub(super) fn refused(caller: Option<&Caller>, why: &str) {
    let caller = caller.map_or("unknown", |caller| &caller.0);
    info!(target: TARGET, %caller, why, "May not read flows");
}

/// Filters in a line: `source_pod=["shop/"] verdict=[1]; protocol=["tcp"]`. Empty if there are none.
fn filters(all: &[FlowFilter]) -> String {
    let mut text = String::new();
    for filter in all {
        if !text.is_empty() {
            text.push_str("; ");
        }
        fields(filter, &mut text);
        if text.len() > MOST {
            let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            text.truncate(end);
            text.push_str("...");
            break;
        }
    }
    text
}

fn fields(filter: &FlowFilter, text: &mut String) {
    macro_rules! write_those_set {
        ($($field:ident)*) => {$(
            if !filter.$field.is_empty() {
                let space = if text.is_empty() || text.ends_with(' ') { "" } else { " " };
                let _ = write!(text, "{space}{}={:?}", stringify!($field), filter.$field);
            }
        )*};
    }
    write_those_set!(
        uuid source_ip source_ip_xlated source_pod source_fqdn source_label source_service source_workload
        source_cluster_name destination_ip destination_pod destination_fqdn destination_label destination_service
        destination_workload destination_cluster_name traffic_direction verdict drop_reason_desc event_type
        http_status_code protocol source_port destination_port reply dns_query source_identity destination_identity
        http_method http_path http_url http_header tcp_flags node_name node_labels ip_version trace_id interface
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_asked_for_and_has_an_end() {
        let shop = FlowFilter { source_pod: vec!["shop/".to_owned()], verdict: vec![2], ..FlowFilter::default() };
        let tcp = FlowFilter { protocol: vec!["tcp".to_owned()], ..FlowFilter::default() };
        assert_eq!(filters(&[shop, tcp]), r#"source_pod=["shop/"] verdict=[2]; protocol=["tcp"]"#);
        assert_eq!(filters(&[]), "");
        let hostile = FlowFilter { source_pod: vec!["ä\n".repeat(4096)], ..FlowFilter::default() };
        let text = filters(&[hostile]);
        assert!(text.len() < MOST + 8 && !text.contains('\n') && text.ends_with("..."), "{text}");
    }
}
