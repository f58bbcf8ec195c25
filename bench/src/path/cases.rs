//! What is measured, and how to tell that it was this that was measured.

use anyhow::ensure;
use datapath_abi::{
    addr::Addr,
    conntrack::CtKey,
    endpoint::HOST_MAC,
    event::{EventKind, Hook},
    maps::Scalar,
    reason::DropReason,
};
use tests::{
    count::{Change, Count},
    host::{A, B, C, Family, Host, SERVICE, WORLD},
    packet::{ACK, Packet, SYN, TCP, diff, routed},
    prog::{Context, Programs, Ran},
    seen::{NEXT, REDIRECT, SHOT},
};

use super::{
    FEW, MANY, Scenes,
    scene::{CLOSED_PORT, NEW_PORT, OPEN_PORT, Scene, place},
    wrapper::{self, Wrapper},
};

/// Source port of what is established.
const CLIENT: u16 = 40_000;
/// Events that the ring buffer takes without a reader, with a margin.
const RING: u32 = 16_384;
/// Connections of the crowded scene, a power of two.
pub(crate) const CROWD: u32 = 1 << 20;
/// Bits of the destination that vary among them: 65,536 ports for each.
const CROWD_MASK: u32 = CROWD / 65_536 - 1;
/// Connections at a time that wait for an answer.
const PENDING: u32 = 256;

/// What happens to events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// None is written.
    Unused,
    /// One for each run; the ring buffer is emptied between batches, so that none is lost.
    Drained,
    /// One for each run, and all are lost.
    Full,
}

/// Which node a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// With few rules and identities.
    Few,
    /// With many.
    Many,
    /// With many, and a million established connections.
    Crowded,
    /// With few, where a pod that is no end of the packet has staged policies.
    StagedElsewhere,
    /// With few, where both ends have staged policies.
    Staged,
}

impl Node {
    /// One with so many rules, and nothing special about it.
    fn with(rules: u32) -> Self {
        if rules == FEW { Self::Few } else { Self::Many }
    }
}

/// One thing that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// For people.
    pub(crate) name: String,
    /// For programs: stable.
    pub(crate) id: String,
    /// Rules and identities; `None` for what does not look at them.
    pub(crate) rules: Option<u32>,
    /// Program in front.
    pub(crate) wrapper: &'static str,
    /// Program that is measured.
    pub(crate) program: &'static str,
    /// The packet.
    pub(crate) packet: Vec<u8>,
    /// Where it is.
    pub(crate) context: Context,
    /// Bits of the destination that vary.
    pub(crate) mask: u64,
    /// What happens to events.
    pub(crate) ring: Ring,
    /// Most runs at a time.
    pub(crate) batch: u32,
    /// Where it runs.
    pub(crate) node: Node,
    /// Whether connections without an answer are forgotten between batches, so that there is
    /// room for new ones. If not, each new one has to push an old one out.
    pub(crate) room: bool,
    verdict: i32,
    /// What the packet must look like afterwards, if it is the same for every run.
    after: Option<Vec<u8>>,
    counts: Vec<Count>,
    event: Option<EventKind>,
}

impl Case {
    /// Whether the last runs did what the name says.
    pub(crate) fn check(&self, ran: &Ran, change: &Change, programs: &mut Programs, repeat: u32) -> anyhow::Result<()> {
        ensure!(ran.verdict == self.verdict, "verdict {}, wanted {}", ran.verdict, self.verdict);
        if let Some(after) = &self.after {
            ensure!(&ran.bytes == after, "another packet than expected:\n{}", diff(after, &ran.bytes));
        }
        for (count, moved) in change.moved() {
            ensure!(self.counts.contains(&count), "{count:?} moved by {}", moved.packets);
        }
        for count in &self.counts {
            let moved = change.of(*count);
            ensure!(moved == u64::from(repeat), "{count:?} moved by {moved} in {repeat} runs");
        }
        if self.ring == Ring::Drained {
            let wanted = self.event.map(|kind| kind as u8);
            let events = programs.events();
            let right = events.iter().filter(|event| Some(event.kind) == wanted).count();
            ensure!(right == repeat as usize, "{right} events of {wanted:?} in {repeat} runs");
        }
        Ok(())
    }

    fn of(name: &str, id: &str, program: &'static str, packet: &Packet) -> Self {
        Self {
            name: name.to_owned(),
            id: id.to_owned(),
            rules: None,
            wrapper: wrapper::RESTORE,
            program,
            packet: packet.bytes(),
            context: Context::default(),
            mask: 0,
            ring: Ring::Unused,
            batch: u32::MAX,
            node: Node::Many,
            room: false,
            verdict: NEXT,
            after: Some(packet.bytes()),
            counts: Vec::new(),
            event: None,
        }
    }

    /// A packet of a connection that is established.
    fn established(name: &str, id: &str, from: Host, to: Host, family: Family, port: [u16; 2]) -> Self {
        let packet = tcp(from, to, family, port, ACK);
        let at = place(from, to);
        let delivered = from.is_local() && to.is_local();
        Self {
            rules: Some(MANY),
            context: at.context(),
            verdict: if delivered { REDIRECT } else { NEXT },
            after: Some(if delivered { routed(&packet.bytes(), HOST_MAC, to.mac) } else { packet.bytes() }),
            counts: vec![Count::Passed(at.hook())],
            ..Self::of(name, id, at.program(), &packet)
        }
    }

    /// A packet that opens a connection, another one in each run.
    fn first(name: &str, id: &str, from: Host, to: Host, family: Family, rules: u32, mask: u64) -> Self {
        let packet = tcp(from, to, family, [1, NEW_PORT], SYN);
        let at = place(from, to);
        Self {
            name: format!("{name}, {rules} rules"),
            id: format!("{id}_{rules}"),
            rules: Some(rules),
            node: Node::with(rules),
            wrapper: if family == Family::V4 { wrapper::VARY4 } else { wrapper::VARY6 },
            context: at.context(),
            mask,
            ring: Ring::Drained,
            batch: PENDING,
            room: true,
            verdict: if to.is_local() { REDIRECT } else { NEXT },
            // Ports are others in each run.
            after: None,
            counts: vec![Count::Passed(at.hook()), Count::Scalar(Scalar::EventsWritten)],
            event: Some(EventKind::Opened),
            ..Self::of(name, id, at.program(), &packet)
        }
    }

    /// A packet that policy denies.
    fn denied(name: &str, id: &str, from: Host, to: Host, port: u16, rules: u32, ring: Ring) -> Self {
        let packet = tcp(from, to, Family::V4, [CLIENT, port], SYN);
        let at = place(from, to);
        let event = if ring == Ring::Full { Scalar::EventsLost } else { Scalar::EventsWritten };
        Self {
            name: format!("{name}, {rules} rules"),
            id: format!("{id}_{rules}"),
            rules: Some(rules),
            node: Node::with(rules),
            context: at.context(),
            ring,
            batch: if ring == Ring::Full { u32::MAX } else { RING },
            verdict: SHOT,
            counts: vec![Count::Dropped(Hook::FromPod, DropReason::DefaultDeny), Count::Scalar(event)],
            event: Some(EventKind::Dropped),
            ..Self::of(name, id, at.program(), &packet)
        }
    }
}

fn tcp(from: Host, to: Host, family: Family, port: [u16; 2], flags: u8) -> Packet {
    from.tcp(&to, family, port, flags).payload(&[0x42; 32])
}

/// Every case, with what it needs already there.
pub(crate) fn all(wrapper: &mut Wrapper, scenes: &mut Scenes) -> anyhow::Result<Vec<Case>> {
    let Scenes { few, many, crowded, staged_elsewhere, staged } = scenes;
    let (v4, v6) = (Family::V4, Family::V6);
    let there = [CLIENT, OPEN_PORT];
    let back = [OPEN_PORT, CLIENT];
    let mut cases = Vec::new();

    for family in [v4, v6] {
        let packet = tcp(A, B, family, there, ACK);
        let addr = packet.addr.map(Addr::from);
        wrapper.know(CtKey { addr, port: there, proto: packet.proto(), pad: [0; 3] })?;
        many.establish(A, B, family, there)?;
    }
    many.establish(C, WORLD, v4, there)?;
    many.establish(WORLD, C, v4, [CLIENT, 8080])?;

    cases.push(Case::of("floor, IPv4", "floor_v4", wrapper::FLOOR, &tcp(A, B, v4, there, ACK)));
    cases.push(Case::of("floor, IPv6", "floor_v6", wrapper::FLOOR, &tcp(A, B, v6, there, ACK)));
    cases.push(Case::of(
        "floor with a key for IPv4 alone",
        "floor_v4_only",
        wrapper::FLOOR4,
        &tcp(A, B, v4, there, ACK),
    ));
    for (family, text, id) in [(v4, "IPv4", "v4"), (v6, "IPv6", "v6")] {
        cases.push(Case::established(
            &format!("established, original, {text}"),
            &format!("established_original_{id}"),
            A,
            B,
            family,
            there,
        ));
        cases.push(Case::established(
            &format!("established, reply, {text}"),
            &format!("established_reply_{id}"),
            B,
            A,
            family,
            back,
        ));
    }
    cases.push(Case::established("established, pod to the outside", "established_out_v4", C, WORLD, v4, there));
    cases.push(Case::established("established, outside to pod", "established_in_v4", WORLD, C, v4, [CLIENT, 8080]));
    let far = many.peer(0);
    let packet = tcp(A, far, v4, there, ACK);
    many.put_established(&A, &far, &packet)?;
    cases.push(Case::established("established, counted by another CPU", "established_shared_v4", A, far, v4, there));
    for scene in [&*few, &*many] {
        let rules = if scene.spread() > 100 { MANY } else { FEW };
        let remote = scene.peer(0);
        let spread = scene.spread();
        cases.push(Case::first("first, allowed, IPv4", "first_v4", A, B, v4, rules, 0));
        cases.push(Case::first("first, allowed, IPv6", "first_v6", A, B, v6, rules, 0));
        cases.push(Case::first("first, allowed, all peers in turn", "first_spread_v4", A, remote, v4, rules, spread));
        cases.push(Case::denied("denied at ingress", "denied_ingress", C, B, OPEN_PORT, rules, Ring::Drained));
        cases.push(Case::denied("denied at egress", "denied_egress", A, B, CLOSED_PORT, rules, Ring::Drained));
    }
    cases.push(Case {
        room: false,
        ..Case::first("first, allowed, in a flood of such", "first_flood_v4", A, B, v4, MANY, 0)
    });
    cases.push(Case::denied(
        "denied at ingress, ring buffer full",
        "denied_ingress_lost",
        C,
        B,
        OPEN_PORT,
        MANY,
        Ring::Full,
    ));
    staging(staged_elsewhere, staged, &mut cases)?;
    services(many, &mut cases)?;
    cold(wrapper, crowded, &mut cases)?;
    Ok(cases)
}

/// What staged policies cost, to those whom they concern and to others: beside the same cases with few rules.
fn staging(elsewhere: &mut Scene, staged: &mut Scene, cases: &mut Vec<Case>) -> anyhow::Result<()> {
    for (scene, node, text, id) in [
        (elsewhere, Node::StagedElsewhere, "staged policies of others", "staged_elsewhere"),
        (staged, Node::Staged, "staged policies of both ends", "staged"),
    ] {
        let there = [CLIENT, OPEN_PORT];
        scene.establish(A, B, Family::V4, there)?;
        let on = |case: Case, what: &str| Case {
            name: format!("{what}, {text}, {FEW} rules"),
            id: format!("{what}_{id}"),
            rules: Some(FEW),
            node,
            ..case
        };
        cases.push(on(Case::established("", "", A, B, Family::V4, there), "established"));
        cases.push(on(Case::first("", "", A, B, Family::V4, FEW, 0), "first"));
        cases.push(on(Case::denied("", "", A, B, CLOSED_PORT, FEW, Ring::Drained), "denied"));
    }
    Ok(())
}

/// Packets to a Service and back: a pod of this node is its backend.
fn services(scene: &mut Scene, cases: &mut Vec<Case>) -> anyhow::Result<()> {
    for (family, text, id) in [(Family::V4, "IPv4", "v4"), (Family::V6, "IPv6", "v6")] {
        for port in [OPEN_PORT, NEW_PORT] {
            scene.lab.service(&SERVICE, family, TCP, port, &[(B, port)]);
        }
        // Another than those that are established without a Service.
        let (there, back) = ([CLIENT + 1, OPEN_PORT], [OPEN_PORT, CLIENT + 1]);
        scene.establish_by(A, SERVICE, B, family, there)?;
        let mut becomes = tcp(SERVICE, A, family, back, ACK);
        becomes.mac[0] = B.mac;
        cases.push(Case {
            packet: tcp(A, SERVICE, family, there, ACK).bytes(),
            ..Case::established(
                &format!("established, to a Service, {text}"),
                &format!("service_to_{id}"),
                A,
                B,
                family,
                there,
            )
        });
        cases.push(Case {
            after: Some(routed(&becomes.bytes(), HOST_MAC, A.mac)),
            ..Case::established(
                &format!("established, from a Service, {text}"),
                &format!("service_from_{id}"),
                B,
                A,
                family,
                back,
            )
        });
        cases.push(Case {
            packet: tcp(A, SERVICE, family, [1, NEW_PORT], SYN).bytes(),
            ..Case::first(
                &format!("first, to a Service, {text}"),
                &format!("service_first_{id}"),
                A,
                B,
                family,
                MANY,
                0,
            )
        });
    }
    Ok(())
}

/// A million connections of one pod to others elsewhere, and a packet of another one in each run: nothing
/// of it is in a cache.
fn cold(wrapper: &mut Wrapper, scene: &mut Scene, cases: &mut Vec<Case>) -> anyhow::Result<()> {
    let peer = scene.peer(0);
    for flow in shuffled(CROWD) {
        // As the wrapper varies them: the ports of a block, and by block other peers.
        let (port, block) = (flow as u16, flow >> 16);
        let number = (u32::from(port).wrapping_mul(40_503) ^ block) & CROWD_MASK;
        let to = scene.peer(number);
        let packet = tcp(A, to, Family::V4, [port, OPEN_PORT], ACK);
        wrapper.know_one_of_many(CtKey {
            addr: packet.addr.map(Addr::from),
            port: packet.ports(),
            proto: packet.proto(),
            pad: [0; 3],
        })?;
        scene.put_established(&A, &to, &packet)?;
    }
    let packet = tcp(A, peer, Family::V4, [1, OPEN_PORT], ACK);
    let at = place(A, peer);
    let cold = |case: Case| Case {
        wrapper: wrapper::VARY4,
        context: at.context(),
        mask: u64::from(CROWD_MASK),
        after: None,
        node: Node::Crowded,
        ..case
    };
    cases.push(cold(Case::of("floor, IPv4, cold", "floor_cold_v4", wrapper::FLOOR, &packet)));
    cases.push(cold(Case::established(
        "established, IPv4, cold",
        "established_cold_v4",
        A,
        peer,
        Family::V4,
        [1, OPEN_PORT],
    )));
    cases.push(Case {
        name: "first, allowed, all peers in turn, cold".to_owned(),
        id: "first_cold_v4".to_owned(),
        node: Node::Crowded,
        ..Case::first("", "", A, peer, Family::V4, MANY, scene.spread())
    });
    Ok(())
}

/// The numbers below a power of two, neighbours far apart: neighbours in memory must not follow each other.
fn shuffled(numbers: u32) -> impl Iterator<Item = u32> {
    (0..numbers).map(move |number| number.wrapping_mul(2_654_435_769) & (numbers - 1))
}
