//! Policies: whether they are in force, whom they select, what they say.

use std::fmt;

use proto::bulkhead::admin::v1 as pb;
use serde::Serialize;

use super::{Direction, Object, Origin, PodName, Rule, Verdict, all};

/// Whether a policy is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Accepted,
    Refused,
    LastGood,
    Staged,
    Unknown,
}

impl State {
    /// Its word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::LastGood => "last-good",
            Self::Staged => "staged",
            Self::Unknown => "unknown",
        }
    }
}

/// A policy in the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Policy {
    pub(crate) policy: Object,
    pub(crate) selected_endpoints: u32,
    pub(crate) selected_pods: u32,
    pub(crate) directions: Vec<Direction>,
    pub(crate) egress_rules: u32,
    pub(crate) ingress_rules: u32,
    pub(crate) entries: u64,
    pub(crate) status: State,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    pub(crate) origin: Option<Origin>,
    #[serde(rename = "warning_count")]
    pub(crate) warnings: u32,
    /// `None` for kinds without tiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tier: Option<Tier>,
}

/// Where a ClusterNetworkPolicy stands. Prints as `Admin 10`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Tier {
    pub(crate) name: String,
    pub(crate) priority: u32,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.priority)
    }
}

impl From<pb::Policy> for Policy {
    fn from(wire: pb::Policy) -> Self {
        let pb::Policy {
            policy,
            selected_endpoints,
            selected_pods,
            directions,
            egress_rules,
            ingress_rules,
            entries,
            status,
            reason,
            origin,
            warnings,
            tier,
            priority,
        } = wire;
        let status = match pb::PolicyStatus::try_from(status) {
            Ok(pb::PolicyStatus::Accepted) => State::Accepted,
            Ok(pb::PolicyStatus::Refused) => State::Refused,
            Ok(pb::PolicyStatus::LastGood) => State::LastGood,
            Ok(pb::PolicyStatus::Staged) => State::Staged,
            Ok(pb::PolicyStatus::Unspecified) | Err(_) => State::Unknown,
        };
        Self {
            policy: policy.unwrap_or_default().into(),
            selected_endpoints,
            selected_pods,
            directions: directions.into_iter().map(Direction::of).collect(),
            egress_rules,
            ingress_rules,
            entries,
            status,
            reason,
            origin: Origin::of(origin),
            warnings,
            tier: (!tier.is_empty()).then_some(Tier { name: tier, priority }),
        }
    }
}

/// One policy with everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Detail {
    #[serde(flatten)]
    pub(crate) policy: Policy,
    pub(crate) selects: String,
    pub(crate) selected: Vec<PodName>,
    pub(crate) rules: Vec<RuleSummary>,
    pub(crate) warnings: Vec<Warning>,
}

impl From<pb::GetPolicyResponse> for Detail {
    fn from(pb::GetPolicyResponse { policy, selects, selected, rules, warnings }: pb::GetPolicyResponse) -> Self {
        Self {
            policy: policy.unwrap_or_default().into(),
            selects,
            selected: all(selected),
            rules: all(rules),
            warnings: all(warnings),
        }
    }
}

/// One rule in words.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct RuleSummary {
    pub(crate) rule: Rule,
    pub(crate) verdict: Verdict,
    pub(crate) peers: Vec<String>,
    pub(crate) ports: Vec<String>,
    pub(crate) matching_pods: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
}

impl From<pb::RuleSummary> for RuleSummary {
    fn from(pb::RuleSummary { rule, verdict, peers, ports, matching_pods, name }: pb::RuleSummary) -> Self {
        Self { rule: rule.unwrap_or_default().into(), verdict: Verdict::of(verdict), peers, ports, matching_pods, name }
    }
}

/// What is probably not meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Warning {
    pub(crate) code: String,
    pub(crate) field: String,
    pub(crate) message: String,
}

impl From<pb::PolicyWarning> for Warning {
    fn from(pb::PolicyWarning { code, field, message }: pb::PolicyWarning) -> Self {
        Self { code, field, message }
    }
}
