//! Fragments of both families.

use datapath_abi::{
    policy::Direction::Ingress,
    reason::DropReason::{ForgedNeighbourDiscovery, Fragment, PolicyChange, TruncatedHeader},
};
use tests::{
    host::{A, B, C, Family},
    lab::{At, Lab},
    packet::{ACK, Body, Packet, SYN},
    scene::{ADMITTED, ASKED, FIRST, FREE, IN, ISOLATED, OPEN, OUT, REFUSED, Scene},
    table::{PASSES, Table, drops, refused},
};

use crate::{beginnings, cut, ports, sends};

/// A part of UDP packet `id`.
fn udp(scene: &Scene, family: Family, id: u32, offset: u16, more: bool) -> Packet {
    scene.from.udp(&scene.to, family, ports(0)).part(id, offset, more)
}

/// The first part of UDP packet 1.
fn first(lab: &mut Lab, scene: &Scene, family: Family) {
    sends(lab, scene.at, &udp(scene, family, 1, 0, true));
}

/// A TCP connection that is established, and the first part of packet 1 of it.
fn first_of_tcp(lab: &mut Lab, scene: &Scene, family: Family) {
    sends(lab, scene.at, &scene.from.tcp(&scene.to, family, ports(0), SYN));
    sends(lab, scene.at, &scene.from.tcp(&scene.to, family, ports(0), ACK).part(1, 0, true));
}

fn tcp(scene: &Scene, family: Family, offsets: &[u16]) -> Vec<Packet> {
    let part = |offset: &u16| scene.from.tcp(&scene.to, family, ports(0), ACK).part(1, *offset, true);
    offsets.iter().map(part).collect()
}

pub(crate) fn write(table: &mut Table) {
    table.group(
        "Fragments",
        "The first one has the transport header and is judged by it. Later ones have the ports of the first, if that has passed, \
         and belong to its connection. Nothing is kept back to wait for a first.",
    );
    table
        .packet("first, with its whole transport header", |scene, family| {
            beginnings(scene, family, 0, |it| it.part(1, 0, true))
        })
        .usual(&FIRST);
    let whole = [OPEN, ADMITTED, OUT, IN];
    table
        .packet("later, after its first", |scene, family| {
            vec![udp(scene, family, 1, 2, true), udp(scene, family, 1, 4, false)]
        })
        .after(first)
        .fate(&whole, PASSES);
    table
        .packet("later ones out of order, twice, overlapping, after their first", |scene, family| {
            let places = [(5, false), (2, true), (1, true), (2, true), (3, true), (1, true), (0x1ffe, false)];
            places.map(|(offset, more)| udp(scene, family, 1, offset, more)).to_vec()
        })
        .after(first)
        .fate(&whole, PASSES);
    table
        .packet("TCP: later, behind the header", |scene, family| tcp(scene, family, &[3, 185, 4]))
        .after(first_of_tcp)
        .fate(&whole, PASSES);
    table
        .packet("TCP: later, overlapping the header", |scene, family| tcp(scene, family, &[1, 2]))
        .after(first_of_tcp)
        .fate(&FIRST, drops(TruncatedHeader));
    table
        .packet("TCP: later, overlapping the header, in another protocol's name", |scene, family| {
            let part = |offset| scene.from.udp(&scene.to, family, ports(0)).part(1, offset, true);
            vec![part(1), part(2)]
        })
        .after(first_of_tcp)
        .v6()
        .fate(&ASKED, drops(TruncatedHeader));
    table
        .packet("later, its first is lost or comes after it", |scene, family| {
            let places = [(1, true), (2, true), (185, false), (0x1fff, false)];
            places.map(|(offset, more)| udp(scene, family, 1, offset, more)).to_vec()
        })
        .fate(&FREE, PASSES)
        .fate(&ISOLATED, drops(Fragment));
    table
        .packet("first, after a later one of its packet", |scene, family| vec![udp(scene, family, 1, 0, true)])
        .after(|lab, scene, family| sends(lab, scene.at, &udp(scene, family, 1, 2, false)))
        .usual(&FIRST);
    table
        .packet("later, its first was refused", |scene, family| vec![udp(scene, family, 1, 2, false)])
        .after(first)
        .fate(&[REFUSED], drops(Fragment));
    table
        .packet("later, of another packet of the same connection, whose first is lost", |scene, family| {
            vec![udp(scene, family, 2, 2, false)]
        })
        .after(first)
        .fate(&ASKED, drops(Fragment));
    table
        .packet("later, with the identification of another pod's packet", |_, family| {
            vec![C.udp(&B, family, ports(0)).part(1, 2, false)]
        })
        .after(|lab, _, family| sends(lab, At::From(A), &A.udp(&B, family, ports(0)).part(1, 0, true)))
        .fate(
            &[Scene { at: At::From(C), from: C, ..ADMITTED }.named("another pod to isolated pod, admitted")],
            drops(Fragment),
        );
    table
        .packet("later, after a packet that was whole with its identification", |scene, family| {
            vec![udp(scene, family, 1, 2, false)]
        })
        .after(|lab, scene, family| sends(lab, scene.at, &udp(scene, family, 1, 0, false)))
        .fate(&ASKED, drops(Fragment));
    table
        .packet("later, of a connection that was cut after its first", |scene, family| {
            vec![udp(scene, family, 1, 3, true), udp(scene, family, 1, 4, false)]
        })
        .after(|lab, scene, family| {
            first(lab, scene, family);
            cut(lab);
            // The packet that finds out.
            sends(lab, scene.at, &udp(scene, family, 1, 2, true));
        })
        .fate(&[ADMITTED, IN], refused(PolicyChange, Ingress));
    table
        .packet("first, without its whole transport header", |scene, family| {
            let cuts = [(6, 8), (6, 16), (132, 8)].into_iter();
            cuts.map(|(proto, length)| {
                let part = scene.from.packet(&scene.to, family, Body::Raw { proto });
                part.payload(&[0x50; 16][..length]).part(1, 0, true).bytes()
            })
            .collect::<Vec<_>>()
        })
        .fate(&FIRST, drops(TruncatedHeader));
    table
        .packet("neighbour discovery in fragments", |scene, family| {
            [133, 134, 135, 136, 137]
                .map(|kind| scene.from.icmp(&scene.to, family, kind, 0).ttl(255).part(1, 0, true).bytes())
                .to_vec()
        })
        .v6()
        .fate(&FIRST, drops(ForgedNeighbourDiscovery));
}
