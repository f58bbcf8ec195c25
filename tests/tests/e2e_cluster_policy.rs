//! ClusterNetworkPolicy and staged policies under real traffic: who is asked before whom, what a
//! Pass leads to, what staged policies tell and do not do.

use std::{thread, time::Duration};

use anyhow::{Context as _, ensure};
use datapath_abi::endpoint::HOST_MAC;
use serde_json::Value;
use tests::{
    frame,
    live::Live,
    manifest::{cluster_policy, namespace, pod, policy, staged},
    node::{Node, PATIENCE, eventually},
    packet::{Body, Packet},
    pod::{IFNAME, Pod},
    traffic::{
        Echo, OPEN,
        Protocol::{Tcp, Udp},
        Reached, SILENT, reach,
    },
    trial::trial,
};

/// How soon after the change of a file the last forbidden packet may pass, on a machine that has other
/// things to do.
const BUSY: Duration = Duration::from_secs(1);
/// How long connections run before a change.
const RUN: Duration = Duration::from_millis(300);

fn shop() -> String {
    let pods = ["db", "web", "api", "friend", "evil", "plain"];
    let pods = pods.map(|name| pod(&format!("shop/{name}"), &format!("app: {name}")));
    namespace("shop", "team: shop") + &pods.concat()
}

fn reaches(from: &Pod, to: &Pod, port: u16, wanted: Reached) -> anyhow::Result<()> {
    let patience = if wanted == Reached::Yes { OPEN } else { SILENT };
    for address in to.at(port) {
        let reached = reach(&from.sandbox, Tcp, address, patience)?;
        ensure!(reached == wanted, "{} to {address}: {reached:?}, wanted {wanted:?}", from.key);
    }
    Ok(())
}

fn detail<'a>(flow: &'a Value, name: &str) -> &'a Value {
    &flow["extensions"]["value"][name]
}

/// A rule of a policy for ingress.
fn from(action: &str, app: &str) -> String {
    format!("  - {{action: {action}, from: [{{pods: {{podSelector: {{matchLabels: {{app: {app}}}}}}}}}]}}\n")
}

/// A policy of the Admin tier that keeps a pod from the database.
fn db_denies(app: &str) -> String {
    let head =
        "  tier: Admin\n  priority: 10\n  subject: {pods: {podSelector: {matchLabels: {app: db}}}}\n  ingress:\n";
    cluster_policy("guard", &(head.to_owned() + &from("Deny", app)))
}

#[test]
fn admin_comes_before_network_policy_and_baseline_after_it() {
    trial(|| {
        let admin = cluster_policy(
            "guard",
            &format!(
                "  tier: Admin\n  priority: 10\n  subject: {{namespaces: {{matchLabels: {{team: shop}}}}}}\n  ingress:\n{}{}{}",
                from("Deny", "evil"),
                from("Pass", "api"),
                from("Accept", "friend")
            ),
        );
        let rules = "  podSelector: {matchLabels: {app: db}}\n  ingress:\n\
                     \x20 - from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, evil]}]}}]";
        let baseline = cluster_policy(
            "floor",
            "  tier: Baseline\n  priority: 1\n  subject: {namespaces: {}}\n  ingress:\n\
             \x20 - {action: Deny, from: [{namespaces: {}}]}",
        );
        let all = [shop(), admin, policy("shop/db", rules), baseline].concat();
        let node = Node::start(&[("all.yaml", &all)])?;
        let [db, plain, web, api, friend, evil] =
            node.add_all(["shop/db", "shop/plain", "shop/web", "shop/api", "shop/friend", "shop/evil"])?;
        let _echoes = [Echo::start(&db.sandbox, &[80], &[])?, Echo::start(&plain.sandbox, &[80], &[])?];
        // NetworkPolicy allows evil, too; and it does not allow the friend.
        for (from, wanted) in [(&web, Reached::Yes), (&evil, Reached::No), (&api, Reached::No), (&friend, Reached::Yes)]
        {
            reaches(from, &db, 80, wanted)?;
        }
        // No NetworkPolicy isolates it, so that the Baseline tier has its say.
        for (from, wanted) in [(&web, Reached::No), (&api, Reached::No), (&friend, Reached::Yes)] {
            reaches(from, &plain, 80, wanted)?;
        }
        let told = node.bulkhead().flows_when(&["--from-pod", "shop/evil"], |found| !found.is_empty())?;
        let ingress = detail(told.first().context("a flow")?, "ingress");
        ensure!(ingress["outcome"] == "RULE_DENIES", "{ingress}");
        ensure!(ingress["rule"]["policy"]["kind"] == "ClusterNetworkPolicy", "{ingress}");
        ensure!(ingress["rule"]["policy"]["name"] == "guard", "{ingress}");
        let explained = node.bulkhead().run(&["explain", "shop/api", "shop/db:80"])?.out;
        ensure!(explained.contains("Admin tier") && explained.contains("passes on to the next tier"), "{explained}");
        let listed = node.bulkhead().run(&["policy", "list"])?.out;
        ensure!(listed.contains("ClusterNetworkPolicy") && listed.contains("Admin 10"), "{listed}");
        Ok(())
    });
}

#[test]
fn a_pass_by_label_goes_before_a_later_deny_by_address() {
    trial(|| {
        let guard = cluster_policy(
            "guard",
            "  tier: Admin\n  priority: 10\n  subject: {pods: {podSelector: {matchLabels: {app: web}}}}\n  egress:\n\
             \x20 - {action: Pass, to: [{pods: {podSelector: {matchLabels: {app: db}}}}]}\n\
             \x20 - {action: Deny, to: [{networks: [0.0.0.0/0, \"::/0\"]}]}",
        );
        let out = policy(
            "shop/web-out",
            "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Egress]\n  egress: [{ports: [{port: 80}]}]",
        );
        let node = Node::start(&[("shop.yaml", &shop()), ("guard.yaml", &guard)])?;
        let [web, db, api] = node.add_all(["shop/web", "shop/db", "shop/api"])?;
        let _echoes = [Echo::start(&db.sandbox, &[80, 81], &[])?, Echo::start(&api.sandbox, &[80], &[])?];
        reaches(&web, &db, 80, Reached::Yes)?;
        reaches(&web, &db, 81, Reached::Yes)?;
        reaches(&web, &api, 80, Reached::No)?;
        // Who is passed on meets NetworkPolicy, which allows one of both ports; who is not, does not.
        node.apply("out.yaml", &out)?;
        let closed = || Ok(reach(&web.sandbox, Tcp, db.at(81)[0], SILENT)? == Reached::No);
        ensure!(eventually(PATIENCE, closed)?, "the NetworkPolicy is asked after the pass");
        reaches(&web, &db, 80, Reached::Yes)?;
        reaches(&web, &db, 81, Reached::No)?;
        reaches(&web, &api, 80, Reached::No)?;
        Ok(())
    });
}

/// Rules of a ClusterNetworkPolicy isolate nobody; what they cannot be asked about is dropped all the same, and told.
#[test]
fn fragments_that_rules_cannot_be_asked_about_name_the_policy() {
    trial(|| {
        let guard = db_denies("web");
        let node = Node::start(&[("shop.yaml", &shop()), ("guard.yaml", &guard)])?;
        let [db, api] = node.add_all(["shop/db", "shop/api"])?;
        let later = |family: usize| {
            let addr = [api.addresses()[family], db.addresses()[family]];
            Packet::new([api.mac(), HOST_MAC], addr, Body::Udp { port: [1, 53] }).part(9, 3, false).bytes()
        };
        frame::send(&api.sandbox, IFNAME, &[later(0), later(1)])?;
        let dropped = |flow: &Value| detail(flow, "drop_reason") == "fragment";
        let both = |found: &[Value]| found.iter().filter(|flow| dropped(flow)).count() == 2;
        let told = node.bulkhead().flows_when(&["--from-pod", "shop/api"], both)?;
        for flow in told.iter().filter(|flow| dropped(flow)) {
            let ingress = detail(flow, "ingress");
            ensure!(ingress["outcome"] == "ISOLATED" && ingress["isolated_by"][0]["name"] == "guard", "{flow}");
            ensure!(ingress["isolated_by"].as_array().is_some_and(|all| all.len() == 1), "{flow}");
        }
        Ok(())
    });
}

#[test]
fn what_is_staged_is_told_and_not_done_until_it_is_enforced() {
    trial(|| {
        let guard = db_denies("web");
        let node = Node::start(&[("shop.yaml", &shop()), ("guard.yaml", &staged(&guard))])?;
        let [db, web, api] = node.add_all(["shop/db", "shop/web", "shop/api"])?;
        let echo = Echo::start(&db.sandbox, &[80], &[])?;
        reaches(&web, &db, 80, Reached::Yes)?;
        reaches(&api, &db, 80, Reached::Yes)?;
        let opened = |found: &[Value]| found.iter().any(|flow| detail(flow, "kind") == "OPENED");
        let told = node.bulkhead().flows_when(&["--from-pod", "shop/web"], opened)?;
        let flow = told.iter().find(|flow| detail(flow, "kind") == "OPENED").context("it was opened")?;
        let would = detail(flow, "staged_ingress");
        ensure!(flow["verdict"] == "FORWARDED" && would["outcome"] == "RULE_DENIES", "{flow}");
        ensure!(would["rule"]["policy"]["name"] == "guard" && detail(flow, "ingress")["outcome"] == "OPEN", "{flow}");
        let told = node.bulkhead().flows_when(&["--from-pod", "shop/api"], opened)?;
        let flow = told.iter().find(|flow| detail(flow, "kind") == "OPENED").context("it was opened")?;
        ensure!(detail(flow, "staged_ingress")["outcome"] == "OPEN", "{flow}");
        let table = node.bulkhead().run(&["flows", "--from-pod", "shop/web"])?.out;
        ensure!(table.contains("[with staged policies: denied by ClusterNetworkPolicy guard ingress[0]]"), "{table}");
        let listed = node.bulkhead().run(&["policy", "list"])?.out;
        ensure!(listed.contains("staged"), "{listed}");
        drop(echo);

        // Enforced: the connection that lives is cut, the other stays.
        let mut port = 2000;
        let mut open = |from: &Pod| -> anyhow::Result<Vec<Live>> {
            let mut all = Vec::new();
            for protocol in [Tcp, Udp] {
                for address in db.addresses() {
                    all.push(Live::open(&from.sandbox, protocol, &db.sandbox, (address, port).into())?);
                    port += 1;
                }
            }
            Ok(all)
        };
        let (cut, stays) = (open(&web)?, open(&api)?);
        thread::sleep(RUN);
        let at = node.write("guard.yaml", &guard)?;
        thread::sleep(BUSY + RUN);
        for live in cut {
            let report = live.finish()?;
            ensure!(report.there.last.min(report.back.last) > at - RUN / 2, "it did not run before: {report:?}");
            ensure!(report.cut_after(at) < BUSY, "forbidden packets passed for {:?}", report.cut_after(at));
        }
        for live in stays {
            live.finish()?.lossless()?;
        }
        Ok(())
    });
}
