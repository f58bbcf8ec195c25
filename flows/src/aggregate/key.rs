//! By what records are told apart. A key is made of what all records of its group have in common, so that the key of a
//! group is that of its record.

use std::net::IpAddr;

use datapath_abi::{event::EndReason, event::EventKind, policy::Direction};

use crate::record::{End, FlowRecord, Ruling, ServiceInfo, protocol};

/// How much of a record its key holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Detail {
    /// All there is.
    Everything,
    /// Neither ports nor addresses, nor names that were looked up.
    Ends,
    /// What happened, and nothing else.
    Event,
}

impl Detail {
    /// The most of it first.
    pub(super) const ALL: [Self; 3] = [Self::Everything, Self::Ends, Self::Event];
}

/// See the module.
#[derive(PartialEq, Eq, Hash, Debug)]
pub(super) struct Key<'a> {
    detail: Detail,
    kind: EventKind,
    end_reason: Option<EndReason>,
    is_v4: bool,
    ends: Option<Ends<'a>>,
    what: Option<What<'a>>,
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct Ends<'a> {
    source: Who<'a>,
    destination: Who<'a>,
    /// On which side of the connection this node is.
    local: [bool; 2],
    direction: Option<Direction>,
    protocol: u8,
    reply: bool,
    rulings: [Ruled; 2],
}

#[derive(PartialEq, Eq, Hash, Debug)]
struct What<'a> {
    /// Of the destination; of ICMP type and code.
    port: u16,
    /// Of ends that are no pods.
    addresses: [Option<IpAddr>; 2],
    service: Option<(&'a str, &'a str)>,
    asked: Option<(&'a str, u16)>,
}

/// Who an end is.
#[derive(PartialEq, Eq, Hash, Debug)]
enum Who<'a> {
    Workload {
        namespace: &'a str,
        kind: &'a str,
        name: &'a str,
    },
    /// A pod that nothing owns.
    Pod {
        namespace: &'a str,
        name: &'a str,
    },
    Identity(u32),
}

/// What policies said, as numbers.
#[derive(PartialEq, Eq, Hash, Debug)]
enum Ruled {
    NotAsked,
    Open,
    Rule(u32),
    Exempt,
    Against,
}

impl<'a> Key<'a> {
    pub(super) fn of(record: &'a FlowRecord, detail: Detail) -> Self {
        let ends = || Ends {
            source: who(&record.source),
            destination: who(&record.destination),
            local: [record.source.is_local(), record.destination.is_local()],
            direction: record.direction(),
            protocol: record.protocol,
            reply: record.reply,
            rulings: [ruled(&record.egress), ruled(&record.ingress)],
        };
        let what = || What {
            port: match record.protocol {
                protocol::ICMP | protocol::ICMPV6 => {
                    record.icmp.map_or(0, |icmp| u16::from(icmp.kind) << 8 | u16::from(icmp.code))
                }
                _ => record.destination.port,
            },
            addresses: [&record.source, &record.destination].map(|end| outside(end).then_some(end.ip)),
            service: record
                .destination
                .service
                .as_deref()
                .map(|ServiceInfo { namespace, name }| (&**namespace, &**name)),
            asked: record.dns.as_deref().map(|lookup| (&*lookup.question.name, lookup.question.rtype)),
        };
        Self {
            detail,
            kind: record.kind,
            end_reason: record.end_reason,
            is_v4: record.source.ip.is_ipv4(),
            ends: (detail <= Detail::Ends).then(ends),
            what: (detail == Detail::Everything).then(what),
        }
    }
}

/// Whether an end is told by its address, for want of a name.
fn outside(end: &End) -> bool {
    end.pod.is_none() && end.known_as.is_none()
}

fn who(end: &End) -> Who<'_> {
    let Some(pod) = end.pod.as_deref() else { return Who::Identity(end.identity) };
    match &pod.workload {
        Some(workload) => Who::Workload { namespace: &pod.namespace, kind: &workload.kind, name: &workload.name },
        None => Who::Pod { namespace: &pod.namespace, name: &pod.name },
    }
}

fn ruled(ruling: &Ruling) -> Ruled {
    match ruling {
        Ruling::NotAsked => Ruled::NotAsked,
        Ruling::Open => Ruled::Open,
        Ruling::Allowed(rule) => Ruled::Rule(rule.cookie),
        Ruling::Exempt => Ruled::Exempt,
        Ruling::Denied(_) | Ruling::Isolated(_) => Ruled::Against,
    }
}
