//! The service as clients meet it: over a unix socket.

use proto::bulkhead::admin::v1::admin_client::AdminClient;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Code,
    transport::{Channel, Endpoint, Server},
};

use super::*;

/// A server, and a client of it. The server ends with the test's runtime.
async fn served(node: &Node) -> (AdminClient<Channel>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let incoming = UnixListenerStream::new(UnixListener::bind(&path).unwrap());
    let router = Server::builder().add_service(node.service().into_service());
    tokio::spawn(router.serve_with_incoming(incoming));
    let endpoint = Endpoint::try_from(format!("unix://{}", path.display())).unwrap();
    (AdminClient::new(endpoint.connect().await.unwrap()), folder)
}

#[tokio::test]
async fn answers_and_refusals_travel() {
    let node = shop();
    let (mut client, _folder) = served(&node).await;
    assert_eq!(client.status(pb::StatusRequest {}).await.unwrap().into_inner().node, "node-a");
    let mut entries = client.dump_maps(pb::DumpMapsRequest::default()).await.unwrap().into_inner();
    let mut count = 0;
    while entries.message().await.unwrap().is_some() {
        count += 1;
    }
    assert!(count > 20, "{count}");
    let refused = client.get_endpoint(pb::GetEndpointRequest { which: None }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_request_of_a_megabyte_is_not_read() {
    let node = shop();
    let (mut client, _folder) = served(&node).await;
    let namespace = "a".repeat(1 << 20);
    let refused = client.list_endpoints(pb::ListEndpointsRequest { namespace }).await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused:?}");
    assert!(client.status(pb::StatusRequest {}).await.is_ok());
}

#[tokio::test]
async fn many_askers_are_served_in_turn() {
    let node = shop();
    let (client, _folder) = served(&node).await;
    let askers = (0..50).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { client.list_policies(pb::ListPoliciesRequest::default()).await.map(|_| ()) })
    });
    for asker in askers.collect::<Vec<_>>() {
        asker.await.unwrap().unwrap();
    }
}
