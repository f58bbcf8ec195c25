//! Hostile requests over gRPC: decoded, converted and answered, for the Hubble API, the admin API and
//! the CNI socket. A refusal names the field and is one line; nothing that is asked breaks the
//! service.

mod cni;
mod node;

use datapath_abi::event::FlowEvent;
use flows::{Observer, ObserverConfig, Pipeline, fixture};
use futures::{StreamExt as _, future::poll_immediate};
use prost::Message;
use proto::{
    bulkhead::admin::v1 as pb,
    bulkhead::admin::v1::admin_server::Admin,
    flow::{FlowFilter, Verdict},
    observer::{GetAgentEventsRequest, GetFlowsRequest, GetFlowsResponse, observer_server::Observer as _},
};
use std::{num::NonZeroUsize, sync::Arc};
use tonic::{Code, Request, Response, Status};

thread_local! {
    /// Threads that work something out are the runtime's own: it is kept.
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without I/O starts");
}

/// Answers the request in the rest of `bytes`; the first byte says which message it is.
///
/// # Panics
///
/// On a defect.
pub fn request(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            match kind % KINDS {
                0 => flows(rest).await,
                1 => agent_events(rest).await,
                2 => event(rest).await,
                3 => admin(rest, |it, request| it.list_endpoints(request)).await,
                4 => admin(rest, |it, request| it.get_endpoint(request)).await,
                5 => admin(rest, |it, request| it.list_identities(request)).await,
                6 => admin(rest, |it, request| it.list_policies(request)).await,
                7 => admin(rest, |it, request| it.get_policy(request)).await,
                8 => admin(rest, |it, request| it.explain(request)).await,
                9 => dump(rest).await,
                _ => cni::request(rest),
            }
        });
    });
}

const KINDS: u8 = 11;

/// Most answers that are looked at: a stream that follows has no end.
const MOST: usize = 16;

/// An observer with one record of each kind of the fixture.
fn observer(events: &[FlowEvent]) -> Observer {
    let capacity = NonZeroUsize::new(16).expect("not zero");
    let pipeline = Arc::new(Pipeline::new(fixture::node(), capacity));
    for event in events {
        // What the kernel would never write is counted and forgotten.
        let _ = pipeline.push(event, fixture::clock(), &fixture::world());
    }
    Observer::new(ObserverConfig::default(), pipeline)
}

fn recorded() -> [FlowEvent; 5] {
    [fixture::opened(), fixture::denied(), fixture::closed(), fixture::from_outside(), fixture::ping()]
}

/// GetFlows: what it asks for bounds what it gets.
async fn flows(bytes: &[u8]) {
    let Ok(wanted) = GetFlowsRequest::decode(bytes) else { return };
    let (number, follow) = (wanted.number, wanted.follow);
    let answers = match observer(&recorded()).get_flows(Request::new(wanted)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return refusal(&status, &[Code::InvalidArgument]),
    };
    let answers = look(answers).await;
    if number > 0 && !follow {
        assert!(answers.len() as u64 <= number, "{} answers, {number} were asked for", answers.len());
    }
}

/// The first answers of a stream. Each can be sent.
async fn look(
    mut answers: impl futures::Stream<Item = Result<GetFlowsResponse, Status>> + Unpin,
) -> Vec<GetFlowsResponse> {
    let mut found = Vec::new();
    for _ in 0..MOST {
        match poll_immediate(answers.next()).await {
            Some(Some(Ok(answer))) => {
                let again = GetFlowsResponse::decode(answer.encode_to_vec().as_slice());
                assert_eq!(again.as_ref(), Ok(&answer), "an answer survives the wire");
                found.push(answer);
            }
            Some(Some(Err(status))) => panic!("a stream broke: {status}"),
            // Its turn is over, or it waits for something to happen.
            None => {}
            Some(None) => break,
        }
    }
    found
}

async fn agent_events(bytes: &[u8]) {
    let Ok(wanted) = GetAgentEventsRequest::decode(bytes) else { return };
    if let Err(status) = observer(&[]).get_agent_events(Request::new(wanted)).await {
        refusal(&status, &[Code::InvalidArgument]);
    }
}

/// An event as the ring buffer has it: refused, or told to who asks.
async fn event(bytes: &[u8]) {
    let pipeline = Arc::new(Pipeline::new(fixture::node(), NonZeroUsize::new(1).expect("not zero")));
    let world = fixture::world();
    let kept = pipeline.batch(fixture::clock(), &world).push_bytes(bytes).is_ok();
    let observer = Observer::new(ObserverConfig::default(), pipeline);
    let all = GetFlowsRequest { number: 4, ..GetFlowsRequest::default() };
    let answers = observer.get_flows(Request::new(all)).await.expect("the request is right").into_inner();
    assert_eq!(look(answers).await.len(), usize::from(kept), "one event, one record");
}

/// A question to the admin API.
async fn admin<Q, A, F>(bytes: &[u8], ask: impl FnOnce(&'static daemon::app::admin::AdminService, Request<Q>) -> F)
where
    Q: Message + Default,
    A: Message + Default + PartialEq + std::fmt::Debug,
    F: Future<Output = Result<Response<A>, Status>>,
{
    let Ok(request) = Q::decode(bytes) else { return };
    match ask(node::service(), Request::new(request)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            assert_eq!(A::decode(answer.encode_to_vec().as_slice()), Ok(answer), "an answer survives the wire");
        }
        Err(status) => refusal(&status, &[Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition]),
    }
}

async fn dump(bytes: &[u8]) {
    let Ok(request) = pb::DumpMapsRequest::decode(bytes) else { return };
    match node::service().dump_maps(Request::new(request)).await {
        Ok(answer) => {
            let mut entries = answer.into_inner();
            while let Some(entry) = entries.next().await {
                assert!(!entry.expect("the mirror can be read").map.is_empty());
            }
        }
        // This node has no tables of connections.
        Err(status) => refusal(&status, &[Code::InvalidArgument, Code::Unimplemented]),
    }
}

/// A refusal is one line of bounded length that a terminal can show, and not our fault.
fn refusal(status: &Status, codes: &[Code]) {
    assert!(codes.contains(&status.code()), "{status:?}");
    let message = status.message();
    assert!(!message.is_empty() && message.len() < 4096, "{message}");
    assert!(!message.chars().any(char::is_control), "control characters: {message:?}");
}

/// Requests as clients send them.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut add = |kind: u8, message: Vec<u8>| seeds.push([vec![kind], message].concat());
    let filters = [
        FlowFilter {
            source_ip: vec!["10.1.0.0/16".into()],
            destination_port: vec!["5432".into()],
            ..Default::default()
        },
        FlowFilter {
            source_pod: vec!["shop/web".into()],
            verdict: vec![Verdict::Dropped as i32],
            ..Default::default()
        },
        FlowFilter {
            source_label: vec!["app in (web, db), !x".into()],
            protocol: vec!["tcp".into()],
            ..Default::default()
        },
        FlowFilter { uuid: vec!["00000000-0000-0000-0000-000000000001".into()], ..Default::default() },
        FlowFilter {
            source_fqdn: vec!["*.example.com".into()],
            node_name: vec!["default/node-*".into()],
            ..Default::default()
        },
    ];
    for filter in filters {
        let request = GetFlowsRequest { number: 3, whitelist: vec![filter.clone()], ..Default::default() };
        add(0, request.encode_to_vec());
        let mask = prost_types::FieldMask { paths: vec!["source.labels".into(), "time".into(), "IP".into()] };
        let request = GetFlowsRequest { blacklist: vec![filter], field_mask: Some(mask), ..Default::default() };
        add(0, request.encode_to_vec());
    }
    let since = Some(prost_types::Timestamp { seconds: 1_767_323_045, nanos: 5 });
    add(0, GetFlowsRequest { first: true, number: 1, since, until: since, ..Default::default() }.encode_to_vec());
    add(0, GetFlowsRequest { follow: true, ..Default::default() }.encode_to_vec());
    add(1, GetAgentEventsRequest { since, ..Default::default() }.encode_to_vec());
    for event in recorded() {
        add(2, node::bytes_of(&event));
    }
    add(3, pb::ListEndpointsRequest { namespace: "shop".into() }.encode_to_vec());
    let pod = |name: &str| pb::PodName { namespace: "shop".into(), name: name.into() };
    use pb::{get_endpoint_request::Which, party::Who};
    for which in
        [Which::Pod(pod("web-0")), Which::ContainerId("c0ffee".into()), Which::Ip("10.88.0.2".into()), Which::Slot(1)]
    {
        add(4, pb::GetEndpointRequest { which: Some(which) }.encode_to_vec());
    }
    add(5, pb::ListIdentitiesRequest { reserved: true }.encode_to_vec());
    add(6, pb::ListPoliciesRequest { namespace: "shop".into() }.encode_to_vec());
    let policy = pb::GetPolicyRequest { namespace: "shop".into(), name: "db".into(), kind: "NetworkPolicy".into() };
    add(7, policy.encode_to_vec());
    let workload = pb::WorkloadName { namespace: "shop".into(), kind: "Deployment".into(), name: "web".into() };
    for source in [Who::Pod(pod("web-0")), Who::Workload(workload), Who::Ip("192.0.2.1".into())] {
        let party = |who| Some(pb::Party { who: Some(who) });
        let destination = party(Who::Pod(pod("db-0")));
        let request = pb::ExplainRequest { source: party(source), destination, protocol: "TCP".into(), port: 5432 };
        add(8, request.encode_to_vec());
    }
    add(9, pb::DumpMapsRequest { maps: vec!["PEERS".into(), "ENDPOINTS".into()], limit: 2 }.encode_to_vec());
    for seed in cni::seeds() {
        add(10, seed);
    }
    seeds
}

/// Names in requests, one a line.
pub const WORDS: &str = include_str!("../words/grpc.txt");
