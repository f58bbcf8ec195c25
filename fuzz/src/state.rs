//! Hostile files and flags of the daemon: what it reads back after a restart, the ranges of pods'
//! addresses, the capacities of maps, MAC addresses. Whatever is taken is written as the same thing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use daemon::{
    datapath::load::Capacities,
    ipam::{Allocator, Owner, Pools},
    mac::Mac,
    state::{EndpointRecord, Identities},
    uplink::deny_list::{Change, DenyList, Wanted},
};
use datapath_abi::uplink::Denied;
use ipnetwork::IpNetwork;
use prost::Message as _;
use proto::bulkhead::cni::v1::Tombstone;
use serde::{Serialize, de::DeserializeOwned};

/// Takes the rest of `bytes` for what the first one says.
///
/// # Panics
///
/// On a defect.
pub fn text(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 7 {
        0 => record::<EndpointRecord>(rest),
        1 => record::<Identities>(rest),
        2 => tombstone(rest),
        3 => lines(rest, pools),
        4 => lines(rest, capacities),
        5 => deny_list(rest),
        _ => lines(rest, mac),
    }
}

fn lines(bytes: &[u8], read: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
}

/// A record survives being written, also what was left out of the file.
fn record<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(record) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&record).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, record);
}

fn tombstone(bytes: &[u8]) {
    let Ok(tombstone) = Tombstone::decode(bytes) else { return };
    let again = Tombstone::decode(tombstone.encode_to_vec().as_slice());
    assert_eq!(again, Ok(tombstone));
}

/// Ranges separated by commas, as `--pool` has them: an address from every one that is taken is in
/// it, is nobody else's, and can be had again.
fn pools(text: &str) {
    let ranges: Result<Vec<IpNetwork>, _> = text.split(',').map(str::parse).collect();
    let Ok(ranges) = ranges else { return };
    let Ok(pools) = Pools::new(&ranges) else { return };
    for range in pools.ranges() {
        assert!(range.capacity() > 0, "{range:?}");
        assert_eq!(pools.range_of(range.gateway()), Some(range));
    }
    let gateways = pools.gateways();
    let mut allocator = Allocator::new(pools.clone());
    let mut given: Vec<IpAddr> = Vec::new();
    for number in 0..4 {
        let owner = Owner::new(format!("c{number}"), "eth0");
        // Small ranges run out: one of /30 has one address.
        let Ok(addresses) = allocator.allocate(&owner, &[]) else { break };
        for address in addresses {
            let range = pools.range_of(address.address).expect("it is in a range");
            assert_eq!(address.gateway, range.gateway());
            assert!(!gateways.contains(&address.address) && !given.contains(&address.address), "{address:?}");
            assert_eq!(allocator.owner(address.address), Some(&owner));
            given.push(address.address);
        }
    }
    assert!(!given.is_empty(), "an empty node has no address in {text}");
    for number in 0..4 {
        allocator.free_all(&Owner::new(format!("c{number}"), "eth0"));
    }
    assert!(given.iter().all(|address| allocator.owner(*address).is_none()), "freed");
    for address in given {
        let owner = Owner::new("again", "eth0");
        let addresses = allocator.allocate(&owner, &[address]).expect("it is free");
        assert!(addresses.iter().any(|it| it.address == address));
        allocator.free_all(&owner);
    }
}

/// A deny list of any bytes: each line says something, nothing or is a problem; whoever is to be spared is, however little room there
/// is, and the map can be brought from nothing to what is wanted and back.
fn deny_list(bytes: &[u8]) {
    let Some((room, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let list = DenyList::parse(&text);
    assert!(list.networks.len() + list.problems.len() <= text.lines().count());
    let spared: BTreeSet<IpAddr> = list.networks.iter().take(3).flat_map(|it| [it.ip(), it.network()]).collect();
    let wanted = Wanted::of(&list.networks, &spared, usize::from(*room));
    assert!(wanted.entries.len() <= usize::from(*room), "{wanted:?}");
    let covers = |range: &IpNetwork| wanted.entries.get(range).is_some_and(|it| it.verdict == Denied::REFUSED);
    for ip in spared {
        assert!(!covers(&IpNetwork::from(ip)), "{ip} is kept out: {wanted:?}");
        let is_spared = wanted.entries.contains_key(&IpNetwork::from(ip));
        assert!(
            is_spared || !list.networks.iter().any(|range| range.contains(ip) && covers(range)),
            "{ip}: {wanted:?}"
        );
    }
    let mut map = BTreeMap::new();
    for goal in [&wanted, &Wanted::default()] {
        for change in goal.changes(&map) {
            match change {
                Change::Put(range, denied) => map.insert(range, denied),
                Change::Remove(range) => map.remove(&range),
            };
        }
        assert_eq!(map, goal.entries);
    }
}

/// `MAP=N` on each line, as `--map-capacity` has it.
fn capacities(text: &str) {
    let mut capacities = Capacities::default();
    for line in text.lines() {
        let Some((map, entries)) = line.split_once('=') else { continue };
        let Ok(entries) = entries.parse() else { continue };
        if capacities.set(map, entries).is_ok() {
            assert_eq!(capacities.of(map), entries);
            assert!(entries > 0, "a map without entries");
        }
    }
}

fn mac(text: &str) {
    if let Ok(mac) = text.parse::<Mac>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
}

/// One of each kind, and broken ones.
pub fn seeds() -> Vec<Vec<u8>> {
    let endpoint = r#"{"owner":{"container_id":"c1","ifname":"eth0"},"network":"n","cni_version":"1.1.0",
        "netns":"/run/netns/a","netns_inode":4026531840,"pod":{"namespace":"a","name":"b","uid":""},
        "addresses":[{"address":"10.0.0.2","gateway":"10.0.0.1"},{"address":"fd00::2","gateway":"fd00::1"}],
        "mac":"02:00:00:00:00:01","mtu":1500,"host_ifname":"bh0","host_ifindex":7,"pod_ifindex":2,"slot":1,
        "phase":"ready","created_unix_ms":1700000000000}"#;
    let identities = r#"{"identities":[{"number":256,"namespace":"a","namespace_labels":{"k":"v"},"labels":{"app":"b"},
        "service_account":"default"}]}"#;
    let tombstone = Tombstone::default().encode_to_vec();
    let texts: [(u8, &[u8]); 13] = [
        (0, endpoint.as_bytes()),
        (0, b"{}"),
        (1, identities.as_bytes()),
        (2, &tombstone),
        (3, b"10.244.0.0/24,fd00:10:244::/64"),
        (3, b"10.0.0.0/30"),
        (3, b"1.0.0.0/8,128.0.0.0/3,fd00::/8,2000::/3"),
        (3, b"fd00::/126"),
        (4, b"CONNTRACK=262144\nEVENTS=65536\nPEERS=0"),
        (5, b"\x0a# list\n192.0.2.7\n198.51.100.0/24 # all\n2001:db8::/32\n\nexample.org"),
        (5, b"\x02" as &[u8]),
        (6, b"02:00:00:00:00:01"),
        (6, b"02-00-5E-10-00-00"),
    ];
    texts.into_iter().map(|(kind, text)| [&[kind], text].concat()).collect()
}

/// Keys, names of maps, ranges, one a line.
pub const WORDS: &str = include_str!("../words/state.txt");
