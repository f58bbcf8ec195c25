//! TCP, UDP, SCTP and echo beyond their first packet.

use datapath_abi::{
    event::EndReason,
    policy::Direction::{self, Egress, Ingress},
    reason::DropReason::{DefaultDeny, Midstream, PolicyChange},
};
use tests::{
    host::{A, B, Family},
    lab::{At, Lab},
    packet::{
        ACK, FIN, RST, SCTP_ABORT, SCTP_COOKIE_ECHO, SCTP_DATA, SCTP_INIT, SCTP_INIT_ACK, SCTP_SHUTDOWN,
        SCTP_SHUTDOWN_COMPLETE, SYN,
    },
    scene::{ADMITTED, ADMITTING, BACK, BACK_IN, FREE, IN, IN_REFUSED, OPEN, OUT, OUT_REFUSED, REFUSED, Scene},
    table::{OPENS, PASSES, Table, drops, refused},
};

use crate::{back, cut, establish, ports, sends};

/// What the initiator sends, in situations between pods.
const THERE: [Scene; 2] = [OPEN, ADMITTED];
/// What comes back to a pod that admits nobody.
const AGAIN: [Scene; 2] = [BACK, BACK_IN];

fn tcp(scene: &Scene, family: Family, flags: &[u8]) -> Vec<tests::packet::Packet> {
    flags.iter().map(|flags| scene.from.tcp(&scene.to, family, ports(0), *flags)).collect()
}

fn answers(scene: &Scene, family: Family, flags: &[u8]) -> Vec<tests::packet::Packet> {
    flags.iter().map(|flags| scene.from.tcp(&scene.to, family, back(ports(0)), *flags)).collect()
}

fn there(lab: &mut Lab, family: Family, flags: u8) {
    sends(lab, At::From(A), &A.tcp(&B, family, ports(0), flags));
}

fn here(lab: &mut Lab, family: Family, flags: u8) {
    sends(lab, At::From(B), &B.tcp(&A, family, back(ports(0)), flags));
}

pub(crate) fn write(table: &mut Table) {
    opening(table);
    living(table);
    ending(table);
    datagrams(table);
    associations(table);
}

fn opening(table: &mut Table) {
    table.group(
        "TCP: opening",
        "A SYN alone opens. TCP of a connection that is in no table is picked up where both readings of it are allowed: that its \
         sender has opened it, and that its receiver has.",
    );
    table
        .packet("SYN again, before an answer", |scene, family| tcp(scene, family, &[SYN, SYN]))
        .after(|lab, scene, family| sends(lab, scene.at, &scene.from.tcp(&scene.to, family, ports(0), SYN)))
        .fate(&ADMITTING, PASSES);
    table
        .packet("SYN-ACK, and all else of the answer", |scene, family| answers(scene, family, &[SYN | ACK, ACK, ACK]))
        .after(|lab, scene, family| {
            sends(lab, At::From(A), &A.tcp(&scene.from, family, ports(0), SYN));
        })
        .fate(&AGAIN, PASSES);
    table
        .packet("simultaneous open: SYN, SYN-ACK, ACK from the other end", |scene, family| {
            answers(scene, family, &[SYN, SYN | ACK, ACK])
        })
        .after(|lab, scene, family| {
            sends(lab, At::From(A), &A.tcp(&scene.from, family, ports(0), SYN));
        })
        .fate(&AGAIN, PASSES);
    table
        .packet("SYN on an established connection", |scene, family| tcp(scene, family, &[SYN]))
        .after(|lab, _, family| establish(lab, &B, family))
        .fate(&THERE, PASSES);
    let midstream = |scene: &Scene, family| {
        let flags = [ACK, SYN | ACK, FIN | ACK, SYN | FIN, 0, 0x29].into_iter().enumerate();
        flags.map(|(number, flags)| scene.from.tcp(&scene.to, family, ports(number), flags)).collect::<Vec<_>>()
    };
    table
        .packet("from the middle of a connection in no table: after a restart without tables", midstream)
        .fate(&[FREE[0], FREE[1], FREE[2], FREE[3], ADMITTED, OUT, IN], OPENS)
        .fate(&[REFUSED, IN_REFUSED], refused(DefaultDeny, Ingress))
        .fate(&[OUT_REFUSED], refused(DefaultDeny, Egress));
    table
        .packet("the same from a pod that is isolated and may not be connected to", |scene, family| {
            [ACK, SYN | ACK].map(|flags| scene.from.tcp(&scene.to, family, ports(0), flags)).to_vec()
        })
        .after(|lab, _, _| lab.isolate(&A, Direction::Ingress, &[]))
        .fate(&[OPEN.named("pod that admits nobody to open pod")], drops(Midstream));
    table
        .packet("RST of no connection", |scene, family| tcp(scene, family, &[RST, RST | ACK]))
        .fate(&ADMITTING, PASSES)
        .fate(&[REFUSED, IN_REFUSED], refused(DefaultDeny, Ingress))
        .fate(&[OUT_REFUSED], refused(DefaultDeny, Egress));
}

fn living(table: &mut Table) {
    table.group("TCP: established", "Allowed once, and then as long as the rules of both ends stay.");
    table
        .packet("data, both ways", |scene, family| tcp(scene, family, &[ACK, ACK | 0x08]))
        .after(|lab, _, family| establish(lab, &B, family))
        .fate(&THERE, PASSES);
    table
        .packet("answers", |scene, family| answers(scene, family, &[ACK, ACK | 0x08]))
        .after(|lab, scene, family| establish(lab, &scene.from, family))
        .fate(&AGAIN, PASSES);
    table
        .packet("half closed: data of the end that goes on", |scene, family| tcp(scene, family, &[ACK, ACK]))
        .after(|lab, _, family| {
            establish(lab, &B, family);
            here(lab, family, FIN | ACK);
        })
        .fate(&THERE, PASSES);
    table
        .packet("half closed: acknowledgements of the end that has said FIN", |scene, family| {
            answers(scene, family, &[ACK, ACK])
        })
        .after(|lab, scene, family| {
            establish(lab, &scene.from, family);
            sends(lab, scene.at, &scene.from.tcp(&A, family, back(ports(0)), FIN | ACK));
        })
        .fate(&AGAIN, PASSES);
    table
        .packet("data of a connection that a policy has cut", |scene, family| {
            tcp(scene, family, &[ACK, FIN | ACK, RST])
        })
        .after(|lab, _, family| {
            establish(lab, &B, family);
            cut(lab);
            there(lab, family, ACK);
        })
        .fate(&[ADMITTED], refused(PolicyChange, Ingress));
    table
        .packet("SYN of a connection that a policy has cut", |scene, family| tcp(scene, family, &[SYN]))
        .after(|lab, _, family| {
            establish(lab, &B, family);
            cut(lab);
            there(lab, family, ACK);
        })
        .fate(&[ADMITTED], refused(DefaultDeny, Ingress));
}

fn ending(table: &mut Table) {
    table.group(
        "TCP: ending",
        "What comes late still passes; a SYN begins anew, also within TIME_WAIT, if the rules allow it.",
    );
    let closed = |lab: &mut Lab, _: &Scene, family| {
        establish(lab, &B, family);
        there(lab, family, FIN | ACK);
        here(lab, family, FIN | ACK);
    };
    table
        .packet("FIN, RST", |scene, family| tcp(scene, family, &[FIN | ACK, RST]))
        .after(|lab, _, family| establish(lab, &B, family))
        .fate(&THERE, PASSES);
    table
        .packet("FIN, RST of the other end", |scene, family| answers(scene, family, &[FIN | ACK, RST]))
        .after(|lab, scene, family| establish(lab, &scene.from, family))
        .fate(&AGAIN, PASSES);
    table
        .packet("late packets after both FINs", |scene, family| tcp(scene, family, &[ACK, FIN | ACK]))
        .after(closed)
        .fate(&THERE, PASSES);
    table
        .packet("SYN within TIME_WAIT: the ports are used again", |scene, family| tcp(scene, family, &[SYN]))
        .after(closed)
        .fate(&THERE, OPENS.closes(EndReason::Fin));
    table
        .packet("SYN after a RST", |scene, family| tcp(scene, family, &[SYN]))
        .after(|lab, _, family| {
            establish(lab, &B, family);
            here(lab, family, RST);
        })
        .fate(&THERE, OPENS.closes(EndReason::Rst));
    table
        .packet("SYN on a connection that is half closed", |scene, family| tcp(scene, family, &[SYN]))
        .after(|lab, _, family| {
            establish(lab, &B, family);
            there(lab, family, FIN | ACK);
        })
        .fate(&THERE, OPENS.closes(EndReason::Replaced));
    table
        .packet("SYN from the other end within TIME_WAIT", |scene, family| answers(scene, family, &[SYN]))
        .after(|lab, scene, family| {
            let there = At::From(A);
            establish(lab, &scene.from, family);
            sends(lab, there, &A.tcp(&scene.from, family, ports(0), FIN | ACK));
            sends(lab, scene.at, &scene.from.tcp(&A, family, back(ports(0)), FIN | ACK));
        })
        .fate(&AGAIN, refused(DefaultDeny, Ingress).closes(EndReason::Fin));
}

fn datagrams(table: &mut Table) {
    table.group("UDP and echo", "Who was asked may answer, for as long as the question is remembered.");
    table
        .packet("UDP: the answer, and more of them", |scene, family| {
            vec![scene.from.udp(&scene.to, family, back(ports(0))); 3]
        })
        .after(|lab, scene, family| sends(lab, At::From(A), &A.udp(&scene.from, family, ports(0))))
        .fate(&AGAIN, PASSES);
    table
        .packet("UDP: an answer from another port, or to another", |scene, family| {
            vec![scene.from.udp(&scene.to, family, [81, ports(0)[0]]), scene.from.udp(&scene.to, family, [80, 1])]
        })
        .after(|lab, scene, family| sends(lab, At::From(A), &A.udp(&scene.from, family, ports(0))))
        .fate(&AGAIN, refused(DefaultDeny, Ingress));
    table
        .packet("echo reply to a request", |scene, family| vec![scene.from.pong(&scene.to, family, 7); 2])
        .after(|lab, scene, family| sends(lab, At::From(A), &A.ping(&scene.from, family, 7)))
        .fate(&AGAIN, PASSES);
    table
        .packet("echo reply to no request, or to another", |scene, family| {
            [6, 8, 0, 0xffff].map(|number| scene.from.pong(&scene.to, family, number)).to_vec()
        })
        .after(|lab, scene, family| sends(lab, At::From(A), &A.ping(&scene.from, family, 7)))
        .fate(&AGAIN, refused(DefaultDeny, Ingress));
    table
        .packet("echo request from who was asked", |scene, family| vec![scene.from.ping(&scene.to, family, 7)])
        .after(|lab, scene, family| sends(lab, At::From(A), &A.ping(&scene.from, family, 7)))
        .fate(&AGAIN, refused(DefaultDeny, Ingress));
    table
        .packet("UDP that must not be routed any more (TTL 1 and 0): the stack tells the sender", |_, family| {
            [1, 0].map(|ttl| A.udp(&B, family, ports(usize::from(ttl))).ttl(ttl)).to_vec()
        })
        .fate(&THERE, tests::table::TO_STACK.opening());
}

fn associations(table: &mut Table) {
    table.group(
        "SCTP",
        "By the first chunk, which is alone in its packet when it is INIT, INIT ACK or SHUTDOWN COMPLETE (RFC 9260, section 6.10).",
    );
    let chunks = |lab: &mut Lab, scene: &Scene, family, chunks: &[(bool, u8)]| {
        for (initiator, chunk) in chunks {
            if *initiator {
                sends(lab, At::From(A), &A.sctp(&scene.from, family, ports(0), *chunk));
            } else {
                sends(lab, scene.at, &scene.from.sctp(&A, family, back(ports(0)), *chunk));
            }
        }
    };
    let up = [(true, SCTP_INIT), (false, SCTP_INIT_ACK), (true, SCTP_COOKIE_ECHO), (false, 11), (true, SCTP_DATA)];
    let established = move |lab: &mut Lab, scene: &Scene, family| chunks(lab, scene, family, &up);
    let says = |scene: &Scene, family, chunks: &[u8]| -> Vec<tests::packet::Packet> {
        chunks.iter().map(|chunk| scene.from.sctp(&scene.to, family, back(ports(0)), *chunk)).collect()
    };
    table
        .packet("INIT ACK, COOKIE ACK, DATA, HEARTBEAT back", move |scene, family| {
            says(scene, family, &[SCTP_INIT_ACK, 11, SCTP_DATA, 4])
        })
        .after(move |lab, scene, family| chunks(lab, scene, family, &up[..1]))
        .fate(&AGAIN, PASSES);
    table
        .packet("several chunks in a packet: SACK, then DATA twice", |scene, family| {
            let more = [&[0; 12][..], &[0, 3, 0, 16], &[0; 12], &[0, 3, 0, 16], &[0; 12]].concat();
            vec![scene.from.sctp(&scene.to, family, back(ports(0)), 3).payload(&more)]
        })
        .after(established)
        .fate(&AGAIN, PASSES);
    table
        .packet("restart: INIT on an established association (RFC 9260, section 5.2)", move |scene, family| {
            says(scene, family, &[SCTP_INIT, SCTP_COOKIE_ECHO, SCTP_DATA])
        })
        .after(established)
        .fate(&AGAIN, PASSES);
    table
        .packet("SHUTDOWN, SHUTDOWN COMPLETE; ABORT", move |scene, family| {
            says(scene, family, &[SCTP_SHUTDOWN, SCTP_SHUTDOWN_COMPLETE, SCTP_ABORT])
        })
        .after(established)
        .fate(&AGAIN, PASSES);
    table
        .packet("INIT after an ABORT, from the other end", move |scene, family| says(scene, family, &[SCTP_INIT]))
        .after(move |lab, scene, family| {
            chunks(lab, scene, family, &up);
            chunks(lab, scene, family, &[(true, SCTP_ABORT)]);
        })
        .fate(&AGAIN, refused(DefaultDeny, Ingress).closes(EndReason::Rst));
    table
        .packet("INIT after an ABORT, from the same end", |scene, family| {
            vec![scene.from.sctp(&scene.to, family, ports(0), SCTP_INIT)]
        })
        .after(move |lab, _, family| {
            let back = Scene { at: At::From(B), from: B, to: A, ..OPEN };
            chunks(lab, &back, family, &up);
            chunks(lab, &back, family, &[(true, SCTP_ABORT)]);
        })
        .fate(&THERE, OPENS.closes(EndReason::Rst));
}
