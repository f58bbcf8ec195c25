//! The daemon dies, is restarted, stops and is removed, while connections live: nothing allowed is
//! lost, nothing forbidden passes, and what the kernel holds is taken over.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tests::{
    agent,
    live::{Live, TICK, retransmissions},
    manifest::{pod, policy},
    node::{Node, PATIENCE, Setup, eventually, holds_anything},
    pod::Pod,
    traffic::{
        Echo, OPEN,
        Protocol::{Tcp, Udp},
        Reached, SILENT, connected_udp, reach,
    },
    trial::trial,
};

fn shop() -> String {
    [
        pod("shop/web", "app: web"),
        pod("shop/db", "app: db"),
        policy(
            "shop/db",
            "  podSelector: {matchLabels: {app: db}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]",
        ),
    ]
    .concat()
}

/// Sends a datagram that must not arrive every two milliseconds; tells how many arrived.
struct Forbidden {
    stop: Arc<AtomicBool>,
    sender: thread::JoinHandle<u64>,
    server: std::net::UdpSocket,
}

impl Forbidden {
    fn start(from: &Pod, to: &Pod, address: IpAddr, port: u16) -> anyhow::Result<Self> {
        let server = {
            let _inside = to.sandbox.enter()?;
            std::net::UdpSocket::bind((address, port))?
        };
        server.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (client, told) = (connected_udp(&from.sandbox, (address, port).into())?, stop.clone());
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while !told.load(Ordering::Relaxed) {
                sent += u64::from(client.send(b"forbidden").is_ok());
                thread::sleep(TICK);
            }
            sent
        });
        Ok(Self { stop, sender, server })
    }

    /// `allowed` may send what this sender must not: that it arrives shows that the rest would have.
    fn finish(self, allowed: &Pod) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().ok().context("the sender panicked")?;
        ensure!(sent > 50, "only {sent} were sent");
        connected_udp(&allowed.sandbox, self.server.local_addr()?)?.send(b"allowed")?;
        let mut arrived = Vec::new();
        let mut message = [0; 16];
        let control = eventually(PATIENCE, || {
            while let Ok(length) = self.server.recv(&mut message) {
                arrived.push(message[..length].to_vec());
            }
            Ok(arrived.iter().any(|message| message == b"allowed"))
        })?;
        ensure!(control, "nothing arrives at all");
        ensure!(arrived.len() == 1, "{} of {sent} forbidden packets arrived", arrived.len() - 1);
        Ok(())
    }
}

/// Pinned files by name, with their inodes: another inode would be another map.
fn pins(node: &Node, below: &str) -> BTreeMap<PathBuf, u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut folders = vec![node.pins()];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(path),
                Ok(metadata) if path.parent().is_some_and(|parent| parent.ends_with(below)) => {
                    found.insert(path, metadata.ino());
                }
                _ => {}
            }
        }
    }
    found
}

/// What is to be found afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// The very same rule sets: nothing has changed.
    Same,
    /// Equal ones.
    Equal,
}

/// Traffic of all kinds while `upset` does something to the daemon.
fn undisturbed(rules: Rules, upset: impl FnOnce(&mut Node) -> anyhow::Result<()>) -> anyhow::Result<()> {
    undisturbed_with(&[], rules, upset)
}

/// As [`undisturbed`], with more flags for the daemon.
fn undisturbed_with(
    flags: &[&str],
    rules: Rules,
    upset: impl FnOnce(&mut Node) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let arguments = flags.iter().map(|&flag| flag.to_owned()).collect();
    let mut node = Node::start_as(Setup { arguments, ..Setup::default() }, &[("all.yaml", &shop())])?;
    let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
    let echo = Echo::start(&db.sandbox, &[80], &[80])?;
    let mut living = Vec::new();
    for (number, address) in db.addresses().into_iter().enumerate() {
        let port = 2000 + 2 * number as u16;
        living.push(Live::open(&web.sandbox, Tcp, &db.sandbox, (address, port).into())?);
        living.push(Live::open(&web.sandbox, Udp, &db.sandbox, (address, port + 1).into())?);
    }
    let forbidden = db.addresses().map(|address| Forbidden::start(&other, &db, address, 3000));
    let again = retransmissions(&web.sandbox)? + retransmissions(&db.sandbox)?;
    let maps = pins(&node, "maps");
    ensure!(!maps.is_empty(), "no pinned maps below {}", node.pins().display());
    let sets = rule_sets(&node)?;
    thread::sleep(Duration::from_millis(100));

    upset(&mut node)?;

    // Both while the daemon is about to read its source and after.
    node.wait_until_ready()?;
    thread::sleep(Duration::from_millis(200));
    for forbidden in forbidden {
        forbidden?.finish(&web)?;
    }
    for live in living {
        live.finish()?.lossless()?;
    }
    let again = retransmissions(&web.sandbox)? + retransmissions(&db.sandbox)? - again;
    ensure!(again == 0, "{again} segments were sent again");

    // Taken over, not made anew.
    ensure!(pins(&node, "maps") == maps, "maps were {maps:?}, are {:?}", pins(&node, "maps"));
    let found = rule_sets(&node)?;
    ensure!(rules == Rules::Equal || found == sets, "rule sets were {sets:?}, are {found:?}");
    for pod in [&web, &db, &other] {
        pod.call("CHECK")?.result().context("after the restart")?;
    }
    for to in db.at(80) {
        ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes);
        ensure!(reach(&other.sandbox, Udp, to, SILENT)? == Reached::No);
    }
    let late = node.add("shop/late")?;
    let given: Vec<IpAddr> = [&web, &db, &other].iter().flat_map(|pod| pod.addresses()).collect();
    ensure!(late.addresses().iter().all(|address| !given.contains(address)), "{:?} was given out twice", late.v4);
    // Flows have names again, also of what began before.
    let to_db = |found: &[serde_json::Value]| found.iter().any(|flow| flow["destination"]["pod_name"] == "db");
    node.bulkhead().flows_when(&["--verdict", "denied", "--from-pod", "shop/other"], to_db)?;
    drop(echo);
    Ok(())
}

/// Numbers and generations of the rule sets that endpoints are under.
fn rule_sets(node: &Node) -> anyhow::Result<BTreeMap<String, Vec<(u32, u32)>>> {
    let endpoints = node.ask()?.endpoints()?;
    let sets = |endpoint: &proto::bulkhead::admin::v1::Endpoint| {
        endpoint.directions.iter().map(|direction| (direction.rule_set, direction.generation)).collect()
    };
    Ok(endpoints.iter().map(|endpoint| (endpoint.pod.clone(), sets(endpoint))).collect())
}

#[test]
fn a_crash_and_a_restart_lose_nothing_and_let_nothing_through() {
    trial(|| {
        undisturbed(Rules::Same, |node| {
            for _ in 0..2 {
                node.take_agent()?.kill()?;
                thread::sleep(Duration::from_millis(150));
                node.start_daemon()?;
            }
            Ok(())
        })
    });
}

#[test]
fn nor_do_they_with_tcx() {
    trial(|| {
        undisturbed_with(&["--attach=tcx"], Rules::Same, |node| {
            let mode = node.ask()?.status()?.datapath.context("a datapath")?.attach_mode;
            ensure!(mode == "tcx", "{mode}");
            node.take_agent()?.kill()?;
            thread::sleep(Duration::from_millis(150));
            node.start_daemon()
        })
    });
}

/// Who changes `--attach` changes it for new pods: those that are there go on, with one of each program.
#[test]
fn a_pod_keeps_the_way_its_programs_were_attached() {
    for (before, after) in [("tcx", "clsact"), ("clsact", "tcx")] {
        trial(|| {
            undisturbed_with(&[&format!("--attach={before}")], Rules::Same, |node| {
                let attached = |node: &Node| -> anyhow::Result<_> {
                    let filters = node.ask()?.endpoints()?.into_iter().map(|it| filters(node, &it.host_ifname));
                    Ok((pins(node, "links"), filters.collect::<anyhow::Result<Vec<_>>>()?))
                };
                let was = attached(node)?;
                let expected = if before == "tcx" { (6, vec![0, 0, 0]) } else { (0, vec![2, 2, 2]) };
                ensure!((was.0.len(), was.1.clone()) == expected, "{was:?}");
                node.take_agent()?.kill()?;
                node.set_arguments(&[&format!("--attach={after}")]);
                node.start_daemon()?;
                ensure!(attached(node)? == was, "was {was:?}, is {:?}", attached(node)?);
                let new = node.add("shop/new")?;
                let found = (pins(node, "links").len() - was.0.len(), filters(node, &new.host_ifname())?);
                ensure!(found == if after == "tcx" { (2, 0) } else { (0, 2) }, "{found:?}");
                new.del()
            })
        });
    }
}

/// How many bpf filters clsact has at an interface of the node.
fn filters(node: &Node, ifname: &str) -> anyhow::Result<usize> {
    let mut found = 0;
    for direction in ["ingress", "egress"] {
        let _inside = node.sandbox.enter()?;
        let output = std::process::Command::new("tc").args(["filter", "show", "dev", ifname, direction]).output()?;
        found += String::from_utf8_lossy(&output.stdout).matches("direct-action").count();
    }
    Ok(found)
}

#[test]
fn a_stop_leaves_everything_in_force() {
    trial(|| {
        undisturbed(Rules::Same, |node| {
            let status = node.take_agent()?.stop()?;
            ensure!(status.success(), "{status}");
            ensure!(!node.cni_socket().exists() && !node.api_socket().exists(), "sockets of a daemon that has stopped");
            let shown = node.bulkhead().run(&["status"])?;
            ensure!(shown.code == 69 && shown.err.contains("api.sock"), "{}: {}", shown.code, shown.err);
            thread::sleep(Duration::from_millis(200));
            node.start_daemon()
        })
    });
}

/// Killed in the middle of its start, over and over.
#[test]
fn crashes_while_starting_harm_nobody() {
    trial(|| {
        undisturbed(Rules::Same, |node| {
            node.take_agent()?.kill()?;
            for pause in [20, 100, 250, 400, 600] {
                node.spawn_daemon()?;
                thread::sleep(Duration::from_millis(pause));
                node.take_agent()?.kill()?;
            }
            node.start_daemon()
        })
    });
}

/// Killed around the moment when a change is carried out: whatever is in force then is complete.
#[test]
fn crashes_in_the_middle_of_changes_harm_nobody() {
    trial(|| {
        undisturbed(Rules::Equal, |node| {
            // Both let web in, and neither the one who must not; the ports make other rule sets.
            let crowded = shop().replace("ingress: [{", "ingress: [{ports: [{port: 1}]}, {ports: [{port: 5}]}, {");
            // The daemon waits 50 ms for more changes, and a plan takes a few.
            for (pause, text) in [(48, &crowded), (51, &shop()), (53, &crowded), (55, &shop()), (58, &crowded)] {
                node.write("all.yaml", text)?;
                thread::sleep(Duration::from_millis(pause));
                node.take_agent()?.kill()?;
                node.start_daemon()?;
            }
            node.apply("all.yaml", &shop())?;
            Ok(())
        })
    });
}

#[test]
fn what_has_changed_meanwhile_is_caught_up_with() {
    trial(|| {
        let mut node = Node::start(&[("all.yaml", &shop())])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        node.take_agent()?.kill()?;
        node.write("all.yaml", &shop().replace("{app: web}}}]}]", "{app: other}}}]}]"))?;
        node.write("other.yaml", &pod("shop/other", "app: other"))?;
        let live = Live::open(&web.sandbox, Udp, &db.sandbox, (db.v4, 2000).into())?;
        node.start_daemon()?;
        for to in db.at(80) {
            ensure!(reach(&web.sandbox, Tcp, to, SILENT)? == Reached::No);
            ensure!(reach(&other.sandbox, Tcp, to, OPEN)? == Reached::Yes);
        }
        let report = live.finish()?;
        ensure!(report.lost() > 0, "a connection that is forbidden now lives on: {report:?}");
        Ok(())
    });
}

/// An upgrade over a change of the ABI: pods stay, their connections lose nothing, what is forbidden does not pass meanwhile,
/// and nothing of the predecessor goes on deciding.
#[test]
fn a_predecessor_of_another_abi_version_is_relieved() {
    trial(|| {
        let mut node = Node::start(&[("all.yaml", &shop())])?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[80])?;
        let live = Live::open(&web.sandbox, Tcp, &db.sandbox, (db.v4, 2000).into())?;
        let forbidden = Forbidden::start(&other, &db, db.v4, 3000)?;
        node.take_agent()?.kill()?;
        let (own, former) = (
            node.pins().join(format!("v{}", datapath_abi::ABI_VERSION)),
            node.pins().join(format!("v{}", datapath_abi::ABI_VERSION - 1)),
        );
        let strange = node.pins().join("vault");
        fs::create_dir(&strange)?;
        fs::rename(&own, &former).context("a predecessor's pins")?;
        ensure!(holds_anything(&former.join("maps")), "nothing is pinned");

        node.start_daemon()?;
        node.wait_until_ready()?;
        let gone = eventually(PATIENCE, || Ok(!former.exists()))?;
        ensure!(gone, "{} is left", former.display());
        ensure!(strange.exists(), "what is not ours is gone");
        ensure!(fs::read_to_string(node.log())?.contains("another ABI version"), "the log says nothing");
        forbidden.finish(&web)?;
        live.finish()?.lossless()?;
        for to in db.at(80) {
            ensure!(reach(&web.sandbox, Tcp, to, OPEN)? == Reached::Yes);
            ensure!(reach(&other.sandbox, Tcp, to, SILENT)? == Reached::No);
        }
        // The predecessor's programs knew nothing of this.
        node.apply("all.yaml", &shop().replace("{app: web}}}]}]", "{app: other}}}]}]"))?;
        node.apply("other.yaml", &pod("shop/other", "app: other"))?;
        for to in db.at(80) {
            ensure!(reach(&web.sandbox, Tcp, to, SILENT)? == Reached::No);
            ensure!(reach(&other.sandbox, Tcp, to, OPEN)? == Reached::Yes);
        }
        Ok(())
    });
}

/// Two daemons on one node would undo each other's work.
#[test]
fn a_second_daemon_is_refused_and_harms_nobody() {
    trial(|| {
        let node = Node::start(&[("all.yaml", &shop())])?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let mut arguments = vec![
            "run".to_owned(),
            format!("--source=directory:{}", node.objects().display()),
            "--metrics=off".to_owned(),
        ];
        arguments.extend(node.places());
        let printed = daemon(&node, &arguments)?;
        ensure!(printed.0 == Some(1), "{printed:?}");
        ensure!(printed.1.contains("another") && printed.1.contains(&node.name().to_owned()), "{}", printed.1);
        web.call("CHECK")?.result()?;
        ensure!(reach(&web.sandbox, Tcp, db.at(80)[0], OPEN)? == Reached::Yes);
        Ok(())
    });
}

/// Runs the daemon's binary to its end in a node's namespace; its exit status and all it says.
fn daemon(node: &Node, arguments: &[String]) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = Command::new(agent::binary("bulkhead-daemon")?);
    command.args(arguments);
    let output = {
        let _inside = node.sandbox.enter()?;
        command.output()?
    };
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// `bulkhead-daemon uninstall`, of what this node's daemon has made.
fn uninstall(node: &Node, more: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let mut arguments = vec!["uninstall".to_owned()];
    arguments.extend(more.iter().map(|&word| word.to_owned()));
    arguments.extend(node.places());
    daemon(node, &arguments)
}

/// What `ip` and `nft` show of a node's namespace.
fn shown(node: &Node) -> anyhow::Result<String> {
    let mut all = String::new();
    for command in [&["ip", "-o", "link"][..], &["ip", "-o", "addr"], &["ip", "route"], &["nft", "list", "tables"]] {
        let output = {
            let _inside = node.sandbox.enter()?;
            Command::new(command[0]).args(&command[1..]).output()?
        };
        all += &String::from_utf8_lossy(&output.stdout);
    }
    Ok(all)
}

#[test]
fn uninstall_leaves_nothing() {
    trial(|| {
        let mut node = Node::without_daemon(Setup::default(), &[("all.yaml", &shop())])?;
        let before = shown(&node)?;
        node.start_daemon()?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        ensure!(shown(&node)?.contains(&web.host_ifname()));
        let (code, said) = uninstall(&node, &["--yes"])?;
        ensure!(code == Some(1) && said.contains("stop it first"), "{said}");
        db.call("CHECK")?.result()?;

        node.take_agent()?.stop()?;
        let (code, said) = uninstall(&node, &[])?;
        ensure!(code == Some(0) && said.contains("would remove") && said.contains("--yes"), "{said}");
        ensure!(shown(&node)?.contains(&web.host_ifname()), "a dry run has removed something");
        let (code, said) = uninstall(&node, &["--yes"])?;
        ensure!(code == Some(0), "{said}");
        ensure!(shown(&node)? == before, "before:\n{before}after:\n{}", shown(&node)?);
        for folder in [node.pins(), node.state(), node.folder().join("run")] {
            ensure!(!Path::exists(&folder), "{} is left", folder.display());
        }
        ensure!(holds_anything(&node.objects()), "the manifests are the user's");
        let (code, said) = uninstall(&node, &["--yes"])?;
        ensure!(code == Some(0), "a second time: {said}");
        Ok(())
    });
}
