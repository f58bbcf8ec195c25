//! What is outside of a node: a host on its uplink that knows no way to the pods.

use std::net::{IpAddr, SocketAddr};

use crate::{node::Node, sandbox::Sandbox};

/// The node's addresses on the uplink (documentation ranges, RFC 5737 and RFC 3849).
pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];
/// The host's.
pub const HOST: [&str; 2] = ["192.0.2.2", "2001:db8:2::2"];

/// A host outside.
#[derive(Debug)]
pub struct World {
    /// Its namespace.
    pub sandbox: Sandbox,
}

impl World {
    /// Connects a host to the node, as the node's default route.
    pub fn beside(node: &Node) -> anyhow::Result<Self> {
        let sandbox = Sandbox::new("link set lo up\n")?;
        let [v4, v6] = NODE;
        let [host_v4, host_v6] = HOST;
        node.sandbox.ip(&format!(
            "link add uplink0 type veth peer name eth0 netns {}\n\
             addr add {v4}/24 dev uplink0\naddr add {v6}/64 dev uplink0 nodad\nlink set uplink0 up\n",
            sandbox.name()
        ))?;
        sandbox
            .ip(&format!("addr add {host_v4}/24 dev eth0\naddr add {host_v6}/64 dev eth0 nodad\nlink set eth0 up\n"))?;
        node.sandbox.ip(&format!("route add default via {host_v4}\nroute add ::/0 via {host_v6}\n"))?;
        Ok(Self { sandbox })
    }

    /// Its addresses, with a port.
    pub fn at(&self, port: u16) -> [SocketAddr; 2] {
        HOST.map(|address| SocketAddr::new(address.parse().expect("an address"), port))
    }

    /// The node's addresses on the uplink.
    pub fn node(&self) -> [IpAddr; 2] {
        NODE.map(|address| address.parse().expect("an address"))
    }
}
