//! A node, as far as policy can speak of it: its labels and its addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::Labels;

/// A node of the cluster. Rules name it by labels and mean its addresses ("It selects the nodeIPs as
/// the peer type by matching on the IPs present in the node.Status.Addresses field").
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: Labels,
    /// Its addresses, in [`super::canonical_ip`] form.
    pub ips: BTreeSet<IpAddr>,
    /// Those of them at which other nodes reach it. Policy does not look at this nor at what follows.
    pub internal_ips: BTreeSet<IpAddr>,
    /// Ranges that its pods get their addresses from.
    pub pod_ranges: BTreeSet<IpNetwork>,
}
