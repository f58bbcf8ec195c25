//! The packet behind a `__sk_buff`: every packet pointer of the programs lives here.
//!
//! Soundness of the reads and writes rests on the kernel's verifier: it refuses a program in
//! which a packet pointer is used beyond what was compared with `data_end`.
#![allow(unsafe_code)]

use core::arch::asm;

use aya_ebpf::{
    bindings::__sk_buff,
    programs::{TcContext, XdpContext},
};
use datapath_abi::{
    control::{Clock, Sweep, SweepReport},
    endpoint::Swing,
    event::Hook,
};
use datapath_ebpf::parse::{Bytes, ETH_LEN, MAX_READ, View};

/// Most bytes worth making linear: Ethernet, IPv4 with all options or IPv6, TCP.
const MOST_HEADERS: u32 = (ETH_LEN + 60 + 20) as u32;

/// One packet at one hook.
#[derive(Clone, Copy)]
pub(crate) struct Skb<'a> {
    context: &'a TcContext,
    pub(crate) hook: Hook,
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a TcContext, hook: Hook) -> Self {
        Self { context, hook }
    }

    /// Makes headers linear that are not. False: they all are, or cannot be. Only for a packet that could not be read
    /// without: the pieces of one that the kernel has joined (`NETIF_F_GRO_FRAGLIST`) have their headers in front, and
    /// kernels before 6.12 do not take them apart well any more once bytes of a later one were moved to the first.
    #[inline(always)]
    pub(crate) fn pull(&self) -> bool {
        let length = if self.context.len() < MOST_HEADERS { self.context.len() } else { MOST_HEADERS };
        (self.linear() as u32) < length && self.context.pull_data(length).is_ok()
    }

    /// For a step that is a function of its own.
    #[inline(always)]
    pub(crate) fn context(&self) -> *mut __sk_buff {
        self.context.skb.skb
    }

    /// Whether it belongs to a VLAN. The kernel keeps the tag outside of the packet's bytes.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        // SAFETY: the context pointer is valid for the run of the program.
        unsafe { (*self.context.skb.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn linear(&self) -> usize {
        self.context.data_end() - self.context.data()
    }

    /// Interface whose hook this is.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the context pointer is valid for the run of the program.
        unsafe { (*self.context.skb.skb).ifindex }
    }

    /// Interface it came in by; 0 when a process of this host has sent it.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.context.skb.skb).ingress_ifindex }
    }

    /// Bytes from the network header on.
    #[inline(always)]
    pub(crate) fn network_bytes(&self) -> u32 {
        self.context.len().wrapping_sub(ETH_LEN as u32)
    }

    /// Writes the Ethernet addresses, counts the TTL or hop limit down. False if the header is
    /// out of reach, which no packet is that was parsed.
    #[inline(always)]
    pub(crate) fn route(&self, dst: [u8; 6], src: [u8; 6], v4: bool, ttl: u8) -> bool {
        let data = self.context.data();
        if data + ETH_LEN + 20 > self.context.data_end() {
            return false;
        }
        let [a, b, c, d, e, f] = dst;
        let [g, h, i, j, k, l] = src;
        // SAFETY: the range has just been compared with data_end.
        unsafe {
            *(data as *mut u32) = u32::from_ne_bytes([a, b, c, d]);
            *((data + 4) as *mut u32) = u32::from_ne_bytes([e, f, g, h]);
            *((data + 8) as *mut u32) = u32::from_ne_bytes([i, j, k, l]);
            if v4 {
                *((data + ETH_LEN + 8) as *mut u8) = ttl.wrapping_sub(1);
                let checksum = (data + ETH_LEN + 10) as *mut u16;
                *checksum = datapath_ebpf::csum::after_ttl_decrement(u16::from_be(*checksum)).to_be();
            } else {
                *((data + ETH_LEN + 7) as *mut u8) = ttl.wrapping_sub(1);
            }
        }
        true
    }
}

impl Skb<'_> {
    /// Writes an address at `at`, from the start of the frame, IPv4's in the last word of `addr`, in memory order; both ports,
    /// and the checksum of IPv4's header by `difference`. False if that is out of reach.
    #[inline(always)]
    pub(crate) fn write_end(
        &self,
        at: usize,
        addr: [u32; 4],
        v4: bool,
        transport: usize,
        ports: u32,
        difference: u32,
    ) -> bool {
        let data = self.context.data();
        if data + ETH_LEN + transport + 4 > self.context.data_end() {
            return false;
        }
        // SAFETY: the range has just been compared with data_end, and addresses stand before ports.
        unsafe {
            *((data + ETH_LEN + transport) as *mut u32) = ports;
            if v4 {
                *((data + at) as *mut u32) = addr[3];
                let checksum = (data + ETH_LEN + 10) as *mut u16;
                *checksum = datapath_ebpf::csum::after_difference(*checksum, difference);
            } else {
                *((data + at) as *mut u32) = addr[0];
                *((data + at + 4) as *mut u32) = addr[1];
                *((data + at + 8) as *mut u32) = addr[2];
                *((data + at + 12) as *mut u32) = addr[3];
            }
        }
        true
    }
}

impl Bytes for Skb<'_> {
    type View = Pointer;

    #[inline(always)]
    fn view(&self, offset: usize, length: usize) -> Option<Pointer> {
        let start = self.context.data() + offset;
        if start + length > self.context.data_end() {
            return None;
        }
        Some(Pointer(start))
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.context.len()
    }
}

/// What the daemon and a program that it runs tell each other.
///
/// # Safety
/// Any bytes are one, and it has no padding.
pub(crate) unsafe trait Order: Copy {}

// SAFETY: `datapath_abi` derives zerocopy's FromBytes and IntoBytes for them.
unsafe impl Order for Swing {}
// SAFETY: as above.
unsafe impl Order for Clock {}
// SAFETY: as above.
unsafe impl Order for Sweep {}
// SAFETY: as above.
unsafe impl Order for SweepReport {}

/// Bytes that the daemon has written in place of a packet: orders to a program that it runs.
#[derive(Clone, Copy)]
pub(crate) struct Orders<'a>(&'a TcContext);

impl<'a> Orders<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a TcContext) -> Self {
        Self(context)
    }

    #[inline(always)]
    fn at<T>(self, offset: usize) -> Option<*mut T> {
        let start = self.0.data() + offset;
        if start + core::mem::size_of::<T>() > self.0.data_end() {
            return None;
        }
        Some(start as *mut T)
    }

    /// What stands at `offset`, if so much was written.
    #[inline(always)]
    pub(crate) fn get<T: Order>(self, offset: usize) -> Option<T> {
        // SAFETY: `at` compared with data_end; any bytes are a `T`.
        self.at::<T>(offset).map(|value| unsafe { *value })
    }

    /// Writes an answer. False: no room was left for it.
    #[inline(always)]
    pub(crate) fn set<T: Order>(self, offset: usize, value: T) -> bool {
        match self.at::<T>(offset) {
            Some(place) => {
                // SAFETY: `at` compared with data_end.
                unsafe { *place = value };
                true
            }
            None => false,
        }
    }
}

/// As [`Skb`], for a second look, at headers whose places are known only when the packet is there.
#[derive(Clone, Copy)]
pub(crate) struct Deep<'a>(Skb<'a>);

impl<'a> Deep<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a TcContext, hook: Hook) -> Self {
        let skb = Skb { context, hook };
        let length = if context.len() < MAX_READ as u32 { context.len() } else { MAX_READ as u32 };
        if (skb.linear() as u32) < length {
            let _ = context.pull_data(length);
        }
        Self(skb)
    }

    /// Whether a process of this node has sent it, or its kernel: a socket pays for the packet. What is
    /// forwarded has none.
    #[inline(always)]
    pub(crate) fn has_socket(&self) -> bool {
        // SAFETY: the context pointer is valid for the run of the program; the socket's is only compared.
        unsafe { !(*self.0.context.skb.skb).__bindgen_anon_2.sk.is_null() }
    }
}

impl Bytes for Deep<'_> {
    type View = Pointer;

    #[inline(always)]
    fn view(&self, offset: usize, length: usize) -> Option<Pointer> {
        let mut start = self.0.context.data() + offset;
        // SAFETY: moves a register to itself. Keeps the compiler from making the sum a second time: the verifier
        // would not take it for the pointer that was compared.
        unsafe { asm!("{0} = {0}", inout(reg) start, options(nomem, nostack, preserves_flags)) };
        if start + length > self.0.context.data_end() {
            return None;
        }
        Some(Pointer(start))
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.context.len()
    }
}

/// A frame that no socket buffer was made for yet: all of it lies in one piece.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a>(&'a XdpContext);

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        Self(context)
    }

    /// Interface it came in by.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }
}

impl Bytes for Frame<'_> {
    type View = Pointer;

    #[inline(always)]
    fn view(&self, offset: usize, length: usize) -> Option<Pointer> {
        let mut start = self.0.data() + offset;
        // SAFETY: moves a register to itself, as in `Deep`.
        unsafe { asm!("{0} = {0}", inout(reg) start, options(nomem, nostack, preserves_flags)) };
        if start + length > self.0.data_end() {
            return None;
        }
        Some(Pointer(start))
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        (self.0.data_end() - self.0.data()) as u32
    }
}

/// A packet pointer that was compared with `data_end`.
#[derive(Clone, Copy)]
pub(crate) struct Pointer(usize);

impl View for Pointer {
    #[inline(always)]
    fn u8(self, at: usize) -> u8 {
        // SAFETY: `view` compared; the verifier checks that `at` is within.
        unsafe { *((self.0 + at) as *const u8) }
    }

    #[inline(always)]
    fn u16(self, at: usize) -> u16 {
        // SAFETY: as above. The kernel allows unaligned packet loads on the machines we build for.
        u16::from_be(unsafe { *((self.0 + at) as *const u16) })
    }

    #[inline(always)]
    fn u32(self, at: usize) -> u32 {
        // SAFETY: as above.
        unsafe { *((self.0 + at) as *const u32) }
    }

    #[inline(always)]
    fn u64(self, at: usize) -> u64 {
        // SAFETY: as above.
        unsafe { *((self.0 + at) as *const u64) }
    }
}
