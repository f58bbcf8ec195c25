//! The story. Each line of it is something that was tried, and says so if it came out otherwise.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tests::{
    agent::Group,
    live::Live,
    node::{Node, Setup},
    pod::{Blank, Pod},
    sandbox::Sandbox,
    traffic::{OPEN, Protocol, SILENT},
};

use crate::{
    follow::Follow,
    kept,
    shop::{self, CART, DB, DB_SESSION, METRICS, PODS_FILE, POLICIES_FILE, WEB},
    site::{self, Site},
    teller::Teller,
};

/// How soon after the edit nothing forbidden may pass any more: what the daemon waits for more
/// changes (50 ms), and a machine that has other things to do.
const BITES: Duration = Duration::from_millis(500);
/// How long live connections run before the edit and after it.
const RUN: Duration = Duration::from_millis(700);
/// How far a flow record may be behind its packet.
const RECORD: Duration = Duration::from_secs(3);

/// Plays it; true if every line came true. With `keep` everything is left running.
pub(crate) fn play(teller: &Teller, keep: bool) -> anyhow::Result<bool> {
    teller.chapter("A node, and a daemon on a folder of YAML")?;
    let setup = if keep { Setup { name: kept::NAME.to_owned(), ..Setup::default() } } else { Setup::default() };
    let began = Instant::now();
    let node = Node::start_as(
        Setup { group: Group::Own, ..setup },
        &[(PODS_FILE, &shop::pods()), (POLICIES_FILE, &shop::policies(true))],
    )?;
    teller.line(true, &format!("bulkhead-daemon serves, {} ms after its start", began.elapsed().as_millis()))?;
    teller.says(&format!("its folder: {} with {PODS_FILE} and {POLICIES_FILE}", node.objects().display()))?;

    teller.chapter("Pods, wired by the CNI plugin. ADD returns when the pod's policy is in the kernel")?;
    let mut pods = Vec::new();
    for key in ["shop/web", "shop/cart", "shop/db", "ops/prober", "street/stranger"] {
        let began = Instant::now();
        let pod = add(&node, key, keep)?;
        let took = began.elapsed().as_millis();
        teller.line(true, &format!("{key:16} {:12} {:10}  after {took} ms", pod.v4.to_string(), pod.v6.to_string()))?;
        pods.push(pod);
    }
    let [web, cart, db, prober, stranger] = &pods[..] else { unreachable!("five were added") };
    let sites = [
        Site::start(&web.sandbox, "web", &[WEB, METRICS])?,
        Site::start(&cart.sandbox, "cart", &[CART, METRICS])?,
        Site::start(&db.sandbox, "db", &[DB, METRICS])?,
        Site::start(&stranger.sandbox, "stranger", &[WEB])?,
    ];

    let follow = Follow::start(&node.bulkhead(), teller.colour())?;
    let mut scene = Scene { teller, follow };
    scene
        .teller
        .chapter("Who reaches whom, by IPv4 and IPv6, with the line of `bulkhead flows --follow` that explains it")?;
    scene.warm_up(&node, db)?;
    scene.tries(stranger, web, WEB, Allowed("by shop/web-public ingress[0]"))?;
    scene.tries(web, cart, CART, Allowed("shop/cart-clients ingress[0]"))?;
    scene.tries(cart, db, DB, Allowed("by shop/db-clients ingress[0]"))?;
    scene.tries(web, db, DB, Allowed("shop/db-clients ingress[1]"))?;
    scene.tries(prober, db, METRICS, Allowed("by shop/figures ingress[0]"))?;
    scene.tries(stranger, db, DB, Denied("ingress isolated by shop/db-clients"))?;
    scene.tries(prober, db, DB, Denied("nothing allowed it"))?;
    scene.tries(web, cart, METRICS, Denied("ingress isolated by"))?;
    scene.tries(web, stranger, WEB, Denied("egress isolated by shop/web-egress; nothing allowed it"))?;

    scene.edit(&node, [web, cart, db])?;
    scene.tries(web, db, DB, Denied("ingress isolated by"))?;
    scene.tries(cart, db, DB, Allowed("by shop/db-clients ingress[0]"))?;
    drop(scene);

    ask(teller, &node)?;
    let came_true = teller.end()?;
    if keep {
        kept::introduce(teller, &node, &pods.iter().collect::<Vec<_>>())?;
        node.keep();
        sites.into_iter().for_each(Site::keep);
        pods.into_iter().for_each(|pod| pod.sandbox.keep());
    }
    Ok(came_true)
}

fn add(node: &Node, key: &str, keep: bool) -> anyhow::Result<Pod> {
    if !keep {
        return node.add(key);
    }
    let sandbox = Sandbox::named(&kept::sandbox(key), "link set lo up\n")?;
    Blank::of(key, sandbox, &node.plugin()).add()
}

/// What is to come of an attempt, and what the flow record is to say.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Allowed(&'a str),
    Denied(&'a str),
}
use Wanted::{Allowed, Denied};

struct Scene<'a> {
    teller: &'a Teller,
    follow: Follow,
}

impl Scene<'_> {
    /// Makes sure that the follower follows: what happens before it has connected it does not tell.
    fn warm_up(&mut self, node: &Node, db: &Pod) -> anyhow::Result<()> {
        let to = db.at(METRICS)[0];
        let mut reached = false;
        for _ in 0..20 {
            reached = site::get(&node.sandbox, to, OPEN)?.is_some();
            let found = self.follow.find(&["-> shop/db:9090", "ALLOWED"], 1, SILENT)?;
            if let [line] = &found[..] {
                self.teller.line(
                    reached,
                    "the node itself reaches shop/db, isolated or not: its probes never depend on policy",
                )?;
                return self.teller.output(&line.printed, 1);
            }
        }
        self.teller.line(false, &format!("the node itself reaches shop/db ({reached}), and a flow record says so"))
    }

    /// One attempt over each family, and its records.
    fn tries(&mut self, from: &Pod, to: &Pod, port: u16, wanted: Wanted<'_>) -> anyhow::Result<()> {
        let (verdict, verb, why) = match wanted {
            Allowed(why) => ("ALLOWED", "reaches", why),
            Denied(why) => ("DENIED", "does not reach", why),
        };
        let patience = if verdict == "ALLOWED" { OPEN } else { SILENT };
        let got = both(to.at(port), |to| site::get(&from.sandbox, to, patience))?;
        let as_wanted = got.iter().all(|got| got.is_some() == (verdict == "ALLOWED"));
        let flow = format!("{} -> {}:{port}", from.key, to.key);
        // One for each family.
        let found = self.follow.find(&[verdict, &flow, why], 2, RECORD)?;
        self.teller.line(as_wanted, &format!("{} {verb} {}:{port}", from.key, to.key))?;
        match found.first() {
            Some(line) => self.teller.output(&line.printed, 1)?,
            None => self.teller.line(false, &format!("its flow records are {verdict}, with \"{why}\""))?,
        }
        if found.len() == 1 {
            self.teller.line(false, &format!("{flow} has a flow record for each family"))?;
        }
        Ok(())
    }

    /// The policy edit, with connections that live through it, or do not.
    fn edit(&mut self, node: &Node, [web, cart, db]: [&Pod; 3]) -> anyhow::Result<()> {
        self.teller.chapter("An edit: the web tier may no longer ask the database. Two sessions are open")?;
        let [v4, v6] = db.at(DB_SESSION);
        let doomed = Live::open(&web.sandbox, Protocol::Tcp, &db.sandbox, v4).context("web's session")?;
        let survivor = Live::open(&cart.sandbox, Protocol::Tcp, &db.sandbox, v6).context("cart's session")?;
        thread::sleep(RUN);
        self.teller.command(&format!("$EDITOR {}", node.objects().join(POLICIES_FILE).display()))?;
        let after = shop::policies(false);
        for line in shop::policies(true).lines().filter(|line| line.contains("# reports")) {
            self.teller.output(&format!("- {line}"), 1)?;
        }
        let at = node.write(POLICIES_FILE, &after)?;
        thread::sleep(RUN);
        let (doomed, survivor) = (doomed.finish()?, survivor.finish()?);
        let cut = doomed.cut_after(at);
        let ran = doomed.there.received > 50 && doomed.back.received > 50;
        self.teller.line(
            ran && cut < BITES,
            &format!("web's session was cut in both directions, {} ms after the file was saved", cut.as_millis()),
        )?;
        let messages = survivor.there.sent + survivor.back.sent;
        let pause = survivor.there.longest_gap.max(survivor.back.longest_gap);
        let lives = survivor.lossless().is_ok() && survivor.there.last.min(survivor.back.last) > at + RUN / 2;
        self.teller.line(
            lives,
            &format!(
                "cart's session lives on: {} of {messages} messages lost, longest pause {} ms",
                survivor.lost(),
                pause.as_millis()
            ),
        )?;
        let flow = format!("shop/web -> shop/db:{DB_SESSION}");
        let found = self.follow.find(&["CUT", &flow], 1, RECORD)?;
        self.teller.line(found.len() == 1, "its flow record says that a change of policy has cut it")?;
        found.iter().try_for_each(|line| self.teller.output(&line.printed, 1))
    }
}

/// Does something with both addresses at once.
fn both<T: Send>(
    to: [SocketAddr; 2],
    attempt: impl Fn(SocketAddr) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    thread::scope(|scope| {
        let attempts = to.map(|to| {
            let attempt = &attempt;
            scope.spawn(move || attempt(to))
        });
        attempts.into_iter().map(|thread| thread.join().expect("an attempt does not panic")).collect()
    })
}

/// What an operator asks.
fn ask(teller: &Teller, node: &Node) -> anyhow::Result<()> {
    let bulkhead = node.bulkhead();
    let colour = if teller.colour() { "always" } else { "never" };
    let run = |arguments: &[&str]| bulkhead.run(&[arguments, &["--color", colour]].concat());

    teller.chapter("Asking why")?;
    teller.command("bulkhead explain shop/web shop/db:5432")?;
    let printed = run(&["explain", "shop/web", "shop/db:5432"])?;
    teller.output(&printed.out, 40)?;
    let rule = "shop/db-clients ingress[0]";
    teller.line(printed.code == 3 && printed.out.contains(rule), "exit status 3, for denied; every rule is named")?;

    teller.chapter("Looking at it")?;
    teller.command("bulkhead endpoint list")?;
    let printed = run(&["endpoint", "list"])?;
    teller.output(&printed.out, 10)?;
    let all = ["web", "cart", "db", "prober", "stranger"].iter().all(|name| printed.out.contains(name));
    teller.line(printed.code == 0 && all, "all five pods are there")?;
    teller.command("bulkhead status --check")?;
    let printed = run(&["status", "--check"])?;
    teller.output(&printed.out, 13)?;
    teller.line(printed.code == 0, "exit status 0: everything is in force as written")
}
