//! A result as JSON, in the version that the configuration asked for.
//!
//! Optional keys without a value are left out. What an older version has no place for is dropped, as
//! CNI's own conversion does; a result that an older version cannot express at all is an error.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use proto::bulkhead::cni::v1::{CniResult, Dns, Interface, Ip, Route};
use serde_json::{Map, Value, json};

use crate::{conf::cidr, version::Version};

/// A result that cannot be written. It comes from the daemon, so each is its defect.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum RenderError {
    #[error("bulkhead-daemon's result is wrong: {key} is {value:?}")]
    Malformed { key: &'static str, value: String },
    #[error("bulkhead-daemon's result has an address on interface {index} of {count}")]
    Index { index: u32, count: usize },
    #[error("a result without an address cannot be written as CNI {0}")]
    NoAddress(Version),
}

/// Writes `result` in the shape of `version`.
pub(crate) fn render(result: &CniResult, version: Version) -> Result<Value, RenderError> {
    check(result)?;
    let mut out = Map::new();
    out.insert("cniVersion".to_owned(), version.as_str().into());
    if version < Version::V0_3_0 {
        by_family(result, version, &mut out)?;
    } else {
        by_list(result, version, &mut out)?;
    }
    if let Some(dns) = result.dns.as_ref().filter(|d| **d != Dns::default()) {
        out.insert("dns".to_owned(), dns_value(dns));
    }
    Ok(out.into())
}

fn check(result: &CniResult) -> Result<(), RenderError> {
    let CniResult { interfaces, ips, routes, dns: _ } = result;
    for ip in ips {
        address("ips.address", &ip.address)?;
        plain("ips.gateway", &ip.gateway)?;
        if let Some(index) = ip.interface
            && index as usize >= interfaces.len()
        {
            return Err(RenderError::Index { index, count: interfaces.len() });
        }
    }
    for route in routes {
        address("routes.dst", &route.dst)?;
        plain("routes.gw", &route.gw)?;
    }
    Ok(())
}

/// 0.1.0 and 0.2.0: the first address of each family, and the routes of that family.
fn by_family(result: &CniResult, version: Version, out: &mut Map<String, Value>) -> Result<(), RenderError> {
    for (key, v4) in [("ip4", true), ("ip6", false)] {
        let Some(ip) = result.ips.iter().find(|ip| is_v4(&ip.address) == v4) else { continue };
        let mut family = Map::new();
        family.insert("ip".to_owned(), ip.address.clone().into());
        put(&mut family, "gateway", &ip.gateway);
        let routes: Vec<Value> =
            result.routes.iter().filter(|r| is_v4(&r.dst) == v4).map(|r| route_value(r, version)).collect();
        if !routes.is_empty() {
            family.insert("routes".to_owned(), routes.into());
        }
        out.insert(key.to_owned(), family.into());
    }
    if out.contains_key("ip4") || out.contains_key("ip6") { Ok(()) } else { Err(RenderError::NoAddress(version)) }
}

/// 0.3.0 and newer.
fn by_list(result: &CniResult, version: Version, out: &mut Map<String, Value>) -> Result<(), RenderError> {
    let CniResult { interfaces, ips, routes, dns: _ } = result;
    let mut list = |key: &str, values: Vec<Value>| {
        if !values.is_empty() {
            out.insert(key.to_owned(), values.into());
        }
    };
    list("interfaces", interfaces.iter().map(|i| interface_value(i, version)).collect());
    list("ips", ips.iter().map(|i| ip_value(i, version)).collect());
    list("routes", routes.iter().map(|r| route_value(r, version)).collect());
    Ok(())
}

fn interface_value(interface: &Interface, version: Version) -> Value {
    let Interface { name, mac, mtu, sandbox, socket_path, pci_id } = interface;
    let mut out = Map::new();
    out.insert("name".to_owned(), name.clone().into());
    put(&mut out, "mac", mac);
    put(&mut out, "sandbox", sandbox);
    if version >= Version::V1_1_0 {
        put_number(&mut out, "mtu", *mtu);
        put(&mut out, "socketPath", socket_path);
        put(&mut out, "pciID", pci_id);
    }
    out.into()
}

fn ip_value(ip: &Ip, version: Version) -> Value {
    let Ip { address, gateway, interface } = ip;
    let mut out = Map::new();
    if version < Version::V1_0_0 {
        out.insert("version".to_owned(), if is_v4(address) { "4" } else { "6" }.into());
    }
    out.insert("address".to_owned(), address.clone().into());
    put(&mut out, "gateway", gateway);
    if let Some(index) = interface {
        out.insert("interface".to_owned(), (*index).into());
    }
    out.into()
}

fn route_value(route: &Route, version: Version) -> Value {
    let Route { dst, gw, mtu, advmss, priority, table, scope } = route;
    let mut out = Map::new();
    out.insert("dst".to_owned(), dst.clone().into());
    put(&mut out, "gw", gw);
    if version >= Version::V1_1_0 {
        put_number(&mut out, "mtu", *mtu);
        put_number(&mut out, "advmss", *advmss);
        put_number(&mut out, "priority", *priority);
        if let Some(table) = table {
            out.insert("table".to_owned(), (*table).into());
        }
        if let Some(scope) = scope {
            out.insert("scope".to_owned(), (*scope).into());
        }
    }
    out.into()
}

fn dns_value(dns: &Dns) -> Value {
    let Dns { nameservers, domain, search, options } = dns;
    let mut out = Map::new();
    for (key, list) in [("nameservers", nameservers), ("search", search), ("options", options)] {
        if !list.is_empty() {
            out.insert(key.to_owned(), json!(list));
        }
    }
    put(&mut out, "domain", domain);
    out.into()
}

fn put(out: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        out.insert(key.to_owned(), text.into());
    }
}

fn put_number(out: &mut Map<String, Value>, key: &str, number: u32) {
    if number != 0 {
        out.insert(key.to_owned(), number.into());
    }
}

fn address(key: &'static str, text: &str) -> Result<IpNetwork, RenderError> {
    cidr(text).map_err(|_| RenderError::Malformed { key, value: text.to_owned() })
}

fn plain(key: &'static str, text: &str) -> Result<(), RenderError> {
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(RenderError::Malformed { key, value: text.to_owned() })
}

/// The family of an address that `check` has seen.
fn is_v4(text: &str) -> bool {
    !text.contains(':')
}
