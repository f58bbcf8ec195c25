//! What is really so: which pods run on the node with which addresses, and what objects say that are up to
//! date. The API's text and the rules on paper are asked about this; the daemon has to find it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use policy::{
    model::{Object, ObjectKey, Pod, PodKey},
    world::End,
};

use crate::scenario::{Local, MOST_LOCAL, MOST_STARTED, OTHER_NODE, OWN_NODE, Step};

/// Who is who.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Who runs here, with the number of its start.
    running: Vec<(usize, Local)>,
    /// How many have started.
    started: usize,
    /// As the source has told last, gone ones of pods that run included.
    told: BTreeMap<ObjectKey, Object>,
    /// Pods that run, whose objects are gone.
    orphans: BTreeSet<PodKey>,
}

impl Truth {
    /// Before anything was told.
    pub fn new(locals: &[Local]) -> Self {
        Self { running: locals.iter().cloned().enumerate().collect(), started: locals.len(), ..Self::default() }
    }

    /// What the source tells.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Apply(object) => {
                if let Object::Pod(pod) = object {
                    self.orphans.remove(&pod.key);
                }
                self.told.insert(object.key(), object.clone());
            }
            Step::Delete(ObjectKey::Pod(pod)) if self.is_local(pod) => {
                if self.told.contains_key(&ObjectKey::Pod(pod.clone())) {
                    self.orphans.insert(pod.clone());
                }
            }
            Step::Delete(key) => {
                self.told.remove(key);
            }
            Step::Start(local) => {
                if self.may_start(local) {
                    self.running.push((self.started, local.clone()));
                    self.started += 1;
                }
            }
            Step::Stop(pod) => {
                self.running.retain(|(_, local)| local.pod != *pod);
                if self.orphans.remove(pod) {
                    self.told.remove(&ObjectKey::Pod(pod.clone()));
                }
            }
            Step::Restart | Step::Collect | Step::Send(_) => {}
        }
    }

    /// Whether the source tells all that is known of the pods that run here.
    pub fn is_told(&self) -> bool {
        self.orphans.is_empty()
    }

    /// What the source tells a daemon that starts now.
    pub fn told(&self) -> impl Iterator<Item = &Object> {
        self.told.values()
    }

    /// Whether a pod runs on the node.
    pub fn is_local(&self, pod: &PodKey) -> bool {
        self.running.iter().any(|(_, local)| local.pod == *pod)
    }

    /// Whether a pod can start on the node.
    pub fn may_start(&self, local: &Local) -> bool {
        self.running.len() < MOST_LOCAL
            && self.started < MOST_STARTED
            && !self.is_local(&local.pod)
            && local.ips.iter().all(|ip| self.local(*ip).is_none())
    }

    /// The pod of the node that has an address, and the number of its start.
    pub fn local(&self, ip: IpAddr) -> Option<(usize, &Local)> {
        self.running.iter().find(|(_, local)| local.ips.contains(&ip)).map(|(number, local)| (*number, local))
    }

    /// The objects, saying what is so.
    pub fn objects(&self) -> Vec<Object> {
        let mut objects = self.told.clone();
        for object in objects.values_mut() {
            if let Object::Pod(pod) = object {
                // Whatever it says, another one has that address.
                Arc::make_mut(pod).ips.retain(|ip| self.local(*ip).is_none());
            }
        }
        for (_, local) in &self.running {
            let key = ObjectKey::Pod(local.pod.clone());
            let bare = || Object::from(Pod::new(local.pod.clone()));
            if let Object::Pod(pod) = objects.entry(key).or_insert_with(bare) {
                let pod = Arc::make_mut(pod);
                pod.ips = local.ips.iter().copied().collect();
                pod.finished = false;
                pod.host_network = false;
            }
        }
        objects.into_values().collect()
    }

    /// Who has an address, given [`Truth::objects`].
    pub fn end(&self, objects: &[Object], ip: IpAddr) -> End {
        if OWN_NODE.contains(&ip) {
            return End::LocalNode(ip);
        }
        let owner = objects.iter().find_map(|object| match object {
            Object::Pod(pod) if pod.ips.contains(&ip) && pod.is_peer() => Some(pod.key.clone()),
            _ => None,
        });
        match owner {
            Some(pod) => End::Pod(pod, ip),
            None if OTHER_NODE.contains(&ip) => End::Node(ip),
            None => End::Outside(ip),
        }
    }
}
