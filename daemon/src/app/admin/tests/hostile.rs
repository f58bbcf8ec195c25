//! Requests that mean harm, or nothing: each is refused by a sentence that names the field and the
//! fix, and none of them is carried any further.

use proto::bulkhead::admin::v1::{get_endpoint_request::Which, party::Who};
use tonic::Code;

use super::*;

/// Texts that are no name, no address and no protocol.
fn nonsense() -> Vec<String> {
    let texts = ["", " ", "a b", "../etc", "shop/web", "\u{0}", "\u{1b}[2J", "naïve", "\u{202e}"];
    texts.into_iter().map(str::to_owned).chain(["a".repeat(254), "x".repeat(60_000)]).collect()
}

fn check<T: fmt::Debug>(what: &str, answer: Result<Response<T>, Status>) {
    let status = answer.map(|_| ()).unwrap_err();
    let message = status.message();
    assert_eq!(status.code(), Code::InvalidArgument, "{what}: {message}");
    assert!(message.contains(": ") && message.len() < 600, "{what}: {message}");
    assert!(message.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{what}: {message:?}");
}

#[tokio::test]
async fn names_in_every_field_are_checked() {
    let service = shop().service();
    for text in nonsense() {
        if !text.is_empty() {
            let request = pb::ListEndpointsRequest { namespace: text.clone() };
            check("namespace", service.list_endpoints(Request::new(request)).await);
            let request = pb::ListPoliciesRequest { namespace: text.clone() };
            check("namespace", service.list_policies(Request::new(request)).await);
            let request = pb::GetPolicyRequest { namespace: "shop".into(), name: "a".into(), kind: text.clone() };
            check("kind", service.get_policy(Request::new(request)).await);
            let request = pb::ExplainRequest { protocol: text.clone(), port: 1, ..ends(None, None) };
            check("protocol", service.explain(Request::new(request)).await);
        }
        for (namespace, name) in [(text.clone(), "a".to_owned()), ("a".to_owned(), text.clone())] {
            let request =
                pb::GetPolicyRequest { namespace: namespace.clone(), name: name.clone(), kind: String::new() };
            check("policy", service.get_policy(Request::new(request)).await);
            let pod = pb::PodName { namespace: namespace.clone(), name: name.clone() };
            let request = pb::GetEndpointRequest { which: Some(Which::Pod(pod.clone())) };
            check("pod", service.get_endpoint(Request::new(request)).await);
            check("source", service.explain(Request::new(ends(Some(Who::Pod(pod)), None))).await);
            for kind in ["Deployment", text.as_str()] {
                let (namespace, name, kind) = (namespace.clone(), name.clone(), kind.to_owned());
                let who = Who::Workload(pb::WorkloadName { namespace, kind, name });
                check("destination", service.explain(Request::new(ends(None, Some(who)))).await);
            }
        }
        let request = pb::GetEndpointRequest { which: Some(Which::Ip(text.clone())) };
        check("ip", service.get_endpoint(Request::new(request)).await);
        check("source.ip", service.explain(Request::new(ends(Some(Who::Ip(text.clone())), None))).await);
        let names = pb::DumpMapsRequest { maps: vec![text.clone()], limit: 0 };
        check("maps", service.dump_maps(Request::new(names)).await.map(|answer| answer.map(|_| ())));
    }
}

/// A request that is right but for the ends that are given.
fn ends(source: Option<Who>, destination: Option<Who>) -> pb::ExplainRequest {
    let right = || Who::Ip("10.0.0.1".to_owned());
    pb::ExplainRequest {
        source: Some(pb::Party { who: Some(source.unwrap_or_else(right)) }),
        destination: Some(pb::Party { who: Some(destination.unwrap_or_else(right)) }),
        protocol: "tcp".to_owned(),
        port: 1,
    }
}

#[tokio::test]
async fn what_is_missing_or_out_of_range_is_named() {
    let service = shop().service();
    let explain = async |request| refused(service.explain(Request::new(request)).await);
    let get = async |which| refused(service.get_endpoint(Request::new(pb::GetEndpointRequest { which })).await);
    assert_eq!(get(None).await, "InvalidArgument: which is missing: name a pod, a container id, an ip or a slot");
    assert_eq!(get(Some(Which::Slot(0))).await, "InvalidArgument: slot 0 is nobody's: slots begin at 1");
    assert!(get(Some(Which::Slot(u32::MAX))).await.starts_with("NotFound: "));
    assert_eq!(
        get(Some(Which::ContainerId("c0ffe".to_owned()))).await,
        "InvalidArgument: container_id \"c0ffe\" has 5 bytes: give the first 6 characters or more, at most 253"
    );
    assert!(get(Some(Which::ContainerId("c".repeat(60_000)))).await.starts_with("InvalidArgument: container_id "));
    assert_eq!(
        explain(pb::ExplainRequest { source: None, ..ends(None, None) }).await,
        "InvalidArgument: source is missing: name a pod, a workload or an IP address"
    );
    let empty = Some(pb::Party { who: None });
    assert!(
        explain(pb::ExplainRequest { destination: empty, ..ends(None, None) }).await.contains("destination is missing")
    );
    for (protocol, port, expected) in [
        ("tcp", 0, "port 0 is none of tcp: use a number from 1 to 65535"),
        ("udp", 65_536, "port 65536 is none of udp: use a number from 1 to 65535"),
        ("sctp", u32::MAX, "port 4294967295 is none of sctp: use a number from 1 to 65535"),
        ("icmp", 1, "port 1: icmp has no ports, leave it out"),
        ("TCP", 1, "protocol \"TCP\" is not known here: use one of tcp, udp, sctp, icmp, icmpv6"),
    ] {
        let request = pb::ExplainRequest { protocol: protocol.to_owned(), port, ..ends(None, None) };
        assert_eq!(explain(request).await, format!("InvalidArgument: {expected}"));
    }
    let pod = explain(ends(Some(Who::Pod(pod("shop/gone"))), None)).await;
    assert_eq!(
        pod,
        "NotFound: source: there is no pod shop/gone: add a Pod object, start it, or ask for an IP address"
    );
}

#[tokio::test]
async fn what_needs_the_objects_waits_for_them() {
    let node = shop();
    node.state().synced = false;
    let service = node.service();
    let unread = "Unavailable: the source has not been read completely yet: try again, or see `bulkhead status`";
    let policy = pb::GetPolicyRequest { namespace: "shop".into(), name: "web-out".into(), kind: String::new() };
    assert_eq!(refused(service.get_policy(Request::new(policy)).await), unread);
    assert_eq!(refused(service.list_policies(Request::new(pb::ListPoliciesRequest::default())).await), unread);
    assert_eq!(refused(service.list_identities(Request::new(pb::ListIdentitiesRequest::default())).await), unread);
    assert_eq!(refused(service.explain(Request::new(ends(None, None))).await), unread);
    // The kernel's state is there without them.
    assert!(service.status(Request::new(pb::StatusRequest {})).await.is_ok());
    assert!(service.list_endpoints(Request::new(pb::ListEndpointsRequest::default())).await.is_ok());
    assert!(service.counters(Request::new(pb::CountersRequest {})).await.is_ok());
    assert!(service.dump_maps(Request::new(pb::DumpMapsRequest::default())).await.is_ok());
}

#[tokio::test]
async fn the_same_map_ten_thousand_times_is_one_map() {
    let service = shop().service();
    let names = pb::DumpMapsRequest { maps: vec!["PEERS".to_owned(); 10_000], limit: u32::MAX };
    let entries = futures::StreamExt::count(service.dump_maps(Request::new(names)).await.unwrap().into_inner()).await;
    assert!((1..10).contains(&entries), "{entries}");
}
