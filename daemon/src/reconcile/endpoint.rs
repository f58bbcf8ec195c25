//! An interface of a pod on this node, as the plan sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use policy::model::PodKey;

/// Names an attachment: CNI's container id and interface name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EndpointKey {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// A pod's interface on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalEndpoint {
    /// Which attachment.
    pub key: EndpointKey,
    /// Which pod.
    pub pod: PodKey,
    /// Index into ENDPOINTS.
    pub slot: u32,
    /// Interface index of the host side.
    pub ifindex: u32,
    /// MAC address of the container side.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub v6: Option<Ipv6Addr>,
}

impl LocalEndpoint {
    /// Its addresses, IPv4 first.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}
