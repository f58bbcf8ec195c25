//! The dispatcher's table: which command needs what, and what comes out in which version.
//!
//! Single bad inputs and their messages are in `testdata/errors.txt`, whose head says how to read it.

mod answers;
mod requests;
mod text;

use std::{collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStringExt};

use proto::bulkhead::cni::v1::{AttachmentId, Netns, Network};
use serde_json::{Value, json};

use super::fake::{Asked, Behaviour, Fake, Ran, dispatch, env};
use crate::version::Version;

const COMMANDS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];

/// The smallest configuration that every command takes.
fn conf() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": "shop",
        "type": "bulkhead-cni",
        "prevResult": {},
        "cni.dev/valid-attachments": [],
    })
}

fn with(mut conf: Value, key: &str, value: Value) -> Value {
    conf[key] = value;
    conf
}

fn run(daemon: &Fake, command: &str, conf: &Value) -> Ran {
    dispatch(daemon, &env(command), conf.to_string().as_bytes())
}

/// Runs it where it must succeed; returns what the daemon was asked, which must be one thing.
fn asked(env: &BTreeMap<String, OsString>, conf: &Value) -> Asked {
    let daemon = Fake::new(Behaviour::Serve);
    let ran = dispatch(&daemon, env, conf.to_string().as_bytes());
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    let asked = daemon.asked.into_inner();
    assert_eq!(asked.len(), 1);
    asked[0].1.clone()
}

fn error(ran: &Ran) -> (u64, String, String) {
    assert_eq!((ran.exit, ran.stderr.as_str()), (1, ""), "{}", ran.stdout);
    let value: Value = serde_json::from_str(&ran.stdout).unwrap();
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    (value["code"].as_u64().unwrap(), text("msg"), text("details"))
}

fn network() -> Option<Network> {
    Some(Network { name: "shop".into(), cni_version: "1.1.0".into(), mtu: 0 })
}

fn id() -> Option<AttachmentId> {
    Some(AttachmentId { container_id: "c1".into(), ifname: "eth0".into() })
}

fn netns() -> Option<Netns> {
    Some(Netns { path: "/run/netns/c1".into(), inode: 4_026_532_000 })
}

#[test]
fn each_command_misses_what_it_needs_and_nothing_else() {
    for (variable, needed_by) in [
        ("CNI_CONTAINERID", &["ADD", "DEL", "CHECK"][..]),
        ("CNI_NETNS", &["ADD", "CHECK"]),
        ("CNI_IFNAME", &["ADD", "DEL", "CHECK"]),
        ("CNI_ARGS", &[]),
        ("CNI_PATH", &["ADD", "DEL", "CHECK", "GC", "STATUS"]),
    ] {
        for command in COMMANDS {
            for absent in [None, Some("")] {
                let daemon = Fake::new(Behaviour::Serve);
                let mut env = env(command);
                env.remove(variable);
                env.extend(absent.map(|empty| (variable.to_owned(), empty.into())));
                let ran = dispatch(&daemon, &env, conf().to_string().as_bytes());
                if needed_by.contains(&command) {
                    let msg = format!("required variables of the environment are missing: {variable}");
                    assert_eq!(error(&ran), (4, msg, String::new()), "{command} {variable}");
                    assert!(daemon.asked.borrow().is_empty());
                } else {
                    assert_eq!(ran.exit, 0, "{command} {variable}: {}", ran.stdout);
                }
            }
        }
    }
}

#[test]
fn all_missing_variables_are_reported_together() {
    for (command, missing) in [
        ("ADD", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH"),
        ("DEL", "CNI_CONTAINERID, CNI_IFNAME, CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME, CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
    ] {
        let env = BTreeMap::from([("CNI_COMMAND".to_owned(), command.into())]);
        let (code, msg, _) = error(&dispatch(&Fake::new(Behaviour::Serve), &env, b"{"));
        assert_eq!(code, 4);
        assert!(msg.ends_with(&format!(": {missing}")), "{command}: {msg}");
    }
}

#[test]
fn without_a_command_it_says_what_it_is() {
    for env in [BTreeMap::new(), BTreeMap::from([("CNI_COMMAND".to_owned(), OsString::new())])] {
        let ran = dispatch(&Fake::new(Behaviour::Serve), &env, b"not read");
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""));
        assert!(ran.stderr.starts_with("bulkhead-cni "), "{}", ran.stderr);
        assert!(ran.stderr.ends_with("supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"), "{}", ran.stderr);
    }
}

#[test]
fn version_needs_nothing_and_lists_all() {
    let env = BTreeMap::from([("CNI_COMMAND".to_owned(), "VERSION".into())]);
    let ran = dispatch(&Fake::new(Behaviour::Down), &env, b"not read");
    let all = "[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]";
    assert_eq!(ran.stdout, format!("{{\"cniVersion\":\"1.1.0\",\"supportedVersions\":{all}}}\n"));
    assert_eq!(ran.exit, 0);
}

#[test]
fn a_command_exists_since_its_version() {
    for version in Version::ALL {
        for (command, since) in [
            ("ADD", Version::V0_1_0),
            ("DEL", Version::V0_1_0),
            ("CHECK", Version::V0_4_0),
            ("GC", Version::V1_1_0),
            ("STATUS", Version::V1_1_0),
        ] {
            let daemon = Fake::new(Behaviour::Serve);
            let ran = run(&daemon, command, &with(conf(), "cniVersion", version.as_str().into()));
            if version >= since {
                assert_eq!(ran.exit, 0, "{command} {version}: {}", ran.stdout);
            } else {
                let expected = (
                    1,
                    format!("cniVersion {version} does not know {command}"),
                    format!("set cniVersion to {since} or newer"),
                );
                assert_eq!(error(&ran), expected);
                assert!(daemon.asked.borrow().is_empty());
            }
        }
    }
}

#[test]
fn add_answers_in_the_configurations_version() {
    for version in Version::ALL {
        let ran = run(&Fake::new(Behaviour::Serve), "ADD", &with(conf(), "cniVersion", version.as_str().into()));
        let value: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(value["cniVersion"], version.as_str());
        assert_eq!(value.get("ip4").is_some(), version < Version::V0_3_0);
    }
    let mut unstated = conf();
    unstated.as_object_mut().unwrap().remove("cniVersion");
    let ran = run(&Fake::new(Behaviour::Serve), "ADD", &unstated);
    let expected = json!({
        "cniVersion": "0.1.0",
        "ip4": {
            "ip": "10.0.0.2/32",
            "gateway": "169.254.1.1",
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap(), expected);
}

#[test]
fn only_add_and_version_print() {
    for command in COMMANDS {
        let ran = run(&Fake::new(Behaviour::Serve), command, &conf());
        assert_eq!(ran.exit, 0);
        assert_eq!(ran.stdout.is_empty(), !["ADD", "VERSION"].contains(&command), "{command}: {}", ran.stdout);
        assert_eq!(ran.stdout.lines().count(), usize::from(!ran.stdout.is_empty()));
    }
}

#[test]
fn a_variable_that_is_no_text_is_named() {
    let bad = || OsString::from_vec(vec![b'a', 0xff]);
    for variable in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"] {
        let mut env = env("ADD");
        env.insert(variable.into(), bad());
        let ran = dispatch(&Fake::new(Behaviour::Serve), &env, conf().to_string().as_bytes());
        assert_eq!(error(&ran), (4, format!("{variable} is not valid UTF-8"), String::new()));
    }
}

#[test]
fn input_without_end_is_not_read_to_the_end() {
    let stdin = vec![b' '; (super::LARGEST_INPUT + 1) as usize];
    let (code, msg, _) = error(&dispatch(&Fake::new(Behaviour::Serve), &env("ADD"), &stdin));
    assert_eq!((code, msg.as_str()), (6, "network configuration on stdin is larger than 4194304 bytes"));
}
