//! The pod's side of its link: addresses, routes, the gateways' neighbour entries.
//!
//! While the host side is down nothing can pass, so all of this is done before the programs are
//! attached or after, as the caller likes.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use datapath_abi::endpoint::HOST_MAC;
use tracing::warn;

use crate::{ipam::PodAddress, mac::Mac};

use super::{
    NetError, Netns,
    address::{self, LinkAddress},
    link,
    route::{self, Route},
    sysctl::{self, Families},
};

/// What the pod's side is to look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodSide {
    /// CNI_IFNAME.
    pub ifname: String,
    /// Its index in the pod's namespace.
    pub ifindex: u32,
    /// One per family at most.
    pub addresses: Vec<PodAddress>,
}

/// Index of the loopback link in every namespace (`LOOPBACK_IFINDEX`, include/net/flow.h).
pub(crate) const LOOPBACK: u32 = 1;

/// Which families a pod has addresses of.
pub fn families(addresses: &[PodAddress]) -> Families {
    Families {
        v4: addresses.iter().any(|pod| pod.address.is_ipv4()),
        v6: addresses.iter().any(|pod| pod.address.is_ipv6()),
    }
}

/// Brings up `lo` and the pod's interface and gives it addresses and routes. May be repeated.
pub async fn configure(sandbox: &Netns, side: &PodSide) -> Result<(), NetError> {
    let families = families(&side.addresses);
    let ifname = side.ifname.clone();
    let (settings, netlink) = sandbox.connect_after(move || sysctl::pod_link(&ifname, families)).await?;
    settings?;
    let object = || format!("link {} of the pod", side.ifname);
    let mut requests = vec![
        link::up(LOOPBACK, "link lo of the pod".into()),
        link::set(link::no_link_local(side.ifindex), "configure", object()),
    ];
    requests.extend(side.addresses.iter().map(|pod| address::add_single(side.ifindex, pod.address)));
    requests.push(link::up(side.ifindex, object()));
    for &PodAddress { gateway, .. } in &side.addresses {
        requests.extend(routes(gateway).map(|route| route::set(side.ifindex, route, gateway)));
        requests.push(route::set_neighbour(side.ifindex, gateway, Mac(HOST_MAC)));
    }
    netlink.change_all(requests).await
}

/// Waits until packets pass the pod's interface in both directions, after both sides are up. Two
/// things come late, from workers of the kernel:
///
/// * The carrier. The side that comes up first learns of the other's from net/core/link_watch.c, and
///   until then drops in silence what it is to send: the first packet of a pod would be lost, which
///   costs TCP a second. The worker sets the operational state as well, under the lock that this
///   question takes.
/// * That an IPv6 address is the pod's own. It is on the link at once, but the route by which the pod
///   takes what is sent to it is made where duplicate address detection ends, which is a worker also
///   where there is none to do (`addrconf_dad_work`, net/ipv6/addrconf.c). Until then the pod takes it for
///   another's and drops it: the first packet to a pod would be lost, and the first answer.
///
/// A pod's side that is down is not waited for.
pub async fn wait_until_open(sandbox: &Netns, side: &PodSide) -> Result<(), NetError> {
    // The first worker runs at most once a second when it thinks that there is no hurry.
    const PATIENCE: Duration = Duration::from_secs(2);
    let netlink = sandbox.connect().await?;
    let began = Instant::now();
    loop {
        let link = link::find_link(&netlink, &side.ifname).await?;
        if !link.is_up {
            break;
        }
        let mut missing = (!link.is_running).then_some("carrier");
        for pod in side.addresses.iter().filter(|pod| pod.address.is_ipv6()) {
            if !route::is_own(&netlink, pod.address).await? {
                missing = Some("route to its own address");
            }
        }
        let Some(missing) = missing else { break };
        if began.elapsed() > PATIENCE {
            warn!(netns = %sandbox.path().display(), ifindex = side.ifindex, missing, "Interface of the pod is not ready");
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// The gateway on the link, everything else behind it.
fn routes(gateway: IpAddr) -> [Route; 2] {
    [
        Route { destination: Some(gateway), gateway: None, source: None },
        Route { destination: None, gateway: Some(gateway), source: None },
    ]
}

/// Something that is not as it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The link is gone.
    NoLink(String),
    /// Another link has the name now.
    OtherLink(String),
    /// The link is down.
    LinkDown(String),
    /// An address is gone.
    NoAddress(IpAddr, String),
    /// A route is gone.
    NoRoute(Route, String),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLink(link) => write!(f, "interface {link} is gone"),
            Self::OtherLink(link) => write!(f, "interface {link} is another one than was made"),
            Self::LinkDown(link) => write!(f, "interface {link} is down"),
            Self::NoAddress(address, link) => write!(f, "address {address} of interface {link} is gone"),
            Self::NoRoute(Route { destination: Some(to), .. }, link) => {
                write!(f, "route to {to} through interface {link} is gone")
            }
            Self::NoRoute(_, link) => write!(f, "default route through interface {link} is gone"),
        }
    }
}

/// Compares the pod's side with what it is to look like. More addresses and routes are no mismatch:
/// plugins that come later in the chain may add some.
pub async fn check(sandbox: &Netns, side: &PodSide) -> Result<Vec<Mismatch>, NetError> {
    let netlink = sandbox.connect().await?;
    let name = || side.ifname.clone();
    let link = match link::find_link(&netlink, &side.ifname).await {
        Ok(link) if link.ifindex != side.ifindex => return Ok(vec![Mismatch::OtherLink(name())]),
        Ok(link) => link,
        Err(error) if error.is_not_found() => return Ok(vec![Mismatch::NoLink(name())]),
        Err(error) => return Err(error),
    };
    let mut mismatches = Vec::new();
    if !link.is_up {
        mismatches.push(Mismatch::LinkDown(name()));
    }
    let addresses = address::list(&netlink, Some(side.ifindex)).await?;
    let found = route::list(&netlink, side.ifindex).await?;
    for pod in &side.addresses {
        if !addresses.iter().any(|&LinkAddress { address, .. }| address == pod.address) {
            mismatches.push(Mismatch::NoAddress(pod.address, name()));
        }
        let missing = routes(pod.gateway).into_iter().filter(|wanted| !has_route(&found, wanted, pod.gateway));
        mismatches.extend(missing.map(|route| Mismatch::NoRoute(route, name())));
    }
    Ok(mismatches)
}

/// Whether a route is among those found; the default route is told apart by its next hop's family.
pub(crate) fn has_route(found: &[Route], wanted: &Route, like: IpAddr) -> bool {
    found.iter().any(|route| {
        route.destination == wanted.destination
            && route.gateway == wanted.gateway
            && (wanted.destination.is_some() || route.gateway.is_some_and(|hop| hop.is_ipv4() == like.is_ipv4()))
    })
}
