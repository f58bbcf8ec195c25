//! What a runtime wants for one attachment: `runtimeConfig` and `args.cni` (CNI CONVENTIONS.md).
//!
//! A capability that we do not have is refused by name when a runtime asks for it: a host port that
//! silently does not exist is worse than a pod that does not start. `args` beyond what is read here
//! is other parties' business and let pass, as the conventions say.

use std::{collections::BTreeMap, net::IpAddr};

use proto::bulkhead::cni::v1::Dns;

use super::{ConfError, Mac, plain_address};
use crate::json::Field;

/// What is wanted.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) mac: Option<Mac>,
    /// At most one per family.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) aliases: Vec<String>,
    pub(crate) cgroup_path: String,
    pub(crate) pod_annotations: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

impl Wanted {
    /// Reads both places.
    pub(super) fn read(root: &Field<'_>) -> Result<Self, ConfError> {
        let mut wanted = Self::default();
        if let Some(args) = root.get("args")?
            && let Some(cni) = args.get("cni")?
        {
            wanted.read_args(&cni)?;
        }
        if let Some(runtime) = root.get("runtimeConfig")? {
            wanted.read_runtime(&runtime)?;
        }
        Ok(wanted)
    }

    fn read_args(&mut self, cni: &Field<'_>) -> Result<(), ConfError> {
        if let Some(ips) = cni.get("ips")? {
            self.add_ips(&ips)?;
        }
        for label in cni.read("labels", Field::list)?.unwrap_or_default() {
            let key = label.read("key", Field::string)?.filter(|k| !k.is_empty());
            let key = key.ok_or_else(|| ConfError::invalid(&label, "must have a key"))?;
            self.labels.insert(key, label.read("value", Field::string)?.unwrap_or_default());
        }
        Ok(())
    }

    fn read_runtime(&mut self, runtime: &Field<'_>) -> Result<(), ConfError> {
        for (key, field) in runtime.entries()? {
            if field.is_empty() {
                continue;
            }
            match key {
                "mac" => self.mac = Some(Mac::parse(field.str()?).map_err(|r| ConfError::invalid(&field, r))?),
                "ips" => self.add_ips(&field)?,
                "aliases" => self.aliases = field.strings()?,
                "cgroupPath" => self.cgroup_path = field.string()?,
                ANNOTATIONS => {
                    for (name, value) in field.entries()? {
                        self.pod_annotations.insert(name.to_owned(), value.string()?);
                    }
                }
                "dns" => {} // read by `dns`
                _ => return Err(unsupported(key, &field)),
            }
        }
        Ok(())
    }

    fn add_ips(&mut self, list: &Field<'_>) -> Result<(), ConfError> {
        for field in list.list()? {
            let ip = plain_address(field.str()?).map_err(|reason| ConfError::invalid(&field, reason))?;
            self.add_ip(ip).map_err(|reason| ConfError::invalid(&field, reason))?;
        }
        Ok(())
    }

    /// What CNI_ARGS wants, too, the old way to say it. The configuration's MAC address counts more.
    pub(crate) fn with(mut self, ip: Option<IpAddr>, mac: Option<Mac>) -> Result<Self, String> {
        self.mac = self.mac.or(mac);
        if let Some(ip) = ip {
            self.add_ip(ip)?;
        }
        Ok(self)
    }

    fn add_ip(&mut self, ip: IpAddr) -> Result<(), String> {
        match self.ips.iter().find(|other| other.is_ipv4() == ip.is_ipv4()) {
            Some(same) if *same == ip => {}
            Some(other) => return Err(format!("a pod has one address per family, and {other} is wanted as well")),
            None => self.ips.push(ip),
        }
        Ok(())
    }
}

fn unsupported(key: &str, field: &Field<'_>) -> ConfError {
    let fix = match key {
        "portMappings" => "add the portmap plugin after bulkhead-cni and give the capability to it",
        "bandwidth" => "add the bandwidth plugin after bulkhead-cni and give the capability to it",
        "ipRanges" => "remove the capability: the ranges are settings of bulkhead-daemon",
        _ => "remove the capability from bulkhead-cni's section of the network configuration",
    };
    ConfError::Unsupported { key: field.path().to_owned(), value: field.excerpt(), fix: fix.to_owned() }
}

/// What resolv.conf should hold: `runtimeConfig.dns`, else `dns`.
pub(super) fn dns(root: &Field<'_>) -> Result<Option<Dns>, ConfError> {
    let configured = root.read("dns", |dns| {
        Ok::<_, ConfError>(Dns {
            nameservers: nameservers(dns, "nameservers")?,
            domain: dns.read("domain", Field::string)?.unwrap_or_default(),
            search: dns.read("search", Field::strings)?.unwrap_or_default(),
            options: dns.read("options", Field::strings)?.unwrap_or_default(),
        })
    })?;
    let Some(runtime) = root.get("runtimeConfig")? else { return Ok(stated(configured)) };
    let from_runtime = runtime.read("dns", |dns| {
        Ok::<_, ConfError>(Dns {
            nameservers: nameservers(dns, "servers")?,
            domain: String::new(),
            search: dns.read("searches", Field::strings)?.unwrap_or_default(),
            options: dns.read("options", Field::strings)?.unwrap_or_default(),
        })
    })?;
    Ok(stated(from_runtime).or(stated(configured)))
}

fn stated(dns: Option<Dns>) -> Option<Dns> {
    dns.filter(|d| *d != Dns::default())
}

fn nameservers(dns: &Field<'_>, key: &str) -> Result<Vec<String>, ConfError> {
    let list = dns.read(key, Field::list)?.unwrap_or_default();
    list.iter()
        .map(|field| {
            let text = field.str()?;
            // resolv.conf(5) lets a link-local address name its link: fe80::1%eth0.
            let address = text.split_once('%').map_or(text, |(address, _)| address);
            match address.parse::<IpAddr>() {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err(ConfError::invalid(field, "must be an IP address")),
            }
        })
        .collect()
}
