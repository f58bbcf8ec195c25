//! The forms in which filters name addresses, pods and nodes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// An address or a CIDR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Network(IpNetwork);

impl Network {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNetwork::from(address),
            Err(_) if text.contains('/') => text.parse().ok()?,
            Err(_) => return None,
        };
        Some(Self(network))
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        self.0.contains(address)
    }
}

/// `[namespace/]prefix`: no slash means namespace `default`, `namespace/` all of it, `/prefix`
/// any namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Name {
    /// `None`: any.
    namespace: Option<String>,
    prefix: String,
}

impl Name {
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once('/') {
            None => Self { namespace: Some("default".to_owned()), prefix: text.to_owned() },
            Some(("", prefix)) => Self { namespace: None, prefix: prefix.to_owned() },
            Some((namespace, prefix)) => Self { namespace: Some(namespace.to_owned()), prefix: prefix.to_owned() },
        }
    }

    pub(super) fn matches(&self, namespace: &str, name: &str) -> bool {
        let named = !namespace.is_empty() || !name.is_empty();
        named && self.namespace.as_ref().is_none_or(|wanted| wanted == namespace) && name.starts_with(&self.prefix)
    }
}

/// Text in which `*` stands for any run of characters, also none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Glob(String);

impl Glob {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// In time O(pattern x text) at worst: only the last star is ever tried again.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Where to go on after a mismatch: behind the last star, one byte further in the text.
        let mut retry = None;
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                retry = Some((p + 1, t + 1));
                p += 1;
            } else if pattern.get(p) == Some(&text[t]) {
                p += 1;
                t += 1;
            } else if let Some((after, next)) = retry {
                retry = Some((after, next + 1));
                p = after;
                t = next;
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }
}

/// `[cluster/]node`, both with stars. No slash: any cluster, as this server speaks for one.
/// An empty part matches everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NodeName {
    cluster: Glob,
    node: Glob,
}

impl NodeName {
    pub(super) fn parse(text: &str) -> Self {
        let (cluster, node) = text.split_once('/').unwrap_or(("", text));
        let glob = |part: &str| Glob::new(if part.is_empty() { "*" } else { part });
        Self { cluster: glob(cluster), node: glob(node) }
    }

    pub(super) fn matches(&self, cluster: &str, node: &str) -> bool {
        self.cluster.matches(cluster) && self.node.matches(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_slash_is_in_namespace_default() {
        for (pattern, namespace, name, matches) in [
            ("web", "default", "web-0", true),
            ("web", "shop", "web-0", false),
            ("web-0x", "default", "web-0", false),
            ("shop/web", "shop", "web-0", true),
            ("shop/", "shop", "web-0", true),
            ("shop/", "shop", "", true),
            ("shop/", "shop2", "web-0", false),
            ("/web", "anything", "web-0", true),
            ("/web", "anything", "db-0", false),
            ("shop/web", "shop", "", false),
            ("/", "shop", "", true),
            ("/", "", "", false),
        ] {
            assert_eq!(Name::parse(pattern).matches(namespace, name), matches, "{pattern} on {namespace}/{name}");
        }
    }

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, text, matches) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "example.com", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("**a**", "bab", true),
            ("ab", "abc", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_forever() {
        let pattern = Glob::new(&"a*".repeat(400));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(250))));
        assert!(!Glob::new(&format!("{}b", "*a".repeat(400))).matches(&"a".repeat(900)));
    }

    #[test]
    fn a_node_name_may_have_a_cluster() {
        for (pattern, matches) in [
            ("node-a", true),
            ("node-*", true),
            ("default/node-a", true),
            ("default/", true),
            ("*/node-a", true),
            ("other/node-a", false),
            ("node-b", false),
        ] {
            assert_eq!(NodeName::parse(pattern).matches("default", "node-a"), matches, "{pattern}");
        }
    }

    #[test]
    fn networks_are_addresses_or_cidrs() {
        let contains =
            |network: &str, address: &str| Network::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.1", "10.0.0.1"));
        assert!(!contains("10.0.0.1", "10.0.0.2"));
        assert!(contains("10.0.0.9/8", "10.255.0.2"));
        assert!(contains("fd00::/64", "fd00::5"));
        assert!(!contains("fd00::/64", "10.0.0.1"));
        for bad in ["", "10.0.0", "10.0.0.0/33", "web", "10.0.0.1-10.0.0.9"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
