//! Kubernetes Events: what the agent has to say of an object, where `kubectl get events` shows it.
//!
//! An Event has a name made of what it says. So telling it again while the last one is there does nothing (the server keeps
//! Events for an hour unless it is told otherwise), and of all the nodes that refuse one policy, one tells.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use objects::Kind;

use super::{AskError, Kubernetes, ask};

/// Who says so, as a qualified name (Event v1, `reportingController`).
const CONTROLLER: &str = "bulkhead";
/// What it was doing (Event v1, `action`).
const ACTION: &str = "Enforce";
/// Where Events about objects without a namespace are.
const DEFAULT_NAMESPACE: &str = "default";
/// Bytes of `note` at most (Event v1).
const MAX_NOTE: usize = 1024;
/// Bytes of an object's name that go into an Event's, which may have 253 (RFC 1123 subdomain), with a dot and sixteen digits.
const MAX_NAME: usize = 236;

/// What makes one notice another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Subject {
    /// Kind of the object that it is about.
    pub kind: Kind,
    /// Its namespace, if it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// A word for programs, e.g. `PoolExhausted`.
    pub reason: String,
    /// What else tells it from others of the same reason.
    pub about: String,
}

/// Something to tell about an object: of what, and in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// What it is about.
    pub subject: Subject,
    /// In words, which may change while it stands.
    pub note: String,
}

impl Kubernetes {
    /// Has a warning shown about an object. Nothing happens if it is there already, or the namespace is gone.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub async fn tell(&self, node: &str, notice: &Notice) -> Result<(), AskError> {
        let subject = &notice.subject;
        let what = || format!("an Event about {} {}", subject.kind.as_str(), subject.name);
        let event = event(node, notice);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &event).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() || status.is_not_found() => Ok(()),
            answer => ask(answer, what).map(drop),
        }
    }
}

fn event(node: &str, notice: &Notice) -> Event {
    let Notice { subject: Subject { kind, namespace, name, reason, about }, note } = notice;
    // The same on every node; another one after an update of the agents would only be told once more.
    let mut hasher = DefaultHasher::new();
    (kind.as_str(), namespace, name, reason, about).hash(&mut hasher);
    let event = format!("{}.{:016x}", cut(name, MAX_NAME).trim_end_matches(['.', '-']), hasher.finish());
    Event {
        metadata: ObjectMeta {
            name: Some(event),
            namespace: Some(namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(Timestamp::now())),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(node, 128).to_owned()),
        action: Some(ACTION.to_owned()),
        reason: Some(reason.clone()),
        type_: Some("Warning".to_owned()),
        note: Some(cut(note, MAX_NOTE).to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(kind.api_version().to_owned()),
            kind: Some(kind.as_str().to_owned()),
            namespace: namespace.clone(),
            name: Some(name.clone()),
            // The kubelet names Nodes so in its Events, and `kubectl describe` looks for that. For others we have no UID,
            // nor any other need to know it: `kubectl get events` shows theirs.
            uid: (*kind == Kind::Node).then(|| name.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// At most so many bytes of a text.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(namespace: Option<&str>, about: &str) -> Notice {
        let subject = Subject {
            kind: Kind::NetworkPolicy,
            namespace: namespace.map(str::to_owned),
            name: "n".repeat(253),
            reason: "NotInForce".to_owned(),
            about: about.to_owned(),
        };
        Notice { subject, note: format!("-{}", "ä".repeat(MAX_NOTE)) }
    }

    #[test]
    fn all_nodes_give_the_same_event_the_same_name_and_other_events_others() {
        let name = |node: &str, notice: &Notice| event(node, notice).metadata.name;
        let one = notice(Some("shop"), "a");
        assert_eq!(name("n1", &one), name("n2", &one));
        assert_ne!(name("n1", &one), name("n1", &notice(Some("work"), "a")));
        assert_ne!(name("n1", &one), name("n1", &notice(Some("shop"), "b")));
    }

    #[test]
    fn what_the_server_limits_is_kept_within() {
        let event = event(&"n".repeat(253), &notice(None, "a"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(event.metadata.name.map(|name| name.len()), Some(MAX_NAME + 17));
        assert_eq!(event.note.map(|note| note.len()), Some(MAX_NOTE - 1));
        assert_eq!(event.reporting_instance.map(|instance| instance.len()), Some(128));
    }
}
