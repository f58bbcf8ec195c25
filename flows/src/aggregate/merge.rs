//! One record of many: what they have in common stays, numbers are added up, the rest goes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
};

use datapath_abi::{endpoint::NO_SLOT, event::EventKind};

use super::key::Detail;
use crate::record::{Aggregate, End, FlowRecord, PodInfo, Ruling, Traffic};

/// The mean of handshakes' round trip times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    sum_us: u64,
    count: u64,
}

impl Mean {
    pub(super) fn of(record: &FlowRecord) -> Self {
        let mut mean = Self::default();
        mean.add(record);
        mean
    }

    fn add(&mut self, record: &FlowRecord) {
        if let Some(rtt) = record.rtt_us {
            self.sum_us += u64::from(u32::from(rtt));
            self.count += 1;
        }
    }

    pub(super) fn value(self) -> Option<NonZeroU32> {
        let mean = self.sum_us.checked_div(self.count)?;
        NonZeroU32::new(u32::try_from(mean).unwrap_or(u32::MAX))
    }
}

/// The record of a group, of its first.
pub(super) fn first(record: &FlowRecord, detail: Detail) -> FlowRecord {
    let mut group = record.clone();
    group.aggregate = Some(Box::new(Aggregate::of(record)));
    (group.forward, group.reverse) = volume(record);
    if detail > Detail::Everything {
        for end in [&mut group.source, &mut group.destination] {
            end.ip = nowhere(end.ip);
            end.port = 0;
            end.dns_names = None;
            end.service = None;
        }
        (group.icmp, group.addressed, group.dns) = (None, None, None);
    }
    if detail > Detail::Ends {
        for end in [&mut group.source, &mut group.destination] {
            (end.pod, end.known_as, end.identity, end.slot) = (None, None, 0, NO_SLOT);
        }
        (group.egress, group.ingress) = (Ruling::NotAsked, Ruling::NotAsked);
        group.protocol = 0;
    }
    group
}

/// Adds a record to that of its group.
pub(super) fn into(group: &mut FlowRecord, rtt: &mut Mean, record: &FlowRecord) {
    if let Some(aggregate) = &mut group.aggregate {
        aggregate.count += 1;
        // Records of several processors are not in the order of their clocks.
        aggregate.first_unix_ns = aggregate.first_unix_ns.min(record.time_unix_ns);
    }
    group.time_unix_ns = group.time_unix_ns.max(record.time_unix_ns);
    group.sequence = group.sequence.max(record.sequence);
    group.opened_unix_ns = group.opened_unix_ns.zip(record.opened_unix_ns).map(|(one, other)| one.min(other));
    let (forward, reverse) = volume(record);
    add(&mut group.forward, forward);
    add(&mut group.reverse, reverse);
    rtt.add(record);
    end(&mut group.source, &record.source);
    end(&mut group.destination, &record.destination);
    keep(&mut group.icmp, &record.icmp);
    keep(&mut group.addressed, &record.addressed);
    keep(&mut group.staged_egress, &record.staged_egress);
    keep(&mut group.staged_ingress, &record.staged_ingress);
    if group.ifindex != record.ifindex {
        group.ifindex = 0;
    }
}

/// What a record adds to the sum. Totals so far would be counted again when the connection ends.
fn volume(record: &FlowRecord) -> (Traffic, Traffic) {
    match record.kind {
        EventKind::Active => (Traffic::default(), Traffic::default()),
        EventKind::Opened | EventKind::Dropped | EventKind::Closed | EventKind::Dns => (record.forward, record.reverse),
    }
}

fn add(sum: &mut Traffic, more: Traffic) {
    sum.packets = sum.packets.saturating_add(more.packets);
    sum.bytes = sum.bytes.saturating_add(more.bytes);
    sum.tcp_flags |= more.tcp_flags;
}

/// What differs is not told.
fn keep<T: PartialEq>(kept: &mut Option<T>, other: &Option<T>) {
    if kept != other {
        *kept = None;
    }
}

fn nowhere(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn end(kept: &mut End, other: &End) {
    if kept.ip != other.ip {
        kept.ip = nowhere(kept.ip);
    }
    if kept.port != other.port {
        kept.port = 0;
    }
    if kept.identity != other.identity {
        (kept.identity, kept.known_as) = (0, None);
    }
    keep(&mut kept.dns_names, &other.dns_names);
    keep(&mut kept.service, &other.service);
    let (Some(pod), Some(another)) = (&kept.pod, &other.pod) else { return };
    if (&pod.uid, &pod.name) != (&another.uid, &another.name) {
        // Of the pods of a workload remains the workload.
        let labels = if pod.labels == another.labels { pod.labels.clone() } else { Arc::default() };
        let same = pod.service_account == another.service_account;
        kept.pod = Some(Arc::new(PodInfo {
            namespace: pod.namespace.clone(),
            name: if pod.name == another.name { pod.name.clone() } else { String::new() },
            workload: pod.workload.clone(),
            service_account: if same { pod.service_account.clone() } else { String::new() },
            labels,
            identity: kept.identity,
            ..PodInfo::default()
        }));
    }
}
