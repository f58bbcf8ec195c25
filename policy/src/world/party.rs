//! Who somebody at a command line means: a pod by name, or whoever has an address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use super::{End, Flow, World};
use crate::model::{PodKey, canonical_ip};

/// A pod by name, or an address. Reads and prints as `namespace/name` or `10.0.0.1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Party {
    /// A pod.
    Pod(PodKey),
    /// An address, be it a pod's or not.
    Ip(IpAddr),
}

impl FromStr for Party {
    type Err = NotAParty;

    fn from_str(text: &str) -> Result<Self, NotAParty> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(canonical_ip(ip)));
        }
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Pod(PodKey::new(namespace, name)))
            }
            _ => Err(NotAParty { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => key.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// Neither an address nor `namespace/name`.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{text:?} is neither an IP address nor a pod: write namespace/name")]
pub struct NotAParty {
    /// What was written.
    pub text: String,
}

/// Two parties between whom there can be no flow.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NoFlow {
    /// No such pod.
    #[error("there is no pod {0}")]
    UnknownPod(PodKey),
    /// It has no address yet, or gave it back.
    #[error("pod {0} has no address")]
    NoAddress(PodKey),
    /// One has only IPv4, the other only IPv6 addresses.
    #[error("{0} and {1} have no address family in common")]
    NoCommonFamily(Party, Party),
}

impl World<'_> {
    /// The flow that `source` opens to `destination`, between the first addresses of a family that
    /// both have, IPv4 first.
    ///
    /// # Errors
    ///
    /// When one of them is not known, has no address, or both have none in common.
    pub fn flow(&self, source: &Party, destination: &Party, proto: u8, port: u16) -> Result<Flow, NoFlow> {
        let (from, to) = (self.ends(source)?, self.ends(destination)?);
        let pairs = to.iter().flat_map(|to| from.iter().map(move |from| (from, to)));
        let mut pairs = pairs.filter(|(from, to)| from.ip().is_ipv4() == to.ip().is_ipv4());
        match pairs.next() {
            Some((from, to)) => Ok(Flow { source: from.clone(), destination: to.clone(), proto, port }),
            None => Err(NoFlow::NoCommonFamily(source.clone(), destination.clone())),
        }
    }

    fn ends(&self, party: &Party) -> Result<Vec<End>, NoFlow> {
        match party {
            Party::Ip(ip) => Ok(vec![self.end(*ip)]),
            Party::Pod(key) => {
                let pod = self.index.pod(key).ok_or_else(|| NoFlow::UnknownPod(key.clone()))?;
                if pod.ips.is_empty() {
                    return Err(NoFlow::NoAddress(key.clone()));
                }
                Ok(pod.ips.iter().map(|ip| End::Pod(key.clone(), *ip)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use crate::model::Pod;

    fn index() -> Index {
        let mut index = Index::default();
        for (name, ips) in [("both", &["10.0.0.1", "fd00::1"][..]), ("six", &["fd00::2"]), ("none", &[])] {
            let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            index.apply(Pod { ips, ..Pod::new(PodKey::new("a", name)) }.into());
        }
        index
    }

    #[test]
    fn parties_read_as_they_print() {
        for text in ["10.0.0.1", "fd00::1", "a/web"] {
            assert_eq!(text.parse::<Party>().unwrap().to_string(), text);
        }
        assert_eq!("::ffff:10.0.0.1".parse::<Party>().unwrap().to_string(), "10.0.0.1");
        for text in ["web", "a/", "/web", "a/b/c", "", "10.0.0.0/8/1"] {
            let error = text.parse::<Party>().unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} is neither an IP address nor a pod: write namespace/name"));
        }
    }

    #[test]
    fn a_flow_takes_a_family_that_both_have() {
        let index = index();
        let world = World::new(&index);
        let flow = |from: &str, to: &str| -> Result<String, String> {
            let (from, to): (Party, Party) = (from.parse().unwrap(), to.parse().unwrap());
            world.flow(&from, &to, 6, 80).map(|flow| flow.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(flow("a/both", "a/six").unwrap(), "a/both (fd00::1) -> a/six (fd00::2) TCP/80");
        assert_eq!(flow("a/both", "10.0.0.9").unwrap(), "a/both (10.0.0.1) -> 10.0.0.9 TCP/80");
        assert_eq!(flow("fd00::2", "fd00::1").unwrap(), "a/six (fd00::2) -> a/both (fd00::1) TCP/80");
        assert_eq!(flow("a/six", "10.0.0.1").unwrap_err(), "a/six and 10.0.0.1 have no address family in common");
        assert_eq!(flow("a/none", "a/six").unwrap_err(), "pod a/none has no address");
        assert_eq!(flow("a/six", "a/gone").unwrap_err(), "there is no pod a/gone");
    }
}
