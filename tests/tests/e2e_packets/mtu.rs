//! Path MTU discovery of a pod that is isolated in both directions, by errors that a router outside sends.

use std::net::SocketAddr;

use anyhow::ensure;
use tests::{
    manifest::{namespace, pod, policy},
    node::{Node, PATIENCE, Setup, eventually},
    sandbox::Sandbox,
    traffic::{
        Echo,
        Protocol::{Ping, Udp},
        Reached, SILENT, reach,
    },
    trial::trial,
    world::{self, World},
};

use crate::{FORWARDING, at, echoed, set, stream};

/// A host behind a router, which is beside the node: the link between them takes less than the others.
struct Far {
    router: World,
    sandbox: Sandbox,
}

/// Addresses of the far host: one for each protocol, as the kernel remembers path MTUs by address.
const FAR_UDP: [&str; 2] = ["198.51.100.2", "2001:db8:3::2"];
/// Not preferred, so that no datagram leaves with it.
const FAR_TCP: [&str; 2] = ["198.51.100.3", "2001:db8:3::3"];
const NARROW: usize = 1300;

impl Far {
    fn beyond(node: &Node) -> anyhow::Result<Self> {
        let router = World::beside(node)?;
        let sandbox = Sandbox::new("link set lo up\n")?;
        // It says nothing of its narrow link in its maximum segment size, so that the sender has to find out.
        router.sandbox.ip(&format!(
            "link add far0 mtu {NARROW} type veth peer name eth0 mtu {NARROW} netns {}\n\
             addr add 198.51.100.1/24 dev far0\naddr add 2001:db8:3::1/64 dev far0 nodad\nlink set far0 up\n\
             route add 10.77.0.0/24 via {}\nroute add fd77::/64 via {}\n",
            sandbox.name(),
            world::NODE[0],
            world::NODE[1],
        ))?;
        let mut batch = "link set eth0 up\n".to_owned();
        for ([v4, v6], more) in [(FAR_UDP, ""), (FAR_TCP, "preferred_lft 0")] {
            batch += &format!("addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad {more}\n");
        }
        sandbox
            .ip(&(batch
                + "route add default via 198.51.100.1 advmss 1460\nroute add ::/0 via 2001:db8:3::1 advmss 1440\n"))?;
        set(&router.sandbox, &FORWARDING)?;
        Ok(Self { router, sandbox })
    }
}

/// A pod that may reach the far host and admits nobody.
fn web_to_far() -> String {
    [
        namespace("shop", ""),
        pod("shop/web", "app: web"),
        policy(
            "shop/web",
            "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress, Egress]\n  egress:\n\
             \x20 - to: [{ipBlock: {cidr: 198.51.100.0/24}}, {ipBlock: {cidr: '2001:db8:3::/64'}}]\n\
             \x20   ports: [{port: 80}, {port: 53, protocol: UDP}]",
        ),
    ]
    .concat()
}

fn the_path_mtu_is_found(masquerade: bool) -> anyhow::Result<()> {
    let setup = Setup { arguments: vec![format!("--masquerade={masquerade}")], ..Setup::default() };
    let node = Node::start_as(setup, &[("all.yaml", &web_to_far())])?;
    let far = Far::beyond(&node)?;
    let web = node.add("shop/web")?;
    let _echo = Echo::start(&far.sandbox, &[], &[53])?;
    for (tcp, udp) in FAR_TCP.into_iter().zip(FAR_UDP) {
        let mtu = |to: &str| web.sandbox.said("ip", &["route", "get", to]);
        ensure!(!mtu(tcp)?.contains("mtu 1300"), "nothing is known at first");
        stream(&web.sandbox, &far.sandbox, at(tcp, 80), 1 << 20)?;
        ensure!(mtu(tcp)?.contains("mtu 1300"), "TCP has learned from {tcp}: {}", mtu(tcp)?);

        // The first datagram is lost: don't fragment. What it brings about tells the sender to send fragments.
        ensure!(!echoed(&web.sandbox, at(udp, 53), 1400, SILENT)?, "the first one does not fit");
        let fits = || echoed(&web.sandbox, at(udp, 53), 1400, SILENT);
        ensure!(eventually(PATIENCE, fits)?, "UDP to {udp} has not learned: {}", mtu(udp)?);
        ensure!(mtu(udp)?.contains("mtu 1300"), "UDP has learned from {udp}: {}", mtu(udp)?);
        // Not that anything would be let through by now.
        ensure!(reach(&web.sandbox, Udp, at(udp, 54), SILENT)? == Reached::No);
        ensure!(reach(&far.router.sandbox, Ping, SocketAddr::new(web.v4, 0), SILENT)? == Reached::No);
    }
    let drops = node.ask()?.drops()?;
    ensure!(drops.keys().all(|reason| reason == "default_deny"), "{drops:?}");
    Ok(())
}

#[test]
fn the_path_mtu_is_found_under_policy() {
    trial(|| the_path_mtu_is_found(false));
}

#[test]
fn the_path_mtu_is_found_behind_a_masquerade() {
    trial(|| the_path_mtu_is_found(true));
}
