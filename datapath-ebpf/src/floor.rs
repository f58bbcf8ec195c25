//! Programs that the product's are measured against, and the wrappers that measure them. Not
//! part of the product: an object of its own, loaded by `bulkhead-bench` alone.
//!
//! ```text
//! bench_empty     nothing: what a run costs by itself
//! bench_floor     reads the five-tuple by direct packet access, finds it in an LRU hash
//! bench_floor4    the same for IPv4 alone, with a key of 13 bytes instead of 37
//! bench_restore   writes the packet's first bytes back, goes on to TARGET
//! bench_vary4/6   the same, with another source port and destination each time
//! ```
//!
//! A program that rewrites the packet finds it changed in the next run: hence the wrappers.
//! Soundness of the packet accesses rests on the verifier, as in `bpf::packet`.
#![no_std]
#![no_main]
#![allow(unsafe_code)]

use aya_ebpf::{
    btf_maps::{Array, LruHashMap, ProgramArray},
    macros::{btf_map, classifier},
    programs::TcContext,
};
use datapath_abi::conntrack::{CtEntry, CtKey};

/// `TC_ACT_UNSPEC`.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`: what was to be found was not there.
const SHOT: i32 = 2;

/// Ethernet, IPv4 without options, TCP.
const V4_HEADERS: usize = 14 + 20 + 20;
/// Ethernet, IPv6, TCP.
const V6_HEADERS: usize = 14 + 40 + 20;
/// How much a wrapper writes back: MAC addresses, TTL and checksum, addresses, ports, and the checksum of TCP.
const RESTORED: usize = 72;

/// The packet as it was, and how the next one differs. Written by the measurement.
#[repr(C)]
#[derive(Clone, Copy)]
struct Template {
    /// The first bytes, in memory order.
    bytes: [u64; RESTORED / 8],
    /// Runs so far.
    runs: u64,
    /// Bits of the destination's last two bytes (network order, as a number) that vary.
    mask: u64,
}

/// Key of `bench_floor4`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key4 {
    addr: [u32; 2],
    ports: u32,
    proto: u32,
}

#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static TEMPLATE: Array<Template, 1> = Array::new();
#[btf_map]
static FLOOR: LruHashMap<CtKey, CtEntry, 1_310_720> = LruHashMap::new();
#[btf_map]
static FLOOR4: LruHashMap<Key4, CtEntry, 131_072> = LruHashMap::new();

#[classifier]
pub(crate) fn bench_empty(_: TcContext) -> i32 {
    NEXT
}

#[classifier]
pub(crate) fn bench_floor(context: TcContext) -> i32 {
    let data = context.data();
    if data + V4_HEADERS > context.data_end() {
        return SHOT;
    }
    let mut key = CtKey { addr: Default::default(), port: [0; 2], proto: 0, pad: [0; 3] };
    // SAFETY: each stretch was compared with data_end.
    unsafe {
        match u16::from_be(*((data + 12) as *const u16)) {
            0x0800 if *((data + 14) as *const u8) == 0x45 => {
                key.addr[0].words[1] = (*((data + 26) as *const u32) as u64) << 32 | 0xffff_0000;
                key.addr[1].words[1] = (*((data + 30) as *const u32) as u64) << 32 | 0xffff_0000;
                key.proto = *((data + 23) as *const u8);
                key.port[0] = u16::from_be(*((data + 34) as *const u16));
                key.port[1] = u16::from_be(*((data + 36) as *const u16));
            }
            0x86dd if data + V6_HEADERS <= context.data_end() => {
                key.addr[0].words[0] = *((data + 22) as *const u64);
                key.addr[0].words[1] = *((data + 30) as *const u64);
                key.addr[1].words[0] = *((data + 38) as *const u64);
                key.addr[1].words[1] = *((data + 46) as *const u64);
                key.proto = *((data + 20) as *const u8);
                key.port[0] = u16::from_be(*((data + 54) as *const u16));
                key.port[1] = u16::from_be(*((data + 56) as *const u16));
            }
            _ => return SHOT,
        }
    }
    if FLOOR.get_ptr(&key).is_some() { NEXT } else { SHOT }
}

#[classifier]
pub(crate) fn bench_floor4(context: TcContext) -> i32 {
    let data = context.data();
    if data + V4_HEADERS > context.data_end() {
        return SHOT;
    }
    // SAFETY: compared with data_end.
    let key = unsafe {
        if *((data + 12) as *const u16) != 0x0800u16.to_be() || *((data + 14) as *const u8) != 0x45 {
            return SHOT;
        }
        Key4 {
            addr: [*((data + 26) as *const u32), *((data + 30) as *const u32)],
            ports: *((data + 34) as *const u32),
            proto: *((data + 23) as *const u8) as u32,
        }
    };
    if FLOOR4.get_ptr(&key).is_some() { NEXT } else { SHOT }
}

#[classifier]
pub(crate) fn bench_restore(context: TcContext) -> i32 {
    if restore(&context).is_none() {
        return SHOT;
    }
    onward(&context)
}

#[classifier]
pub(crate) fn bench_vary4(context: TcContext) -> i32 {
    vary(&context, 34, 32)
}

#[classifier]
pub(crate) fn bench_vary6(context: TcContext) -> i32 {
    vary(&context, 54, 52)
}

/// Writes the first bytes back.
#[inline(always)]
fn restore(context: &TcContext) -> Option<*mut Template> {
    let template = TEMPLATE.get_ptr_mut(0)?;
    let data = context.data();
    if data + RESTORED > context.data_end() {
        return None;
    }
    for i in 0..RESTORED / 8 {
        // SAFETY: compared with data_end; the template is a map value.
        unsafe { *((data + 8 * i) as *mut u64) = (*template).bytes[i] }
    }
    Some(template)
}

/// Writes the first bytes back, counts, and sets source port and destination accordingly. Any
/// 65,536 runs in a row have different source ports, and as many blocks of so many as there are
/// values of `mask` no flow in common.
#[inline(always)]
fn vary(context: &TcContext, port_at: usize, dst_at: usize) -> i32 {
    let Some(template) = restore(context) else { return SHOT };
    let data = context.data();
    if data + V6_HEADERS > context.data_end() {
        return SHOT;
    }
    // SAFETY: compared with data_end; the template is a map value, of this CPU's run alone.
    unsafe {
        (*template).runs += 1;
        let runs = (*template).runs;
        *((data + port_at) as *mut u16) = (runs as u16).to_be();
        // An odd factor visits each of 65,536 values once, neighbours far apart.
        let spread = ((runs * 40_503 ^ runs >> 16) & (*template).mask) as u16;
        let dst = (data + dst_at) as *mut u16;
        *dst = (u16::from_be(*dst) ^ spread).to_be();
    }
    onward(context)
}

#[inline(always)]
fn onward(context: &TcContext) -> i32 {
    // SAFETY: nothing is to be dropped here.
    unsafe { TARGET.tail_call(context, 0) };
    SHOT
}

/// Reached by no path the verifier admits.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// As in `main.rs`.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
