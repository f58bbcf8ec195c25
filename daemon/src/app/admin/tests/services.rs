//! `ListServices`.

use objects::{Outcome, parse_documents};

use super::*;

const OBJECTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIPs: ["10.96.0.10"], ports: [{name: pg, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: pods, namespace: shop}
spec: {clusterIP: None, clusterIPs: [None], ports: [{port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: idle, namespace: dev}
spec: {clusterIPs: ["10.96.0.11"], ports: [{port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: zweite, namespace: shop}
spec: {clusterIPs: ["10.96.0.10"], ports: [{port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: pg, port: 5433}]
endpoints:
  - {addresses: ["10.88.0.3"], conditions: {ready: true}}
  - {addresses: ["10.99.0.3"], conditions: {ready: true}}
  - {addresses: ["10.99.0.9"], conditions: {ready: false}}
"#;

fn node() -> Node {
    let node = shop();
    {
        let state = &mut *node.state();
        for document in parse_documents("services.yaml", OBJECTS.as_bytes()) {
            let Outcome::Object(object) = document.outcome else { panic!("{document:?}") };
            state.services.index.apply(*object);
        }
        let _ = state.services.index.plan();
    }
    node
}

async fn ask(node: &Node, namespace: &str, name: &str) -> Result<Vec<pb::Service>, Status> {
    let request = pb::ListServicesRequest { namespace: namespace.to_owned(), name: name.to_owned() };
    Ok(node.service().list_services(Request::new(request)).await?.into_inner().services)
}

/// One line for a Service and one for each of its ports.
fn lines(services: &[pb::Service]) -> Vec<String> {
    let mut lines = Vec::new();
    for service in services {
        lines.push(format!("{}/{} {} {}", service.namespace, service.name, service.r#type, service.nowhere));
        for port in &service.ports {
            let backends = port.backends.iter().map(|backend| {
                let pod = backend.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name));
                let state = pb::BackendState::try_from(backend.state).unwrap().as_str_name();
                let here = if backend.here { " here" } else { "" };
                format!("{}:{} {state} {}{here}", backend.ip, backend.port, pod.unwrap_or_default())
            });
            let backends: Vec<String> = backends.collect();
            let state = pb::PortState::try_from(port.state).unwrap().as_str_name();
            lines.push(format!(
                "  {} {}:{} {} {state} {}[{}]",
                port.name,
                port.ip,
                port.port,
                port.protocol,
                port.taken_by,
                backends.join(", ")
            ));
        }
    }
    lines
}

#[tokio::test]
async fn services_tell_where_they_stand_and_who_serves() {
    let node = node();
    let all = lines(&ask(&node, "", "").await.unwrap());
    assert_eq!(
        all,
        [
            "dev/idle ClusterIP ",
            "   10.96.0.11:53 udp PORT_STATE_NO_BACKEND []",
            "shop/db ClusterIP ",
            "  pg 10.96.0.10:5432 tcp PORT_STATE_IN_FORCE [10.88.0.3:5433 BACKEND_STATE_READY shop/db-0 here, \
             10.99.0.3:5433 BACKEND_STATE_READY shop/web-1, 10.99.0.9:5433 BACKEND_STATE_NOT_READY ]",
            "shop/pods ClusterIP it is headless: its name stands for the backends themselves",
            "shop/zweite ClusterIP ",
            "   10.96.0.10:5432 tcp PORT_STATE_TAKEN shop/db[]",
        ]
    );
    let of_dev = ask(&node, "dev", "").await.unwrap();
    assert_eq!(of_dev.len(), 1);
    let one = ask(&node, "shop", "db").await.unwrap();
    assert_eq!(one.iter().map(|service| service.name.as_str()).collect::<Vec<_>>(), ["db"]);
    assert!(ask(&node, "nowhere", "").await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_there_is_an_error_that_says_so() {
    let node = node();
    let missing = ask(&node, "shop", "gone").await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);
    assert!(missing.message().contains("shop/gone"), "{missing}");
    for (namespace, name) in [("", "db"), ("a b", ""), ("shop", "a/b")] {
        let refused = ask(&node, namespace, name).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{namespace:?} {name:?}");
    }
    node.state().synced = false;
    assert_eq!(ask(&node, "shop", "db").await.unwrap_err().code(), tonic::Code::Unavailable);
}
