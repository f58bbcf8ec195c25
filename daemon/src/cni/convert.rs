//! The plugin's messages to our own types and back. The plugin has checked its input; the socket
//! is an interface all the same, so everything is parsed again.

use std::net::IpAddr;

use proto::bulkhead::cni::v1 as wire;

use crate::{
    ipam::{Owner, PodAddress},
    mac::Mac,
    state::PodRef,
};

/// Codes of the CNI specification 1.1.0 (section "Error") and our own from 100 on.
pub mod code {
    /// A field we cannot serve.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is not known.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// The environment, or what came of it, is wrong.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// The network configuration is wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// Try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// ADD cannot be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// ADD cannot be served, and pods that run are impaired.
    pub const LIMITED: u32 = 51;
    /// Ours: no address is free.
    pub const NO_ADDRESS: u32 = 110;
    /// Ours: the interface, or the attachment, is there already.
    pub const EXISTS: u32 = 111;
    /// Ours: CHECK found a difference.
    pub const DIFFERS: u32 = 112;
    /// Ours: the maps are full.
    pub const NO_SPACE: u32 = 113;
    /// Ours: the kernel refused.
    pub const KERNEL: u32 = 114;
}

/// A request that cannot be served as it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{msg}")]
pub struct BadRequest {
    /// Code for the runtime.
    pub code: u32,
    /// What is wrong, with the field's name.
    pub msg: String,
}

impl BadRequest {
    fn field(code: u32, field: &str, problem: impl std::fmt::Display) -> Self {
        Self { code, msg: format!("{field}: {problem}") }
    }
}

impl From<BadRequest> for wire::CniError {
    fn from(bad: BadRequest) -> Self {
        let BadRequest { code, msg } = bad;
        Self { code, msg, details: String::new() }
    }
}

/// Longest name that is taken. Container ids have 64 characters, pod names 253 (RFC 1123 names).
const MAX_NAME: usize = 512;

/// An attachment's name.
pub fn owner(id: Option<wire::AttachmentId>) -> Result<Owner, BadRequest> {
    let wire::AttachmentId { container_id, ifname } =
        id.ok_or_else(|| BadRequest::field(code::INVALID_ENVIRONMENT, "id", "missing"))?;
    let bad = |field: &str, problem: &str| Err(BadRequest::field(code::INVALID_ENVIRONMENT, field, problem));
    let mut bytes = container_id.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || !bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return bad("id.container_id", "want letters, digits, `_`, `.` and `-`, a letter or digit first");
    }
    if container_id.len() > MAX_NAME {
        return bad("id.container_id", "longer than 512 characters");
    }
    let forbidden = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0;
    if ifname.is_empty() || ifname.len() > 15 || ifname == "." || ifname == ".." || ifname.bytes().any(forbidden) {
        return bad("id.ifname", "want 1 to 15 characters, none of `/`, `:` or white space");
    }
    Ok(Owner::new(container_id, ifname))
}

/// A network namespace: path and inode.
pub fn netns(netns: Option<wire::Netns>) -> Result<(String, u64), BadRequest> {
    match netns {
        Some(wire::Netns { path, inode }) if path.starts_with('/') && path.len() < 4096 && !path.contains('\0') => {
            Ok((path, inode))
        }
        Some(wire::Netns { path, .. }) => Err(BadRequest::field(
            code::INVALID_ENVIRONMENT,
            "netns.path",
            format_args!("{path:?} is no absolute path"),
        )),
        None => Err(BadRequest::field(code::INVALID_ENVIRONMENT, "netns", "missing")),
    }
}

/// The pod a runtime names; a container without a pod is known by its id in namespace `default`.
pub fn pod(pod: Option<wire::Pod>, owner: &Owner) -> Result<PodRef, BadRequest> {
    let wire::Pod { namespace, name, uid, infra_container_id: _ } = pod.unwrap_or_default();
    for (field, value) in [("pod.namespace", &namespace), ("pod.name", &name), ("pod.uid", &uid)] {
        if value.len() > MAX_NAME || value.chars().any(|it| it.is_control() || it == '/') {
            return Err(BadRequest::field(
                code::INVALID_ENVIRONMENT,
                field,
                "too long, or with `/` or control characters",
            ));
        }
    }
    Ok(PodRef {
        namespace: if namespace.is_empty() { "default".to_owned() } else { namespace },
        name: if name.is_empty() { owner.container_id.clone() } else { name },
        uid,
    })
}

/// A requested MAC address; `None` for any.
pub fn mac(text: &str) -> Result<Option<Mac>, BadRequest> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| BadRequest::field(code::INVALID_CONFIG, "mac", error))
}

/// Requested addresses.
pub fn ips(texts: &[String]) -> Result<Vec<IpAddr>, BadRequest> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|_| BadRequest::field(code::INVALID_CONFIG, "ips", format_args!("{text:?} is no IP address")))
    };
    texts.iter().map(parse).collect()
}

/// An MTU: 0, or one that IPv6 can live with (RFC 8200, section 5).
pub fn mtu(mtu: u32) -> Result<u32, BadRequest> {
    if mtu == 0 || (1280..=65_535).contains(&mtu) {
        return Ok(mtu);
    }
    Err(BadRequest::field(code::INVALID_CONFIG, "mtu", format_args!("{mtu} is not between 1280 and 65535")))
}

/// The addresses that a result gives to an interface of the pod.
pub fn addresses_in(result: Option<&wire::CniResult>, ifname: &str) -> Vec<IpAddr> {
    let Some(result) = result else { return Vec::new() };
    let is_ours = |index: u32| {
        result.interfaces.get(index as usize).is_some_and(|it| it.name == ifname && !it.sandbox.is_empty())
    };
    let ours = result.ips.iter().filter(|ip| ip.interface.is_some_and(is_ours));
    ours.filter_map(|ip| ip.address.split('/').next()?.parse().ok()).collect()
}

/// What ADD has made, for the runtime.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// Interface in the pod, its MAC address, the pod's namespace.
    pub pod: (String, Mac, String),
    /// Interface on the host and its MAC address.
    pub host: (String, Mac),
    /// MTU of both, in bytes.
    pub mtu: u32,
    /// Addresses and gateways.
    pub addresses: Vec<PodAddress>,
}

impl From<Made> for wire::CniResult {
    fn from(made: Made) -> Self {
        let Made { pod: (ifname, mac, sandbox), host: (host_ifname, host_mac), mtu, addresses } = made;
        let interface = |name: String, mac: Mac, sandbox: String| wire::Interface {
            name,
            mac: mac.to_string(),
            mtu,
            sandbox,
            ..Default::default()
        };
        Self {
            // The pod's interface comes second, as in the reference plugins; addresses name it.
            interfaces: vec![interface(host_ifname, host_mac, String::new()), interface(ifname, mac, sandbox)],
            ips: addresses
                .iter()
                .map(|it| wire::Ip {
                    address: format!("{}/{}", it.address, if it.address.is_ipv4() { 32 } else { 128 }),
                    gateway: it.gateway.to_string(),
                    interface: Some(1),
                })
                .collect(),
            routes: addresses
                .iter()
                .map(|it| wire::Route {
                    dst: if it.address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }.to_owned(),
                    gw: it.gateway.to_string(),
                    ..Default::default()
                })
                .collect(),
            dns: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container_id: &str, ifname: &str) -> Option<wire::AttachmentId> {
        Some(wire::AttachmentId { container_id: container_id.to_owned(), ifname: ifname.to_owned() })
    }

    #[test]
    fn names_of_attachments_are_those_the_specification_allows() {
        assert_eq!(owner(id("a0_.-", "eth0")), Ok(Owner::new("a0_.-", "eth0")));
        for (container, ifname, field) in [
            ("", "eth0", "id.container_id"),
            ("../x", "eth0", "id.container_id"),
            ("-a", "eth0", "id.container_id"),
            ("a", "", "id.ifname"),
            ("a", "..", "id.ifname"),
            ("a", "eth 0", "id.ifname"),
            ("a", "sixteen-letters-", "id.ifname"),
        ] {
            let bad = owner(id(container, ifname)).expect_err("refused");
            assert!(bad.msg.starts_with(field), "{container:?} {ifname:?}: {bad}");
            assert_eq!(bad.code, code::INVALID_ENVIRONMENT);
        }
    }

    #[test]
    fn a_container_without_a_pod_is_known_by_its_id() {
        let owner = Owner::new("c1", "eth0");
        let found = pod(None, &owner).expect("nothing is wrong");
        assert_eq!((found.namespace.as_str(), found.name.as_str()), ("default", "c1"));
        assert!(pod(Some(wire::Pod { name: "a/b".into(), ..Default::default() }), &owner).is_err());
    }

    #[test]
    fn only_the_addresses_of_our_interface_count() {
        let result = wire::CniResult {
            interfaces: vec![
                wire::Interface { name: "bh1".into(), ..Default::default() },
                wire::Interface { name: "eth0".into(), sandbox: "/run/netns/a".into(), ..Default::default() },
            ],
            ips: vec![
                wire::Ip { address: "10.0.0.2/32".into(), interface: Some(1), ..Default::default() },
                wire::Ip { address: "10.0.0.9/32".into(), interface: Some(0), ..Default::default() },
                wire::Ip { address: "10.0.0.8/32".into(), interface: None, ..Default::default() },
            ],
            ..Default::default()
        };
        assert_eq!(addresses_in(Some(&result), "eth0"), ["10.0.0.2".parse::<IpAddr>().expect("an address")]);
        assert_eq!(addresses_in(Some(&result), "eth1"), Vec::<IpAddr>::new());
    }
}
