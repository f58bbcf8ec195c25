//! A host link without a record, when the record was lost or could not be read: the pod behind it may
//! run. What the record said is found again in the link's alias, the routes, the maps and the pod's
//! namespace. What cannot be understood completely is not guessed at.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use datapath_abi::addr::Addr;
use tracing::warn;

use crate::{
    ipam::{AllocateError, Allocator, Conflict, Owner, PodAddress},
    mac::Mac,
    net::{
        NetError, Netns, Node,
        alias::Alias,
        host,
        link::{self, Link},
    },
    reconcile::Mirror,
    state::{EndpointRecord, Phase, PodRef},
};

/// Where runtimes keep the names of network namespaces: iproute2, containerd, CRI-O and podman in
/// the first, which as a rule is the second as well.
const NAMESPACES: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// Why a link cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotUnderstood {
    #[error("its alias {0:?} names no attachment that it could be of")]
    Attachment(String),
    #[error("its alias {0:?} does not say which pod it belongs to")]
    Pod(String),
    #[error("it is down, so its ADD was cut short")]
    Down,
    #[error("it has no other end")]
    Alone,
    #[error("no endpoint in the kernel's maps has it")]
    NotMapped,
    #[error("no address is routed to it")]
    NoAddress,
    #[error("its routes lead to {routed:?}, the maps say {mapped:?}")]
    Addresses { routed: BTreeSet<IpAddr>, mapped: BTreeSet<IpAddr> },
    #[error(transparent)]
    Address(#[from] Conflict),
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Makes the record of a link anew. Its addresses are claimed when this succeeds, and only then.
pub(super) async fn adopt(
    node: &Node,
    link: &Link,
    mirror: &Mirror,
    allocator: &mut Allocator,
) -> Result<EndpointRecord, NotUnderstood> {
    let alias = link.attachment().ok_or_else(|| NotUnderstood::Attachment(link.alias.clone()))?;
    let Alias { container_id, ifname, pod } = alias;
    let (network, namespace, name) = pod.ok_or_else(|| NotUnderstood::Pod(link.alias.clone()))?;
    if !link.is_up {
        return Err(NotUnderstood::Down);
    }
    let pod_ifindex = link.peer_ifindex.ok_or(NotUnderstood::Alone)?;
    let slot = mirror.interfaces.get(&link.ifindex).copied().ok_or(NotUnderstood::NotMapped)?;
    let endpoint = mirror.endpoints.get(&slot).filter(|it| it.ifindex == link.ifindex);
    let endpoint = endpoint.ok_or(NotUnderstood::NotMapped)?;
    let addresses = host::addresses_behind(node, link.ifindex).await?;
    if addresses.is_empty() {
        return Err(NotUnderstood::NoAddress);
    }
    let routed: BTreeSet<IpAddr> = addresses.iter().map(|pod| pod.address).collect();
    let mapped = [endpoint.addr4, endpoint.addr6].into_iter().filter(|addr| *addr != Addr::ZERO).map(IpAddr::from);
    let mapped: BTreeSet<IpAddr> = mapped.collect();
    if routed != mapped {
        return Err(NotUnderstood::Addresses { routed, mapped });
    }
    let owner = Owner::new(container_id, ifname);
    claim(allocator, &owner, &addresses)?;
    let mac = Mac(endpoint.mac);
    let (netns, netns_inode) = sandbox(node, link, &owner.ifname, mac).await.unwrap_or_default();
    Ok(EndpointRecord {
        owner,
        network,
        cni_version: String::new(),
        netns,
        netns_inode,
        pod: PodRef { namespace, name, uid: String::new() },
        addresses,
        mac,
        mtu: link.mtu,
        host_ifname: link.name.clone(),
        host_ifindex: link.ifindex,
        pod_ifindex,
        slot,
        phase: Phase::Ready,
        // Not known; any DEL that found no daemon is later.
        created_unix_ms: 0,
    })
}

/// All of the addresses or none. One outside of the pools, after a change of them, is as good as
/// one of a record.
fn claim(allocator: &mut Allocator, owner: &Owner, addresses: &[PodAddress]) -> Result<(), Conflict> {
    for pod in addresses {
        match allocator.claim(owner, pod.address) {
            Ok(()) => {}
            Err(conflict) if matches!(*conflict.reason, AllocateError::Outside { .. }) => {
                warn!(%conflict, "Address of a link outside of the pools");
            }
            Err(conflict) => {
                allocator.free_all(owner);
                return Err(conflict);
            }
        }
    }
    Ok(())
}

/// The namespace that holds the other end, by a path that outlives us, and its inode.
async fn sandbox(node: &Node, link: &Link, ifname: &str, mac: Mac) -> Option<(String, u64)> {
    let mut seen = BTreeSet::new();
    for path in NAMESPACES.iter().flat_map(|folder| paths(Path::new(folder))) {
        let Ok(netns) = Netns::open(&path).and_then(|netns| netns.other_than(node.netns())) else { continue };
        if !seen.insert(netns.id()) {
            continue;
        }
        let Ok(netlink) = netns.connect().await else { continue };
        let Ok(found) = link::find_link(&netlink, ifname).await else { continue };
        let same = link.peer_ifindex == Some(found.ifindex)
            && found.peer_ifindex == Some(link.ifindex)
            && found.mac == Some(mac);
        if same && let Some(text) = path.to_str() {
            return Some((text.to_owned(), netns.id().inode));
        }
    }
    None
}

/// What a folder holds; nothing if it is not there.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort_unstable();
    paths
}
