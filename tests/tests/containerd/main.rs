//! A real containerd, told of our plugin and nothing else: what its pods may do, what the flows
//! say of it, and what is left when pods go, in an orderly way or otherwise.

mod told;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, ensure};
use proto::{bulkhead::flow::v1::Outcome, flow::Verdict};
use serde_json::json;
use tests::{
    containerd::{Machine, Pod},
    manifest,
    node::eventually,
    plugin::Call,
    trial::trial,
};

use told::{Told, names};

/// How long a change may take to be in force; it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a lost first packet takes to be sent again (RFC 6298, section 2: 1 s).
const ANSWER: Duration = Duration::from_secs(5);
/// The daemon looks every 30 s for sandboxes that are gone.
const OWN_LOOK: Duration = Duration::from_secs(50);
/// For an answer that must not come.
const SILENCE: Duration = Duration::from_millis(400);

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: retail}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other}
";

/// Who may be reached is the second rule, so that its number tells something.
const POLICIES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-ingress, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: backup}}}]
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 5432}, {port: 5353, protocol: UDP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-egress, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: db}}}]
";

/// Asks in both families; all answers have to be this one.
fn expect(machine: &Machine, from: &Pod, to: &Pod, protocol: &str, port: u16, wanted: &str) -> anyhow::Result<()> {
    let patience = if wanted == "silence" { SILENCE } else { ANSWER };
    let targets = to.targets(protocol, port);
    let got = machine.ask_from(from, patience, &targets)?;
    ensure!(got == [wanted; 2], "{} asks {} at {targets:?}: {got:?} instead of {wanted}", from.key, to.key);
    Ok(())
}

/// As [`expect`], for something that becomes true by and by.
fn expect_soon(machine: &Machine, from: &Pod, to: &Pod, protocol: &str, port: u16, wanted: &str) -> anyhow::Result<()> {
    let mut last = None;
    let reached = eventually(PATIENCE, || {
        last = expect(machine, from, to, protocol, port, wanted).err();
        Ok(last.is_none())
    })?;
    if reached { Ok(()) } else { Err(last.context("no answer at all")?) }
}

/// Addresses in use, as the daemon counts them.
fn in_use(machine: &Machine) -> anyhow::Result<u64> {
    Ok(machine.ask()?.status()?.pools.iter().map(|pool| pool.used).sum())
}

/// Container ids of the endpoints that the daemon knows.
fn endpoints(machine: &Machine) -> anyhow::Result<BTreeSet<String>> {
    Ok(machine.ask()?.endpoints()?.into_iter().map(|endpoint| endpoint.container_id).collect())
}

/// Names in a folder of the room; none if there is no such folder.
fn names_in(machine: &Machine, folder: &str) -> Vec<String> {
    tests::owner::names_in(&machine.room.outside(folder), "")
}

#[test]
fn pods_of_containerd_do_what_policies_say_and_flows_tell_it() {
    trial(|| {
        let machine = Machine::start(&[
            ("namespaces.yaml", NAMESPACES),
            ("policies.yaml", POLICIES),
            ("web.yaml", &manifest::pod("shop/web", "app: web")),
            ("job.yaml", &manifest::pod("shop/job", "app: job")),
            ("db.yaml", &manifest::pod("shop/db", "app: db")),
            ("stranger.yaml", &manifest::pod("other/stranger", "app: web")),
        ])?;
        let free = in_use(&machine)?;
        let serves = ["tcp:5432", "tcp:80", "udp:5353"];
        let db = machine.pod("shop/db", &serves)?;
        let web = machine.pod("shop/web", &serves)?;
        let job = machine.pod("shop/job", &serves)?;
        let stranger = machine.pod("other/stranger", &serves)?;
        assert_eq!(in_use(&machine)?, free + 8, "four pods with an address of each family");

        expect(&machine, &web, &db, "tcp", 5432, "yes")?;
        expect(&machine, &web, &db, "udp", 5353, "yes")?;
        expect(&machine, &web, &db, "tcp", 80, "silence")?;
        for from in [&job, &stranger] {
            expect(&machine, from, &db, "tcp", 5432, "silence")?;
            expect(&machine, from, &db, "udp", 5353, "silence")?;
        }
        expect(&machine, &web, &stranger, "tcp", 80, "silence")?;
        expect(&machine, &stranger, &web, "tcp", 80, "yes")?;

        // The same, as it is told.
        for (protocol, port) in [("tcp", 5432), ("udp", 5353)] {
            let verdict = Verdict::Forwarded;
            Told { from: (&web, "web"), to: (&db, "db"), protocol, port, verdict }.soon(
                &machine,
                |flow, extension| {
                    assert_eq!(names(&flow.ingress_allowed_by), ["shop/db-ingress"]);
                    assert_eq!(names(&flow.egress_allowed_by), ["shop/web-egress"]);
                    let rule = extension.ingress.as_ref().and_then(|ruling| ruling.rule.as_ref()).context("a rule")?;
                    assert_eq!(rule.index, 1);
                    let rule = extension.egress.as_ref().and_then(|ruling| ruling.rule.as_ref()).context("a rule")?;
                    assert_eq!(rule.index, 0);
                    Ok(())
                },
            )?;
            for from in [(&job, "job"), (&stranger, "web")] {
                let verdict = Verdict::Dropped;
                Told { from, to: (&db, "db"), protocol, port, verdict }.soon(&machine, |flow, extension| {
                    assert_eq!(names(&flow.ingress_denied_by), ["shop/db-ingress"]);
                    let ruling = extension.ingress.as_ref().context("a ruling")?;
                    assert_eq!(ruling.outcome(), Outcome::Isolated);
                    Ok(())
                })?;
            }
        }
        let told =
            Told { from: (&web, "web"), to: (&stranger, "web"), protocol: "tcp", port: 80, verdict: Verdict::Dropped };
        told.soon(&machine, |flow, _| {
            assert_eq!(names(&flow.egress_denied_by), ["shop/web-egress"]);
            Ok(())
        })?;

        // Labels change; nobody is started anew.
        machine.write("job.yaml", &manifest::pod("shop/job", "app: web"))?;
        machine.write("web.yaml", &manifest::pod("shop/web", "app: retired"))?;
        expect_soon(&machine, &job, &db, "tcp", 5432, "yes")?;
        expect_soon(&machine, &web, &db, "tcp", 5432, "silence")?;
        expect(&machine, &job, &db, "udp", 5353, "yes")?;
        expect(&machine, &web, &db, "udp", 5353, "silence")?;
        expect(&machine, &web, &stranger, "tcp", 80, "yes")?;
        let verdict = Verdict::Dropped;
        Told { from: (&web, "retired"), to: (&db, "db"), protocol: "udp", port: 5353, verdict }
            .soon(&machine, |_, _| Ok(()))?;

        // An address that was freed belongs to nobody.
        let (gone, v4) = (db.id.clone(), db.v4);
        machine.remove(db)?;
        assert!(!endpoints(&machine)?.contains(&gone));
        assert_eq!(in_use(&machine)?, free + 6);
        for pod in [web, job, stranger] {
            machine.remove(pod)?;
        }
        assert_eq!(endpoints(&machine)?, BTreeSet::new());
        assert_eq!(in_use(&machine)?, free, "{v4} and the others are free");
        assert_eq!(machine.cri().pods()?, []);
        assert_eq!(names_in(&machine, "/run/netns"), <[String; 0]>::default());
        assert_eq!(names_in(&machine, "/var/lib/cni/results"), <[String; 0]>::default());
        let links = machine.room.run("ip", &["-o", "link"])?;
        assert_eq!(links.lines().count(), 1, "only the loopback interface: {links}");

        let (cgroups, before) = (machine.cgroups(), PLACES.map(exists));
        ensure!(!cgroups.is_empty(), "containers are in no control group of ours");
        drop(machine);
        let left: Vec<_> = cgroups.iter().filter(|cgroup| cgroup.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(PLACES.map(exists), before);
        Ok(())
    });
}

/// Folders of the machine itself, which are none of ours.
const PLACES: [&str; 5] =
    ["/run/containerd", "/var/lib/containerd", "/var/lib/cni", "/run/bulkhead", "/sys/fs/bpf/bulkhead"];

fn exists(path: &str) -> bool {
    std::path::Path::new(path).exists()
}

#[test]
fn what_a_crashed_runtime_leaves_is_collected() {
    trial(|| {
        let mut machine = Machine::start(&[("namespaces.yaml", NAMESPACES)])?;
        let free = in_use(&machine)?;
        let serves = ["tcp:80", "udp:53"];
        let kept = machine.pod("shop/kept", &serves)?;
        let lost = machine.pod("shop/lost", &serves)?;
        let forgotten = machine.pod("other/forgotten", &serves)?;
        let ids = |pods: &[&Pod]| pods.iter().map(|pod| pod.id.clone()).collect::<BTreeSet<_>>();
        assert_eq!(endpoints(&machine)?, ids(&[&kept, &lost, &forgotten]));

        // A sandbox dies while nobody is there to say so. containerd calls no GC: we look.
        machine.kill_containerd()?;
        machine.destroy(&lost)?;
        let collected = eventually(OWN_LOOK, || Ok(!endpoints(&machine)?.contains(&lost.id)))?;
        ensure!(collected, "the daemon has not noticed that {} is gone", lost.netns);
        assert_eq!(endpoints(&machine)?, ids(&[&kept, &forgotten]));
        assert_eq!(in_use(&machine)?, free + 4);

        // containerd comes back, learns of the death, and calls DEL for what is gone: no error.
        machine.start_containerd()?;
        expect(&machine, &kept, &forgotten, "tcp", 80, "yes")?;
        machine.cri().stop_pod(&lost.id)?;
        machine.cri().remove_pod(&lost.id)?;
        let known: BTreeSet<String> = machine.cri().pods()?.into_iter().map(|pod| pod.id).collect();
        assert_eq!(known, ids(&[&kept, &forgotten]));

        // It loses its memory: the namespaces stay, and no DEL will ever come for them.
        machine.kill_containerd()?;
        std::fs::remove_dir_all(machine.room.outside("/var/lib/containerd/io.containerd.metadata.v1.bolt"))?;
        machine.start_containerd()?;
        assert_eq!(machine.cri().pods()?, []);
        assert_eq!(endpoints(&machine)?, ids(&[&kept, &forgotten]));

        // A runtime that does call GC says what is valid.
        let mut plugin = machine.plugin();
        let valid =
            |pods: &[&Pod]| pods.iter().map(|pod| json!({"containerID": pod.id, "ifname": "eth0"})).collect::<Vec<_>>();
        plugin.conf["cni.dev/valid-attachments"] = valid(&[&kept]).into();
        plugin.call(Call::bare("GC"))?.result()?;
        assert_eq!(endpoints(&machine)?, ids(&[&kept]));
        assert_eq!(in_use(&machine)?, free + 2);
        plugin.conf["cni.dev/valid-attachments"] = valid(&[]).into();
        plugin.call(Call::bare("GC"))?.result()?;
        assert_eq!(endpoints(&machine)?, BTreeSet::new());
        assert_eq!(in_use(&machine)?, free);
        let links = machine.room.run("ip", &["-o", "link"])?;
        assert_eq!(links.lines().count(), 1, "only the loopback interface: {links}");
        Ok(())
    });
}

#[test]
fn containerd_and_its_pods_get_along_without_the_daemon() {
    trial(|| {
        let mut machine = Machine::start(&[
            ("namespaces.yaml", NAMESPACES),
            ("policies.yaml", POLICIES),
            ("web.yaml", &manifest::pod("shop/web", "app: web")),
            ("db.yaml", &manifest::pod("shop/db", "app: db")),
        ])?;
        let free = in_use(&machine)?;
        let serves = ["tcp:5432", "udp:5353"];
        let db = machine.pod("shop/db", &serves)?;
        let web = machine.pod("shop/web", &serves)?;
        let bare = machine.pod("shop/bare", &serves)?;
        let as_the_policies_say = |machine: &Machine| {
            for (protocol, port) in [("tcp", 5432), ("udp", 5353)] {
                expect(machine, &web, &db, protocol, port, "yes")?;
                expect(machine, &bare, &db, protocol, port, "silence")?;
            }
            anyhow::Ok(())
        };
        as_the_policies_say(&machine)?;
        machine.kill_daemon()?;
        as_the_policies_say(&machine)?;

        // Nothing new without it, and a reason that a kubelet can show.
        let error = machine.pod("shop/late", &serves).err().context("ADD without a daemon")?.to_string();
        ensure!(error.contains("bulkhead-cni") && error.contains("/run/bulkhead/cni.sock"), "{error}");
        // What goes is remembered.
        let gone = bare.id.clone();
        machine.remove(bare)?;
        machine.start_daemon()?;
        let noticed = eventually(PATIENCE, || Ok(!endpoints(&machine)?.contains(&gone)))?;
        ensure!(
            noticed,
            "the daemon has not read what was left to it: {:?}",
            names_in(&machine, "/var/lib/bulkhead/tombstones")
        );
        assert_eq!(in_use(&machine)?, free + 4);

        let bare = machine.pod("shop/bare", &serves)?;
        expect(&machine, &web, &db, "tcp", 5432, "yes")?;
        expect(&machine, &bare, &db, "tcp", 5432, "silence")?;
        for pod in [bare, web, db] {
            machine.remove(pod)?;
        }
        assert_eq!(in_use(&machine)?, free);
        Ok(())
    });
}
