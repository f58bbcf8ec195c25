//! Who is at the two ends of a packet, and what the rules of both say.

use datapath_abi::{
    addr::Addr,
    conntrack::Ends,
    endpoint::{NO_SLOT, RulesPtr},
    event::{DIRECTION_NONE, Hook, STAGED_ALLOWS, STAGED_NOT_ASKED},
    identity,
    policy::{Decision, Direction, PeerEntry, PortKey},
    reason::DropReason,
};
use datapath_ebpf::{
    decide::{self, Rules},
    parse::{Kind, Packet},
};

use crate::{
    Seen,
    bpf::{
        maps,
        service::{self, TO_SERVICE},
        steps,
    },
};

/// What the rules say of a packet, in one register: 0 is "it may pass", else a [`DropReason`] in
/// the low byte and, above it, the policy direction that refused (or [`DIRECTION_NONE`]). A
/// richer type would cross a function call in several registers, some of them undefined, which
/// the verifier refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) struct Judgement(u32);

impl Judgement {
    /// It may pass.
    pub(crate) const PASS: Judgement = Judgement(0);

    /// Refused by a policy direction.
    #[inline(always)]
    pub(crate) const fn refused(reason: DropReason, direction: u8) -> Self {
        Self(reason as u32 | (direction as u32) << 8)
    }

    /// Refused for a reason that is no policy.
    #[inline(always)]
    pub(crate) const fn invalid(reason: DropReason) -> Self {
        Self::refused(reason, DIRECTION_NONE)
    }

    #[inline(always)]
    pub(crate) const fn passes(self) -> bool {
        self.0 == 0
    }

    /// As a plain number, and back.
    #[inline(always)]
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// A reason's number, 0 if it passes.
    #[inline(always)]
    pub(crate) const fn reason(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    pub(crate) const fn direction(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The same, about a packet from the responder to the initiator.
    #[inline(always)]
    pub(crate) const fn of_reply(self, reply: bool) -> Self {
        Self(self.0 | (reply as u32) << 16)
    }

    #[inline(always)]
    pub(crate) const fn is_reply(self) -> bool {
        self.0 >> 16 & 1 != 0
    }
}

/// Finds out who is at the ends, and that the source is who it says it is. Written into `ends`,
/// which must be zero; on an error it holds what was found so far.
///
/// Each end's rules are read before the other end's identity: the daemon writes them in the
/// opposite order, so a verdict under new rules is one about the new identity.
#[inline(always)]
pub(crate) fn ends(seen: &Seen, ends: &mut Ends) -> Result<(), DropReason> {
    match seen.hook {
        Hook::FromPod => ends_from_pod(seen, ends),
        Hook::ToPod | Hook::FromUplink => ends_to_pod(seen, ends),
    }
}

#[inline(always)]
fn ends_from_pod(seen: &Seen, ends: &mut Ends) -> Result<(), DropReason> {
    let slot = maps::slot_of(seen.ifindex).ok_or(DropReason::NoEndpoint)?;
    let source = maps::endpoint(slot).ok_or(DropReason::NoEndpoint)?;
    ends.slot[0] = slot;
    ends.ifindex[0] = seen.ifindex;
    ends.rules[0] = source.egress_rules();
    ends.identity[0] = source.identity();
    if source.mac_word() != seen.mac {
        return Err(DropReason::InvalidSourceMac);
    }
    let src = seen.packet.addr[0];
    if !source.owns(src)
        && !(seen.packet.kind as u8 == Kind::Neighbour as u8 && on_link(src))
        && !(service::is_hairpin(src) && source.owns(seen.packet.addr[1]))
    {
        return Err(DropReason::InvalidSourceIp);
    }
    if nowhere(seen.packet.addr[1]) {
        return Err(DropReason::Invalid);
    }
    ends.identity[1] = identity::WORLD;
    let known = match maps::owner(seen.packet.addr[1]) {
        Some(entry) => Some(entry),
        None if service::is_to_service(seen) => {
            ends.slot[1] = TO_SERVICE;
            return Ok(());
        }
        None => maps::range(seen.packet.addr[1]),
    };
    if let Some(entry) = known {
        ends.identity[1] = entry.identity;
        if let Some(endpoint) = local(entry.slot) {
            ends.slot[1] = entry.slot;
            ends.ifindex[1] = endpoint.ifindex();
            ends.rules[1] = endpoint.ingress_rules();
        }
    }
    // Again, now that the target's rules have been read.
    ends.identity[0] = source.identity();
    Ok(())
}

#[inline(always)]
fn ends_to_pod(seen: &Seen, ends: &mut Ends) -> Result<(), DropReason> {
    let slot = maps::slot_of(seen.ifindex).ok_or(DropReason::NoEndpoint)?;
    let target = maps::endpoint(slot).ok_or(DropReason::NoEndpoint)?;
    ends.slot[1] = slot;
    ends.ifindex[1] = seen.ifindex;
    ends.rules[1] = target.ingress_rules();
    ends.identity[1] = target.identity();
    if nowhere(seen.packet.addr[0]) && seen.packet.kind as u8 != Kind::Neighbour as u8 {
        return Err(DropReason::Invalid);
    }
    // A process of this node, whatever address it uses: promise 8, no table asked.
    if seen.ingress_ifindex == 0 {
        ends.identity[0] = identity::HOST;
        return Ok(());
    }
    ends.identity[0] = identity::WORLD;
    if let Some(entry) = maps::address(seen.packet.addr[0]) {
        if let Some(endpoint) = local(entry.slot) {
            if endpoint.ifindex() != seen.ingress_ifindex {
                return Err(DropReason::Martian);
            }
            // A pod of this node, sent round by the host's stack, which may have changed the
            // destination: its own rules are asked about where the packet really goes.
            ends.slot[0] = entry.slot;
            ends.ifindex[0] = seen.ingress_ifindex;
            ends.rules[0] = endpoint.egress_rules();
        }
        // The node's own address on a packet that came in from somewhere is somebody else,
        // masqueraded: it gets no privilege of the node.
        if entry.identity != identity::HOST {
            ends.identity[0] = entry.identity;
        }
    }
    if ends.slot[0] == NO_SLOT {
        return from_elsewhere(seen, ends);
    }
    Ok(())
}

/// What the overlay says of a source that is not on this node.
#[inline(always)]
fn from_elsewhere(seen: &Seen, ends: &mut Ends) -> Result<(), DropReason> {
    let Some(origin) = maps::origin(seen.packet.addr[0]) else { return Ok(()) };
    if origin.only_there() && origin.ifindex != seen.ingress_ifindex {
        return Err(DropReason::OverlaySource);
    }
    if let Some(number) = maps::carried(seen.packet.addr[0]) {
        ends.identity[0] = number;
    }
    Ok(())
}

/// An address that is never in a packet on a link: 0.0.0.0/8 and 127.0.0.0/8 (RFC 1122, section
/// 3.2.1.3), :: and ::1 (RFC 4291, sections 2.5.2 and 2.5.3).
#[inline(always)]
fn nowhere(addr: Addr) -> bool {
    let octets = addr.octets();
    if addr.is_v4() { matches!(octets[12], 0 | 127) } else { addr == LOOPBACK || addr == Addr::ZERO }
}

const LOOPBACK: Addr = Addr::from_octets([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// The endpoint in a slot, if somebody lives there.
#[inline(always)]
fn local(slot: u32) -> Option<maps::EndpointRef> {
    if slot == NO_SLOT {
        return None;
    }
    let endpoint = maps::endpoint(slot)?;
    if endpoint.ifindex() == 0 { None } else { Some(endpoint) }
}

/// `::` or fe80::/10: what neighbour discovery may come from besides the pod's own address.
#[inline(always)]
fn on_link(addr: Addr) -> bool {
    let [a, b, ..] = addr.octets();
    (a == 0xfe && b & 0xc0 == 0x80) || addr == Addr::ZERO
}

/// Whether neighbour discovery stays between a pod and its node. Rules are not asked about it,
/// so nothing of its form may go further.
#[inline(always)]
pub(crate) fn on_this_link(seen: &Seen, ends: &Ends) -> bool {
    let packet = &seen.packet;
    match seen.hook {
        // A pod is no router, and speaks to its node or to a group of the link.
        Hook::FromPod => {
            packet.kind as u8 == Kind::Neighbour as u8
                && (on_link(packet.addr[1]) || link_group(packet) || ends.identity[1] == identity::HOST)
        }
        // What was forwarded is not from this link.
        Hook::ToPod | Hook::FromUplink => seen.ingress_ifindex == 0,
    }
}

/// To a group of link scope (RFC 4291, section 2.7), or to any by a packet that no router
/// forwards: listener reports go to the group they are about (RFC 2710, section 3).
#[inline(always)]
fn link_group(packet: &Packet) -> bool {
    let [a, b, ..] = packet.addr[1].octets();
    a == 0xff && (b & 0x0f <= 2 || packet.ttl <= 1)
}

/// Asks both ends' rules, notes the cookies. `addr` and `port` are the ends' in the order of
/// `ends`; what is not tracked is let through only between ends that no rule set isolates.
#[inline(always)]
pub(crate) fn judge(ends: &mut Ends, seen: &Seen, addr: &[Addr; 2], port: u16) -> Judgement {
    // A pod is never kept from itself (it comes here only by way of a Service).
    if ends.slot[0] != NO_SLOT && ends.slot[0] == ends.slot[1] {
        return Judgement::PASS;
    }
    let egress = RulesPtr(ends.rules[0]);
    let ingress = if ends.identity[0] == identity::HOST { RulesPtr(0) } else { RulesPtr(ends.rules[1]) };
    if !egress.is_ruled() && !ingress.is_ruled() {
        return Judgement::PASS;
    }
    if let Some(reason) = beyond_rules(seen.packet.kind) {
        return Judgement::invalid(reason);
    }
    if egress.is_ruled() {
        let decision = ask(egress, ends.identity[1], &addr[1], seen.key.proto, port);
        ends.cookie[0] = decision.cookie;
        if let Err(reason) = decide::verdict(egress, decision) {
            return Judgement::refused(reason, Direction::Egress as u8);
        }
    }
    if ingress.is_ruled() {
        let decision = ask(ingress, ends.identity[0], &addr[0], seen.key.proto, port);
        ends.cookie[1] = decision.cookie;
        if let Err(reason) = decide::verdict(ingress, decision) {
            return Judgement::refused(reason, Direction::Ingress as u8);
        }
    }
    Judgement::PASS
}

/// What no rule can be asked about, and nobody under rules sends or receives.
#[inline(always)]
fn beyond_rules(kind: Kind) -> Option<DropReason> {
    match kind {
        Kind::Fragment => Some(DropReason::Fragment),
        Kind::Extension | Kind::Rare => Some(DropReason::ExtensionHeader),
        Kind::Multicast => Some(DropReason::Multicast),
        Kind::IcmpError => Some(DropReason::UnrelatedIcmpError),
        Kind::Tracked | Kind::Related | Kind::IcmpOther | Kind::Neighbour | Kind::Router => None,
    }
}

/// What would be said in one direction if the staged policies were in force, in one register: the
/// rule's cookie and, above it, `staged` of [`datapath_abi::event::FlowEvent`].
#[derive(Clone, Copy)]
#[must_use]
pub(crate) struct Staged(u64);

impl Staged {
    /// No staged policies, or rules are not asked.
    pub(crate) const NOT_ASKED: Staged = Staged::new(STAGED_NOT_ASKED, 0);

    const fn new(said: u8, cookie: u32) -> Self {
        Self((said as u64) << 32 | cookie as u64)
    }

    /// As a plain number, and back.
    #[inline(always)]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub(crate) const fn said(self) -> u8 {
        (self.0 >> 32) as u8
    }

    #[inline(always)]
    pub(crate) const fn cookie(self) -> u32 {
        self.0 as u32
    }
}

/// What the rules with the staged policies would say in one direction. `ends` are the packet's, but
/// for `rules`, which are the connection's; `reply`: its responder has sent the packet. Only tells:
/// nothing here has any effect on a packet.
#[inline(always)]
pub(crate) fn staged(seen: &Seen, ends: &Ends, direction: Direction, reply: bool) -> Staged {
    let egress = direction as u8 == Direction::Egress as u8;
    let enforced = RulesPtr(if egress { ends.rules[0] } else { ends.rules[1] });
    if !enforced.has(RulesPtr::HAS_STAGED) {
        return Staged::NOT_ASKED;
    }
    // Egress is the initiator's, which has sent the packet unless it is a reply.
    let of_source = egress != reply;
    let (slot, identity) = if of_source { (ends.slot[0], ends.identity[1]) } else { (ends.slot[1], ends.identity[0]) };
    let ptr = RulesPtr(maps::staged(slot, direction));
    if ptr.0 == 0 || !egress && identity == identity::HOST {
        return Staged::NOT_ASKED;
    }
    if !ptr.is_ruled() {
        return Staged::new(STAGED_ALLOWS, 0);
    }
    if let Some(reason) = beyond_rules(seen.packet.kind) {
        return Staged::new(reason as u8, 0);
    }
    // The key, not the packet: that may be an error about the connection, by a router.
    let addr = if of_source == seen.greater { &seen.key.addr[0] } else { &seen.key.addr[1] };
    let port = if reply == seen.greater { seen.key.port[1] } else { seen.key.port[0] };
    let decision = ask(ptr, identity, addr, seen.key.proto, port);
    match decide::verdict(ptr, decision) {
        Ok(()) => Staged::new(STAGED_ALLOWS, decision.cookie),
        Err(reason) => Staged::new(reason as u8, decision.cookie),
    }
}

struct Maps<'a> {
    addr: &'a Addr,
}

impl Rules for Maps<'_> {
    #[inline(always)]
    fn peer(&self, ruleset: u32, identity: u32) -> Option<PeerEntry> {
        maps::peer(ruleset, identity)
    }

    #[inline(always)]
    fn region(&self, ruleset: u32) -> Option<PeerEntry> {
        maps::region(ruleset, *self.addr)
    }

    #[inline(always)]
    fn port(&self, key: PortKey) -> Option<Decision> {
        maps::port(key)
    }
}

/// Asks one direction's rules.
#[inline(always)]
fn ask(ptr: RulesPtr, identity: u32, addr: &Addr, proto: u8, port: u16) -> Decision {
    decide::through(ptr, |ptr| steps::look(ptr, identity, addr, proto, port))
}

/// What one rule set says.
#[inline(always)]
pub(crate) fn look(ptr: RulesPtr, identity: u32, addr: &Addr, proto: u8, port: u16) -> Decision {
    decide::look(&Maps { addr }, ptr, identity, proto, port)
}
