//! What would happen to a connection, and why.

use std::fmt;

use proto::bulkhead::admin::v1 as pb;
use serde::Serialize;

use super::{Direction, Labels, Object, PodName, Rule, Verdict, Workload, all, labels};

/// The whole answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Explanation {
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
    pub(crate) source: Party,
    pub(crate) destination: Party,
    pub(crate) protocol: String,
    pub(crate) port: u32,
    pub(crate) directions: Vec<DirectionExplained>,
    pub(crate) notes: Vec<String>,
}

impl From<pb::ExplainResponse> for Explanation {
    fn from(wire: pb::ExplainResponse) -> Self {
        let pb::ExplainResponse { source, destination, protocol, port, verdict, reason, directions, notes } = wire;
        Self {
            verdict: Verdict::of(verdict),
            reason,
            source: source.unwrap_or_default().into(),
            destination: destination.unwrap_or_default().into(),
            protocol,
            port,
            directions: all(directions),
            notes,
        }
    }
}

/// One end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Party {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) pod: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workload: Option<Workload>,
    pub(crate) ip: String,
    pub(crate) identity: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reserved_name: String,
    pub(crate) labels: Labels,
    pub(crate) local: bool,
}

impl From<pb::ExplainedParty> for Party {
    fn from(wire: pb::ExplainedParty) -> Self {
        let pb::ExplainedParty { namespace, pod, workload, ip, identity, reserved_name, labels: own, local } = wire;
        Self {
            namespace,
            pod,
            workload: workload.map(Workload::from),
            ip,
            identity,
            reserved_name,
            labels: labels(own),
            local,
        }
    }
}

/// A pod by name, anything else by address: `shop/web-0`, `192.0.2.1`.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.pod, &*self.ip) {
            ("", "") => f.write_str(&self.reserved_name),
            ("", ip) => f.write_str(ip),
            (pod, _) => write!(f, "{}/{pod}", self.namespace),
        }
    }
}

/// One direction's part in the verdict.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct DirectionExplained {
    pub(crate) direction: Direction,
    pub(crate) pod: PodName,
    pub(crate) isolated: bool,
    pub(crate) isolated_by: Vec<Object>,
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
    pub(crate) deciding: Option<Rule>,
    pub(crate) considered: Vec<Considered>,
    pub(crate) enforced_here: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) staged: Option<Staged>,
    pub(crate) text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) instead: String,
}

/// A direction as it would be if the staged policies were enforced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Staged {
    pub(crate) verdict: Verdict,
    pub(crate) reason: String,
    pub(crate) deciding: Option<Rule>,
    pub(crate) considered: Vec<Considered>,
}

impl From<pb::StagedExplained> for Staged {
    fn from(pb::StagedExplained { verdict, reason, deciding, considered }: pb::StagedExplained) -> Self {
        Self { verdict: Verdict::of(verdict), reason, deciding: deciding.map(Rule::from), considered: all(considered) }
    }
}

impl From<pb::DirectionExplained> for DirectionExplained {
    fn from(wire: pb::DirectionExplained) -> Self {
        let pb::DirectionExplained {
            direction,
            pod,
            isolated,
            isolated_by,
            verdict,
            reason,
            deciding,
            considered,
            enforced_here,
            staged,
            text,
            instead,
        } = wire;
        Self {
            direction: Direction::of(direction),
            pod: pod.unwrap_or_default().into(),
            isolated,
            isolated_by: all(isolated_by),
            verdict: Verdict::of(verdict),
            reason,
            deciding: deciding.map(Rule::from),
            considered: all(considered),
            enforced_here,
            staged: staged.map(Staged::from),
            text,
            instead,
        }
    }
}

/// One rule, and what it had to say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Considered {
    pub(crate) rule: Rule,
    pub(crate) verdict: Verdict,
    pub(crate) matched: bool,
    pub(crate) decides: bool,
    pub(crate) why: String,
    /// Empty from a daemon that does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) tier: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) staged: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) passes_on: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) not_asked: bool,
}

impl From<pb::ConsideredRule> for Considered {
    fn from(wire: pb::ConsideredRule) -> Self {
        let pb::ConsideredRule { rule, verdict, matched, decides, why, tier, name, staged, passes_on, not_asked } =
            wire;
        Self {
            rule: rule.unwrap_or_default().into(),
            verdict: Verdict::of(verdict),
            matched,
            decides,
            why,
            tier,
            name,
            staged,
            passes_on,
            not_asked,
        }
    }
}
