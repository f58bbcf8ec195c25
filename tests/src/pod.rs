//! A pod: a network namespace, attached by the real CNI plugin. No containers: what runs in it are
//! servers and clients of `traffic`.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Context as _;
use serde_json::Value;

use crate::{
    plugin::{Answer, Call, Plugin},
    sandbox::Sandbox,
};

/// Name of the interface in every pod.
pub const IFNAME: &str = "eth0";

/// A pod that was added. Its namespace goes with it; whoever wants a DEL calls it.
#[derive(Debug)]
pub struct Pod {
    /// `namespace/name`.
    pub key: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// Its namespace.
    pub sandbox: Sandbox,
    /// What ADD has returned.
    pub result: Value,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    plugin: Plugin,
}

/// A pod's namespace that is not attached yet.
#[derive(Debug)]
pub struct Blank {
    /// `namespace/name`.
    pub key: String,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// Its namespace.
    pub sandbox: Sandbox,
    /// How to call the plugin.
    pub plugin: Plugin,
}

impl Blank {
    /// With an empty namespace; the container id is the namespace's name.
    pub fn new(key: &str, plugin: &Plugin) -> anyhow::Result<Self> {
        Ok(Self::of(key, Sandbox::new("link set lo up\n")?, plugin))
    }

    /// With this namespace.
    pub fn of(key: &str, sandbox: Sandbox, plugin: &Plugin) -> Self {
        Self { key: key.to_owned(), container_id: sandbox.name().to_owned(), sandbox, plugin: plugin.clone() }
    }

    /// Makes a call about it.
    pub fn call(&self, command: &str) -> anyhow::Result<Answer> {
        call(&self.plugin, command, &self.key, &self.container_id, &self.sandbox.path())
    }

    /// ADD.
    pub fn add(self) -> anyhow::Result<Pod> {
        let result = self.call("ADD")?.result().with_context(|| format!("ADD of {}", self.key))?;
        let addresses = addresses(&result);
        let family = |v4: bool| {
            let found = addresses.iter().copied().find(|address| address.is_ipv4() == v4);
            found.with_context(|| format!("{} has got no IPv{} address: {result}", self.key, if v4 { 4 } else { 6 }))
        };
        let (v4, v6) = (family(true)?, family(false)?);
        Ok(Pod::of(self, result, v4, v6))
    }
}

impl Pod {
    /// What an ADD of a blank pod has made of it.
    pub fn of(blank: Blank, result: Value, v4: IpAddr, v6: IpAddr) -> Self {
        let Blank { key, container_id, sandbox, plugin } = blank;
        Self { key, container_id, sandbox, result, v4, v6, plugin }
    }

    /// Makes a call about it; CHECK and DEL get the result of ADD along.
    pub fn call(&self, command: &str) -> anyhow::Result<Answer> {
        let again = command == "ADD";
        let plugin = if again { self.plugin.clone() } else { self.plugin.after(&self.result) };
        call(&plugin, command, &self.key, &self.container_id, &self.sandbox.path())
    }

    /// DEL.
    pub fn del(self) -> anyhow::Result<()> {
        self.call("DEL")?.result().with_context(|| format!("DEL of {}", self.key))?;
        Ok(())
    }

    /// Both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4, self.v6]
    }

    /// Both addresses, with a port.
    pub fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.addresses().map(|address| SocketAddr::new(address, port))
    }

    /// MAC address of its interface, as ADD has returned it; zero if it has not.
    pub fn mac(&self) -> [u8; 6] {
        let interfaces = self.result["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
        let own = interfaces.iter().find(|interface| interface["name"] == IFNAME);
        let text = own.and_then(|interface| interface["mac"].as_str()).unwrap_or_default();
        let octets: Vec<u8> = text.split(':').filter_map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        octets.try_into().unwrap_or_default()
    }

    /// Name of the interface on the node's side.
    pub fn host_ifname(&self) -> String {
        self.result["interfaces"][0]["name"].as_str().unwrap_or_default().to_owned()
    }
}

fn call(plugin: &Plugin, command: &str, key: &str, container_id: &str, netns: &Path) -> anyhow::Result<Answer> {
    let (namespace, name) = key.split_once('/').with_context(|| format!("{key:?} is no namespace/name"))?;
    // As containerd's CRI plugin fills it in.
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
         K8S_POD_INFRA_CONTAINER_ID={container_id};K8S_POD_UID=uid-{container_id}"
    );
    let netns = netns.to_str().context("the path is text")?;
    plugin.call(Call { command, container_id, netns, ifname: IFNAME, args: &args })
}

/// The addresses in a result of version 0.3.0 or later.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
}
