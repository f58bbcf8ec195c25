//! The planner against the oracle, through a mirror that plays the kernel: what the maps say is
//! asked by the very code that the programs run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use datapath_abi::{
    addr::Addr,
    endpoint::RulesPtr,
    identity,
    policy::{Decision, Direction, PeerEntry, PeerKey, PortKey},
};
use datapath_ebpf::decide::{self, Rules};
use policy::{
    fixture::{self, text},
    model::{Object, ObjectKey, PodKey},
    oracle::Oracle,
    world::{End, Flow},
};
use proptest::prelude::*;

use super::*;

mod addresses;
mod comings;
mod generations;
mod refused;
mod release;
mod rule_sets;
mod shared;
mod worlds;

/// The kernel: the maps of a mirror, asked about one peer address.
struct Kernel<'a> {
    mirror: &'a Mirror,
    peer: Addr,
}

impl Rules for Kernel<'_> {
    fn peer(&self, ruleset: u32, identity: u32) -> Option<PeerEntry> {
        self.mirror.peers.get(&PeerKey { ruleset, identity }).copied()
    }

    fn region(&self, ruleset: u32) -> Option<PeerEntry> {
        let holds = |first: Addr, length: u8| {
            let (first, addr) = (u128::from_be_bytes(first.octets()), u128::from_be_bytes(self.peer.octets()));
            length == 0 || (first ^ addr) >> (128 - u32::from(length)) == 0
        };
        let inside = self.mirror.regions_of(ruleset).filter(|((first, length), _)| holds(*first, *length));
        inside.max_by_key(|((_, length), _)| *length).map(|(_, entry)| *entry)
    }

    fn port(&self, key: PortKey) -> Option<Decision> {
        self.mirror.ports.get(&key).copied()
    }
}

/// What the maps say about a new connection between two pods of the node.
fn kernel_allows(mirror: &Mirror, source: IpAddr, destination: IpAddr, proto: u8, port: u16) -> bool {
    side_allows(mirror, source, destination, Direction::Egress, proto, port)
        && side_allows(mirror, destination, source, Direction::Ingress, proto, port)
}

/// What the rules of one end say about it.
fn side_allows(mirror: &Mirror, own: IpAddr, peer: IpAddr, direction: Direction, proto: u8, port: u16) -> bool {
    let [own, peer] = [own, peer].map(Addr::from);
    let Some(entry) = mirror.addresses.get(&own).filter(|entry| entry.slot != 0) else { return true };
    let ptr = RulesPtr(mirror.endpoints[&entry.slot].rules[direction as usize]);
    let who = mirror.addresses.get(&peer).map_or(identity::WORLD, |entry| entry.identity);
    let decision = decide::ask(&Kernel { mirror, peer }, ptr, who, proto, port);
    decide::verdict(ptr, decision).is_ok()
}

const PODS: [(&str, &str); 5] = [
    ("shop/web", "10.0.0.2"),
    ("shop/api", "10.0.0.3"),
    ("shop/db", "10.0.0.4"),
    ("dev/web", "10.0.0.5"),
    ("dev/bare", "10.0.0.6"),
];

fn local(slot: u32, path: &str, ip: &str) -> LocalEndpoint {
    let IpAddr::V4(v4) = ip.parse().unwrap() else { panic!("{ip} is not IPv4") };
    LocalEndpoint {
        key: EndpointKey { container_id: format!("c{slot}"), ifname: "eth0".to_owned() },
        pod: fixture::key(path),
        slot,
        ifindex: 100 + slot,
        mac: [2, 0, 0, 0, 0, slot as u8],
        v4: Some(v4),
        v6: None,
    }
}

struct Node {
    planner: Planner,
    mirror: Mirror,
    capacity: Capacity,
    objects: BTreeMap<ObjectKey, Object>,
}

impl Node {
    fn new(capacity: Capacity) -> Self {
        let mut node = Self {
            planner: planner(Identities::default(), &capacity),
            mirror: Mirror::default(),
            capacity,
            objects: BTreeMap::new(),
        };
        for (at, (path, ip)) in PODS.into_iter().enumerate() {
            node.planner.add_endpoint(local(at as u32 + 1, path, ip));
        }
        node
    }

    fn apply(&mut self, text: &str) {
        for object in text::parse(text).unwrap() {
            self.objects.insert(object.key(), object.clone());
            self.planner.apply(object);
        }
    }

    fn delete(&mut self, key: &ObjectKey) {
        // A pod that runs keeps what its object said.
        let runs = |pod: &PodKey| self.planner.endpoints().any(|endpoint| endpoint.pod == *pod);
        if !matches!(key, ObjectKey::Pod(pod) if runs(pod)) {
            self.objects.remove(key);
        }
        self.planner.delete(key);
    }

    fn step(&mut self) -> Plan {
        let plan = self.planner.plan(&self.mirror).unwrap();
        for change in &plan.changes {
            self.mirror.apply(change);
        }
        plan
    }

    /// Plans, and looks after every single write whether each pair of pods meets the old answers or the new ones.
    fn step_by_step(
        &mut self,
        say: impl Fn(&Mirror, IpAddr, IpAddr, u8, u16) -> Vec<bool>,
    ) -> Result<(), TestCaseError> {
        let old = self.mirror.clone();
        let plan = self.planner.plan(&old).unwrap();
        let mut new = old.clone();
        plan.changes.iter().for_each(|change| new.apply(change));
        let pods = PODS.map(|(_, ip)| ip.parse::<IpAddr>().unwrap());
        let pairs = pods.into_iter().flat_map(|one| pods.map(|other| (one, other))).filter(|(one, other)| one != other);
        let pairs: Vec<(IpAddr, IpAddr)> = pairs.collect();
        for change in &plan.changes {
            self.mirror.apply(change);
            for &(one, other) in &pairs {
                for (proto, port) in [(6, 80), (6, 5432), (6, 8080), (17, 53)] {
                    let said = [&old, &self.mirror, &new].map(|mirror| say(mirror, one, other, proto, port));
                    let [old, now, new] = &said;
                    let whole = now.iter().zip(old).zip(new).all(|((now, old), new)| now == old || now == new);
                    prop_assert!(whole, "{} and {}, {}/{} after {:?}: {:?}", one, other, proto, port, change, said);
                }
            }
        }
        Ok(())
    }

    /// Every rule set in force is what lowering its table from nothing would give, and so is what anybody meets of it.
    fn check_rule_sets(&self) {
        for number in self.mirror.rulesets_in_use().filter(|number| *number != 0) {
            let (rules, table) = (self.planner.rule_set(number), self.planner.rule_table(number));
            let (rules, table) = (rules.expect("it is in force"), table.expect("it is in force"));
            let mut cookies = self.planner.cookies().clone();
            assert_eq!(*rules, policy::lower(table, self.planner.universe(), &mut cookies).unwrap(), "{table}");
            let none = BTreeMap::new();
            let second = rules.second.as_ref().map_or(&none, |stage| &stage.peers);
            for (number, peers) in [(number, &rules.peers), (number | 1, second)] {
                let met: BTreeSet<u32> = self.mirror.peers_of(number).map(|(who, _)| who).collect();
                let wanted = peers.keys().copied();
                assert!(met.into_iter().filter(|who| self.is_met(*who)).eq(wanted), "{number}: {table}");
            }
        }
    }

    /// Whether packets may bear this identity.
    fn is_met(&self, identity: u32) -> bool {
        identity > identity::MAX || self.planner.universe().get(identity).is_some()
    }

    fn collect(&mut self) {
        for change in self.planner.garbage(&self.mirror) {
            self.mirror.apply(&change);
        }
    }

    /// A daemon that starts on what this one has left.
    fn restart(&mut self) {
        let identities = self.planner.identities().iter().map(|(number, key)| (number, key.clone()));
        let identities = Identities::restore(identities, self.mirror.highest_identity());
        let mut planner = planner(identities, &self.capacity);
        for endpoint in self.planner.endpoints() {
            planner.add_endpoint(endpoint.clone());
        }
        for object in self.objects.values() {
            planner.apply(object.clone());
        }
        self.planner = planner;
    }

    /// What the API's text says, with the pods' addresses on this node.
    fn oracle(&self) -> Oracle {
        Oracle::new(self.running())
    }

    /// The objects, with the pods' addresses on this node.
    fn running(&self) -> Vec<Object> {
        let mut objects = self.objects.clone();
        for (path, ip) in PODS {
            let key = fixture::key(path);
            let Object::Pod(pod) = objects
                .remove(&ObjectKey::Pod(key.clone()))
                .unwrap_or_else(|| policy::model::Pod::new(key.clone()).into())
            else {
                panic!("a pod's key names a pod")
            };
            let pod = policy::model::Pod { ips: [ip.parse().unwrap()].into(), ..policy::model::Pod::clone(&pod) };
            objects.insert(ObjectKey::Pod(key), pod.into());
        }
        objects.into_values().collect()
    }

    /// What STAGED leads to says what the API's text says of all policies, the staged ones too; and where
    /// it leads nowhere, those make no difference.
    fn check_staged(&self) {
        let (enforced, with_staged) = (self.oracle(), Oracle::with_staged(self.running()));
        for (slot, (subject, own)) in (1u32..).zip(PODS) {
            for (peer, other) in PODS.into_iter().filter(|(path, _)| *path != subject) {
                let end = |path: &str, ip: &str| End::Pod(fixture::key(path), ip.parse().unwrap());
                for (direction, (proto, port)) in [Direction::Egress, Direction::Ingress]
                    .into_iter()
                    .flat_map(|direction| [(6, 80), (17, 53), (6, 8080)].map(|probe| (direction, probe)))
                {
                    let (subject, peer_end) = (end(subject, own), end(peer, other));
                    let flow = match direction {
                        Direction::Egress => Flow { source: subject, destination: peer_end, proto, port },
                        Direction::Ingress => Flow { source: peer_end, destination: subject, proto, port },
                    };
                    let would = with_staged.ruling(direction, &flow).allows();
                    let at = direction as usize;
                    let staged = RulesPtr(self.mirror.staged.get(&slot).map_or(0, |words| words[at]));
                    assert_eq!(self.rules(slot)[at].has(RulesPtr::HAS_STAGED), staged.0 != 0, "{flow}");
                    if staged.0 == 0 {
                        assert_eq!(enforced.ruling(direction, &flow).allows(), would, "{flow}");
                        continue;
                    }
                    let addr = Addr::from(other.parse::<IpAddr>().unwrap());
                    let who = self.mirror.addresses.get(&addr).map_or(identity::WORLD, |entry| entry.identity);
                    let kernel = Kernel { mirror: &self.mirror, peer: addr };
                    let said = decide::verdict(staged, decide::ask(&kernel, staged, who, proto, port)).is_ok();
                    assert_eq!(said, would, "{flow}");
                }
            }
        }
    }

    fn check(&self) {
        let oracle = self.oracle();
        for (source, from) in PODS {
            for (destination, to) in PODS.into_iter().filter(|(path, _)| *path != source) {
                for (proto, port) in [(6, 80), (6, 5432), (17, 53), (132, 80), (6, 8080)] {
                    let end = |path: &str, ip: &str| End::Pod(fixture::key(path), ip.parse().unwrap());
                    let flow = Flow { source: end(source, from), destination: end(destination, to), proto, port };
                    let said = kernel_allows(&self.mirror, from.parse().unwrap(), to.parse().unwrap(), proto, port);
                    assert_eq!(said, oracle.allows(&flow), "{source} -> {destination} {proto}/{port}");
                }
            }
        }
    }

    fn rules(&self, slot: u32) -> [RulesPtr; 2] {
        self.mirror.endpoints[&slot].rules.map(RulesPtr)
    }
}

fn planner(identities: Identities, capacity: &Capacity) -> Planner {
    Planner::new(Default::default(), vec!["10.0.0.0/24".parse().unwrap()], identities, capacity.clone())
}

const SHOP: &str = "
namespace shop team=a
namespace dev team=b
pod shop/web app=web
pod shop/api app=api port=http:TCP:8080
pod shop/db app=db
pod dev/web app=web
";
