//! What is read of one object, and what becomes of watches that break off.

use std::{collections::VecDeque, convert::Infallible, future::pending};

use http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

fn element(spec: serde_json::Value) -> DynamicObject {
    let meta = json!({"name": "p", "namespace": "a", "uid": "1", "managedFields": [{"manager": "kubectl"}]});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).expect("an object")
}

#[test]
fn an_element_of_a_list_does_not_say_what_it_is_and_is_read_all_the_same() {
    let read = network_policy(&element(json!({"podSelector": {}, "policyTypes": ["Ingress"]})));
    assert!(matches!(read, Ok(Object::NetworkPolicy(_))), "{read:?}");
}

#[test]
fn a_field_that_we_do_not_know_is_refused_and_not_passed_over() {
    let read = network_policy(&element(json!({"podSelector": {}, "onlyOnSundays": true})));
    let Unread { problems, closed } = read.expect_err("refused");
    assert!(problems.iter().any(|problem| problem.to_string().contains("onlyOnSundays")), "{problems:?}");
    let Some(Object::NetworkPolicy(closed)) = closed.map(|object| *object) else { panic!("it selects everybody") };
    assert_eq!((closed.ingress, closed.egress), (Some(Vec::new()), Some(Vec::new())));
}

/// What the server answers to one question about Namespaces; whether it is a list or a watch is asserted.
enum Answer {
    List(&'static [&'static str], u32),
    /// From this version on; these lines, and then the end.
    Watch(u32, Vec<Value>),
    /// The same, refused by status.
    Refused(u32, StatusCode),
}

fn of_name(name: &str, version: u32) -> Value {
    let metadata = json!({"name": name, "uid": name, "resourceVersion": version.to_string()});
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": metadata})
}

fn list(items: &[Value], version: u32) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version.to_string()}, "items": items})
}

/// As an API server words it (kubernetes/apimachinery, `NewResourceExpired`).
fn expired() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version: 6 (40)"})
}

/// An API server that has Namespaces and nothing else, and is silent when its answers are used up.
fn server(answers: Vec<Answer>) -> Client {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let service = tower::service_fn(move |request: Request<Body>| {
        let answers = answers.clone();
        async move {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let watches = query.contains("watch=true");
            if request.uri().path() != "/api/v1/namespaces" {
                let none = list(&[], 1).to_string().into_bytes();
                return if watches { pending().await } else { Ok(Response::new(Body::from(none))) };
            }
            let next = answers.lock().unwrap().pop_front();
            let from = |version: u32| {
                assert!(watches && query.contains(&format!("resourceVersion={version}")), "{query}");
            };
            let mut response = Response::new(Body::empty());
            *response.body_mut() = match next {
                None => pending().await,
                Some(Answer::List(names, version)) => {
                    assert!(!watches, "{query}");
                    let items: Vec<Value> = names.iter().map(|name| of_name(name, 1)).collect();
                    Body::from(list(&items, version).to_string().into_bytes())
                }
                Some(Answer::Watch(version, lines)) => {
                    from(version);
                    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                    Body::from(text.into_bytes())
                }
                Some(Answer::Refused(version, status)) => {
                    from(version);
                    *response.status_mut() = status;
                    Body::from(expired().to_string().into_bytes())
                }
            };
            Ok::<_, Infallible>(response)
        }
    });
    Client::new(service, "default")
}

/// One by one, as far as it is about a Namespace or the source.
fn words(event: SourceEvent) -> Option<String> {
    Some(match event {
        SourceEvent::Apply(Object::Namespace(namespace), _) => format!("+{}", namespace.name()),
        SourceEvent::Delete(key) => format!("-{key:?}").replace("Namespace(\"", "").replace("\")", ""),
        SourceEvent::Error(error) => format!("trouble with {}", error.place),
        SourceEvent::Resolved(error) => format!("no trouble with {}", error.place),
        SourceEvent::Synced => "synced".to_owned(),
        _ => return None,
    })
}

#[tokio::test(start_paused = true)]
async fn a_version_that_the_server_has_forgotten_costs_nothing_but_a_list() {
    let event = |kind: &str, object: Value| json!({"type": kind, "object": object});
    let client = server(vec![
        Answer::List(&["a", "b"], 5),
        // A watch that ends goes on where it was.
        Answer::Watch(5, vec![event("ADDED", of_name("c", 6))]),
        // The server tells in the watch that this is too old: meanwhile a and c have gone, and d has come.
        Answer::Watch(6, vec![event("ERROR", expired())]),
        Answer::List(&["b", "d"], 50),
        // It tells so by refusing the watch: meanwhile b has gone.
        Answer::Refused(50, StatusCode::GONE),
        Answer::List(&["d"], 60),
        Answer::Watch(60, vec![event("ADDED", of_name("e", 61))]),
    ]);
    let (_source, mut events) = Kubernetes::watch(client);
    let mut said = Vec::new();
    while said.last().is_none_or(|last| last != "+e") {
        let batch = tokio::time::timeout(Duration::from_secs(600), events.recv()).await;
        said.extend(batch.unwrap_or_else(|_| panic!("silence after {said:?}")).unwrap().into_iter().filter_map(words));
    }
    let place = "trouble with API server, Namespace";
    let no_more = format!("no {place}");
    assert_eq!(
        said,
        ["+a", "+b", "synced", "+c", place, &no_more, "+d", "-a", "-c", place, &no_more, "-b", "+e"],
        "nothing goes before the list that does not name it is complete"
    );
}
