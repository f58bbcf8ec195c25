//! Identity numbers: who stands behind an address, independent of the address.
//!
//! 0 to 255 are reserved, with the numbers that the Hubble API gives them, so that its clients
//! print their names. 256 and above are pods. At most 24 bits, so that a VXLAN VNI can carry one.

/// Nobody we know. Matches no selector; only rules without peers, or ipBlocks, can admit it.
pub const UNKNOWN: u32 = 0;
/// This node itself.
pub const HOST: u32 = 1;
/// Anything outside the cluster.
pub const WORLD: u32 = 2;
/// A pod address that has no identity.
pub const UNMANAGED: u32 = 3;
/// Another node of the cluster.
pub const REMOTE_NODE: u32 = 6;
/// The API server.
pub const KUBE_APISERVER: u32 = 7;
/// First number for pods.
pub const FIRST_POD: u32 = 256;
/// First number that means the same on every node of a cluster. Below it each node numbers pods by itself, for want
/// of a shared number: a packet never carries such a number to another node.
pub const FIRST_SHARED: u32 = 1 << 16;
/// Greatest number (24 bits).
pub const MAX: u32 = (1 << 24) - 1;

/// Wildcard class: anybody, known or not. Used in place of an identity in
/// [`crate::policy::PeerKey`].
pub const CLASS_ANY: u32 = 0xffff_0000;
/// Wildcard class: any pod of the cluster (identity at least [`FIRST_POD`]).
pub const CLASS_CLUSTER: u32 = 0xffff_0001;
/// Wildcard class: outside the cluster.
pub const CLASS_WORLD: u32 = 0xffff_0002;
/// Wildcard class: any node of the cluster, this one included.
pub const CLASS_NODE: u32 = 0xffff_0003;

/// The class an identity falls into, [`CLASS_ANY`] when it is in no narrower one.
#[inline(always)]
pub const fn class(identity: u32) -> u32 {
    match identity {
        HOST | REMOTE_NODE | KUBE_APISERVER => CLASS_NODE,
        WORLD => CLASS_WORLD,
        FIRST_POD..=MAX => CLASS_CLUSTER,
        _ => CLASS_ANY,
    }
}

/// Whether a number means the same on every node, so that a packet may carry it from one to the other.
#[inline(always)]
pub const fn is_shared(identity: u32) -> bool {
    identity >= FIRST_SHARED && identity <= MAX
}
