//! Pure: which pods say of themselves, in their objects, that they have an address. Objects are late: an
//! address that a pod had may be another's by now. Who is right is not decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use policy::model::{Pod, PodKey};

use super::{homes::Homes, wardrobe::Wardrobe};

/// Pods as the source describes them, also by address.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pods: BTreeMap<PodKey, Arc<Pod>>,
    by_ip: Homes<IpAddr>,
    labels: Wardrobe,
}

impl Claims {
    /// What the source says of a pod.
    pub(super) fn get(&self, key: &PodKey) -> Option<&Arc<Pod>> {
        self.pods.get(key)
    }

    /// Whether the source says anything of a pod.
    pub(super) fn contains(&self, key: &PodKey) -> bool {
        self.pods.contains_key(key)
    }

    /// Takes a description in place of an earlier one.
    pub(super) fn put(&mut self, mut pod: Arc<Pod>) {
        self.remove(&pod.key);
        // Who else holds the pod, as a folder's file does, holds the same one, unless there are such labels already.
        let labels = self.labels.share(&pod.labels);
        if !labels.is(&pod.labels) {
            Arc::make_mut(&mut pod).labels = labels;
        }
        for ip in &pod.ips {
            self.by_ip.insert(*ip, pod.key.clone());
        }
        self.pods.insert(pod.key.clone(), pod);
    }

    /// Forgets a pod.
    pub(super) fn remove(&mut self, key: &PodKey) {
        let Some(pod) = self.pods.remove(key) else { return };
        for ip in &pod.ips {
            self.by_ip.remove(*ip, key.clone());
        }
    }

    /// Who claims any of these addresses.
    pub(super) fn claimants(&self, ips: impl Iterator<Item = IpAddr>) -> BTreeSet<PodKey> {
        ips.flat_map(|ip| self.by_ip.at(ip)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use policy::fixture;

    use super::*;

    #[test]
    fn a_later_description_replaces_every_address_of_the_earlier() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let claimants = |claims: &Claims, text: &str| claims.claimants([ip(text)].into_iter());
        let web =
            |ips: &[&str]| Pod { ips: ips.iter().map(|text| ip(text)).collect(), ..Pod::new(fixture::key("shop/web")) };
        let mut claims = Claims::default();
        claims.put(web(&["10.0.0.2", "fd00::2"]).into());
        claims.put(Pod { ips: [ip("fd00::2")].into(), ..Pod::new(fixture::key("shop/db")) }.into());
        assert_eq!(claimants(&claims, "fd00::2").len(), 2);
        claims.put(web(&["10.0.0.3"]).into());
        assert!(claimants(&claims, "10.0.0.2").is_empty());
        assert_eq!(claimants(&claims, "fd00::2"), [fixture::key("shop/db")].into());
        claims.remove(&fixture::key("shop/web"));
        claims.remove(&fixture::key("shop/db"));
        assert!(claims.by_ip.is_empty() && !claims.contains(&fixture::key("shop/db")));
    }
}
