//! Conntrack in the maps: the fast path of established connections, and everything slower.

use datapath_abi::{
    conntrack::{
        self, CtEntry, CtState, Ends, FLAG_INITIATOR_HIGH, FLAG_MIDSTREAM, FLAG_REVOKED, FLAG_VIA_STACK, Tally,
    },
    endpoint::{NO_SLOT, RulesPtr},
    event::{EndReason, Hook},
    identity,
    maps::Scalar,
    reason::DropReason,
};
use datapath_ebpf::{
    ct::{self, From},
    parse::{Kind, Part, proto, sctp, tcp},
};

use crate::{
    Outcome, Seen,
    bpf::{
        kernel::{self, jiffies, now_ns},
        maps::{self, EntryRef, Put, Table},
        policy::{self, Judgement},
        steps,
    },
};

/// A packet of a connection in CONNTRACK. `None`: not a case for the fast path.
#[inline(always)]
pub(crate) fn fast(seen: &Seen, entry: EntryRef) -> Option<Outcome> {
    let flags = entry.flags();
    let responder = seen.greater != (flags & FLAG_INITIATOR_HIGH != 0);
    let slot = entry.slot();
    let rules = entry.rules();
    let initiator_end = maps::endpoint(slot[0])?;
    let responder_end = maps::endpoint(slot[1])?;
    if initiator_end.egress_rules() != rules[0] || responder_end.ingress_rules() != rules[1] {
        return None;
    }
    let (source, target) = if responder { (responder_end, initiator_end) } else { (initiator_end, responder_end) };
    match seen.hook {
        Hook::FromPod => {
            if source.ifindex() != seen.ifindex || source.mac_word() != seen.mac {
                return None;
            }
        }
        Hook::ToPod => {
            if target.ifindex() != seen.ifindex
                || seen.ingress_ifindex != 0
                    && (![0, seen.ingress_ifindex].contains(&source.ifindex()) || from_host(entry, responder))
            {
                return None;
            }
        }
    }
    if flags & FLAG_REVOKED != 0 || ct::notable(&seen.packet) || entry.state() != CtState::Established as u8 {
        return None;
    }
    entry.account_established(responder, seen.bytes, jiffies());
    if seen.hook as u8 == Hook::FromPod as u8 && target.ifindex() != 0 && flags & FLAG_VIA_STACK == 0 {
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
/// [`Slow::Stranger`] ask the caller to go on with [`first`] or [`untracked`]: not from here,
/// as the kernel's stack of 512 bytes is that of all calls together.
///
/// `established`: the fast path has found it in CONNTRACK. If not, PENDING comes first and then
/// CONNTRACK again: another CPU promotes by adding there before it removes here, and a connection
/// must not be missed in both. A SYN may: it is judged by the rules in any case, and at worst, sent
/// again while its connection was being promoted, counts as one more connection.
#[inline(always)]
pub(crate) fn known(seen: &Seen, established: bool) -> u64 {
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
    found(seen, entry, table).pack()
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
    /// Opens anew what is over or was cut: what there is stays unless the rules allow it.
    Reopen,
    /// The rules of an end have changed since the connection was decided.
    Changed,
    /// Taken for new, but the key is taken, or may be: nothing has been done yet.
    Taken,
}

impl Slow {
    #[inline(always)]
    pub(crate) fn pack(self) -> u64 {
        match self {
            Slow::Stack => 0,
            Slow::Deliver(slot) => 1 << 32 | slot as u64,
            Slow::Dropped(reason) => 2 << 32 | reason as u64,
            Slow::Unknown => 3 << 32,
            Slow::Stranger => 4 << 32,
            Slow::Reopen => 5 << 32,
            Slow::Changed => 6 << 32,
            Slow::Taken => 7 << 32,
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
            _ => Slow::Taken,
        }
    }
}

#[inline(always)]
fn found(seen: &Seen, entry: EntryRef, table: Table) -> Slow {
    let flags = entry.flags();
    let responder = seen.greater != (flags & FLAG_INITIATOR_HIGH != 0);
    let slot = entry.slot();
    let ifindex = entry.ifindex();
    let state = entry.state();

    // The ends must still be who they were when the connection began.
    let Some(initiator_end) = maps::endpoint(slot[0]) else { return Slow::Dropped(DropReason::Invalid as u8) };
    let Some(responder_end) = maps::endpoint(slot[1]) else { return Slow::Dropped(DropReason::Invalid as u8) };
    if initiator_end.ifindex() != ifindex[0] || responder_end.ifindex() != ifindex[1] {
        return end(seen, entry, EndReason::EndpointGone);
    }
    let source = if responder { responder_end } else { initiator_end };
    let target_ifindex = if responder { ifindex[0] } else { ifindex[1] };
    let genuine = match seen.hook {
        Hook::FromPod => source.ifindex() == seen.ifindex && source.mac_word() == seen.mac,
        Hook::ToPod => {
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

    let changed = [initiator_end.egress_rules(), responder_end.ingress_rules()] != entry.rules();
    if seen.packet.kind as u8 == Kind::Related as u8 {
        return if changed { Slow::Changed } else { related(seen, entry, responder) };
    }
    let revoked = flags & FLAG_REVOKED != 0;
    // A new connection with the addresses and ports of one that is over, or that was cut: judged
    // on its own. Until it is allowed the old entry stays, for what is left of the old
    // connection must not be taken for something new.
    let is_tcp = seen.packet.proto == proto::TCP;
    if ct::opens(&seen.packet) && (state >= CtState::Closing as u8 || revoked && is_tcp) {
        report_end(seen, entry, EndReason::Replaced);
        return Slow::Reopen;
    }
    if changed {
        return Slow::Changed;
    }
    if revoked {
        entry.touch(jiffies());
        return cut(seen, entry, responder);
    }
    progress(seen, entry, table, responder, state);
    along(seen, entry, responder)
}

/// What belongs to a connection and has no say in its life: an ICMP error about it, which is no packet
/// of it, or a later fragment, which is one; its flags came with the first.
#[inline(always)]
fn related(seen: &Seen, entry: EntryRef, responder: bool) -> Slow {
    if entry.flags() & FLAG_REVOKED != 0 {
        return cut(seen, entry, responder);
    }
    if seen.packet.part as u8 == Part::Later as u8 {
        entry.account(responder, seen.bytes, jiffies());
    }
    along(seen, entry, responder)
}

/// Drops a packet of a connection that the rules forbid now.
#[inline(always)]
fn cut(seen: &Seen, entry: EntryRef, responder: bool) -> Slow {
    let judgement = Judgement::refused(DropReason::PolicyChange, entry.denied()).of_reply(responder);
    refuse(seen, &ends_of(entry, responder), judgement, now_ns())
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
    if seen.packet.proto == proto::TCP {
        let seen_flags = entry.tcp_flags();
        let said = |flags: u8| (flags & tcp::FIN) | (flags & tcp::RST);
        let after = ct::next(before, &seen.packet, from, said(seen_flags[0]) | said(seen_flags[1]) << 1);
        entry.add_tcp_flags(responder, seen.packet.flags);
        entry.set_state(after as u8);
    } else if seen.packet.proto != proto::SCTP || ct::tag_fits(&seen.packet, from, entry.sctp_tag()) {
        entry.set_state(ct::next(before, &seen.packet, from, 0) as u8);
        // Comes after INIT ACK, whose initiate tag it bears.
        if !responder
            && seen.packet.proto == proto::SCTP
            && seen.packet.flags == sctp::COOKIE_ECHO
            && seen.packet.part as u8 == Part::Whole as u8
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
        let less = ct::waits(seen.packet.proto, before) as i32 - ct::waits(seen.packet.proto, after) as i32;
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

/// Whose connection it is, as far as room in PENDING goes: the initiator's, if that is local.
#[inline(always)]
pub(crate) fn waiting_slot(slot: [u32; 2]) -> u32 {
    if slot[0] != NO_SLOT { slot[0] } else { slot[1] }
}

/// The rules of an end have changed: asks them again, for the connection as it was opened, and
/// notes the answer in its entry. The packet that led here is then looked at again.
#[inline(always)]
pub(crate) fn redecide(seen: &Seen) {
    let Some((entry, table)) = maps::connection(&seen.key) else { return };
    maps::bump(Scalar::Redecided);
    let flags = entry.flags();
    let high = flags & FLAG_INITIATOR_HIGH != 0;
    let addr = if high { [seen.key.addr[1], seen.key.addr[0]] } else { seen.key.addr };
    let port = if high { seen.key.port[0] } else { seen.key.port[1] };
    let slot = entry.slot();
    let (Some(initiator), Some(responder)) = (maps::endpoint(slot[0]), maps::endpoint(slot[1])) else { return };
    let mut ends = Ends {
        rules: [initiator.egress_rules(), responder.ingress_rules()],
        slot,
        ifindex: entry.ifindex(),
        identity: entry.identity(),
        cookie: [0; 2],
    };
    // Identities may have changed since; only this node's own processes are known by how they
    // came, not by address.
    if ends.identity[0] != identity::HOST {
        ends.identity[0] = now_identity(&addr[0]);
    }
    ends.identity[1] = match maps::address(addr[1]) {
        Some(found) => found.identity,
        None => identity::WORLD,
    };
    let judgement = steps::judge(&mut ends, seen, &addr, port);
    if judgement.passes() {
        entry.set_verdict(ends.rules, ends.identity, ends.cookie);
        if flags & FLAG_REVOKED != 0 {
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
        if ct::waits(seen.key.proto, state) {
            maps::waits(waiting_slot(slot), -1);
        }
        maps::remove_pending(&seen.key);
    }
}

#[inline(always)]
fn now_identity(addr: &datapath_abi::addr::Addr) -> u32 {
    match maps::address(*addr) {
        // Not the host's own process, or the entry would say so: see policy::ends.
        Some(found) if found.identity != identity::HOST => found.identity,
        _ => identity::WORLD,
    }
}

/// The ends of an entry in the order source, destination of the packet.
#[inline(always)]
fn ends_of(entry: EntryRef, responder: bool) -> Ends {
    let ends = Ends {
        rules: entry.rules(),
        slot: entry.slot(),
        ifindex: entry.ifindex(),
        identity: entry.identity(),
        cookie: entry.cookie(),
    };
    if responder { turned(ends) } else { ends }
}

/// Source and destination exchanged. The rules and what they said stay those of the connection's
/// own directions: see `FlowEvent::reply`.
#[inline(always)]
fn turned(ends: Ends) -> Ends {
    Ends {
        slot: [ends.slot[1], ends.slot[0]],
        ifindex: [ends.ifindex[1], ends.ifindex[0]],
        identity: [ends.identity[1], ends.identity[0]],
        ..ends
    }
}

/// Reports the end of a connection, once.
#[inline(always)]
fn report_end(seen: &Seen, entry: EntryRef, why: EndReason) {
    if entry.reported() {
        return;
    }
    let state = entry.state();
    let why = match why {
        EndReason::Replaced if state == CtState::Reset as u8 => EndReason::Rst,
        EndReason::Replaced if state == CtState::TimeWait as u8 => EndReason::Fin,
        other => other,
    };
    steps::report_connection(&seen.key, entry, why as u32, now_ns());
    entry.set_reported(true);
}

/// Reports the end of a connection and forgets it.
#[inline(always)]
fn end(seen: &Seen, entry: EntryRef, why: EndReason) -> Slow {
    report_end(seen, entry, why);
    maps::remove(&seen.key);
    Slow::Unknown
}

/// The first packet of a connection, or one from the middle of a connection that we have not
/// seen begin: both are decided by the rules for their own direction.
///
/// `guess`: nobody has looked into PENDING. If the key is there, nothing is done, and the answer is
/// [`Slow::Taken`]; also if the rules do not allow the packet: what that means depends on what is there.
#[inline(always)]
pub(crate) fn first(seen: &Seen, guess: bool) -> Slow {
    let now_ns = now_ns();
    let mut ends = NOBODY;
    let judgement = judged(seen, &mut ends);
    if !judgement.passes() {
        if guess && maps::pending(&seen.key).is_some() {
            return Slow::Taken;
        }
        return refuse(seen, &ends, judgement, now_ns);
    }
    // A stray RST opens nothing: it passes, as the rules say, and is forgotten.
    if seen.packet.proto == proto::TCP && seen.packet.flags & tcp::RST != 0 {
        return onward(seen, &ends);
    }
    let slot = waiting_slot(ends.slot);
    let why = if maps::may_wait(slot) {
        match steps::open(seen, &ends, now_ns, !guess) {
            Put::Done => {
                maps::waits(slot, 1);
                None
            }
            Put::Taken => return Slow::Taken,
            Put::Full => Some(Scalar::PendingFull),
        }
    } else if guess && maps::pending(&seen.key).is_some() {
        return Slow::Taken;
    } else {
        Some(Scalar::PendingShare)
    };
    if let Some(why) = why {
        maps::bump(why);
        // Without an entry the answer would be judged on its own: only between ends that have
        // no rules does that make no difference.
        let ruled = ends.rules.iter().any(|rules| RulesPtr(*rules).is_ruled());
        if ruled && ends.identity[0] != identity::HOST {
            return refuse(seen, &ends, Judgement::invalid(DropReason::ConntrackFull), now_ns);
        }
    }
    steps::report_packet(seen, &ends, Judgement::PASS, now_ns);
    onward(seen, &ends)
}

/// Puts the entry of a new connection into PENDING. `replace`: whatever the key has there.
#[inline(always)]
pub(crate) fn open(seen: &Seen, ends: &Ends, now_ns: u64, replace: bool) -> Put {
    let packet = &seen.packet;
    let mut flags = if seen.greater { FLAG_INITIATOR_HIGH } else { 0 };
    if seen.hook as u8 == Hook::ToPod as u8 {
        flags |= FLAG_VIA_STACK;
    }
    if !ct::opens(packet) {
        flags |= FLAG_MIDSTREAM;
    }
    let none = Tally { packets: 0, bytes: 0 };
    let tag = if packet.proto == proto::SCTP && packet.flags == sctp::INIT && packet.part as u8 == Part::Whole as u8 {
        packet.id
    } else {
        0
    };
    // All calls before the entry is written, or what is copied into it is kept on the stack a second time.
    let (last_seen, owner) = (jiffies(), conntrack::owner(kernel::cpu()));
    let entry = CtEntry {
        last_seen,
        state: ct::begins(packet) as u8,
        flags,
        tcp_flags: [if packet.proto == proto::TCP { packet.flags } else { 0 }, 0],
        own: [none; 2],
        shared: [Tally { packets: 1, bytes: seen.bytes as u64 }, none],
        created_ns: now_ns,
        reported_ns: 0,
        rtt_us: 0,
        reported: 0,
        denied: 0,
        owner: [owner, 0],
        sctp_tag: [tag, 0],
        ends: *ends,
    };
    maps::put_pending(&seen.key, &entry, replace)
}

/// A packet that has no entry, or must not touch it.
#[inline(always)]
pub(crate) fn untracked(seen: &Seen) -> Slow {
    let mut ends = NOBODY;
    let judgement = judged(seen, &mut ends);
    if !judgement.passes() {
        return refuse(seen, &ends, judgement, now_ns());
    }
    onward(seen, &ends)
}

/// Neighbour discovery is between a pod and its node, on one link.
#[inline(always)]
pub(crate) fn neighbour(seen: &Seen) -> Slow {
    let mut ends = NOBODY;
    let refused = match steps::ends(seen, &mut ends) {
        Ok(()) if policy::on_this_link(seen, &ends) => return Slow::Stack,
        Ok(()) => DropReason::ForgedNeighbourDiscovery,
        Err(reason) => reason,
    };
    refuse(seen, &ends, Judgement::invalid(refused), now_ns())
}

/// TCP from the middle of a connection that is in no table. Who opened it is not known. If it was
/// the other end, this is an answer to what the rules may forbid: that reading must be allowed as
/// well. `Unknown`: it is, go on with [`first`].
#[inline(always)]
pub(crate) fn midstream(seen: &Seen) -> Slow {
    let mut ends = NOBODY;
    if steps::ends(seen, &mut ends).is_err() || ends.identity[0] == identity::HOST {
        return Slow::Unknown;
    }
    ends = turned(ends);
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
    let addr = [seen.packet.addr[1], seen.packet.addr[0]];
    if steps::judge(&mut ends, seen, &addr, seen.packet.port[0]).passes() {
        return Slow::Unknown;
    }
    let ends = turned(ends);
    refuse(seen, &ends, Judgement::invalid(DropReason::Midstream).of_reply(true), now_ns())
}

/// Whether a packet needs [`midstream`].
#[inline(always)]
pub(crate) fn is_midstream(seen: &Seen) -> bool {
    seen.packet.proto == proto::TCP && seen.packet.flags & tcp::RST == 0 && !ct::opens(&seen.packet)
}

/// Who is at the ends, and what their rules say.
#[inline(always)]
fn judged(seen: &Seen, ends: &mut Ends) -> Judgement {
    match steps::ends(seen, ends) {
        Ok(()) => steps::judge(ends, seen, &seen.packet.addr, seen.packet.port[1]),
        Err(reason) => Judgement::invalid(reason),
    }
}

/// Where a packet goes that may go.
#[inline(always)]
fn onward(seen: &Seen, ends: &Ends) -> Slow {
    if seen.hook as u8 == Hook::FromPod as u8 && ends.slot[1] != NO_SLOT {
        Slow::Deliver(ends.slot[1])
    } else {
        Slow::Stack
    }
}

/// Reports a packet that is dropped.
#[inline(always)]
fn refuse(seen: &Seen, ends: &Ends, judgement: Judgement, now_ns: u64) -> Slow {
    steps::report_packet(seen, ends, judgement, now_ns);
    Slow::Dropped(judgement.reason())
}

/// Nobody is known yet.
pub(crate) const NOBODY: Ends =
    Ends { rules: [0; 2], slot: [NO_SLOT; 2], ifindex: [0; 2], identity: [identity::UNKNOWN; 2], cookie: [0; 2] };
