//! `bulkhead-daemon uninstall`: takes everything away that an agent has left on this node.

use std::{collections::BTreeSet, fs, io, net::IpAddr, path::Path};

use anyhow::{Context, bail};

use crate::{
    app::install,
    args::{Places, UninstallArgs},
    config::{Install, cni_socket, default_ranges},
    ipam::Pools,
    net::{
        Node, host, link, masquerade, node_route,
        overlay::{self, Protocol},
    },
    state,
};

/// Says what would be removed, or removes it.
pub fn uninstall(args: &UninstallArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let told = super::run::told_to_stop()?;
        remove(&args.places, &Install::from(&args.runtime), args.yes).await?;
        if args.stay {
            println!("done: this node is clean");
            told.await;
        }
        Ok(())
    })
}

async fn remove(places: &Places, runtime: &Install, yes: bool) -> anyhow::Result<()> {
    let Places { run_dir, state_dir, pin_dir, nft_table, pools } = places;
    let socket = cni_socket(run_dir);
    if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
        bail!("a daemon answers at {}: stop it first", socket.display());
    }
    // First of all: without it the runtime starts no pod here any more.
    let verb = if yes { "removing" } else { "would remove" };
    for path in install::remove(runtime, !yes).context("taking the plugin away from the runtime")? {
        println!("{verb} {}", path.display());
    }
    let node = Node::own().await?;
    let links = link::host_links(&node).await?;
    // Those of other ranges as well that an agent had before.
    let pools = if pools.is_empty() { &default_ranges() } else { pools };
    let gateways: BTreeSet<IpAddr> =
        Pools::new(pools)?.gateways().into_iter().chain(state::gateways_in(state_dir)).collect();
    let gateways: Vec<IpAddr> = gateways.into_iter().collect();
    for found in &links {
        println!("{verb} link {} ({})", found.name, found.alias);
        if yes {
            link::delete_link(&node, &found.name).await?;
        }
    }
    for gateway in &gateways {
        println!("{verb} address {gateway} from lo");
    }
    let routes = node_route::list(&node).await?;
    for route in &routes {
        println!("{verb} route to {} by way of {}", route.range, route.gateway);
        if yes {
            node_route::remove(&node, *route).await?;
        }
    }
    for protocol in Protocol::ALL {
        if overlay::exists(&node, protocol).await? {
            println!("{verb} link {}", protocol.link());
            if yes {
                overlay::remove(&node, protocol).await?;
            }
        }
    }
    println!("{verb} nftables table {nft_table}");
    if yes {
        host::remove_gateways(&node, &gateways).await?;
        masquerade::remove(&node, nft_table).await?;
    }
    for folder in [pin_dir, state_dir, run_dir] {
        if !folder.exists() {
            continue;
        }
        println!("{verb} {}", folder.display());
        if yes {
            remove_folder(folder).with_context(|| format!("removing {}", folder.display()))?;
        }
    }
    if !yes {
        println!("nothing was removed: give --yes to do it; pods that run lose their network");
    }
    Ok(())
}

/// Removes a folder with what is in it. One that is a mount, as in a container, stays, and is empty.
fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy && fs::read_dir(folder)?.next().is_none() => Ok(()),
        other => other,
    }
}
