//! Services: a packet to one goes on as a packet to a backend, and what the backend answers comes back from the
//! Service. Rules, conntrack and records are about the true ends; `docs/adr/0022` says how a connection is found from
//! both sides.

use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, CtState, FLAG_ALIAS, FLAG_INITIATOR_HIGH, FLAG_TRANSLATED},
    endpoint::NO_SLOT,
    event::Hook,
    reason::DropReason,
    service::{BackendKey, FrontendKey, GoneKey, HAIRPIN_V4, HAIRPIN_V6, Translation},
};
use datapath_ebpf::{
    ct,
    parse::{Kind, Packet, Part, proto},
};

use crate::{
    Outcome, Scratch, Seen,
    bpf::{
        conntrack::{self, Slow},
        kernel::{self, jiffies, now_ns},
        maps::{self, EntryRef, Table},
        packet::Skb,
        policy::Judgement,
        steps,
    },
};

/// In place of a slot, in the ends of a packet: it goes to a Service.
pub(crate) const TO_SERVICE: u32 = u32::MAX;

/// How often another source port is tried.
const PORTS_TRIED: u32 = 8;
/// Where those begin: the first that is nobody's by name (RFC 6335, section 6).
const FIRST_PORT: u32 = 49_152;

/// Which way a packet is translated.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is not.
    None = 0,
    /// From the client to the Service.
    Forward = 1,
    /// From the backend to the client.
    Reply = 2,
}

/// Which addresses and ports of a packet stand for which others. `[0]` is the client, `[1]` the Service or the backend.
/// What an alias or an entry is made of besides. Without padding: see [`Scratch`].
#[repr(C)]
pub(crate) struct Exchange {
    /// As the packet has them.
    pub(crate) old: [Addr; 2],
    /// As it is to have them.
    pub(crate) new: [Addr; 2],
    pub(crate) old_port: [u16; 2],
    pub(crate) new_port: [u16; 2],
    pub(crate) way: Way,
    /// Number of the backends' set.
    pub(crate) set: u32,
    /// Of the connection, when it is looked for; then the alias's.
    pub(crate) key: CtKey,
    /// The alias that is to be put into PENDING; what is zero there is never written.
    pub(crate) alias: CtEntry,
}

impl Exchange {
    /// Whether the packet is translated in this way.
    #[inline(always)]
    pub(crate) fn is(&self, way: Way) -> bool {
        self.way as u32 == way as u32
    }

    /// What the client knows of the connection, as its entry and events about it bear it.
    #[inline(always)]
    pub(crate) fn service(&self) -> Translation {
        match self.way {
            Way::None => NO_SERVICE,
            Way::Forward => translation(&self.old, self.old_port, self.set),
            Way::Reply => translation(&self.new, self.new_port, self.set),
        }
    }
}

#[inline(always)]
fn translation(addr: &[Addr; 2], port: [u16; 2], set: u32) -> Translation {
    Translation { addr: addr[1], port: port[1], from_port: port[0], set }
}

/// Of what is not translated.
pub(crate) const NO_SERVICE: Translation = Translation { addr: Addr::ZERO, port: 0, from_port: 0, set: 0 };

/// What was found by the name of a client and a Service.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The packet goes to a backend now. Its connection is not in CONNTRACK.
    Translated = 0,
    /// And it is.
    Established = 1,
    /// It does not go to a Service, or not any more.
    Nothing = 2,
    /// No backend.
    NoBackend = 3,
    /// No source port.
    NoPort = 4,
}

/// Whether the entry of a packet is one that [`fast`] may have a way for.
#[inline(always)]
pub(crate) fn is_by_service(packet: &Packet, entry: EntryRef) -> bool {
    entry.flags() & (FLAG_ALIAS | FLAG_TRANSLATED) != 0
        && matches!(packet.proto, proto::TCP | proto::UDP)
        && packet.part as u8 == Part::Whole as u8
        && packet.transport == 0
        && !ct::notable(packet)
}

/// A packet in the middle of a connection by a Service, which gets its other address and ports here. `None`: not a case for
/// the fast path; `packet` may be another one then, the packet itself is not.
#[inline(always)]
pub(crate) fn fast(skb: &Skb, packet: &mut Packet, greater: bool, entry: EntryRef) -> Option<Outcome> {
    let flags = entry.flags();
    let responder = greater != (flags & FLAG_INITIATOR_HIGH != 0);
    let initiator = if responder != greater { packet.addr[1] } else { packet.addr[0] };
    if flags & FLAG_ALIAS == 0 {
        // A pod's packets to itself have two addresses to be changed.
        if is_hairpin(initiator) {
            return None;
        }
        let outcome = conntrack::fast(skb, packet, greater, entry, Way::Reply)?;
        return if steps::readdress(skb, entry, Way::Reply) { Some(outcome) } else { None };
    }
    let service = entry.service();
    if skb.hook as u8 != Hook::FromPod as u8 || responder || service.addr == initiator {
        return None;
    }
    packet.addr = [initiator, service.addr];
    packet.port = [service.from_port, service.port];
    let greater = ct::put_in_order(packet);
    let connection = maps::established_of(packet)?;
    let outcome = conntrack::fast(skb, packet, greater, connection, Way::Forward)?;
    entry.touch(jiffies());
    if steps::readdress(skb, entry, Way::Forward) { Some(outcome) } else { None }
}

/// Whether a packet of a pod to an address that is nobody's opens a connection to a Service.
#[inline(always)]
pub(crate) fn is_to_service(seen: &Seen) -> bool {
    let packet = &seen.packet;
    packet.kind as u8 == Kind::Tracked as u8
        && matches!(packet.proto, proto::TCP | proto::UDP | proto::SCTP)
        && ct::opens(packet)
        && maps::frontend(&FrontendKey { addr: packet.addr[1], port: packet.port[1], proto: packet.proto, pad: [0; 5] })
            .is_some()
}

/// Whether a source address is that of a pod's packets to itself.
#[inline(always)]
pub(crate) fn is_hairpin(addr: Addr) -> bool {
    addr == HAIRPIN_V4 || addr == HAIRPIN_V6
}

/// Makes a packet to a Service one to a backend, as far as `at` goes: that of its connection, or one that is chosen.
#[inline(always)]
pub(crate) fn translate(at: &mut Scratch) -> Found {
    let seen = &mut at.seen;
    let x = &mut at.exchange;
    // The packet's ends by its key: an ICMP error's are those of the packet that it quotes, the other way round.
    let (client, server) = if is_greater(seen) { (1, 0) } else { (0, 1) };
    x.old = [seen.key.addr[client], seen.key.addr[server]];
    x.old_port = [seen.key.port[client], seen.key.port[server]];
    let mut found = alias(x, seen);
    if matches!(found, Found::Nothing) {
        found = choose(x, seen);
        if !matches!(found, Found::Translated | Found::Established) {
            return found;
        }
    }
    x.way = Way::Forward;
    let packet = &mut seen.packet;
    if packet.addr[1] == x.old[1] {
        packet.addr[1] = x.new[1];
    }
    packet.addr[0] = x.new[0];
    if packet.kind as u8 != Kind::Related as u8 || packet.part as u8 == Part::Later as u8 {
        packet.port = x.new_port;
    }
    seen.greater = ct::key_of(&x.new, x.new_port, seen.key.proto, &mut seen.key);
    found
}

/// `greater`, of which the verifier sees that it is 0 or 1: the compiler knows it without looking, and makes an index of it.
#[inline(always)]
fn is_greater(seen: &Seen) -> bool {
    core::hint::black_box(seen.greater as u32) & 1 != 0
}

/// By the alias, if it still leads somewhere: to a connection that is over only what does not begin another one.
#[inline(always)]
fn alias(x: &mut Exchange, seen: &Seen) -> Found {
    let Some((entry, _)) = maps::connection(&seen.key) else { return Found::Nothing };
    if entry.flags() & FLAG_ALIAS == 0 {
        return Found::Nothing;
    }
    let service = entry.service();
    stand_for(x, service.addr, service.port, service.from_port);
    x.set = service.set;
    entry.touch(jiffies());
    let opens = seen.packet.kind as u8 == Kind::Tracked as u8 && ct::opens(&seen.packet);
    ct::key_of(&x.new, x.new_port, seen.key.proto, &mut x.key);
    match maps::connection(&x.key) {
        Some((connection, table)) if connection.flags() & FLAG_TRANSLATED != 0 => {
            if opens && seen.packet.proto == proto::TCP && connection.state() >= CtState::Closing as u8 {
                return Found::Nothing;
            }
            if table == Table::Established { Found::Established } else { Found::Translated }
        }
        _ if opens => Found::Nothing,
        _ => Found::Translated,
    }
}

/// Whom the packet goes to, and with which source.
#[inline(always)]
fn stand_for(x: &mut Exchange, addr: Addr, port: u16, from_port: u16) {
    x.new = [source_towards(addr, x.old[0]), addr];
    x.new_port = [from_port, port];
}

/// Source of a client's packets to a backend: its own address, unless it is the backend.
#[inline(always)]
fn source_towards(backend: Addr, client: Addr) -> Addr {
    if backend != client {
        client
    } else if backend.is_v4() {
        HAIRPIN_V4
    } else {
        HAIRPIN_V6
    }
}

/// A backend, and a source port by which the connection can be told from others.
#[inline(always)]
fn choose(x: &mut Exchange, seen: &Seen) -> Found {
    if seen.packet.kind as u8 != Kind::Tracked as u8 {
        return Found::Nothing;
    }
    let key = FrontendKey { addr: x.old[1], port: x.old_port[1], proto: seen.key.proto, pad: [0; 5] };
    let Some(frontend) = maps::frontend(&key) else { return Found::Nothing };
    if frontend.count == 0 {
        return Found::NoBackend;
    }
    let place = kernel::random() % frontend.count;
    // There may be less of them by now, and the first is the last that goes.
    let Some(backend) = maps::backend(BackendKey { set: frontend.set, place })
        .or_else(|| maps::backend(BackendKey { set: frontend.set, place: 0 }))
    else {
        return Found::NoBackend;
    };
    x.set = frontend.set;
    stand_for(x, backend.addr, backend.port, x.old_port[0]);
    let mut tried = 0;
    while tried <= PORTS_TRIED {
        ct::key_of(&x.new, x.new_port, seen.key.proto, &mut x.key);
        match maps::connection(&x.key) {
            None => return Found::Translated,
            Some((entry, table)) if is_own(entry, x, seen) => {
                return if table == Table::Established { Found::Established } else { Found::Translated };
            }
            Some(_) => {}
        }
        x.new_port[0] = (FIRST_PORT + kernel::random() % (65_536 - FIRST_PORT)) as u16;
        tried += 1;
    }
    Found::NoPort
}

/// Whether an entry that is there already is that of this client and Service, whose alias was lost, or of what is over.
#[inline(always)]
fn is_own(entry: EntryRef, x: &Exchange, seen: &Seen) -> bool {
    let service = entry.service();
    let same = entry.flags() & FLAG_TRANSLATED != 0
        && service.addr == x.old[1]
        && service.port == x.old_port[1]
        && service.from_port == x.old_port[0];
    same || seen.packet.proto == proto::TCP && entry.state() >= CtState::Closing as u8
}

/// A packet of a backend, by its connection.
#[inline(always)]
pub(crate) fn answer(at: &mut Scratch, entry: EntryRef) {
    let (seen, x) = (&at.seen, &mut at.exchange);
    let (client, server) = if is_greater(seen) { (0, 1) } else { (1, 0) };
    let service = entry.service();
    x.old = [seen.key.addr[client], seen.key.addr[server]];
    x.old_port = [seen.key.port[client], seen.key.port[server]];
    x.new = [if is_hairpin(x.old[0]) { x.old[1] } else { x.old[0] }, service.addr];
    x.new_port = [service.from_port, service.port];
    x.set = service.set;
    x.way = Way::Reply;
}

/// After a packet to a Service was let through: its alias is there, and where the connection is.
#[inline(always)]
pub(crate) fn settle(at: &mut Scratch) {
    let (seen, x) = (&at.seen, &mut at.exchange);
    if seen.packet.kind as u8 == Kind::Related as u8 {
        return;
    }
    let greater = ct::key_of(&x.old, x.old_port, seen.key.proto, &mut x.key);
    let flags = FLAG_ALIAS | if greater { FLAG_INITIATOR_HIGH } else { 0 };
    let table = match maps::connection(&x.key) {
        Some((entry, table)) if entry.flags() & FLAG_ALIAS != 0 => {
            let led = entry.service();
            if led.addr == x.new[1] && led.port == x.new_port[1] && led.from_port == x.new_port[0] {
                Some((entry, table))
            } else {
                None
            }
        }
        _ => None,
    };
    match table {
        Some((_, Table::Established)) => {}
        Some((entry, Table::Pending)) => {
            if maps::established(&seen.key).is_some() && maps::promote(&x.key, entry) {
                maps::remove_pending(&x.key);
            }
        }
        None => {
            x.alias.flags = flags;
            x.alias.last_seen = jiffies();
            x.alias.service = translation(&x.new, x.new_port, x.set);
            maps::remove_established(&x.key);
            let _ = maps::put_pending(&x.key, &x.alias, true);
        }
    }
}

/// The sweep's: whether an alias leads to no connection any more, or to a backend that is gone and whose connection
/// any packet can begin anew.
#[inline(always)]
pub(crate) fn is_over(key: &CtKey, entry: EntryRef) -> bool {
    let service = entry.service();
    if !matches!(key.proto, proto::TCP | proto::SCTP)
        && maps::is_gone(&GoneKey { addr: service.addr, port: service.port, pad: [0; 2], set: service.set })
    {
        return true;
    }
    let client = if entry.flags() & FLAG_INITIATOR_HIGH != 0 { key.addr[1] } else { key.addr[0] };
    let from = source_towards(service.addr, client);
    let mut connection = CtKey { addr: [Addr::ZERO; 2], port: [0; 2], proto: 0, pad: [0; 3] };
    ct::key_of(&[from, service.addr], [service.from_port, service.port], key.proto, &mut connection);
    // In this order: another CPU promotes by adding to CONNTRACK before it removes from PENDING.
    maps::pending(&connection).is_none() && maps::established(&connection).is_none()
}

/// Drops a packet to a Service that leads nowhere. Its sender was found to be who it says it is.
#[inline(always)]
pub(crate) fn nowhere(at: &mut Scratch, reason: DropReason) -> Slow {
    let ends = &mut at.entry.ends;
    if ends.slot[1] == TO_SERVICE {
        ends.slot[1] = NO_SLOT;
    }
    at.now_ns = now_ns();
    conntrack::refuse(at, Judgement::invalid(reason))
}

/// Why a packet to a Service goes nowhere.
#[inline(always)]
pub(crate) fn refused(found: u32) -> DropReason {
    if found == Found::NoPort as u32 { DropReason::ServicePorts } else { DropReason::NoBackend }
}

/// What an entry with an alias's mark means for a packet: only its client's, from where that is.
#[inline(always)]
pub(crate) fn is_clients(seen: &Seen, responder: bool) -> bool {
    seen.hook as u8 == Hook::FromPod as u8 && !responder
}
