//! Connections that are allowed: from the first packet to the table of established ones, in
//! both directions, for every protocol that has states.

use datapath_abi::{
    conntrack::{CtState, FLAG_INITIATOR_HIGH, FLAG_MIDSTREAM, FLAG_VIA_STACK, Tally, owner},
    event::EventKind,
    identity, maps,
    policy::Direction,
};
use tests::{
    host::{A, B, C, FAMILIES, Family, NODE, WORLD},
    lab::{At, Lab},
    packet::{
        ACK, FIN, RST, SCTP_ABORT, SCTP_COOKIE_ECHO, SCTP_DATA, SCTP_INIT, SCTP_INIT_ACK, SCTP_SHUTDOWN,
        SCTP_SHUTDOWN_COMPLETE, SYN,
    },
    rules::{Rule, allow},
};

const PORTS: [u16; 2] = [40_000, 80];
const BACK: [u16; 2] = [80, 40_000];

#[test]
fn tcp_between_pods_is_promoted_when_its_handshake_is_done() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN)).reaches(&B).opens().with(|event| {
            assert_eq!(event.identity, [A.identity, B.identity]);
            assert_eq!(event.slot, [A.slot, B.slot]);
            assert_eq!(event.cookie, [0, 0]);
            assert_eq!(event.reply, 0);
        });
        let (key, entry) = lab.connection(maps::PENDING);
        assert_eq!(entry.state, CtState::New as u8);
        assert_eq!(entry.packets(), [1, 0]);
        assert_eq!(entry.rtt_us, 0);
        lab.send(At::From(B), &B.tcp(&A, family, BACK, SYN | ACK)).reaches(&A);
        assert_eq!(lab.connection(maps::PENDING).1.state, CtState::SynReceived as u8);
        assert_eq!(lab.sizes(), (0, 1), "a handshake that is half done stays among the pending");
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).reaches(&B);
        assert_eq!(lab.sizes(), (1, 0), "promoted");
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).reaches(&B);
        lab.send(At::From(B), &B.tcp(&A, family, BACK, ACK)).reaches(&A);

        let (after_key, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!(key, after_key);
        assert_eq!(entry.state, CtState::Established as u8);
        assert_eq!(entry.packets(), [3, 2]);
        let bytes = |packet: &tests::packet::Packet| packet.bytes().len() as u64 - 14;
        let one = bytes(&A.tcp(&B, family, PORTS, SYN));
        assert_eq!(entry.bytes(), [3 * one, 2 * one]);
        assert_eq!(entry.tcp_flags, [SYN | ACK, SYN | ACK]);
        assert_eq!(entry.ends.slot, [A.slot, B.slot]);
        assert_eq!(entry.ends.ifindex, [A.ifindex, B.ifindex]);
        assert_eq!(entry.ends.identity, [A.identity, B.identity]);
        assert_eq!(entry.flags, 0);
        assert!(entry.created_ns > 0 && entry.reported_ns == 0);
    }
}

#[test]
fn the_greater_end_may_begin_as_well() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(B), &B.tcp(&A, family, PORTS, SYN)).reaches(&A).opens();
        lab.send(At::From(A), &A.tcp(&B, family, BACK, SYN | ACK)).reaches(&B);
        lab.send(At::From(B), &B.tcp(&A, family, PORTS, ACK)).reaches(&A);
        let (key, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!(entry.flags, FLAG_INITIATOR_HIGH);
        assert_eq!(key.port, [80, 40_000], "ports in the order of the addresses");
        assert_eq!(entry.ends.identity, [B.identity, A.identity], "initiator first");
        assert_eq!(entry.packets(), [2, 1]);
    }
}

#[test]
fn established_under_policy_of_both_ends_passes_both_ways() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&A, Direction::Egress, &[Rule::identity(B.identity, allow(1, 1))]);
        lab.isolate(&B, Direction::Ingress, &[Rule::identity(A.identity, allow(2, 1))]);
        // Nobody may open a connection to A, and B may open none: replies pass all the same.
        lab.isolate(&A, Direction::Ingress, &[]);
        lab.isolate(&B, Direction::Egress, &[]);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN)).reaches(&B).opens().with(|event| {
            assert_eq!(event.cookie, [1, 2]);
        });
        lab.send(At::From(B), &B.tcp(&A, family, BACK, SYN | ACK)).reaches(&A);
        for _ in 0..3 {
            lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).reaches(&B);
            lab.send(At::From(B), &B.tcp(&A, family, BACK, ACK)).reaches(&A);
        }
        assert_eq!(lab.sizes(), (1, 0));
        assert_eq!(lab.connection(maps::CONNTRACK).1.ends.cookie, [1, 2]);
    }
}

#[test]
fn a_pod_and_the_outside_talk_through_the_hosts_stack() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.tcp(&WORLD, family, PORTS, SYN)).passes().opens().with(|event| {
            assert_eq!(event.identity, [A.identity, identity::WORLD]);
            assert_eq!(event.slot, [A.slot, 0]);
        });
        lab.send(At::To(A, WORLD), &WORLD.tcp(&A, family, BACK, SYN | ACK)).passes();
        lab.send(At::From(A), &A.tcp(&WORLD, family, PORTS, ACK)).passes();
        lab.send(At::To(A, WORLD), &WORLD.tcp(&A, family, BACK, ACK)).passes();
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!((entry.packets(), entry.flags & FLAG_VIA_STACK), ([2, 2], 0));
        assert_eq!(entry.ends.rules[1], 0, "the world has no rules");
    }
}

#[test]
fn what_begins_outside_goes_back_through_the_hosts_stack() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::To(A, WORLD), &WORLD.tcp(&A, family, PORTS, SYN)).passes().opens();
        lab.send(At::From(A), &A.tcp(&WORLD, family, BACK, SYN | ACK)).passes();
        lab.send(At::To(A, WORLD), &WORLD.tcp(&A, family, PORTS, ACK)).passes();
        lab.send(At::From(A), &A.tcp(&WORLD, family, BACK, ACK)).passes();
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_ne!(entry.flags & FLAG_VIA_STACK, 0);
        assert_eq!(entry.packets(), [2, 2]);
    }
}

/// As kube-proxy makes it: the first packet was rewritten by the host's stack, and so must be
/// the answers: they may not take the short way past it.
#[test]
fn a_pod_reached_through_the_stack_answers_through_the_stack() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::To(B, A), &A.tcp(&B, family, PORTS, SYN)).passes().opens();
        lab.send(At::From(B), &B.tcp(&A, family, BACK, SYN | ACK)).passes();
        lab.send(At::To(B, A), &A.tcp(&B, family, PORTS, ACK)).passes();
        lab.send(At::From(B), &B.tcp(&A, family, BACK, ACK)).passes();
        lab.send(At::To(B, A), &A.tcp(&B, family, PORTS, ACK)).passes();
        assert_eq!(lab.connection(maps::CONNTRACK).1.packets(), [3, 2]);
    }
}

#[test]
fn udp_is_established_when_the_initiator_speaks_again_after_an_answer() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        let (there, back) = (A.udp(&B, family, [5353, 53]), B.udp(&A, family, [53, 5353]));
        lab.send(At::From(A), &there).reaches(&B).opens();
        lab.send(At::From(A), &there).reaches(&B);
        assert_eq!(lab.connection(maps::PENDING).1.state, CtState::New as u8);
        lab.send(At::From(B), &back).reaches(&A);
        lab.send(At::From(B), &back).reaches(&A);
        assert_eq!(lab.connection(maps::PENDING).1.state, CtState::SynReceived as u8);
        lab.send(At::From(A), &there).reaches(&B);
        assert_eq!(lab.connection(maps::CONNTRACK).1.state, CtState::Established as u8);
        lab.send(At::From(B), &back).reaches(&A);
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!((entry.packets(), entry.tcp_flags), ([3, 3], [0, 0]));
    }
}

/// RFC 9260, section 8.5: whoever does not see an association does not know its tags.
#[test]
fn an_sctp_association_is_ended_by_who_knows_its_tag() {
    // To A, to B.
    let tags = [0x0a0a_0a0a, 0x0b0b_0b0b];
    for family in FAMILIES {
        for (chunk, after) in [
            (SCTP_SHUTDOWN, CtState::Closing),
            (SCTP_ABORT, CtState::Reset),
            (SCTP_SHUTDOWN_COMPLETE, CtState::TimeWait),
        ] {
            // From A, from B; with the T bit the tag is the sender's own.
            for (side, reflected) in [(0, false), (1, false), (0, true), (1, true)] {
                if reflected && chunk == SCTP_SHUTDOWN {
                    continue;
                }
                let mut lab = Lab::new();
                let there = |chunk| A.sctp(&B, family, PORTS, chunk).tags(tags[1], tags[0]);
                let back = |chunk| B.sctp(&A, family, BACK, chunk).tags(tags[0], tags[1]);
                lab.send(At::From(A), &there(SCTP_INIT)).reaches(&B).opens();
                // An INIT ACK that answers another INIT sets no tag.
                lab.send(At::From(B), &back(SCTP_INIT_ACK).tags(1, 2)).reaches(&A);
                lab.send(At::From(B), &back(SCTP_INIT_ACK)).reaches(&A);
                lab.send(At::From(A), &there(SCTP_COOKIE_ECHO)).reaches(&B);
                lab.send(At::From(B), &back(SCTP_DATA)).reaches(&A);
                let send = |lab: &mut Lab, tag: u32| {
                    let flags = u8::from(reflected);
                    if side == 0 {
                        lab.send(At::From(A), &there(chunk).tags(tag, 0).chunk_flags(flags)).reaches(&B);
                    } else {
                        lab.send(At::From(B), &back(chunk).tags(tag, 0).chunk_flags(flags)).reaches(&A);
                    }
                    lab.connection(maps::CONNTRACK).1.state
                };
                let right = if (side == 0) != reflected { tags[1] } else { tags[0] };
                for wrong in [0, 1, tags[0] ^ tags[1] ^ right, right.swap_bytes().wrapping_add(1)] {
                    let state = send(&mut lab, wrong);
                    assert_eq!(state, CtState::Established as u8, "chunk {chunk} of side {side} with tag {wrong:#x}");
                }
                assert_eq!(send(&mut lab, right), after as u8, "chunk {chunk} of side {side}");
            }
        }
    }
}

/// One CPU counts without a lock, all others with one: each in a place of its own, and nothing is lost.
#[test]
fn packets_are_counted_by_the_cpu_that_began_and_by_others() {
    let cpus = rustix::thread::sched_getaffinity(None).expect("the CPUs we may use");
    let usable: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu)).take(2).collect();
    let [first, second] = usable[..] else { panic!("needs two CPUs, has {usable:?}") };
    let pin = |cpu: usize| {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set).expect("this CPU may be used");
    };
    for family in FAMILIES {
        let mut lab = Lab::new();
        // From the outside, so that the program leaves the packets as they are and can run on them again.
        let (there, back) = (At::To(B, WORLD), At::From(B));
        let (ask, answer) = (WORLD.tcp(&B, family, PORTS, ACK), B.tcp(&WORLD, family, BACK, ACK));
        pin(first);
        lab.send(there, &WORLD.tcp(&B, family, PORTS, SYN)).passes().opens();
        pin(second);
        lab.send(back, &B.tcp(&WORLD, family, BACK, SYN | ACK)).passes();
        lab.send(there, &ask).passes();
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!(entry.owner, [first, second].map(|cpu| owner(cpu as u32)));
        assert_eq!((entry.own, entry.packets()), ([Tally::default(); 2], [2, 1]), "before it was established");

        pin(first);
        lab.send(there, &ask).passes();
        lab.send(back, &answer).passes();
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!(entry.own.map(|tally| tally.packets), [1, 0]);
        assert_eq!(entry.shared.map(|tally| tally.packets), [2, 2]);
        assert_eq!(entry.packets(), [3, 2]);

        const EACH: u32 = 300_000;
        let (ask, answer) = (ask.bytes(), answer.bytes());
        std::thread::scope(|scope| {
            for cpu in [first, second] {
                let (programs, ask, answer) = (&lab.programs, &ask, &answer);
                scope.spawn(move || {
                    pin(cpu);
                    for (at, bytes) in [(there, ask), (back, answer)] {
                        programs.run(at.program(), bytes, at.context(), EACH).expect("the program runs");
                    }
                });
            }
        });
        let (_, entry) = lab.connection(maps::CONNTRACK);
        let all = u64::from(EACH);
        assert_eq!(entry.own.map(|tally| tally.packets), [1 + all, all]);
        assert_eq!(entry.shared.map(|tally| tally.packets), [2 + all, 2 + all]);
        let length = ask.len() as u64 - 14;
        assert_eq!(entry.bytes(), entry.packets().map(|packets| packets * length));
    }
    rustix::thread::sched_setaffinity(None, &cpus).expect("as before");
}

/// The first that is seen of a connection is one half's end.
#[test]
fn a_fin_from_the_middle_closes_its_half_at_once() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, FIN | ACK)).reaches(&B).opens();
        let (_, entry) = lab.connection(maps::PENDING);
        assert_eq!((entry.state, entry.flags & FLAG_MIDSTREAM), (CtState::Closing as u8, FLAG_MIDSTREAM));
        lab.send(At::From(B), &B.tcp(&A, family, BACK, ACK)).reaches(&A);
        assert_eq!(lab.connection(maps::PENDING).1.state, CtState::Closing as u8, "half closed");
        lab.send(At::From(B), &B.tcp(&A, family, BACK, FIN | ACK)).reaches(&A);
        assert_eq!(lab.connection(maps::PENDING).1.state, CtState::TimeWait as u8);
    }
}

#[test]
fn sctp_follows_its_handshake() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.sctp(&B, family, PORTS, SCTP_INIT)).reaches(&B).opens();
        lab.send(At::From(B), &B.sctp(&A, family, BACK, SCTP_INIT_ACK)).reaches(&A);
        lab.send(At::From(A), &A.sctp(&B, family, PORTS, SCTP_COOKIE_ECHO)).reaches(&B);
        assert_eq!(lab.connection(maps::CONNTRACK).1.state, CtState::Established as u8);
        lab.send(At::From(B), &B.sctp(&A, family, BACK, SCTP_DATA)).reaches(&A);
        assert_eq!(lab.connection(maps::CONNTRACK).1.packets(), [2, 2]);
    }
}

#[test]
fn echo_requests_and_their_answers_are_one_connection() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&A, Direction::Ingress, &[]);
        lab.send(At::From(A), &A.ping(&B, family, 7)).reaches(&B).opens();
        lab.send(At::From(B), &B.pong(&A, family, 7)).reaches(&A);
        lab.send(At::From(A), &A.ping(&B, family, 7)).reaches(&B);
        lab.send(At::From(B), &B.pong(&A, family, 7)).reaches(&A);
        assert_eq!(lab.connection(maps::CONNTRACK).1.packets(), [2, 2]);
        // Another identifier is another one.
        lab.send(At::From(A), &A.ping(&B, family, 8)).reaches(&B).opens();
        assert_eq!(lab.sizes(), (1, 1));
    }
}

/// B must not reach A, which is isolated, by asking with the number that A asks with.
#[test]
fn an_echo_request_is_no_answer_to_one() {
    use datapath_abi::reason::DropReason;
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.isolate(&A, Direction::Ingress, &[]);
        lab.send(At::From(A), &A.ping(&B, family, 7)).reaches(&B).opens();
        let forbidden = B.ping(&A, family, 7);
        lab.send(At::From(B), &forbidden).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
        lab.send(At::From(B), &B.pong(&A, family, 7)).reaches(&A);
        lab.send(At::From(A), &A.ping(&B, family, 7)).reaches(&B);
        assert_eq!(lab.sizes(), (1, 0));
        lab.send(At::From(B), &forbidden).drops(DropReason::DefaultDeny, Some(Direction::Ingress));
    }
}

#[test]
fn a_tcp_connection_runs_to_its_end() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        establish(&mut lab, family);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, FIN | ACK)).reaches(&B);
        assert_eq!(lab.connection(maps::CONNTRACK).1.state, CtState::Closing as u8);
        // The other end may still send for as long as it likes.
        lab.send(At::From(B), &B.tcp(&A, family, BACK, ACK)).reaches(&A);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).reaches(&B);
        assert_eq!(lab.connection(maps::CONNTRACK).1.state, CtState::Closing as u8);
        lab.send(At::From(B), &B.tcp(&A, family, BACK, FIN | ACK)).reaches(&A);
        assert_eq!(lab.connection(maps::CONNTRACK).1.state, CtState::TimeWait as u8);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).reaches(&B);
        let (_, entry) = lab.connection(maps::CONNTRACK);
        assert_eq!(entry.state, CtState::TimeWait as u8);
        assert_eq!(entry.tcp_flags, [SYN | ACK | FIN, SYN | ACK | FIN]);
    }
}

#[test]
fn ports_of_a_closed_connection_may_be_used_again() {
    use datapath_abi::event::EndReason;
    for (last, end) in [(FIN, EndReason::Fin), (RST, EndReason::Rst)] {
        let mut lab = Lab::new();
        establish(&mut lab, Family::V4);
        lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, last | ACK)).reaches(&B);
        if last == FIN {
            lab.send(At::From(B), &B.tcp(&A, Family::V4, BACK, FIN | ACK)).reaches(&A);
        }
        lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, SYN))
            .reaches(&B)
            .closes(end)
            .with(|event| {
                assert_eq!(event.packets[0], 3);
                assert_ne!(event.tcp_flags[0] & last, 0);
            })
            .opens();
        assert_eq!(lab.sizes(), (0, 1));
        assert_eq!(lab.connection(maps::PENDING).1.packets(), [1, 0]);
    }
    // Half closed: the client has restarted and begins anew.
    let mut lab = Lab::new();
    establish(&mut lab, Family::V4);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, FIN | ACK)).reaches(&B);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, SYN)).reaches(&B).closes(EndReason::Replaced).opens();
    // From the other end as well.
    let mut lab = Lab::new();
    establish(&mut lab, Family::V4);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, RST)).reaches(&B);
    lab.send(At::From(B), &B.tcp(&A, Family::V4, BACK, SYN)).reaches(&A).closes(EndReason::Rst).opens();
    assert_eq!(lab.connection(maps::PENDING).1.ends.identity, [B.identity, A.identity]);
}

#[test]
fn a_syn_again_changes_nothing_about_a_living_connection() {
    let mut lab = Lab::new();
    establish(&mut lab, Family::V4);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, SYN)).reaches(&B);
    assert_eq!(lab.connection(maps::CONNTRACK).1.state, CtState::Established as u8);
}

/// Packets that are read by the long way find their connection as well, also those that could be the first of one.
#[test]
fn a_syn_behind_options_meets_what_its_ports_have_had() {
    use datapath_abi::event::EndReason;
    for family in FAMILIES {
        let long = |flags| {
            let plain = A.tcp(&B, family, PORTS, flags);
            if family == Family::V4 { plain.options(&[1; 4]) } else { plain.extension(60, &[0, 1, 4, 0, 0, 0, 0]) }
        };
        let mut lab = Lab::new();
        establish(&mut lab, family);
        lab.send(At::From(A), &long(SYN)).reaches(&B);
        assert_eq!(lab.sizes(), (1, 0), "a living connection's SYN again");
        lab.send(At::From(A), &long(FIN | ACK)).reaches(&B);
        lab.send(At::From(A), &long(SYN)).reaches(&B).closes(EndReason::Replaced).opens();
        assert_eq!(lab.sizes(), (0, 1));
        assert_eq!(lab.connection(maps::PENDING).1.packets(), [1, 0]);
    }
}

#[test]
fn both_ends_may_open_at_once() {
    let mut lab = Lab::new();
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, SYN)).reaches(&B).opens();
    lab.send(At::From(B), &B.tcp(&A, Family::V4, BACK, SYN)).reaches(&A);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, SYN | ACK)).reaches(&B);
    lab.send(At::From(B), &B.tcp(&A, Family::V4, BACK, SYN | ACK)).reaches(&A);
    assert_eq!(lab.connection(maps::CONNTRACK).1.state, CtState::Established as u8);
}

#[test]
fn a_connection_is_picked_up_in_its_middle() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).reaches(&B).opens().with(|event| {
            assert_eq!(event.kind, EventKind::Opened as u8);
        });
        assert_ne!(lab.connection(maps::PENDING).1.flags & FLAG_MIDSTREAM, 0);
        lab.send(At::From(B), &B.tcp(&A, family, BACK, ACK)).reaches(&A);
        lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).reaches(&B);
        assert_eq!(lab.sizes(), (1, 0));
    }
}

/// It passes if the rules say so, and is no connection.
#[test]
fn a_stray_reset_opens_nothing() {
    let mut lab = Lab::new();
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, RST)).reaches(&B);
    lab.send(At::From(A), &A.tcp(&B, Family::V4, PORTS, RST | ACK)).reaches(&B);
    assert_eq!(lab.sizes(), (0, 0));
}

#[test]
fn a_pod_may_talk_to_itself() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.tcp(&A, family, PORTS, SYN)).reaches(&A).opens();
        lab.send(At::From(A), &A.tcp(&A, family, BACK, SYN | ACK)).reaches(&A);
        lab.send(At::From(A), &A.tcp(&A, family, PORTS, ACK)).reaches(&A);
        assert_eq!(lab.connection(maps::CONNTRACK).1.packets(), [2, 1]);
    }
}

#[test]
fn a_packet_at_the_end_of_its_life_goes_to_the_stack_which_tells_the_sender() {
    for family in FAMILIES {
        for ttl in [0, 1] {
            let mut lab = Lab::new();
            lab.send(At::From(A), &A.udp(&B, family, PORTS).ttl(ttl)).passes().opens();
        }
        let mut lab = Lab::new();
        lab.send(At::From(A), &A.udp(&B, family, PORTS).ttl(2)).reaches(&B).opens();
    }
}

#[test]
fn the_node_reaches_its_pods_and_gets_answers() {
    for family in FAMILIES {
        let mut lab = Lab::new();
        for pod in [A, B] {
            lab.isolate(&pod, Direction::Ingress, &[]);
            lab.isolate(&pod, Direction::Egress, &[]);
            lab.send(At::To(pod, NODE), &NODE.tcp(&pod, family, PORTS, SYN)).passes().opens().with(|event| {
                assert_eq!(event.identity, [identity::HOST, pod.identity]);
                assert_eq!(event.cookie, [0, 0]);
            });
            lab.send(At::From(pod), &pod.tcp(&NODE, family, BACK, SYN | ACK)).passes();
            lab.send(At::To(pod, NODE), &NODE.tcp(&pod, family, PORTS, ACK)).passes();
            lab.send(At::From(pod), &pod.tcp(&NODE, family, BACK, ACK)).passes();
        }
        assert_eq!(lab.sizes(), (2, 0));
    }
}

/// Whatever address a process of the node uses: it is the node (promise 8).
#[test]
fn the_node_is_known_by_where_it_sends_from_not_by_address() {
    let mut lab = Lab::new();
    lab.isolate(&B, Direction::Ingress, &[]);
    for host in [WORLD, A, C] {
        lab.send(At::To(B, NODE), &host.udp(&B, Family::V4, PORTS)).passes().opens().with(|event| {
            assert_eq!(event.identity[0], identity::HOST);
        });
    }
}

fn establish(lab: &mut Lab, family: Family) {
    lab.send(At::From(A), &A.tcp(&B, family, PORTS, SYN)).reaches(&B).opens();
    lab.send(At::From(B), &B.tcp(&A, family, BACK, SYN | ACK)).reaches(&A);
    lab.send(At::From(A), &A.tcp(&B, family, PORTS, ACK)).reaches(&B);
    assert_eq!(lab.sizes(), (1, 0));
}
