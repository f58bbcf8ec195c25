//! Groups, the pod itself, the node, and who is not who it says it is.

use std::net::{IpAddr, Ipv4Addr};

use datapath_abi::{
    policy::Direction::Ingress,
    reason::DropReason::{DefaultDeny, InvalidSourceIp, InvalidSourceMac, Martian, Multicast, NoEndpoint},
};
use tests::{
    host::{A, B, C, Family, Host, NODE, REMOTE, WORLD},
    lab::{At, STRAY},
    packet::{ACK, Packet, SYN},
    scene::{
        ADMITTED, FROM_NODE, IN, IN_OPEN, IN_REFUSED, OPEN, OUT, OUT_OPEN, OUT_REFUSED, REFUSED, Scene, TO_NODE,
        TO_NODE_OPEN,
    },
    table::{OPENS, PASSES, TO_STACK, Table, drops, refused},
};

use crate::{back, beginnings, establish, ports, sends};

/// Groups, broadcast, and what is reserved (RFC 5771, RFC 919, RFC 1112, RFC 4291).
fn groups(family: Family) -> Vec<Host> {
    match family {
        Family::V4 => ["224.0.0.251", "239.255.255.255", "255.255.255.255", "240.0.0.1"]
            .map(|group| Host { v4: group.parse().expect("an address"), ..WORLD })
            .to_vec(),
        Family::V6 => ["ff02::fb", "ff05::2", "ff0e::1"]
            .map(|group| Host { v6: group.parse().expect("an address"), ..WORLD })
            .to_vec(),
    }
}

fn to_groups(scene: &Scene, family: Family) -> Vec<Packet> {
    let each = |group: Host| [scene.from.udp(&group, family, ports(0)), scene.from.ping(&group, family, 7)];
    groups(family).into_iter().flat_map(each).collect()
}

pub(crate) fn write(table: &mut Table) {
    table.group("Multicast and broadcast", "No rule names a group: between open ends they pass, otherwise not.");
    table
        .packet("UDP, echo to a group, to 255.255.255.255, to 240.0.0.0/4", to_groups)
        .fate(&[OPEN.named("open pod"), FROM_NODE], TO_STACK)
        .fate(&[IN_OPEN], PASSES)
        .fate(&[OUT.named("isolated pod, admitted"), OUT_REFUSED.named("isolated pod, not admitted")], drops(Multicast))
        .fate(&[IN, IN_REFUSED], drops(Multicast));
    itself(table);
    node(table);
    spoofed(table);
}

fn itself(table: &mut Table) {
    table.group(
        "A pod to itself",
        "Stays on its loopback: no program sees it. What goes out to its own address comes from a pod like any other.",
    );
    let own = Scene { to: A, ..OPEN }.named("open pod to itself, over its link");
    table
        .packet("TCP SYN, UDP, SCTP INIT, ICMP echo request", |scene, family| beginnings(scene, family, 0, |it| it))
        .shown(&[own]);
    table
        .packet("the answers", |scene, family| {
            vec![
                scene.from.tcp(&scene.to, family, back(ports(0)), SYN | ACK),
                scene.from.udp(&scene.to, family, back(ports(0))),
            ]
        })
        .after(|lab, _, family| {
            for packet in beginnings(&Scene { to: A, ..OPEN }, family, 0, |it| it) {
                sends(lab, At::From(A), &packet);
            }
        })
        .fate(&[own], PASSES);
}

fn node(table: &mut Table) {
    table.group(
        "The node and its pods",
        "What a process of the node sends is let in, by whatever address, and so are kubelet's probes. A pod that is isolated for \
         egress reaches its node by a rule only. The node's address on a packet from elsewhere is no privilege.",
    );
    table
        .packet("from the node by any of its addresses, a gateway's, a pod's, a stranger's", |scene, family| {
            let gateway =
                Host { v4: Ipv4Addr::new(169, 254, 1, 1), v6: "fe80::1".parse().expect("an address"), ..NODE };
            let hosts = [NODE, gateway, WORLD, A, C].into_iter().enumerate();
            let source =
                |(number, host): (usize, Host)| beginnings(scene, family, number, |it| it.from_addr(host.addr(family)));
            hosts.flat_map(source).collect::<Vec<_>>()
        })
        .fate(&[FROM_NODE], OPENS);
    table
        .packet("the pod's answers to the node", |scene, family| {
            vec![
                scene.from.tcp(&NODE, family, back(ports(0)), SYN | ACK),
                scene.from.udp(&NODE, family, back(ports(0))),
                scene.from.pong(&NODE, family, ports(0)[0]),
            ]
        })
        .after(|lab, _, family| {
            let probe = Scene { at: At::To(A, NODE), to: A, ..FROM_NODE };
            for packet in beginnings(&probe, family, 0, |it| it) {
                sends(lab, probe.at, &packet);
            }
        })
        .fate(&[TO_NODE], PASSES);
    table
        .packet("TCP SYN, UDP, SCTP INIT, ICMP echo request", |scene, family| beginnings(scene, family, 0, |it| it))
        .shown(&[TO_NODE_OPEN, TO_NODE]);
    table
        .packet("the node's answers to a pod that was let out", |scene, family| {
            vec![NODE.tcp(&scene.to, family, back(ports(0)), SYN | ACK), NODE.udp(&scene.to, family, back(ports(0)))]
        })
        .after(|lab, _, family| {
            for packet in [B.tcp(&NODE, family, ports(0), SYN), B.udp(&NODE, family, ports(0))] {
                sends(lab, At::From(B), &packet);
            }
        })
        .fate(&[FROM_NODE], PASSES);
    table
        .packet("from outside with the node's address: masqueraded, or forged", |_, family| {
            vec![NODE.tcp(&B, family, ports(0), SYN), NODE.udp(&B, family, ports(0))]
        })
        .shown(&[IN_OPEN, IN, IN_REFUSED]);
    table
        .packet("from outside in a connection that the node has opened", |_, family| {
            vec![NODE.tcp(&B, family, ports(0), ACK), NODE.udp(&B, family, ports(0))]
        })
        .after(|lab, _, family| {
            for packet in [NODE.tcp(&B, family, ports(0), SYN), NODE.udp(&B, family, ports(0))] {
                sends(lab, At::To(B, NODE), &packet);
            }
        })
        .fate(&[IN_REFUSED], refused(DefaultDeny, Ingress));
}

fn spoofed(table: &mut Table) {
    table.group("Not who it says it is", "A pod sends from its own addresses and its own MAC address, open or not.");
    let scenes = [OPEN, ADMITTED, REFUSED, OUT_OPEN, OUT, OUT_REFUSED];
    let from = |sources: fn(Family) -> Vec<IpAddr>| {
        move |scene: &Scene, family: Family| {
            let all = sources(family).into_iter().enumerate();
            all.flat_map(|(number, source)| beginnings(scene, family, number, |it| it.from_addr(source)))
                .collect::<Vec<Packet>>()
        }
    };
    table
        .packet(
            "source address of another pod, here or elsewhere, or of the outside",
            from(|family| [B, C, REMOTE, WORLD].map(|host| host.addr(family)).to_vec()),
        )
        .fate(&scenes, drops(InvalidSourceIp));
    table
        .packet(
            "source address of the node, its gateway",
            from(|family| match family {
                Family::V4 => vec![NODE.v4.into(), Ipv4Addr::new(169, 254, 1, 1).into()],
                Family::V6 => vec![NODE.v6.into(), "fe80::1".parse().expect("an address")],
            }),
        )
        .fate(&scenes, drops(InvalidSourceIp));
    table
        .packet(
            "source address unspecified, loopback, link-local, a group",
            from(|family| {
                let all: &[&str] = match family {
                    Family::V4 => &["0.0.0.0", "127.0.0.1", "169.254.7.7", "224.0.0.1", "255.255.255.255"],
                    Family::V6 => &["::", "::1", "fe80::7", "ff02::1"],
                };
                all.iter().map(|source| source.parse().expect("an address")).collect()
            }),
        )
        .fate(&scenes, drops(InvalidSourceIp));
    table
        .packet("source MAC address of another, none, a group", |scene, family| {
            let all = [B.mac, [0; 6], [0xff; 6], tests::host::NODE.mac].into_iter();
            all.flat_map(|mac| beginnings(scene, family, 0, |it| it.from_mac(mac))).collect::<Vec<_>>()
        })
        .fate(&scenes, drops(InvalidSourceMac));
    let other = Scene { at: At::From(C), from: C, ..OPEN };
    table
        .packet("into another pod's connection, with its address", |_, family| {
            [SYN, ACK].map(|flags| A.tcp(&B, family, ports(0), flags).from_mac(C.mac)).to_vec()
        })
        .after(|lab, _, family| establish(lab, &B, family))
        .fate(&[other.named("another pod")], drops(InvalidSourceIp));
    table
        .packet("into another pod's connection, with its addresses", |_, family| {
            [SYN, ACK].map(|flags| A.tcp(&B, family, ports(0), flags)).to_vec()
        })
        .after(|lab, _, family| establish(lab, &B, family))
        .fate(&[other.named("another pod")], drops(InvalidSourceMac));
    table
        .packet("a local pod's address, that came in by another interface", |_, family| {
            [SYN, ACK].map(|flags| A.tcp(&B, family, ports(0), flags)).to_vec()
        })
        .fate(&[IN_OPEN, IN, IN_REFUSED], drops(Martian));
    let nobody = Host { name: "NOBODY", slot: 9, ifindex: STRAY, ..C };
    let from_nobody = Scene { at: At::From(nobody), from: nobody, ..OPEN }.named("an interface without a pod");
    let to_nobody =
        Scene { at: At::To(nobody, WORLD), to: nobody, ..IN_OPEN }.named("outside to an interface without a pod");
    table
        .packet("TCP SYN, UDP, SCTP INIT, ICMP echo request", |scene, family| beginnings(scene, family, 0, |it| it))
        .fate(&[from_nobody], drops(NoEndpoint))
        .fate(&[to_nobody], drops(NoEndpoint));
}
