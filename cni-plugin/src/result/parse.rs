//! `prevResult`: a result that another plugin made, or we did, in whatever version.
//!
//! Keys that the version does not have are let pass: plugins in the field mix versions, and what we do
//! not read cannot hurt. What we read must be right, since it is handed on.

use std::net::IpAddr;

use proto::bulkhead::cni::v1::{CniResult, Dns, Interface, Ip, Route};

use crate::{
    conf::cidr,
    json::{Field, TypeError},
    version::Version,
};

/// A result that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    #[error(transparent)]
    Type(#[from] TypeError),
    #[error("{key}: {value}: {reason}")]
    Invalid { key: String, value: String, reason: &'static str },
}

impl ParseError {
    fn invalid(field: &Field<'_>, reason: &'static str) -> Self {
        Self::Invalid { key: field.path().to_owned(), value: field.excerpt(), reason }
    }
}

/// Reads a result. Its own `cniVersion` counts, else the configuration's `version`: libcni converts
/// to the latter, and older results need not carry any.
pub(crate) fn parse(field: &Field<'_>, version: Version) -> Result<CniResult, ParseError> {
    let version = match field.get("cniVersion")? {
        None => version,
        Some(stated) => match stated.str()? {
            "" => version,
            name => Version::parse(name).ok_or_else(|| ParseError::invalid(&stated, "is not a version we know"))?,
        },
    };
    let mut result = if version < Version::V0_3_0 { by_family(field)? } else { by_list(field)? };
    result.dns = field.read("dns", dns)?.filter(|d| *d != Dns::default());
    Ok(result)
}

/// 0.1.0 and 0.2.0.
fn by_family(field: &Field<'_>) -> Result<CniResult, ParseError> {
    let mut result = CniResult::default();
    for key in ["ip4", "ip6"] {
        let Some(family) = field.get(key)? else { continue };
        let Some(address) = family.get("ip")? else {
            return Err(ParseError::invalid(&family, "must have ip"));
        };
        result.ips.push(Ip { address: network(&address)?, gateway: gateway(&family, "gateway")?, interface: None });
        for entry in family.read("routes", Field::list)?.unwrap_or_default() {
            result.routes.push(route(&entry)?);
        }
    }
    Ok(result)
}

/// 0.3.0 and newer.
fn by_list(field: &Field<'_>) -> Result<CniResult, ParseError> {
    let mut result = CniResult::default();
    for entry in field.read("interfaces", Field::list)?.unwrap_or_default() {
        result.interfaces.push(interface(&entry)?);
    }
    for entry in field.read("ips", Field::list)?.unwrap_or_default() {
        result.ips.push(ip(&entry, result.interfaces.len())?);
    }
    for entry in field.read("routes", Field::list)?.unwrap_or_default() {
        result.routes.push(route(&entry)?);
    }
    Ok(result)
}

fn interface(field: &Field<'_>) -> Result<Interface, ParseError> {
    let text = |key| field.read(key, Field::string).map(Option::unwrap_or_default);
    Ok(Interface {
        name: text("name")?,
        mac: text("mac")?,
        mtu: field.read("mtu", Field::u32)?.unwrap_or_default(),
        sandbox: text("sandbox")?,
        socket_path: text("socketPath")?,
        pci_id: text("pciID")?,
    })
}

fn ip(field: &Field<'_>, interfaces: usize) -> Result<Ip, ParseError> {
    let Some(address) = field.get("address")? else { return Err(ParseError::invalid(field, "must have address")) };
    let interface = field.read("interface", |index| match index.i64()? {
        // Some plugins of 0.3.0 wrote -1 for "none".
        number if number < 0 => Ok(None),
        number => match u32::try_from(number) {
            Ok(number) if (number as usize) < interfaces => Ok(Some(number)),
            _ => Err(ParseError::invalid(index, "must be an index into interfaces")),
        },
    })?;
    Ok(Ip { address: network(&address)?, gateway: gateway(field, "gateway")?, interface: interface.flatten() })
}

fn route(field: &Field<'_>) -> Result<Route, ParseError> {
    let Some(dst) = field.get("dst")? else { return Err(ParseError::invalid(field, "must have dst")) };
    Ok(Route {
        dst: network(&dst)?,
        gw: gateway(field, "gw")?,
        mtu: field.read("mtu", Field::u32)?.unwrap_or_default(),
        advmss: field.read("advmss", Field::u32)?.unwrap_or_default(),
        priority: field.read("priority", Field::u32)?.unwrap_or_default(),
        table: field.read("table", Field::u32)?,
        scope: field.read("scope", Field::u32)?,
    })
}

fn dns(field: &Field<'_>) -> Result<Dns, ParseError> {
    Ok(Dns {
        nameservers: field.read("nameservers", Field::strings)?.unwrap_or_default(),
        domain: field.read("domain", Field::string)?.unwrap_or_default(),
        search: field.read("search", Field::strings)?.unwrap_or_default(),
        options: field.read("options", Field::strings)?.unwrap_or_default(),
    })
}

fn network(field: &Field<'_>) -> Result<String, ParseError> {
    match cidr(field.str()?) {
        Ok(_) => Ok(field.string()?),
        Err(reason) => Err(ParseError::invalid(field, reason)),
    }
}

fn gateway(field: &Field<'_>, key: &str) -> Result<String, ParseError> {
    let Some(address) = field.get(key)? else { return Ok(String::new()) };
    match address.str()? {
        "" => Ok(String::new()),
        text if text.parse::<IpAddr>().is_ok() => Ok(text.to_owned()),
        _ => Err(ParseError::invalid(&address, "must be an IP address")),
    }
}
