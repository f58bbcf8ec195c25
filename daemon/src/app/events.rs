//! Tells the cluster what stands wrong: looks at the state as `bulkhead status` shows it, and has each thing shown with the
//! object that it is about, as a Kubernetes Event.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use objects::Kind;
use proto::bulkhead::admin::v1 as pb;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::{admin::AdminService, run::stopped};
use crate::source::kubernetes::{
    Kubernetes,
    events::{Notice, Subject},
};

/// Pause between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// What still stands is told again after this, and appears again once the server has forgotten it.
const AGAIN: Duration = Duration::from_secs(600);
/// Told in one look at most; the rest in the next ones. A cluster's worth of mistakes must not become a flood.
const MAX_AT_ONCE: usize = 20;

/// Looks and tells until `stop` turns true.
pub(super) async fn tell(
    admin: AdminService,
    kubernetes: Arc<Kubernetes>,
    node: String,
    mut stop: watch::Receiver<bool>,
) {
    let mut told: BTreeMap<Subject, Instant> = BTreeMap::new();
    let mut away = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stopped(&mut stop) => return,
        }
        let standing = match admin.status_now().await {
            Ok(status) => notices(&node, &status),
            Err(reason) => {
                debug!(%reason, "What stands wrong could not be looked at");
                continue;
            }
        };
        told.retain(|subject, when| standing.contains_key(subject) && when.elapsed() < AGAIN);
        let new: Vec<_> = standing.into_iter().filter(|(subject, _)| !told.contains_key(subject)).collect();
        for (subject, note) in new.into_iter().take(MAX_AT_ONCE) {
            let notice = Notice { subject, note };
            match kubernetes.tell(&node, &notice).await {
                Ok(()) => {
                    away = false;
                    told.insert(notice.subject, Instant::now());
                }
                Err(error) => {
                    if !away {
                        warn!(%error, "The cluster could not be told what stands wrong; tried again");
                    }
                    away = true;
                    break;
                }
            }
        }
    }
}

/// Conditions that are told with the objects that they are about, or go by themselves while the agent starts.
const NOT_THE_NODES: [&str; 3] = ["source-errors", "rules-refused", "source-not-synced"];

/// What there is to tell. Conditions are the node's; refused policies and rules those of the objects.
fn notices(node: &str, status: &pb::StatusResponse) -> BTreeMap<Subject, String> {
    let worth =
        |it: &&pb::Condition| it.severity >= pb::Severity::Warning as i32 && !NOT_THE_NODES.contains(&it.code.as_str());
    let of_node = status.conditions.iter().filter(worth).map(|condition| {
        let reason = camel_case(&condition.code);
        let subject =
            Subject { kind: Kind::Node, namespace: None, name: node.to_owned(), reason, about: String::new() };
        (subject, sentence(&[&condition.message, &condition.fix]))
    });
    let errors = status.source.iter().flat_map(|source| &source.errors).filter_map(|error| {
        let what =
            if error.field.is_empty() { error.message.clone() } else { format!("{}: {}", error.field, error.message) };
        let meanwhile = match (error.denied_meanwhile, error.last_good_in_force) {
            (true, _) => "until then what it selects is denied",
            (_, true) => "the last good version stays in force",
            _ => "",
        };
        let note = sentence(&[&what, &error.fix, meanwhile]);
        Some((subject(error.object.as_ref()?, "NotInForce", what)?, note))
    });
    let refusals = status.refusals.iter().filter_map(|refusal| {
        let note = sentence(&[&refusal.reason, &refusal.fix, &refusal.meanwhile]);
        Some((subject(refusal.object.as_ref()?, "RulesRefused", refusal.direction.to_string())?, note))
    });
    of_node.chain(errors).chain(refusals).collect()
}

fn subject(object: &pb::ObjectRef, reason: &str, about: String) -> Option<Subject> {
    let pb::ObjectRef { kind, namespace, name } = object;
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
    let namespace = Some(namespace.clone()).filter(|namespace| !namespace.is_empty());
    let named = !name.is_empty();
    named.then(|| Subject { kind, namespace, name: name.clone(), reason: reason.to_owned(), about })
}

/// `pool-exhausted`, as Events write it: `PoolExhausted`.
fn camel_case(code: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_ascii_uppercase() + rest
    };
    code.split('-').map(word).collect()
}

/// What is wrong, what to do, what holds meanwhile, as far as there is something to say.
fn sentence(parts: &[&str]) -> String {
    parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: &pb::StatusResponse) -> Vec<String> {
        let line = |(subject, note): (Subject, String)| {
            let Subject { kind, namespace, name, reason, about: _ } = subject;
            let namespace = namespace.map(|namespace| namespace + "/").unwrap_or_default();
            format!("{} {namespace}{name}: {reason}: {note}", kind.as_str())
        };
        notices("n1", status).into_iter().map(line).collect()
    }

    fn condition(severity: pb::Severity, code: &str, message: &str) -> pb::Condition {
        let (code, message, fix) = (code.to_owned(), message.to_owned(), "mend it".to_owned());
        pb::Condition { severity: severity.into(), code, message, fix }
    }

    fn object(kind: &str, namespace: &str, name: &str) -> Option<pb::ObjectRef> {
        Some(pb::ObjectRef { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() })
    }

    #[test]
    fn each_thing_is_told_with_the_object_that_it_is_about() {
        let refused = pb::SourceError {
            object: object("NetworkPolicy", "shop", "db"),
            field: "spec.ingress".to_owned(),
            message: "is no list".to_owned(),
            fix: "write a list".to_owned(),
            denied_meanwhile: true,
            ..pb::SourceError::default()
        };
        let status = pb::StatusResponse {
            conditions: vec![
                condition(pb::Severity::Error, "pool-exhausted", "no addresses"),
                condition(pb::Severity::Info, "endpoint-without-object", "no labels"),
                condition(pb::Severity::Error, "source-errors", "1 thing is refused"),
            ],
            source: Some(pb::Source {
                errors: vec![
                    refused.clone(),
                    pb::SourceError {
                        object: object("ClusterNetworkPolicy", "", "all"),
                        field: String::new(),
                        denied_meanwhile: false,
                        last_good_in_force: true,
                        ..refused.clone()
                    },
                    pb::SourceError { object: None, ..refused.clone() },
                    pb::SourceError { object: object("Widget", "shop", "db"), ..refused },
                ],
                ..pb::Source::default()
            }),
            refusals: vec![pb::Refusal {
                object: object("Pod", "shop", "db"),
                reason: "too many".to_owned(),
                meanwhile: "the old ones stay".to_owned(),
                ..pb::Refusal::default()
            }],
            ..pb::StatusResponse::default()
        };
        assert_eq!(
            told(&status),
            [
                "Pod shop/db: RulesRefused: too many; the old ones stay",
                "Node n1: PoolExhausted: no addresses; mend it",
                "NetworkPolicy shop/db: NotInForce: spec.ingress: is no list; write a list; until then what it selects is denied",
                "ClusterNetworkPolicy all: NotInForce: is no list; write a list; the last good version stays in force",
            ]
        );
    }

    #[test]
    fn a_count_that_grows_is_no_news() {
        let status = |count: u32| pb::StatusResponse {
            conditions: vec![condition(pb::Severity::Warning, "conntrack-full", &format!("{count} connections"))],
            ..pb::StatusResponse::default()
        };
        let subjects = |count| notices("n1", &status(count)).into_keys().collect::<Vec<_>>();
        assert_eq!(subjects(1), subjects(2));
    }
}
