//! The daemon's answers as own types: enums that cannot be wrong, nothing optional that is
//! always there. Both the tables and `-o json` are made from these, and their serde names are
//! the documented JSON. A value that a newer daemon knows and we do not becomes `unknown`.

pub(crate) mod counters;
pub(crate) mod endpoint;
pub(crate) mod explain;
pub(crate) mod flow_stats;
pub(crate) mod identity;
pub(crate) mod policy;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod top;

use std::{collections::BTreeMap, fmt};

use proto::bulkhead::admin::v1 as pb;
use serde::Serialize;

/// Labels, sorted by key.
pub(crate) type Labels = BTreeMap<String, String>;

/// Labels from the wire.
fn labels(labels: Vec<pb::Label>) -> Labels {
    labels.into_iter().map(|pb::Label { key, value }| (key, value)).collect()
}

/// Labels as text: `app=web,tier=front`.
pub(crate) fn labels_text(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// Names an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub(crate) struct Object {
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl From<pb::ObjectRef> for Object {
    fn from(pb::ObjectRef { kind, namespace, name }: pb::ObjectRef) -> Self {
        Self { kind, namespace, name }
    }
}

impl Object {
    /// Without its kind, which is said elsewhere: `shop/db`.
    pub(crate) fn path(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

/// `shop/db` for a NetworkPolicy, by far the commonest; any other kind is named.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.as_str() {
            "NetworkPolicy" | "" => f.write_str(&self.path()),
            kind => write!(f, "{kind} {}", self.path()),
        }
    }
}

/// Objects as text: `shop/a, shop/b`.
pub(crate) fn objects_text(objects: &[Object]) -> String {
    let names: Vec<String> = objects.iter().map(Object::to_string).collect();
    names.join(", ")
}

/// Policy direction, seen from the pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Egress,
    Ingress,
    Unknown,
}

impl Direction {
    /// From the wire.
    fn of(number: i32) -> Self {
        match pb::Direction::try_from(number) {
            Ok(pb::Direction::Egress) => Self::Egress,
            Ok(pb::Direction::Ingress) => Self::Ingress,
            Ok(pb::Direction::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Unknown => "unknown",
        })
    }
}

/// What rules say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Allow,
    Deny,
    Pass,
    Unknown,
}

impl Verdict {
    /// From the wire.
    fn of(number: i32) -> Self {
        match pb::Verdict::try_from(number) {
            Ok(pb::Verdict::Allow) => Self::Allow,
            Ok(pb::Verdict::Deny) => Self::Deny,
            Ok(pb::Verdict::Pass) => Self::Pass,
            Ok(pb::Verdict::Unspecified) | Err(_) => Self::Unknown,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Pass => "pass",
            Self::Unknown => "unknown",
        })
    }
}

/// A workload that owns pods.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Workload {
    pub(crate) kind: String,
    pub(crate) name: String,
}

impl From<pb::Workload> for Workload {
    fn from(pb::Workload { kind, name }: pb::Workload) -> Self {
        Self { kind, name }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// Names one rule of one policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Rule {
    pub(crate) policy: Object,
    pub(crate) direction: Direction,
    pub(crate) index: u32,
    /// 0: the kernel has none for it at present.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) cookie: u32,
}

impl From<pb::RuleRef> for Rule {
    fn from(pb::RuleRef { policy, direction, index, cookie }: pb::RuleRef) -> Self {
        Self { policy: policy.unwrap_or_default().into(), direction: Direction::of(direction), index, cookie }
    }
}

/// `shop/db ingress[0]`
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}[{}]", self.policy, self.direction, self.index)
    }
}

/// Where an object was read from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Origin {
    pub(crate) file: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) document: u32,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) line: u32,
}

impl Origin {
    /// From the wire; none if it says nothing.
    fn of(origin: Option<pb::Origin>) -> Option<Self> {
        let pb::Origin { file, document, line } = origin?;
        (!file.is_empty()).then_some(Self { file, document, line })
    }
}

/// `db.yaml:14 (document 2)`: the colon form is what editors and terminals understand.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.document > 1 { write!(f, " (document {})", self.document) } else { Ok(()) }
    }
}

/// A pod by its name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl From<pb::PodName> for PodName {
    fn from(pb::PodName { namespace, name }: pb::PodName) -> Self {
        Self { namespace, name }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// For serde: leave out numbers that mean "none".
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Turns a list from the wire into own types.
fn all<T, U: From<T>>(list: Vec<T>) -> Vec<U> {
    list.into_iter().map(U::from).collect()
}
