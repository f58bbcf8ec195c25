//! The maps, in the order of `datapath_abi::maps`, and safe ways to read and write them.
//!
//! Capacities here are only the defaults; the loader sets the configured ones. Values are read
//! and written field by field through volatile accesses: other CPUs and the daemon do the same
//! at the same time, and each field is one machine word at most.
#![allow(unsafe_code)]

// `AtomicU64::fetch_add` does not exist for this target; the instruction does.
use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::{addr_of, addr_of_mut, read_volatile, write_volatile},
};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
    macros::btf_map,
};
use datapath_abi::{
    addr::{Addr, AddrEntry},
    conntrack::{CtEntry, CtKey, FragmentEntry, FragmentKey, Waiting},
    endpoint::Endpoint,
    event::{FlowEvent, HOOKS, Hook},
    maps::{Counter, Scalar},
    overlay::Origin,
    policy::{Decision, Direction, PeerEntry, PeerKey, PortKey, REGION_RULESET_BITS, RegionKey, RulesetInfo},
    reason::REASONS,
    service::{Backend, BackendKey, Frontend, FrontendKey, GoneKey},
    uplink::{Budget, Denied},
};

use datapath_ebpf::parse::Packet;

use crate::Scratch;

const LAZY: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map]
pub(crate) static CONNTRACK: HashMap<CtKey, CtEntry, 131_072> = HashMap::new();
#[btf_map]
pub(crate) static PENDING: LruHashMap<CtKey, CtEntry, 16_384> = LruHashMap::new();
#[btf_map]
pub(crate) static WAITING: Array<Waiting, 1_024> = Array::new();
#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentEntry, 8_192> = LruHashMap::new();
#[btf_map]
static ENDPOINTS: Array<Endpoint, 1_024> = Array::new();
#[btf_map]
static STAGED: Array<[u64; 2], 1_024> = Array::new();
#[btf_map]
static INTERFACES: HashMap<u32, u32, 1_024> = HashMap::new();
#[btf_map]
static ADDRESSES: HashMap<Addr, AddrEntry, 131_072, LAZY> = HashMap::new();
#[btf_map]
static CIDRS: LpmTrie<[u8; 16], AddrEntry, 16_384> = LpmTrie::new();
#[btf_map]
static PEERS: HashMap<PeerKey, PeerEntry, 131_072, LAZY> = HashMap::new();
#[btf_map]
static REGIONS: LpmTrie<RegionKey, PeerEntry, 65_536> = LpmTrie::new();
#[btf_map]
static PORTS: HashMap<PortKey, Decision, 65_536, LAZY> = HashMap::new();
/// Never read here: lets a restarted daemon recognise what it finds.
#[btf_map]
static RULESETS: HashMap<u32, RulesetInfo, 16_384, LAZY> = HashMap::new();
/// Never read here: see `datapath_abi::maps::GENERATION`.
#[btf_map]
static GENERATION: Array<u64, 1> = Array::new();
#[btf_map]
static ORIGINS: LpmTrie<[u8; 16], Origin, 16_384> = LpmTrie::new();
#[btf_map]
static NUMBERS: HashMap<u32, u32, 65_536, LAZY> = HashMap::new();
#[btf_map]
static CARRIED: LruHashMap<Addr, u32, 16_384> = LruHashMap::new();
#[btf_map]
static FRONTENDS: HashMap<FrontendKey, Frontend, 65_536, LAZY> = HashMap::new();
#[btf_map]
static BACKENDS: HashMap<BackendKey, Backend, 262_144, LAZY> = HashMap::new();
#[btf_map]
static GONE: HashMap<GoneKey, u32, 65_536, LAZY> = HashMap::new();
#[btf_map]
static DENIED: LpmTrie<[u8; 16], Denied, 65_536> = LpmTrie::new();
#[btf_map]
static BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();
#[btf_map]
static EVENTS: RingBuf<FlowEvent, { 4 << 20 }> = RingBuf::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counter, { (HOOKS * REASONS) as usize }> = PerCpuArray::new();
#[btf_map]
static SCALARS: PerCpuArray<u64, { Scalar::COUNT as usize }> = PerCpuArray::new();
/// The programs' own: not pinned, and of no concern to the daemon.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

macro_rules! load {
    ($pointer:expr, $($field:tt)+) => {
        // SAFETY: the pointer is a map value, which the verifier knows; fields are words.
        unsafe { read_volatile(addr_of!((*$pointer).$($field)+)) }
    };
}

macro_rules! store {
    ($pointer:expr, $value:expr, $($field:tt)+) => {
        // SAFETY: as for `load!`.
        unsafe { write_volatile(addr_of_mut!((*$pointer).$($field)+), $value) }
    };
}

mod dns;
mod entry;

pub(crate) use self::{
    dns::{dns_ports, emit_dns},
    entry::EntryRef,
};

/// Counts a packet. `reason` 0 is "passed".
#[inline(always)]
pub(crate) fn count(hook: Hook, reason: u8, bytes: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(hook as u32 * REASONS + reason as u32) {
        // SAFETY: a per-CPU value; programs are not preempted by others of their kind.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes as u64;
        }
    }
}

/// Adds one to a scalar.
#[inline(always)]
pub(crate) fn bump(scalar: Scalar) {
    if let Some(value) = SCALARS.get_ptr_mut(scalar as u32) {
        // SAFETY: as above.
        unsafe { *value += 1 }
    }
}

/// Reserves an event, has it filled, submits it; counts it if there is no room.
///
/// `fill` must write every field: the place holds what was there before. No event wakes the
/// reader, who looks by the clock: a wake-up costs more than everything else about an event.
#[inline(always)]
pub(crate) fn emit(fill: impl FnOnce(&mut FlowEvent)) {
    match EVENTS.reserve(0) {
        Some(mut place) => {
            // SAFETY: the kernel's memory is there, aligned to 8 bytes, and any bit pattern is
            // a `FlowEvent`.
            fill(unsafe { place.assume_init_mut() });
            place.submit(BPF_RB_NO_WAKEUP as u64);
            bump(Scalar::EventsWritten);
        }
        None => bump(Scalar::EventsLost),
    }
}

/// This CPU's notes, for the run of one program. Call it once in a run, and once in each of `bpf::steps`.
///
/// No other program of ours runs on this CPU before this one has ended: tc calls them in soft interrupts or with
/// these off (`sch_handle_ingress`, `sch_handle_egress`), what they send on goes its way when they have ended
/// (`skb_do_redirect`), and no helper they call runs a program. See docs/adr/0018.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: a map value that is this run's alone; any bit pattern the programs leave there is a `Scratch`, and
    // what the kernel puts there at first, zeroes, too.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// A local endpoint. Slot 0 gives the entry of nobody: zeroes.
#[derive(Clone, Copy)]
pub(crate) struct EndpointRef(*mut Endpoint);

#[inline(always)]
pub(crate) fn endpoint(slot: u32) -> Option<EndpointRef> {
    ENDPOINTS.get_ptr_mut(slot).map(EndpointRef)
}

#[inline(always)]
pub(crate) fn slot_of(ifindex: u32) -> Option<u32> {
    // SAFETY: a word, copied at once.
    INTERFACES.get_ptr(ifindex).map(|slot| unsafe { read_volatile(slot) })
}

/// [`datapath_abi::endpoint::RulesPtr`] bits of the rules with the staged policies; 0 for none.
#[inline(always)]
pub(crate) fn staged(slot: u32, direction: Direction) -> u64 {
    match STAGED.get_ptr(slot) {
        // SAFETY: a word of a map value.
        Some(rules) => unsafe { read_volatile(addr_of!((*rules)[direction as usize])) },
        None => 0,
    }
}

const _: () = assert!(
    core::mem::offset_of!(Endpoint, mac) % 8 == 0
        && core::mem::offset_of!(Endpoint, pad) == core::mem::offset_of!(Endpoint, mac) + 6
);

impl EndpointRef {
    #[inline(always)]
    pub(crate) fn egress_rules(self) -> u64 {
        load!(self.0, rules[0])
    }

    #[inline(always)]
    pub(crate) fn ingress_rules(self) -> u64 {
        load!(self.0, rules[1])
    }

    /// One store: a packet sees the old number or the new one.
    #[inline(always)]
    pub(crate) fn set_identity(self, identity: u32) {
        store!(self.0, identity, identity);
    }

    /// One store per direction.
    #[inline(always)]
    pub(crate) fn swing(self, rules: [u64; 2]) {
        store!(self.0, rules[0], rules[0]);
        store!(self.0, rules[1], rules[1]);
    }

    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        load!(self.0, ifindex)
    }

    #[inline(always)]
    pub(crate) fn identity(self) -> u32 {
        load!(self.0, identity)
    }

    #[inline(always)]
    pub(crate) fn mac(self) -> [u8; 6] {
        let [a, b, c, d, e, f, ..] = self.mac_word().to_ne_bytes();
        [a, b, c, d, e, f]
    }

    /// The MAC address as one word of memory, zero above.
    #[inline(always)]
    pub(crate) fn mac_word(self) -> u64 {
        // SAFETY: a map value; `mac` is followed by two bytes of padding, and both together are
        // aligned to eight (asserted above).
        unsafe { read_volatile(addr_of!((*self.0).mac).cast()) }
    }

    /// Whether the endpoint owns `addr`.
    #[inline(always)]
    pub(crate) fn owns(self, addr: Addr) -> bool {
        let (a, b) = (load!(self.0, addr4.words[0]), load!(self.0, addr4.words[1]));
        let (c, d) = (load!(self.0, addr6.words[0]), load!(self.0, addr6.words[1]));
        (addr.words[0] == a && addr.words[1] == b && b != 0) || (addr.words[0] == c && addr.words[1] == d && c | d != 0)
    }
}

/// Whose address is it? `None`: nobody's we know, so the world's.
#[inline(always)]
pub(crate) fn address(addr: Addr) -> Option<AddrEntry> {
    match owner(addr) {
        Some(entry) => Some(entry),
        None => range(addr),
    }
}

/// Whose very address is it?
#[inline(always)]
pub(crate) fn owner(addr: Addr) -> Option<AddrEntry> {
    let entry = ADDRESSES.get_ptr(&addr)?;
    Some(AddrEntry { identity: load!(entry, identity), slot: load!(entry, slot) })
}

/// In whose range is it?
#[inline(always)]
pub(crate) fn range(addr: Addr) -> Option<AddrEntry> {
    CIDRS.get(&Key::new(128, addr.octets())).copied()
}

/// What stands behind an address and port, if that is a Service's.
#[inline(always)]
pub(crate) fn frontend(key: &FrontendKey) -> Option<Frontend> {
    let frontend = FRONTENDS.get_ptr(key)?;
    Some(Frontend { set: load!(frontend, set), count: load!(frontend, count) })
}

/// Who serves in a place of a set.
#[inline(always)]
pub(crate) fn backend(key: BackendKey) -> Option<Backend> {
    // SAFETY: a value that is replaced as a whole, never in place.
    BACKENDS.get_ptr(key).map(|backend| unsafe { *backend })
}

/// Whether a set has lost a backend.
#[inline(always)]
pub(crate) fn is_gone(key: &GoneKey) -> bool {
    GONE.get_ptr(key).is_some()
}

/// Where packets from an address come from, if it is one of another node and there is an overlay.
#[inline(always)]
pub(crate) fn origin(addr: Addr) -> Option<Origin> {
    ORIGINS.get(&Key::new(128, addr.octets())).copied()
}

/// Whether packets from an address are refused at the uplink.
#[inline(always)]
pub(crate) fn is_denied(addr: Addr) -> bool {
    DENIED.get(&Key::new(128, addr.octets())).is_some_and(|denied| denied.verdict == Denied::REFUSED)
}

/// Takes one record of those that this CPU may write in a window. False: there is none left.
#[inline(always)]
pub(crate) fn may_record(now_ns: u64) -> bool {
    let Some(budget) = BUDGET.get_ptr_mut(0) else { return false };
    let window = now_ns >> Budget::WINDOW_SHIFT;
    if load!(budget, window) != window {
        store!(budget, window, window);
        store!(budget, 0, written);
    }
    let written = load!(budget, written);
    if written >= Budget::MOST {
        return false;
    }
    store!(budget, written + 1, written);
    true
}

/// Whether a number is in NUMBERS: see [`datapath_abi::overlay`].
#[inline(always)]
pub(crate) fn believes(number: u32) -> bool {
    NUMBERS.get_ptr(number).is_some()
}

/// What the last packet from an address has carried, if that is not what the address says.
#[inline(always)]
pub(crate) fn carried(addr: Addr) -> Option<u32> {
    // SAFETY: a word, copied at once.
    CARRIED.get_ptr(&addr).map(|number| unsafe { read_volatile(number) })
}

/// A map that refuses leaves the address to say who it is.
#[inline(always)]
pub(crate) fn carry(addr: Addr, number: u32) {
    let _ = CARRIED.insert(&addr, &number, BPF_ANY as u64);
}

#[inline(always)]
pub(crate) fn forget_carried(addr: Addr) {
    let _ = CARRIED.remove(&addr);
}

#[inline(always)]
pub(crate) fn peer(ruleset: u32, identity: u32) -> Option<PeerEntry> {
    PEERS.get_ptr(PeerKey { ruleset, identity }).map(copy_peer)
}

#[inline(always)]
pub(crate) fn region(ruleset: u32, addr: Addr) -> Option<PeerEntry> {
    REGIONS.get(&Key::new(REGION_RULESET_BITS + 128, RegionKey::new(ruleset, addr))).map(|entry| copy_peer(entry))
}

#[inline(always)]
pub(crate) fn port(key: PortKey) -> Option<Decision> {
    // SAFETY: eight bytes, copied at once.
    PORTS.get_ptr(key).map(|decision| unsafe { *decision })
}

#[inline(always)]
fn copy_peer(entry: *const PeerEntry) -> PeerEntry {
    // SAFETY: a map value. Entries of a live rule set change by replacement, not in place.
    unsafe { *entry }
}

/// What the first fragment of a packet has said.
#[inline(always)]
pub(crate) fn fragment(key: &FragmentKey) -> Option<FragmentEntry> {
    // SAFETY: eight bytes, copied at once.
    FRAGMENTS.get_ptr(key).map(|entry| unsafe { *entry })
}

/// A map that refuses costs the packet's later fragments.
#[inline(always)]
pub(crate) fn put_fragment(key: &FragmentKey, entry: &FragmentEntry) {
    let _ = FRAGMENTS.insert(key, entry, BPF_ANY as u64);
}

#[inline(always)]
pub(crate) fn established(key: &CtKey) -> Option<EntryRef> {
    CONNTRACK.get_ptr_mut(key).map(EntryRef)
}

/// A packet whose beginning was made its key, as that.
#[inline(always)]
pub(crate) fn key_of(packet: &Packet) -> &CtKey {
    // SAFETY: a packet begins with the fields of a key, at the same places (asserted in `parse`).
    unsafe { &*(&raw const *packet).cast::<CtKey>() }
}

/// By a packet whose beginning was made its key: see [`datapath_ebpf::ct::put_in_order`].
#[inline(always)]
pub(crate) fn established_of(packet: &Packet) -> Option<EntryRef> {
    established(key_of(packet))
}

#[inline(always)]
pub(crate) fn pending(key: &CtKey) -> Option<EntryRef> {
    PENDING.get_ptr_mut(key).map(EntryRef)
}

/// Which of the two conntrack tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// CONNTRACK.
    Established,
    /// PENDING.
    Pending,
}

/// The connection of this key, and the table it is in: CONNTRACK, which hides what PENDING may have left.
#[inline(always)]
pub(crate) fn connection(key: &CtKey) -> Option<(EntryRef, Table)> {
    match established(key) {
        Some(entry) => Some((entry, Table::Established)),
        None => pending(key).map(|entry| (entry, Table::Pending)),
    }
}

/// Copies an entry of PENDING to CONNTRACK. False: that map is full.
#[inline(always)]
pub(crate) fn promote(key: &CtKey, entry: EntryRef) -> bool {
    // SAFETY: a map value; any bit pattern is an entry.
    CONNTRACK.insert(key, unsafe { &*entry.0 }, BPF_ANY as u64).is_ok()
}

/// What PENDING has said to an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is there.
    Done,
    /// No room.
    Full,
    /// The key has an entry, which stays.
    Taken,
}

/// `replace`: whatever the key may have.
#[inline(always)]
pub(crate) fn put_pending(key: &CtKey, entry: &CtEntry, replace: bool) -> Put {
    match PENDING.insert(key, entry, if replace { BPF_ANY } else { BPF_NOEXIST } as u64) {
        Ok(()) => Put::Done,
        Err(error) if !replace && error as i64 == EEXIST => Put::Taken,
        Err(_) => Put::Full,
    }
}

/// errno(3).
const EEXIST: i64 = -17;

/// Whether an endpoint may have one more connection that waits in PENDING. `slot`: see [`Waiting`].
#[inline(always)]
pub(crate) fn may_wait(slot: u32) -> bool {
    match WAITING.get_ptr(slot) {
        Some(waiting) => {
            let limit = load!(waiting, limit);
            limit == 0 || load!(waiting, count) < limit
        }
        None => true,
    }
}

/// Counts one that waits, or waits no more (-1).
#[inline(always)]
pub(crate) fn waits(slot: u32, more: i32) {
    if let Some(waiting) = WAITING.get_ptr_mut(slot) {
        // SAFETY: a map value, aligned; several CPUs may count at once.
        unsafe { atomic_xadd::<i32, i32, { AtomicOrdering::Relaxed }>(addr_of_mut!((*waiting).count), more) };
    }
}

/// The sweep's: begins to count anew.
#[inline(always)]
pub(crate) fn count_anew(waiting: *mut Waiting) {
    let count = load!(waiting, count);
    store!(waiting, count, before);
    store!(waiting, 0, found);
}

/// The sweep's: has found one.
#[inline(always)]
pub(crate) fn found_waiting(slot: u32) {
    if let Some(waiting) = WAITING.get_ptr_mut(slot) {
        let found = load!(waiting, found);
        store!(waiting, found + 1, found);
    }
}

/// The sweep's: takes what was found in place of what was counted when it began. What was counted since is kept.
#[inline(always)]
pub(crate) fn counted_anew(waiting: *mut Waiting, limit: i32) {
    let missing = load!(waiting, found).wrapping_sub(load!(waiting, before));
    if missing != 0 {
        // SAFETY: as in `waits`.
        unsafe { atomic_xadd::<i32, i32, { AtomicOrdering::Relaxed }>(addr_of_mut!((*waiting).count), missing) };
    }
    store!(waiting, limit, limit);
}

/// Removes the key from CONNTRACK.
#[inline(always)]
pub(crate) fn remove_established(key: &CtKey) {
    let _ = CONNTRACK.remove(key);
}

/// Removes the key from both tables.
#[inline(always)]
pub(crate) fn remove(key: &CtKey) {
    let _ = CONNTRACK.remove(key);
    let _ = PENDING.remove(key);
}

#[inline(always)]
pub(crate) fn remove_pending(key: &CtKey) {
    let _ = PENDING.remove(key);
}
