//! Who is meant by the two ends of a question, and at which addresses they talk.

use std::{collections::BTreeMap, net::IpAddr};

use datapath_abi::{addr::Addr, identity};
use policy::{
    View,
    compile::compile_pod,
    model::{Pod, PodKey, canonical_ip},
    world::{End, Flow, World},
};
use proto::bulkhead::admin::v1::{self as pb, party::Who};
use tonic::Status;

use super::{Asked, ICMP, ICMPV6, Known};
use crate::app::admin::{convert, endpoints::cidr};

/// Pods that are named when a workload is not clear.
const MAX_NAMED: usize = 10;

/// One end as it was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Pod { field: &'static str, pod: PodKey },
    Workload { field: &'static str, namespace: String, kind: String, name: String },
    Ip(IpAddr),
}

impl Wanted {
    pub(super) fn parse(field: &'static str, party: Option<pb::Party>) -> Result<Self, Status> {
        match party.and_then(|pb::Party { who }| who) {
            None => {
                Err(Status::invalid_argument(format!("{field} is missing: name a pod, a workload or an IP address")))
            }
            Some(Who::Pod(pod)) => Ok(Self::Pod { field, pod: convert::pod_key(&format!("{field}.pod"), &pod)? }),
            Some(Who::Ip(ip)) => convert::ip(&format!("{field}.ip"), &ip).map(Self::Ip),
            Some(Who::Workload(pb::WorkloadName { namespace, kind, name })) => {
                let part = |part: &str, text: &str| {
                    convert::name(&format!("{field}.workload.{part}"), text).map(str::to_owned)
                };
                let (namespace, kind) = (part("namespace", &namespace)?, part("kind", &kind)?);
                let name = part("name", &name)?;
                if kind == "Pod" {
                    return Ok(Self::Pod { field, pod: PodKey::new(namespace, name) });
                }
                Ok(Self::Workload { field, namespace, kind, name })
            }
        }
    }

    /// Whether this pod may be meant.
    pub(super) fn may_be(&self, pod: &Pod) -> bool {
        match self {
            Self::Pod { field: _, pod: key } => pod.key == *key,
            Self::Ip(ip) => pod.ips.contains(ip),
            Self::Workload { field: _, namespace, kind, name } => {
                let of = pod.workload.as_ref();
                pod.key.namespace == *namespace && of.is_some_and(|of| of.kind == *kind && of.name == *name)
            }
        }
    }

    /// The ends this may be, by address; `true` where the address is assumed.
    fn ends(&self, known: &Known, world: &World<'_>) -> Result<Vec<(End, bool)>, Status> {
        match self {
            Self::Ip(ip) => Ok(vec![(world.end(*ip), false)]),
            Self::Pod { field, pod } => match known.index.pod(pod) {
                Some(pod) => Ok(ends_of(known, pod)),
                None => Err(Status::not_found(format!(
                    "{field}: there is no pod {pod}: add a Pod object, start it, or ask for an IP address"
                ))),
            },
            Self::Workload { field, namespace, kind, name } => {
                let pods: Vec<&Pod> = known.index.pods().filter(|pod| !pod.finished && self.may_be(pod)).collect();
                if pods.is_empty() {
                    let what = format!("{kind} {name} of namespace {namespace}");
                    return Err(Status::not_found(format!("{field}: there are no pods of {what}: name a pod instead")));
                }
                one_of(known, field, &pods).map(|pod| ends_of(known, pod))
            }
        }
    }
}

/// Any of a workload's pods, if they are all the same to policy. One that is here and has an
/// address says most.
fn one_of<'a>(known: &Known, field: &str, pods: &[&'a Pod]) -> Result<&'a Pod, Status> {
    let mut kinds: BTreeMap<_, Vec<&'a Pod>> = BTreeMap::new();
    for &pod in pods {
        let rules =
            convert::DIRECTIONS.map(|direction| compile_pod(&known.index, pod, direction, View::Enforced).digest());
        kinds.entry((rules, known.index.identity_of(pod), pod.host_network)).or_default().push(pod);
    }
    let best = |pod: &&Pod| (known.endpoint(&pod.key).is_some(), !pod.ips.is_empty());
    // Of equals the last is the greatest, and the first name is wanted.
    if let (1, Some(pod)) = (kinds.len(), pods.iter().rev().copied().max_by_key(best)) {
        return Ok(pod);
    }
    let mut names: Vec<String> = kinds.values().filter_map(|pods| Some(pods.first()?.key.to_string())).collect();
    names.sort_unstable();
    names.truncate(MAX_NAMED);
    let count = pods.len();
    Err(Status::invalid_argument(format!(
        "{field}: the {count} pods of this workload do not all have the same labels and rules: ask for one pod, such \
         as {}",
        names.join(", ")
    )))
}

/// A pod at each of its addresses; one that has none yet at addresses it might get.
fn ends_of(known: &Known, pod: &Pod) -> Vec<(End, bool)> {
    if !pod.ips.is_empty() {
        return pod.ips.iter().map(|ip| (End::Pod(pod.key.clone(), *ip), false)).collect();
    }
    let ranges = known.cidrs.keys().map(|(addr, _)| canonical_ip(IpAddr::from(*addr)));
    ranges.map(|ip| (End::Pod(pod.key.clone(), ip), true)).collect()
}

/// A flow, and which of its ends (source, destination) have an address that is only assumed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Chosen {
    pub(super) flow: Flow,
    pub(super) assumed: [bool; 2],
}

/// The flow that is meant: between addresses of one family, IPv4 if both have that.
pub(super) fn flow(
    known: &Known,
    world: &World<'_>,
    source: &Wanted,
    destination: &Wanted,
    asked: Asked,
) -> Result<Chosen, Status> {
    let (from, to) = (source.ends(known, world)?, destination.ends(known, world)?);
    let fits = |ip: IpAddr| match asked.proto {
        ICMP => ip.is_ipv4(),
        ICMPV6 => ip.is_ipv6(),
        _ => true,
    };
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
    let same = pairs.filter(|((from, _), (to, _))| from.ip().is_ipv4() == to.ip().is_ipv4() && fits(to.ip()));
    match same.min_by_key(|((from, _), _)| from.ip().is_ipv6()) {
        Some(((source, source_assumed), (destination, destination_assumed))) => {
            let (source, destination) = (source.clone(), destination.clone());
            let flow = Flow { source, destination, proto: asked.proto, port: asked.port };
            Ok(Chosen { flow, assumed: [*source_assumed, *destination_assumed] })
        }
        None => Err(Status::invalid_argument(format!(
            "source and destination have no address family in common that {} runs over: source has {}, destination {}",
            asked.name,
            families(&from),
            families(&to)
        ))),
    }
}

fn families(ends: &[(End, bool)]) -> &'static str {
    match (ends.iter().any(|(end, _)| end.ip().is_ipv4()), ends.iter().any(|(end, _)| end.ip().is_ipv6())) {
        (true, true) => "IPv4 and IPv6",
        (true, false) => "IPv4",
        (false, true) => "IPv6",
        (false, false) => "no address",
    }
}

/// The number that an address stands for in the kernel's maps.
fn identity_at(known: &Known, ip: IpAddr) -> u32 {
    if let Some(entry) = known.addresses.get(&Addr::from(ip)) {
        return entry.identity;
    }
    range_of(known, ip).and_then(|range| known.cidrs.get(&range)).map_or(identity::WORLD, |entry| entry.identity)
}

/// The longest range of the map CIDRS that holds an address, found as the kernel finds it.
fn range_of(known: &Known, ip: IpAddr) -> Option<(Addr, u8)> {
    let bits = |addr: Addr| u128::from_be_bytes(addr.octets());
    let wanted = bits(Addr::from(ip));
    let holds = |(addr, length): &&(Addr, u8)| {
        let mask = u128::MAX.checked_shl(128 - u32::from(*length)).unwrap_or(0);
        bits(*addr) & mask == wanted & mask
    };
    known.cidrs.keys().filter(holds).max_by_key(|(_, length)| *length).copied()
}

/// The number that an end shows to the other in the kernel.
pub(super) fn identity_of(known: &Known, end: &End) -> u32 {
    match end {
        End::Pod(key, ip) => known.numbers.get(key).copied().unwrap_or_else(|| identity_at(known, *ip)),
        other => identity_at(known, other.ip()),
    }
}

/// An end for the answer. An address that is only assumed is not told.
pub(super) fn party(known: &Known, end: &End, assumed: bool) -> pb::ExplainedParty {
    let number = identity_of(known, end);
    let mut party = pb::ExplainedParty {
        ip: if assumed { String::new() } else { end.ip().to_string() },
        identity: number,
        reserved_name: convert::reserved_name(number).to_owned(),
        ..pb::ExplainedParty::default()
    };
    if let End::Pod(key, _) = end {
        party.namespace.clone_from(&key.namespace);
        party.pod.clone_from(&key.name);
        party.local = known.endpoint(key).is_some();
        if let Some(pod) = known.index.pod(key) {
            party.workload = pod.workload.as_ref().map(convert::workload);
            party.labels = convert::labels(&pod.labels);
        }
    }
    party
}

/// What is worth knowing of an end.
pub(super) fn note(known: &Known, end: &End, assumed: bool) -> Option<String> {
    match end {
        End::Pod(key, ip) if assumed => {
            let range = range_of(known, *ip).map_or_else(|| ip.to_string(), |(addr, length)| cidr(addr, length));
            Some(format!("{key} has no address yet: one of {range} is assumed, which matters to rules with ipBlock"))
        }
        End::Pod(key, _) if known.endpoint(key).is_some_and(|view| !view.has_object) => {
            Some(format!("{key} has no Pod object in the source, so it has no labels and no named ports"))
        }
        End::Outside(ip) if identity_at(known, *ip) == identity::UNMANAGED => {
            Some(format!("{ip} is in a range of pod addresses, but no pod has it"))
        }
        End::Pod(..) | End::LocalNode(_) | End::Node(_) | End::Outside(_) => None,
    }
}
