//! `DumpMaps`: the text of every map, in one place to be compared.

use datapath_abi::{
    addr::Addr,
    conntrack::{CtEntry, CtKey, CtState, Ends, FLAG_INITIATOR_HIGH, FLAG_REVOKED, FragmentEntry, FragmentKey, Tally},
    endpoint::RulesPtr,
    overlay::{BELIEVED, Origin},
    reason::REASONS,
    uplink::Denied,
};
use futures::TryStreamExt;

use super::*;
use crate::datapath::connections::{Cut, Dumped, Found};

async fn ask(node: &Node, names: &[&str]) -> Result<Vec<String>, String> {
    ask_some(node, names, 0).await
}

async fn ask_some(node: &Node, names: &[&str], limit: u32) -> Result<Vec<String>, String> {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let answer = node.service().dump_maps(Request::new(pb::DumpMapsRequest { maps: names, limit })).await;
    let stream = answer.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?.into_inner();
    let entries: Vec<pb::MapEntry> = stream.try_collect().await.unwrap();
    let line = |pb::MapEntry { map, key, value, note }| match note.is_empty() {
        true => format!("{map} {key} = {value}"),
        false => format!("{map} {key}{value}NOTE {note}"),
    };
    Ok(entries.into_iter().map(line).collect())
}

async fn dump(node: &Node, names: &[&str]) -> Vec<String> {
    ask(node, names).await.unwrap()
}

#[tokio::test]
async fn rules_are_dumped_as_they_lie_there() {
    let node = shop();
    let (web, db, set, ports, generation) = {
        let state = node.state();
        let number = |path: &str| state.planner.identity_number(&key(path)).unwrap();
        let rules = RulesPtr(state.mirror.endpoints[&2].rules[1]);
        let web = number("shop/web-0");
        let (_, entry) = state.mirror.peers_of(rules.ruleset()).find(|(who, _)| *who == web).unwrap();
        (web, number("shop/db-0"), rules.ruleset(), entry.portset, rules.generation())
    };
    let endpoints = dump(&node, &["ENDPOINTS"]).await;
    let facts =
        format!("ENDPOINTS slot 2 = ifindex 22, identity {db}, mac 0a:58:0a:58:00:03, 10.88.0.3, fd88::3, egress open");
    assert!(endpoints[1].starts_with(&facts), "{}", endpoints[1]);
    let ingress = format!(", ingress generation {generation} rule set {set} ISOLATED|HAS_PEERS|HAS_REGIONS");
    assert!(endpoints[1].ends_with(&ingress), "{}", endpoints[1]);
    let peers = dump(&node, &["PEERS"]).await;
    let expected = format!("PEERS rule set {set}, identity {web} = port set {ports}, lengths 14|16, otherwise nothing");
    assert!(peers.contains(&expected), "no {expected} in {peers:?}");
    assert!(peers.iter().any(|line| line.contains(", class cluster = port set 0, lengths none, otherwise allow, ")));
    let lines = dump(&node, &["PORTS"]).await;
    let of = |line: &str| lines.iter().filter(|it| it.starts_with(line)).count();
    assert_eq!(of(&format!("PORTS port set {ports}, tcp 5432/16 = allow, precedence 32768, cookie ")), 1, "{lines:?}");
    assert_eq!(of(&format!("PORTS port set {ports}, udp 60/14 = allow, precedence 32768, cookie ")), 1, "{lines:?}");
    let regions = dump(&node, &["REGIONS"]).await;
    let starts =
        [format!("REGIONS rule set {set}, 192.0.2.0/24 = "), format!("REGIONS rule set {set}, 192.0.2.7/32 = ")];
    assert!(
        regions.len() == 2 && regions.iter().zip(&starts).all(|(line, start)| line.starts_with(start)),
        "{regions:?}"
    );
    let digests = dump(&node, &["RULESETS"]).await;
    assert!(
        digests.len() == 2 && digests.iter().all(|line| line.contains(" = digest ") && line.len() > 50),
        "{digests:?}"
    );
}

#[tokio::test]
async fn addresses_come_in_the_order_of_their_numbers() {
    let node = shop();
    let keys = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(
        keys(dump(&node, &["ADDRESSES"]).await),
        ["10.0.0.1", "10.88.0.2", "10.88.0.3", "10.88.0.4", "10.99.0.3", "fd88::2", "fd88::3", "fd88::4"]
    );
    assert_eq!(keys(dump(&node, &["CIDRS"]).await), ["10.88.0.0/24", "fd88::/64"]);
    assert_eq!(dump(&node, &["ADDRESSES"]).await[0], "ADDRESSES 10.0.0.1 = identity 1, slot 0");
    assert_eq!(dump(&node, &["INTERFACES"]).await[2], "INTERFACES ifindex 23 = slot 3");
}

#[tokio::test]
async fn maps_come_in_one_order_each_once() {
    let node = shop();
    lock(&node.counts).counters = (0..REASONS).map(|reason| (0, reason, Counter { packets: 1, bytes: 2 })).collect();
    let maps_of = |lines: &[String]| -> Vec<String> {
        let mut names: Vec<String> = lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        names.dedup();
        names
    };
    assert_eq!(maps_of(&dump(&node, &["SCALARS", "PORTS", "PEERS", "PORTS"]).await), ["PEERS", "PORTS", "SCALARS"]);
    let all = dump(&node, &[]).await;
    let expected: Vec<&str> = maps::ALL
        .iter()
        .map(|info| info.name)
        // Nothing is staged here, and there is no Service.
        .filter(|name| {
            let empty = [maps::STAGED, maps::FRONTENDS, maps::BACKENDS, maps::GONE];
            !empty.contains(name)
                && super::super::dump::table(name).is_none()
                && !super::super::dump::NOT_DUMPED.contains(name)
        })
        .collect();
    assert_eq!(maps_of(&all), expected);
    assert!(all.contains(&"COUNTERS from_pod, passed = packets 1, bytes 2".to_owned()));
    assert!(all.contains(&"COUNTERS from_pod, default_deny = packets 1, bytes 2".to_owned()));
    assert!(all.contains(&"SCALARS events_lost = 0".to_owned()));
    let generation = node.state().mirror.generation;
    assert!(all.contains(&format!("GENERATION 0 = generation {generation}")));
}

fn connection(port: u16, flags: u8) -> (CtKey, CtEntry) {
    let addr = [[10, 88, 0, 2], [10, 88, 0, 3]].map(Addr::from_v4);
    let key = CtKey { addr, port: [port, 5432], proto: 6, pad: [0; 3] };
    let ends = Ends {
        rules: [0, RulesPtr::new(9, RulesPtr::ISOLATED, 3).0],
        slot: [1, 2],
        ifindex: [21, 22],
        identity: [256, 257],
        cookie: [0, 77],
    };
    let entry = CtEntry {
        ends,
        last_seen: 5,
        state: CtState::Established as u8,
        flags,
        tcp_flags: [0x1b, 0x12],
        own: [Tally { packets: 1, bytes: 100 }, Tally::default()],
        shared: [Tally { packets: 2, bytes: 200 }, Tally { packets: 2, bytes: 200 }],
        created_ns: u64::MAX,
        reported_ns: 0,
        rtt_us: 120,
        ..CtEntry::default()
    };
    (key, entry)
}

#[tokio::test]
async fn connections_are_dumped_where_they_can_be_read() {
    let mut node = shop();
    let error = ask(&node, &["CONNTRACK"]).await.unwrap_err();
    assert_eq!(error, "Unimplemented: this daemon cannot read CONNTRACK: leave it out");
    node.parts.connections = Some(Arc::new(|table, limit| match table {
        Table::Conntrack => {
            assert_eq!(limit, 10_000);
            let mut open = connection(40_000, FLAG_REVOKED);
            // The responder is not of this node any more.
            open.1.ends.slot[1] = 0;
            let entries = vec![connection(40_001, FLAG_INITIATOR_HIGH), open];
            Ok(Dumped::Connections(Found { entries, cut: None }))
        }
        Table::Pending => Err("no such map".to_owned()),
        Table::Fragments => {
            let v6 = ["fd88::2", "fd88::3"].map(|addr| Addr::from(addr.parse::<std::net::IpAddr>().unwrap()));
            let v4 = [[10, 88, 0, 2], [10, 88, 0, 3]].map(Addr::from_v4);
            let entry = FragmentEntry { port: [1, 53], proto: 17, pad: [0; 3] };
            let key = |addr, id, proto| (FragmentKey { addr, id, proto, pad: [0; 3] }, entry);
            let entries = vec![key(v6, 0x0102_0304_u32.to_be(), 0), key(v4, 0x1234, 17)];
            Ok(Dumped::Fragments(Found { entries, cut: None }))
        }
        Table::Origins => {
            let node = Addr::from_v4([192, 0, 2, 9]);
            let pods = Origin { node, ifindex: 7, flags: Origin::ONLY_THERE };
            let entries = vec![
                ("192.0.2.9/32".parse().unwrap(), Origin { flags: 0, ..pods }),
                ("10.244.1.0/24".parse().unwrap(), pods),
            ];
            Ok(Dumped::Origins(Found { entries, cut: None }))
        }
        Table::Numbers => Ok(Dumped::Numbers(Found { entries: vec![(300, 0), (BELIEVED, 0)], cut: None })),
        Table::Carried => {
            let entries = vec![(Addr::from_v4([10, 244, 1, 5]), 300)];
            Ok(Dumped::Carried(Found { entries, cut: Some(Cut::Restless) }))
        }
        Table::Denied => {
            assert_eq!(limit, usize::MAX);
            let [refused, spared] = [Denied::REFUSED, Denied::SPARED].map(|verdict| Denied { verdict });
            let entries =
                vec![("2001:db8::/32".parse().unwrap(), refused), ("2001:db8::1/128".parse().unwrap(), spared)];
            Ok(Dumped::Denied(Found { entries, cut: None }))
        }
    }));
    let lines = dump(&node, &["CONNTRACK"]).await;
    let rest = |port: u16, initiator: &str, flags: &str, slots: &str| {
        format!(
            "CONNTRACK tcp 10.88.0.2:{port}, 10.88.0.3:5432 = Established, shop/web-0 to shop/db-0, age 0.000 s, \
             packets 3/2, bytes 300/200, initiator {initiator}, flags {flags}, tcp flags 0x1b/0x12, identities 256/257, \
             slots {slots}, ifindexes 21/22, cookies 0/77, egress open, ingress generation 9 rule set 3 ISOLATED, \
             created 18446744073709551615 ns, reported 0 ns, last seen 5 jiffies, rtt 120 us"
        )
    };
    let expected =
        [rest(40_000, "10.88.0.2:40000", "REVOKED", "1/0"), rest(40_001, "10.88.0.3:5432", "INITIATOR_HIGH", "1/2")];
    assert_eq!(lines, expected);
    assert_eq!(
        dump(&node, &["FRAGMENTS"]).await,
        [
            "FRAGMENTS 10.88.0.2 to 10.88.0.3, id 0x1234 = udp 10.88.0.2:1 to 10.88.0.3:53",
            "FRAGMENTS fd88::2 to fd88::3, id 0x1020304 = udp [fd88::2]:1 to [fd88::3]:53",
        ]
    );
    let error = ask(&node, &["PENDING"]).await.unwrap_err();
    assert_eq!(error, "Internal: map PENDING: no such map");
    assert_eq!(
        dump(&node, &["ORIGINS", "NUMBERS", "CARRIED", "DENIED"]).await,
        [
            "ORIGINS 10.244.1.0/24 = node 192.0.2.9, by ifindex 7, only",
            "ORIGINS 192.0.2.9/32 = node 192.0.2.9, by ifindex 7",
            "NUMBERS any = packets carry numbers, and are believed",
            "NUMBERS identity 300 = may be carried",
            "CARRIED 10.244.1.5 = last packet carried identity 300",
            "CARRIED NOTE the table changed faster than it could be read: entries may be missing, ask again",
            "DENIED 2001:db8::/32 = refused",
            "DENIED 2001:db8::1/128 = spared",
        ]
    );
}

#[tokio::test]
async fn ends_without_a_pod_have_their_names_as_well() {
    let mut node = shop();
    node.parts.connections = Some(Arc::new(|_, _| {
        let [mut world, mut gone, mut elsewhere] = [1, 2, 3].map(|port| connection(port, 0));
        (world.1.ends.slot[0], world.1.ends.identity[0]) = (0, datapath_abi::identity::WORLD);
        gone.1.ends.ifindex[0] = 99;
        (elsewhere.0.addr[0], elsewhere.1.ends.slot[0]) = (Addr::from_v4([10, 99, 0, 3]), 0);
        let mut nobody = elsewhere;
        nobody.0.addr[0] = Addr::from_v4([10, 99, 0, 4]);
        Ok(Dumped::Connections(Found { entries: vec![world, gone, elsewhere, nobody], cut: None }))
    }));
    let lines = dump(&node, &["PENDING"]).await;
    let ends: Vec<&str> = lines.iter().filter_map(|line| line.split(", ").find(|part| part.contains(" to "))).collect();
    let expected = ["world", "a pod that is gone", "shop/web-1", "a pod that is gone"];
    assert_eq!(ends, expected.map(|who| format!("{who} to shop/db-0")));
}

#[tokio::test]
async fn what_is_left_out_is_said() {
    let mut node = shop();
    node.parts.connections = Some(Arc::new(|table, limit| {
        assert_eq!(limit, 1);
        let cut = if table == Table::Conntrack { Cut::Limit } else { Cut::Restless };
        Ok(Dumped::Connections(Found { entries: vec![connection(1, 0)], cut: Some(cut) }))
    }));
    let lines = ask_some(&node, &["CONNTRACK", "PENDING", "ENDPOINTS", "GENERATION"], 1).await.unwrap();
    let starts: Vec<&str> = lines.iter().map(|line| line.split_inclusive(' ').next().unwrap().trim()).collect();
    assert_eq!(
        starts,
        ["CONNTRACK", "CONNTRACK", "PENDING", "PENDING", "ENDPOINTS", "ENDPOINTS", "GENERATION"],
        "{lines:#?}"
    );
    let more = "NOTE only 1 entries are told and there are more: ask for more with --limit";
    assert_eq!(lines[1], format!("CONNTRACK {more}"));
    assert!(lines[3].starts_with("PENDING NOTE the table changed faster than it could be read: "), "{}", lines[3]);
    assert_eq!(lines[5], format!("ENDPOINTS {more}"));
}

#[tokio::test]
async fn what_cannot_be_dumped_is_named() {
    let node = shop();
    let error = ask(&node, &["PEERS", "EVENTS"]).await.unwrap_err();
    assert!(error.starts_with("InvalidArgument: maps: EVENTS is a ring buffer without entries: "), "{error}");
    let error = ask(&node, &["peers\u{1b}"]).await.unwrap_err();
    assert!(
        error.starts_with("InvalidArgument: maps: there is no map \"peers\\u{1b}\": use some of CONNTRACK, "),
        "{error}"
    );
    lock(&node.counts).broken = true;
    let error = ask(&node, &["COUNTERS"]).await.unwrap_err();
    assert_eq!(error, "Internal: map COUNTERS: map COUNTERS: read: no such file");
}
