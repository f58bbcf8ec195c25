//! ICMP and ICMPv6 errors, and the packets that they quote.

use datapath_abi::{
    policy::Direction,
    reason::DropReason::{DefaultDeny, InvalidSourceIp, PolicyChange, UnrelatedIcmpError},
};
use tests::{
    host::{A, B, Family, Host, WORLD},
    lab::{At, Lab},
    packet::{Packet, SCTP_INIT, SYN, error_about},
    scene::{
        ADMITTING, BACK, BACK_IN, BACK_NODE, BACK_OTHER, BACK_REMOTE, BACK_ROUTER, FREE, IN_REFUSED, ISOLATED, OPEN,
        OUT_REFUSED, REFUSED, Scene,
    },
    table::{PASSES, Table, drops, refused},
};

use crate::{ports, sends};

/// What A sends to `to`, one of each.
fn connections(to: &Host, family: Family) -> Vec<Packet> {
    vec![
        A.udp(to, family, ports(0)),
        A.tcp(to, family, ports(0), SYN),
        A.sctp(to, family, ports(0), SCTP_INIT),
        A.ping(to, family, 7),
        A.udp(to, family, ports(1)).part(9, 0, true),
    ]
}

/// Whom A has spoken to: the other end of what comes back in a situation.
fn other_end(scene: &Scene) -> Host {
    match scene.at {
        At::From(_) => B,
        At::To(..) => WORLD,
    }
}

fn spoken(lab: &mut Lab, scene: &Scene, family: Family) {
    for packet in connections(&other_end(scene), family) {
        sends(lab, At::From(A), &packet);
    }
}

/// Type and code of: port unreachable, packet too big, time exceeded, parameter problem.
fn messages(family: Family) -> [[u8; 2]; 4] {
    match family {
        Family::V4 => [[3, 3], [3, 4], [11, 0], [12, 0]],
        Family::V6 => [[1, 4], [2, 0], [3, 0], [4, 0]],
    }
}

fn error(scene: &Scene, family: Family, frame: &[u8], message: [u8; 2], quote: usize) -> Packet {
    error_about(frame, [scene.from.mac, scene.to.mac], scene.from.addr(family), message, [0, 0, 5, 0], quote)
}

/// Errors of all kinds about these packets, quoting so many bytes from the network header on.
fn errors(scene: &Scene, family: Family, packets: Vec<Packet>, quote: usize) -> Vec<Packet> {
    let about = |packet: Packet| messages(family).map(|message| error(scene, family, &packet.bytes(), message, quote));
    packets.into_iter().flat_map(about).collect()
}

pub(crate) fn write(table: &mut Table) {
    table.group(
        "ICMP and ICMPv6 errors",
        "Unreachable, too big, time exceeded, parameter problem: about the connection whose packet they quote, and let in with it. \
         The pod in these lines may open connections, has done so, and admits nothing else.",
    );
    let back = [BACK, BACK_IN, BACK_ROUTER, BACK_NODE];
    table
        .packet("about a connection: TCP, UDP, SCTP, echo, a first fragment", |scene, family| {
            errors(scene, family, connections(&other_end(scene), family), 500)
        })
        .after(spoken)
        .fate(&[BACK, BACK_IN], PASSES);
    table
        .packet("the same from others than its other end", |scene, family| {
            errors(scene, family, connections(&other_end(scene), family), 500)
        })
        .after(spoken)
        .fate(&[BACK_ROUTER, BACK_NODE], PASSES)
        .fate(&[BACK_OTHER, BACK_REMOTE], drops(UnrelatedIcmpError));
    table
        .packet("about packets with extension headers: options, a route, a first fragment", |scene, family| {
            let to = other_end(scene);
            let options = [0, 1, 4, 0, 0, 0, 0];
            let packets =
                [A.udp(&to, family, ports(0)), A.tcp(&to, family, ports(0), SYN)].into_iter().flat_map(|it| {
                    [
                        it.clone().extension(60, &options),
                        it.clone().extension(0, &options).extension(60, &options),
                        it.clone().extension(43, &[0, 0, 0, 0, 0, 0, 0]),
                        it.extension(0, &options).extension(60, &options).part(9, 0, true),
                    ]
                });
            errors(scene, family, packets.collect(), 500)
        })
        .after(spoken)
        .v6()
        .fate(&back[..3], PASSES);
    table
        .packet(
            "about packets with a route that leads elsewhere first, or more than four extension headers",
            |scene, family| {
                let to = other_end(scene);
                let options = [0, 1, 4, 0, 0, 0, 0];
                let long = (0..5).fold(A.udp(&to, family, ports(0)), |it, _| it.extension(60, &options));
                let packets = vec![A.udp(&to, family, ports(0)).extension(43, &[0, 0, 1, 0, 0, 0, 0]), long];
                errors(scene, family, packets, 500)
            },
        )
        .after(spoken)
        .v6()
        .fate(&back[..3], drops(UnrelatedIcmpError));
    table
        .packet("quoting as little as must be: the header and 8 bytes", |scene, family| {
            let least = if family == Family::V4 { 28 } else { 48 };
            errors(scene, family, connections(&other_end(scene), family)[..4].to_vec(), least)
        })
        .after(spoken)
        .fate(&back[..3], PASSES);
    table
        .packet("quoting too little, down to nothing", |scene, family| {
            let least = if family == Family::V4 { 28 } else { 48 };
            let packets = connections(&other_end(scene), family);
            (0..least).flat_map(|quote| errors(scene, family, packets[..2].to_vec(), quote)).collect::<Vec<_>>()
        })
        .after(spoken)
        .fate(&back[..3], drops(UnrelatedIcmpError));
    table
        .packet("forged: about ports, addresses or protocols of no connection", |scene, family| {
            let to = other_end(scene);
            let stranger = Host {
                v4: "198.51.100.1".parse().expect("an address"),
                v6: "2001:db8:5::1".parse().expect("one"),
                ..WORLD
            };
            let packets = vec![
                A.udp(&to, family, [ports(0)[0], 81]),
                A.udp(&to, family, [1, 80]),
                A.udp(&stranger, family, ports(0)),
                A.tcp(&to, family, ports(3), SYN),
                A.ping(&to, family, 8),
                A.pong(&to, family, 7),
            ];
            errors(scene, family, packets, 500)
        })
        .after(spoken)
        .fate(&back[..3], drops(UnrelatedIcmpError));
    table
        .packet("forged: about what another pod has sent", |scene, family| {
            let quoted = B.udp(&WORLD, family, ports(0));
            messages(family)
                .map(|message| {
                    let mut packet = error(scene, family, &quoted.bytes(), message, 500);
                    packet.addr[1] = A.addr(family);
                    packet
                })
                .to_vec()
        })
        .after(|lab, scene, family| {
            spoken(lab, scene, family);
            sends(lab, At::From(B), &B.udp(&WORLD, family, ports(0)));
        })
        .fate(&[BACK_IN, BACK_ROUTER], drops(UnrelatedIcmpError));
    table
        .packet("about a later fragment", |scene, family| {
            let later = A.udp(&other_end(scene), family, ports(1)).part(9, 2, true);
            errors(scene, family, vec![later], 500)
        })
        .after(spoken)
        .fate(&back[..3], drops(UnrelatedIcmpError));
    table
        .packet("in another's name", |scene, family| {
            let packets = connections(&B, family);
            packets
                .into_iter()
                .map(|packet| {
                    error_about(
                        &packet.bytes(),
                        [scene.from.mac, A.mac],
                        B.addr(family),
                        messages(family)[0],
                        [0; 4],
                        500,
                    )
                })
                .collect::<Vec<_>>()
        })
        .after(|lab, _, family| {
            for packet in connections(&B, family) {
                sends(lab, At::From(A), &packet);
            }
        })
        .fate(&[BACK_OTHER], drops(InvalidSourceIp));
    table
        .packet("about a connection that was cut", |scene, family| {
            errors(scene, family, vec![A.udp(&other_end(scene), family, ports(0))], 500)
        })
        .after(|lab, scene, family| {
            let packet = A.udp(&other_end(scene), family, ports(0));
            sends(lab, At::From(A), &packet);
            lab.isolate(&A, Direction::Egress, &[]);
            sends(lab, At::From(A), &packet);
        })
        .fate(&back[..3], refused(PolicyChange, Direction::Egress));
    let lone = |scene: &Scene, family| {
        let kinds: &[u8] = if family == Family::V4 { &[3, 4, 11, 12] } else { &[0, 1, 2, 3, 4, 100, 127] };
        kinds.iter().map(|kind| scene.from.icmp(&scene.to, family, *kind, 0)).collect::<Vec<_>>()
    };
    table.packet("about nothing", lone).fate(&FREE, PASSES).fate(&ISOLATED, drops(UnrelatedIcmpError));
    table
        .packet("about a connection of open pods, whatever they quote", |scene, family| {
            let mut all = Vec::new();
            for quote in [500, 28, 0] {
                all.extend(errors(scene, family, connections(&B, family), quote));
            }
            all
        })
        .after(|lab, _, family| {
            for packet in connections(&B, family) {
                sends(lab, At::From(A), &packet);
            }
        })
        .fate(&[Scene { at: At::From(B), from: B, to: A, ..OPEN }], PASSES);
    table
        .packet("timestamp, mask, node information and other questions", |scene, family| {
            let kinds = if family == Family::V4 { [13, 17] } else { [139, 200] };
            kinds.map(|kind| scene.from.icmp(&scene.to, family, kind, 0)).to_vec()
        })
        .fate(&ADMITTING, PASSES)
        .fate(&[REFUSED, IN_REFUSED], refused(DefaultDeny, Direction::Ingress))
        .fate(&[OUT_REFUSED], refused(DefaultDeny, Direction::Egress));
}
