//! Random scenarios, out of small stocks of names, labels, addresses and ports, so that things meet.
//! Addresses, blocks and ports are chosen to nest and to overlap.

mod packets;
mod policies;

use std::sync::Arc;

use policy::model::{ContainerPort, Few, Labels, Namespace, Object, ObjectKey, Pod, PodKey, Protocol};

use self::packets::Talks;
use crate::{
    random::Random,
    scenario::{Local, MOST_LOCAL, MOST_STARTED, OTHER_NODE, OWN_NODE, Scenario, Step, host},
};

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
/// The last one is on the default exclusion list of identities.
const KEYS: [&str; 3] = ["app", "tier", "pod-template-hash"];
const VALUES: [&str; 3] = ["", "x", "y"];
const PORT_NAMES: [&str; 2] = ["web", "dns"];
const PORTS: [u16; 6] = [0, 53, 80, 81, 8080, 65535];
/// Pods elsewhere have addresses from here on, two to choose from each.
const REMOTE: u8 = MOST_LOCAL as u8;
/// Most pods elsewhere.
const MOST_REMOTE: u8 = 3;

/// How long scenarios are.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How often objects change.
    pub changes: usize,
    /// Packets between two changes.
    pub packets: usize,
}

impl Default for Shape {
    /// What it costs to begin a world is little against its packets then, and each world has changes that
    /// meet connections.
    fn default() -> Self {
        Self { changes: 4, packets: 50 }
    }
}

/// A world, and what happens in it.
pub fn scenario(random: &mut Random, shape: &Shape) -> Scenario {
    let locals = locals(random);
    let mut world = World { running: locals.clone(), started: locals.len(), objects: Vec::new() };
    let mut steps: Vec<Step> = Vec::new();
    for object in world.first(random) {
        steps.push(world.apply(object));
    }
    let mut talks = Talks::default();
    for change in 0..=shape.changes {
        if change > 0 {
            for _ in 0..random.within(1..=3) {
                steps.extend(world.change(random));
            }
        }
        talks.are_among(&world.running);
        steps.extend((0..shape.packets).map(|_| Step::Send(talks.packet(random))));
    }
    Scenario { locals, steps }
}

fn locals(random: &mut Random) -> Vec<Local> {
    let one = |number: u8, random: &mut Random| local(random.pick(&NAMESPACES), number, number, random);
    let count = random.within(2..=MOST_LOCAL) as u8;
    (0..count).map(|number| one(number, random)).collect()
}

/// A pod with a number in its name and one in its addresses.
fn local(namespace: &str, name: u8, at: u8, random: &mut Random) -> Local {
    let ips = match random.below(4) {
        0 => vec![host(false, at)],
        1 => vec![host(true, at)],
        _ => vec![host(false, at), host(true, at)],
    };
    Local { pod: PodKey::new(namespace, format!("p{name}")), ips }
}

/// Pods and objects as they are now.
struct World {
    running: Vec<Local>,
    started: usize,
    objects: Vec<Object>,
}

impl World {
    fn first(&self, random: &mut Random) -> Vec<Object> {
        let mut objects: Vec<Object> = random.several(0..=3, |random| namespace(random).into());
        for local in &self.running {
            // A pod may run before its object is seen.
            if random.chance(90) {
                objects.push(pod_of(local, random).into());
            }
        }
        for number in 0..random.within(0..=usize::from(MOST_REMOTE)) as u8 {
            objects.push(remote(number, random).into());
        }
        objects.extend(random.several(0..=2, |random| stranger(random).into()));
        objects.extend(random.several(0..=6, |random| policies::network_policy(random).into()));
        objects.extend(random.several(0..=2, |random| policies::node(random).into()));
        objects.extend(random.several(0..=4, |random| policies::cluster_policy(random).into()));
        objects
    }

    /// Notes an object, which takes the place of an older one.
    fn apply(&mut self, object: Object) -> Step {
        self.objects.retain(|other| other.key() != object.key());
        self.objects.push(object.clone());
        Step::Apply(object)
    }

    fn change(&mut self, random: &mut Random) -> Vec<Step> {
        match random.below(24) {
            0..=1 => self.stop(random),
            2..=3 => self.start(random),
            _ => vec![self.told(random)],
        }
    }

    /// A pod starts, its object told before, afterwards, or not at all: perhaps one that has run before, perhaps
    /// at an address that another one had.
    fn start(&mut self, random: &mut Random) -> Vec<Step> {
        let is_free = |at: &u8| !self.running.iter().any(|local| host_number(local) == Some(*at));
        let free: Vec<u8> = (0..MOST_LOCAL as u8).filter(is_free).collect();
        let name = random.below(MOST_LOCAL) as u8;
        if free.is_empty() || self.started == MOST_STARTED {
            return vec![self.told(random)];
        }
        let local = local(random.pick(&NAMESPACES), name, random.pick(&free), random);
        if self.running.iter().any(|other| other.pod == local.pod) {
            return vec![self.told(random)];
        }
        self.running.push(local.clone());
        self.started += 1;
        let mut steps = vec![Step::Start(local.clone())];
        if random.chance(80) {
            let told = self.apply(pod_of(&local, random).into());
            steps.insert(random.below(2), told);
        }
        steps
    }

    /// A pod stops. Its object goes, says that it has finished, or stays as if it ran elsewhere from now on; that
    /// only if its addresses are nobody else's, as those of pods are that run.
    fn stop(&mut self, random: &mut Random) -> Vec<Step> {
        if self.running.len() < 2 {
            return vec![self.told(random)];
        }
        let local = self.running.swap_remove(random.below(self.running.len()));
        let stop = Step::Stop(local.pod.clone());
        let key = ObjectKey::Pod(local.pod.clone());
        let Some(Object::Pod(pod)) = self.objects.iter().find(|object| object.key() == key).cloned() else {
            return vec![stop];
        };
        let claimed = |object: &Object| match object {
            Object::Pod(other) => {
                other.key != pod.key && other.is_peer() && other.ips.iter().any(|ip| pod.ips.contains(ip))
            }
            _ => false,
        };
        let own = pod.ips.iter().all(|ip| local.ips.contains(ip)) && !self.objects.iter().any(claimed);
        let end = match random.below(3) {
            0 if own => return vec![stop],
            1 => self.apply(Pod { finished: true, ..Pod::clone(&pod) }.into()),
            _ => {
                self.objects.retain(|object| object.key() != key);
                Step::Delete(key)
            }
        };
        if random.chance(50) { vec![stop, end] } else { vec![end, stop] }
    }

    /// The source tells something, or the daemon is replaced.
    fn told(&mut self, random: &mut Random) -> Step {
        match random.below(20) {
            0 => Step::Restart,
            1 => Step::Collect,
            2..=4 if !self.objects.is_empty() => {
                let gone = self.objects.swap_remove(random.below(self.objects.len())).key();
                Step::Delete(gone)
            }
            2..=5 => self.apply(namespace(random).into()),
            6..=7 => {
                let local = random.pick(&self.running);
                self.apply(pod_of(&local, random).into())
            }
            8..=9 => match self.relabelled(random) {
                Some(pod) => self.apply(pod.into()),
                None => self.apply(namespace(random).into()),
            },
            10..=11 => self.apply(remote(random.below(MOST_REMOTE.into()) as u8, random).into()),
            12 => self.apply(stranger(random).into()),
            13..=15 => match self.altered(random) {
                Some(object) => self.apply(object),
                None => self.apply(policies::network_policy(random).into()),
            },
            16..=17 => self.apply(policies::cluster_policy(random).into()),
            18 => self.apply(policies::node(random).into()),
            _ => self.apply(policies::network_policy(random).into()),
        }
    }

    /// A pod with one thing changed: with other ports it is who it was, and rule sets that name ports change
    /// under connections that live.
    fn relabelled(&self, random: &mut Random) -> Option<Pod> {
        let pods: Vec<&Arc<Pod>> =
            self.objects.iter().filter_map(|it| if let Object::Pod(pod) = it { Some(pod) } else { None }).collect();
        let one: &Arc<Pod> = random.pick(pods.get(..).filter(|list| !list.is_empty())?);
        let mut pod = Pod::clone(one);
        match random.below(3) {
            0 => pod.labels = labels(random),
            _ => pod.ports = ports(random),
        }
        Some(pod)
    }

    /// A policy with one thing changed, so that rule sets are near each other.
    fn altered(&self, random: &mut Random) -> Option<Object> {
        let policies: Vec<_> = self.objects.iter().filter(|it| matches!(it.key(), ObjectKey::Policy(_))).collect();
        match random.pick(policies.get(..).filter(|list| !list.is_empty())?) {
            Object::NetworkPolicy(policy) => Some(policies::altered(policy.clone(), random).into()),
            Object::ClusterNetworkPolicy(policy) => Some(policies::altered_cluster(policy.clone(), random).into()),
            _ => None,
        }
    }
}

/// The number in a pod's addresses.
fn host_number(local: &Local) -> Option<u8> {
    (0..MOST_LOCAL as u8).find(|number| [false, true].iter().any(|v6| local.ips.contains(&host(*v6, *number))))
}

fn labels(random: &mut Random) -> Labels {
    let pairs = random.several(0..=2, |random| (random.pick(&KEYS), random.pick(&VALUES)));
    pairs.into_iter().collect()
}

fn namespace(random: &mut Random) -> Namespace {
    Namespace::new(random.pick(&NAMESPACES), labels(random))
}

fn ports(random: &mut Random) -> Few<ContainerPort> {
    let port = |random: &mut Random| ContainerPort {
        name: random.pick(&PORT_NAMES).to_owned(),
        // Most are TCP, as most packets are.
        protocol: random.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp]),
        port: random.pick(&PORTS[1..]),
    };
    random.several(0..=2, port).into_iter().collect()
}

/// Many have no labels, so that some are one and the same to policy.
fn pod(key: PodKey, random: &mut Random) -> Pod {
    let plain = random.chance(25);
    Pod {
        labels: if plain { Labels::default() } else { labels(random) },
        service_account: if plain { "default" } else { random.pick(&["default", "other"]) }.to_owned(),
        ports: ports(random),
        ..Pod::new(key)
    }
}

/// The object of a pod of the node: often late, and sometimes wrong about it.
fn pod_of(local: &Local, random: &mut Random) -> Pod {
    let mut pod = pod(local.pod.clone(), random);
    match random.below(6) {
        0..=2 => pod.ips = local.ips.iter().copied().collect(),
        3 => pod.ips = [host(false, random.below(16) as u8)].into(),
        _ => {}
    }
    pod.finished = random.chance(3);
    pod.host_network = random.chance(3);
    pod
}

/// A pod of another node, at one of its two addresses.
fn remote(number: u8, random: &mut Random) -> Pod {
    let mut pod = pod(PodKey::new(NAMESPACES[usize::from(number) % 3], format!("r{number}")), random);
    let at = REMOTE + 2 * number + random.below(2) as u8;
    pod.ips = match random.below(4) {
        0 => [host(false, at)].into(),
        1 => [host(true, at)].into(),
        _ => [host(false, at), host(true, at)].into(),
    };
    pod
}

/// A pod that is no peer: over, with an address that is another's by now, or in a node's namespace.
fn stranger(random: &mut Random) -> Pod {
    let name = format!("s{}", random.below(3));
    let mut pod = pod(PodKey::new(random.pick(&NAMESPACES), name), random);
    if random.chance(50) {
        pod.finished = true;
        let number = random.below(12) as u8;
        pod.ips = [host(false, number), host(true, number)].into();
    } else {
        pod.host_network = true;
        pod.ips = if random.chance(50) { OWN_NODE } else { OTHER_NODE }.into();
    }
    pod
}
