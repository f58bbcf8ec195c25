//! `cargo xtask demo`: the main job, told on the terminal and checked line by line. A node, its agent
//! on a folder of YAML, a shop of three tiers and a stranger; what policy allows and denies, the flow
//! records that say why, and a policy edit that cuts one live connection and not another.
//!
//! Exit status: 0 if every line of the story came true, 1 if not.

use std::{
    io::{IsTerminal, Write as _, stdout},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use tests::{
    agent::Group,
    live::Live,
    manifest,
    node::{Node, Setup, eventually},
    pod::Pod,
    traffic::{Echo, OPEN, Protocol, Reached, SILENT, reach},
};

/// See pods wired, policy enforced by identity, and every flow explained.
///
/// Makes a node of its own (a network namespace), so nothing on this machine changes; all of it is
/// gone afterwards. Needs root.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask demo", max_term_width = 100)]
struct Args {
    /// Leave agent and pods running, print commands to try, and clean up at Ctrl-C or Enter
    #[arg(long)]
    keep: bool,
}

/// How long a change may take until it bites.
const BITES: Duration = Duration::from_millis(500);

const SHOP: &str = "shop.yaml";

fn main() -> ExitCode {
    let args = Args::parse();
    if !rustix::process::geteuid().is_root() {
        eprintln!("demo: needs root, for network namespaces and eBPF: run `cargo xtask demo`, which asks sudo");
        return ExitCode::from(77);
    }
    match play(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells, and remembers what did not come true.
struct Story {
    colour: bool,
    began: Instant,
    untrue: Vec<String>,
}

impl Story {
    fn chapter(&self, title: &str) {
        let (on, off) = if self.colour { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        println!("\n{on}{title}{off}");
        let _ = stdout().flush();
    }

    /// One line of the story, and whether it came true.
    fn line(&mut self, came_true: bool, text: &str) {
        let (mark, on) = if came_true { ("ok  ", "\x1b[32m") } else { ("NOT ", "\x1b[31m") };
        let (on, off) = if self.colour { (on, "\x1b[0m") } else { ("", "") };
        println!("  {on}{mark}{off}{text}");
        let _ = stdout().flush();
        if !came_true {
            self.untrue.push(text.to_owned());
        }
    }
}

/// The shop. `db_peer`: the label of those who may ask the database.
fn objects(db_peer: &str) -> String {
    [
        manifest::namespace("shop", "team: shop"),
        manifest::namespace("street", "team: nobody"),
        manifest::pod("shop/web", "app: web, tier: inside"),
        manifest::pod("shop/cart", "app: cart, tier: inside"),
        manifest::pod("shop/db", "app: db"),
        manifest::pod("street/stranger", "app: web"),
        manifest::policy(
            "shop/db-ingress",
            &format!(
                "  podSelector: {{matchLabels: {{app: db}}}}\n  ingress:\n  \
                 - from: [{{podSelector: {{matchLabels: {{{db_peer}}}}}}}]\n    ports: [{{port: 5432, endPort: 5434}}]"
            ),
        ),
        manifest::policy(
            "shop/cart-ingress",
            "  podSelector: {matchLabels: {app: cart}}\n  ingress:\n  \
             - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 8080}]",
        ),
        manifest::policy(
            "shop/web-egress",
            "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Egress]\n  egress:\n  \
             - to: [{podSelector: {matchLabels: {app: cart}}}, {podSelector: {matchLabels: {app: db}}}]",
        ),
    ]
    .concat()
}

fn play(args: &Args) -> anyhow::Result<bool> {
    let mut story = Story { colour: stdout().is_terminal(), began: Instant::now(), untrue: Vec::new() };

    story.chapter("A node, and an agent that reads its objects from a folder of YAML");
    let first = objects("tier: inside");
    let second = objects("app: cart");
    let node = Node::start_as(Setup { group: Group::Ours, ..Setup::default() }, &[(SHOP, &first)])?;
    story.line(true, &format!("agent runs in namespace {}, objects in {}", node.name(), node.objects().display()));

    story.chapter("Pods, wired by the CNI plugin; each ADD returns when its rules are in the kernel");
    let [web, cart, db, stranger] = node.add_all(["shop/web", "shop/cart", "shop/db", "street/stranger"])?;
    for pod in [&web, &cart, &db, &stranger] {
        story.line(true, &format!("{:16} {}  {}", pod.key, pod.v4, pod.v6));
    }
    let _servers = [
        Echo::start(&cart.sandbox, &[8080], &[])?,
        Echo::start(&db.sandbox, &[5432, 22], &[])?,
        Echo::start(&stranger.sandbox, &[80], &[])?,
    ];

    story.chapter("Who reaches whom, over IPv4 and IPv6");
    let mut ask = |from: &Pod, to: &Pod, port: u16, allowed: bool, why: &str| -> anyhow::Result<()> {
        let mut came_true = true;
        for address in to.at(port) {
            let patience = if allowed { OPEN } else { SILENT };
            let reached = reach(&from.sandbox, Protocol::Tcp, address, patience)?;
            came_true &= (reached == Reached::Yes) == allowed;
        }
        let verb = if allowed { "reaches" } else { "does not reach" };
        story.line(came_true, &format!("{} {verb} {}:{port}   ({why})", from.key, to.key));
        Ok(())
    };
    ask(&web, &cart, 8080, true, "web-egress and cart-ingress allow it")?;
    ask(&cart, &db, 5432, true, "db-ingress allows tier=inside")?;
    ask(&web, &db, 5432, true, "db-ingress allows tier=inside")?;
    ask(&web, &db, 22, false, "db-ingress does not name that port")?;
    ask(&stranger, &db, 5432, false, "same label, other namespace")?;
    ask(&web, &stranger, 80, false, "web-egress allows cart and db only")?;
    let probe = {
        let _inside = node.sandbox.enter()?;
        std::net::TcpStream::connect_timeout(&db.at(22)[0], OPEN).is_ok()
    };
    story.line(probe, "the node itself reaches shop/db:22   (probes of the own node are always let in)");

    story.chapter("The flow records that explain it: bulkhead flows");
    flows(
        &mut story,
        &node,
        &["--last", "40"],
        &[
            ("shop/cart-ingress ingress[0]", "the rule that allowed is named"),
            ("isolated by shop/db-ingress; nothing allowed it", "the policy that isolates is named"),
            ("isolated by shop/web-egress; nothing allowed it", "egress, too"),
        ],
    )?;

    story.chapter("A policy edit: the database is for the cart alone. Two connections are live");
    let doomed = Live::open(&web.sandbox, Protocol::Tcp, &db.sandbox, db.at(5433)[1]).context("web to db")?;
    let survivor = Live::open(&cart.sandbox, Protocol::Tcp, &db.sandbox, db.at(5434)[0]).context("cart to db")?;
    std::thread::sleep(Duration::from_millis(500));
    let changed = node.apply(SHOP, &second)?;
    std::thread::sleep(Duration::from_millis(700));
    let (doomed, survivor) = (doomed.finish()?, survivor.finish()?);
    let after = doomed.cut_after(changed);
    story
        .line(after < BITES, &format!("shop/web -> shop/db was cut in both directions after {} ms", after.as_millis()));
    story.line(
        survivor.lossless().is_ok(),
        &format!(
            "shop/cart -> shop/db lost {} of {} messages",
            survivor.lost(),
            survivor.there.sent + survivor.back.sent
        ),
    );
    flows(
        &mut story,
        &node,
        &["--last", "4", "--from-pod", "shop/web"],
        &[("policy or label change", "and the record says why")],
    )?;

    story.chapter("Asking why: bulkhead explain shop/web shop/db:5432");
    let printed = node.bulkhead().run(&["explain", "shop/web", "shop/db:5432"])?;
    show(&printed.out, 30);
    story.line(printed.code == 3 && printed.out.contains("db-ingress"), "denied, and every rule that was considered");

    story.chapter("How the agent is: bulkhead status, bulkhead endpoint list");
    let printed = node.bulkhead().run(&["status"])?;
    show(&printed.out, 14);
    let endpoints = node.bulkhead().run(&["endpoint", "list"])?;
    show(&endpoints.out, 12);
    story.line(printed.code == 0 && endpoints.out.contains("stranger"), "four endpoints, all is well");

    let took = story.began.elapsed().as_secs();
    if story.untrue.is_empty() {
        story.chapter(&format!("Every line came true, in {took} s."));
    } else {
        story.chapter(&format!("{} lines did NOT come true:", story.untrue.len()));
        for line in &story.untrue {
            println!("  {line}");
        }
    }
    if args.keep {
        keep(&story, &node, [&web, &cart, &db, &stranger])?;
    }
    Ok(story.untrue.is_empty())
}

/// Shows flow records and checks that each text occurs among them.
fn flows(story: &mut Story, node: &Node, options: &[&str], expected: &[(&str, &str)]) -> anyhow::Result<()> {
    let arguments = [&["flows"], options].concat();
    let mut printed = String::new();
    // Records are at most some 10 ms behind their packets.
    eventually(Duration::from_secs(3), || {
        let found = node.bulkhead().run(&arguments)?;
        ensure!(found.code == 0, "bulkhead flows ended with {}: {}", found.code, found.err);
        printed = found.out;
        Ok(expected.iter().all(|(text, _)| printed.contains(text)))
    })?;
    show(&printed, 24);
    for (text, line) in expected {
        story.line(printed.contains(text), &format!("{line}: \"{text}\""));
    }
    Ok(())
}

/// Prints a command's output, indented, no more than so many lines.
fn show(text: &str, most: usize) {
    for line in text.lines().take(most) {
        println!("    {line}");
    }
    if text.lines().count() > most {
        println!("    ...");
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

/// Leaves everything running until Enter or Ctrl-C.
fn keep(story: &Story, node: &Node, pods: [&Pod; 4]) -> anyhow::Result<()> {
    story.chapter("Everything keeps running. Try, in another terminal as root:");
    let bulkhead = tests::agent::binary("bulkhead")?;
    let server = format!("unix://{}", node.api_socket().display());
    println!("  export BULKHEAD_SERVER={server}");
    for command in
        ["flows --follow", "status", "endpoint list", "policy get shop/db-ingress", "explain shop/cart shop/db:5432"]
    {
        println!("  {} {command}", bulkhead.display());
    }
    println!("  $EDITOR {}        # every change is taken at once", node.objects().join(SHOP).display());
    for pod in pods {
        println!("  ip netns exec {} bash        # inside {}", pod.sandbox.name(), pod.key);
    }
    println!("\nEnter or Ctrl-C ends it and cleans up (`cargo xtask clean-up` does if this is killed).");
    let _ = stdout().flush();
    std::thread::spawn(|| {
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
        STOP.store(true, Ordering::Relaxed);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("waiting for Ctrl-C")?;
    runtime.block_on(async {
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return,
                () = tokio::time::sleep(Duration::from_millis(200)) => if STOP.load(Ordering::Relaxed) { return },
            }
        }
    });
    println!("cleaning up");
    Ok(())
}
