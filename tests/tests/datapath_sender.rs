//! Who may send what: addresses that are not the sender's own, interfaces without an endpoint,
//! ARP, neighbour discovery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use datapath_abi::{endpoint::HOST_MAC, maps, policy::Direction, reason::DropReason};
use tests::{
    host::{A, B, C, FAMILIES, Family, Host, NODE, REMOTE, WORLD},
    lab::{At, Lab, STRAY},
    packet::{ACK, Arp, Packet, SYN},
};

const PORTS: [u16; 2] = [40_000, 80];

const NOBODY: Host = Host { name: "NOBODY", slot: 9, ifindex: STRAY, ..C };

#[test]
fn a_pod_sends_from_its_own_address_only() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        for other in [B, REMOTE, WORLD, NODE] {
            for packet in [A.tcp(&C, family, PORTS, SYN), A.udp(&C, family, PORTS), A.ping(&C, family, 7)] {
                lab.send(At::From(A), &packet.from_addr(other.addr(family)))
                    .drops(DropReason::InvalidSourceIp, None)
                    .with(|event| {
                        assert_eq!((event.slot[0], event.identity[0]), (A.slot, A.identity), "the sender is told");
                        assert_eq!((event.slot[1], event.identity[1]), (0, 0));
                    });
            }
        }
        assert_eq!(lab.sizes(), (0, 0));
    }
    // Not the unspecified address either, nor a link-local one: that is for neighbour discovery.
    let mut lab = Lab::new();
    for source in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(169, 254, 1, 2))] {
        lab.send(At::From(A), &A.udp(&C, Family::V4, PORTS).from_addr(source)).drops(DropReason::InvalidSourceIp, None);
    }
    for source in [Ipv6Addr::UNSPECIFIED, "fe80::1".parse().unwrap(), Ipv6Addr::LOCALHOST] {
        lab.send(At::From(A), &A.udp(&C, Family::V6, PORTS).from_addr(source.into()))
            .drops(DropReason::InvalidSourceIp, None);
    }
}

#[test]
fn a_pod_without_an_address_of_a_family_sends_nothing_of_it() {
    let mut lab = Lab::new();
    let mut endpoint = lab.endpoint(&A);
    endpoint.addr6 = Default::default();
    lab.programs.array(maps::ENDPOINTS).set(A.slot, endpoint, 0).unwrap();
    lab.send(At::From(A), &A.udp(&C, Family::V6, PORTS)).drops(DropReason::InvalidSourceIp, None);
    let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    lab.send(At::From(A), &A.udp(&C, Family::V6, PORTS).from_addr(unspecified))
        .drops(DropReason::InvalidSourceIp, None);
    lab.send(At::From(A), &A.udp(&C, Family::V4, PORTS)).reaches(&C).opens();
    endpoint.addr4 = Default::default();
    lab.programs.array(maps::ENDPOINTS).set(A.slot, endpoint, 0).unwrap();
    lab.send(At::From(A), &A.udp(&C, Family::V4, [1, 2])).drops(DropReason::InvalidSourceIp, None);
}

#[test]
fn a_pod_sends_from_its_own_mac_only() {
    for family in FAMILIES {
        for mac in [B.mac, [0; 6], [0xff; 6], [A.mac[0], A.mac[1], A.mac[2], A.mac[3], A.mac[4], A.mac[5] ^ 1]] {
            let mut lab = Lab::new();
            lab.send(At::From(A), &A.tcp(&C, family, PORTS, SYN).from_mac(mac))
                .drops(DropReason::InvalidSourceMac, None);
        }
    }
}

#[test]
fn a_living_connection_does_not_excuse_a_false_sender() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN)).reaches(&B).opens();
        for step in 0..3 {
            // C in A's name; A in its own name with another MAC; somebody outside in A's name.
            let packet = A.tcp(&B, family, PORTS, ACK);
            lab.send(At::From(C), &packet).drops(DropReason::InvalidSourceMac, None);
            lab.send(At::From(C), &packet.clone().from_mac(C.mac)).drops(DropReason::InvalidSourceIp, None);
            lab.send(At::From(A), &packet.clone().from_mac(C.mac)).drops(DropReason::InvalidSourceMac, None);
            lab.send(At::To(B, WORLD), &packet).drops(DropReason::Martian, None);
            lab.send(At::To(B, C), &packet).drops(DropReason::Martian, None);
            if step == 0 {
                lab.send(At::From(B), &B.tcp(&A, family, [80, 40_000], SYN | ACK)).reaches(&A);
            } else {
                lab.send(At::From(A), &packet).reaches(&B);
            }
        }
        assert_eq!(lab.connection(maps::CONNTRACK).1.packets(), [3, 1], "what was refused was not counted");
    }
}

#[test]
fn a_local_pods_address_comes_from_its_own_interface_only() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        for via in [WORLD, C, NOBODY] {
            lab.send(At::To(B, via), &A.tcp(&B, family, PORTS, SYN)).drops(DropReason::Martian, None).with(|event| {
                assert_eq!((event.slot, event.identity[1]), ([0, B.slot], B.identity));
            });
        }
        lab.send(At::To(B, A), &A.tcp(&B, family, PORTS, SYN)).passes().opens();
    }
}

#[test]
fn an_interface_without_an_endpoint_passes_nothing() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(NOBODY), &NOBODY.tcp(&A, family, PORTS, SYN)).drops(DropReason::NoEndpoint, None);
        for via in [WORLD, A, NODE] {
            lab.send(At::To(NOBODY, via), &via.tcp(&NOBODY, family, PORTS, SYN)).drops(DropReason::NoEndpoint, None);
        }
        lab.send(At::From(NOBODY), &NOBODY.icmp(&A, family, 3, 1)).drops(DropReason::NoEndpoint, None);
    }
    let mut lab = Lab::new();
    lab.send_bytes(At::From(NOBODY), &arp(NOBODY.mac, NOBODY.v4)).drops_quietly(DropReason::NoEndpoint);
    lab.send(At::From(NOBODY), &discovery(&NOBODY, 135)).drops(DropReason::NoEndpoint, None);
    lab.send(At::To(NOBODY, NODE), &discovery(&NODE, 135)).drops(DropReason::NoEndpoint, None);
}

fn arp(mac: [u8; 6], sender: Ipv4Addr) -> Vec<u8> {
    Arp { operation: 1, mac, sender, target: Ipv4Addr::new(169, 254, 1, 1) }.bytes()
}

/// ARP that may go on leaves no trace in counters: it is no packet of a flow.
#[test]
fn a_pod_speaks_for_its_own_address_in_arp() {
    let mut lab = Lab::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        lab.isolate(&A, direction, &[]);
    }
    for operation in [1, 2] {
        let own = Arp { operation, mac: A.mac, sender: A.v4, target: NODE.v4 };
        lab.send_bytes(At::From(A), &own.bytes()).goes_on();
        lab.send_bytes(At::From(A), &Arp { sender: B.v4, ..own }.bytes()).drops_quietly(DropReason::InvalidSourceIp);
        lab.send_bytes(At::From(A), &Arp { sender: NODE.v4, ..own }.bytes()).drops_quietly(DropReason::InvalidSourceIp);
        lab.send_bytes(At::From(A), &Arp { mac: B.mac, ..own }.bytes()).drops_quietly(DropReason::InvalidSourceMac);
        // Asks whether an address is free (RFC 5227).
        lab.send_bytes(At::From(A), &Arp { sender: Ipv4Addr::UNSPECIFIED, ..own }.bytes()).goes_on();
        // From the host, whatever it is.
        lab.send_bytes(At::To(A, NODE), &Arp { mac: HOST_MAC, sender: NODE.v4, ..own }.bytes()).goes_on();
    }
    let good = arp(A.mac, A.v4);
    for length in 14..good.len() {
        for at in [At::From(A), At::To(A, NODE)] {
            lab.send_bytes(at, &good[..length]).drops_quietly(DropReason::TruncatedHeader);
        }
    }
    // Of another link layer or network protocol than Ethernet and IPv4.
    for at in [14, 16, 18, 19] {
        let mut other = good.clone();
        other[at] ^= 1;
        lab.send_bytes(At::From(A), &other).drops_quietly(DropReason::UnsupportedL3);
    }
}

/// Neighbour discovery from `host`'s own address to the all-nodes group.
fn discovery(host: &Host, kind: u8) -> Packet {
    let group = Host { v6: "ff02::1".parse().unwrap(), ..*host };
    host.icmp(&group, Family::V6, kind, 0).ttl(255)
}

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

#[test]
fn neighbour_discovery_passes_also_for_isolated_pods() {
    let mut lab = Lab::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        lab.isolate(&A, direction, &[]);
    }
    for kind in [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
        let packet = discovery(&A, kind);
        lab.send(At::From(A), &packet).passes();
        // Before it has an address of its own, and from its link-local one.
        for source in ["::", "fe80::2"] {
            lab.send(At::From(A), &packet.clone().from_addr(source.parse().unwrap())).passes();
        }
        // To one neighbour: the gateway, by its link-local address or that of the node.
        let gateway = Host { v6: "fe80::1".parse().unwrap(), ..NODE };
        lab.send(At::From(A), &A.icmp(&gateway, Family::V6, kind, 0).ttl(255)).passes();
        lab.send(At::From(A), &A.icmp(&NODE, Family::V6, kind, 0).ttl(255)).passes();
        // The node's own.
        lab.send(At::To(A, NODE), &NODE.icmp(&A, Family::V6, kind, 0).ttl(255)).passes();
    }
    // A router's, from the node: it is one.
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        lab.send(At::To(A, NODE), &NODE.icmp(&A, Family::V6, kind, 0).ttl(255)).passes();
    }
}

#[test]
fn a_pod_is_no_router() {
    let mut lab = Lab::new();
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        for ttl in [255, 64] {
            lab.send(At::From(A), &discovery(&A, kind).ttl(ttl)).drops(DropReason::ForgedNeighbourDiscovery, None);
        }
        let link_local = discovery(&A, kind).from_addr("fe80::2".parse().unwrap());
        lab.send(At::From(A), &link_local).drops(DropReason::InvalidSourceIp, None);
    }
}

#[test]
fn neighbour_discovery_stays_on_its_link() {
    let mut lab = Lab::new();
    for kind in [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
        // A hop limit below 255 has passed a router (RFC 4861): headers that make no sense.
        let far = discovery(&A, kind).ttl(254);
        lab.send_bytes(At::From(A), &far.bytes()).drops(DropReason::ForgedNeighbourDiscovery, None);
        // What the host forwards is not from the link.
        for via in [WORLD, B] {
            lab.send(At::To(A, via), &via.icmp(&A, Family::V6, kind, 0).ttl(255))
                .drops(DropReason::ForgedNeighbourDiscovery, None);
        }
        // Nor is what is to leave the link: it would be a way past policy.
        for other in [WORLD, REMOTE, B] {
            lab.send(At::From(A), &A.icmp(&other, Family::V6, kind, 0).ttl(255))
                .drops(DropReason::ForgedNeighbourDiscovery, None);
        }
        // In another's name.
        lab.send(At::From(A), &discovery(&A, kind).from_addr(B.v6.into())).drops(DropReason::InvalidSourceIp, None);
        lab.send(At::From(A), &discovery(&A, kind).from_mac(B.mac)).drops(DropReason::InvalidSourceMac, None);
    }
}

/// Multicast listener reports: hop-by-hop options with a router alert, then ICMPv6.
fn listener_report(host: &Host, to: &str, kind: u8) -> Packet {
    let group = Host { v6: to.parse().unwrap(), ..*host };
    // Router alert, padding (RFC 2711).
    host.icmp(&group, Family::V6, kind, 0).ttl(1).extension(0, &[0, 5, 2, 0, 0, 1, 0])
}

#[test]
fn multicast_listeners_may_report() {
    let mut lab = Lab::new();
    lab.isolate(&A, Direction::Egress, &[]);
    for kind in [130, 131, 132, 143] {
        for source in [A.v6, Ipv6Addr::UNSPECIFIED, "fe80::2".parse().unwrap()] {
            lab.send(At::From(A), &listener_report(&A, "ff02::16", kind).from_addr(source.into())).passes();
        }
        lab.send(At::From(A), &listener_report(&A, "ff02::16", kind).from_addr(B.v6.into()))
            .drops(DropReason::InvalidSourceIp, None);
        // To somebody far away it would be a way past policy.
        let far = listener_report(&A, &WORLD.v6.to_string(), kind);
        lab.send(At::From(A), &far).drops(DropReason::ForgedNeighbourDiscovery, None);
    }
}
