//! Conntrack in the maps: the fast path of established connections, and everything slower.

use datapath_abi::{
    conntrack::{
        self, CtState, Ends, FLAG_ALIAS, FLAG_INITIATOR_HIGH, FLAG_MIDSTREAM, FLAG_REVOKED, FLAG_TRANSLATED,
        FLAG_VIA_STACK, Tally,
    },
    endpoint::{NO_SLOT, RulesPtr},
    event::{EndReason, Hook},
    identity,
    maps::Scalar,
    reason::DropReason,
};
use datapath_ebpf::{
    ct::{self, From},
    parse::{self, Bytes as _, ETH_LEN, Kind, Packet, Part, proto, sctp, tcp},
};

use crate::{
    Outcome, Scratch, Seen,
    bpf::{
        dns,
        kernel::{self, jiffies, now_ns},
        maps::{self, EntryRef, Put, Table},
        overlay,
        packet::Skb,
        policy::Judgement,
        service::{self, NO_SERVICE, Way},
        steps,
    },
};

/// A packet of a connection in CONNTRACK. `None`: not a case for the fast path. `way`: which way it is translated, if it is.
#[inline(always)]
pub(crate) fn fast(skb: &Skb, packet: &Packet, greater: bool, entry: EntryRef, way: Way) -> Option<Outcome> {
    let flags = entry.flags();
    let responder = greater != (flags & FLAG_INITIATOR_HIGH != 0);
    let slot = entry.slot();
    let rules = entry.rules();
    let initiator_end = maps::endpoint(slot[0])?;
    let responder_end = maps::endpoint(slot[1])?;
    if initiator_end.egress_rules() != rules[0] || responder_end.ingress_rules() != rules[1] {
        return None;
    }
    let (source, target) = if responder { (responder_end, initiator_end) } else { (initiator_end, responder_end) };
    match skb.hook {
        Hook::FromPod => {
            // Read here and not before: it would have to be kept meanwhile, on the stack.
            let mac = parse::mac_word(skb.view(0, ETH_LEN)?, 6);
            if source.ifindex() != skb.ifindex() || source.mac_word() != mac {
                return None;
            }
        }
        Hook::ToPod | Hook::FromUplink => {
            let ingress_ifindex = skb.ingress_ifindex();
            if target.ifindex() != skb.ifindex()
                || ingress_ifindex != 0
                    && (![0, ingress_ifindex].contains(&source.ifindex()) || from_host(entry, responder))
            {
                return None;
            }
        }
    }
    let translated = match way {
        Way::None => flags & FLAG_TRANSLATED == 0,
        Way::Forward => flags & FLAG_TRANSLATED != 0 && !responder,
        Way::Reply => flags & FLAG_TRANSLATED != 0 && responder,
    };
    if !translated || flags & FLAG_REVOKED != 0 || ct::notable(packet) || entry.state() != CtState::Established as u8 {
        return None;
    }
    entry.account_established(responder, skb.network_bytes(), jiffies());
    let service = !matches!(way, Way::None) && dns::is_asked(entry.service_port());
    dns::listen(skb, packet, maps::key_of(packet), greater, service);
    if skb.hook as u8 == Hook::FromPod as u8 && target.ifindex() != 0 && flags & FLAG_VIA_STACK == 0 {
        return Some(Outcome::Deliver(target));
    }
    Some(Outcome::Stack)
}

/// Whether only a process of this node may send it: the node began the connection, and was let in
/// without being asked for rules. Answers to what a pod has asked its node may come from behind
/// it (a node port).
#[inline(always)]
fn from_host(entry: EntryRef, responder: bool) -> bool {
    !responder && entry.identity()[0] == identity::HOST
}

/// A packet whose key is in a table but is no case for the fast path. [`Slow::Unknown`] and
/// [`Slow::Stranger`] ask the caller to go on with [`first`] or [`steps::untracked`]: not from here,
/// as the kernel's stack of 512 bytes is that of all calls together.
///
/// `established`: the fast path has found it in CONNTRACK. If not, PENDING comes first and then
/// CONNTRACK again: another CPU promotes by adding there before it removes here, and a connection
/// must not be missed in both. A SYN may: it is judged by the rules in any case, and at worst, sent
/// again while its connection was being promoted, counts as one more connection.
#[inline(always)]
pub(crate) fn known(at: &mut Scratch, established: bool) -> u64 {
    let seen = &at.seen;
    let (entry, table) = if established && let Some(entry) = maps::established(&seen.key) {
        (entry, Table::Established)
    } else if let Some(entry) = maps::pending(&seen.key) {
        (entry, Table::Pending)
    } else if !(seen.packet.proto == proto::TCP && ct::opens(&seen.packet))
        && let Some(entry) = maps::established(&seen.key)
    {
        (entry, Table::Established)
    } else {
        return Slow::Unknown.pack();
    };
    found(at, entry, table).pack()
}

/// What a step of the slow path has found. Crosses as one number.
#[derive(Clone, Copy)]
pub(crate) enum Slow {
    /// To the host's stack.
    Stack,
    /// To the endpoint in this slot.
    Deliver(u32),
    /// Dropped and reported; the number of a reason.
    Dropped(u8),
    /// In no table, or what was there has nothing to do with it and is gone.
    Unknown,
    /// Has the key of a connection that is not its own.
    Stranger,
    /// The endpoint that had it is gone.
    Gone,
    /// Opens anew what is over or was cut: what there is stays unless the rules allow it.
    Reopen,
    /// The rules of an end have changed since the connection was decided.
    Changed,
    /// Goes to a Service, or to what may be one.
    Service,
    /// Taken for new, but the key is taken, or may be: nothing has been done yet.
    Taken,
}

impl Slow {
    #[inline(always)]
    pub(crate) const fn pack(self) -> u64 {
        match self {
            Slow::Stack => 0,
            Slow::Deliver(slot) => 1 << 32 | slot as u64,
            Slow::Dropped(reason) => 2 << 32 | reason as u64,
            Slow::Unknown => 3 << 32,
            Slow::Stranger => 4 << 32,
            Slow::Reopen => 5 << 32,
            Slow::Changed => 6 << 32,
            Slow::Taken => 7 << 32,
            Slow::Gone => 8 << 32,
            Slow::Service => 9 << 32,
        }
    }

    #[inline(always)]
    pub(crate) fn unpack(packed: u64) -> Self {
        match packed >> 32 {
            0 => Slow::Stack,
            1 => Slow::Deliver(packed as u32),
            2 => Slow::Dropped(packed as u8),
            3 => Slow::Unknown,
            4 => Slow::Stranger,
            5 => Slow::Reopen,
            6 => Slow::Changed,
            7 => Slow::Taken,
            9 => Slow::Service,
            _ => Slow::Gone,
        }
    }
}

#[inline(always)]
fn found(at: &mut Scratch, entry: EntryRef, table: Table) -> Slow {
    let seen = &at.seen;
    let flags = entry.flags();
    let responder = seen.greater != (flags & FLAG_INITIATOR_HIGH != 0);
    if flags & FLAG_ALIAS != 0 {
        return if service::is_clients(seen, responder) { Slow::Service } else { Slow::Stranger };
    }
    let slot = entry.slot();
    let ifindex = entry.ifindex();
    let state = entry.state();

    // The ends must still be who they were when the connection began.
    let Some(initiator_end) = maps::endpoint(slot[0]) else { return Slow::Dropped(DropReason::Invalid as u8) };
    let Some(responder_end) = maps::endpoint(slot[1]) else { return Slow::Dropped(DropReason::Invalid as u8) };
    if initiator_end.ifindex() != ifindex[0] || responder_end.ifindex() != ifindex[1] {
        return Slow::Gone;
    }
    let source = if responder { responder_end } else { initiator_end };
    let target_ifindex = if responder { ifindex[0] } else { ifindex[1] };
    let genuine = match seen.hook {
        Hook::FromPod => source.ifindex() == seen.ifindex && source.mac_word() == seen.mac,
        Hook::ToPod | Hook::FromUplink => {
            target_ifindex == seen.ifindex
                && if seen.ingress_ifindex == 0 {
                    true
                } else {
                    !from_host(entry, responder) && (source.ifindex() == 0 || source.ifindex() == seen.ingress_ifindex)
                }
        }
    };
    if !genuine {
        // The full path finds the reason and names the sender.
        return Slow::Stranger;
    }

    if flags & FLAG_TRANSLATED != 0 {
        if responder {
            service::answer(at, entry);
        } else if at.exchange.is(Way::None) && at.seen.hook as u8 == Hook::FromPod as u8 {
            // Straight to the backend, by the very ports of a connection to the Service.
            at.entry.ends = ends_of(entry);
            at.now_ns = now_ns();
            return refuse(at, Judgement::invalid(DropReason::ServicePorts));
        }
    }
    let seen = &at.seen;
    let changed = [initiator_end.egress_rules(), responder_end.ingress_rules()] != entry.rules();
    if seen.packet.kind as u8 == Kind::Related as u8 {
        return if changed { Slow::Changed } else { related(at, entry, responder) };
    }
    let revoked = flags & FLAG_REVOKED != 0;
    // A new connection with the addresses and ports of one that is over, or that was cut: judged
    // on its own. Until it is allowed the old entry stays, for what is left of the old
    // connection must not be taken for something new.
    let is_tcp = seen.packet.proto == proto::TCP;
    if ct::opens(&seen.packet) && (state >= CtState::Closing as u8 || revoked && is_tcp) {
        return Slow::Reopen;
    }
    if changed {
        return Slow::Changed;
    }
    if revoked {
        entry.touch(jiffies());
        return cut(at, entry, responder);
    }
    progress(seen, entry, table, responder, state);
    let slow = along(seen, entry, responder);
    at.heard = 1;
    slow
}

/// What belongs to a connection and has no say in its life: an ICMP error about it, which is no packet
/// of it, or a later fragment, which is one; its flags came with the first.
#[inline(always)]
fn related(at: &mut Scratch, entry: EntryRef, responder: bool) -> Slow {
    if entry.flags() & FLAG_REVOKED != 0 {
        return cut(at, entry, responder);
    }
    if at.seen.packet.part as u8 == Part::Later as u8 {
        entry.account(responder, at.seen.bytes, jiffies());
    }
    along(&at.seen, entry, responder)
}

/// Drops a packet of a connection that the rules forbid now.
#[inline(always)]
fn cut(at: &mut Scratch, entry: EntryRef, responder: bool) -> Slow {
    at.entry.ends = ends_of(entry);
    if responder {
        turn(&mut at.entry.ends);
    }
    at.now_ns = now_ns();
    refuse(at, Judgement::refused(DropReason::PolicyChange, entry.denied()).of_reply(responder))
}

/// Where a packet of a connection goes.
#[inline(always)]
fn along(seen: &Seen, entry: EntryRef, responder: bool) -> Slow {
    let slot = entry.slot();
    let target = if responder { slot[0] } else { slot[1] };
    if seen.hook as u8 == Hook::FromPod as u8 && target != NO_SLOT && entry.flags() & FLAG_VIA_STACK == 0 {
        Slow::Deliver(target)
    } else {
        Slow::Stack
    }
}

/// Moves the state on, counts the packet, promotes the connection when its handshake is done.
#[inline(always)]
fn progress(seen: &Seen, entry: EntryRef, table: Table, responder: bool, state: u8) {
    let from = if responder { From::Responder } else { From::Initiator };
    let before = CtState::try_from(state).unwrap_or(CtState::Established);
    let waited = ct::waits(seen.packet.proto, before, agreed(seen.packet.proto, entry));
    if seen.packet.proto == proto::TCP {
        let seen_flags = entry.tcp_flags();
        let said = |flags: u8| (flags & tcp::FIN) | (flags & tcp::RST);
        let after = ct::next(before, &seen.packet, from, said(seen_flags[0]) | said(seen_flags[1]) << 1);
        entry.add_tcp_flags(responder, seen.packet.flags);
        entry.set_state(after as u8);
    } else if seen.packet.proto != proto::SCTP || ct::tag_fits(&seen.packet, from, entry.sctp_tag()) {
        entry.set_state(ct::next(before, &seen.packet, from, 0) as u8);
        // Comes after INIT ACK, whose initiate tag it bears, so it shows that the initiator has seen that one.
        if !responder
            && seen.packet.proto == proto::SCTP
            && seen.packet.flags == sctp::COOKIE_ECHO
            && seen.packet.part as u8 == Part::Whole as u8
            && before as u8 == CtState::SynReceived as u8
            && table == Table::Pending
        {
            entry.set_responder_tag(seen.packet.id);
        }
    }
    if responder && before as u8 == CtState::New as u8 {
        if table == Table::Pending {
            entry.set_responder_owner(conntrack::owner(kernel::cpu()));
        }
        let rtt_us = now_ns().wrapping_sub(entry.created_ns()) / 1000;
        entry.set_rtt_us(if rtt_us > u32::MAX as u64 { u32::MAX } else { rtt_us as u32 });
    }
    entry.account(responder, seen.bytes, jiffies());
    if table == Table::Pending {
        let after = CtState::try_from(entry.state()).unwrap_or(CtState::Established);
        let waits = ct::waits(seen.packet.proto, after, agreed(seen.packet.proto, entry));
        let less = waited as i32 - waits as i32;
        if less != 0 {
            maps::waits(waiting_slot(entry.slot()), -less);
        }
        if after as u8 == CtState::Established as u8 {
            if maps::promote(&seen.key, entry) {
                maps::remove_pending(&seen.key);
            } else {
                maps::bump(Scalar::ConntrackFull);
            }
        }
    }
}

/// Whether both ends have agreed on it.
#[inline(always)]
pub(crate) fn agreed(proto: u8, entry: EntryRef) -> bool {
    ct::agreed(proto, entry.tcp_flags(), entry.flags() & FLAG_MIDSTREAM != 0, entry.sctp_tag()[1])
}

/// Whose connection it is, as far as room in PENDING goes: the initiator's, if that is local.
#[inline(always)]
pub(crate) fn waiting_slot(slot: [u32; 2]) -> u32 {
    if slot[0] != NO_SLOT { slot[0] } else { slot[1] }
}

/// The rules of an end have changed: who has to be asked again, for the connection as it was opened. Written into
/// `entry.ends` and `addr`; the responder's port. Who they are by now is [`who_now`]'s to say. The answer goes to [`end_again`],
/// and the packet that led here is then looked at again.
#[inline(always)]
pub(crate) fn begin_again(at: &mut Scratch) -> Option<u16> {
    let seen = &at.seen;
    let (entry, _) = maps::connection(&seen.key)?;
    maps::bump(Scalar::Redecided);
    let high = entry.flags() & FLAG_INITIATOR_HIGH != 0;
    let addr = &mut at.addr;
    *addr = if high { [seen.key.addr[1], seen.key.addr[0]] } else { seen.key.addr };
    let port = if high { seen.key.port[0] } else { seen.key.port[1] };
    let ends = &mut at.entry.ends;
    *ends = ends_of(entry);
    ends.rules = [maps::endpoint(ends.slot[0])?.egress_rules(), maps::endpoint(ends.slot[1])?.ingress_rules()];
    ends.cookie = [0; 2];
    Some(port)
}

/// Identities of the ends of a connection that is judged again, which may have changed since; only this node's own processes
/// are known by how they came, not by address.
#[inline(always)]
pub(crate) fn who_now(at: &mut Scratch) {
    let (addr, ends) = (&at.addr, &mut at.entry.ends);
    if ends.identity[0] != identity::HOST {
        ends.identity[0] = now_identity(&addr[0]);
    }
    ends.identity[1] = match maps::address(addr[1]) {
        Some(found) => found.identity,
        None => identity::WORLD,
    };
}

/// Notes in a connection's entry what was decided after [`begin_again`].
#[inline(always)]
pub(crate) fn end_again(at: &mut Scratch, judgement: Judgement) {
    let (seen, ends) = (&at.seen, &at.entry.ends);
    let Some((entry, table)) = maps::connection(&seen.key) else { return };
    if judgement.passes() {
        entry.set_verdict(ends.rules, ends.identity, ends.cookie);
        if entry.flags() & FLAG_REVOKED != 0 {
            entry.set_flags(entry.flags() & !FLAG_REVOKED);
            entry.set_reported(false);
        }
        return;
    }
    // The mark before the rules: another CPU that finds the rules up to date finds the mark, too.
    entry.set_denied(judgement.direction());
    entry.set_flags(entry.flags() | FLAG_REVOKED);
    entry.set_verdict(ends.rules, ends.identity, ends.cookie);
    if !entry.reported() {
        steps::report_connection(&seen.key, entry, EndReason::PolicyChange as u32, now_ns());
        entry.set_reported(true);
    }
    // Out of the table in which others can push it out. What nobody has answered stays there: else
    // whoever opens much that nobody answers could fill the other table by a change of rules.
    let state = CtState::try_from(entry.state()).unwrap_or(CtState::Established);
    if table == Table::Pending && state as u8 != CtState::New as u8 && maps::promote(&seen.key, entry) {
        if ct::waits(seen.key.proto, state, agreed(seen.key.proto, entry)) {
            maps::waits(waiting_slot(ends.slot), -1);
        }
        maps::remove_pending(&seen.key);
    }
}

#[inline(always)]
fn now_identity(addr: &datapath_abi::addr::Addr) -> u32 {
    if let Some(number) = overlay::carried(*addr) {
        return number;
    }
    match maps::address(*addr) {
        // Not the host's own process, or the entry would say so: see policy::ends.
        Some(found) if found.identity != identity::HOST => found.identity,
        _ => identity::WORLD,
    }
}

/// The ends of an entry: initiator, responder.
#[inline(always)]
fn ends_of(entry: EntryRef) -> Ends {
    Ends {
        rules: entry.rules(),
        slot: entry.slot(),
        ifindex: entry.ifindex(),
        identity: entry.identity(),
        cookie: entry.cookie(),
    }
}

/// Exchanges source and destination. The rules and what they said stay those of the connection's
/// own directions: see `FlowEvent::reply`.
#[inline(always)]
pub(crate) fn turn(ends: &mut Ends) {
    ends.slot = [ends.slot[1], ends.slot[0]];
    ends.ifindex = [ends.ifindex[1], ends.ifindex[0]];
    ends.identity = [ends.identity[1], ends.identity[0]];
}

/// Reports the end of the connection that has the packet's key, once. `why`: an [`EndReason`].
#[inline(always)]
pub(crate) fn report_end(at: &Scratch, why: u32) {
    let Some((entry, _)) = maps::connection(&at.seen.key) else { return };
    if entry.reported() {
        return;
    }
    let state = entry.state();
    let why = if why != EndReason::Replaced as u32 {
        why
    } else if state == CtState::Reset as u8 {
        EndReason::Rst as u32
    } else if state == CtState::TimeWait as u8 {
        EndReason::Fin as u32
    } else {
        why
    };
    steps::report_connection(&at.seen.key, entry, why, now_ns());
    entry.set_reported(true);
}

/// The first packet of a connection, or one from the middle of a connection that we have not
/// seen begin: both are decided by the rules for their own direction, which have said `judgement`.
///
/// `guess`: nobody has looked into PENDING. If the key is there, nothing is done, and the answer is
/// [`Slow::Taken`]; also if the rules do not allow the packet: what that means depends on what is there.
#[inline(always)]
pub(crate) fn first(at: &mut Scratch, judgement: Judgement, guess: bool) -> Slow {
    if !judgement.passes() {
        if guess && maps::pending(&at.seen.key).is_some() {
            return Slow::Taken;
        }
        return refuse(at, judgement);
    }
    // A stray RST opens nothing: it passes, as the rules say, and is forgotten.
    if at.seen.packet.proto == proto::TCP && at.seen.packet.flags & tcp::RST != 0 {
        return onward(at);
    }
    let slot = waiting_slot(at.entry.ends.slot);
    let why = if maps::may_wait(slot) {
        match open(at, !guess) {
            Put::Done => {
                maps::waits(slot, 1);
                at.heard = 1;
                None
            }
            Put::Taken => return Slow::Taken,
            Put::Full => Some(Scalar::PendingFull),
        }
    } else if guess && maps::pending(&at.seen.key).is_some() {
        return Slow::Taken;
    } else {
        Some(Scalar::PendingShare)
    };
    if let Some(why) = why {
        maps::bump(why);
        // Without an entry the answer would be judged on its own: only between ends that have
        // no rules does that make no difference.
        let ends = &at.entry.ends;
        let ruled = RulesPtr(ends.rules[0]).is_ruled() || RulesPtr(ends.rules[1]).is_ruled();
        let translated = !at.exchange.is(Way::None);
        if (ruled || translated) && ends.identity[0] != identity::HOST {
            return refuse(at, Judgement::invalid(DropReason::ConntrackFull));
        }
    }
    report(at, Judgement::PASS);
    onward(at)
}

/// Puts the entry of a new connection into PENDING. `replace`: whatever the key has there.
#[inline(always)]
fn open(at: &mut Scratch, replace: bool) -> Put {
    let (seen, entry) = (&at.seen, &mut at.entry);
    let packet = &seen.packet;
    let translated = at.exchange.is(Way::Forward);
    let mut flags = if seen.greater { FLAG_INITIATOR_HIGH } else { 0 };
    if seen.hook as u8 == Hook::ToPod as u8 {
        flags |= FLAG_VIA_STACK;
    }
    if !ct::opens(packet) {
        flags |= FLAG_MIDSTREAM;
    }
    if translated {
        flags |= FLAG_TRANSLATED;
        entry.service = at.exchange.service();
    }
    let tag = if packet.proto == proto::SCTP && packet.flags == sctp::INIT && packet.part as u8 == Part::Whole as u8 {
        packet.id
    } else {
        0
    };
    // `ends` is there already, and all that is not named here is zero: see `Scratch`.
    entry.last_seen = jiffies();
    entry.state = ct::begins(packet) as u8;
    entry.flags = flags;
    entry.tcp_flags[0] = if packet.proto == proto::TCP { packet.flags } else { 0 };
    entry.shared[0] = Tally { packets: 1, bytes: seen.bytes as u64 };
    entry.created_ns = at.now_ns;
    entry.owner[0] = conntrack::owner(kernel::cpu());
    entry.sctp_tag[0] = tag;
    let put = maps::put_pending(&seen.key, entry, replace);
    if translated {
        entry.service = NO_SERVICE;
    }
    put
}

/// Who has to be asked about a packet of a connection in no table, read as the other end's: writes `addr`, turns
/// `entry.ends`, which are the packet's; the port. `None`: nobody.
#[inline(always)]
pub(crate) fn midstream(at: &mut Scratch) -> Option<u16> {
    let ends = &mut at.entry.ends;
    if ends.identity[0] == identity::HOST {
        return None;
    }
    turn(ends);
    ends.rules = [
        match maps::endpoint(ends.slot[0]) {
            Some(end) => end.egress_rules(),
            None => 0,
        },
        match maps::endpoint(ends.slot[1]) {
            Some(end) => end.ingress_rules(),
            None => 0,
        },
    ];
    at.addr = [at.seen.packet.addr[1], at.seen.packet.addr[0]];
    Some(at.seen.packet.port[0])
}

/// Whether a packet needs `steps::midstream`.
#[inline(always)]
pub(crate) fn is_midstream(seen: &Seen) -> bool {
    seen.packet.proto == proto::TCP && seen.packet.flags & tcp::RST == 0 && !ct::opens(&seen.packet)
}

/// Where a packet goes that may go.
#[inline(always)]
pub(crate) fn onward(at: &Scratch) -> Slow {
    let slot = at.entry.ends.slot[1];
    if at.seen.hook as u8 == Hook::FromPod as u8 && slot != NO_SLOT { Slow::Deliver(slot) } else { Slow::Stack }
}

/// Has a packet reported, with the ends in `entry.ends`.
#[inline(always)]
fn report(at: &mut Scratch, judgement: Judgement) {
    at.judgement = judgement.bits();
    at.tell = 1;
}

/// Drops a packet, and has it reported: when is in `now_ns`.
#[inline(always)]
pub(crate) fn refuse(at: &mut Scratch, judgement: Judgement) -> Slow {
    report(at, judgement);
    Slow::Dropped(judgement.reason())
}

/// A packet whose headers make no sense: dropped for everybody, with an event that says where, and
/// what could be read before the sense was lost.
#[inline(always)]
pub(crate) fn unreadable(at: &mut Scratch, reason: DropReason) -> Slow {
    at.entry.ends = NOBODY;
    at.now_ns = now_ns();
    if let Some(slot) = maps::slot_of(at.seen.ifindex)
        && let Some(endpoint) = maps::endpoint(slot)
    {
        let ends = &mut at.entry.ends;
        if at.seen.hook as u8 == Hook::FromPod as u8 {
            (ends.slot[0], ends.identity[0]) = (slot, endpoint.identity());
        } else {
            (ends.slot[1], ends.identity[1]) = (slot, endpoint.identity());
        }
    }
    refuse(at, Judgement::invalid(reason))
}

/// Nobody is known yet.
pub(crate) const NOBODY: Ends =
    Ends { rules: [0; 2], slot: [NO_SLOT; 2], ifindex: [0; 2], identity: [identity::UNKNOWN; 2], cookie: [0; 2] };
