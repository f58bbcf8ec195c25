//! What the daemon is asked: each command's request, and what of the input goes into it.

use std::time::Duration;

use proto::bulkhead::cni::v1::{
    AddRequest, CheckRequest, CniResult, DelRequest, Dns, GcRequest, Interface, Ip, Netns, Network, Pod, StatusRequest,
};
use serde_json::{Value, json};

use super::{
    super::fake::{Asked, Behaviour, Fake, dispatch, env},
    asked, conf, error, id, netns, network, run, with,
};

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
fn a_pod_without_a_namespace_is_of_the_configurations() {
    let mut conf = conf();
    conf["namespace"] = "shop-2".into();
    let pod = |args: &str, command: &str, conf: &Value| {
        let mut env = env(command);
        env.insert("CNI_ARGS".into(), args.into());
        match asked(&env, conf) {
            Asked::Add(request) => request.pod.unwrap(),
            Asked::Check(request) => request.pod.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    // As podman calls.
    let podman = "IgnoreUnknown=1;K8S_POD_NAME=web";
    assert_eq!(pod(podman, "ADD", &conf), Pod { namespace: "shop-2".into(), name: "web".into(), ..Pod::default() });
    assert_eq!(pod("", "ADD", &conf), Pod { namespace: "shop-2".into(), ..Pod::default() });
    assert_eq!(pod("K8S_POD_NAMESPACE=dev;K8S_POD_NAME=web", "ADD", &conf).namespace, "dev");
    conf["prevResult"] = json!({"cniVersion": "1.1.0", "interfaces": [], "ips": []});
    assert_eq!(pod(podman, "CHECK", &conf).namespace, "shop-2");
}

/// The text of what is installed, and what the documentation says of it.
#[test]
fn the_documentation_shows_the_configuration_that_is_installed() {
    let installed = include_str!("../../../../manifests/cni/10-bulkhead.conflist");
    let documented = include_str!("../../../../docs/runtimes.md");
    assert!(documented.contains(&format!("```json\n{installed}```")), "docs/runtimes.md shows another file");
    let list: Value = serde_json::from_str(installed).unwrap();
    for version in list["cniVersions"].as_array().unwrap() {
        let conf = json!({"cniVersion": version, "name": list["name"], "type": list["plugins"][0]["type"]});
        assert!(matches!(asked(&env("ADD"), &conf), Asked::Add(_)), "{version}");
    }
}

#[test]
fn a_wrong_namespace_keeps_no_pod_from_going_away() {
    let mut conf = conf();
    conf["namespace"] = "Not a name".into();
    assert!(matches!(asked(&env("DEL"), &conf), Asked::Del(_)));
    assert!(matches!(asked(&env("GC"), &conf), Asked::Gc(_)));
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
