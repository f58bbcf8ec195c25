//! The contract between the programs in the kernel and the daemon: map keys, map values,
//! events, reasons and load-time constants. Types only; nothing here has behaviour beyond
//! conversions between an integer and the enum it stands for.
//!
//! Rules of the contract:
//!
//! 1. Every type that lies in a map or an event is `#[repr(C)]`, has no implicit padding and
//!    accepts every bit pattern (zerocopy's `IntoBytes` and `FromBytes` prove both).
//! 2. Padding is a named field, written as zero. Enums cross as integers.
//! 3. A bare integer is in host byte order. Addresses are 16 bytes in network order
//!    ([`addr::Addr`]); IPv4 is written as IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2).
//! 4. Size is asserted next to each type.
//! 5. A change of any layout, of a map's type or of a number's meaning raises [`ABI_VERSION`].
//!    Pins live under a directory that carries the version, so that one version can never
//!    read what another has written.
#![cfg_attr(not(feature = "user"), no_std)]
#![deny(unsafe_code)]

pub mod addr;
pub mod conntrack;
pub mod control;
pub mod dns;
pub mod endpoint;
pub mod event;
pub mod identity;
pub mod maps;
pub mod overlay;
#[cfg(feature = "user")]
mod pod;
pub mod policy;
pub mod reason;
pub mod service;
pub mod uplink;

/// Version of everything in this crate. Part of the path of every pin.
pub const ABI_VERSION: u32 = 7;

/// Since this version the keys and entries of CONNTRACK and PENDING mean what they mean now, but for the rules' words: an agent
/// takes the connections of one that is no older over, and those of others up from their middle.
pub const CONNECTIONS_SINCE: u32 = 5;
const _: () = assert!(CONNECTIONS_SINCE <= ABI_VERSION);

/// Asserts the size of a type at compile time.
#[macro_export]
macro_rules! assert_size {
    ($type:ty, $bytes:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $bytes);
    };
}
