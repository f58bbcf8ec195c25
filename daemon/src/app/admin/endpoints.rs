//! `ListEndpoints` and `GetEndpoint`: pods' interfaces on this node, and their rules as they lie in
//! the kernel's maps. Answers before the source is read, too: what the kernel holds is known then.

mod entries;

pub(super) use entries::{cidr, protocol};

use std::{collections::BTreeMap, net::IpAddr, time::UNIX_EPOCH};

use datapath_abi::{
    endpoint::{Endpoint, RulesPtr},
    policy::Direction,
};
use policy::model::PodKey;
use proto::bulkhead::admin::v1::{self as pb, EndpointState, get_endpoint_request::Which};
use tonic::Status;

use super::{AdminService, EndpointExtra, Stage, convert, status};
use crate::{
    app::engine::State,
    reconcile::{DirectionView, EndpointKey, EndpointView, LocalEndpoint, Refusal},
};

/// Shortest beginning of a container id that is taken.
const MIN_ID: usize = 6;
/// Longest container id that is looked for; containerd's and CRI-O's have 64 characters.
const MAX_ID: usize = 253;

pub(super) async fn list(
    service: &AdminService,
    request: pb::ListEndpointsRequest,
) -> Result<pb::ListEndpointsResponse, Status> {
    let pb::ListEndpointsRequest { namespace } = request;
    let namespace = convert::optional_name("namespace", &namespace)?.map(str::to_owned);
    let wanted = move |endpoint: &LocalEndpoint| namespace.as_ref().is_none_or(|it| *it == endpoint.pod.namespace);
    let seen = service.ask(move |state| seen(state, wanted)).await?;
    let endpoints = seen.iter().map(|seen| endpoint(service, seen)).collect();
    Ok(pb::ListEndpointsResponse { endpoints })
}

pub(super) async fn get(
    service: &AdminService,
    request: pb::GetEndpointRequest,
) -> Result<pb::GetEndpointResponse, Status> {
    let pb::GetEndpointRequest { which } = request;
    let wanted = Wanted::try_from(which)?;
    let words = wanted.words();
    let found = service.ask(move |state| {
        let seen = seen(state, |endpoint| wanted.is(endpoint));
        seen.into_iter().map(|seen| (entries::of(state, &seen.local), seen)).collect::<Vec<_>>()
    });
    let found = found.await?;
    if found.is_empty() {
        return Err(Status::not_found(format!(
            "no endpoint of this node {words}: `bulkhead endpoint list` shows those there are"
        )));
    }
    let endpoints = found
        .into_iter()
        .map(|(entries, seen)| pb::EndpointDetail { endpoint: Some(endpoint(service, &seen)), entries });
    Ok(pb::GetEndpointResponse { endpoints: endpoints.collect() })
}

/// Which endpoint is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted {
    Pod(PodKey),
    /// The beginning of its id.
    Container(String),
    Ip(IpAddr),
    Slot(u32),
}

impl TryFrom<Option<Which>> for Wanted {
    type Error = Status;

    fn try_from(which: Option<Which>) -> Result<Self, Status> {
        match which {
            None => Err(Status::invalid_argument("which is missing: name a pod, a container id, an ip or a slot")),
            Some(Which::Pod(pod)) => convert::pod_key("pod", &pod).map(Self::Pod),
            Some(Which::Ip(ip)) => convert::ip("ip", &ip).map(Self::Ip),
            Some(Which::Slot(0)) => Err(Status::invalid_argument("slot 0 is nobody's: slots begin at 1")),
            Some(Which::Slot(slot)) => Ok(Self::Slot(slot)),
            Some(Which::ContainerId(id)) if (MIN_ID..=MAX_ID).contains(&id.len()) => Ok(Self::Container(id)),
            Some(Which::ContainerId(id)) => Err(Status::invalid_argument(format!(
                "container_id {} has {} bytes: give the first {MIN_ID} characters or more, at most {MAX_ID}",
                convert::quoted(&id),
                id.len()
            ))),
        }
    }
}

impl Wanted {
    fn is(&self, endpoint: &LocalEndpoint) -> bool {
        match self {
            Self::Pod(pod) => endpoint.pod == *pod,
            Self::Container(id) => endpoint.key.container_id.starts_with(id),
            Self::Ip(ip) => endpoint.ips().any(|own| own == *ip),
            Self::Slot(slot) => endpoint.slot == *slot,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Pod(pod) => format!("belongs to a pod {pod}"),
            Self::Container(id) => format!("has a container id that begins with {}", convert::quoted(id)),
            Self::Ip(ip) => format!("has the address {ip}"),
            Self::Slot(slot) => format!("is in slot {slot}"),
        }
    }
}

/// An endpoint as the engine knows it.
#[derive(Clone, Debug)]
struct Seen {
    local: LocalEndpoint,
    /// `None` before it was part of a plan.
    view: Option<EndpointView>,
    /// Its entry in ENDPOINTS.
    found: Option<Endpoint>,
    refusals: Vec<Refusal>,
    trouble: Option<String>,
    synced: bool,
}

/// Copies the endpoints that are wanted out of the engine, sorted as the API says.
fn seen(state: &State, wanted: impl Fn(&LocalEndpoint) -> bool) -> Vec<Seen> {
    let views = state.planner.views(&state.mirror);
    let mut views: BTreeMap<u32, EndpointView> = views.into_iter().map(|view| (view.endpoint.slot, view)).collect();
    let local = state.planner.endpoints().filter(|endpoint| wanted(endpoint));
    let mut seen: Vec<Seen> = local
        .map(|local| Seen {
            view: views.remove(&local.slot),
            found: state.mirror.endpoints.get(&local.slot).copied(),
            refusals: state.refusals.iter().filter(|refusal| refusal.pod == local.pod).cloned().collect(),
            trouble: state.trouble.clone(),
            synced: state.synced,
            local: local.clone(),
        })
        .collect();
    seen.sort_by(|a, b| order(&a.local).cmp(&order(&b.local)));
    seen
}

fn order(endpoint: &LocalEndpoint) -> (&PodKey, &str, &str) {
    let EndpointKey { container_id, ifname } = &endpoint.key;
    (&endpoint.pod, ifname, container_id)
}

fn endpoint(service: &AdminService, seen: &Seen) -> pb::Endpoint {
    let LocalEndpoint { key, pod, slot, ifindex, mac, v4: _, v6: _ } = &seen.local;
    let extra = (service.parts.extras)(key);
    let (state, state_reason) = state_of(seen, extra.as_ref().map(|extra| extra.stage));
    let known = seen.view.as_ref().map(|view| &view.pod);
    let EndpointExtra { netns, host_ifname, created, stage: _ } = extra.unwrap_or(EndpointExtra {
        netns: String::new(),
        host_ifname: String::new(),
        created: UNIX_EPOCH,
        stage: Stage::Attached,
    });
    pb::Endpoint {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        container_id: key.container_id.clone(),
        ifname: key.ifname.clone(),
        host_ifname,
        ifindex: *ifindex,
        ips: seen.local.ips().map(|ip| ip.to_string()).collect(),
        mac: mac.map(|byte| format!("{byte:02x}")).join(":"),
        identity: seen.view.as_ref().map(|view| view.identity).or(seen.found.map(|found| found.identity)).unwrap_or(0),
        labels: known.map(|pod| convert::labels(&pod.labels)).unwrap_or_default(),
        service_account: known.map(|pod| pod.service_account.clone()).unwrap_or_default(),
        workload: known.and_then(|pod| pod.workload.as_ref()).map(convert::workload),
        slot: *slot,
        directions: convert::DIRECTIONS.map(|direction| side(seen, direction)).into(),
        state: state as i32,
        state_reason,
        has_object: seen.view.as_ref().is_some_and(|view| view.has_object),
        netns,
        created_unix_seconds: created.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    }
}

fn view_of(seen: &Seen, direction: Direction) -> Option<&DirectionView> {
    seen.view.as_ref()?.directions.iter().find(|view| view.direction == direction)
}

/// One direction: the pointer in force, and the policies that should hold.
fn side(seen: &Seen, direction: Direction) -> pb::EndpointDirection {
    // An endpoint that is not in the map is denied everything.
    let denied = RulesPtr::new(0, RulesPtr::ISOLATED, 0);
    let rules = seen.found.map_or(denied, |found| RulesPtr(found.rules[direction as usize]));
    let policies = view_of(seen, direction).map(|view| view.table.policies()).unwrap_or_default();
    pb::EndpointDirection {
        direction: convert::direction(direction),
        isolated: rules.has(RulesPtr::ISOLATED),
        rule_set: rules.ruleset(),
        generation: rules.generation(),
        policies: policies.iter().map(convert::policy).collect(),
    }
}

/// How far the endpoint is, with a reason for whatever is not ready.
fn state_of(seen: &Seen, stage: Option<Stage>) -> (EndpointState, String) {
    match stage {
        Some(Stage::Deleting) => return (EndpointState::Deleting, "DEL is under way".to_owned()),
        Some(Stage::Lost) => {
            return (EndpointState::Lost, "its interface is gone and nobody has called DEL".to_owned());
        }
        Some(Stage::Creating | Stage::Attached) | None => {}
    }
    if seen.found.is_none() {
        let reason =
            if seen.synced { "its rules are not in the kernel yet" } else { "waits for the source to be read" };
        return (EndpointState::Creating, reason.to_owned());
    }
    if let Some(reason) = stale(seen) {
        return (EndpointState::Stale, reason);
    }
    match stage {
        Some(Stage::Creating) => (EndpointState::Creating, "ADD is under way".to_owned()),
        _ => (EndpointState::Ready, String::new()),
    }
}

/// Why the rules in force may be other than those that should be.
fn stale(seen: &Seen) -> Option<String> {
    if !seen.synced {
        return Some("the source has not been read yet: the rules of the previous daemon hold".to_owned());
    }
    if let Some(trouble) = &seen.trouble {
        return Some(format!("the kernel refused a write: {trouble}"));
    }
    let incomplete = convert::DIRECTIONS.into_iter().filter(|&it| view_of(seen, it).is_some_and(|view| !view.complete));
    let reasons: Vec<String> = incomplete
        .map(|direction| {
            let word = convert::direction_word(direction);
            match seen.refusals.iter().find(|refusal| refusal.direction == direction) {
                Some(refusal) => format!("{word}: {}; {}", refusal.reason, status::meanwhile(refusal)),
                None => format!("{word}: its new rules are on their way"),
            }
        })
        .collect();
    (!reasons.is_empty()).then(|| reasons.join(". "))
}
