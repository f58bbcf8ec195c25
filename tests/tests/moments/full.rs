//! Everything that can be full: what happens then is what docs/limits.md says, it is told, and it is over by
//! itself when there is room again. Full conntrack is in `datapath_tables.rs`, refused rules in general in
//! `e2e_limits.rs`.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tests::{
    flood::Flood,
    footprint::Footprint,
    live::Live,
    manifest::{namespace, pod, policy},
    node::{Node, PATIENCE, Setup, eventually},
    plugin::Call,
    pod::Pod,
    traffic::{
        Echo, OPEN,
        Protocol::{Tcp, Udp},
        Reached, SILENT, reach,
    },
    trial::trial,
};

fn setup(arguments: &[&str]) -> Setup {
    Setup { arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(), ..Setup::default() }
}

/// Ingress of shop/db from pods with one label.
fn from(app: &str) -> String {
    let peer = format!("{{podSelector: {{matchLabels: {{app: {app}}}}}}}");
    policy("shop/db", &format!("  podSelector: {{matchLabels: {{app: db}}}}\n  ingress: [{{from: [{peer}]}}]"))
}

fn shop() -> String {
    [namespace("shop", ""), pod("shop/db", "app: db"), pod("shop/web", "app: web")].concat()
}

fn reaches(from: &Pod, to: &Pod, port: u16, wanted: bool) -> anyhow::Result<()> {
    for to in to.at(port) {
        let reached = reach(&from.sandbox, Tcp, to, if wanted { OPEN } else { SILENT })?;
        ensure!((reached == Reached::Yes) == wanted, "{} to {to}: {reached:?}, wanted {wanted}", from.key);
    }
    Ok(())
}

/// Codes of what is wrong, as `bulkhead status` lists them.
fn conditions(node: &Node) -> anyhow::Result<Vec<String>> {
    Ok(node.ask()?.status()?.conditions.into_iter().map(|condition| condition.code).collect())
}

fn is_told(node: &Node, code: &str) -> anyhow::Result<()> {
    let told = || Ok(conditions(node)?.iter().any(|it| it == code));
    ensure!(eventually(PATIENCE, told)?, "{code} is not told: {:?}", conditions(node)?);
    Ok(())
}

fn is_over(node: &Node, code: &str) -> anyhow::Result<()> {
    let over = || Ok(!conditions(node)?.iter().any(|it| it == code));
    ensure!(eventually(PATIENCE, over)?, "{code} is still told");
    Ok(())
}

/// The plugin's STATUS: its code, 0 for ready.
fn status(node: &Node) -> anyhow::Result<u64> {
    let answer = node.plugin().call(Call::bare("STATUS"))?;
    Ok(answer.error().map_or(0, |(code, _)| code))
}

#[test]
fn a_full_ring_buffer_loses_records_and_nothing_else() {
    trial(|| {
        let files = [("all.yaml", &*[shop(), from("web")].concat())];
        let mut node = Node::start_as(setup(&["--map-capacity=EVENTS=16384"]), &files)?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let live = Live::open(&web.sandbox, Udp, &db.sandbox, (db.v4, 2000).into())?;
        // Nobody reads: the ring is full after a hundred denials.
        node.agent()?.freeze()?;
        let flood = Flood::start(&other.sandbox, db.at(3000).to_vec(), Duration::from_micros(200))?;
        thread::sleep(Duration::from_millis(500));
        reaches(&web, &db, 80, true).context("while the ring is full")?;
        reaches(&other, &db, 80, false).context("while the ring is full")?;
        ensure!(flood.finish()? > 200);
        node.agent()?.wake()?;

        is_told(&node, "events-lost")?;
        let lost = || Ok(node.metric("bulkhead_flow_events_dropped_total{reason=\"kernel_ring_full\"}")? > 0.0);
        ensure!(eventually(PATIENCE, lost)?, "the loss is not in the ledger");
        let (written, lost) = {
            let events = node.ask()?.status()?.events.context("events")?;
            (events.written, events.lost)
        };
        ensure!(lost > 100, "{written} written, {lost} lost");
        // Where the gap is, is told in the stream itself.
        let printed = node.bulkhead().run(&["flows", "--all", "-o", "json"])?.out;
        ensure!(printed.contains("\"lost_events\""), "no loss in the stream");
        ensure!(fs::read_to_string(node.log())?.contains("Ring buffer overrun"));
        // Over: what happens now is recorded, and nothing more is lost.
        reaches(&other, &db, 80, false)?;
        let denied = ["--from-pod", "shop/other", "--to-port", "80", "--verdict", "denied"];
        ensure!(eventually(PATIENCE, || Ok(!node.bulkhead().flows(&denied)?.is_empty()))?, "nothing is recorded");
        ensure!(node.ask()?.status()?.events.context("events")?.lost == lost, "more is lost");
        live.finish()?.lossless()
    });
}

/// What fills a small file system.
#[derive(Clone, Copy, Debug)]
enum Filled {
    Bytes,
    Inodes,
}

/// A state folder on a file system of its own, and the files that fill it.
struct SmallDisk {
    folder: PathBuf,
    filler: Vec<PathBuf>,
}

impl SmallDisk {
    fn mount(node: &Node) -> anyhow::Result<Self> {
        let folder = node.state();
        fs::create_dir_all(&folder)?;
        let place = folder.to_str().context("the path is text")?;
        // Of 64 pages and 64 inodes (tmpfs(5)).
        let options = ["-t", "tmpfs", "-o", "size=256k,nr_inodes=64,mode=0700", "tmpfs", place];
        let output = Command::new("mount").args(options).output().context("starting mount")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { folder, filler: Vec::new() })
    }

    fn fill(&mut self, with: Filled) -> anyhow::Result<()> {
        for number in 0..1000 {
            let path = self.folder.join(format!("filler{number}"));
            match File::create(&path) {
                Ok(mut file) => {
                    self.filler.push(path);
                    if matches!(with, Filled::Bytes) {
                        while file.write_all(&[7; 4096]).is_ok() {}
                        return Ok(());
                    }
                }
                Err(_) => return Ok(()),
            }
        }
        anyhow::bail!("it does not become full")
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        self.filler.drain(..).try_for_each(fs::remove_file)?;
        Ok(())
    }
}

fn a_full_disk(with: Filled) -> anyhow::Result<()> {
    let mut node = Node::without_daemon(setup(&[]), &[])?;
    let mut disk = SmallDisk::mount(&node)?;
    node.start_daemon()?;
    node.apply("all.yaml", &[shop(), from("web")].concat())?;
    let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
    let _echo = Echo::start(&db.sandbox, &[80], &[])?;
    // That way nothing forbids it at any time.
    let live = Live::open(&db.sandbox, Udp, &web.sandbox, (web.v6, 2000).into())?;
    let before = Footprint::of(&node)?;
    disk.fill(with)?;

    // No ADD, and nothing of one that failed.
    let blank = node.blank("shop/late")?;
    for _ in 0..3 {
        let (code, message) = blank.call("ADD")?.error()?;
        ensure!(code == 5 && message.contains("disk"), "{code}: {message}");
    }
    before.comes_back(&node)?;
    // What needs nothing written goes on: a policy that knows everybody already.
    node.apply("all.yaml", &[shop(), from("none")].concat())?;
    reaches(&web, &db, 80, false)?;
    node.apply("all.yaml", &[shop(), from("web")].concat())?;
    reaches(&web, &db, 80, true)?;
    // A new identity has to be written down first: until then everybody is under the rules of before.
    node.write("new.yaml", &pod("shop/other", "app: web, is: new"))?;
    is_told(&node, "engine-trouble")?;
    ensure!(node.metric("bulkhead_engine_trouble")? == 1.0 && status(&node)? == 51, "{}", status(&node)?);
    reaches(&other, &db, 80, false)?;
    reaches(&web, &db, 80, true)?;
    // A daemon that dies now comes back, and a pod may go.
    node.take_agent()?.kill()?;
    node.start_daemon().context("on a full disk")?;
    reaches(&web, &db, 80, true)?;
    for pod in [&web, &db] {
        pod.call("CHECK")?.result()?;
    }

    disk.clear()?;
    is_over(&node, "engine-trouble")?;
    ensure!(status(&node)? == 0);
    reaches(&other, &db, 80, true).context("when there is room again")?;
    let late = blank.add()?;
    late.call("CHECK")?.result()?;
    late.del()?;
    live.finish()?.lossless()?;
    node.apply("new.yaml", &pod("shop/other", "app: none"))?;
    before.comes_back(&node)
}

#[test]
fn a_full_disk_stops_what_must_be_written_and_nothing_else() {
    trial(|| a_full_disk(Filled::Bytes));
}

#[test]
fn a_disk_without_inodes_is_a_full_disk() {
    trial(|| a_full_disk(Filled::Inodes));
}

#[test]
fn an_empty_pool_refuses_pods_until_one_goes() {
    trial(|| {
        // Network and broadcast, the gateway, and five.
        let pools = vec!["10.77.9.0/29".to_owned(), "fd77:9::/64".to_owned()];
        let node = Node::start_as(Setup { pools, ..Setup::default() }, &[])?;
        let mut pods = Vec::new();
        for number in 0..5 {
            pods.push(node.add(&format!("shop/pod{number}"))?);
        }
        let before = Footprint::of(&node)?;
        let blank = node.blank("shop/late")?;
        let (code, message) = blank.call("ADD")?.error()?;
        ensure!(
            code == 110 && message.contains("no free IPv4 address") && message.contains("--pool"),
            "{code}: {message}"
        );
        ensure!(status(&node)? == 50);
        is_told(&node, "pool-exhausted")?;
        ensure!(node.metric("bulkhead_ipam_addresses_free{range=\"10.77.9.0/29\"}")? == 0.0);
        before.comes_back(&node)?;
        let freed = pods.swap_remove(2);
        let address = freed.v4;
        freed.del()?;
        is_over(&node, "pool-exhausted")?;
        ensure!(status(&node)? == 0);
        let late = blank.add()?;
        ensure!(late.v4 == address, "{}", late.v4);
        Ok(())
    });
}

#[test]
fn a_full_map_of_addresses_refuses_pods_until_one_goes() {
    trial(|| {
        // Two of the node, two of each pod.
        let node = Node::start_as(setup(&["--map-capacity=ADDRESSES=8"]), &[])?;
        let [one, _two, _three] = node.add_all(["shop/one", "shop/two", "shop/three"])?;
        let before = Footprint::of(&node)?;
        let blank = node.blank("shop/late")?;
        let (code, message) = blank.call("ADD")?.error()?;
        ensure!(code == 113 && message.contains("--map-capacity ADDRESSES"), "{code}: {message}");
        is_told(&node, "map-nearly-full")?;
        before.comes_back(&node)?;
        one.del()?;
        blank.add()?.call("CHECK")?.result()?;
        Ok(())
    });
}

/// Pods elsewhere, as their objects tell, are strangers where there is no room to know them; all else goes on.
#[test]
fn addresses_of_objects_that_find_no_room_stop_nothing_else() {
    trial(|| {
        let node = Node::start_as(setup(&["--map-capacity=ADDRESSES=12"]), &[])?;
        node.apply("all.yaml", &[shop(), from("web")].concat())?;
        let [web, db, other] = node.add_all(["shop/web", "shop/db", "shop/other"])?;
        let _echo = Echo::start(&db.sandbox, &[80], &[])?;
        let far: String = (0..20)
            .map(|number| {
                let address = format!("status: {{phase: Running, podIP: 10.99.0.{number}}}\n");
                pod(&format!("far/pod{number}"), "app: far") + &address
            })
            .collect();
        node.apply("far.yaml", &far)?;
        is_told(&node, "addresses-refused")?;
        ensure!(fs::read_to_string(node.log())?.contains("Addresses found no room"));
        node.apply("all.yaml", &[shop(), from("none")].concat())?;
        reaches(&web, &db, 80, false).context("rules are still followed")?;
        node.apply("all.yaml", &[shop(), from("web")].concat())?;
        reaches(&web, &db, 80, true)?;
        reaches(&other, &db, 80, false)?;
        node.remove("far.yaml")?;
        is_over(&node, "addresses-refused")?;
        node.add("shop/late")?.call("CHECK")?.result()?;
        Ok(())
    });
}

/// What one policy makes of a map, and a smaller one that fits.
struct Crowd {
    map: &'static str,
    capacity: u32,
    large: String,
}

#[test]
fn every_map_of_rules_refuses_by_name_and_takes_what_fits_again() {
    trial(|| {
        let to_db = |spec: &str| policy("shop/db", &format!("  podSelector: {{matchLabels: {{app: db}}}}\n{spec}"));
        let ports: Vec<String> = (0..40).map(|number| format!("{{port: {}}}", 1000 + 2 * number)).collect();
        let blocks: Vec<String> =
            (0..40).map(|number| format!("{{ipBlock: {{cidr: 198.51.{number}.0/24}}}}")).collect();
        let crowds = [
            Crowd { map: "PORTS", capacity: 16, large: to_db(&format!("  ingress: [{{ports: [{}]}}]", ports.join(", "))) },
            Crowd { map: "REGIONS", capacity: 16, large: to_db(&format!("  ingress: [{{from: [{}]}}]", blocks.join(", "))) },
            Crowd {
                map: "RULESETS",
                capacity: 3,
                // Another rule set for each of four pods.
                large: ["db", "web", "other", "more"]
                    .iter()
                    .enumerate()
                    .map(|(number, name)| {
                        let spec = format!(
                            "  podSelector: {{matchLabels: {{app: {name}}}}}\n  ingress: [{{ports: [{{port: {number}0}}]}}]"
                        );
                        policy(&format!("shop/{name}"), &spec.replace("port: 00", "port: 7"))
                    })
                    .collect(),
            },
        ];
        for Crowd { map, capacity, large } in crowds {
            let node = Node::start_as(setup(&[&format!("--map-capacity={map}={capacity}")]), &[])?;
            let pods = [shop(), pod("shop/other", "app: other"), pod("shop/more", "app: more")].concat();
            node.apply("pods.yaml", &pods)?;
            node.apply("policy.yaml", &from("web"))?;
            let [web, db, other, _more] = node.add_all(["shop/web", "shop/db", "shop/other", "shop/more"])?;
            let _echo = Echo::start(&db.sandbox, &[80], &[])?;
            let before = Footprint::of(&node)?;
            node.apply("policy.yaml", &large)?;
            is_told(&node, "rules-refused").context(map)?;
            let refusals = node.ask()?.status()?.refusals;
            let named = refusals.iter().any(|it| it.fix.contains(&format!("--map-capacity {map}=")));
            ensure!(named, "{map}: {refusals:?}");
            ensure!(node.metric("bulkhead_refusals")? >= 1.0);
            if map != "RULESETS" {
                // The last complete rules.
                reaches(&web, &db, 80, true).context(map)?;
                reaches(&other, &db, 80, false).context(map)?;
            }
            node.apply("policy.yaml", &from("other"))?;
            is_over(&node, "rules-refused").context(map)?;
            reaches(&web, &db, 80, false).context(map)?;
            reaches(&other, &db, 80, true).context(map)?;
            node.apply("policy.yaml", &from("web"))?;
            before.comes_back(&node).context(map)?;
        }
        Ok(())
    });
}

#[test]
fn all_ports_as_a_range_one_by_one_and_every_second_one() {
    trial(|| {
        let ports = |numbers: &mut dyn Iterator<Item = u16>| {
            let ports: Vec<String> = numbers.map(|port| format!("{{port: {port}}}")).collect();
            policy(
                "shop/db",
                &format!("  podSelector: {{matchLabels: {{app: db}}}}\n  ingress: [{{ports: [{}]}}]", ports.join(", ")),
            )
        };
        let node = Node::start(&[])?;
        node.apply("pods.yaml", &shop())?;
        let [web, db] = node.add_all(["shop/web", "shop/db"])?;
        let _echo = Echo::start(&db.sandbox, &[1, 2, 80, 81, 65534, 65535], &[])?;
        let fill = |node: &Node| -> anyhow::Result<u64> {
            let maps = node.ask()?.status()?.maps;
            Ok(maps.iter().find(|map| map.name == "PORTS").context("PORTS")?.entries)
        };
        // As a range they are a few prefixes.
        let range = ports(&mut std::iter::once(1)).replace("{port: 1}", "{port: 1, endPort: 65535}");
        node.apply("policy.yaml", &range)?;
        ensure!(fill(&node)? <= 32, "{} entries", fill(&node)?);
        reaches(&web, &db, 65535, true)?;
        node.remove("policy.yaml")?;
        ensure!(eventually(PATIENCE, || Ok(fill(&node)? == 0))?, "{} entries are left", fill(&node)?);
        // One by one they are an entry each, and all of them fit just so.
        node.apply("policy.yaml", &ports(&mut (1..=65535)))?;
        ensure!(node.ask()?.status()?.refusals.is_empty() && fill(&node)? <= 65_536, "{} entries", fill(&node)?);
        for port in [1, 2, 80, 65534, 65535] {
            reaches(&web, &db, port, true)?;
        }
        // New rules are written beside the old ones: there is no room for both. The old ones stay.
        node.apply("policy.yaml", &ports(&mut (1..=65535).step_by(2)))?;
        is_told(&node, "rules-refused")?;
        reaches(&web, &db, 80, true)?;
        // Without the old ones there is.
        node.remove("policy.yaml")?;
        ensure!(eventually(PATIENCE, || Ok(fill(&node)? == 0))?, "{} entries are left", fill(&node)?);
        is_over(&node, "rules-refused")?;
        node.apply("policy.yaml", &ports(&mut (1..=65535).step_by(2)))?;
        ensure!(node.ask()?.status()?.refusals.is_empty() && fill(&node)? >= 32_768, "{} entries", fill(&node)?);
        for (port, allowed) in [(1, true), (2, false), (80, false), (81, true), (65534, false), (65535, true)] {
            reaches(&web, &db, port, allowed)?;
        }
        node.remove("policy.yaml")?;
        reaches(&web, &db, 80, true)?;
        ensure!(eventually(PATIENCE, || Ok(fill(&node)? == 0))?, "{} entries are left", fill(&node)?);
        Ok(())
    });
}
