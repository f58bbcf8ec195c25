//! Whatever the environment and stdin hold, the runtime gets a result or a proper error.

use std::{collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStringExt};

use proptest::{collection, option, prelude::*, sample};
use serde_json::{Map, Value, json};

use super::fake::{Behaviour, Fake, Ran, dispatch, env};
use crate::{
    fuzz::{self, Codes},
    version::Version,
};

/// The promise.
fn is_proper(command: Option<&str>, ran: &Ran) -> Result<(), TestCaseError> {
    let proper = fuzz::is_proper(command, Codes::Own, ran.exit, ran.stdout.as_bytes(), ran.stderr.as_bytes());
    proper.map_err(|problem| TestCaseError::fail(format!("{problem}: {ran:?}")))
}

/// Any JSON, not very deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|n| json!(n)),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            collection::vec((key(), inner), 0..4).prop_map(|pairs| pairs.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

/// Text that is often nearly right.
fn text() -> impl Strategy<Value = String> {
    const LIKELY: &[&str] = &[
        "",
        "shop",
        "1.1.0",
        "0.4.0",
        "0.2.0",
        "10.0.0.2/24",
        "10.0.0.2",
        "fd00::2/64",
        "02:00:00:00:00:01",
        "/run/x",
        "eth0",
        "c1",
        "::/0",
        "10.0.0.2/",
        "/",
    ];
    prop_oneof![3 => sample::select(LIKELY).prop_map(str::to_owned), 1 => any::<String>()]
}

/// Keys that are read somewhere, and others.
fn key() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "cniVersion",
        "name",
        "type",
        "capabilities",
        "args",
        "cni",
        "labels",
        "ips",
        "key",
        "value",
        "ipam",
        "ipMasq",
        "dns",
        "nameservers",
        "servers",
        "search",
        "prevResult",
        "runtimeConfig",
        "mac",
        "aliases",
        "portMappings",
        "cgroupPath",
        "mtu",
        "socket",
        "timeoutSeconds",
        "interfaces",
        "routes",
        "ip4",
        "ip6",
        "ip",
        "dst",
        "gw",
        "gateway",
        "address",
        "interface",
        "table",
        "cni.dev/valid-attachments",
        "containerID",
        "ifname",
    ];
    prop_oneof![4 => sample::select(KNOWN).prop_map(str::to_owned), 1 => any::<String>()]
}

/// A configuration that begins right, so that the later checks are reached.
fn nearly_a_configuration() -> impl Strategy<Value = Value> {
    let version = sample::select(&Version::ALL[..]);
    (version, collection::vec((key(), any_json()), 0..4)).prop_map(|(version, pairs)| {
        let mut conf = json!({"cniVersion": version.as_str(), "name": "shop", "prevResult": {}});
        for (key, value) in pairs {
            conf[key] = value;
        }
        conf
    })
}

fn command() -> impl Strategy<Value = &'static str> {
    sample::select(&["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"][..])
}

/// CNI_ARGS made of likely pairs.
fn cni_args() -> impl Strategy<Value = String> {
    let key = sample::select(&["IgnoreUnknown", "K8S_POD_NAME", "K8S_POD_NAMESPACE", "IP", "MAC", "X", ""][..]);
    collection::vec((key, text()), 0..5)
        .prop_map(|pairs| pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(";"))
}

proptest! {
    #[test]
    fn any_bytes_on_stdin(command in command(), stdin in collection::vec(any::<u8>(), 0..200)) {
        let ran = dispatch(&Fake::new(Behaviour::Serve), &env(command), &stdin);
        is_proper(Some(command), &ran)?;
    }

    #[test]
    fn any_json_on_stdin(command in command(), stdin in any_json()) {
        let ran = dispatch(&Fake::new(Behaviour::Serve), &env(command), stdin.to_string().as_bytes());
        is_proper(Some(command), &ran)?;
    }

    #[test]
    fn nearly_right_configurations(command in command(), stdin in nearly_a_configuration(), args in cni_args()) {
        let mut env = env(command);
        env.insert("CNI_ARGS".into(), args.into());
        let ran = dispatch(&Fake::new(Behaviour::Serve), &env, stdin.to_string().as_bytes());
        is_proper(Some(command), &ran)?;
    }

    #[test]
    fn any_environment(
        command in command(),
        values in collection::vec(option::of(collection::vec(1u8.., 0..20)), 5),
        args in option::of(cni_args()),
    ) {
        let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_NETNS_OVERRIDE"];
        let mut env = BTreeMap::from([("CNI_COMMAND".to_owned(), OsString::from(command))]);
        for (name, value) in names.into_iter().zip(values) {
            env.extend(value.map(|v| (name.to_owned(), OsString::from_vec(v))));
        }
        env.extend(args.map(|a| ("CNI_ARGS".to_owned(), a.into())));
        let ran = dispatch(&Fake::new(Behaviour::Serve), &env, br#"{"cniVersion":"1.1.0","name":"shop"}"#);
        is_proper(Some(command), &ran)?;
    }

    #[test]
    fn any_command(command in collection::vec(1u8.., 1..10)) {
        let mut env = env("");
        env.insert("CNI_COMMAND".into(), OsString::from_vec(command));
        let ran = dispatch(&Fake::new(Behaviour::Serve), &env, b"{}");
        is_proper(None, &ran)?;
    }
}
