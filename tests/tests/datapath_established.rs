//! Connections that are allowed: from the first packet to the table of established ones.

use datapath_abi::maps;
use tests::{
    host::{A, B, FAMILIES},
    lab::{At, Lab},
    packet::{ACK, SYN},
};

#[test]
fn tcp_between_open_pods_is_promoted_when_its_handshake_is_done() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.tcp(&B, family, [40000, 80], SYN)).reaches(&B).opens();
        assert_eq!(lab.sizes(), (0, 1));
        lab.send(At::From(B), &B.tcp(&A, family, [80, 40000], SYN | ACK)).reaches(&A);
        assert_eq!(lab.sizes(), (0, 1));
        lab.send(At::From(A), &A.tcp(&B, family, [40000, 80], ACK)).reaches(&B);
        assert_eq!(lab.sizes(), (1, 0));
        lab.send(At::From(A), &A.tcp(&B, family, [40000, 80], ACK)).reaches(&B);
        lab.send(At::From(B), &B.tcp(&A, family, [80, 40000], ACK)).reaches(&A);
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!(entry.packets, [3, 2]);
    }
}
