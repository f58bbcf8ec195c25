//! DNS messages on their way to the daemon.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_RB_NO_WAKEUP},
    btf_maps::{PerCpuArray, RingBuf},
    macros::btf_map,
};
use datapath_abi::{
    dns::{DnsEvent, DnsPacket, MOST_BYTES},
    maps::Scalar,
};

use super::bump;
use crate::bpf::kernel;

#[btf_map]
static DNS: RingBuf<DnsEvent, { 512 << 10 }> = RingBuf::new();
/// Where a message is put together: the programs' own, not pinned, and of no concern to the daemon. For one program at a
/// time, as the notes are (docs/adr/0018).
#[btf_map]
static MESSAGE: PerCpuArray<DnsEvent, 1> = PerCpuArray::new();

/// [`datapath_abi::dns::ports`]: written when the programs are loaded, and known to the verifier, which leaves out what is
/// about ports that are not there.
#[unsafe(no_mangle)]
static DNS_PORTS: u64 = 0;

/// See [`DNS_PORTS`].
#[inline(always)]
pub(crate) fn dns_ports() -> u64 {
    // SAFETY: a word that nobody writes any more. Volatile, for the compiler takes it for what stands above.
    unsafe { read_volatile(addr_of!(DNS_PORTS)) }
}

/// Takes `taken` bytes of a frame from `at` on, with what `fill` says of them; counts them if there is no room.
///
/// `fill` must write every field. Nobody is woken: see [`super::emit`].
#[inline(always)]
pub(crate) fn emit_dns(context: *mut __sk_buff, at: u32, taken: u32, fill: impl FnOnce(&mut DnsPacket)) {
    let Some(message) = MESSAGE.get_ptr_mut(0) else { return };
    let taken = if taken as usize > MOST_BYTES { MOST_BYTES as u64 } else { taken as u64 };
    // SAFETY: a map value that is this run's alone, of which any bit pattern is a `DnsEvent`.
    let message = unsafe { &mut *message };
    fill(&mut message.packet);
    let Some(taken) = kernel::load_bytes(context, at, &mut message.bytes, taken) else { return };
    let whole = &raw const *message;
    // SAFETY: so many bytes are there: `taken` is at most as many as `bytes` has, which follow `packet` without a gap.
    let told = unsafe { core::slice::from_raw_parts(whole.cast::<u8>(), size_of::<DnsPacket>() + taken as usize) };
    bump(match DNS.output_untyped::<[u8]>(told, BPF_RB_NO_WAKEUP as u64) {
        Ok(()) => Scalar::DnsWritten,
        Err(_) => Scalar::DnsLost,
    });
}
