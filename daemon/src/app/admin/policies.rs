//! `ListPolicies` and `GetPolicy`: what is in force, whom it selects, what it says, and what is
//! probably not meant.

mod warnings;

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::endpoint::RulesPtr;
use policy::{
    Index,
    compile::RuleRef,
    model::{ClusterNetworkPolicy, NetworkPolicy, ObjectKey, PodKey, PolicyKind, PolicyRef},
};
use proto::bulkhead::admin::v1::{self as pb, PolicyStatus};
use tonic::Status;

use super::{AdminService, convert, found::Found, status, unless_synced, words, words::Cluster, work_out};
use crate::{
    app::engine::State,
    reconcile::{Mirror, Refusal},
    source::{SourceError, SourceProblem, SourceStatus},
};

pub(super) async fn list(
    service: &AdminService,
    request: pb::ListPoliciesRequest,
) -> Result<pb::ListPoliciesResponse, Status> {
    let pb::ListPoliciesRequest { namespace } = request;
    let namespace = convert::optional_name("namespace", &namespace)?.map(str::to_owned);
    let copied = copied(service).await?;
    let policies = work_out(move || {
        let cluster = Cluster::new(&copied.index);
        let wanted = |policy: &PolicyRef| namespace.as_ref().is_none_or(|it| *it == policy.namespace);
        let in_force = copied.index.network_policies().map(NetworkPolicy::policy_ref);
        let in_force = in_force.chain(copied.index.cluster_policies().map(ClusterNetworkPolicy::policy_ref));
        let all: BTreeSet<PolicyRef> = in_force.chain(copied.never_in_force()).filter(wanted).collect();
        all.iter().map(|policy| copied.policy(&cluster, policy)).collect()
    });
    Ok(pb::ListPoliciesResponse { policies: policies.await? })
}

pub(super) async fn get(
    service: &AdminService,
    request: pb::GetPolicyRequest,
) -> Result<pb::GetPolicyResponse, Status> {
    let pb::GetPolicyRequest { namespace, name, kind } = request;
    let [network_policy, cluster] =
        [PolicyKind::NetworkPolicy, PolicyKind::ClusterNetworkPolicy].map(PolicyKind::as_str);
    let name = convert::name("name", &name)?;
    let wanted = match kind.as_str() {
        of if of == cluster && namespace.is_empty() => PolicyRef::cluster(name),
        of if of == cluster => {
            let namespace = convert::quoted(&namespace);
            return Err(Status::invalid_argument(format!(
                "a {cluster} has no namespace, but {namespace} was given: leave it out"
            )));
        }
        of if of.is_empty() || of == network_policy => {
            PolicyRef::network_policy(convert::name("namespace", &namespace)?, name)
        }
        other => {
            let kind = convert::quoted(other);
            return Err(Status::invalid_argument(format!(
                "kind {kind} is no kind of policy: use {network_policy} or {cluster}"
            )));
        }
    };
    let copied = copied(service).await?;
    let missing = format!("there is no {wanted}: `bulkhead policy list` shows those there are");
    let answer = work_out(move || {
        let known = copied.index.has_policy(&wanted) || copied.never_in_force().any(|it| it == wanted);
        known.then(|| copied.detail(&wanted))
    });
    answer.await?.ok_or_else(|| Status::not_found(missing))
}

/// What is copied out of the engine and the source.
#[derive(Debug)]
struct Copied {
    index: Index,
    /// Pods of this node, one for each interface.
    local: Vec<PodKey>,
    refusals: Vec<Refusal>,
    /// Entries that the rule sets take that a policy is part of.
    entries: BTreeMap<PolicyRef, u64>,
    cookies: BTreeMap<RuleRef, u32>,
    source: std::sync::Arc<SourceStatus>,
}

async fn copied(service: &AdminService) -> Result<Copied, Status> {
    let source = service.source();
    let look = |state: &State| {
        let State { planner, mirror, refusals, synced, .. } = state;
        let copied = Copied {
            index: planner.index().clone(),
            local: planner.endpoints().map(|endpoint| endpoint.pod.clone()).collect(),
            refusals: refusals.clone(),
            entries: entries(state, mirror),
            cookies: planner.cookies().iter().map(|(cookie, rule)| (rule.clone(), cookie)).collect(),
            source,
        };
        (*synced, copied)
    };
    let (synced, copied) = service.ask(look).await?;
    unless_synced(synced)?;
    Ok(copied)
}

/// How many entries of PEERS, REGIONS and PORTS there are for each policy.
fn entries(state: &State, mirror: &Mirror) -> BTreeMap<PolicyRef, u64> {
    let mut sets: BTreeMap<PolicyRef, BTreeSet<u32>> = BTreeMap::new();
    for view in state.planner.views(mirror) {
        for direction in view.directions {
            let number = direction.rules.ruleset();
            // What is in force may still be what was compiled before.
            let table = state.planner.rule_table(number).unwrap_or(&direction.table);
            for policy in table.policies().into_iter().filter(|_| number != 0) {
                // What is asked after a pass goes by the next number.
                sets.entry(policy).or_default().extend([number, number | 1]);
            }
        }
    }
    // What the staged ones would say is written too, because of them alone.
    let index = state.planner.index();
    for number in mirror.staged.values().flatten().map(|word| RulesPtr(*word).ruleset()).filter(|number| *number != 0) {
        let policies = state.planner.rule_table(number).map(|table| table.policies()).unwrap_or_default();
        for policy in policies.into_iter().filter(|policy| index.is_staged(policy) == Some(true)) {
            sets.entry(policy).or_default().extend([number, number | 1]);
        }
    }
    let mut ports: BTreeMap<u32, u64> = BTreeMap::new();
    for key in mirror.ports.keys() {
        *ports.entry(key.portset).or_default() += 1;
    }
    let total = |numbers: BTreeSet<u32>| {
        let (mut count, mut port_sets) = (0, BTreeSet::new());
        for number in numbers {
            let peers = mirror.peers_of(number).map(|(_, entry)| entry.portset);
            for port_set in peers.chain(mirror.regions_of(number).map(|(_, entry)| entry.portset)) {
                count += 1;
                port_sets.insert(port_set);
            }
        }
        count + port_sets.iter().filter_map(|set| ports.get(set)).sum::<u64>()
    };
    sets.into_iter().map(|(policy, numbers)| (policy, total(numbers))).collect()
}

impl Copied {
    /// Policies that stand refused in the source and have no version in force.
    fn never_in_force(&self) -> impl Iterator<Item = PolicyRef> {
        let refused = self.source.errors.iter().filter(|error| matches!(error.problem, SourceProblem::Refused(_)));
        refused.filter_map(|error| match &error.key {
            Some(ObjectKey::Policy(policy)) if !self.index.has_policy(policy) => Some(policy.clone()),
            _ => None,
        })
    }

    fn policy(&self, cluster: &Cluster<'_>, policy: &PolicyRef) -> pb::Policy {
        let (status, reason) = self.standing(policy);
        let key = ObjectKey::Policy(policy.clone());
        let mut answer = pb::Policy {
            policy: Some(convert::policy(policy)),
            entries: self.entries.get(policy).copied().unwrap_or(0),
            status: status as i32,
            reason,
            origin: self.source.objects.get(&key).map(convert::origin).or_else(|| self.refused_at(&key)),
            ..pb::Policy::default()
        };
        if let Some(found) = Found::of(&self.index, policy) {
            let selected = cluster.selected(found);
            let keys: BTreeSet<&PodKey> = selected.iter().map(|pod| &pod.key).collect();
            let rules = |direction| found.rules(direction).map_or(0, |rules| rules.len());
            let isolates = convert::DIRECTIONS.into_iter().filter(|direction| found.rules(*direction).is_some());
            let [egress, ingress] = convert::DIRECTIONS.map(rules);
            answer.selected_endpoints = convert::small(self.local.iter().filter(|pod| keys.contains(pod)).count());
            answer.selected_pods = convert::small(selected.len());
            answer.directions = isolates.map(convert::direction).collect();
            (answer.egress_rules, answer.ingress_rules) = (convert::small(egress), convert::small(ingress));
            answer.warnings = convert::small(self.warnings(cluster, found).len());
            if let Found::Cluster(policy) = found {
                answer.tier = policy.tier.as_str().to_owned();
                answer.priority = u32::from(policy.priority);
            }
        }
        answer
    }

    /// Where the version lies that is refused.
    fn refused_at(&self, key: &ObjectKey) -> Option<pb::Origin> {
        self.source.errors.iter().find(|error| error.key.as_ref() == Some(key)).map(|error| match &error.problem {
            SourceProblem::Refused(refused) => pb::Origin {
                file: refused.source_name.clone(),
                document: convert::small(refused.document),
                line: convert::small(refused.line),
            },
            SourceProblem::Duplicate { winner, .. } => convert::origin(winner),
            SourceProblem::Unreadable(_) | SourceProblem::Slow(_) => {
                pb::Origin { file: error.place.clone(), document: 0, line: 0 }
            }
        })
    }

    /// Whether a policy is in force as written, and why not.
    fn standing(&self, policy: &PolicyRef) -> (PolicyStatus, String) {
        let refusals: Vec<&Refusal> = self.refusals.iter().filter(|it| it.policies.contains(policy)).collect();
        if let Some(first) = refusals.first() {
            let more = match refusals.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            let (reason, meanwhile) = (&first.reason, status::meanwhile(first));
            let direction = convert::direction_word(first.direction);
            return (
                PolicyStatus::Refused,
                format!("{direction} of {}: {reason}; meanwhile {meanwhile}{more}", first.pod),
            );
        }
        let key = ObjectKey::Policy(policy.clone());
        let about = self.source.errors.iter().find(|error| self.concerns(error, &key));
        match about {
            Some(error) if self.index.has_policy(policy) && !error.closed => {
                (PolicyStatus::LastGood, status::standing(error))
            }
            Some(error) => (PolicyStatus::Refused, status::standing(error)),
            None if self.index.is_staged(policy) == Some(true) => {
                (PolicyStatus::Staged, "evaluated and reported, not enforced".to_owned())
            }
            None => (PolicyStatus::Accepted, String::new()),
        }
    }

    /// Whether an error of the source is the reason why the present version of an object does not
    /// count. An error that names no object may be about any of its file; it is about all of
    /// them if it keeps as many as there are.
    fn concerns(&self, error: &SourceError, key: &ObjectKey) -> bool {
        match (&error.problem, &error.key) {
            (SourceProblem::Duplicate { .. } | SourceProblem::Slow(_), _) => false,
            (_, Some(named)) => named == key,
            (_, None) => {
                let in_file = || self.source.objects.iter().filter(|(_, origin)| origin.file == error.place);
                error.kept > 0 && in_file().any(|(held, _)| held == key) && in_file().count() <= error.kept
            }
        }
    }

    fn detail(&self, policy: &PolicyRef) -> pb::GetPolicyResponse {
        let cluster = Cluster::new(&self.index);
        let mut answer =
            pb::GetPolicyResponse { policy: Some(self.policy(&cluster, policy)), ..pb::GetPolicyResponse::default() };
        let Some(found) = Found::of(&self.index, policy) else { return answer };
        let local: BTreeSet<&PodKey> = self.local.iter().collect();
        answer.selects = words::selects(found);
        answer.selected = cluster
            .selected(found)
            .into_iter()
            .filter(|pod| local.contains(&pod.key))
            .map(|pod| convert::pod_name(&pod.key))
            .collect();
        answer.rules = self.rules(&cluster, found);
        answer.warnings = self.warnings(&cluster, found);
        answer
    }

    /// The rules in words, egress first.
    fn rules(&self, cluster: &Cluster<'_>, policy: Found<'_>) -> Vec<pb::RuleSummary> {
        let mut summaries = Vec::new();
        for direction in convert::DIRECTIONS {
            for (index, found) in (0u32..).zip(policy.rules(direction).unwrap_or_default()) {
                let rule = found.rule;
                let of = RuleRef { policy: policy.policy_ref(), direction, index };
                let cookie = self.cookies.get(&of).copied().unwrap_or(0);
                summaries.push(pb::RuleSummary {
                    rule: Some(convert::rule(&of, cookie)),
                    verdict: convert::action(found.action),
                    peers: words::peers(&rule.peers).iter().map(words::peer).collect(),
                    ports: words::ports(&rule.ports).iter().map(words::port).collect(),
                    matching_pods: convert::small(cluster.matched(policy.own(), &rule.peers).len()),
                    name: found.name.to_owned(),
                });
            }
        }
        summaries
    }

    fn warnings(&self, cluster: &Cluster<'_>, policy: Found<'_>) -> Vec<pb::PolicyWarning> {
        let mut warnings = warnings::of(&self.index, cluster, policy);
        let key = Some(ObjectKey::Policy(policy.policy_ref()));
        for error in self.source.errors.iter().filter(|error| error.key == key) {
            if let SourceProblem::Duplicate { winner, loser } = &error.problem {
                warnings.push(pb::PolicyWarning {
                    code: "defined-twice".to_owned(),
                    field: "metadata.name".to_owned(),
                    message: format!("it is also defined in {loser}, which does not count: {winner} does"),
                });
            }
        }
        warnings
    }
}
