//! Joins an event with what the cluster knows. Pure: what is known comes through [`Context`],
//! the time through [`WallClock`]. No strings are made here, so that a busy node affords it.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};

use datapath_abi::{
    addr::Addr,
    endpoint::{NO_SLOT, RulesPtr},
    event::{DIRECTION_NONE, EndReason, EventKind, FlowEvent, Hook, STAGED_ALLOWS, STAGED_NOT_ASKED},
    policy::Direction,
    reason::DropReason,
};

use dns::Told;

use crate::record::{
    End, FlowRecord, Icmp, IdentityInfo, Node, PodInfo, PolicyInfo, RuleInfo, RuleRef, Ruling, ServiceInfo, Traffic,
    protocol,
};

/// What the cluster knows. The daemon implements it with snapshots in which retired entries
/// stay for a while, because an event may be older than the change that retired them.
pub trait Context {
    /// What an identity number stands for; `None` for reserved and unknown numbers.
    fn identity(&self, number: u32) -> Option<Arc<IdentityInfo>>;

    /// The pod that had `addr` at `time_ns` (CLOCK_MONOTONIC). An implementation that keeps no
    /// past owners may ignore the time.
    fn pod_by_addr(&self, addr: IpAddr, time_ns: u64) -> Option<Arc<PodInfo>>;

    /// The pod of this node that had the slot at `time_ns`.
    fn pod_by_slot(&self, _slot: u32, _time_ns: u64) -> Option<Arc<PodInfo>> {
        None
    }

    /// The rule behind a cookie.
    fn rule(&self, cookie: u32) -> Option<Arc<RuleInfo>>;

    /// The policies that isolate whoever has these rules; if none does, those whose rules they are. The generation in `rules` is unique on
    /// the node, its rule set may be shared by several endpoints.
    fn isolating(&self, rules: RulesPtr) -> Option<Arc<[Arc<PolicyInfo>]>>;

    /// The policies, staged ones among them, that would isolate the endpoint in this slot.
    fn staged_isolating(&self, _slot: u32, _direction: Direction) -> Option<Arc<[Arc<PolicyInfo>]>> {
        None
    }

    /// The service that is reached under this address and port.
    fn service(&self, _addr: IpAddr, _port: u16, _protocol: u8) -> Option<Arc<ServiceInfo>> {
        None
    }

    /// DNS names under which the pod of this node in `slot` knew `addr` at `time_ns`.
    fn dns_names(&self, _slot: u32, _addr: IpAddr, _time_ns: u64) -> Option<Arc<[String]>> {
        None
    }
}

/// Turns the kernel's monotonic time into time of day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WallClock {
    offset_ns: i64,
}

impl WallClock {
    /// From one reading of both clocks at the same moment.
    pub fn new(monotonic_ns: u64, unix_ns: u64) -> Self {
        Self { offset_ns: unix_ns.wrapping_sub(monotonic_ns) as i64 }
    }

    /// Time of day, nanoseconds since 1970, of a monotonic time.
    pub fn unix_ns(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add_signed(self.offset_ns)
    }
}

/// The event does not follow the contract of `datapath_abi::event`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Wrong size.
    #[error("event of {0} bytes, want {size}", size = size_of::<FlowEvent>())]
    Size(usize),
    /// Unknown kind.
    #[error("unknown event kind {0}")]
    Kind(u8),
    /// A drop without a known reason.
    #[error("unknown drop reason {0}")]
    Reason(u8),
    /// Unknown end.
    #[error("unknown end reason {0}")]
    End(u8),
    /// Unknown direction.
    #[error("unknown direction {0}")]
    Direction(u8),
    /// Unknown hook.
    #[error("unknown hook {0}")]
    Hook(u8),
}

/// Makes the record of an event.
///
/// # Errors
/// A number in the event that the contract does not know.
pub fn enrich<C: Context + ?Sized>(
    event: &FlowEvent,
    sequence: u64,
    node: &Arc<Node>,
    clock: WallClock,
    context: &C,
) -> Result<FlowRecord, Malformed> {
    if event.kind == EventKind::Dns as u8 {
        return Err(Malformed::Kind(event.kind));
    }
    join(event, sequence, node, clock, context)
}

/// Makes the record of a lookup: source is who has asked, destination the server. No policies are in it, the connection has
/// records of its own.
///
/// # Errors
/// As [`enrich`].
pub fn enrich_lookup<C: Context + ?Sized>(
    told: Told,
    sequence: u64,
    node: &Arc<Node>,
    clock: WallClock,
    context: &C,
) -> Result<FlowRecord, Malformed> {
    let Told { packet, time_ns, bytes, lookup, resolved: _ } = told;
    let event = FlowEvent {
        time_ns,
        addr: packet.addr,
        packets: bytes.map(|bytes| u64::from(bytes != 0)),
        bytes: bytes.map(u64::from),
        identity: packet.identity,
        slot: packet.slot,
        created_ns: packet.created_ns,
        ifindex: packet.ifindex,
        port: packet.port,
        proto: packet.proto,
        kind: EventKind::Dns as u8,
        direction: DIRECTION_NONE,
        hook: packet.hook,
        service: packet.service,
        ..FlowEvent::default()
    };
    let record = join(&event, sequence, node, clock, context)?;
    Ok(FlowRecord { egress: Ruling::NotAsked, ingress: Ruling::NotAsked, dns: Some(Arc::new(lookup)), ..record })
}

fn join<C: Context + ?Sized>(
    event: &FlowEvent,
    sequence: u64,
    node: &Arc<Node>,
    clock: WallClock,
    context: &C,
) -> Result<FlowRecord, Malformed> {
    let FlowEvent {
        time_ns,
        addr: [source_addr, destination_addr],
        rules: [egress_rules, ingress_rules],
        packets,
        bytes,
        identity,
        slot,
        cookie,
        staged_cookie,
        created_ns,
        rtt_us,
        ifindex,
        port,
        proto,
        kind,
        reason,
        end,
        direction,
        hook,
        tcp_flags,
        reply,
        staged,
        pad: _,
        service,
    } = *event;
    let kind = EventKind::try_from(kind).map_err(Malformed::Kind)?;
    let drop_reason = match kind {
        EventKind::Dropped => Some(DropReason::try_from(reason).map_err(Malformed::Reason)?),
        EventKind::Opened | EventKind::Closed | EventKind::Active | EventKind::Dns => None,
    };
    let end_reason = match (kind, end) {
        (EventKind::Closed, end) => Some(EndReason::try_from(end).map_err(Malformed::End)?),
        (EventKind::Opened | EventKind::Dropped | EventKind::Active | EventKind::Dns, _) => None,
    };
    let denied_in = match direction {
        DIRECTION_NONE => None,
        other => Some(direction_of(other).ok_or(Malformed::Direction(other))?),
    };
    let hook = match hook {
        0 => Hook::FromPod,
        1 => Hook::ToPod,
        2 => Hook::FromUplink,
        other => return Err(Malformed::Hook(other)),
    };
    let icmp =
        matches!(proto, protocol::ICMP | protocol::ICMPV6).then_some(Icmp { kind: port[0] as u8, code: port[1] as u8 });
    let ports = if icmp.is_some() { [0, 0] } else { port };

    let responder = if reply != 0 { 0 } else { 1 };
    let addressed = (service.port != 0).then(|| SocketAddr::new(IpAddr::from(service.addr), service.port));

    // The owner of an address when the connection began is its owner all along.
    let alive_ns = if created_ns == 0 { time_ns } else { created_ns };
    let end_of = |addr: Addr, side: usize| {
        let ip = IpAddr::from(addr);
        let known_as = context.identity(identity[side]);
        // Whose address a forger has taken is not who has sent it, least of all with equal labels. Who has sent what is dropped
        // where it leaves its pod, the interface tells.
        let forged = side == 0
            && matches!(
                drop_reason,
                Some(DropReason::InvalidSourceIp | DropReason::InvalidSourceMac | DropReason::Martian)
            );
        let sent_here = side == 0 && drop_reason.is_some() && hook == Hook::FromPod && slot[side] != NO_SLOT;
        let by_slot = if sent_here { context.pod_by_slot(slot[side], time_ns) } else { None };
        let pod = by_slot.or_else(|| if forged { None } else { context.pod_by_addr(ip, alive_ns) });
        let pod = pod.filter(|pod| {
            // An address that has gone to another namespace names the wrong pod.
            pod.identity == identity[side] || known_as.as_ref().is_some_and(|known| known.namespace == pod.namespace)
        });
        End {
            ip,
            port: ports[side],
            identity: identity[side],
            slot: slot[side],
            service: match addressed {
                Some(addressed) if side == responder => context.service(addressed.ip(), addressed.port(), proto),
                _ => context.service(ip, ports[side], proto),
            },
            // As the pod at the other end knew it, when it began to talk to it.
            dns_names: match slot[1 - side] {
                other if pod.is_none() && other != NO_SLOT => context.dns_names(other, ip, alive_ns),
                _ => None,
            },
            pod,
            known_as,
        }
    };
    let ruling = |direction: Direction, rules: u64| {
        let side = direction as usize;
        // Egress was asked of the initiator, which a reply goes to.
        let end = if reply != 0 { 1 - side } else { side };
        let asked = Asked {
            rules: RulesPtr(rules),
            cookie: cookie[side],
            local: slot[end] != NO_SLOT,
            denied: denied_in == Some(direction),
            drop_reason,
        };
        ruling(asked, context)
    };

    let would_rule = |direction: Direction| {
        let side = direction as usize;
        let end = if reply != 0 { 1 - side } else { side };
        staged_ruling(staged[side], staged_cookie[side], slot[end], direction, context)
    };
    let staged_egress = would_rule(Direction::Egress)?;
    let staged_ingress = would_rule(Direction::Ingress)?;

    Ok(FlowRecord {
        sequence,
        time_unix_ns: clock.unix_ns(time_ns),
        // A dropped packet is no connection, whatever time it carries.
        opened_unix_ns: (created_ns != 0 && drop_reason.is_none()).then(|| clock.unix_ns(created_ns)),
        node: node.clone(),
        kind,
        reply: reply != 0,
        source: end_of(source_addr, 0),
        destination: end_of(destination_addr, 1),
        protocol: proto,
        icmp,
        drop_reason,
        denied_in,
        end_reason,
        hook,
        ifindex,
        forward: Traffic { packets: packets[0], bytes: bytes[0], tcp_flags: tcp_flags[0] },
        reverse: Traffic { packets: packets[1], bytes: bytes[1], tcp_flags: tcp_flags[1] },
        rtt_us: NonZeroU32::new(rtt_us),
        addressed,
        egress: ruling(Direction::Egress, egress_rules),
        ingress: ruling(Direction::Ingress, ingress_rules),
        staged_egress,
        staged_ingress,
        dns: None,
        aggregate: None,
    })
}

/// What an event says about one end's policies.
struct Asked {
    rules: RulesPtr,
    cookie: u32,
    local: bool,
    /// These are the ones that denied the packet.
    denied: bool,
    drop_reason: Option<DropReason>,
}

/// What one end's policies said.
fn ruling<C: Context + ?Sized>(asked: Asked, context: &C) -> Ruling {
    let Asked { rules, cookie, local, denied, drop_reason } = asked;
    let rule = || RuleRef { cookie, info: context.rule(cookie) };
    let isolated = || Ruling::Isolated(context.isolating(rules).unwrap_or_default());
    match drop_reason {
        Some(DropReason::DefaultDeny) if denied => isolated(),
        Some(_) if denied && cookie != 0 => Ruling::Denied(rule()),
        Some(_) if denied => isolated(),
        _ if cookie != 0 => Ruling::Allowed(rule()),
        _ if !local => Ruling::NotAsked,
        // A drop may come before this end's policies were asked.
        Some(_) if rules.0 == 0 => Ruling::NotAsked,
        Some(reason) if needs_rules(reason) && rules.is_ruled() => isolated(),
        _ if !rules.has(RulesPtr::ISOLATED) => Ruling::Open,
        Some(_) => Ruling::NotAsked,
        None => Ruling::Exempt,
    }
}

/// What one end's policies would say if the staged ones were in force.
fn staged_ruling<C: Context + ?Sized>(
    said: u8,
    cookie: u32,
    slot: u32,
    direction: Direction,
    context: &C,
) -> Result<Option<Ruling>, Malformed> {
    let rule = || RuleRef { cookie, info: context.rule(cookie) };
    Ok(Some(match said {
        STAGED_NOT_ASKED => return Ok(None),
        STAGED_ALLOWS if cookie == 0 => Ruling::Open,
        STAGED_ALLOWS => Ruling::Allowed(rule()),
        reason => match DropReason::try_from(reason).map_err(Malformed::Reason)? {
            DropReason::DenyRule => Ruling::Denied(rule()),
            _ => Ruling::Isolated(context.staged_isolating(slot, direction).unwrap_or_default()),
        },
    }))
}

/// Whether the datapath drops for this reason only if an end is under rules, of whatever kind.
fn needs_rules(reason: DropReason) -> bool {
    match reason {
        DropReason::Fragment
        | DropReason::ExtensionHeader
        | DropReason::ConntrackFull
        | DropReason::UnrelatedIcmpError
        | DropReason::Multicast
        | DropReason::Midstream
        // Later packets of a connection that was cut name no direction any more.
        | DropReason::PolicyChange => true,
        // These two name their direction; the rest bites whoever sends it.
        DropReason::DefaultDeny
        | DropReason::DenyRule
        | DropReason::InvalidSourceIp
        | DropReason::InvalidSourceMac
        | DropReason::TruncatedHeader
        | DropReason::UnsupportedL3
        | DropReason::ForgedNeighbourDiscovery
        | DropReason::NoEndpoint
        | DropReason::Invalid
        | DropReason::Martian
        | DropReason::OverlaySource
        | DropReason::NoBackend
        | DropReason::ServicePorts
        | DropReason::TcpFlags
        | DropReason::DenyList => false,
    }
}

fn direction_of(number: u8) -> Option<Direction> {
    match number {
        0 => Some(Direction::Egress),
        1 => Some(Direction::Ingress),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
