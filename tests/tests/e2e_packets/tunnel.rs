//! Path MTU discovery where the packet that is too large is one that carries a pod's: nobody tells the pod but its node.

use anyhow::ensure;
use daemon::net::overlay::{self, Protocol};
use tests::{
    manifest::pod,
    node::{Node, PATIENCE, Setup, eventually},
    sandbox::Sandbox,
    traffic::{Echo, SILENT},
    trial::trial,
    world::{self, World},
};

use crate::{FORWARDING, at, echoed, set, stream};

/// What the link in the middle carries.
const NARROW: u32 = 1400;
/// What of that is left for a pod's packet: without IPv6, UDP, VXLAN and Ethernet.
const LEFT: u32 = NARROW - 70;
/// The other node, and a pod on it.
const FAR: &str = "2001:db8:3::2";
const FAR_POD: [&str; 2] = ["10.78.0.5", "fd78::5"];

fn one(name: &str, [v4, v6]: [&str; 2], address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [{v4}, '{v6}']}}\n\
         status: {{addresses: [{{type: InternalIP, address: '{address}'}}]}}\n---\n"
    )
}

fn nodes() -> String {
    one("n1", ["10.77.0.0/24", "fd77::/64"], world::NODE[1]) + &one("n2", ["10.78.0.0/24", "fd78::/64"], FAR)
}

/// The other node behind a router, by iproute2: its pod's addresses are its own.
fn beyond(router: &Sandbox) -> anyhow::Result<Sandbox> {
    let far = Sandbox::new("link set lo up\n")?;
    router.ip(&format!(
        "link add far0 mtu {NARROW} type veth peer name eth0 mtu {NARROW} netns {}\n\
         addr add 2001:db8:3::1/64 dev far0 nodad\nlink set far0 up\n",
        far.name(),
    ))?;
    set(router, &FORWARDING)?;
    let [here, there] = ["n1", "n2"].map(overlay::mac_of);
    let (port, node) = (Protocol::Vxlan.port(), world::NODE[1]);
    let [v4, v6] = FAR_POD;
    // It knows no better than the node here, so that its TCP does not ask for less than the link carries.
    far.ip(&format!(
        "link set eth0 up\naddr add {FAR}/64 dev eth0 nodad\nroute add ::/0 via 2001:db8:3::1\n\
         link add vx0 address {there} type vxlan external dstport {port} udp6zerocsumtx udp6zerocsumrx\nlink set vx0 mtu 1430 up\n\
         addr add {v4}/32 dev lo\naddr add {v6}/128 dev lo nodad\n\
         neigh add 10.99.0.1 lladdr {here} dev vx0\nneigh add fd99::1 lladdr {here} dev vx0\n\
         route add 10.77.0.0/24 encap ip6 id 0 dst {node} via 10.99.0.1 dev vx0 onlink src {v4} advmss 1390\n\
         route add fd77::/64 encap ip6 id 0 dst {node} via fd99::1 dev vx0 onlink src {v6} advmss 1370\n",
    ))?;
    Ok(far)
}

#[test]
fn a_small_link_under_a_tunnel_over_ipv6_is_found() {
    trial(|| {
        let setup =
            Setup { arguments: ["--routing=overlay", "--mtu=1430"].map(str::to_owned).to_vec(), ..Setup::default() };
        let objects = [nodes(), pod("shop/web", "app: web")].concat();
        let mut node = Node::without_daemon(setup, &[("all.yaml", &objects)])?;
        let world = World::beside(&node)?;
        let far = beyond(&world.sandbox)?;
        node.start_daemon()?;
        let web = node.add("shop/web")?;
        let _echo = Echo::start(&far, &[], &[53])?;
        let reached = || Ok(FAR_POD.iter().all(|it| echoed(&web.sandbox, at(it, 53), 100, SILENT).unwrap_or(false)));
        ensure!(eventually(PATIENCE, reached)?, "small packets get to the other node's pod");
        let learned = |to: &str| -> anyhow::Result<bool> {
            Ok(web.sandbox.said("ip", &["route", "get", to])?.contains(&format!("mtu {LEFT}")))
        };
        let limited = || -> anyhow::Result<bool> {
            let ranges = [["-4", "10.78.0.0/24"], ["-6", "fd78::/64"]];
            let routes = ranges.map(|[family, range]| node.sandbox.said("ip", &[family, "route", "show", range]));
            Ok(routes.into_iter().all(|route| route.is_ok_and(|route| route.contains(&format!("mtu {LEFT}")))))
        };
        for to in FAR_POD {
            ensure!(!learned(to)?, "nothing is known at first");
            stream(&web.sandbox, &far, at(to, 80), 1 << 20)?;
            ensure!(learned(to)?, "TCP was told what the way to {to} carries");
        }
        ensure!(limited()?, "the routes say so");
        // What the kernel has forgotten since, the daemon knows when it looks next: as soon as there is a node more.
        node.sandbox.said("ip", &["-6", "route", "flush", "cache"])?;
        node.apply("more.yaml", &one("n3", ["10.79.0.0/24", "fd79::/64"], "2001:db8:3::3"))?;
        let has_looked = || Ok(!node.sandbox.said("ip", &["route", "show", "10.79.0.0/24"])?.is_empty());
        ensure!(eventually(PATIENCE, has_looked)?, "a route to the new node's pods");
        ensure!(limited()?, "it has forgotten what the way carries");
        for to in FAR_POD {
            ensure!(echoed(&web.sandbox, at(to, 53), LEFT as usize - 48, SILENT)?, "as much as fits to {to}");
        }
        Ok(())
    });
}
