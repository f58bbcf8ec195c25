//! Worlds to compile: pods in deployments, with policies of one of four shapes.

use std::net::{IpAddr, Ipv4Addr};

use policy::{
    fixture::{self, block, pods, pods_in, rule},
    model::{Labels, NetworkPolicy, Object, Pod, PodKey},
};

/// What the policies of a world are like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Shape {
    /// Deployments of twenty equal pods, a policy for each: what most clusters look like.
    Equal,
    /// No two pods alike: each policy selects one pod and names another.
    Different,
    /// Each policy selects every pod of its namespace, and speaks to every namespace.
    All,
    /// As `equal`, and each policy has fifty blocks with an exception each.
    Blocks,
}

impl Shape {
    #[cfg(test)]
    pub(super) const ALL: [Self; 4] = [Self::Equal, Self::Different, Self::All, Self::Blocks];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::All => "all",
            Self::Blocks => "blocks",
        }
    }
}

/// Pods of one deployment, in every shape but [`Shape::Different`].
const REPLICAS: usize = 20;
/// Pods of one namespace.
const PER_NAMESPACE: usize = 500;
/// Blocks of one policy.
const BLOCKS: usize = 50;

/// A number of pods and of policies.
#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    pub(super) shape: Shape,
    pub(super) pods: usize,
    pub(super) policies: usize,
}

impl World {
    fn namespaces(self) -> usize {
        self.pods.div_ceil(PER_NAMESPACE).max(1)
    }

    /// The number of applications: pods of one have equal labels.
    fn apps(self) -> usize {
        match self.shape {
            Shape::Different => self.pods,
            Shape::Equal | Shape::All | Shape::Blocks => self.pods.div_ceil(REPLICAS),
        }
        .max(1)
    }

    fn app_of(self, pod: usize) -> usize {
        pod % self.apps()
    }

    /// The applications take turns among the namespaces, so the pods of one are in one.
    fn namespace_of(self, app: usize) -> String {
        format!("ns-{}", app % self.namespaces())
    }

    /// Key of a pod, 0 to `pods`.
    pub(super) fn key(self, pod: usize) -> PodKey {
        PodKey::new(self.namespace_of(self.app_of(pod)), format!("pod-{pod}"))
    }

    /// Address of a pod: 10.0.0.0/8 from its second address on.
    pub(super) fn address(pod: usize) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0002 + pod as u32)
    }

    /// A pod, with what a controller puts on it.
    pub(super) fn pod(self, number: usize) -> Pod {
        let app = self.app_of(number);
        let mut pod = Pod::new(self.key(number));
        pod.uid = format!("uid-{number}");
        pod.labels = Labels::from_iter([
            ("app", format!("app-{app}").as_str()),
            ("tier", ["web", "api", "db"][app % 3]),
            ("pod-template-hash", format!("{:x}", app * 7919).as_str()),
        ]);
        pod.ips = [IpAddr::V4(Self::address(number))].into();
        pod
    }

    /// A policy; `edit` changes its port and nothing else.
    pub(super) fn policy(self, number: usize, edit: u16) -> NetworkPolicy {
        let app = number % self.apps();
        let path = format!("{}/policy-{number}", self.namespace_of(app));
        let (own, peer) =
            (format!("{{app=app-{app}}}"), format!("{{app=app-{}}}", (app + self.namespaces()) % self.apps()));
        let port = format!("TCP/{}", 8000 + edit);
        let ingress = match self.shape {
            Shape::Equal | Shape::Different => vec![rule().peer(pods(&peer)).port(&port)],
            Shape::All => vec![rule().peer(pods_in("{}", &peer)).port(&port)],
            Shape::Blocks => {
                let from = (0..BLOCKS).fold(rule().peer(pods(&peer)).port(&port), |rule, at| {
                    let (high, low) = (20 + number % 150, at * 4);
                    rule.peer(block(&format!("{high}.{low}.0.0/14"), &[&format!("{high}.{low}.{}.0/24", number % 250)]))
                });
                vec![from]
            }
        };
        let dns = rule().peer(pods_in("{kubernetes.io/metadata.name=ns-0}", "{tier=api}")).port("UDP/53");
        let selector = if self.shape == Shape::All { "{}" } else { own.as_str() };
        fixture::policy(&path, selector).ingress(ingress).egress([rule().peer(pods(&peer)), dns]).build()
    }

    /// Everything.
    pub(super) fn objects(self) -> Vec<Object> {
        let namespaces = (0..self.namespaces()).map(|number| {
            let name = format!("ns-{number}");
            fixture::namespace(&name, [("team", ["red", "blue"][number % 2])])
        });
        let pods = (0..self.pods).map(|number| self.pod(number).into());
        let policies = (0..self.policies).map(|number| Object::NetworkPolicy(self.policy(number, 0)));
        namespaces.chain(pods).chain(policies).collect()
    }
}

#[cfg(test)]
mod tests {
    use policy::{Direction, Index, compile};

    use super::*;

    #[test]
    fn every_shape_has_policies_that_select_pods_and_admit_somebody() {
        for shape in Shape::ALL {
            let world = World { shape, pods: 200, policies: 40 };
            let mut index = Index::default();
            for object in world.objects() {
                index.apply(object);
            }
            let tables: Vec<_> =
                (0..world.pods).map(|pod| compile(&index, &world.key(pod), Direction::Ingress)).collect();
            let isolated = tables.iter().filter(|table| table.is_isolated()).count();
            assert!(isolated >= 40, "{shape:?}: {isolated}");
            assert_eq!(index.pods().count(), world.pods, "{shape:?}");
            let peer = world.key((world.namespaces() % world.apps()) % world.pods);
            let key = index.identity_key(&peer).unwrap();
            assert!(tables.iter().any(|table| table.concerns(&key)), "{shape:?}: nobody speaks to {peer}");
        }
    }
}
