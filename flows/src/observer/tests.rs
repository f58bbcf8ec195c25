//! A real client against a real server over a unix socket.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use proto::{
    flow::{FlowFilter, LostEventSource, Verdict},
    grpc::health::v1::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient},
    observer::{
        GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest,
        GetNodesRequest, ServerStatusRequest, get_flows_response::ResponseTypes, observer_client::ObserverClient,
    },
    peer::{ChangeNotificationType, NotifyRequest, peer_client::PeerClient, peer_server},
    relay::NodeState,
};
use tempfile::TempDir;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Code, Request, Streaming,
    transport::{Channel, Endpoint, Server, Uri},
};

use super::*;
use crate::{
    clock::unix_ns,
    enrich::WallClock,
    fixture::{self, World, world},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A server with its pipeline, and a connection to it.
struct Bench {
    pipeline: Arc<Pipeline>,
    observer: Observer,
    world: World,
    channel: Channel,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<Result<(), tonic::transport::Error>>>,
    _dir: TempDir,
}

impl Bench {
    async fn new(capacity: usize, max_readers: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("api.sock");
        let pipeline = Arc::new(Pipeline::new(fixture::node(), NonZeroUsize::new(capacity).unwrap()));
        let config =
            ObserverConfig { version: "bulkhead v0".to_owned(), address: "unix:///api.sock".to_owned(), max_readers };
        let observer = Observer::new(config, pipeline.clone());
        let listener = UnixListener::bind(&path).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(
            Server::builder()
                .add_service(observer.observer_service())
                .add_service(observer.peer_service())
                .add_service(observer.health_service())
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), async {
                    let _ = stopped.await;
                }),
        );
        let channel = connect(&path).await;
        let (stop, server) = (Some(stop), Some(server));
        Self { pipeline, observer, world: world(), channel, stop, server, _dir: dir }
    }

    fn client(&self) -> ObserverClient<Channel> {
        ObserverClient::new(self.channel.clone())
    }

    /// Pushes `count` connections, a second apart, the first one `start_s` seconds after the
    /// fixture's start. Their destination ports are the seconds.
    fn push(&self, start_s: u64, count: u64) {
        let mut batch = self.pipeline.batch(fixture::clock(), &self.world);
        for second in start_s..start_s + count {
            let mut event = fixture::opened();
            event.time_ns += second * 1_000_000_000;
            event.port[1] = u16::try_from(second).unwrap();
            batch.push(&event).unwrap();
        }
    }

    /// Asks for flows that are there, to the end of the stream.
    async fn ask(&self, request: GetFlowsRequest) -> Vec<Seen> {
        let mut stream = self.client().get_flows(request).await.unwrap().into_inner();
        let mut seen = Vec::new();
        while let Some(answer) = timeout(PATIENCE, stream.message()).await.expect("in time").unwrap() {
            seen.push(Seen::from(answer));
        }
        seen
    }

    async fn refused(&self, request: GetFlowsRequest) -> Status {
        self.client().get_flows(request).await.expect_err("refused")
    }
}

async fn connect(path: &Path) -> Channel {
    let path = path.to_owned();
    Endpoint::from_static("http://local.invalid")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .unwrap()
}

/// What a client has got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// A flow, by its destination port.
    Flow(u32),
    /// A loss: source, count, CPU.
    Lost(LostEventSource, u64, Option<i32>),
}

impl From<GetFlowsResponse> for Seen {
    fn from(answer: GetFlowsResponse) -> Self {
        assert_eq!(answer.node_name, "node-a");
        assert!(answer.time.is_some());
        match answer.response_types.expect("never empty") {
            ResponseTypes::Flow(flow) => {
                use proto::flow::layer4::Protocol::Tcp;
                assert!(flow.time.is_none_or(|time| Some(time) == answer.time));
                match flow.l4.and_then(|l4| l4.protocol) {
                    Some(Tcp(tcp)) => Seen::Flow(tcp.destination_port),
                    other => panic!("{other:?}"),
                }
            }
            ResponseTypes::LostEvents(lost) => Seen::Lost(lost.source(), lost.num_events_lost, lost.cpu),
            ResponseTypes::NodeStatus(status) => panic!("only a relay says {status:?}"),
        }
    }
}

fn flows(ports: impl IntoIterator<Item = u32>) -> Vec<Seen> {
    ports.into_iter().map(Seen::Flow).collect()
}

fn at(second: u64) -> Option<prost_types::Timestamp> {
    Some(convert::timestamp(fixture::START_UNIX_NS + second * 1_000_000_000))
}

fn ports(ports: &[&str]) -> Vec<FlowFilter> {
    let destination_port = ports.iter().map(|&port| port.to_owned()).collect();
    vec![FlowFilter { destination_port, ..FlowFilter::default() }]
}

async fn next(stream: &mut Streaming<GetFlowsResponse>) -> Seen {
    timeout(PATIENCE, stream.message()).await.expect("in time").unwrap().expect("not the end").into()
}

#[tokio::test]
async fn positions_without_follow() {
    let bench = Bench::new(64, 8).await;
    bench.push(1, 10);
    let r = GetFlowsRequest::default;
    for (request, expected) in [
        (r(), flows(1..=10)),
        (GetFlowsRequest { number: 3, ..r() }, flows(8..=10)),
        (GetFlowsRequest { number: 10, ..r() }, flows(1..=10)),
        (GetFlowsRequest { number: u64::MAX, ..r() }, flows(1..=10)),
        (GetFlowsRequest { number: 3, first: true, ..r() }, flows(1..=3)),
        (GetFlowsRequest { first: true, ..r() }, flows(1..=10)),
        (GetFlowsRequest { since: at(8), ..r() }, flows(8..=10)),
        (GetFlowsRequest { since: at(20), ..r() }, flows([])),
        (GetFlowsRequest { since: at(0), number: 2, ..r() }, flows(1..=2)),
        (GetFlowsRequest { since: at(4), number: 2, first: true, ..r() }, flows(4..=5)),
        (GetFlowsRequest { until: at(3), ..r() }, flows(1..=3)),
        (GetFlowsRequest { since: at(3), until: at(5), ..r() }, flows(3..=5)),
        (GetFlowsRequest { number: 2, until: at(9), ..r() }, flows([9])),
        (GetFlowsRequest { whitelist: ports(&["2", "4", "6"]), number: 2, ..r() }, flows([4, 6])),
        (GetFlowsRequest { whitelist: ports(&["2", "4", "6"]), number: 2, first: true, ..r() }, flows([2, 4])),
        (GetFlowsRequest { whitelist: ports(&["2"]), number: 5, ..r() }, flows([2])),
        (GetFlowsRequest { blacklist: ports(&["9", "10"]), number: 2, ..r() }, flows([7, 8])),
        (GetFlowsRequest { whitelist: ports(&["99"]), ..r() }, flows([])),
    ] {
        assert_eq!(bench.ask(request.clone()).await, expected, "{request:?}");
    }
    let balance = bench.pipeline.ledger().balance();
    assert!(balance.is_even(), "{balance:?}");
    assert_eq!(balance.readers, 0, "every reader has gone");
}

#[tokio::test]
async fn an_empty_ring_answers_with_nothing() {
    let bench = Bench::new(4, 8).await;
    assert_eq!(bench.ask(GetFlowsRequest { number: 20, ..GetFlowsRequest::default() }).await, []);
    let since = GetFlowsRequest { since: at(0), ..GetFlowsRequest::default() };
    assert_eq!(bench.ask(since).await, []);
}

#[tokio::test]
async fn following_starts_where_asked_and_goes_on() {
    let bench = Bench::new(64, 8).await;
    bench.push(1, 5);
    let r = || GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let mut new_only = bench.client().get_flows(r()).await.unwrap().into_inner();
    let mut last_two = bench.client().get_flows(GetFlowsRequest { number: 2, ..r() }).await.unwrap().into_inner();
    let mut since = bench.client().get_flows(GetFlowsRequest { since: at(3), ..r() }).await.unwrap().into_inner();
    let some = GetFlowsRequest { whitelist: ports(&["7", "9"]), until: at(8), ..r() };
    let mut some = bench.client().get_flows(some).await.unwrap().into_inner();
    bench.push(6, 2);
    for port in [6, 7] {
        assert_eq!(next(&mut new_only).await, Seen::Flow(port));
    }
    for port in [4, 5, 6, 7] {
        assert_eq!(next(&mut last_two).await, Seen::Flow(port), "number is no limit when following");
    }
    for port in [3, 4, 5, 6, 7] {
        assert_eq!(next(&mut since).await, Seen::Flow(port));
    }
    assert_eq!(next(&mut some).await, Seen::Flow(7));
    bench.push(8, 2);
    for port in [8, 9] {
        assert_eq!(next(&mut new_only).await, Seen::Flow(port));
    }
    assert!(timeout(PATIENCE, some.message()).await.unwrap().unwrap().is_none(), "9 is newer than until");
}

#[tokio::test]
async fn a_slow_reader_is_told_how_much_it_has_lost_and_slows_nobody() {
    let bench = Bench::new(16, 8).await;
    let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let mut stream = bench.client().get_flows(follow).await.unwrap().into_inner();
    // The client reads nothing. The transport takes some, then the ring turns on without it.
    const PUSHED: u64 = 40_000;
    for start in (1..=PUSHED).step_by(1000) {
        bench.push(start, 1000);
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.pipeline.recorded(), PUSHED, "the writer did not wait");
    let (mut expected, mut lost) = (1, 0);
    while expected <= PUSHED {
        match next(&mut stream).await {
            Seen::Flow(port) => {
                assert_eq!(u64::from(port), expected);
                expected += 1;
            }
            Seen::Lost(source, count, cpu) => {
                assert_eq!((source, cpu), (LostEventSource::HubbleRingBuffer, None));
                expected += count;
                lost += count;
            }
        }
    }
    assert!(lost > 0, "a ring of 16 cannot have kept all of them");
    let balance = bench.pipeline.ledger().balance();
    assert_eq!((balance.reader_lost, balance.delivered, balance.filtered), (lost, PUSHED - lost, 0));
    assert!(balance.is_even(), "{balance:?}");
}

#[tokio::test]
async fn losses_in_the_kernel_pass_every_filter_and_are_not_counted() {
    let bench = Bench::new(64, 8).await;
    bench.push(1, 2);
    bench.pipeline.kernel_lost(17, Some(3), fixture::START_UNIX_NS);
    bench.push(3, 1);
    let loss = Seen::Lost(LostEventSource::PerfEventRingBuffer, 17, Some(3));
    let all = bench.ask(GetFlowsRequest::default()).await;
    assert_eq!(all, [Seen::Flow(1), Seen::Flow(2), loss.clone(), Seen::Flow(3)]);
    let filtered = GetFlowsRequest { whitelist: ports(&["2", "3"]), number: 2, since: at(2), ..Default::default() };
    assert_eq!(bench.ask(filtered).await, [Seen::Flow(2), loss, Seen::Flow(3)]);
}

#[tokio::test]
async fn the_ring_keeps_the_newest() {
    let bench = Bench::new(4, 8).await;
    bench.push(1, 10);
    assert_eq!(bench.ask(GetFlowsRequest { number: 100, ..Default::default() }).await, flows(7..=10));
    assert_eq!(bench.ask(GetFlowsRequest { first: true, number: 1, ..Default::default() }).await, flows([7]));
    assert_eq!(bench.ask(GetFlowsRequest { since: at(1), ..Default::default() }).await, flows(7..=10));
}

#[tokio::test]
async fn a_mask_thins_the_flow_and_not_the_envelope() {
    let bench = Bench::new(4, 8).await;
    bench.push(1, 1);
    let paths = vec!["verdict".to_owned()];
    let request = GetFlowsRequest { field_mask: Some(prost_types::FieldMask { paths }), ..Default::default() };
    let mut stream = bench.client().get_flows(request).await.unwrap().into_inner();
    let answer = stream.message().await.unwrap().unwrap();
    assert_eq!((answer.node_name.as_str(), answer.time), ("node-a", at(1)));
    let Some(ResponseTypes::Flow(flow)) = answer.response_types else { panic!("a flow") };
    assert_eq!((flow.verdict(), flow.time, flow.source), (Verdict::Forwarded, None, None));
}

#[tokio::test]
async fn the_extension_is_typed_for_those_who_can_read_it_and_a_struct_for_all_others() {
    let bench = Bench::new(4, 8).await;
    bench.push(1, 1);
    for (extensions, type_url) in [
        (Some(convert::reads_extension()), convert::EXTENSION_TYPE_URL),
        (Some(prost_types::Any::default()), convert::READABLE_TYPE_URL),
        (None, convert::READABLE_TYPE_URL),
    ] {
        let request = GetFlowsRequest { extensions, ..Default::default() };
        let mut stream = bench.client().get_flows(request).await.unwrap().into_inner();
        let Some(ResponseTypes::Flow(flow)) = stream.message().await.unwrap().unwrap().response_types else {
            panic!("a flow")
        };
        assert_eq!(flow.extensions.unwrap().type_url, type_url);
    }
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let bench = Bench::new(4, 8).await;
    let r = GetFlowsRequest::default;
    let filter = FlowFilter { source_ip: vec!["nowhere".to_owned()], ..FlowFilter::default() };
    let paths = vec!["source.colour".to_owned()];
    let time = prost_types::Timestamp { seconds: 1, nanos: -1 };
    for (request, message) in [
        (
            GetFlowsRequest { first: true, follow: true, ..r() },
            "first cannot be combined with follow: use number to say how far back to start",
        ),
        (
            GetFlowsRequest { whitelist: vec![FlowFilter::default(), filter], ..r() },
            "whitelist[1].source_ip[0]: `nowhere` is neither an IP address nor a CIDR such as 10.0.0.0/8",
        ),
        (
            GetFlowsRequest { field_mask: Some(prost_types::FieldMask { paths }), ..r() },
            "field_mask: flow.Flow has no field `source.colour`",
        ),
        (GetFlowsRequest { since: Some(time), ..r() }, "since: 1 s and -1 ns is not a time"),
        (GetFlowsRequest { until: Some(time), ..r() }, "until: 1 s and -1 ns is not a time"),
    ] {
        let status = bench.refused(request).await;
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, message));
    }
    let before_1970 = prost_types::Timestamp { seconds: -5, nanos: 0 };
    bench.push(1, 1);
    assert_eq!(bench.ask(GetFlowsRequest { since: Some(before_1970), ..r() }).await, flows([1]));
}

#[tokio::test]
async fn a_request_too_large_is_refused_and_the_server_lives() {
    let bench = Bench::new(4, 8).await;
    let huge = FlowFilter { source_pod: vec!["x".repeat(MAX_REQUEST_BYTES)], ..FlowFilter::default() };
    let status = bench.refused(GetFlowsRequest { whitelist: vec![huge], ..Default::default() }).await;
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert_eq!(bench.ask(GetFlowsRequest::default()).await, []);
}

#[tokio::test]
async fn readers_beyond_the_limit_are_refused_until_one_leaves() {
    let bench = Bench::new(4, 2).await;
    let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let one = bench.client().get_flows(follow.clone()).await.unwrap();
    let _two = bench.client().get_flows(follow.clone()).await.unwrap();
    let status = bench.refused(follow.clone()).await;
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "2 clients read flows already; end one of them");
    drop(one);
    let again = async {
        while bench.client().get_flows(follow.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("a place is free again");
    assert!(bench.pipeline.ledger().balance().readers_refused >= 1);
}

#[tokio::test]
async fn status_nodes_and_namespaces_tell_of_this_node() {
    let bench = Bench::new(4, 8).await;
    let now = WallClock::new(fixture::START_NS, unix_ns());
    for _ in 0..6 {
        bench.pipeline.push(&fixture::denied(), now, &bench.world).unwrap();
    }
    let status = bench.client().server_status(ServerStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.num_flows, status.max_flows, status.seen_flows), (4, 4, 6));
    assert_eq!((status.num_connected_nodes, status.num_unavailable_nodes), (Some(1), Some(0)));
    assert_eq!(status.version, "bulkhead v0");
    assert!(status.uptime_ns > 0 && status.flows_rate > 0.0, "{status:?}");

    let nodes = bench.client().get_nodes(GetNodesRequest {}).await.unwrap().into_inner().nodes;
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].name.as_str(), nodes[0].state()), ("node-a", NodeState::NodeConnected));
    assert_eq!((nodes[0].address.as_str(), nodes[0].seen_flows), ("unix:///api.sock", 6));

    let namespaces = bench.client().get_namespaces(GetNamespacesRequest {}).await.unwrap().into_inner().namespaces;
    let names: Vec<_> = namespaces.iter().map(|n| (n.cluster.as_str(), n.namespace.as_str())).collect();
    assert_eq!(names, [("default", "other"), ("default", "shop")]);
}

#[tokio::test]
async fn the_flow_rate_is_that_of_the_last_minute() {
    let bench = Bench::new(1000, 8).await;
    let rate = async || bench.client().server_status(ServerStatusRequest {}).await.unwrap().into_inner().flows_rate;
    assert_eq!(rate().await, 0.0);
    let now = unix_ns();
    for (age_s, count) in [(3600, 500), (30, 120)] {
        let clock = WallClock::new(fixture::START_NS, now - age_s * 1_000_000_000);
        for _ in 0..count {
            bench.pipeline.push(&fixture::opened(), clock, &bench.world).unwrap();
        }
    }
    assert_eq!(rate().await, 2.0, "120 in a minute, the 500 of an hour ago not counted");
}

#[tokio::test]
async fn health_knows_the_names_that_clients_ask_for() {
    let bench = Bench::new(4, 8).await;
    let mut client = HealthClient::new(bench.channel.clone());
    for service in ["", "hubble.server.Observer", "observer.Observer"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        assert_eq!(client.check(request).await.unwrap().into_inner().status(), ServingStatus::Serving, "{service}");
    }
    let unknown = HealthCheckRequest { service: "other".to_owned() };
    assert_eq!(client.check(unknown.clone()).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(unknown).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert!(timeout(Duration::from_millis(50), watch.message()).await.is_err(), "stays open");
}

#[tokio::test]
async fn the_only_peer_is_this_node() {
    let bench = Bench::new(4, 8).await;
    let mut peers = PeerClient::new(bench.channel.clone()).notify(NotifyRequest {}).await.unwrap().into_inner();
    let peer = peers.message().await.unwrap().unwrap();
    assert_eq!((peer.name.as_str(), peer.address.as_str()), ("node-a", "unix:///api.sock"));
    assert_eq!((peer.r#type(), peer.tls), (ChangeNotificationType::PeerAdded, None));
    assert!(timeout(Duration::from_millis(50), peers.message()).await.is_err(), "stays open");
}

#[tokio::test]
async fn agent_and_debug_events_are_empty_streams() {
    let bench = Bench::new(4, 8).await;
    let mut client = bench.client();
    let mut agent = client.get_agent_events(GetAgentEventsRequest::default()).await.unwrap().into_inner();
    assert!(agent.message().await.unwrap().is_none());
    let mut debug = client.get_debug_events(GetDebugEventsRequest::default()).await.unwrap().into_inner();
    assert!(debug.message().await.unwrap().is_none());
    let follow = GetAgentEventsRequest { follow: true, ..Default::default() };
    let mut agent = client.get_agent_events(follow).await.unwrap().into_inner();
    assert!(timeout(Duration::from_millis(50), agent.message()).await.is_err(), "stays open");
    let both = GetDebugEventsRequest { follow: true, first: true, ..Default::default() };
    assert_eq!(client.get_debug_events(both).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn closing_ends_every_stream_so_that_the_server_can_shut_down() {
    let mut bench = Bench::new(4, 8).await;
    let follow = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let mut flows = bench.client().get_flows(follow.clone()).await.unwrap().into_inner();
    let mut peers = PeerClient::new(bench.channel.clone()).notify(NotifyRequest {}).await.unwrap().into_inner();
    assert!(peers.message().await.unwrap().is_some());
    bench.observer.close();
    assert!(timeout(PATIENCE, flows.message()).await.unwrap().unwrap().is_none());
    assert!(timeout(PATIENCE, peers.message()).await.unwrap().unwrap().is_none());
    let mut late = bench.client().get_flows(follow).await.unwrap().into_inner();
    assert!(timeout(PATIENCE, late.message()).await.unwrap().unwrap().is_none());
    bench.stop.take().unwrap().send(()).unwrap();
    let server = bench.server.take().unwrap();
    timeout(PATIENCE, server).await.expect("the server ends").unwrap().unwrap();
}

#[tokio::test]
async fn a_relay_is_told_of_nodes_that_come_move_and_go() {
    let node = |address: &str| PeerNode { address: address.to_owned(), server_name: Some("b.default.x".to_owned()) };
    let (sender, receiver) = watch::channel(Peers::from([("a".to_owned(), node("10.0.0.1:4244"))]));
    let bench = Bench::new(4, 8).await;
    let observer = bench.observer.clone().with_peers(receiver);
    let mut told = peer_server::Peer::notify(&observer, Request::new(NotifyRequest {})).await.unwrap().into_inner();
    let mut next = async || {
        let news = timeout(PATIENCE, told.next()).await.expect("news").unwrap().unwrap();
        assert_eq!(news.tls.as_ref().map(|tls| tls.server_name.as_str()), Some("b.default.x"));
        (news.r#type(), news.name, news.address)
    };
    let at = |name: &str, address: &str| (name.to_owned(), address.to_owned());
    let with = |kind, (name, address)| (kind, name, address);
    assert_eq!(next().await, with(ChangeNotificationType::PeerAdded, at("a", "10.0.0.1:4244")));
    // The address of one that is gone is another's now.
    sender.send_replace(Peers::from([("b".to_owned(), node("10.0.0.1:4244"))]));
    assert_eq!(next().await, with(ChangeNotificationType::PeerDeleted, at("a", "10.0.0.1:4244")));
    assert_eq!(next().await, with(ChangeNotificationType::PeerAdded, at("b", "10.0.0.1:4244")));
    sender.send_replace(Peers::from([("b".to_owned(), node("10.0.0.2:4244"))]));
    assert_eq!(next().await, with(ChangeNotificationType::PeerUpdated, at("b", "10.0.0.2:4244")));
}
