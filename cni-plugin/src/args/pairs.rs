//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`, in which Kubernetes runtimes say which pod this is.
//!
//! Unknown keys are an error unless `IgnoreUnknown=1` (CNI CONVENTIONS.md; Kubernetes runtimes
//! always set it). A key given twice is an error: which pod this is decides what it may do.

use std::{collections::BTreeMap, net::IpAddr};

use proto::bulkhead::cni::v1 as wire;

use super::{ArgsError, is_id};
use crate::conf::{Mac, plain_address};

const POD_NAMESPACE: &str = "K8S_POD_NAMESPACE";
const POD_NAME: &str = "K8S_POD_NAME";
const POD_UID: &str = "K8S_POD_UID";
const INFRA_CONTAINER_ID: &str = "K8S_POD_INFRA_CONTAINER_ID";

/// Longest name in Kubernetes: RFC 1123 subdomain.
const LONGEST_NAME: usize = 253;

/// `CNI_ARGS`, checked.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct CniArgs {
    pub(crate) pod: wire::Pod,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) mac: Option<Mac>,
    /// Keys we do not know.
    pub(crate) other: BTreeMap<String, String>,
}

impl CniArgs {
    /// Takes the text apart.
    pub(crate) fn parse(text: &str) -> Result<Self, ArgsError> {
        let mut pairs = split(text)?;
        let ignore_unknown = match pairs.remove("IgnoreUnknown") {
            None => false,
            Some(value) if value == "1" || value.eq_ignore_ascii_case("true") => true,
            Some(value) if value == "0" || value.eq_ignore_ascii_case("false") => false,
            Some(value) => return Err(arg("IgnoreUnknown", value, "must be 1, true, 0 or false")),
        };
        let mut name = |key: &'static str| match pairs.remove(key) {
            Some(value) if !value.is_empty() && !is_name(&value) => Err(arg(key, value, NAME_RULE)),
            value => Ok(value.unwrap_or_default()),
        };
        let pod = wire::Pod {
            namespace: name(POD_NAMESPACE)?,
            name: name(POD_NAME)?,
            uid: name(POD_UID)?,
            infra_container_id: name(INFRA_CONTAINER_ID)?,
        };
        // podman names a container and no namespace; the daemon knows which one is meant then.
        if pod.name.is_empty() && !pod.namespace.is_empty() {
            return Err(ArgsError::Incomplete { present: POD_NAMESPACE, absent: POD_NAME });
        }
        let ip = match pairs.remove("IP").filter(|v| !v.is_empty()) {
            Some(value) => Some(plain_address(&value).map_err(|reason| arg("IP", value, reason))?),
            None => None,
        };
        let mac = match pairs.remove("MAC").filter(|v| !v.is_empty()) {
            Some(value) => Some(Mac::parse(&value).map_err(|reason| arg("MAC", value, reason))?),
            None => None,
        };
        if !pairs.is_empty() && !ignore_unknown {
            return Err(ArgsError::Unknown(pairs.into_keys().collect()));
        }
        Ok(Self { pod, ip, mac, other: pairs })
    }
}

const NAME_RULE: &str = "must begin with a letter or digit, go on with letters, digits, '_', '.' or '-', and not be longer \
     than 253 bytes";

/// What a pod can be called. Wider than Kubernetes' own rule: podman puts container names here.
fn is_name(text: &str) -> bool {
    is_id(text) && text.len() <= LONGEST_NAME
}

fn arg(key: &'static str, value: String, reason: &'static str) -> ArgsError {
    ArgsError::Arg { key, value, reason }
}

fn split(text: &str) -> Result<BTreeMap<String, String>, ArgsError> {
    let mut pairs = BTreeMap::new();
    if text.is_empty() {
        return Ok(pairs);
    }
    for pair in text.split(';') {
        let (key, value) = pair.split_once('=').ok_or_else(|| ArgsError::Pair(pair.to_owned()))?;
        if key.is_empty() {
            return Err(ArgsError::Pair(pair.to_owned()));
        }
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(ArgsError::Twice(key.to_owned()));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        CniArgs::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_containerd_sends_is_understood() {
        let args = CniArgs::parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee;\
             K8S_POD_UID=0b7e;SOMETHING=else=more",
        )
        .unwrap();
        let pod = wire::Pod {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "0b7e".into(),
            infra_container_id: "c0ffee".into(),
        };
        assert_eq!(args.pod, pod);
        assert_eq!(args.other, BTreeMap::from([("SOMETHING".into(), "else=more".into())]));
    }

    #[test]
    fn what_podman_sends_is_understood() {
        // podman 4.3 with its CNI backend.
        let args = CniArgs::parse("IgnoreUnknown=1;K8S_POD_NAME=shop_web").unwrap();
        assert_eq!(args.pod, wire::Pod { name: "shop_web".into(), ..wire::Pod::default() });
    }

    #[test]
    fn nothing_is_fine() {
        assert_eq!(CniArgs::parse("").unwrap(), CniArgs::default());
        assert_eq!(CniArgs::parse("K8S_POD_NAME=;K8S_POD_NAMESPACE=;IP=;MAC=").unwrap(), CniArgs::default());
    }

    #[test]
    fn addresses_are_read_with_and_without_prefix() {
        let args = CniArgs::parse("IP=10.1.2.3/24;MAC=02:00:00:AA:bb:0c").unwrap();
        assert_eq!(args.ip, Some("10.1.2.3".parse().unwrap()));
        assert_eq!(args.mac.unwrap().to_string(), "02:00:00:aa:bb:0c");
        assert_eq!(CniArgs::parse("IP=fd00::1").unwrap().ip, Some("fd00::1".parse().unwrap()));
    }

    #[test]
    fn unknown_keys_need_ignore_unknown() {
        assert_eq!(error("B=2;A=1"), "CNI_ARGS: unknown keys: A, B");
        assert_eq!(error("A=1;IgnoreUnknown=0"), "CNI_ARGS: unknown key: A");
        assert_eq!(error("A=1;ignoreunknown=1"), "CNI_ARGS: unknown keys: A, ignoreunknown");
        for yes in ["1", "true", "True", "TRUE"] {
            assert!(CniArgs::parse(&format!("A=1;IgnoreUnknown={yes}")).is_ok());
        }
        assert_eq!(error("IgnoreUnknown=yes"), "CNI_ARGS: IgnoreUnknown=\"yes\": must be 1, true, 0 or false");
    }

    #[test]
    fn broken_pairs_are_named() {
        assert_eq!(error("A"), "CNI_ARGS: \"A\" is not of the form KEY=VALUE");
        assert_eq!(error("IgnoreUnknown=1;;A=1"), "CNI_ARGS: \"\" is not of the form KEY=VALUE");
        assert_eq!(error("=1"), "CNI_ARGS: \"=1\" is not of the form KEY=VALUE");
    }

    #[test]
    fn a_pod_cannot_be_named_twice_or_by_its_namespace_alone() {
        assert_eq!(error("K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_NAME=c"), "CNI_ARGS: K8S_POD_NAME is given twice");
        assert_eq!(error("K8S_POD_NAMESPACE=a"), "CNI_ARGS: K8S_POD_NAMESPACE is given without K8S_POD_NAME");
    }

    #[test]
    fn names_cannot_leave_their_place() {
        for bad in ["../etc", "a/b", "-a", ".", "a b", "ä", &"x".repeat(254)] {
            let text = format!("K8S_POD_NAMESPACE=a;K8S_POD_NAME={bad}");
            assert!(error(&text).starts_with("CNI_ARGS: K8S_POD_NAME="), "{bad}");
        }
        assert!(error("IP=10.0.0.256").contains("IP=\"10.0.0.256\""));
        assert!(error("MAC=01:00:00:00:00:01").contains("MAC="));
    }
}
