//! Changes of policies and labels while connections live: what is forbidden is cut in both directions
//! at once, what stays allowed loses nothing, what is broken changes nothing.

use std::{
    fs::OpenOptions,
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tests::{
    live::{Live, retransmissions},
    manifest::{namespace, pod, policy},
    node::{Node, PATIENCE, eventually},
    pod::Pod,
    traffic::{
        Echo, OPEN,
        Protocol::{self, Tcp, Udp},
        Reached, SILENT, reach,
    },
    trial::trial,
};

/// How soon after the change of a file the last forbidden packet may pass, half of it the time that
/// the daemon waits for more changes.
const CUT: Duration = Duration::from_millis(100);
/// The same on a machine that had other things to do.
const BUSY: Duration = Duration::from_secs(1);
/// How long connections run before a change and after it.
const RUN: Duration = Duration::from_millis(300);

/// Ingress of shop/db from pods with the label `app: web`.
fn from_web() -> String {
    policy(
        "shop/db",
        "  podSelector: {matchLabels: {app: db}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]",
    )
}

fn reaches(from: &Pod, protocol: Protocol, to: &Pod, port: u16, wanted: Reached) -> anyhow::Result<()> {
    let patience = if wanted == Reached::Yes { OPEN } else { SILENT };
    for to in to.at(port) {
        let reached = reach(&from.sandbox, protocol, to, patience)?;
        ensure!(reached == wanted, "{} to {to}: {reached:?}, wanted {wanted:?}", from.key);
    }
    Ok(())
}

/// Opens connections of all four kinds.
fn open_all(from: &Pod, to: &Pod, first_port: u16) -> anyhow::Result<Vec<Live>> {
    let mut port = first_port;
    let mut all = Vec::new();
    for protocol in [Tcp, Udp] {
        for address in to.addresses() {
            all.push(Live::open(&from.sandbox, protocol, &to.sandbox, (address, port).into())?);
            port += 1;
        }
    }
    Ok(all)
}

/// Connections of `cut` are cut by `change`, those of `stays` lose nothing, on the first attempt
/// that was not disturbed: `change` and `back` are each other's opposite.
fn cuts(
    cut: &Pod,
    stays: &Pod,
    to: &Pod,
    change: impl Fn() -> anyhow::Result<Instant>,
    back: impl Fn() -> anyhow::Result<Instant>,
) -> anyhow::Result<()> {
    let mut measured = Vec::new();
    for attempt in 0..3 {
        let first_port = 2000 + attempt * 10;
        let staying = open_all(stays, to, first_port)?;
        let cutting = open_all(cut, to, first_port + 4)?;
        let again = retransmissions(&stays.sandbox)?;
        thread::sleep(RUN);
        let at = change()?;
        thread::sleep(RUN);
        let mut longest = Duration::ZERO;
        for live in cutting {
            let report = live.finish()?;
            ensure!(report.there.last.min(report.back.last) > at - RUN / 2, "it did not run before: {report:?}");
            longest = longest.max(report.cut_after(at));
        }
        for live in staying {
            let report = live.finish()?;
            report.lossless()?;
            ensure!(report.there.last.min(report.back.last) > at + RUN / 2, "it has stopped: {report:?}");
        }
        let again = retransmissions(&stays.sandbox)? - again;
        ensure!(again == 0, "{again} segments of connections that stay allowed were sent again");
        ensure!(longest < BUSY, "forbidden packets passed for {longest:?} after the change");
        back()?;
        measured.push(longest);
        if longest < CUT {
            return Ok(());
        }
    }
    anyhow::bail!("forbidden packets passed for {measured:?} after the changes")
}

#[test]
fn a_new_policy_cuts_what_it_forbids_and_nothing_else() {
    trial(|| {
        let objects = [pod("shop/web", "app: web"), pod("shop/db", "app: db"), pod("shop/other", "app: other")];
        let node = Node::start(&[("pods.yaml", &objects.concat())])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        cuts(&other, &web, &db, || node.apply("policy.yaml", &from_web()), || node.remove("policy.yaml"))?;
        // The first packet of a connection after its cut is told.
        node.bulkhead().flows_when(&["--verdict", "denied", "--from-pod", "shop/other"], |found| !found.is_empty())?;
        let cut = |flow: &serde_json::Value| flow["extensions"]["value"]["end_reason"] == "POLICY_CHANGE";
        let told = || Ok(node.bulkhead().flows(&["--from-pod", "shop/other"])?.iter().any(cut));
        ensure!(eventually(PATIENCE, told)?, "no connection was told to be cut by a change of policy");

        // Added: new connections are denied; removed: they are allowed again.
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        node.apply("policy.yaml", &from_web())?;
        for protocol in [Tcp, Udp] {
            reaches(&other, protocol, &db, 80, Reached::No)?;
            reaches(&web, protocol, &db, 80, Reached::Yes)?;
        }
        node.remove("policy.yaml")?;
        for protocol in [Tcp, Udp] {
            reaches(&other, protocol, &db, 80, Reached::Yes)?;
        }
        Ok(())
    });
}

#[test]
fn an_edited_label_of_a_pod_is_followed() {
    trial(|| {
        let file = |label: &str| pod("shop/web", &format!("app: {label}"));
        let objects = [pod("shop/db", "app: db"), pod("shop/api", "app: web"), from_web()].concat();
        let node = Node::start(&[("all.yaml", &objects), ("web.yaml", &file("web"))])?;
        let [web, db, api] = node.add_all(["shop/web", "shop/db", "shop/api"])?;
        cuts(&web, &api, &db, || node.apply("web.yaml", &file("old")), || node.apply("web.yaml", &file("web")))?;

        // The label of the pod that is selected: it is no longer isolated.
        let _echo = Echo::start(&web.sandbox, &[80], &[80])?;
        node.apply("web.yaml", &file("db"))?;
        reaches(&db, Tcp, &web, 80, Reached::No)?;
        reaches(&api, Udp, &web, 80, Reached::Yes)?;
        node.apply("web.yaml", &file("none"))?;
        reaches(&db, Tcp, &web, 80, Reached::Yes)
    });
}

#[test]
fn an_edited_label_of_a_namespace_is_followed() {
    trial(|| {
        let objects = [
            pod("shop/db", "app: db"),
            namespace("good", "trusted: 'yes'"),
            policy(
                "shop/db",
                "  podSelector: {matchLabels: {app: db}}\n\
                 \x20 ingress: [{from: [{namespaceSelector: {matchLabels: {trusted: 'yes'}}}]}]",
            ),
        ];
        let file = |trusted: &str| namespace("mon", &format!("trusted: '{trusted}'"));
        let node = Node::start(&[("all.yaml", &objects.concat()), ("mon.yaml", &file("yes"))])?;
        let [prober, db, good] = node.add_all(["mon/prober", "shop/db", "good/one"])?;
        cuts(&prober, &good, &db, || node.apply("mon.yaml", &file("no")), || node.apply("mon.yaml", &file("yes")))?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        reaches(&prober, Tcp, &db, 80, Reached::Yes)
    });
}

#[test]
fn a_pod_that_comes_later_is_recognised_from_its_first_connection() {
    trial(|| {
        let objects = [pod("shop/db", "app: db"), pod("shop/web", "app: web"), from_web()].concat();
        let node = Node::start(&[("all.yaml", &objects)])?;
        let db = node.add("shop/db")?;
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        for _ in 0..3 {
            let web = node.add("shop/web")?;
            // One datagram each: nothing sends it again.
            reaches(&web, Udp, &db, 80, Reached::Yes)?;
            let stranger = node.add("shop/stranger")?;
            reaches(&stranger, Udp, &db, 80, Reached::No)?;
            web.del()?;
            stranger.del()?;
        }
        Ok(())
    });
}

#[test]
fn what_is_broken_is_told_and_the_last_good_stays() {
    trial(|| {
        let objects = [pod("shop/db", "app: db"), pod("shop/web", "app: web")].concat();
        let node = Node::start(&[("pods.yaml", &objects), ("policy.yaml", &from_web())])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let enforced = || -> anyhow::Result<()> {
            reaches(&web, Tcp, &db, 80, Reached::Yes)?;
            reaches(&other, Tcp, &db, 80, Reached::No)
        };
        enforced()?;
        for (text, field) in [
            // A key that there is not; a value that cannot be; no YAML at all.
            (from_web().replace("ingress:", "ingres:"), "ingres"),
            (from_web().replace("app: web", "app: '-web-'"), "matchLabels"),
            (from_web() + "\n  - ]: {", ""),
        ] {
            node.write("policy.yaml", &text)?;
            let errors = || anyhow::Ok(node.ask()?.status()?.source.map(|source| source.errors).unwrap_or_default());
            ensure!(eventually(PATIENCE, || Ok(!errors()?.is_empty()))?, "no error about {text}");
            let [error] = &errors()?[..] else { anyhow::bail!("{:?}", errors()?) };
            let origin = error.origin.as_ref().context("an origin")?;
            ensure!(origin.file.ends_with("policy.yaml") && error.last_good_in_force, "{error:?}");
            ensure!(error.field.contains(field) && !error.message.is_empty(), "{error:?}");
            ensure!(node.metric("bulkhead_source_errors")? == 1.0);
            let shown = node.bulkhead().run(&["status"])?;
            ensure!(shown.out.contains("policy.yaml") && shown.out.contains("last good version"), "{}", shown.out);
            ensure!(node.bulkhead().run(&["status", "--check"])?.code == 3);
            enforced()?;
            // What is right beside it is still followed.
            node.apply("other.yaml", &pod("shop/other", "app: web"))?;
            reaches(&other, Tcp, &db, 80, Reached::Yes)?;
            node.apply("other.yaml", &pod("shop/other", "app: other"))?;
            node.apply("policy.yaml", &from_web())?;
            ensure!(errors()?.is_empty(), "{:?}", errors()?);
            ensure!(node.bulkhead().run(&["status", "--check"])?.code == 0);
        }
        enforced()
    });
}

#[test]
fn a_half_written_file_is_not_read() {
    trial(|| {
        let node = Node::start(&[])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let text = [pod("shop/db", "app: db"), pod("shop/web", "app: web"), from_web()].concat();
        node.apply("all.yaml", &text)?;
        reaches(&other, Tcp, &db, 80, Reached::No)?;
        // As an editor that writes in place: the first half is valid, and lacks the policy.
        let half = text.find("kind: NetworkPolicy").context("a policy")? - "apiVersion: networking.k8s.io/v1\n".len();
        let mut file = OpenOptions::new().write(true).truncate(true).open(node.objects().join("all.yaml"))?;
        file.write_all(&text.as_bytes()[..half])?;
        file.flush()?;
        thread::sleep(Duration::from_millis(500));
        reaches(&other, Tcp, &db, 80, Reached::No).context("while the file is half written")?;
        file.write_all(&text.as_bytes()[half..])?;
        drop(file);
        thread::sleep(Duration::from_millis(300));
        reaches(&other, Tcp, &db, 80, Reached::No)?;
        reaches(&web, Tcp, &db, 80, Reached::Yes)
    });
}

#[test]
fn an_object_may_move_to_another_file() {
    trial(|| {
        let node = Node::start(&[("pods.yaml", &pod("shop/db", "app: db")), ("a.yaml", &from_web())])?;
        let [db, other] = node.add_all(["shop/db", "shop/other"])?;
        let live = Live::open(&node.sandbox, Udp, &db.sandbox, (db.v4, 2000).into())?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        std::fs::rename(node.objects().join("a.yaml"), node.objects().join("b.yaml"))?;
        let moved = || {
            let policies = node.ask()?.policies("shop")?;
            let origin = policies.first().and_then(|policy| policy.origin.clone());
            Ok(origin.is_some_and(|origin| origin.file.ends_with("b.yaml")))
        };
        ensure!(
            eventually(PATIENCE, moved)?,
            "the policy is not known to be in b.yaml: {:?}",
            node.ask()?.policies("shop")?
        );
        reaches(&other, Tcp, &db, 80, Reached::No)?;
        live.finish()?.lossless()?;
        std::fs::remove_file(node.objects().join("b.yaml"))?;
        ensure!(eventually(PATIENCE, || Ok(node.ask()?.policies("shop")?.is_empty()))?);
        node.ask()?.status()?;
        reaches(&other, Tcp, &db, 80, Reached::Yes)
    });
}
