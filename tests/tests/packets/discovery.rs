//! Neighbour discovery, listener reports, ARP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use datapath_abi::{
    endpoint::HOST_MAC,
    reason::DropReason::{ForgedNeighbourDiscovery, InvalidSourceIp, InvalidSourceMac, TruncatedHeader, UnsupportedL3},
};
use tests::{
    host::{A, B, Family, Host, NODE, WORLD},
    packet::{Arp, Packet},
    scene::{FROM_NODE, IN, IN_OPEN, OPEN, OUT_OPEN, OUT_REFUSED, REFUSED, Scene, TO_NODE, TO_NODE_OPEN},
    table::{PASSES, TO_STACK, Table, UNCOUNTED, drops, drops_quietly},
};

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// What hosts say.
const OF_HOSTS: [u8; 3] = [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT];
/// What routers say.
const OF_ROUTERS: [u8; 2] = [ROUTER_ADVERTISEMENT, REDIRECT];
/// Multicast listeners' queries, reports, farewells (RFC 2710, RFC 3810).
const OF_LISTENERS: [u8; 4] = [130, 131, 132, 143];

fn message(from: &Host, to: &str, kind: u8) -> Packet {
    let to = Host { v6: to.parse().expect("an address"), ..NODE };
    from.icmp(&to, Family::V6, kind, 0).ttl(255)
}

fn from_each(packets: &[Packet], sources: &[IpAddr]) -> Vec<Packet> {
    let with =
        |source: &IpAddr| packets.iter().map(move |packet| packet.clone().from_addr(*source)).collect::<Vec<_>>();
    sources.iter().flat_map(with).collect()
}

/// With hop-by-hop options: a router alert (RFC 2711).
fn report(from: &Host, to: &str, kind: u8) -> Packet {
    message(from, to, kind).ttl(1).extension(0, &[0, 5, 2, 0, 0, 1, 0])
}

/// From an isolated pod.
const ISOLATED_TO_NODE: Scene = TO_NODE.named("isolated pod to its link");
const OPEN_TO_NODE: Scene = TO_NODE_OPEN.named("open pod to its link");
const TO_LINK: [Scene; 2] = [OPEN_TO_NODE, ISOLATED_TO_NODE];

pub(crate) fn write(table: &mut Table) {
    discovery(table);
    arp(table);
}

fn discovery(table: &mut Table) {
    table.group(
        "Neighbour discovery",
        "Between a pod and its node, on their link, whatever policies say. A pod is no router.",
    );
    let own = || [A.v6, Ipv6Addr::UNSPECIFIED, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2)].map(IpAddr::V6);
    table
        .packet("solicitation, advertisement: from its own address, a link-local one, :: (DAD)", move |_, _| {
            let targets = ["ff02::1", "ff02::2", "ff02::1:ff00:1", "fe80::1", &NODE.v6.to_string()].map(str::to_owned);
            let all = targets.iter().flat_map(|to| OF_HOSTS.map(|kind| message(&A, to, kind)));
            from_each(&all.collect::<Vec<_>>(), &own())
        })
        .v6()
        .fate(&TO_LINK, PASSES);
    table
        .packet("listener report with a router alert", move |_, _| {
            from_each(&OF_LISTENERS.map(|kind| report(&A, "ff02::16", kind)), &own())
        })
        .v6()
        .fate(&TO_LINK, PASSES);
    table
        .packet("from another's address", |_, _| {
            let all = OF_HOSTS.map(|kind| message(&A, "ff02::1", kind));
            from_each(&all, &[B.v6.into(), NODE.v6.into(), WORLD.v6.into()])
        })
        .v6()
        .fate(&TO_LINK, drops(InvalidSourceIp));
    table
        .packet("listener report from another's address", |_, _| {
            from_each(&OF_LISTENERS.map(|kind| report(&A, "ff02::16", kind)), &[B.v6.into(), NODE.v6.into()])
        })
        .v6()
        .fate(&TO_LINK, drops(InvalidSourceIp));
    table
        .packet("from another's MAC address", |_, _| {
            OF_HOSTS.map(|kind| message(&A, "ff02::1", kind).from_mac(B.mac)).to_vec()
        })
        .v6()
        .fate(&TO_LINK, drops(InvalidSourceMac));
    table
        .packet("router advertisement, redirect", |_, _| {
            let targets = ["ff02::1", "fe80::1"].into_iter();
            targets.flat_map(|to| OF_ROUTERS.map(|kind| message(&A, to, kind))).collect::<Vec<_>>()
        })
        .v6()
        .fate(&TO_LINK, drops(ForgedNeighbourDiscovery));
    table
        .packet("router advertisement, redirect from a link-local address", |_, _| {
            let source = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 2]);
            from_each(&OF_ROUTERS.map(|kind| message(&A, "ff02::1", kind)), &[source])
        })
        .v6()
        .fate(&TO_LINK, drops(InvalidSourceIp));
    table
        .packet("router advertisement behind extension headers (RFC 7113)", |_, _| {
            let pad = [0, 1, 4, 0, 0, 0, 0];
            let chains: [&[u8]; 4] = [&[0], &[60], &[60, 60, 60], &[0, 60]];
            let behind = |chain: &[u8]| {
                let packet = message(&A, "ff02::1", ROUTER_ADVERTISEMENT);
                chain.iter().fold(packet, |packet, number| packet.extension(*number, &pad))
            };
            chains.map(behind).to_vec()
        })
        .v6()
        .fate(&TO_LINK, drops(ForgedNeighbourDiscovery));
    table
        .packet("router advertisement (RFC 1256), redirect (RFC 792) of IPv4", |scene, _| {
            [9, 5].map(|kind| scene.from.icmp(&scene.to, Family::V4, kind, 0)).to_vec()
        })
        .v4()
        .fate(&[OPEN, REFUSED, OUT_OPEN, OUT_REFUSED], drops(ForgedNeighbourDiscovery));
    table
        .packet("to another pod or the outside: it would be a way past policy", |scene, _| {
            let mut all = OF_HOSTS.map(|kind| scene.from.icmp(&scene.to, Family::V6, kind, 0).ttl(255)).to_vec();
            all.extend(OF_LISTENERS.map(|kind| report(&scene.from, &scene.to.v6.to_string(), kind)));
            all
        })
        .v6()
        .fate(&[OPEN, REFUSED, OUT_OPEN, OUT_REFUSED], drops(ForgedNeighbourDiscovery));
    table
        .packet("with a hop limit below 255", |scene, _| {
            OF_HOSTS.map(|kind| scene.from.icmp(&scene.to, Family::V6, kind, 0).ttl(254).bytes()).to_vec()
        })
        .v6()
        .fate(&[OPEN, OUT_OPEN, IN_OPEN, FROM_NODE], drops(ForgedNeighbourDiscovery));
    table
        .packet("forwarded by the node", |scene, _| {
            OF_HOSTS.map(|kind| scene.from.icmp(&scene.to, Family::V6, kind, 0).ttl(255)).to_vec()
        })
        .v6()
        .fate(&[IN_OPEN, IN], drops(ForgedNeighbourDiscovery));
    table
        .packet("the node's own, router's messages included", |scene, _| {
            let all = OF_HOSTS.iter().chain(&OF_ROUTERS);
            all.map(|kind| scene.from.icmp(&scene.to, Family::V6, *kind, 0).ttl(255)).collect::<Vec<_>>()
        })
        .v6()
        .fate(&[FROM_NODE], TO_STACK);
}

fn arp(table: &mut Table) {
    table.group(
        "ARP",
        "A pod speaks for its own address alone. Not counted when it goes on: it is no packet of a flow.",
    );
    let asks = |sender: Ipv4Addr, mac: [u8; 6]| {
        [1, 2].map(|operation| Arp { operation, mac, sender, target: NODE.v4 }.bytes()).to_vec()
    };
    table
        .packet("request, reply: for its own address; a probe for a free one (0.0.0.0)", move |_, _| {
            [asks(A.v4, A.mac), asks(Ipv4Addr::UNSPECIFIED, A.mac)].concat()
        })
        .v4()
        .fate(&TO_LINK, UNCOUNTED);
    table
        .packet("for another's address: a pod's, the node's, anybody's", move |_, _| {
            [asks(B.v4, A.mac), asks(NODE.v4, A.mac), asks(WORLD.v4, A.mac)].concat()
        })
        .v4()
        .fate(&TO_LINK, drops_quietly(InvalidSourceIp));
    table
        .packet("with another's MAC address", move |_, _| [asks(A.v4, B.mac), asks(A.v4, HOST_MAC)].concat())
        .v4()
        .fate(&TO_LINK, drops_quietly(InvalidSourceMac));
    table
        .packet("with its own MAC in the frame and another's in the message", |_, _| {
            let mut frame = Arp { operation: 2, mac: A.mac, sender: A.v4, target: NODE.v4 }.bytes();
            frame[22..28].copy_from_slice(&B.mac);
            vec![frame]
        })
        .v4()
        .fate(&TO_LINK, drops_quietly(InvalidSourceMac));
    table
        .packet("cut at any byte", move |_, _| {
            let whole = asks(A.v4, A.mac).remove(0);
            (14..whole.len()).map(|length| whole[..length].to_vec()).collect::<Vec<_>>()
        })
        .v4()
        .fate(&[OPEN_TO_NODE, FROM_NODE], drops_quietly(TruncatedHeader));
    table
        .packet("of another link layer or protocol than Ethernet and IPv4", move |_, _| {
            let other = |at: usize| {
                let mut frame = asks(A.v4, A.mac).remove(0);
                frame[at] ^= 1;
                frame
            };
            [14, 16, 18, 19].map(other).to_vec()
        })
        .v4()
        .fate(&[OPEN_TO_NODE, FROM_NODE], drops_quietly(UnsupportedL3));
    table.packet("the node's own", move |_, _| asks(NODE.v4, HOST_MAC)).v4().fate(&[FROM_NODE], UNCOUNTED);
}
