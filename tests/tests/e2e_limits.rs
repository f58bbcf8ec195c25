//! Policies that do not fit the maps: refused as a whole and told, while the last complete rules stay
//! in force (promise 6).

use anyhow::{Context as _, ensure};
use tests::{
    manifest::{pod, policy},
    node::{Node, PATIENCE, Setup, eventually},
    traffic::{Case, Echo, Protocol::Tcp, expect},
    trial::trial,
};

/// Ten pods with labels of their own, so that each has an identity of its own.
fn crowd() -> String {
    (0..10).map(|number| pod(&format!("shop/pod{number}"), &format!("app: pod{number}"))).collect()
}

/// Ingress of shop/db from these peers.
fn from(peers: &str) -> String {
    policy("shop/db", &format!("  podSelector: {{matchLabels: {{app: db}}}}\n  ingress: [{{from: [{peers}]}}]"))
}

#[test]
fn a_policy_that_does_not_fit_leaves_the_last_complete_rules() {
    trial(|| {
        let setup = Setup { arguments: vec!["--map-capacity=PEERS=8".to_owned()], ..Setup::default() };
        let web = "{podSelector: {matchLabels: {app: web}}}";
        // Each of the ten, one by one: as a class they would be one entry.
        let ten: Vec<String> =
            (0..10).map(|number| format!("{{podSelector: {{matchLabels: {{app: pod{number}}}}}}}")).collect();
        let objects = [crowd(), pod("shop/db", "app: db"), pod("shop/web", "app: web")].concat();
        let node = Node::start_as(setup, &[("pods.yaml", &objects), ("policy.yaml", &from(web))])?;
        let [web_pod, db, pod3, late] = node.add_all(["shop/web", "shop/db", "shop/pod3", "shop/late"])?;
        let _echoes = [Echo::start(&db.sandbox, &[80], &[])?, Echo::start(&late.sandbox, &[80], &[])?];
        let case = |from: &'static str, allowed: bool| {
            let sandbox = if from == "web" { &web_pod.sandbox } else { &pod3.sandbox };
            db.at(80).map(|to| Case { what: from.to_owned(), from: sandbox, protocol: Tcp, to, allowed })
        };
        expect(&[case("web", true), case("pod3", false)].concat())?;

        node.apply("policy.yaml", &from(&ten.join(", ")))?;
        let status = node.ask()?.status()?;
        let [refusal] = &status.refusals[..] else { anyhow::bail!("{:?}", status.refusals) };
        ensure!(refusal.object.as_ref().is_some_and(|object| object.name == "db"), "{refusal:?}");
        ensure!(refusal.reason.contains("NetworkPolicy shop/db takes"), "{refusal:?}");
        ensure!(refusal.reason.contains("more than the 8") && refusal.fix.contains("--map-capacity"), "{refusal:?}");
        expect(&[case("web", true), case("pod3", false)].concat()).context("the last complete rules")?;
        ensure!(node.metric("bulkhead_refusals")? == 1.0);
        let shown = node.bulkhead().run(&["status"])?.out;
        ensure!(shown.contains("NOT IN FORCE AS WRITTEN") && shown.contains("shop/db, ingress"), "{shown}");
        ensure!(node.bulkhead().run(&["status", "--check"])?.code == 3);
        ensure!(std::fs::read_to_string(node.log())?.contains("Rules refused"));
        for pod in [&web_pod, &db, &pod3] {
            pod.call("CHECK")?.result()?;
        }

        // A pod that never had complete rules is denied.
        node.apply("late.yaml", &(pod("shop/late", "app: late") + &from(&ten.join(", ")).replace("db", "late")))?;
        ensure!(node.metric("bulkhead_refusals")? == 2.0);
        let denied = late.at(80).map(|to| Case {
            what: "pod3 to late".to_owned(),
            from: &pod3.sandbox,
            protocol: Tcp,
            to,
            allowed: false,
        });
        expect(&denied)?;
        node.remove("late.yaml")?;

        // What fits again is in force again.
        node.apply("policy.yaml", &from(&ten[..4].join(", ")))?;
        ensure!(eventually(PATIENCE, || Ok(node.ask()?.status()?.refusals.is_empty()))?);
        expect(&[case("web", false), case("pod3", true)].concat())?;
        ensure!(node.metric("bulkhead_refusals")? == 0.0);
        ensure!(node.bulkhead().run(&["status", "--check"])?.code == 0);
        Ok(())
    });
}

#[test]
fn an_add_that_finds_no_slot_is_refused_and_undone() {
    trial(|| {
        let setup = Setup { arguments: vec!["--map-capacity=ENDPOINTS=3".to_owned()], ..Setup::default() };
        let node = Node::start_as(setup, &[])?;
        // Slot 0 is nobody's.
        let [one, _two] = node.add_all(["shop/one", "shop/two"])?;
        let blank = node.blank("shop/three")?;
        let (code, message) = blank.call("ADD")?.error()?;
        ensure!(code == 113 && message.contains("--map-capacity ENDPOINTS"), "{code}: {message}");
        ensure!(node.ask()?.endpoints()?.len() == 2);
        one.del()?;
        blank.add()?.call("CHECK")?.result()?;
        Ok(())
    });
}
