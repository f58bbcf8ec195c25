//! What a predecessor has left on the node, at start: taken over if it is whole, else undone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use tracing::{info, warn};

use super::{adopt::adopt, attachments::host_side};
use crate::{
    config::ConfigError,
    datapath::attach::Attacher,
    ipam::{Allocator, Owner, Pools},
    net::{Node, host, link},
    reconcile::Mirror,
    state::{EndpointRecord, Phase, StateDir},
};

/// The endpoints that go on.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) records: BTreeMap<Owner, EndpointRecord>,
    pub(super) allocator: Allocator,
}

/// When interfaces get the programs of this agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Renewal {
    /// At once: they find the maps as the programs before them have.
    Now,
    /// By [`super::relief`]: maps are empty until all objects are known.
    Later,
}

/// Goes through the records: what is whole is taken over and gets the new programs, what is half
/// or has lost its link is undone. Links of ours without a record are understood, or go.
pub(super) async fn take_over(
    node: &Node,
    state_dir: &StateDir,
    (attacher, renewal): (&mut Attacher, Renewal),
    found: Vec<EndpointRecord>,
    mut allocator: Allocator,
    mirror: &Mirror,
) -> anyhow::Result<Taken> {
    let mut links: BTreeMap<String, link::Link> =
        link::host_links(node).await?.into_iter().map(|link| (link.name.clone(), link)).collect();
    let mut records = BTreeMap::new();
    let mut slots = BTreeSet::new();
    for record in found {
        let link = links.remove(&record.host_ifname);
        let whole = record.phase == Phase::Ready
            && link.is_some_and(|link| link.ifindex == record.host_ifindex)
            && record.slot != 0
            && slots.insert(record.slot)
            && renew(node, (attacher, renewal), &record).await?;
        if whole {
            if renewal == Renewal::Now && mirror.interfaces.get(&record.host_ifindex) != Some(&record.slot) {
                warn!(owner = %record.owner, "Endpoint is not in the maps: it is denied until the source is read");
            }
            records.insert(record.owner.clone(), record);
        } else {
            info!(owner = %record.owner, phase = ?record.phase, "Undoing what a predecessor left half done");
            link::delete_link(node, &record.host_ifname).await?;
            attacher.forget(record.host_ifindex);
            state_dir.remove_endpoint(&record.owner)?;
            allocator.free_all(&record.owner);
        }
    }
    for (name, link) in links {
        match adopt(node, &link, mirror, &mut allocator).await {
            Ok(record) if slots.insert(record.slot) => {
                warn!(
                    namespace = %record.pod.namespace, pod = %record.pod.name,
                    container_id = %record.owner.container_id, link = %name,
                    "Endpoint taken over from its link, for its record is not there"
                );
                if renew(node, (attacher, renewal), &record).await? {
                    state_dir.put_endpoint(&record)?;
                    records.insert(record.owner.clone(), record);
                } else {
                    allocator.free_all(&record.owner);
                }
            }
            Ok(record) => {
                warn!(link = %name, slot = record.slot, "Removing a link without a record: another has its slot");
                allocator.free_all(&record.owner);
                link::delete_link(node, &name).await?;
            }
            Err(reason) => {
                warn!(link = %name, %reason, "Removing a link without a record that cannot be understood");
                link::delete_link(node, &name).await?;
            }
        }
    }
    Ok(Taken { records, allocator })
}

/// Puts the new programs on a link that was found, and leads its addresses there. False: it has gone
/// meanwhile, with its sandbox; a pod that leaves must not keep a daemon from starting.
async fn renew(
    node: &Node,
    (attacher, renewal): (&mut Attacher, Renewal),
    record: &EndpointRecord,
) -> anyhow::Result<bool> {
    let attached = match renewal {
        Renewal::Now => attacher.renew(&record.host_ifname, record.host_ifindex),
        Renewal::Later => Ok(()),
    };
    let renewed = match attached {
        Ok(()) => host::enable(node, &host_side(record)).await.map_err(anyhow::Error::from),
        Err(error) => Err(error.into()),
    };
    let Err(problem) = renewed else { return Ok(true) };
    match link::find_link(node.netlink(), &record.host_ifname).await {
        Ok(link) if link.ifindex == record.host_ifindex => Err(problem),
        Ok(_) => Ok(false),
        Err(error) if error.is_not_found() => Ok(false),
        Err(_) => Err(problem),
    }
}

/// Refuses pools that hold an address of the node: a pod could get it as well. Gateways that we have
/// put on `lo` are no such addresses, unless pods still have them for a gateway.
pub(super) async fn check_pools(
    node: &Node,
    pools: &Pools,
    state_dir: &StateDir,
    records: &[EndpointRecord],
) -> anyhow::Result<()> {
    let in_use = gateways_of(records.iter());
    let earlier = state_dir.gateways()?.into_iter().filter(|gateway| !in_use.contains(gateway));
    let ours = pools.gateways().into_iter().chain(earlier).collect();
    let of_node = host::addresses_of_others(node, &ours).await?;
    Ok(pools.must_not_have(&of_node).map_err(ConfigError::from)?)
}

/// Takes gateways of earlier pools off `lo`, once no pod has them any more, and writes down those
/// that are there.
pub(super) async fn tidy_gateways(
    node: &Node,
    pools: &Pools,
    state_dir: &StateDir,
    records: &BTreeMap<Owner, EndpointRecord>,
) -> anyhow::Result<()> {
    let mut wanted = gateways_of(records.values());
    wanted.extend(pools.gateways());
    let gone: Vec<IpAddr> = state_dir.gateways()?.into_iter().filter(|gateway| !wanted.contains(gateway)).collect();
    if !gone.is_empty() {
        info!(gateways = ?gone, "Taking gateways of earlier pools off lo");
        host::remove_gateways(node, &gone).await?;
    }
    state_dir.put_gateways(&wanted.into_iter().collect::<Vec<_>>())?;
    Ok(())
}

/// Notes the gateways of the pools beside those of earlier ones, before they are put on `lo`.
pub(super) fn note_gateways(pools: &Pools, state_dir: &StateDir) -> anyhow::Result<()> {
    let all: BTreeSet<IpAddr> = state_dir.gateways()?.into_iter().chain(pools.gateways()).collect();
    Ok(state_dir.put_gateways(&all.into_iter().collect::<Vec<_>>())?)
}

fn gateways_of<'a>(records: impl Iterator<Item = &'a EndpointRecord>) -> BTreeSet<IpAddr> {
    records.flat_map(|record| record.addresses.iter().map(|pod| pod.gateway)).collect()
}
