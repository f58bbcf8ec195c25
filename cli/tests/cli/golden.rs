//! What each command prints, and what it asks.

use proto::bulkhead::admin::v1::MapEntry;

use crate::{
    fake::{Answers, Fake, assert_golden, run},
    shop, shop_explain,
};

/// Runs, expects `code` and nothing on stderr, compares stdout with `testdata/NAME`.
fn check(fake: &Fake, name: &str, code: i32, args: &[&str]) {
    let ended = fake.run(args);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(code), ""), "{args:?}");
    assert_golden(name, &ended.stdout);
}

#[test]
fn status_when_all_is_well() {
    let fake = Fake::start(shop::answers());
    check(&fake, "status.txt", 0, &["status", "--check"]);
    check(&fake, "status.json", 0, &["status", "-o", "json"]);
}

#[test]
fn status_when_something_is_not_in_force() {
    let fake = Fake::start(Answers { status: shop::unwell(), ..Answers::default() });
    check(&fake, "status-unwell.txt", 0, &["status"]);
    check(&fake, "status-unwell.json", 0, &["status", "-o", "json"]);
    check(&fake, "status-unwell.txt", 3, &["status", "--check"]);
}

#[test]
fn colour_is_on_when_asked_for_and_only_then() {
    let fake = Fake::start(Answers { status: shop::unwell(), ..shop::answers() });
    check(&fake, "status-unwell-colour.txt", 0, &["status", "--color", "always"]);
    check(&fake, "endpoint-list-colour.txt", 0, &["endpoint", "list", "--color", "always"]);
    check(&fake, "status-unwell.txt", 0, &["status", "--color", "never"]);
}

#[test]
fn an_empty_daemon_says_so() {
    let fake = Fake::start(Answers::default());
    check(&fake, "status-empty.txt", 0, &["status"]);
    for (name, args) in [
        ("endpoint-list-empty.txt", ["endpoint", "list"]),
        ("identity-list-empty.txt", ["identity", "list"]),
        ("policy-list-empty.txt", ["policy", "list"]),
        ("service-list-empty.txt", ["service", "list"]),
    ] {
        check(&fake, name, 0, &args);
    }
    check(&fake, "counters-empty.txt", 0, &["counters"]);
    check(&fake, "flow-stats-empty.txt", 0, &["flows", "stats"]);
    check(&fake, "endpoint-list-empty.json", 0, &["endpoint", "list", "-o", "json"]);
}

#[test]
fn endpoints() {
    let fake = Fake::start(shop::answers());
    check(&fake, "endpoint-list.txt", 0, &["endpoint", "list"]);
    check(&fake, "endpoint-list.json", 0, &["endpoint", "list", "-n", "shop", "-o", "json"]);
    check(&fake, "endpoint-get.txt", 0, &["endpoint", "get", "shop/db-0"]);
    check(&fake, "endpoint-get.json", 0, &["endpoint", "get", "fd88::2", "-o", "json"]);
    check(&fake, "endpoint-get.txt", 0, &["endpoint", "get", "01aa9c"]);
    check(&fake, "endpoint-get.txt", 0, &["endpoint", "get", "slot:1"]);
    let asked = fake.asked.admin.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            r#"ListEndpointsRequest { namespace: "" }"#,
            r#"ListEndpointsRequest { namespace: "shop" }"#,
            r#"GetEndpointRequest { which: Some(Pod(PodName { namespace: "shop", name: "db-0" })) }"#,
            r#"GetEndpointRequest { which: Some(Ip("fd88::2")) }"#,
            r#"GetEndpointRequest { which: Some(ContainerId("01aa9c")) }"#,
            r#"GetEndpointRequest { which: Some(Slot(1)) }"#,
        ]
    );
}

#[test]
fn identities() {
    let fake = Fake::start(shop::answers());
    check(&fake, "identity-list.txt", 0, &["identity", "list", "--reserved"]);
    check(&fake, "identity-list.json", 0, &["identity", "list", "-o", "json"]);
    let asked = fake.asked.admin.lock().unwrap().clone();
    assert_eq!(asked, ["ListIdentitiesRequest { reserved: true }", "ListIdentitiesRequest { reserved: false }"]);
}

#[test]
fn policies() {
    let fake = Fake::start(shop::answers());
    check(&fake, "policy-list.txt", 0, &["policy", "list"]);
    check(&fake, "policy-list.json", 0, &["policy", "list", "-n", "shop", "-o", "json"]);
    check(&fake, "policy-get.txt", 0, &["policy", "get", "shop/db-ingress"]);
    check(&fake, "policy-get.json", 0, &["policy", "get", "guard", "--kind", "ClusterNetworkPolicy", "-o", "json"]);
    let asked = fake.asked.admin.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            r#"ListPoliciesRequest { namespace: "" }"#,
            r#"ListPoliciesRequest { namespace: "shop" }"#,
            r#"GetPolicyRequest { namespace: "shop", name: "db-ingress", kind: "NetworkPolicy" }"#,
            r#"GetPolicyRequest { namespace: "", name: "guard", kind: "ClusterNetworkPolicy" }"#,
        ]
    );
}

#[test]
fn services() {
    let fake = Fake::start(shop::answers());
    check(&fake, "service-list.txt", 0, &["service", "list"]);
    check(&fake, "service-list.json", 0, &["service", "list", "-n", "shop", "-o", "json"]);
    let mut one = shop::answers();
    one.services.services.truncate(1);
    let fake_one = Fake::start(one);
    check(&fake_one, "service-get.txt", 0, &["service", "get", "shop/db"]);
    check(&fake_one, "service-get.json", 0, &["service", "get", "shop/db", "-o", "json"]);
    let asked = fake.asked.admin.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            r#"ListServicesRequest { namespace: "", name: "" }"#,
            r#"ListServicesRequest { namespace: "shop", name: "" }"#,
        ]
    );
    let asked = fake_one.asked.admin.lock().unwrap().clone();
    assert_eq!(asked, [r#"ListServicesRequest { namespace: "shop", name: "db" }"#; 2]);
}

#[test]
fn explain_a_denied_connection() {
    let fake = Fake::start(shop::answers());
    check(&fake, "explain-denied.txt", 3, &["explain", "shop/cache-0", "shop/db-0:5432"]);
    check(&fake, "explain-denied.json", 3, &["explain", "shop/cache-0", "shop/db-0", "-p", "5432", "-o", "json"]);
    let asked = fake.asked.admin.lock().unwrap().clone();
    let pod = |name| format!(r#"Some(Party {{ who: Some(Pod(PodName {{ namespace: "shop", name: "{name}" }})) }})"#);
    let request = format!(
        r#"ExplainRequest {{ source: {}, destination: {}, protocol: "tcp", port: 5432 }}"#,
        pod("cache-0"),
        pod("db-0")
    );
    assert_eq!(asked, [request.clone(), request]);
}

#[test]
fn explain_an_allowed_connection() {
    let fake = Fake::start(Answers { explain: shop_explain::allowed(), ..Answers::default() });
    let args = ["explain", "shop/Deployment/web", "[2001:db8::7]:53", "--protocol", "UDP"];
    check(&fake, "explain-allowed.txt", 0, &args);
    check(&fake, "explain-allowed.json", 0, &[&args[..], &["-o", "json"]].concat());
    check(&fake, "explain-allowed.txt", 0, &["explain", "10.0.0.1", "10.0.0.2", "--protocol", "icmp"]);
    let asked = fake.asked.admin.lock().unwrap().clone();
    let workload = r#"Workload(WorkloadName { namespace: "shop", kind: "Deployment", name: "web" })"#;
    assert_eq!(
        asked[0],
        format!(
            r#"ExplainRequest {{ source: Some(Party {{ who: Some({workload}) }}), destination: Some(Party {{ who: Some(Ip("2001:db8::7")) }}), protocol: "udp", port: 53 }}"#
        )
    );
    assert!(asked[2].ends_with(r#"protocol: "icmp", port: 0 }"#), "{}", asked[2]);
}

#[test]
fn counters_and_maps() {
    let fake = Fake::start(shop::answers());
    check(&fake, "counters.txt", 0, &["counters"]);
    check(&fake, "counters.json", 0, &["counters", "-o", "json"]);
    check(&fake, "flow-stats.txt", 0, &["flows", "stats"]);
    check(&fake, "flow-stats.json", 0, &["flows", "stats", "-o", "json"]);
    check(&fake, "dump.txt", 0, &["dump", "peers", "PORTS"]);
    check(&fake, "dump.jsonl", 0, &["dump", "-o", "json"]);
    let asked = fake.asked.admin.lock().unwrap().clone();
    let expected =
        [r#"DumpMapsRequest { maps: ["PEERS", "PORTS"], limit: 0 }"#, "DumpMapsRequest { maps: [], limit: 0 }"];
    assert_eq!(asked[4..], expected);
}

#[test]
fn what_a_dump_leaves_out_is_said_beside_it() {
    let mut answers = shop::answers();
    let note = MapEntry { map: "PEERS".into(), note: "only 1 entries are told".into(), ..MapEntry::default() };
    answers.maps.insert(1, note);
    let fake = Fake::start(answers);
    let ended = fake.run(&["dump", "--limit", "1"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), "bulkhead: PEERS: only 1 entries are told\n"));
    assert_golden("dump.txt", &ended.stdout);
    let ended = fake.run(&["dump", "--limit", "1", "-o", "json"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout.lines().nth(1), Some(r#"{"map":"PEERS","note":"only 1 entries are told"}"#));
    assert_eq!(fake.asked.admin.lock().unwrap()[0], "DumpMapsRequest { maps: [], limit: 1 }");
    assert_eq!(fake.run(&["dump", "--limit", "0"]).code, Some(64));
}

/// The commit is another one in every build.
fn without_commit(text: &str) -> String {
    let commit = env!("BULKHEAD_BUILD_COMMIT");
    if commit.is_empty() { text.to_owned() } else { text.replace(commit, "COMMIT") }
}

#[test]
fn versions_of_both_sides() {
    let fake = Fake::start(shop::answers());
    for (name, args) in [
        ("version.txt", &["version"][..]),
        ("version.json", &["version", "-o", "json"]),
        ("version-client.txt", &["version", "--client"]),
    ] {
        let ended = fake.run(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert_golden(name, &without_commit(&ended.stdout));
    }
    let mut other = shop::answers();
    other.status.build.as_mut().unwrap().abi_version = datapath_abi::ABI_VERSION + 1;
    let fake = Fake::start(other);
    assert_golden("version-other-abi.txt", &without_commit(&fake.run(&["version"]).stdout));
}

#[test]
fn the_version_is_told_also_without_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    for (name, args) in [("version-alone.txt", &["version"][..]), ("version-alone.json", &["version", "-o", "json"])] {
        let ended = run(&socket, args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        assert_golden(name, &without_commit(&ended.stdout));
    }
}

#[test]
fn help_of_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    for path in [
        "",
        "flows",
        "flows stats",
        "status",
        "endpoint",
        "endpoint list",
        "endpoint get",
        "identity",
        "identity list",
        "policy",
        "policy list",
        "policy get",
        "service",
        "service list",
        "service get",
        "explain",
        "counters",
        "dump",
        "version",
        "completion",
    ] {
        let mut args: Vec<&str> = path.split_whitespace().collect();
        args.push("--help");
        let ended = run(&socket, &args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{path}");
        assert!(ended.stdout.contains("bulkhead "), "examples teach: {path}");
        let name = if path.is_empty() { "bulkhead".to_owned() } else { path.replace(' ', "-") };
        assert_golden(&format!("help/{name}.txt"), &ended.stdout);
    }
}

#[test]
fn completions_name_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&socket, &["completion", shell]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{shell}");
        for word in ["bulkhead", "explain", "endpoint", "from-pod", "not"] {
            assert!(ended.stdout.contains(word), "{shell}: {word}");
        }
    }
}
