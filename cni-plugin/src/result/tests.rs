//! Results in each version against files, and back.

use std::fmt::Write;

use proto::bulkhead::cni::v1::{CniResult, Dns, Interface, Ip, Route};
use serde_json::{Value, json};

use super::{RenderError, parse, render};
use crate::{golden, json::Field, version::Version};

fn interface(name: &str, mac: &str, sandbox: &str) -> Interface {
    Interface { name: name.into(), mac: mac.into(), sandbox: sandbox.into(), ..Interface::default() }
}

fn ip(address: &str, gateway: &str, interface: Option<u32>) -> Ip {
    Ip { address: address.into(), gateway: gateway.into(), interface }
}

fn route(dst: &str, gw: &str) -> Route {
    Route { dst: dst.into(), gw: gw.into(), ..Route::default() }
}

/// What an ADD for a pod with both families brings, with every field in use.
fn dual_stack() -> CniResult {
    CniResult {
        interfaces: vec![
            Interface { mtu: 1450, ..interface("bh1a2b3c4d", "02:00:00:00:00:01", "") },
            Interface {
                mtu: 1450,
                socket_path: "/run/vhost.sock".into(),
                pci_id: "0000:00:1f.6".into(),
                ..interface("eth0", "02:00:00:00:00:02", "/var/run/netns/cni-1")
            },
        ],
        ips: vec![
            ip("10.244.1.7/32", "169.254.1.1", Some(1)),
            ip("fd00:244:1::7/128", "fe80::1", Some(1)),
            ip("10.244.1.8/32", "", None),
        ],
        routes: vec![
            Route {
                mtu: 1400,
                advmss: 1360,
                priority: 10,
                table: Some(0),
                scope: Some(253),
                ..route("0.0.0.0/0", "169.254.1.1")
            },
            route("::/0", "fe80::1"),
            route("169.254.1.1/32", ""),
        ],
        dns: Some(Dns {
            nameservers: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
            search: vec!["shop.svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        }),
    }
}

fn v6_only() -> CniResult {
    CniResult {
        interfaces: vec![interface("eth0", "", "/var/run/netns/cni-1")],
        ips: vec![ip("fd00:244:1::7/128", "", Some(0))],
        routes: vec![route("::/0", "fe80::1")],
        dns: None,
    }
}

fn parsed(value: &Value, version: Version) -> Result<CniResult, String> {
    parse(&Field::new("prevResult", value), version).map_err(|e| e.to_string())
}

#[test]
fn every_version_has_its_own_shape() {
    for (name, result) in [("dual_stack", dual_stack()), ("v6_only", v6_only())] {
        let mut out = String::new();
        for version in Version::ALL {
            let value = render(&result, version).unwrap();
            writeln!(out, "## {version}\n{value:#}\n").unwrap();
        }
        golden::check(&format!("result_{name}.txt"), &out);
    }
}

#[test]
fn the_newest_version_loses_nothing() {
    for result in [dual_stack(), v6_only(), CniResult::default()] {
        let value = render(&result, Version::CURRENT).unwrap();
        assert_eq!(parsed(&value, Version::V0_1_0).unwrap(), result);
    }
}

#[test]
fn what_was_read_is_written_the_same_in_its_version() {
    for version in Version::ALL {
        for result in [dual_stack(), v6_only()] {
            let value = render(&result, version).unwrap();
            let again = render(&parsed(&value, version).unwrap(), version).unwrap();
            assert_eq!(again, value, "{version}");
        }
    }
}

#[test]
fn a_result_without_a_version_is_of_the_configurations() {
    for version in Version::ALL {
        let stated = render(&dual_stack(), version).unwrap();
        let mut unstated = stated.clone();
        unstated.as_object_mut().unwrap().remove("cniVersion");
        assert_eq!(parsed(&unstated, version), parsed(&stated, Version::CURRENT));
        unstated["cniVersion"] = "".into();
        assert_eq!(parsed(&unstated, version), parsed(&stated, Version::CURRENT));
    }
}

#[test]
fn old_results_are_read_without_interfaces() {
    let value = json!({
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.1.2.3/24", "gateway": "10.1.2.1", "routes": [{"dst": "0.0.0.0/0"}]},
        "ip6": {"ip": "fd00::3/64", "routes": [{"dst": "::/0", "gw": "fd00::1"}]},
        "dns": {},
    });
    let expected = CniResult {
        interfaces: vec![],
        ips: vec![ip("10.1.2.3/24", "10.1.2.1", None), ip("fd00::3/64", "", None)],
        routes: vec![route("0.0.0.0/0", ""), route("::/0", "fd00::1")],
        dns: None,
    };
    assert_eq!(parsed(&value, Version::V0_2_0), Ok(expected));
}

#[test]
fn an_address_without_interface_can_say_minus_one() {
    let value = json!({"ips": [{"version": "4", "address": "10.1.2.3/24", "interface": -1}]});
    assert_eq!(parsed(&value, Version::V0_3_0).unwrap().ips, [ip("10.1.2.3/24", "", None)]);
}

#[test]
fn what_cannot_be_read_is_named() {
    for (value, version, message) in [
        (json!(7), Version::V1_1_0, "prevResult: expected an object, found 7"),
        (json!({"ips": {}}), Version::V1_1_0, "prevResult.ips: expected a list, found {}"),
        (json!({"ips": [{}]}), Version::V1_1_0, "prevResult.ips[0]: {}: must have address"),
        (
            json!({"ips": [{"address": "10.0.0.2"}]}),
            Version::V1_1_0,
            "prevResult.ips[0].address: \"10.0.0.2\": must be an IP address with prefix length, such as 10.0.0.2/24",
        ),
        (
            json!({"ips": [{"address": "10.0.0.2/24", "gateway": "gw"}]}),
            Version::V1_1_0,
            "prevResult.ips[0].gateway: \"gw\": must be an IP address",
        ),
        (
            json!({"interfaces": [{"name": "eth0"}], "ips": [{"address": "10.0.0.2/24", "interface": 1}]}),
            Version::V1_1_0,
            "prevResult.ips[0].interface: 1: must be an index into interfaces",
        ),
        (
            json!({"interfaces": [{"name": 1}]}),
            Version::V1_1_0,
            "prevResult.interfaces[0].name: expected a string, found 1",
        ),
        (json!({"routes": [{}]}), Version::V0_4_0, "prevResult.routes[0]: {}: must have dst"),
        (
            json!({"routes": [{"dst": "0.0.0.0/0", "table": -1}]}),
            Version::V1_1_0,
            "prevResult.routes[0].table: expected a whole number from 0 to 4294967295, found -1",
        ),
        (json!({"dns": {"search": "a"}}), Version::V1_1_0, "prevResult.dns.search: expected a list, found \"a\""),
        (json!({"cniVersion": "9.0.0"}), Version::V1_1_0, "prevResult.cniVersion: \"9.0.0\": is not a version we know"),
        (
            json!({"ip4": {"gateway": "10.0.0.1"}}),
            Version::V0_2_0,
            "prevResult.ip4: {\"gateway\":\"10.0.0.1\"}: must have ip",
        ),
    ] {
        assert_eq!(parsed(&value, version), Err(message.to_owned()));
    }
}

#[test]
fn a_result_that_is_wrong_is_not_written() {
    let with_ip = |ip| CniResult { ips: vec![ip], ..CniResult::default() };
    let with_route = |route| CniResult { routes: vec![route], ..CniResult::default() };
    let malformed = |key, value: &str| RenderError::Malformed { key, value: value.into() };
    for (result, error) in [
        (with_ip(ip("10.0.0.2", "", None)), malformed("ips.address", "10.0.0.2")),
        (with_ip(ip("10.0.0.2/24", "x", None)), malformed("ips.gateway", "x")),
        (with_ip(ip("10.0.0.2/24", "", Some(0))), RenderError::Index { index: 0, count: 0 }),
        (with_route(route("default", "")), malformed("routes.dst", "default")),
        (with_route(route("::/0", "/")), malformed("routes.gw", "/")),
    ] {
        for version in Version::ALL {
            assert_eq!(render(&result, version), Err(error.clone()), "{version}");
        }
    }
}

#[test]
fn the_oldest_versions_need_an_address() {
    for version in Version::ALL {
        let rendered = render(&CniResult::default(), version);
        if version < Version::V0_3_0 {
            assert_eq!(rendered, Err(RenderError::NoAddress(version)));
        } else {
            assert_eq!(rendered, Ok(json!({"cniVersion": version.as_str()})));
        }
    }
}
