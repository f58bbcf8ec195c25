//! Steps that the verifier checks once, on their own, instead of once for every path that leads
//! to them: BPF "global functions" (kernel 5.6; with pointers to structs 5.12).
//!
//! Their arguments are numbers and pointers to structs without padding, their results numbers.
//! The verifier takes such a pointer for one that may be null, hence the checks. Each only
//! forwards to the code where the step is written. What they hand on is in [`Scratch`], and they hardly call each other:
//! docs/adr/0010 and 0018.
#![allow(unsafe_code)]

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, Ends},
    endpoint::RulesPtr,
    event::{EndReason, Hook},
    policy::{Decision, Direction},
    reason::DropReason,
};
use datapath_ebpf::{
    csum, ct, decide,
    parse::{Packet, Part, proto},
};

use crate::{
    Scratch, Seen,
    bpf::{
        conntrack::{self, NOBODY, Slow},
        dns, event,
        kernel::now_ns,
        maps::{self, EntryRef},
        packet::{Deep, Skb},
        policy::{self, Judgement, Staged},
        rare, rewrite,
        service::{self, Found, TO_SERVICE, Way},
    },
};

/// Notes a packet that was put in order: see [`Seen::take`].
#[inline(always)]
pub(crate) fn take(skb: &Skb, at: &mut Scratch, packet: &Packet, greater: bool) {
    step_take(skb.context(), &mut at.seen, packet, skb.hook as u32, greater);
}

/// Reads a packet, also one that [`datapath_ebpf::parse::ip`] does not read to its end: see [`rare::read`].
#[inline(always)]
pub(crate) fn read(skb: &Skb, at: &mut Scratch) -> Result<(), DropReason> {
    let mut read = step_read(skb.context(), &mut at.seen, skb.hook as u32);
    if read == DropReason::TruncatedHeader as u32 && skb.pull() {
        read = step_read(skb.context(), &mut at.seen, skb.hook as u32);
    }
    refused(read)?;
    if rare::is_rare(&at.seen) { refused(step_rare(skb.context(), &mut at.seen)) } else { Ok(()) }
}

/// Reads what stands in plain headers, for a packet that goes nowhere: nobody is asked about the rest.
#[inline(always)]
pub(crate) fn glance(skb: &Skb, at: &mut Scratch) {
    step_read(skb.context(), &mut at.seen, skb.hook as u32);
}

/// 0, or the number of a reason.
#[inline(always)]
fn refused(reason: u32) -> Result<(), DropReason> {
    match reason {
        0 => Ok(()),
        reason => Err(DropReason::try_from(reason as u8).unwrap_or(DropReason::Invalid)),
    }
}

/// A packet that the fast path has left over. The steps are called from here, one after the other,
/// and not by each other: the kernel's stack of 512 bytes is that of all nested calls together.
///
/// `established`: the fast path has found the connection in CONNTRACK.
#[inline(always)]
pub(crate) fn slow(at: &mut Scratch, established: bool) -> Slow {
    // Nearly always it is one, and PENDING says so when it gets the entry: one look less into that table.
    if !established && at.seen.packet.proto == proto::TCP && ct::opens(&at.seen.packet) {
        let guessed = first(at, true);
        if !matches!(guessed, Slow::Taken) {
            return guessed;
        }
    }
    match known(at, established) {
        Slow::Unknown if conntrack::is_midstream(&at.seen) => match midstream(at) {
            Some(refused) => refused,
            None => first(at, false),
        },
        Slow::Unknown => first(at, false),
        Slow::Reopen => {
            step_report_end(at, EndReason::Replaced as u32);
            match first(at, false) {
                Slow::Dropped(reason) => Slow::Dropped(reason),
                // The new one is in PENDING, where CONNTRACK would hide it.
                allowed => {
                    maps::remove_established(&at.seen.key);
                    allowed
                }
            }
        }
        // Changed again, within these nanoseconds: the next packet finds out.
        Slow::Stranger | Slow::Changed | Slow::Taken => untracked(at),
        done => done,
    }
}

/// A packet whose key may be in a table: see [`conntrack::known`]. What has changed is decided again, what is gone
/// is forgotten.
#[inline(always)]
fn known(at: &mut Scratch, established: bool) -> Slow {
    let mut known = Slow::unpack(step_known(at, established as u32));
    if matches!(known, Slow::Changed) {
        if let Some(port) = crossed(step_begin_again(at)) {
            step_who_now(at);
            let judgement = judge(&mut at.entry.ends, &at.seen, &at.addr, port);
            step_end_again(at, judgement.bits());
        }
        known = Slow::unpack(step_known(at, 1));
    }
    if matches!(known, Slow::Gone) {
        step_report_end(at, EndReason::EndpointGone as u32);
        maps::remove(&at.seen.key);
        return Slow::Unknown;
    }
    known
}

/// A port, or nothing.
#[inline(always)]
fn crossed(packed: u32) -> Option<u16> {
    if packed > u16::MAX as u32 { None } else { Some(packed as u16) }
}

/// Nothing, as [`crossed`] takes it.
const NOTHING: u32 = u32::MAX;

/// The first packet of a connection: see [`conntrack::first`].
#[inline(always)]
fn first(at: &mut Scratch, guess: bool) -> Slow {
    let Some(judgement) = judged(at) else { return Slow::Service };
    // Reading the clock waits for every look into memory that is under way: after those, not before.
    at.now_ns = now_ns();
    Slow::unpack(step_first(at, judgement.bits(), guess as u32))
}

/// TCP from the middle of a connection that is in no table. Who opened it is not known. If it was
/// the other end, this is an answer to what the rules may forbid: that reading must be allowed as
/// well. `None`: it is, go on with [`first`].
#[inline(always)]
fn midstream(at: &mut Scratch) -> Option<Slow> {
    if ends(at).is_err() {
        return None;
    }
    let port = crossed(step_midstream(at))?;
    if judge(&mut at.entry.ends, &at.seen, &at.addr, port).passes() {
        return None;
    }
    at.now_ns = now_ns();
    conntrack::turn(&mut at.entry.ends);
    Some(conntrack::refuse(at, Judgement::invalid(DropReason::Midstream).of_reply(true)))
}

/// A packet that has no conntrack entry, or must not touch it.
#[inline(always)]
pub(crate) fn untracked(at: &mut Scratch) -> Slow {
    let Some(judgement) = judged(at) else { return Slow::Service };
    if judgement.passes() {
        return conntrack::onward(at);
    }
    at.now_ns = now_ns();
    conntrack::refuse(at, judgement)
}

/// A packet that can belong to a connection and cannot open one: `None` if there is no such
/// connection, or it does not belong to it.
#[inline(always)]
pub(crate) fn related(at: &mut Scratch) -> Option<Slow> {
    match known(at, true) {
        known @ (Slow::Stack | Slow::Deliver(_) | Slow::Dropped(_) | Slow::Service) => Some(known),
        _ => None,
    }
}

/// Neighbour discovery is between a pod and its node, on one link.
#[inline(always)]
pub(crate) fn neighbour(at: &mut Scratch) -> Slow {
    let reason = match ends(at) {
        Ok(()) if policy::on_this_link(&at.seen, &at.entry.ends) => return Slow::Stack,
        Ok(()) => DropReason::ForgedNeighbourDiscovery,
        Err(reason) => reason,
    };
    at.now_ns = now_ns();
    conntrack::refuse(at, Judgement::invalid(reason))
}

/// Who is at the ends, and what their rules say. `None`: it goes to a Service, for which there are none.
#[inline(always)]
fn judged(at: &mut Scratch) -> Option<Judgement> {
    match ends(at) {
        Ok(()) if at.entry.ends.slot[1] == TO_SERVICE => None,
        Ok(()) => Some(judge(&mut at.entry.ends, &at.seen, &at.seen.packet.addr, at.seen.packet.port[1])),
        Err(reason) => Some(Judgement::invalid(reason)),
    }
}

/// Makes a packet to a Service one to a backend: see [`service::translate`]. Whether its connection is in CONNTRACK, or
/// why there is none.
#[inline(always)]
pub(crate) fn translate(at: &mut Scratch) -> Result<bool, DropReason> {
    let found = step_translate(at);
    if found == Found::Translated as u32 {
        Ok(false)
    } else if found == Found::Established as u32 {
        Ok(true)
    } else {
        Err(service::refused(found))
    }
}

/// Drops a packet to a Service that leads nowhere.
#[inline(always)]
pub(crate) fn no_service(at: &mut Scratch, reason: DropReason) -> Slow {
    Slow::unpack(step_no_service(at, reason as u32))
}

/// Carries out what was translated. False: it cannot be.
#[inline(always)]
pub(crate) fn exchange(skb: &Skb, at: &mut Scratch) -> bool {
    if at.exchange.is(Way::Forward) {
        step_settle(at);
    }
    step_addresses(skb.context(), at);
    let packet = &at.seen.packet;
    if rewrite::is_error(packet) {
        step_quoted(skb.context(), at);
    } else if packet.part as u8 != Part::Later as u8 {
        if packet.proto == proto::SCTP {
            return step_sctp(skb.context(), at) != 0;
        }
        step_ports(skb.context(), at);
    }
    true
}

/// Writes what a Service or its backend stands for: see [`rewrite::in_the_middle`]. False: it cannot be, which is no packet's
/// case that was parsed.
#[inline(always)]
pub(crate) fn readdress(skb: &Skb, entry: EntryRef, way: Way) -> bool {
    step_readdress(skb.context(), entry.value(), way as u32) != 0
}

/// Whether an alias leads nowhere any more: see [`service::is_over`].
#[inline(always)]
pub(crate) fn alias_is_over(key: &CtKey, entry: EntryRef) -> bool {
    step_alias_is_over(key, entry.value()) != 0
}

/// See [`datapath_ebpf::csum::multiply`].
#[inline(always)]
pub(crate) fn multiply(a: u32, b: u32) -> u32 {
    step_multiply(a, b)
}

/// Notes a first fragment: see [`rare::remember`].
#[inline(always)]
pub(crate) fn remember(at: &mut Scratch) {
    step_remember(at);
}

/// Finds out who is at the ends: see [`policy::ends`].
#[inline(always)]
fn ends(at: &mut Scratch) -> Result<(), DropReason> {
    refused(step_ends(at))
}

/// Asks the rules of both ends. `addr` and `port` are those of the connection.
#[inline(always)]
fn judge(ends: &mut Ends, seen: &Seen, addr: &[Addr; 2], port: u16) -> Judgement {
    Judgement::from_bits(step_judge(ends, seen, addr, port as u32))
}

/// What the rules with the staged policies would say in one direction: see [`policy::staged`].
#[inline(always)]
fn staged(at: &Scratch, direction: Direction, reply: bool) -> Staged {
    Staged::from_bits(step_staged(&at.seen, &at.entry.ends, direction as u32, reply as u32))
}

/// What one rule set says.
#[inline(always)]
pub(crate) fn look(ptr: RulesPtr, identity: u32, addr: &Addr, proto: u8, port: u16) -> Decision {
    let packed = step_look(ptr.0, identity, addr, (proto as u32) << 16 | port as u32);
    Decision { cookie: packed as u32, precedence: (packed >> 32) as u16, verdict: (packed >> 48) as u8, pad: 0 }
}

/// Tells of a packet of a connection that may be a DNS message: see [`dns::tell`].
#[inline(always)]
pub(crate) fn dns(skb: &Skb, key: &CtKey, how: u32) {
    step_dns(skb.context(), key, how);
}

/// The same of a packet that the fast path has left over.
#[inline(always)]
pub(crate) fn heard(skb: &Skb, at: &Scratch) {
    step_heard(skb.context(), at);
}

/// Reports a packet, as `at` says.
#[inline(always)]
pub(crate) fn report_packet(at: &mut Scratch) {
    let judgement = Judgement::from_bits(at.judgement);
    let rules = RulesPtr(at.entry.ends.rules[0] | at.entry.ends.rules[1]);
    at.staged = if rules.has(RulesPtr::HAS_STAGED) && decide::is_by_rules(judgement.reason()) {
        [Direction::Egress, Direction::Ingress].map(|asked| staged(at, asked, judgement.is_reply()).bits())
    } else {
        [Staged::NOT_ASKED.bits(); 2]
    };
    step_report_packet(at);
}

/// Reports a packet that no rules were asked about, as `at` says.
#[inline(always)]
pub(crate) fn report_unasked(at: &mut Scratch) {
    at.staged = [Staged::NOT_ASKED.bits(); 2];
    step_report_packet(at);
}

/// Reports a connection.
#[inline(always)]
pub(crate) fn report_connection(key: &CtKey, entry: EntryRef, end: u32, now_ns: u64) {
    step_report_connection(key, entry.value(), end, now_ns);
}

/// The notes of the caller, in a step. They are looked up once more: kernels before 6.2 take no memory that was handed
/// over as the key of a map, but what they have found in one themselves.
#[inline(always)]
fn notes(at: *mut Scratch) -> Option<&'static mut Scratch> {
    // They are the same. The compiler, which sees that nobody reads the argument, is not to conclude that the caller's stay as they are.
    core::hint::black_box(at);
    maps::scratch()
}

/// What a step says whose notes are not there, which cannot be.
const LOST: u64 = Slow::Dropped(DropReason::Invalid as u8).pack();

#[inline(never)]
fn step_take(context: *mut __sk_buff, seen: &mut Seen, packet: &Packet, hook: u32, greater: bool) -> u32 {
    let hook = if hook == Hook::FromPod as u32 { Hook::FromPod } else { Hook::ToPod };
    let context = TcContext::new(context);
    seen.take(&Skb::new(&context, hook), packet, greater);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_read(context: *mut __sk_buff, seen: *mut Seen, hook: u32) -> u32 {
    // SAFETY: as above.
    let Some(seen) = (unsafe { seen.as_mut() }) else { return DropReason::Invalid as u32 };
    let hook = if hook == Hook::FromPod as u32 { Hook::FromPod } else { Hook::ToPod };
    let context = TcContext::new(context);
    match seen.read(&Skb::new(&context, hook)) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_rare(context: *mut __sk_buff, seen: *mut Seen) -> u32 {
    // SAFETY: as above.
    let Some(seen) = (unsafe { seen.as_mut() }) else { return DropReason::Invalid as u32 };
    let context = TcContext::new(context);
    match rare::read(&Deep::new(&context, seen.hook), seen) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_remember(at: *mut Scratch) -> u32 {
    if let Some(at) = notes(at) {
        rare::remember(at);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_translate(at: *mut Scratch) -> u32 {
    match notes(at) {
        Some(at) => service::translate(at) as u32,
        None => Found::Nothing as u32,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_settle(at: *mut Scratch) -> u32 {
    if let Some(at) = notes(at) {
        service::settle(at);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_addresses(context: *mut __sk_buff, at: *const Scratch) -> u32 {
    // SAFETY: as above.
    if let Some(at) = unsafe { at.as_ref() } {
        rewrite::addresses(context, at);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_ports(context: *mut __sk_buff, at: *const Scratch) -> u32 {
    // SAFETY: as above.
    if let Some(at) = unsafe { at.as_ref() } {
        rewrite::ports(context, at);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_readdress(context: *mut __sk_buff, entry: *const CtEntry, way: u32) -> u32 {
    if entry.is_null() {
        return 0;
    }
    let entry = EntryRef::from_value(entry.cast_mut());
    let context = TcContext::new(context);
    let way = if way == Way::Forward as u32 { Way::Forward } else { Way::Reply };
    rewrite::in_the_middle(&Skb::new(&context, Hook::FromPod), &entry.service(), way) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_quoted(context: *mut __sk_buff, at: *const Scratch) -> u32 {
    // SAFETY: as above.
    if let Some(at) = unsafe { at.as_ref() } {
        rewrite::quoted(context, at);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_sctp(context: *mut __sk_buff, at: *const Scratch) -> u32 {
    // SAFETY: as above.
    let Some(at) = (unsafe { at.as_ref() }) else { return 0 };
    let context = TcContext::new(context);
    rewrite::sctp(&Skb::new(&context, at.seen.hook), at) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_no_service(at: *mut Scratch, reason: u32) -> u64 {
    let Some(at) = notes(at) else { return LOST };
    let reason = DropReason::try_from(reason as u8).unwrap_or(DropReason::Invalid);
    service::nowhere(at, reason).pack()
}

#[inline(never)]
fn step_alias_is_over(key: &CtKey, entry: *const CtEntry) -> u32 {
    service::is_over(key, EntryRef::from_value(entry.cast_mut())) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_multiply(a: u32, b: u32) -> u32 {
    csum::multiply(a, b)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_known(at: *mut Scratch, established: u32) -> u64 {
    let Some(at) = notes(at) else { return LOST };
    conntrack::known(at, established != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_begin_again(at: *mut Scratch) -> u32 {
    match notes(at).and_then(conntrack::begin_again) {
        Some(port) => port as u32,
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_who_now(at: *mut Scratch) -> u32 {
    if let Some(at) = notes(at) {
        conntrack::who_now(at);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_end_again(at: *mut Scratch, judgement: u32) -> u32 {
    if let Some(at) = notes(at) {
        conntrack::end_again(at, Judgement::from_bits(judgement));
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_report_end(at: *mut Scratch, why: u32) -> u32 {
    if let Some(at) = notes(at) {
        conntrack::report_end(at, why);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_ends(at: *mut Scratch) -> u32 {
    let Some(at) = notes(at) else { return DropReason::Invalid as u32 };
    at.entry.ends = NOBODY;
    match policy::ends(&at.seen, &mut at.entry.ends) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_midstream(at: *mut Scratch) -> u32 {
    match notes(at).and_then(conntrack::midstream) {
        Some(port) => port as u32,
        None => NOTHING,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_first(at: *mut Scratch, judgement: u32, guess: u32) -> u64 {
    let Some(at) = notes(at) else { return LOST };
    conntrack::first(at, Judgement::from_bits(judgement), guess != 0).pack()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_judge(ends: *mut Ends, seen: *const Seen, addr: *const [Addr; 2], port: u32) -> u32 {
    // SAFETY: as above.
    match unsafe { (ends.as_mut(), seen.as_ref(), addr.as_ref()) } {
        (Some(ends), Some(seen), Some(addr)) => policy::judge(ends, seen, addr, port as u16).bits(),
        _ => Judgement::invalid(DropReason::Invalid).bits(),
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_staged(seen: *const Seen, ends: *const Ends, direction: u32, reply: u32) -> u64 {
    // SAFETY: as above.
    let (Some(seen), Some(ends)) = (unsafe { (seen.as_ref(), ends.as_ref()) }) else { return 0 };
    let direction = if direction == Direction::Egress as u32 { Direction::Egress } else { Direction::Ingress };
    policy::staged(seen, ends, direction, reply != 0).bits()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_look(rules: u64, identity: u32, addr: *const Addr, proto_port: u32) -> u64 {
    // SAFETY: as above.
    let Some(addr) = (unsafe { addr.as_ref() }) else { return 0 };
    let decision = policy::look(RulesPtr(rules), identity, addr, (proto_port >> 16) as u8, proto_port as u16);
    decision.cookie as u64 | (decision.precedence as u64) << 32 | (decision.verdict as u64) << 48
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_report_packet(at: *const Scratch) -> u32 {
    // SAFETY: as above.
    if let Some(at) = unsafe { at.as_ref() } {
        event::packet(at);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_report_connection(key: *const CtKey, entry: *const CtEntry, end: u32, now_ns: u64) -> u32 {
    // SAFETY: as above.
    if let (Some(key), Some(entry)) = unsafe { (key.as_ref(), entry.as_ref()) } {
        event::connection(key, entry, end, now_ns);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_heard(context: *mut __sk_buff, at: *const Scratch) -> u32 {
    // SAFETY: as above.
    if let Some(at) = unsafe { at.as_ref() } {
        let context = TcContext::new(context);
        let translated = !at.exchange.is(Way::None);
        dns::listen(&Skb::new(&context, at.seen.hook), &at.seen.packet, &at.seen.key, at.seen.greater, translated);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_dns(context: *mut __sk_buff, key: *const CtKey, how: u32) -> u32 {
    // SAFETY: as above.
    if let Some(key) = unsafe { key.as_ref() } {
        dns::tell(context, key, how);
    }
    0
}
