//! Everything that is not as it should be, as one sorted list for `Status`. Only decides and
//! words; what it decides on is gathered elsewhere.

use datapath_abi::maps::{self, Scalar};
use flows::ledger::Loss;
use policy::model::PodKey;
use proto::bulkhead::admin::v1::{Condition, Severity};

use super::{
    convert::{counted, listed},
    figures::{EngineView, Fill, ServicesView},
};
use crate::{
    app::attachments::guard::PutBackFigures,
    source::{SourceProblem, SourceStatus},
    telemetry::{DatapathFigures, FlowFigures, PoolFigures},
};

/// A map or pool from this share on is worth a warning, percent.
const NEARLY_FULL: u128 = 90;
/// Names that a message mentions.
const MAX_NAMED: usize = 3;

/// What there is to look at.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) engine: &'a EngineView,
    pub(super) source: &'a SourceStatus,
    pub(super) fills: Vec<Fill>,
    /// Or why the counters cannot be read.
    pub(super) datapath: Result<DatapathFigures, String>,
    pub(super) pools: Vec<PoolFigures>,
    pub(super) flows: FlowFigures,
    /// Endpoints whose interface has gone without a DEL.
    pub(super) lost: Vec<PodKey>,
    /// Programs that somebody had removed.
    pub(super) put_back: PutBackFigures,
    /// What keeps packets from pods of other nodes.
    pub(super) obstacles: Vec<String>,
    /// What stands wrong at the node's uplinks.
    pub(super) gate: Vec<String>,
    /// What is wrong with the certificates of the flow API.
    pub(super) flow_api: Option<String>,
}

/// All conditions, worst first, then by code, then by message.
pub(super) fn all(seen: &Seen<'_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    of_engine(seen, &mut conditions);
    of_source(seen, &mut conditions);
    of_endpoints(seen, &mut conditions);
    of_nodes(seen, &mut conditions);
    of_gate(seen, &mut conditions);
    of_flow_api(seen, &mut conditions);
    of_space(seen, &mut conditions);
    of_counters(seen, &mut conditions);
    conditions.sort_by(|a, b| (b.severity, &a.code, &a.message).cmp(&(a.severity, &b.code, &b.message)));
    conditions
}

fn condition(severity: Severity, code: &str, message: String, fix: &str) -> Condition {
    Condition { severity: severity as i32, code: code.to_owned(), message, fix: fix.to_owned() }
}

fn of_engine(seen: &Seen<'_>, to: &mut Vec<Condition>) {
    let EngineView { trouble, refusals, synced, strangers, services, .. } = seen.engine;
    if let Some(trouble) = trouble {
        let message = format!("the kernel refused a write, so rules in force may be older than the objects: {trouble}");
        to.push(condition(Severity::Error, "engine-trouble", message, "see the daemon's log; it keeps trying"));
    }
    if !refusals.is_empty() {
        let pods: Vec<PodKey> = refusals.iter().map(|refusal| refusal.pod.clone()).collect();
        let message = format!("rules do not fit and are not in force as written: {}", named(&pods));
        to.push(condition(Severity::Error, "rules-refused", message, "each refusal names its own fix"));
    }
    if *strangers > 0 {
        let message =
            format!("{strangers} addresses of pods elsewhere found no room: no rule for these pods admits them");
        let fix = format!("raise the capacity of {0} (--map-capacity {0}=N)", maps::ADDRESSES);
        to.push(condition(Severity::Error, "addresses-refused", message, &fix));
    }
    let ServicesView { trouble, refused, clashes } = services;
    if let Some(trouble) = trouble {
        let message = format!("the kernel refused a write, so Services may lead to older backends: {trouble}");
        to.push(condition(Severity::Error, "services-trouble", message, "see the daemon's log; it keeps trying"));
    }
    if !refused.is_empty() {
        let message =
            format!("Services found no room and are left to kube-proxy: {}", at_most_named(refused.clone()).join("; "));
        let fix = format!("raise the capacity of {} and {} (--map-capacity MAP=N)", maps::FRONTENDS, maps::BACKENDS);
        to.push(condition(Severity::Error, "services-refused", message, &fix));
    }
    if !clashes.is_empty() {
        let message = format!("Services want what older ones have: {}", at_most_named(clashes.clone()).join("; "));
        to.push(condition(Severity::Warning, "services-clash", message, "give each an address and port of its own"));
    }
    if !synced {
        let message = "the source has not been read completely yet: until then nothing in the kernel changes";
        to.push(condition(Severity::Warning, "source-not-synced", message.to_owned(), ""));
    }
}

fn of_source(seen: &Seen<'_>, to: &mut Vec<Condition>) {
    let (slow, wrong): (Vec<_>, Vec<_>) =
        seen.source.errors.iter().partition(|error| matches!(error.problem, SourceProblem::Slow(_)));
    if !wrong.is_empty() {
        let kept = wrong.iter().filter(|error| error.kept > 0).count();
        let kept = if kept > 0 { "; what was good before stays in force" } else { "" };
        let closed = wrong.iter().any(|error| error.closed);
        let closed = if closed { "; what a policy without a good version selects is denied" } else { "" };
        let message = format!("{} in the source {}{kept}{closed}", counted(wrong.len(), "thing"), stand(wrong.len()));
        let fix = "correct the files; each error names its place and what to write";
        to.push(condition(Severity::Error, "source-errors", message, fix));
    }
    for error in slow {
        let message = error.to_string();
        to.push(condition(Severity::Warning, "source-slow", message, "changes are found by looking from time to time"));
    }
}

fn stand(count: usize) -> &'static str {
    if count == 1 { "is refused" } else { "are refused" }
}

fn of_endpoints(seen: &Seen<'_>, to: &mut Vec<Condition>) {
    if !seen.lost.is_empty() {
        let message = format!("interfaces are gone and nobody has called DEL: {}", named(&seen.lost));
        let fix = "let the runtime call DEL or GC, or remove the containers";
        to.push(condition(Severity::Warning, "endpoint-lost", message, fix));
    }
    let PutBackFigures { done, failed } = seen.put_back;
    let fix = "find out who removes filters of pods' interfaces (tc, another agent): until they are back, nothing is enforced there";
    if failed > 0 {
        let message = format!(
            "programs that somebody has removed from pods' interfaces could not be put back, {}",
            times(failed)
        );
        to.push(condition(Severity::Error, "programs-not-put-back", message, "see the daemon's log, and restart it"));
    }
    if done > 0 {
        let message =
            format!("somebody has removed programs from pods' interfaces, {}: they were put back", times(done));
        to.push(condition(Severity::Warning, "programs-put-back", message, fix));
    }
    let bare = seen.engine.endpoints.iter().filter(|(_, _, has_object)| !has_object);
    let bare: Vec<PodKey> = bare.map(|(_, pod, _)| pod.clone()).collect();
    if !bare.is_empty() {
        let message =
            format!("the source has no Pod object for running pods, so they have no labels: {}", named(&bare));
        let fix = "add Pod objects with these names, if policies are to select them by label";
        to.push(condition(Severity::Info, "endpoint-without-object", message, fix));
    }
}

fn of_nodes(seen: &Seen<'_>, to: &mut Vec<Condition>) {
    if seen.obstacles.is_empty() {
        return;
    }
    let named = at_most_named(seen.obstacles.clone());
    let message = format!("packets do not get to pods of other nodes as they should: {}", named.join("; "));
    let fix =
        "nodes on one network suit --routing native, others need --routing overlay; it is tried again all the time";
    to.push(condition(Severity::Error, "nodes-unreached", message, fix));
}

fn of_flow_api(seen: &Seen<'_>, to: &mut Vec<Condition>) {
    if let Some(why) = &seen.flow_api {
        let message =
            format!("certificates of the flow API cannot be used, and those of before serve if there were any: {why}");
        to.push(condition(
            Severity::Warning,
            "flow-api-trouble",
            message,
            "put good ones into the folder of --flow-tls",
        ));
    }
}

fn of_gate(seen: &Seen<'_>, to: &mut Vec<Condition>) {
    if seen.gate.is_empty() {
        return;
    }
    let named = at_most_named(seen.gate.clone());
    let message = format!("not everybody is kept out of this node as was asked for: {}", named.join("; "));
    to.push(condition(
        Severity::Error,
        "uplink-trouble",
        message,
        "each names its own fix; it is tried again all the time",
    ));
}

/// How often, since the agent has started.
fn times(count: u64) -> String {
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    format!("{times} since the agent started")
}

fn of_space(seen: &Seen<'_>, to: &mut Vec<Condition>) {
    for Fill { info, entries, capacity } in &seen.fills {
        // Slot 0 of ENDPOINTS is nobody's.
        let usable = if info.name == maps::ENDPOINTS { capacity.saturating_sub(1) } else { *capacity };
        if is_nearly_full(*entries, usable) {
            let message = format!("map {} holds {entries} of {usable} entries ({})", info.name, info.purpose);
            let fix = format!("raise its capacity (--map-capacity {}=N)", info.name);
            to.push(condition(Severity::Warning, "map-nearly-full", message, &fix));
        }
    }
    for PoolFigures { range, used, free } in &seen.pools {
        let fix = "give this node a larger range of pod addresses";
        if *free == 0 {
            let message = format!("all {used} addresses of {range} are in use: no pod can be added");
            to.push(condition(Severity::Error, "pool-exhausted", message, fix));
        } else if is_nearly_full(*used, used.saturating_add(*free)) {
            let message = format!("{free} addresses of {range} are left, {used} are in use");
            to.push(condition(Severity::Warning, "pool-nearly-exhausted", message, fix));
        }
    }
}

fn is_nearly_full(part: u64, whole: u64) -> bool {
    u128::from(part) * 100 > u128::from(whole) * NEARLY_FULL
}

fn of_counters(seen: &Seen<'_>, to: &mut Vec<Condition>) {
    match &seen.datapath {
        Ok(figures) => of_scalars(figures, to),
        Err(reason) => {
            let message = format!("the programs' counters cannot be read: {reason}");
            to.push(condition(Severity::Warning, "counters-unreadable", message, "see the daemon's log"));
        }
    }
    let malformed = seen.flows.ledger.dropped(Loss::Malformed);
    if malformed > 0 {
        let message = format!("{malformed} flow events could not be understood");
        let fix = "daemon and programs are of different builds: install one of them anew";
        to.push(condition(Severity::Warning, "events-malformed", message, fix));
    }
}

fn of_scalars(figures: &DatapathFigures, to: &mut Vec<Condition>) {
    const SINCE: &str = "since the programs were loaded";
    for &(scalar, count) in figures.scalars.iter().filter(|(_, count)| *count > 0) {
        let (code, message, map) = match scalar {
            Scalar::EventsLost => {
                ("events-lost", format!("{count} flow events found the ring buffer full {SINCE}"), maps::EVENTS)
            }
            Scalar::ConntrackFull => {
                ("conntrack-full", format!("{count} connections found CONNTRACK full {SINCE}"), maps::CONNTRACK)
            }
            Scalar::PendingFull => {
                ("pending-full", format!("{count} new connections found PENDING full {SINCE}"), maps::PENDING)
            }
            Scalar::PendingShare => (
                "pending-share",
                format!("{count} new connections of pods that had their share of PENDING waiting {SINCE}"),
                maps::PENDING,
            ),
            Scalar::DnsLost => {
                ("dns-lost", format!("{count} DNS messages of pods found the ring buffer full {SINCE}"), maps::DNS)
            }
            Scalar::EventsWritten | Scalar::Redecided | Scalar::UplinkUnrecorded | Scalar::DnsWritten => continue,
        };
        let fix = format!("raise the capacity of {map} (--map-capacity {map}=N)");
        to.push(condition(Severity::Warning, code, message, &fix));
    }
}

/// `shop/a, shop/b and 5 more`.
fn named(pods: &[PodKey]) -> String {
    let mut names: Vec<String> = pods.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names.dedup();
    listed(&at_most_named(names))
}

/// As many as a message names, and how many there are besides.
fn at_most_named(mut names: Vec<String>) -> Vec<String> {
    if names.len() > MAX_NAMED {
        let more = names.len() - MAX_NAMED;
        names.truncate(MAX_NAMED);
        names.push(format!("{more} more"));
    }
    names
}
