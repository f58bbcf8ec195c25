//! The dispatcher's table: which command needs what, what the daemon is asked, what comes out.
//!
//! Single bad inputs and their messages are in `testdata/errors.txt`, whose head says how to read it.

mod text;

use std::{collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use prost::Message;
use proto::bulkhead::cni::v1::{
    AddRequest, AttachmentId, CheckRequest, CniError, CniResult, DelRequest, Dns, GcRequest, Interface, Ip, Netns,
    Network, Pod, StatusRequest, Tombstone,
};
use serde_json::{Value, json};

use super::fake::{Asked, Behaviour, Fake, Ran, dispatch, env, tombstones};
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
fn add_asks_for_what_the_runtime_wants() {
    let mut env = env("ADD");
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;\
                K8S_POD_UID=u-1;IP=fd00::9/64;MAC=02:00:00:00:00:99;X=y";
    env.insert("CNI_ARGS".into(), args.into());
    let mut conf = conf();
    conf["mtu"] = 1400.into();
    conf["args"] = json!({
        "cni": {"labels": [{"key": "app", "value": "web"}, {"key": "bare"}], "ips": ["10.0.0.9/24"]},
        "org.example": {"is": "not ours"},
    });
    conf["runtimeConfig"] = json!({
        "mac": "02:00:00:00:00:AA",
        "ips": ["10.0.0.9"],
        "aliases": ["web"],
        "cgroupPath": "/kubepods/pod1",
        "io.kubernetes.cri.pod-annotations": {"note": "x"},
        "dns": {"servers": ["10.96.0.10"]},
        "portMappings": [],
        "bandwidth": null,
    });
    let map = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let expected = AddRequest {
        id: id(),
        netns: netns(),
        network: Some(Network { mtu: 1400, ..network().unwrap() }),
        pod: Some(Pod {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "u-1".into(),
            infra_container_id: "c1".into(),
        }),
        mac: "02:00:00:00:00:aa".into(),
        ips: vec!["10.0.0.9".into(), "fd00::9".into()],
        aliases: vec!["web".into()],
        cgroup_path: "/kubepods/pod1".into(),
        pod_annotations: map("note", "x"),
        labels: [("app".into(), "web".into()), ("bare".into(), String::new())].into(),
        other_args: map("X", "y"),
    };
    assert_eq!(asked(&env, &conf), Asked::Add(expected));
}

#[test]
fn an_add_can_be_as_bare_as_cnitools() {
    let expected = AddRequest {
        id: id(),
        netns: netns(),
        network: Some(Network { cni_version: "0.1.0".into(), ..network().unwrap() }),
        pod: Some(Pod::default()),
        ..AddRequest::default()
    };
    assert_eq!(asked(&env("ADD"), &json!({"name": "shop"})), Asked::Add(expected));
}

#[test]
fn the_hosts_namespace_is_attached_only_on_request() {
    let mut env = env("ADD");
    env.insert("CNI_NETNS".into(), "/proc/1/ns/net".into());
    let stdin = conf().to_string();
    assert_eq!(error(&dispatch(&Fake::new(Behaviour::Serve), &env, stdin.as_bytes())).0, 8);
    for (value, exit) in [("1", 0), ("true", 0), ("TRUE", 0), ("0", 1), ("yes", 1)] {
        env.insert("CNI_NETNS_OVERRIDE".into(), value.into());
        assert_eq!(dispatch(&Fake::new(Behaviour::Serve), &env, stdin.as_bytes()).exit, exit, "{value}");
    }
}

#[test]
fn del_works_without_a_namespace_and_never_names_the_hosts() {
    let netns_of = |path: &str| {
        let mut env = env("DEL");
        env.insert("CNI_NETNS".into(), path.into());
        match asked(&env, &conf()) {
            Asked::Del(DelRequest { netns, .. }) => netns,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(netns_of(""), None);
    assert_eq!(netns_of("/proc/1/ns/net"), None);
    assert_eq!(netns_of("/run/netns/c1"), netns());
    assert_eq!(netns_of("/gone"), Some(Netns { path: "/gone".into(), inode: 0 }));
}

#[test]
fn del_hands_on_the_previous_result_where_it_can_be_read() {
    let prev_of = |prev: Value| match asked(&env("DEL"), &with(conf(), "prevResult", prev)) {
        Asked::Del(DelRequest { prev_result, .. }) => prev_result,
        other => panic!("{other:?}"),
    };
    let ip = Ip { address: "10.0.0.2/32".into(), ..Ip::default() };
    let expected = CniResult { ips: vec![ip], ..CniResult::default() };
    assert_eq!(prev_of(json!({"ips": [{"address": "10.0.0.2/32"}]})), Some(expected));
    assert_eq!(prev_of(json!({"ips": "none"})), None);
    assert_eq!(prev_of(json!(7)), None);
    assert_eq!(prev_of(Value::Null), None);
}

/// Each of these is refused on ADD, so that no pod exists that needs it.
#[test]
fn del_and_gc_overlook_what_add_refuses() {
    for (key, value) in [
        ("mut", json!(1500)),
        ("ipam", json!({"type": "host-local"})),
        ("ipMasq", json!(true)),
        ("runtimeConfig", json!({"portMappings": [{"hostPort": 80}]})),
        ("prevResult", json!("none")),
        ("dns", json!(1)),
        ("args", json!([])),
    ] {
        let conf = with(conf(), key, value);
        assert_eq!(run(&Fake::new(Behaviour::Serve), "ADD", &conf).exit, 1, "{key}");
        assert_eq!(run(&Fake::new(Behaviour::Serve), "DEL", &conf).exit, 0, "{key}");
        assert_eq!(run(&Fake::new(Behaviour::Serve), "GC", &conf).exit, 0, "{key}");
    }
    let mut env = env("DEL");
    env.insert("CNI_ARGS".into(), "K8S_POD_NAME=../x;nonsense".into());
    assert_eq!(dispatch(&Fake::new(Behaviour::Serve), &env, conf().to_string().as_bytes()).exit, 0);
}

#[test]
fn check_hands_on_the_chains_result() {
    let eth0 = json!({"name": "eth0", "sandbox": "/run/netns/c1", "mtu": 1450});
    let conf = with(conf(), "prevResult", json!({"interfaces": [eth0], "dns": {"domain": "a.b"}}));
    let eth0 = Interface { name: "eth0".into(), sandbox: "/run/netns/c1".into(), mtu: 1450, ..Interface::default() };
    let expected = CheckRequest {
        id: id(),
        netns: netns(),
        network: network(),
        pod: Some(Pod::default()),
        prev_result: Some(CniResult {
            interfaces: vec![eth0],
            dns: Some(Dns { domain: "a.b".into(), ..Dns::default() }),
            ..CniResult::default()
        }),
    };
    assert_eq!(asked(&env("CHECK"), &conf), Asked::Check(expected));
}

#[test]
fn gc_tells_an_empty_list_from_none() {
    let gc_of = |lists: Value| {
        let mut conf = lists;
        conf["cniVersion"] = "1.1.0".into();
        conf["name"] = "shop".into();
        match asked(&env("GC"), &conf) {
            Asked::Gc(GcRequest { network: asked, valid_attachments }) => {
                assert_eq!(asked, network());
                valid_attachments.map(|list| list.ids)
            }
            other => panic!("{other:?}"),
        }
    };
    let entry = json!([{"containerID": "c1", "ifname": "eth0", "more": 1}]);
    let (new, old) = ("cni.dev/valid-attachments", "cni.dev/attachments");
    assert_eq!(gc_of(json!({})), None);
    assert_eq!(gc_of(json!({new: []})), Some(vec![]));
    // What Go writes for an empty list.
    assert_eq!(gc_of(json!({new: null, old: null})), Some(vec![]));
    assert_eq!(gc_of(json!({new: entry, old: entry})), Some(vec![id().unwrap()]));
    assert_eq!(gc_of(json!({old: entry})), Some(vec![id().unwrap()]));
    assert_eq!(gc_of(json!({new: entry, old: []})), Some(vec![id().unwrap()]));
}

#[test]
fn status_waits_five_seconds_at_most() {
    for (seconds, command, waits) in [(30, "STATUS", 5), (2, "STATUS", 2), (30, "ADD", 30)] {
        let daemon = Fake::new(Behaviour::Serve);
        let conf = with(with(conf(), "timeoutSeconds", seconds.into()), "socket", "/run/x.sock".into());
        assert_eq!(run(&daemon, command, &conf).exit, 0);
        let (target, asked) = daemon.asked.borrow()[0].clone();
        assert_eq!(target.timeout, Duration::from_secs(waits));
        assert_eq!(target.socket, "/run/x.sock");
        if command == "STATUS" {
            assert_eq!(asked, Asked::Status(StatusRequest { network: network() }));
        }
    }
}

#[test]
fn the_daemons_codes_reach_the_runtime() {
    for code in [1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51, 100, 4711] {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let refusal = CniError { code, msg: "no".into(), details: "because".into() };
            let ran = run(&Fake::new(Behaviour::Refuse(refusal)), command, &conf());
            let expected =
                format!("{{\"cniVersion\":\"1.1.0\",\"code\":{code},\"details\":\"because\",\"msg\":\"no\"}}\n");
            assert_eq!((ran.exit, ran.stdout), (1, expected));
        }
    }
}

#[test]
fn a_daemon_that_misbehaves_is_named() {
    let no_code = Behaviour::Refuse(CniError { code: 0, msg: "hm".into(), details: String::new() });
    for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        let (code, msg, _) = error(&run(&Fake::new(no_code.clone()), command, &conf()));
        assert_eq!((code, msg.as_str()), (100, "bulkhead-daemon reported an error without a code: hm"));
        let (code, msg, _) = error(&run(&Fake::new(Behaviour::Fail(tonic::Code::Internal)), command, &conf()));
        assert_eq!((code, msg.as_str()), (100, "bulkhead-daemon on /run/bulkhead/cni.sock failed: Internal: oh"));
    }
    let (code, msg, _) = error(&run(&Fake::new(Behaviour::Empty), "ADD", &conf()));
    assert_eq!((code, msg.as_str()), (100, "bulkhead-daemon on /run/bulkhead/cni.sock answered without an outcome"));
}

#[test]
fn a_result_that_cannot_be_told_is_undone() {
    let daemon = Fake::new(Behaviour::Make(CniResult::default()));
    let (code, msg, _) = error(&run(&daemon, "ADD", &with(conf(), "cniVersion", "0.2.0".into())));
    assert_eq!((code, msg.as_str()), (100, "a result without an address cannot be written as CNI 0.2.0"));
    let asked = daemon.asked.into_inner();
    assert!(matches!(&asked[0].1, Asked::Add(_)));
    let Asked::Del(undo) = &asked[1].1 else { panic!("{asked:?}") };
    assert_eq!((&undo.id, &undo.netns), (&id(), &netns()));
}

#[test]
fn without_the_daemon_each_command_has_its_code() {
    let unreachable = "bulkhead-daemon cannot be reached on /run/bulkhead/cni.sock: No such file or directory";
    let fix = "start bulkhead-daemon, or set \"socket\" in the network configuration to where it listens";
    for (command, code) in [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)] {
        let ran = run(&Fake::new(Behaviour::Down), command, &conf());
        assert_eq!(error(&ran), (code, unreachable.into(), fix.into()), "{command}");
    }
}

#[test]
fn del_without_the_daemon_leaves_a_tombstone() {
    let dir = tempfile::tempdir().unwrap();
    let mut env = env("DEL");
    env.insert("CNI_ARGS".into(), "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b".into());
    env.remove("CNI_NETNS");
    let conf = with(conf(), "stateDir", dir.path().to_str().into());
    for _ in 0..2 {
        let ran = dispatch(&Fake::new(Behaviour::Down), &env, conf.to_string().as_bytes());
        assert_eq!((ran.exit, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    }
    let files = tombstones(dir.path());
    assert_eq!(files, [dir.path().join("tombstones/shop:c1:eth0.del")]);
    let request = DelRequest {
        id: id(),
        netns: None,
        network: network(),
        pod: Some(Pod { namespace: "a".into(), name: "b".into(), ..Pod::default() }),
        prev_result: Some(CniResult::default()),
    };
    let expected = Tombstone { request: Some(request), deleted_at_unix_ms: 1_700_000_000_000 };
    assert_eq!(Tombstone::decode(std::fs::read(&files[0]).unwrap().as_slice()).unwrap(), expected);
}

#[test]
fn del_leaves_no_tombstone_when_the_daemon_answers() {
    let dir = tempfile::tempdir().unwrap();
    let conf = with(conf(), "stateDir", dir.path().to_str().into());
    let refusal = CniError { code: 5, msg: "no".into(), details: String::new() };
    for behaviour in [Behaviour::Serve, Behaviour::Refuse(refusal), Behaviour::Fail(tonic::Code::Internal)] {
        run(&Fake::new(behaviour), "DEL", &conf);
        assert!(tombstones(dir.path()).is_empty());
    }
}

#[test]
fn a_tombstone_that_cannot_be_left_fails_the_del() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let conf = with(conf(), "stateDir", file.path().to_str().into());
    let (code, msg, details) = error(&run(&Fake::new(Behaviour::Down), "DEL", &conf));
    assert_eq!(code, 5);
    assert!(msg.contains("tombstones/shop:c1:eth0.del"), "{msg}");
    assert!(details.contains("cannot be reached"), "{details}");
}

#[test]
fn a_chain_is_handed_on() {
    let prev = json!({"interfaces": [{"name": "lo", "sandbox": "/run/netns/c1"}], "dns": {"domain": "prev"}});
    let mut conf = with(conf(), "prevResult", prev);
    conf["dns"] = json!({"domain": "configured"});
    let ran = run(&Fake::new(Behaviour::Serve), "ADD", &conf);
    let expected = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "lo", "sandbox": "/run/netns/c1"},
            {"name": "bh0", "mac": "02:00:00:00:00:01"},
            {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/c1"},
        ],
        "ips": [{"address": "10.0.0.2/32", "gateway": "169.254.1.1", "interface": 2}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
        "dns": {"domain": "configured"},
    });
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap(), expected);
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
