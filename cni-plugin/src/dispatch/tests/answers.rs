//! What becomes of the daemon's answer, and of its absence.

use prost::Message;
use proto::bulkhead::cni::v1::{CniError, CniResult, DelRequest, Pod, Tombstone};
use serde_json::{Value, json};

use super::{
    super::fake::{Asked, Behaviour, Fake, dispatch, env, tombstones},
    conf, error, id, netns, network, run, with,
};

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
