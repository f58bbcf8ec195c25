//! Flow records that leave the node: every denial is in the file, the sums are even, metrics and the command line say
//! the same.

use std::fs;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{
    manifest::shop,
    node::{Node, PATIENCE, Setup, eventually},
    owner,
    traffic::{Echo, OPEN, Protocol::Tcp, Reached, SILENT, reach},
    trial::trial,
};

/// A node whose daemon reads these settings of exporters; HOME is its folder.
fn start(settings: &str) -> anyhow::Result<Node> {
    let name = owner::fresh_name();
    let folder = owner::folder(&name);
    let file = folder.join("exporters.yaml");
    let arguments = vec!["--exporters".to_owned(), file.display().to_string()];
    let mut node = Node::without_daemon(Setup { name, arguments, ..Setup::default() }, &[("all.yaml", &shop("shop"))])?;
    fs::write(&file, settings.replace("HOME", &folder.display().to_string()))?;
    node.start_daemon()?;
    Ok(node)
}

/// Whether what came is what went on, was left out, waits or was lost.
fn is_even(exporter: &Value) -> bool {
    let count = |name: &str| exporter[name].as_u64().unwrap_or(u64::MAX / 8);
    let lost: u64 = exporter["dropped"].as_array().into_iter().flatten().filter_map(|it| it["count"].as_u64()).sum();
    count("carried") + count("observed") + count("aggregates")
        == count("exported") + count("filtered") + count("aggregated") + count("spooled") + lost
}

fn events(path: &std::path::Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

#[test]
fn denials_are_in_the_file_and_what_filters_leave_out_is_counted() {
    trial(|| {
        let node = start(
            "exporters:\n- name: denials\n  includeFilters: [{verdict: [DROPPED], destination_pod: [shop/db]}]\n  \
             file: {path: HOME/denials.ndjson}\n- name: wrong\n  file: {path: denials.ndjson}\n",
        )?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80, 81], &[])?;
        let mut denied = 0;
        for to in db.at(81) {
            ensure!(reach(&web.sandbox, Tcp, to, SILENT)? == Reached::No);
            denied += 1;
        }
        for to in db.at(80) {
            ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes);
        }
        let file = node.folder().join("denials.ndjson");
        let all_there = || {
            let it = node.bulkhead().exporter("denials")?;
            ensure!(is_even(&it), "{it}");
            Ok(it["exported"].as_u64() >= Some(denied) && it["filtered"].as_u64() >= Some(2))
        };
        ensure!(eventually(PATIENCE, all_there)?, "{}", node.bulkhead().exporter("denials")?);
        let found = events(&file)?;
        for to in db.at(81) {
            let event =
                found.iter().find(|it| it["dst_endpoint"]["ip"] == to.ip().to_string()).context("the denial")?;
            ensure!(event["class_uid"] == 4001 && event["action"] == "Denied", "{event}");
            ensure!(event["src_endpoint"]["name"] == "web" && event["dst_endpoint"]["port"] == 81, "{event}");
            ensure!(event["policy"]["name"] == "shop/db", "{event}");
            ensure!(event["firewall_rule"]["type"] == "implicit-deny", "{event}");
        }
        ensure!(found.iter().all(|it| it["action"] == "Denied"), "only denials: {found:?}");
        let stats = node.bulkhead().json(&["flows", "stats"])?;
        let problems = stats["problems"].to_string();
        ensure!(problems.contains("wrong") && problems.contains("file.path"), "{problems}");
        ensure!(node.metric("bulkhead_export_problems")? == 1.0);
        Ok(())
    });
}

#[test]
fn many_connections_are_told_as_one_and_each_denial_by_itself() {
    trial(|| {
        let node = start(
            "exporters:\n- name: few\n  includeFilters: [{destination_pod: [shop/db]}]\n  aggregate: {windowSeconds: 2}\n  \
             file: {path: HOME/few.ndjson}\n",
        )?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let (open, closed) = (db.at(80)[0], db.at(81)[0]);
        const MANY: u64 = 40;
        for _ in 0..MANY {
            ensure!(reach(&web.sandbox, Tcp, open, OPEN)? == Reached::Yes);
        }
        ensure!(reach(&web.sandbox, Tcp, closed, SILENT)? == Reached::No);
        let file = node.folder().join("few.ndjson");
        let of = |found: &[Value], activity: &str| -> Vec<Value> {
            found.iter().filter(|it| it["activity_name"] == activity).cloned().collect()
        };
        let sum = |found: &[Value]| found.iter().filter_map(|it| it["count"].as_u64()).sum::<u64>();
        let all_there =
            || Ok(["Open", "Close"].iter().all(|it| sum(&of(&events(&file).unwrap_or_default(), it)) == MANY));
        ensure!(eventually(PATIENCE, all_there)?, "{:?}", events(&file)?);
        let found = events(&file)?;
        for activity in ["Open", "Close"] {
            let told = of(&found, activity);
            ensure!(told.len() < 10, "{told:#?}");
            let one = &told[0];
            ensure!(one["src_endpoint"]["name"] == "web" && one["dst_endpoint"]["port"] == 80, "{one}");
            ensure!(one["count"] == 1 || one["src_endpoint"].get("port").is_none(), "ports of many: {one}");
        }
        let denied: Vec<&Value> = found.iter().filter(|it| it["action"] == "Denied").collect();
        ensure!(!denied.is_empty() && denied.iter().all(|it| it.get("count").is_none()), "{denied:?}");
        let few = node.bulkhead().exporter("few")?;
        ensure!(is_even(&few) && few["aggregated"] == 2 * MANY, "{few}");
        Ok(())
    });
}
