//! `Explain`: what would happen to a new connection, and why. The reasons come from
//! `policy::explain`; here is who is meant, what this node knows of them, and what is in force when
//! that is not what is written.

mod ends;
mod sides;

use std::collections::{BTreeMap, BTreeSet};

use datapath_abi::{
    addr::{Addr, AddrEntry},
    identity,
};
use policy::{
    Explanation, Index, RuleSet,
    compile::RuleRef,
    model::PodKey,
    world::{Exemption, Nodes, Side, World},
};
use proto::bulkhead::admin::v1 as pb;
use tonic::Status;

use super::{AdminService, convert, unless_synced, work_out};
use crate::{
    app::engine::State,
    reconcile::{EndpointView, Refusal},
};

use ends::Wanted;

/// What can be asked about: name, IANA number, whether it has ports.
const PROTOCOLS: [(&str, u8, bool); 5] =
    [("tcp", 6, true), ("udp", 17, true), ("sctp", 132, true), ("icmp", ICMP, false), ("icmpv6", ICMPV6, false)];
/// IANA number of ICMP.
const ICMP: u8 = 1;
/// IANA number of ICMPv6.
const ICMPV6: u8 = 58;

pub(super) async fn answer(service: &AdminService, request: pb::ExplainRequest) -> Result<pb::ExplainResponse, Status> {
    let pb::ExplainRequest { source, destination, protocol, port } = request;
    let source = Wanted::parse("source", source)?;
    let destination = Wanted::parse("destination", destination)?;
    let asked = Asked::parse(&protocol, port)?;
    let asked_for = [source.clone(), destination.clone()];
    let (synced, known) = service.ask(move |state| (state.synced, Known::of(state, &asked_for))).await?;
    unless_synced(synced)?;
    work_out(move || {
        let world = World::new(&known.index).with_nodes(known.nodes());
        let chosen = ends::flow(&known, &world, &source, &destination, asked)?;
        explained(&known, &world, &chosen, asked)
    })
    .await?
}

/// Protocol and port that are asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Asked {
    name: &'static str,
    proto: u8,
    port: u16,
}

impl Asked {
    fn parse(protocol: &str, port: u32) -> Result<Self, Status> {
        let wanted = if protocol.is_empty() { "tcp" } else { protocol };
        let Some((name, proto, has_ports)) = PROTOCOLS.into_iter().find(|(name, ..)| *name == wanted) else {
            let names = PROTOCOLS.map(|(name, ..)| name).join(", ");
            let given = convert::quoted(protocol);
            return Err(Status::invalid_argument(format!("protocol {given} is not known here: use one of {names}")));
        };
        match (u16::try_from(port), has_ports) {
            (Ok(port @ 1..), true) | (Ok(port @ 0), false) => Ok(Self { name, proto, port }),
            (_, true) => {
                Err(Status::invalid_argument(format!("port {port} is none of {name}: use a number from 1 to 65535")))
            }
            (_, false) => Err(Status::invalid_argument(format!("port {port}: {name} has no ports, leave it out"))),
        }
    }
}

/// What is copied out of the engine.
#[derive(Debug)]
struct Known {
    index: Index,
    addresses: BTreeMap<Addr, AddrEntry>,
    /// Ranges of pods' addresses: who is in there and in no table is nobody we know.
    cidrs: BTreeMap<(Addr, u8), AddrEntry>,
    /// Endpoints of this node.
    local: Vec<EndpointView>,
    /// Identity numbers of the pods that are asked for.
    numbers: BTreeMap<PodKey, u32>,
    cookies: BTreeMap<RuleRef, u32>,
    refusals: Vec<Refusal>,
    /// Content of rule sets that are in force instead of what is written.
    instead: BTreeMap<u32, RuleSet>,
    trouble: Option<String>,
}

impl Known {
    fn of(state: &State, asked_for: &[Wanted]) -> Self {
        let State { planner, mirror, refusals, trouble, .. } = state;
        let local = planner.views(mirror);
        let older = local.iter().flat_map(|view| &view.directions).filter(|direction| !direction.complete);
        let older: BTreeSet<u32> = older.map(|direction| direction.rules.ruleset()).filter(|it| *it != 0).collect();
        let pods = planner.index().pods().filter(|pod| asked_for.iter().any(|wanted| wanted.may_be(pod)));
        let numbers = pods.filter_map(|pod| Some((pod.key.clone(), planner.identity_number(&pod.key)?)));
        Self {
            index: planner.index().clone(),
            addresses: mirror.addresses.clone(),
            cidrs: mirror.cidrs.clone(),
            numbers: numbers.collect(),
            cookies: planner.cookies().iter().map(|(cookie, rule)| (rule.clone(), cookie)).collect(),
            refusals: refusals.clone(),
            instead: older.into_iter().filter_map(|it| Some((it, planner.rule_set(it)?.clone()))).collect(),
            trouble: trouble.clone(),
            local,
        }
    }

    fn nodes(&self) -> Nodes {
        let of = |wanted: u32| {
            let mine = self.addresses.iter().filter(move |(_, entry)| entry.identity == wanted);
            mine.map(|(addr, _)| std::net::IpAddr::from(*addr)).collect()
        };
        Nodes { local: of(identity::HOST), others: of(identity::REMOTE_NODE) }
    }

    /// The endpoint of a pod, if it is here.
    fn endpoint(&self, pod: &PodKey) -> Option<&EndpointView> {
        self.local.iter().find(|view| view.endpoint.pod == *pod)
    }

    fn cookie(&self, rule: &RuleRef) -> u32 {
        self.cookies.get(rule).copied().unwrap_or(0)
    }

    fn rule_by(&self, cookie: u32) -> Option<&RuleRef> {
        self.cookies.iter().find(|(_, number)| **number == cookie).map(|(rule, _)| rule)
    }
}

fn explained(
    known: &Known,
    world: &World<'_>,
    chosen: &ends::Chosen,
    asked: Asked,
) -> Result<pb::ExplainResponse, Status> {
    let too_large = |error: policy::lower::LowerError| Status::resource_exhausted(error.to_string());
    let explanation = policy::explain(world, &chosen.flow).map_err(too_large)?;
    let both = [&explanation.egress, &explanation.ingress];
    let sides = both.into_iter().filter_map(|side| sides::explained(known, &chosen.flow, side));
    let sides: Vec<pb::DirectionExplained> = sides.collect();
    let denied = sides.iter().any(|side| side.verdict == pb::Verdict::Deny as i32);
    let verdict = if denied { pb::Verdict::Deny } else { pb::Verdict::Allow };
    let [source_assumed, destination_assumed] = chosen.assumed;
    Ok(pb::ExplainResponse {
        source: Some(ends::party(known, &chosen.flow.source, source_assumed)),
        destination: Some(ends::party(known, &chosen.flow.destination, destination_assumed)),
        protocol: asked.name.to_owned(),
        port: asked.port.into(),
        verdict: verdict as i32,
        reason: sides::summary(&sides),
        notes: notes(known, chosen, &explanation, &sides),
        directions: sides,
    })
}

/// What else is worth knowing.
fn notes(
    known: &Known,
    chosen: &ends::Chosen,
    explanation: &Explanation,
    sides: &[pb::DirectionExplained],
) -> Vec<String> {
    let ends = [&chosen.flow.source, &chosen.flow.destination].into_iter().zip(chosen.assumed);
    let mut notes: Vec<String> = ends.filter_map(|(end, assumed)| ends::note(known, end, assumed)).collect();
    notes.dedup();
    let from_own_node = matches!(explanation.ingress.walk.outcome, Side::Exempt(Exemption::OwnNode));
    if !explanation.ingress.walk.isolated_by.is_empty() && !from_own_node {
        notes.push("traffic from the pod's own node is always allowed in".to_owned());
    }
    if !sides.is_empty() && sides.iter().all(|side| !side.enforced_here) {
        notes.push("neither end is an endpoint of this node, which therefore enforces nothing of this".to_owned());
    }
    if let Some(trouble) = &known.trouble {
        notes.push(format!("rules in force may be older than these, for the kernel refused a write: {trouble}"));
    }
    notes
}
