//! The real libcni in front of the binary, by way of cnitool.
//!
//! Needs cnitool (github.com/containernetworking/cni/cnitool, 1.3.0 or newer), so it is ignored unless asked
//! for: `CNITOOL=/path/to/cnitool cargo test -p cni-plugin -- --ignored`.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Output},
};

use serde_json::{Value, json};

use super::{
    Node,
    daemon::{Behaviour, Daemon},
    succeeded,
};

#[test]
#[ignore = "needs cnitool, named by CNITOOL"]
fn cnitool_takes_every_answer() {
    let node = Node::new();
    let dir = node.dir.path();
    let daemon = Daemon::start(&node.socket(), Behaviour::Serve);
    fs::create_dir(dir.join("bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_bulkhead-cni"), dir.join("bin/bulkhead-cni")).unwrap();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let network = format!("net-{version}");
        let plugin = json!({
            "type": "bulkhead-cni",
            "socket": node.socket(),
            "capabilities": {"ips": true, "portMappings": true},
        });
        let list = json!({"cniVersion": version, "name": network, "plugins": [plugin]});
        fs::write(dir.join("10-net.conflist"), list.to_string()).unwrap();
        let result: Value = serde_json::from_str(&succeeded(&cnitool(&node, "add", &network))).unwrap();
        assert_eq!(result["ips"][0]["address"], "10.0.0.2/32", "{version}");
        if version >= "0.4.0" {
            succeeded(&cnitool(&node, "check", &network));
        }
        if version >= "1.1.0" {
            succeeded(&cnitool(&node, "status", &network));
        }
        succeeded(&cnitool(&node, "del", &network));
        if version >= "1.1.0" {
            succeeded(&cnitool(&node, "gc", &network));
        }
        let heard: Vec<_> = daemon.heard.try_iter().map(|h| h.split(' ').next().unwrap().to_owned()).collect();
        let expected: &[&str] = match version {
            "1.1.0" => &["ADD", "CHECK", "STATUS", "DEL", "GC"],
            "0.4.0" | "1.0.0" => &["ADD", "CHECK", "DEL"],
            _ => &["ADD", "DEL"],
        };
        assert_eq!(heard, expected, "{version}");
    }
}

fn cnitool(node: &Node, command: &str, network: &str) -> Output {
    let dir = node.dir.path();
    let tool = std::env::var_os("CNITOOL").expect("CNITOOL names the tool");
    Command::new(tool)
        .args([command, network, "/proc/self/ns/net"])
        .env("CNI_PATH", dir.join("bin"))
        .env("NETCONFPATH", dir)
        .env("CNI_NETNS_OVERRIDE", "1")
        .output()
        .unwrap()
}
