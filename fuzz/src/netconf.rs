//! Where the fuzzer of the CNI plugin starts from: the plugin's own cases of bad input, ordinary
//! configurations in every version, and the words that they are made of. The target itself is
//! [`cni_plugin::fuzz::command`].

use prost::Message as _;
use proto::bulkhead::cni::v1::{AddReply, CniError, CniResult, Interface, Ip, Route, add_reply::Outcome};

/// Environment, stdin and the daemon's answer, with zero bytes between.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    // Blocks of lines `NAME=VALUE`, then one with stdin: see the head of the file.
    for block in include_str!("../../cni-plugin/testdata/errors.txt").split("\n\n") {
        let lines = |prefix: &str| block.lines().find_map(|line| line.strip_prefix(prefix));
        let Some(stdin) = lines("< ") else { continue };
        let env: Vec<&str> = block.lines().filter(|line| line.starts_with("CNI_")).collect();
        seeds.push(join(&[env.join("\n").as_bytes(), stdin.as_bytes()]));
    }
    let runtime =
        r#""runtimeConfig":{"mac":"02:00:00:00:00:09","ips":["10.0.0.9/24"],"aliases":["a"],"cgroupPath":"/x"}"#;
    let previous = r#""prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/run/netns/c1"}],
        "ips":[{"address":"10.0.0.2/32","gateway":"169.254.1.1","interface":0}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}"#;
    let answers = [
        Outcome::Result(CniResult {
            interfaces: vec![Interface { name: "bh0".into(), ..Interface::default() }],
            ips: vec![Ip { address: "10.0.0.2/32".into(), gateway: "169.254.1.1".into(), interface: Some(0) }],
            routes: vec![Route { dst: "::/0".into(), gw: "fe80::1".into(), ..Route::default() }],
            dns: None,
        }),
        Outcome::Error(CniError { code: 11, msg: "later".into(), details: String::new() }),
    ];
    let answers = answers.map(|outcome| AddReply { outcome: Some(outcome) }.encode_to_vec());
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        for (command, more) in [("ADD", runtime), ("DEL", previous), ("CHECK", previous), ("STATUS", r#""mtu":1400"#)] {
            let stdin = format!(r#"{{"cniVersion":"{version}","name":"n","type":"bulkhead-cni",{more}}}"#);
            let env = format!("CNI_COMMAND={command}\nCNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b");
            seeds.push(join(&[env.as_bytes(), stdin.as_bytes()]));
            for answer in &answers {
                seeds.push(join(&[env.as_bytes(), stdin.as_bytes(), answer]));
            }
        }
    }
    let gc = r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}"#;
    seeds.push(join(&[b"CNI_COMMAND=GC", gc.as_bytes()]));
    seeds
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&0)
}

/// Variables, keys and values, one a line.
pub const WORDS: &str = include_str!("../words/netconf.txt");
