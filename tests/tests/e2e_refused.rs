//! Policies that cannot be read: what they select is denied where no good version is known, and what was good before
//! stays where one is.

use anyhow::ensure;
use tests::{
    manifest::{cluster_policy, namespace, pod, policy},
    node::{Node, PATIENCE, eventually},
    pod::Pod,
    traffic::{Echo, OPEN, Protocol::Tcp, Reached, SILENT, reach},
    trial::trial,
};

fn shop() -> String {
    let pods = ["db", "web", "plain"].map(|name| pod(&format!("shop/{name}"), &format!("app: {name}")));
    namespace("shop", "team: shop") + &pods.concat()
}

/// Ingress of the database from `cidr`.
fn db(cidr: &str) -> String {
    let spec =
        "  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress: [{from: [{ipBlock: {cidr: ";
    policy("shop/db", &format!("{spec}{cidr}}}}}]}}]"))
}

fn reaches(from: &Pod, to: &Pod, wanted: Reached) -> anyhow::Result<()> {
    let patience = if wanted == Reached::Yes { OPEN } else { SILENT };
    let reached = reach(&from.sandbox, Tcp, to.at(80)[0], patience)?;
    ensure!(reached == wanted, "{} to {}: {reached:?}, wanted {wanted:?}", from.key, to.key);
    Ok(())
}

#[test]
fn a_policy_that_was_never_good_denies_what_it_selects_until_it_is_mended_and_then_keeps_what_was_good() {
    trial(|| {
        let node = Node::start(&[("shop.yaml", &shop()), ("db.yaml", &db("0.0.0.0/99"))])?;
        let [web, db_pod, plain] = node.add_all(["shop/web", "shop/db", "shop/plain"])?;
        let _echoes = [Echo::start(&db_pod.sandbox, &[80], &[])?, Echo::start(&plain.sandbox, &[80], &[])?];
        reaches(&web, &db_pod, Reached::No)?;
        reaches(&db_pod, &plain, Reached::Yes)?;
        reaches(&web, &plain, Reached::Yes)?;
        let status = node.bulkhead().run(&["status"])?.out;
        ensure!(status.contains("what it selects is denied") && status.contains("0.0.0.0/99"), "{status}");
        let listed = node.bulkhead().run(&["policy", "get", "shop/db"])?.out;
        ensure!(listed.contains("refused") && listed.contains("until then what it selects is denied"), "{listed}");

        let open = |wanted| move |from: &Pod, to: &Pod| Ok(reach(&from.sandbox, Tcp, to.at(80)[0], SILENT)? == wanted);
        node.apply("db.yaml", &db("0.0.0.0/0"))?;
        ensure!(eventually(PATIENCE, || open(Reached::Yes)(&web, &db_pod))?, "mended");
        // Now a good version is known.
        node.apply("db.yaml", &db("0.0.0.0/98"))?;
        reaches(&web, &db_pod, Reached::Yes)?;
        let status = node.bulkhead().run(&["status"])?.out;
        ensure!(status.contains("its last good version stays in force"), "{status}");

        let guard = cluster_policy(
            "guard",
            "  tier: Admin\n  priority: 1\n  subject: {pods: {podSelector: {matchLabels: {app: plain}}}}\n  \
             ingress: [{action: Deny, from: [{pods: {}, nodes: {}}]}]",
        );
        node.apply("guard.yaml", &guard)?;
        ensure!(
            eventually(PATIENCE, || open(Reached::No)(&web, &plain))?,
            "a rule that denies somebody denies everybody"
        );
        node.remove("guard.yaml")?;
        ensure!(eventually(PATIENCE, || open(Reached::Yes)(&web, &plain))?, "it is gone");
        Ok(())
    });
}
