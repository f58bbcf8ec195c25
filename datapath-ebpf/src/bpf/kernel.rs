//! Calls of the kernel's helper functions (bpf-helpers(7)), as safe functions.
#![allow(unsafe_code)]

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key},
    helpers::generated::{
        bpf_csum_diff, bpf_csum_update, bpf_for_each_map_elem, bpf_get_prandom_u32, bpf_get_smp_processor_id,
        bpf_jiffies64, bpf_ktime_get_ns, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect_peer,
        bpf_skb_get_tunnel_key, bpf_skb_load_bytes, bpf_skb_set_tunnel_key, bpf_skb_store_bytes,
    },
};
use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, Waiting},
};

use crate::bpf::maps::{self, CONNTRACK, EntryRef, PENDING, WAITING};

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Low half of the jiffies counter; the verifier turns the helper into one load.
#[inline(always)]
pub(crate) fn jiffies() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() as u32 }
}

/// Number of the CPU we run on, and stay on.
#[inline(always)]
pub(crate) fn cpu() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_smp_processor_id() }
}

/// Hands the packet to the other end of a pair, veth or netkit. Returns what the program has to return.
#[inline(always)]
pub(crate) fn redirect_peer(ifindex: u32) -> i32 {
    // SAFETY: a helper with plain numbers.
    unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
}

/// Any number.
#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_prandom_u32() }
}

/// A place in a frame, that of the checksum that covers it (0: none does), and the flags to mend that one with.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) at: u32,
    pub(crate) csum: u32,
    pub(crate) flags: u64,
}

/// Writes an address in place of another one. `header`: of IPv4, where its header begins, which has a checksum of its own.
#[inline(always)]
pub(crate) fn exchange_address(context: *mut __sk_buff, old: &Addr, new: &Addr, place: Place, header: Option<u32>) {
    // Of IPv4 the last four bytes.
    let (skip, length) = if header.is_some() { (12, 4) } else { (0, 16) };
    // SAFETY: both are sixteen bytes long, the context is valid for the run of the program, and the kernel checks the
    // places against the packet.
    unsafe {
        let (old, new) = ((&raw const *old).cast::<u8>().add(skip), (&raw const *new).cast::<u8>().add(skip));
        let difference =
            bpf_csum_diff(old.cast_mut().cast(), length, new.cast_mut().cast(), length, 0) as u64 & 0xffff_ffff;
        if let Some(header) = header {
            bpf_l3_csum_replace(context, header + 10, 0, difference, 0);
        }
        if place.csum != 0 {
            mend(context, place.csum, difference as u32, place.flags);
            if header.is_none() && place.flags & BPF_F_PSEUDO_HDR as u64 != 0 {
                // The helper takes the address for one that a header's own sum makes up for. Does nothing where no device
                // has summed it.
                mend_sum_of_device(context, difference as u32);
            }
        }
        bpf_skb_store_bytes(context, place.at, new.cast(), length, 0);
    }
}

/// Mends the checksum of a transport header by what has changed (see [`datapath_ebpf::csum::difference`]), as far as it is
/// one: where the device is to make it, there is none of the ports yet.
#[inline(always)]
pub(crate) fn mend(context: *mut __sk_buff, at: u32, difference: u32, flags: u64) {
    // SAFETY: the context is valid for the run of the program, and the kernel checks the place against the packet.
    unsafe { bpf_l4_csum_replace(context, at, 0, difference as u64, flags) };
}

/// Mends the sum that the device has made of the whole packet, if it has: for an address that no sum of its own header makes up
/// for, which IPv6 has not.
#[inline(always)]
pub(crate) fn mend_sum_of_device(context: *mut __sk_buff, difference: u32) {
    // SAFETY: as above.
    unsafe { bpf_csum_update(context, difference) };
}

/// Writes a port in place of another one.
#[inline(always)]
pub(crate) fn exchange_port(context: *mut __sk_buff, old: u16, new: u16, place: Place) {
    let (old, new) = (old.to_be(), new.to_be());
    // SAFETY: as above.
    unsafe {
        if place.csum != 0 {
            bpf_l4_csum_replace(context, place.csum, old as u64, new as u64, place.flags | 2);
        }
        bpf_skb_store_bytes(context, place.at, (&raw const new).cast(), 2, 0);
    }
}

/// Four bytes of a frame in memory order.
#[inline(always)]
pub(crate) fn load_word(context: *mut __sk_buff, at: u32) -> Option<u32> {
    let mut word = 0u32;
    // SAFETY: the context is valid, and the place is four bytes long.
    let read = unsafe { bpf_skb_load_bytes(context.cast(), at, (&raw mut word).cast(), 4) };
    if read == 0 { Some(word) } else { None }
}

/// Copies `count` bytes of a frame. `None`: it has not so many there, or `into` has no room, or it is about none. Else `count`, as
/// a number whose bounds the verifier knows.
#[inline(always)]
pub(crate) fn load_bytes<const N: usize>(
    context: *mut __sk_buff,
    at: u32,
    into: &mut [u8; N],
    count: u64,
) -> Option<u64> {
    let mut last = count.wrapping_sub(1);
    // SAFETY: moves a register to itself: the compiler, which may know the bounds already, is to leave in what the verifier
    // wants to see of them. Kernel 6.1 does not learn from a comparison with zero that a number is none.
    unsafe { asm!("{0} = {0}", inout(reg) last, options(nomem, nostack, preserves_flags)) };
    if last >= N as u64 {
        return None;
    }
    let count = last + 1;
    // SAFETY: the context is valid, and there is room for so many.
    let read = unsafe { bpf_skb_load_bytes(context.cast(), at, into.as_mut_ptr().cast(), count as u32) };
    if read == 0 { Some(count) } else { None }
}

/// Writes four bytes of a frame, in memory order.
#[inline(always)]
pub(crate) fn store_word(context: *mut __sk_buff, at: u32, word: u32) {
    // SAFETY: as above.
    unsafe { bpf_skb_store_bytes(context, at, (&raw const word).cast(), 4, 0) };
}

/// What a tunnel has said of a packet that came out of it.
#[derive(Clone, Copy)]
pub(crate) struct Tunnel {
    /// Number (VNI).
    pub(crate) number: u32,
    /// Source address of the packet that carried it.
    pub(crate) far: Addr,
}

/// Of a packet that came out of a tunnel.
#[inline(always)]
pub(crate) fn tunnel(context: *mut __sk_buff) -> Option<Tunnel> {
    let (key, v6) = tunnel_key(context)?;
    // SAFETY: the helper has written it, by the family that was asked for: four bytes in the order of this machine, or
    // sixteen in that of the network. Any bytes are either.
    let far = unsafe {
        if v6 {
            let [a, b, c, d] = key.__bindgen_anon_1.remote_ipv6;
            let pair = |low: u32, high: u32| (high as u64) << 32 | low as u64;
            Addr { words: [pair(a, b), pair(c, d)] }
        } else {
            Addr::from_v4(key.__bindgen_anon_1.remote_ipv4.to_be_bytes())
        }
    };
    Some(Tunnel { number: key.tunnel_id, far })
}

/// Gives a packet that is led into a tunnel by its route a number besides. False: nothing leads it there.
#[inline(always)]
pub(crate) fn number_tunnel(context: *mut __sk_buff, number: u32) -> bool {
    let Some((mut key, v6)) = tunnel_key(context) else { return false };
    // What is asked of a packet tells the far end as the local one: it is for those that came.
    // SAFETY: both are four words, and any bytes are a value.
    unsafe {
        let there = key.__bindgen_anon_3.local_ipv6;
        key.__bindgen_anon_3.local_ipv6 = key.__bindgen_anon_1.remote_ipv6;
        key.__bindgen_anon_1.remote_ipv6 = there;
    }
    key.tunnel_id = number;
    // No UDP checksum, as without us.
    let flags = if v6 { BPF_F_ZERO_CSUM_TX | BPF_F_TUNINFO_IPV6 } else { BPF_F_ZERO_CSUM_TX };
    // SAFETY: the context and the key are valid, the size is the key's.
    unsafe { bpf_skb_set_tunnel_key(context, &raw mut key, KEY_SIZE, flags as u64) == 0 }
}

const KEY_SIZE: u32 = core::mem::size_of::<bpf_tunnel_key>() as u32;

/// What the kernel knows of a packet's tunnel, and whether that is one over IPv6.
#[inline(always)]
fn tunnel_key(context: *mut __sk_buff) -> Option<(bpf_tunnel_key, bool)> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
    // SAFETY: the context and the key are valid, the size is the key's.
    if unsafe { bpf_skb_get_tunnel_key(context, &raw mut key, KEY_SIZE, 0) } == 0 {
        return Some((key, false));
    }
    // SAFETY: as above.
    if unsafe { bpf_skb_get_tunnel_key(context, &raw mut key, KEY_SIZE, BPF_F_TUNINFO_IPV6 as u64) } == 0 {
        return Some((key, true));
    }
    None
}

/// Who looks at every connection of a table.
pub(crate) trait Visit {
    /// One of them. It may remove the entry.
    fn visit(&mut self, key: &CtKey, entry: EntryRef);
}

/// Shows every established connection to `visitor`.
#[inline(always)]
pub(crate) fn each_established<V: Visit>(visitor: &mut V) {
    each((&raw const CONNTRACK).cast_mut().cast(), visitor);
}

/// Shows every connection without an answer to `visitor`.
#[inline(always)]
pub(crate) fn each_pending<V: Visit>(visitor: &mut V) {
    each((&raw const PENDING).cast_mut().cast(), visitor);
}

/// Begins to count anew what waits, for every endpoint.
#[inline(always)]
pub(crate) fn count_waiting_anew() {
    each_waiting(begin, 0);
}

/// Ends it, and says how many may wait of each.
#[inline(always)]
pub(crate) fn waiting_counted(limit: i32) {
    each_waiting(settle, limit);
}

type EachWaiting = extern "C" fn(*mut c_void, *const u32, *mut Waiting, *mut i32) -> i64;

#[inline(always)]
fn each_waiting(callback: EachWaiting, mut limit: i32) {
    // SAFETY: map, callback and its argument are what the helper asks for; the verifier checks.
    unsafe {
        bpf_for_each_map_elem(
            (&raw const WAITING).cast_mut().cast(),
            callback as *mut c_void,
            (&raw mut limit).cast(),
            0,
        );
    }
}

/// 0: go on.
extern "C" fn begin(_map: *mut c_void, _slot: *const u32, waiting: *mut Waiting, _limit: *mut i32) -> i64 {
    maps::count_anew(waiting);
    0
}

/// 0: go on.
extern "C" fn settle(_map: *mut c_void, _slot: *const u32, waiting: *mut Waiting, limit: *mut i32) -> i64 {
    // SAFETY: the kernel calls this with the argument that `each_waiting` gave it.
    maps::counted_anew(waiting, unsafe { *limit });
    0
}

#[inline(always)]
fn each<V: Visit>(map: *mut c_void, visitor: &mut V) {
    let show = show::<V> as extern "C" fn(*mut c_void, *const CtKey, *mut CtEntry, *mut V) -> i64;
    // SAFETY: map, callback and its argument are what the helper asks for; the verifier checks.
    unsafe { bpf_for_each_map_elem(map, show as *mut c_void, (&raw mut *visitor).cast(), 0) };
}

/// 0: go on.
extern "C" fn show<V: Visit>(_map: *mut c_void, key: *const CtKey, value: *mut CtEntry, visitor: *mut V) -> i64 {
    // SAFETY: the kernel calls this with the key, the value and the argument that `each` gave it.
    let (key, visitor) = unsafe { (&*key, &mut *visitor) };
    visitor.visit(key, EntryRef::from_value(value));
    0
}
