//! `Status`: one look at everything.

use datapath_abi::{maps::Scalar, policy::Direction};
use objects::{ObjectError, ObjectName, Problem};
use proto::bulkhead::admin::v1 as pb;
use tonic::Status;

use super::{
    AdminService, Facts,
    conditions::{self, Seen},
    convert,
    figures::{EngineView, Fill},
};
use crate::{
    app::gate::GateState,
    datapath::uplink::Way,
    reconcile::{Refusal, Remains},
    source::{Origin, SourceError, SourceProblem, SourceStatus},
    telemetry::{DatapathFigures, FlowFigures, PoolFigures},
};

/// Errors and refusals that are listed; conditions tell how many there are.
const MAX_LISTED: usize = 500;

pub(super) async fn answer(service: &AdminService) -> Result<pb::StatusResponse, Status> {
    let engine = service.ask(EngineView::of).await?;
    let source = service.source();
    let gate = service.parts.gate.borrow().clone();
    let seen = Seen {
        fills: service.fills(Some(&engine)),
        datapath: service.datapath(),
        pools: service.pools(),
        flows: service.flows(),
        lost: lost(service, &engine),
        put_back: (service.parts.put_back)(),
        obstacles: service.parts.obstacles.borrow().clone(),
        gate: gate.troubles.clone(),
        flow_api: service.parts.flow_trouble.borrow().clone(),
        engine: &engine,
        source: &source,
    };
    let conditions = conditions::all(&seen);
    let Seen { fills, datapath, pools, flows, .. } = seen;
    let Facts { version, commit, abi_version, node, kernel, attach_mode, device, pin_path, mtu, routing, .. } =
        service.parts.facts.clone();
    let uplink = (service.parts.uplink)().await.unwrap_or_default();
    let scalar = |wanted| scalar(datapath.as_ref().ok(), wanted);
    let sweep = service.sweep().unwrap_or_default();
    Ok(pb::StatusResponse {
        build: Some(pb::Build { version, commit, abi_version }),
        node,
        uptime_seconds: service.parts.facts.started.elapsed().as_secs(),
        datapath: Some(pb::Datapath {
            kernel,
            attach_mode,
            device,
            pin_path: pin_path.display().to_string(),
            uplink,
            mtu,
            routing,
            gate: (!gate.attached.is_empty()).then(|| told_gate(&gate)),
        }),
        counts: Some(counts(&engine)),
        source: Some(pb::Source {
            spec: service.parts.facts.source.clone(),
            synced: engine.synced,
            last_change_seconds: engine.since_change.map(|since| since.as_secs()),
            errors: source_errors(&source),
        }),
        refusals: refusals(&engine.refusals),
        maps: fills.iter().map(fill).collect(),
        conntrack: Some(pb::Conntrack {
            established: sweep.established.into(),
            pending: sweep.pending.into(),
            redecided: scalar(Scalar::Redecided),
            full: scalar(Scalar::ConntrackFull).saturating_add(scalar(Scalar::PendingFull)),
        }),
        pools: pools.into_iter().map(|PoolFigures { range, used, free }| pb::Pool { range, used, free }).collect(),
        events: Some(events(scalar(Scalar::EventsWritten), scalar(Scalar::EventsLost), flows)),
        conditions,
    })
}

fn told_gate(gate: &GateState) -> pb::Gate {
    let told = |(name, way): (&String, &Way)| pb::GateInterface { name: name.clone(), way: way.name().to_owned() };
    let denied_ranges = u32::try_from(gate.denied).unwrap_or(u32::MAX);
    pb::Gate { interfaces: gate.attached.iter().map(told).collect(), denied_ranges }
}

/// Value of a scalar; 0 if it cannot be read, which is a condition of its own.
fn scalar(datapath: Option<&DatapathFigures>, wanted: Scalar) -> u64 {
    let scalars = datapath.into_iter().flat_map(|figures| &figures.scalars);
    scalars.filter(|(scalar, _)| *scalar == wanted).map(|(_, value)| *value).sum()
}

fn events(written: u64, lost: u64, flows: FlowFigures) -> pb::Events {
    let FlowFigures { ledger: _, records, record_capacity } = flows;
    pb::Events { written, lost, records, record_capacity }
}

/// Endpoints whose interface has gone without a DEL.
fn lost(service: &AdminService, engine: &EngineView) -> Vec<policy::model::PodKey> {
    let is_lost = |extra: super::EndpointExtra| extra.stage == super::Stage::Lost;
    let lost = engine.endpoints.iter().filter(|(key, ..)| (service.parts.extras)(key).is_some_and(is_lost));
    lost.map(|(_, pod, _)| pod.clone()).collect()
}

fn counts(engine: &EngineView) -> pb::Counts {
    let figures = &engine.figures;
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    pb::Counts {
        endpoints: small(figures.endpoints),
        endpoints_isolated: small(figures.endpoints_isolated),
        identities: small(figures.identities),
        namespaces: small(figures.namespaces),
        pods: small(figures.pods),
        policies: small(figures.policies),
        rule_sets: small(figures.rule_sets),
    }
}

fn fill(fill: &Fill) -> pb::MapFill {
    let Fill { info, entries, capacity } = *fill;
    pb::MapFill {
        name: info.name.to_owned(),
        kind: info.kind.to_owned(),
        entries,
        capacity,
        purpose: info.purpose.to_owned(),
    }
}

fn refusals(refusals: &[Refusal]) -> Vec<pb::Refusal> {
    let mut sorted: Vec<&Refusal> = refusals.iter().collect();
    sorted.sort_by_key(|refusal| (&refusal.pod, refusal.direction));
    sorted.into_iter().take(MAX_LISTED).map(refusal).collect()
}

fn refusal(refusal: &Refusal) -> pb::Refusal {
    let Refusal { pod, direction, policies, reason, fix, remains: _ } = refusal;
    let by: Vec<String> = policies.iter().map(convert::policy_words).collect();
    pb::Refusal {
        object: Some(convert::pod_object(pod)),
        direction: convert::direction(*direction),
        reason: format!("the rules of {}: {reason}", convert::listed(&by)),
        fix: fix.clone(),
        meanwhile: meanwhile(refusal).to_owned(),
    }
}

/// What holds instead of what was refused.
pub(super) fn meanwhile(refusal: &Refusal) -> &'static str {
    match (refusal.remains, refusal.direction) {
        (Remains::LastComplete, _) => "its last complete rules stay in force",
        (Remains::Unevaluated, _) => "the staged policies are not evaluated, and what is enforced stays as it is",
        (Remains::Denied, Direction::Egress) => "all its egress is denied, for there were no rules before",
        (Remains::Denied, Direction::Ingress) => "all its ingress is denied, for there were no rules before",
    }
}

fn source_errors(source: &SourceStatus) -> Vec<pb::SourceError> {
    let mut errors: Vec<pb::SourceError> = source.errors.iter().flat_map(source_error).take(MAX_LISTED).collect();
    errors.sort_by_key(|error| {
        let pb::Origin { file, document, line } = error.origin.clone().unwrap_or_default();
        (file, document, line, error.field.clone())
    });
    errors
}

/// One entry for each thing that is wrong.
fn source_error(error: &SourceError) -> Vec<pb::SourceError> {
    let SourceError { place, key, problem, kept, closed } = error;
    let denied_meanwhile = *closed;
    let object = key.as_ref().map(convert::object);
    let last_good_in_force = *kept > 0;
    let whole = |origin: pb::Origin, message: String, fix: &str| {
        vec![pb::SourceError {
            origin: Some(origin),
            object: object.clone(),
            field: String::new(),
            message,
            fix: fix.to_owned(),
            last_good_in_force,
            denied_meanwhile,
        }]
    };
    let at = |file: &str| pb::Origin { file: file.to_owned(), document: 0, line: 0 };
    match problem {
        SourceProblem::Refused(refused) => {
            let ObjectError { source_name, document, item: _, line: _, object: named, problems } = refused;
            let object = object.or_else(|| named.as_ref().map(named_object));
            let one = |problem: &Problem| {
                let Problem { path, line, what, fix } = problem;
                let line = if *line == 0 { refused.line } else { *line };
                let (document, line) = (convert::small(*document), convert::small(line));
                pb::SourceError {
                    origin: Some(pb::Origin { file: source_name.clone(), document, line }),
                    object: object.clone(),
                    field: path.to_string(),
                    message: what.clone(),
                    fix: fix.clone(),
                    last_good_in_force,
                    denied_meanwhile,
                }
            };
            problems.iter().map(one).collect()
        }
        SourceProblem::Duplicate { winner, loser } => {
            whole(convert::origin(loser), format!("is also defined in {winner}, which counts"), "remove one of them")
        }
        SourceProblem::Unreadable(reason) => {
            whole(at(place), format!("cannot be read: {reason}"), "make it readable for the daemon, or remove it")
        }
        SourceProblem::Slow(reason) => whole(at(place), reason.clone(), ""),
    }
}

fn named_object(named: &ObjectName) -> pb::ObjectRef {
    let ObjectName { kind, namespace, name } = named;
    pb::ObjectRef {
        kind: kind.clone(),
        namespace: namespace.clone().unwrap_or_default(),
        name: name.clone().unwrap_or_default(),
    }
}

/// What stands against one policy in the source: in words, with the place.
pub(super) fn standing(error: &SourceError) -> String {
    match &error.problem {
        SourceProblem::Refused(refused) => {
            let place = |line: usize| match line {
                0 => refused.source_name.clone(),
                line => format!("{}:{line}", refused.source_name),
            };
            let words = refused.problems.iter().map(|problem| {
                let line = if problem.line == 0 { refused.line } else { problem.line };
                let field = if problem.path.is_root() { String::new() } else { format!("{}: ", problem.path) };
                format!("{}: {field}{}", place(line), problem.what)
            });
            let words = words.collect::<Vec<_>>().join("; ");
            if error.closed { format!("{words}; until then what it selects is denied") } else { words }
        }
        SourceProblem::Duplicate { winner, loser: Origin { file, line, .. } } => {
            format!("{file}:{line}: is also defined in {winner}, which counts")
        }
        SourceProblem::Unreadable(reason) => format!("{}: cannot be read: {reason}", error.place),
        SourceProblem::Slow(reason) => format!("{}: {reason}", error.place),
    }
}
