//! `prevResult` on ADD: what plugins before us made is passed on with ours behind it.
//!
//! bulkhead-cni makes the pod's interface, so it comes first in a list; portmap, bandwidth, tuning and
//! the like come after it and see our result. One that comes before us may have made other
//! interfaces; one that made ours is in our place.

use proto::bulkhead::cni::v1::{CniResult, Dns};

/// A chain that cannot work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ChainError {
    #[error("prevResult already has interface {ifname:?} in the container: a plugin before bulkhead-cni made it")]
    InterfaceTaken { ifname: String },
}

/// Fails where another plugin has already made the interface that we are to make.
pub(crate) fn check(prev: Option<&CniResult>, ifname: &str) -> Result<(), ChainError> {
    let taken = prev.is_some_and(|p| p.interfaces.iter().any(|i| i.name == ifname && !i.sandbox.is_empty()));
    if taken { Err(ChainError::InterfaceTaken { ifname: ifname.to_owned() }) } else { Ok(()) }
}

/// `prev` with `ours` behind it. DNS: the daemon's, else the configuration's, else what was there.
pub(crate) fn merge(prev: Option<CniResult>, ours: CniResult, configured: Option<Dns>) -> CniResult {
    let CniResult { interfaces, ips, routes, dns } = ours;
    let mut out = prev.unwrap_or_default();
    let before = u32::try_from(out.interfaces.len()).unwrap_or(u32::MAX);
    out.interfaces.extend(interfaces);
    out.ips.extend(ips.into_iter().map(|mut ip| {
        ip.interface = ip.interface.map(|index| index.saturating_add(before));
        ip
    }));
    out.routes.extend(routes);
    let stated = dns.filter(|d| *d != Dns::default());
    out.dns = stated.or(configured).or(out.dns);
    out
}

#[cfg(test)]
mod tests {
    use proto::bulkhead::cni::v1::{Interface, Ip, Route};

    use super::*;

    fn interface(name: &str, sandbox: &str) -> Interface {
        Interface { name: name.into(), sandbox: sandbox.into(), ..Interface::default() }
    }

    fn ip(address: &str, interface: Option<u32>) -> Ip {
        Ip { address: address.into(), interface, ..Ip::default() }
    }

    fn dns(nameserver: &str) -> Option<Dns> {
        Some(Dns { nameservers: vec![nameserver.into()], ..Dns::default() })
    }

    #[test]
    fn what_was_there_stays_in_its_place() {
        let prev = CniResult {
            interfaces: vec![interface("lo", "/ns")],
            ips: vec![ip("127.0.0.1/8", Some(0))],
            routes: vec![Route { dst: "127.0.0.0/8".into(), ..Route::default() }],
            dns: dns("1.1.1.1"),
        };
        let ours = CniResult {
            interfaces: vec![interface("bh0", ""), interface("eth0", "/ns")],
            ips: vec![ip("10.0.0.2/32", Some(1)), ip("10.0.0.3/32", None)],
            routes: vec![Route { dst: "0.0.0.0/0".into(), ..Route::default() }],
            dns: None,
        };
        let merged = merge(Some(prev), ours, None);
        let names: Vec<_> = merged.interfaces.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["lo", "bh0", "eth0"]);
        let indices: Vec<_> = merged.ips.iter().map(|i| i.interface).collect();
        assert_eq!(indices, [Some(0), Some(2), None]);
        assert_eq!(merged.routes.len(), 2);
        assert_eq!(merged.dns, dns("1.1.1.1"));
    }

    #[test]
    fn dns_comes_from_the_daemon_then_the_configuration_then_the_chain() {
        let with = |d| CniResult { dns: d, ..CniResult::default() };
        assert_eq!(merge(Some(with(dns("1.1.1.1"))), with(dns("3.3.3.3")), dns("2.2.2.2")).dns, dns("3.3.3.3"));
        assert_eq!(merge(Some(with(dns("1.1.1.1"))), with(Some(Dns::default())), dns("2.2.2.2")).dns, dns("2.2.2.2"));
        assert_eq!(merge(Some(with(dns("1.1.1.1"))), with(None), None).dns, dns("1.1.1.1"));
        assert_eq!(merge(None, with(None), None).dns, None);
    }

    #[test]
    fn only_the_containers_side_takes_the_name() {
        let prev = |i| CniResult { interfaces: vec![i], ..CniResult::default() };
        assert!(check(Some(&prev(interface("eth0", "/ns"))), "eth0").is_err());
        assert!(check(Some(&prev(interface("eth0", ""))), "eth0").is_ok());
        assert!(check(Some(&prev(interface("lo", "/ns"))), "eth0").is_ok());
        assert!(check(None, "eth0").is_ok());
    }
}
