//! A node with so many rules and identities, for the cases to run on.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context as _, ensure};
use daemon::datapath::load::{self, Capacities};
use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, CtState, Ends, FLAG_INITIATOR_HIGH},
    endpoint::RulesPtr,
    event::FlowEvent,
    maps,
    policy::Direction,
};
use datapath_ebpf::ct;
use tests::{
    count::Counts,
    host::{A, B, Family, Host, REMOTE},
    lab::{At, Lab},
    packet::{ACK, Packet, SYN, TCP},
    prog::Programs,
    rules::{NO_RULE, Rule, allow},
};

use super::cases::{Case, Ring};

/// Port of what is established. Rules admit it and the next one.
pub(crate) const OPEN_PORT: u16 = 80;
/// Port of what is new: source ports run through all numbers and must not meet the other.
pub(crate) const NEW_PORT: u16 = 81;
/// A port that no rule admits.
pub(crate) const CLOSED_PORT: u16 = 82;

/// Programs and filled maps.
pub(crate) struct Scene {
    /// The node.
    pub(crate) lab: Lab,
    rules: u32,
    /// A's word for egress.
    egress: u64,
}

impl Scene {
    /// With room for `connections` at least, and `rules` rules, half of them for what A sends and half for what B receives, each
    /// for one identity and one port, and as many identities, each with an address of both
    /// families.
    pub(crate) fn new(rules: u32, connections: u32, object: Option<&Path>) -> anyhow::Result<Self> {
        let mut capacities = Capacities::default();
        let default = capacities.of(maps::CONNTRACK);
        // With room as it should have in use.
        capacities.set(maps::CONNTRACK, default.max(connections / 4 * 5))?;
        capacities.set(maps::ADDRESSES, 262_144)?;
        capacities.set(maps::PORTS, 131_072)?;
        let programs = match object {
            None => Programs::load(&capacities)?,
            Some(path) => {
                let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
                Programs::of(load::load_object(&bytes, None, &capacities, &load::program::ALL)?)?
            }
        };
        let mut scene = Self { lab: Lab::of(programs), rules, egress: 0 };
        for number in 0..rules {
            for family in tests::host::FAMILIES {
                let host = scene.peer(number);
                scene.lab.address(&host, family, host.identity, 0);
            }
        }
        for (pod, direction, other) in [(A, Direction::Egress, B), (B, Direction::Ingress, A)] {
            let entry = |identity, cookie| Rule::identity(identity, NO_RULE).port(TCP, OPEN_PORT, 15, allow(cookie, 1));
            let mut entries: Vec<Rule> =
                (0..rules / 2 - 1).map(|number| entry(scene.peer(number).identity, number + 1)).collect();
            entries.push(entry(other.identity, rules));
            scene.lab.isolate(&pod, direction, &entries);
        }
        scene.egress = scene.lab.endpoint(&A).rules[Direction::Egress as usize];
        Ok(scene)
    }

    /// A pod of another node.
    pub(crate) fn peer(&self, number: u32) -> Host {
        Host {
            v4: Ipv4Addr::from_bits(0x0a80_0000 + number),
            v6: Ipv6Addr::from_bits(0xfd00_0128 << 96 | u128::from(number)),
            identity: 10_000 + number,
            ..REMOTE
        }
    }

    /// Bits by which destinations may vary, so that each has an identity and a rule of its own.
    pub(crate) fn spread(&self) -> u64 {
        let covered = (self.rules / 2 - 1).min(1 << 16);
        (1 << (31 - covered.leading_zeros())) - 1
    }

    /// Sees to it that a connection is established.
    pub(crate) fn establish(&mut self, from: Host, to: Host, family: Family, port: [u16; 2]) -> anyhow::Result<()> {
        self.shake_hands(from, to, to, family, port);
        let established = self.lab.sizes().0;
        ensure!(established > 0, "the connection is not established");
        Ok(())
    }

    /// The same through a Service: `from` speaks to its address, and `to` is its backend with the same port.
    pub(crate) fn establish_by(
        &mut self,
        from: Host,
        service: Host,
        to: Host,
        family: Family,
        port: [u16; 2],
    ) -> anyhow::Result<()> {
        let before = self.lab.sizes().0;
        self.shake_hands(from, service, to, family, port);
        ensure!(self.lab.sizes().0 == before + 2, "the connection and what the client knows of it are not established");
        Ok(())
    }

    /// `from` opens a connection to what it takes for `addressed`, and `to` answers.
    fn shake_hands(&mut self, from: Host, addressed: Host, to: Host, family: Family, port: [u16; 2]) {
        let (there, back) = (place(from, to), place(to, from));
        self.lab.send(there, &from.tcp(&addressed, family, port, SYN)).whatever();
        self.lab.send(back, &to.tcp(&from, family, [port[1], port[0]], SYN | ACK)).whatever();
        self.lab.send(there, &from.tcp(&addressed, family, port, ACK)).whatever();
    }

    /// Gives pods staged policies in both directions: the rules that are in force for A and B, and default deny.
    pub(crate) fn stage(&mut self, pods: &[Host]) {
        for pod in pods {
            for (direction, other) in [(Direction::Egress, B), (Direction::Ingress, A)] {
                let rules: Vec<Rule> = (0..self.rules / 2 - 1)
                    .map(|number| self.peer(number).identity)
                    .chain([other.identity])
                    .map(|identity| Rule::identity(identity, NO_RULE).port(TCP, OPEN_PORT, 15, allow(identity, 1)))
                    .collect();
                self.lab.stage(pod, direction, RulesPtr::ISOLATED, &rules);
            }
        }
    }

    /// Makes the connection of a packet from a pod to somebody elsewhere an established one, which no CPU counts without
    /// a lock.
    pub(crate) fn put_established(&mut self, from: &Host, to: &Host, packet: &Packet) -> anyhow::Result<()> {
        let mut key = CtKey::default();
        let high = ct::key_of(&packet.addr.map(Addr::from), packet.ports(), packet.proto(), &mut key);
        let entry = CtEntry {
            ends: Ends {
                rules: [self.egress, 0],
                slot: [from.slot, 0],
                ifindex: [from.ifindex, 0],
                identity: [from.identity, to.identity],
                cookie: [1, 0],
            },
            last_seen: 1,
            state: CtState::Established as u8,
            flags: if high { FLAG_INITIATOR_HIGH } else { 0 },
            created_ns: 1,
            ..CtEntry::default()
        };
        self.lab.programs.hash(maps::CONNTRACK).insert(key, entry, 0)?;
        Ok(())
    }

    /// Brings ring buffer and tables into the state that a case wants.
    pub(crate) fn prepare(&mut self, case: &Case) -> anyhow::Result<()> {
        self.lab.programs.drain();
        if case.room {
            let mut pending = self.lab.programs.hash::<CtKey, CtEntry>(maps::PENDING);
            let keys: Vec<CtKey> = pending.keys().collect::<Result<_, _>>()?;
            for key in keys {
                pending.remove(&key)?;
            }
        }
        if case.ring == Ring::Full {
            let capacity = maps::default_capacity(maps::EVENTS);
            let events = capacity / size_of::<FlowEvent>() as u32;
            self.lab.programs.run(case.program, &case.packet, case.context, events)?;
        }
        Ok(())
    }

    /// The counters.
    pub(crate) fn counts(&self) -> Counts {
        Counts::read(&self.lab.programs.ebpf)
    }
}

/// Where a packet from one to the other meets a program.
pub(crate) fn place(from: Host, to: Host) -> At {
    if from.is_local() { At::From(from) } else { At::To(to, from) }
}
