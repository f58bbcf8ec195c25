//! Every hard packet in every situation in which it matters, one line each: what becomes of it, why, which
//! counters move and no other, what is recorded. The lines that were proven are `docs/packets.md`.
//!
//! Each module writes the lines about some kinds of packets. What a line cannot say (fields of events, states
//! of connections, sequences) is in the `datapath_*` tests; what needs the kernel's own stack in `e2e_packets`.

mod discovery;
mod errors;
mod fragments;
mod frames;
mod headers;
mod senders;
mod transport;

use std::{fmt::Write as _, path::Path};

use datapath_abi::{policy::Direction, reason::DropReason};
use tests::{
    host::{A, Family, Host},
    lab::{At, Lab},
    packet::{ACK, Packet, SCTP_INIT, SYN},
    scene::{ADMITTED, FIRST, SETS, Scene},
    table::{Table, drops},
};

const HEAD: &str = "\
# What becomes of a packet

Written by the test `packets` (`cargo test -p tests --test packets`), from the lines that it has proven with the real programs
in the kernel (`BPF_PROG_TEST_RUN`): every packet of a line has this verdict, leaves these bytes, moves these counters and
no other, and writes these records and no other. A line that is no longer true fails the test; `UPDATE_GOLDEN=1` writes the
table anew. What takes the kernel's own stack (path MTU discovery, the host's conntrack, segmentation, tags that it keeps beside
the packet) is proven with real sockets: `tests/tests/e2e_packets`. Why it is so: `docs/adr/0012-the-long-way-to-a-header.md`.

* **from, to**: *isolated* is who some policy selects for this direction; *admitted* by rules that name everybody with all
  protocols and ports, so that what is dropped is dropped for what it is. The node's own packets are let in always.
  Words in italics stand for several of these, below.
* **verdict**: *passes*: handed to the pod it is for, routed (addresses of the frame, TTL) and unchanged otherwise, or unchanged
  to the node's stack, if it is for somebody outside. *to the node*: to that stack although it is for a pod or a group.
  *as a plain packet*: as the first table says, counters and records included.
* **reason**: as in records, counters and metrics; with the direction of the policy that has refused, if one has.
* **counters**: by program (`from_pod`: what pods send; `to_pod`: what the node's stack gives to them), and `events_written`.
* **records**: what the flow log gets; dropped ARP is counted alone.

";

/// From a port of its own to the one that services have.
fn ports(number: usize) -> [u16; 2] {
    [41_000 + number as u16, 80]
}

/// The other way.
fn back(ports: [u16; 2]) -> [u16; 2] {
    [ports[1], ports[0]]
}

/// One packet of each protocol that can begin a connection, altered.
fn beginnings(scene: &Scene, family: Family, number: usize, alter: impl Fn(Packet) -> Packet) -> Vec<Packet> {
    let Scene { from, to, .. } = scene;
    [
        from.tcp(to, family, ports(number), SYN),
        from.udp(to, family, ports(number)),
        from.sctp(to, family, ports(number), SCTP_INIT),
        from.ping(to, family, ports(number)[0]),
    ]
    .map(alter)
    .to_vec()
}

/// Opens what the packets of a line belong to: whatever it does on the way is proven by other lines.
fn sends(lab: &mut Lab, at: At, packet: &Packet) {
    lab.send(at, packet).whatever();
}

/// A TCP connection from the pod A, both ends of which have spoken.
fn establish(lab: &mut Lab, to: &Host, family: Family) {
    let (there, answer) = if to.is_local() { (At::From(A), At::From(*to)) } else { (At::From(A), At::To(A, *to)) };
    sends(lab, there, &A.tcp(to, family, ports(0), SYN));
    sends(lab, answer, &to.tcp(&A, family, back(ports(0)), SYN | ACK));
    sends(lab, there, &A.tcp(to, family, ports(0), ACK));
    assert_eq!(lab.sizes(), (1, 0), "it is established");
}

/// Takes B's rules away: it admits nobody any more.
fn cut(lab: &mut Lab) {
    lab.isolate(&tests::host::B, Direction::Ingress, &[]);
}

#[test]
fn the_table_of_packets_is_as_written() {
    let mut table = Table::new();
    let mut head = HEAD.to_owned();
    for (name, scenes) in SETS {
        let who: Vec<&str> = scenes.iter().map(|scene| scene.who).collect();
        let _ = writeln!(head, "* *{name}*: {}.", who.join("; "));
    }
    table.group("Plain packets", "For comparison: the first packet of a connection without anything special about it.");
    table
        .packet("TCP SYN, UDP, SCTP INIT, ICMP echo request", |scene, family| beginnings(scene, family, 0, |it| it))
        .shown(&FIRST);
    headers::write(&mut table);
    fragments::write(&mut table);
    errors::write(&mut table);
    discovery::write(&mut table);
    frames::write(&mut table);
    transport::write(&mut table);
    senders::write(&mut table);
    assert!(table.lines() > 120, "{} lines", table.lines());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/packets.md");
    table.settle(&path, &head).unwrap_or_else(|error| panic!("{error:#}"));
}

/// A line that says something else than what happens is found.
#[test]
#[should_panic(expected = "wanted to be dropped")]
fn a_wrong_line_fails() {
    let mut table = Table::new();
    table.group("Wrong", "On purpose.");
    table
        .packet("UDP", |scene, family| beginnings(scene, family, 0, |it| it))
        .fate(&[ADMITTED], drops(DropReason::Multicast));
}

/// A table that is not what was proven is found, and the line told.
#[test]
fn a_stale_table_fails() {
    let mut table = Table::new();
    table.group("Plain", "Alone.");
    table.packet("UDP", |scene, family| vec![scene.from.udp(&scene.to, family, ports(0))]).usual(&[ADMITTED]);
    let path = std::env::temp_dir().join(format!("bulkhead-table-{}", std::process::id()));
    std::fs::write(&path, "# another head\n").unwrap();
    let settled = table.settle(&path, "# head\n");
    std::fs::remove_file(&path).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_none() {
        let error = settled.unwrap_err().to_string();
        assert!(error.contains("stale at line 1") && error.contains("proven: # head"), "{error}");
    }
}
