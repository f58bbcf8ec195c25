//! What `--keep` leaves running: one demo at a time, under names that one can type; the commands to
//! try; and taking it all away.

use std::{env, path::Path};

use anyhow::{bail, ensure};
use tests::{
    agent,
    node::Node,
    owner::{self, NAMESPACES},
    pod::Pod,
};

use crate::{shop, teller::Teller};

/// Name of the node; those of the pods' namespaces begin with it.
pub(crate) const NAME: &str = "bh-demo";

/// Name of a pod's namespace.
pub(crate) fn sandbox(key: &str) -> String {
    let (_, name) = key.split_once('/').unwrap_or(("", key));
    format!("{NAME}-{name}")
}

/// Everything under our names that is there.
fn names() -> Vec<String> {
    let mut names: Vec<String> = owner::names_in(Path::new(NAMESPACES), NAME)
        .into_iter()
        .filter(|rest| rest.is_empty() || rest.starts_with('-'))
        .map(|rest| format!("{NAME}{rest}"))
        .collect();
    // The node's name also stands for folder and pins, which may be there without a namespace.
    if !names.iter().any(|name| name == NAME) && (owner::folder(NAME).exists() || owner::pins(NAME).exists()) {
        names.push(NAME.to_owned());
    }
    names
}

/// Fails if a second demo is to be kept.
pub(crate) fn refuse_second(keep: bool) -> anyhow::Result<()> {
    if keep && !names().is_empty() {
        bail!(
            "a demo was left running by --keep already: play with that one, or take it away with `{}`",
            clean_command()
        );
    }
    Ok(())
}

/// Takes away what was kept.
pub(crate) fn clean() -> anyhow::Result<()> {
    let names = names();
    if names.is_empty() {
        println!("No demo is left running.");
    }
    for name in &names {
        println!("removing {name}");
        owner::remove(name);
    }
    let left = self::names();
    ensure!(left.is_empty(), "could not be removed: {}", left.join(", "));
    Ok(())
}

fn clean_command() -> String {
    match env::current_exe() {
        // As one who has not come through xtask would call it.
        Ok(program) if env::var_os("CARGO").is_none() => format!("{} --clean", program.display()),
        _ => "cargo xtask demo --clean".to_owned(),
    }
}

/// Says what there is to try.
pub(crate) fn introduce(teller: &Teller, node: &Node, pods: &[&Pod]) -> anyhow::Result<()> {
    teller.chapter("It keeps running. Try this, as root:")?;
    let bulkhead = agent::binary("bulkhead")?;
    teller.says(&format!("export BULKHEAD_SERVER=unix://{}", node.api_socket().display()))?;
    teller.says(&format!("alias bulkhead={}", bulkhead.display()))?;
    for command in [
        "bulkhead flows --follow                        # connections and denials as they happen",
        "bulkhead status",
        "bulkhead endpoint list",
        "bulkhead policy get shop/db-clients",
        "bulkhead explain shop/web shop/db:5432",
    ] {
        teller.says(command)?;
    }
    teller.says("")?;
    let folder = node.objects();
    teller.says(&format!(
        "$EDITOR {}   # what you save is enforced at once",
        folder.join(shop::POLICIES_FILE).display()
    ))?;
    for pod in pods {
        let inside = format!("ip netns exec {} bash", pod.sandbox.name());
        teller.says(&format!("{inside:<42} # inside {}: {} and {}", pod.key, pod.v4, pod.v6))?;
    }
    let [cart, ..] = pods.iter().filter(|pod| pod.key == "shop/cart").collect::<Vec<_>>()[..] else { return Ok(()) };
    let ask = format!("curl -m 2 {}:{}", cart.v4, shop::CART);
    teller.says(&format!("ip netns exec {} {ask}", sandbox("shop/web")))?;
    teller.says(&format!("ip netns exec {} {ask}   # nobody answers", sandbox("street/stranger")))?;
    teller.says("")?;
    teller.says(&format!("log of the daemon: {}", node.log().display()))?;
    teller.says(&format!("to take it all away: {}", clean_command()))
}
