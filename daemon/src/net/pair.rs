//! The pair of links of a pod, made in one request with both ends in place: veth or netkit.
//!
//! No addresses and no routes. A new pair is down; who brings up which end when is the caller's.

use std::os::fd::{AsFd, AsRawFd};

use datapath_abi::endpoint::HOST_MAC;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoNetkit, InfoVeth, LinkAttribute, LinkInfo, LinkMessage, NetkitMode, NetkitPolicy},
};

use crate::mac::Mac;

use super::{
    NetError, Netns, Node,
    alias::Alias,
    kind,
    link::{delete_link, find_link, host_ifname, no_link_local, set},
    netlink::{Mode, Request},
};

/// Which kind of a pair a pod has. Programs, addresses and routes are the same with either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PodDevice {
    /// veth.
    Veth,
    /// netkit (Linux 6.7) with Ethernet headers.
    Netkit,
}

impl PodDevice {
    /// As it is asked for, and as the kernel calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Netkit => "netkit",
        }
    }

    /// Of a link, by what the kernel tells of its kind.
    pub(super) fn of(info: &LinkInfo) -> Option<Self> {
        match info {
            LinkInfo::Kind(InfoKind::Veth) => Some(Self::Veth),
            LinkInfo::Kind(InfoKind::Netkit) => Some(Self::Netkit),
            _ => None,
        }
    }

    fn kind(self) -> InfoKind {
        match self {
            Self::Veth => InfoKind::Veth,
            Self::Netkit => InfoKind::Netkit,
        }
    }

    /// What the kernel is asked for besides the end on the node, which is the one that the request itself is about: of a
    /// netkit pair that is the primary one, without which nobody can change the settings or attach programs to either end.
    /// Without such programs a netkit hands on what it is given, as a veth does.
    fn data(self, peer: LinkMessage) -> InfoData {
        match self {
            Self::Veth => InfoData::Veth(InfoVeth::Peer(peer)),
            Self::Netkit => InfoData::Netkit(vec![
                InfoNetkit::Mode(NetkitMode::L2),
                InfoNetkit::Policy(NetkitPolicy::Pass),
                InfoNetkit::PeerPolicy(NetkitPolicy::Pass),
                InfoNetkit::Peer(peer),
            ]),
        }
    }
}

/// Whether this kernel makes such pairs. Where they are a module it may be loaded by this.
pub async fn is_known(node: &Node, device: PodDevice) -> Result<bool, NetError> {
    kind::is_known(node, device.kind()).await
}

/// A pair to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairSpec {
    /// Which kind.
    pub device: PodDevice,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME: the name in the pod.
    pub ifname: String,
    /// MAC address of the pod's side.
    pub mac: Mac,
    /// MTU of both sides, in bytes.
    pub mtu: u32,
    /// Name of the CNI network, the pod's namespace and its name: the link is to say whose it is.
    pub pod: Option<(String, String, String)>,
}

/// A pair that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// Name of the host side.
    pub host_ifname: String,
    /// Interface index of the host side, in the node's namespace.
    pub host_ifindex: u32,
    /// Interface index of the pod's side, in the pod's namespace.
    pub pod_ifindex: u32,
}

/// Why there is no pair.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The pod has an interface of that name. CNI 1.1.0, section "ADD": this must be an error.
    #[error("the pod has an interface {ifname} already, in {netns:?}")]
    PodHasInterface {
        /// CNI_IFNAME.
        ifname: String,
        /// The pod's namespace.
        netns: std::path::PathBuf,
    },
    /// The node has the host side already: this attachment was added before and not removed.
    #[error("the node has the interface {ifname} of container {container_id} already: it was added before")]
    HostHasInterface {
        /// Name of the host side.
        ifname: String,
        /// CNI_CONTAINERID.
        container_id: String,
    },
    /// Something else.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Makes a pair, one end in the node and the other in the pod. Both are down and without
/// addresses, and no IPv6 link-local address will appear when they go up.
///
/// On an error nothing of it is left.
pub async fn create(node: &Node, sandbox: &Netns, spec: &PairSpec) -> Result<Pair, PairError> {
    let host_ifname = host_ifname(&spec.container_id, &spec.ifname);
    let result = make(node, sandbox, spec, &host_ifname).await;
    let exists = match &result {
        Err(PairError::Net(error)) if error.is_already_exists() => true,
        Ok(_) | Err(PairError::PodHasInterface { .. } | PairError::HostHasInterface { .. }) => return result,
        Err(PairError::Net(_)) => false,
    };
    if !exists {
        // Whatever was not made yet cannot be removed; the first error is the one to tell.
        let _ = delete_link(node, &host_ifname).await;
        // To a namespace of another kind the kernel says EINVAL only; entering it tells.
        sandbox.run(|| ()).await.map_err(NetError::from)?;
        return result;
    }
    match find_link(node.netlink(), &host_ifname).await {
        Ok(_) => Err(PairError::HostHasInterface { ifname: host_ifname, container_id: spec.container_id.clone() }),
        Err(error) if error.is_not_found() => {
            Err(PairError::PodHasInterface { ifname: spec.ifname.clone(), netns: sandbox.path().into() })
        }
        Err(error) => Err(error.into()),
    }
}

async fn make(node: &Node, sandbox: &Netns, spec: &PairSpec, host_ifname: &str) -> Result<Pair, PairError> {
    let object = || format!("link {host_ifname}");
    let message = request(spec, host_ifname, sandbox.as_fd().as_raw_fd());
    let message = RouteNetlinkMessage::NewLink(message);
    node.netlink().change(Request { message, mode: Mode::Create, action: "create", object: object() }).await?;
    // The index of the other end is given out with IFLA_LINK, always if it is in another namespace.
    let link = find_link(node.netlink(), host_ifname).await?;
    let pod_ifindex = link.peer_ifindex.ok_or_else(|| NetError::Unexpected {
        action: "look up",
        object: object(),
        answer: "no index of the pod's side".into(),
    })?;
    let mut settings = no_link_local(link.ifindex);
    let PairSpec { device: _, container_id, ifname, mac: _, mtu: _, pod } = spec.clone();
    if let Some(alias) = (Alias { container_id, ifname, pod }).text() {
        settings.attributes.push(LinkAttribute::IfAlias(alias));
    }
    node.netlink().change(set(settings, "configure", object())).await?;
    Ok(Pair { host_ifname: host_ifname.to_owned(), host_ifindex: link.ifindex, pod_ifindex })
}

/// `netns`: descriptor of the pod's namespace.
fn request(spec: &PairSpec, host_ifname: &str, netns: i32) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(spec.ifname.clone()),
        LinkAttribute::Address(spec.mac.0.to_vec()),
        LinkAttribute::Mtu(spec.mtu),
        LinkAttribute::NetNsFd(netns),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(host_ifname.to_owned()),
        LinkAttribute::Address(HOST_MAC.to_vec()),
        LinkAttribute::Mtu(spec.mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(spec.device.kind()), LinkInfo::Data(spec.device.data(peer))]),
    ];
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_either_kind_is_asked_for_with_the_same_ends() {
        for device in [PodDevice::Veth, PodDevice::Netkit] {
            let mac = "02:00:00:00:00:07".parse().unwrap();
            let spec = PairSpec { device, container_id: "c1".into(), ifname: "eth0".into(), mac, mtu: 1400, pod: None };
            let message = request(&spec, "bh0123456789a", 7);
            let [LinkInfo::Kind(kind), LinkInfo::Data(data)] = message
                .attributes
                .iter()
                .find_map(|it| if let LinkAttribute::LinkInfo(it) = it { Some(it) } else { None })
                .unwrap()
                .as_slice()
            else {
                panic!("{message:?}")
            };
            assert_eq!(PodDevice::of(&LinkInfo::Kind(kind.clone())), Some(device));
            let peer = match data {
                InfoData::Veth(InfoVeth::Peer(peer)) => peer,
                InfoData::Netkit(settings) => {
                    // Without Ethernet headers the programs would read the wrong bytes; what is not passed on is lost.
                    assert!(settings.contains(&InfoNetkit::Mode(NetkitMode::L2)));
                    assert!(settings.contains(&InfoNetkit::Policy(NetkitPolicy::Pass)));
                    assert!(settings.contains(&InfoNetkit::PeerPolicy(NetkitPolicy::Pass)));
                    settings
                        .iter()
                        .find_map(|it| if let InfoNetkit::Peer(peer) = it { Some(peer) } else { None })
                        .unwrap()
                }
                other => panic!("{other:?}"),
            };
            for wanted in [
                LinkAttribute::IfName("eth0".into()),
                LinkAttribute::Address(mac.0.to_vec()),
                LinkAttribute::Mtu(1400),
                LinkAttribute::NetNsFd(7),
            ] {
                assert!(peer.attributes.contains(&wanted), "{device:?}: {wanted:?}");
            }
            assert!(message.attributes.contains(&LinkAttribute::Address(HOST_MAC.to_vec())));
        }
        assert_eq!(PodDevice::of(&LinkInfo::Kind(InfoKind::Bridge)), None);
    }
}
