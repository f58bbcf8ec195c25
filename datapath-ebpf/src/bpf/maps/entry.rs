//! One connection's entry where it lies in its map: fields, one by one.

use core::{
    intrinsics::{AtomicOrdering, atomic_xadd},
    ptr::{addr_of, addr_of_mut, read_volatile, write_volatile},
};

use datapath_abi::{addr::Addr, conntrack::CtEntry, service::Translation};

use crate::bpf::kernel;

/// A conntrack entry in its map.
#[derive(Clone, Copy)]
pub(crate) struct EntryRef(pub(super) *mut CtEntry);

impl EntryRef {
    /// From the value pointer that `bpf_for_each_map_elem` gives.
    #[inline(always)]
    pub(crate) fn from_value(value: *mut CtEntry) -> Self {
        Self(value)
    }

    /// The value itself, for a step that reads it whole. Fields may be of different moments.
    #[inline(always)]
    pub(crate) fn value(self) -> *const CtEntry {
        self.0
    }

    #[inline(always)]
    pub(crate) fn cookie(self) -> [u32; 2] {
        [load!(self.0, ends.cookie[0]), load!(self.0, ends.cookie[1])]
    }

    #[inline(always)]
    pub(crate) fn rules(self) -> [u64; 2] {
        [load!(self.0, ends.rules[0]), load!(self.0, ends.rules[1])]
    }

    #[inline(always)]
    pub(crate) fn slot(self) -> [u32; 2] {
        [load!(self.0, ends.slot[0]), load!(self.0, ends.slot[1])]
    }

    #[inline(always)]
    pub(crate) fn ifindex(self) -> [u32; 2] {
        [load!(self.0, ends.ifindex[0]), load!(self.0, ends.ifindex[1])]
    }

    #[inline(always)]
    pub(crate) fn identity(self) -> [u32; 2] {
        [load!(self.0, ends.identity[0]), load!(self.0, ends.identity[1])]
    }

    /// [`EntryRef::service`]'s port alone.
    #[inline(always)]
    pub(crate) fn service_port(self) -> u16 {
        load!(self.0, service.port)
    }

    /// What was translated. Written once, before the entry is in a table.
    #[inline(always)]
    pub(crate) fn service(self) -> Translation {
        let (a, b) = (load!(self.0, service.addr.words[0]), load!(self.0, service.addr.words[1]));
        Translation {
            addr: Addr { words: [a, b] },
            port: load!(self.0, service.port),
            from_port: load!(self.0, service.from_port),
            set: load!(self.0, service.set),
        }
    }

    #[inline(always)]
    pub(crate) fn flags(self) -> u8 {
        load!(self.0, flags)
    }

    #[inline(always)]
    pub(crate) fn state(self) -> u8 {
        load!(self.0, state)
    }

    #[inline(always)]
    pub(crate) fn tcp_flags(self) -> [u8; 2] {
        [load!(self.0, tcp_flags[0]), load!(self.0, tcp_flags[1])]
    }

    #[inline(always)]
    pub(crate) fn created_ns(self) -> u64 {
        load!(self.0, created_ns)
    }

    #[inline(always)]
    pub(crate) fn reported_ns(self) -> u64 {
        load!(self.0, reported_ns)
    }

    #[inline(always)]
    pub(crate) fn last_seen(self) -> u32 {
        load!(self.0, last_seen)
    }

    #[inline(always)]
    pub(crate) fn set_state(self, state: u8) {
        store!(self.0, state, state);
    }

    #[inline(always)]
    pub(crate) fn set_flags(self, flags: u8) {
        store!(self.0, flags, flags);
    }

    #[inline(always)]
    pub(crate) fn reported(self) -> bool {
        load!(self.0, reported) != 0
    }

    #[inline(always)]
    pub(crate) fn set_reported(self, reported: bool) {
        store!(self.0, reported as u8, reported);
    }

    #[inline(always)]
    pub(crate) fn denied(self) -> u8 {
        load!(self.0, denied)
    }

    #[inline(always)]
    pub(crate) fn set_denied(self, direction: u8) {
        store!(self.0, direction, denied);
    }

    /// Notes when the last packet came.
    #[inline(always)]
    pub(crate) fn touch(self, now: u32) {
        store!(self.0, now, last_seen);
    }

    #[inline(always)]
    pub(crate) fn set_reported_ns(self, now_ns: u64) {
        store!(self.0, now_ns, reported_ns);
    }

    #[inline(always)]
    pub(crate) fn set_rtt_us(self, rtt_us: u32) {
        store!(self.0, rtt_us, rtt_us);
    }

    #[inline(always)]
    pub(crate) fn set_verdict(self, rules: [u64; 2], identity: [u32; 2], cookie: [u32; 2]) {
        store!(self.0, identity[0], ends.identity[0]);
        store!(self.0, identity[1], ends.identity[1]);
        store!(self.0, cookie[0], ends.cookie[0]);
        store!(self.0, cookie[1], ends.cookie[1]);
        store!(self.0, rules[0], ends.rules[0]);
        store!(self.0, rules[1], ends.rules[1]);
    }

    /// Adds TCP flags to those seen from the initiator (`responder` false) or the responder.
    #[inline(always)]
    pub(crate) fn add_tcp_flags(self, responder: bool, flags: u8) {
        if responder {
            let old = load!(self.0, tcp_flags[1]);
            store!(self.0, old | flags, tcp_flags[1]);
        } else {
            let old = load!(self.0, tcp_flags[0]);
            store!(self.0, old | flags, tcp_flags[0]);
        }
    }

    /// Says who counts the responder's direction without a lock. Only while the entry is in PENDING.
    #[inline(always)]
    pub(crate) fn set_responder_owner(self, owner: u8) {
        store!(self.0, owner, owner[1]);
    }

    #[inline(always)]
    pub(crate) fn sctp_tag(self) -> [u32; 2] {
        [load!(self.0, sctp_tag[0]), load!(self.0, sctp_tag[1])]
    }

    /// Notes the tag of packets to the responder.
    #[inline(always)]
    pub(crate) fn set_responder_tag(self, tag: u32) {
        store!(self.0, tag, sctp_tag[1]);
    }

    /// Counts a packet and notes when it came. From any CPU, in either table.
    #[inline(always)]
    pub(crate) fn account(self, responder: bool, bytes: u32, now: u32) {
        self.seen_at(now);
        if responder {
            self.add(1, bytes);
        } else {
            self.add(0, bytes);
        }
    }

    /// The same for an entry of CONNTRACK, without a lock on the CPU that owns the direction.
    ///
    /// No addition is lost: a direction's owner does not change while its entry is in CONNTRACK (it is written in
    /// PENDING, where nobody comes by here, and promotion copies), only the owner writes `own`, and no program of ours
    /// interrupts another one on its CPU: they run in soft interrupts or with these off (`sch_handle_ingress`,
    /// `sch_handle_egress`, `bpf_test_run`). As for all fields, a CPU that has found an entry may still write
    /// to it when it was removed and its place given to another connection; there it could leave the old one's count.
    #[inline(always)]
    pub(crate) fn account_established(self, responder: bool, bytes: u32, now: u32) {
        self.seen_at(now);
        // Eight bits against all of the number's: CPUs that do not fit own nothing.
        let me = kernel::cpu() + 1;
        if responder {
            if load!(self.0, owner[1]) as u32 == me { self.add_own(1, bytes) } else { self.add(1, bytes) }
        } else if load!(self.0, owner[0]) as u32 == me {
            self.add_own(0, bytes);
        } else {
            self.add(0, bytes);
        }
    }

    #[inline(always)]
    fn seen_at(self, now: u32) {
        // A cache line that does not change need not travel between CPUs.
        if load!(self.0, last_seen) != now {
            store!(self.0, now, last_seen);
        }
    }

    #[inline(always)]
    fn add_own(self, direction: usize, more: u32) {
        let packets = load!(self.0, own[direction].packets);
        store!(self.0, packets + 1, own[direction].packets);
        let bytes = load!(self.0, own[direction].bytes);
        store!(self.0, bytes + more as u64, own[direction].bytes);
    }

    #[inline(always)]
    fn add(self, direction: usize, bytes: u32) {
        // SAFETY: a map value, aligned; several CPUs may count at once.
        unsafe {
            let tally = addr_of_mut!((*self.0).shared[direction]);
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(addr_of_mut!((*tally).packets), 1);
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(addr_of_mut!((*tally).bytes), bytes as u64);
        }
    }
}
