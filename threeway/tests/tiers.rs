//! Every combination of tiers: an Admin policy, a NetworkPolicy, a Baseline policy, each there or not,
//! matching or not, with every action, staged or not; in both directions and families, found by labels, by
//! address, or the one by this and the other by that. What should come of it is a formula here.

use anyhow::{anyhow, ensure};
use tests::trial::trial;
use threeway::{node::Node, play::play, text};

/// A ClusterNetworkPolicy's action, whether its rule matches, and whether it is staged.
type Cluster = Option<(&'static str, bool, bool)>;

const CLUSTER: [Cluster; 9] = [
    None,
    Some(("accept", true, false)),
    Some(("accept", false, false)),
    Some(("deny", true, false)),
    Some(("deny", false, false)),
    Some(("pass", true, false)),
    Some(("pass", false, false)),
    Some(("deny", true, true)),
    Some(("accept", true, true)),
];

/// Whether a NetworkPolicy isolates, and then whether its rule matches.
const NETWORK: [Option<bool>; 3] = [None, Some(false), Some(true)];

/// Behind the rule that counts another one of the same tier, which denies everything: only a decision of the
/// first keeps it from being asked.
const BEHIND: [bool; 2] = [false, true];

/// What a cluster policy that counts says of the packet.
fn says(policy: Cluster) -> Option<&'static str> {
    policy.and_then(|(action, matches, staged)| (matches && !staged).then_some(action))
}

fn passes(admin: Cluster, behind: bool, network: Option<bool>, baseline: Cluster) -> bool {
    match (says(admin), behind) {
        (Some("accept"), _) => return true,
        (Some("deny"), _) | (None, true) => return false,
        _ => {}
    }
    network.unwrap_or_else(|| says(baseline) != Some("deny"))
}

#[test]
fn every_combination_of_tiers_is_what_the_formula_says() {
    trial(|| {
        let mut node = Node::new()?;
        for v6 in [false, true] {
            let (peer, block, elsewhere) = if v6 {
                ("fd00::2", "fd00::2/128", "2001:db8::/32")
            } else {
                ("10.0.0.2", "10.0.0.2/32", "192.0.2.0/24")
            };
            let own = if v6 { "fd00::1" } else { "10.0.0.1" };
            let labels = ["{app=y} in {}", "{app=z} in {}"];
            let blocks = [block, elsewhere];
            for kinds in [[labels, labels], [blocks, blocks], [labels, blocks], [blocks, labels]] {
                for direction in ["ingress", "egress"] {
                    prove(&mut node, [own, peer], kinds, direction)?;
                }
            }
        }
        Ok(())
    });
}

/// All combinations of policies, the Admin tier's peers and those of the others named in these ways (so that
/// they match, so that they do not).
fn prove(node: &mut Node, [own, peer]: [&str; 2], kinds: [[&str; 2]; 2], direction: &str) -> anyhow::Result<()> {
    let [first, others] = kinds;
    let word = if direction == "ingress" { "from" } else { "to" };
    let who = |kind: [&'_ str; 2], matches: bool| kind[usize::from(!matches)].to_owned();
    for (admin, baseline) in CLUSTER.iter().flat_map(|admin| CLUSTER.iter().map(move |baseline| (*admin, *baseline))) {
        for (network, behind) in NETWORK.iter().flat_map(|network| BEHIND.map(|behind| (*network, behind))) {
            let mut text = format!("local a/x {own}\nlocal a/y {peer}\npod a/x app=x\npod a/y app=y\n");
            for (name, tier, policy, kind) in [("k", "admin", admin, first), ("m", "baseline", baseline, others)] {
                let Some((action, matches, staged)) = policy else { continue };
                let staged = if staged { " staged" } else { "" };
                text += &format!("cluster {name} {tier} 5 {{app=x}} in {{}}{staged}\n");
                text += &format!("  {direction} {action} {word} {} ports TCP/80\n", who(kind, matches));
            }
            if behind {
                // Found the other way, so that two maps have something to say.
                text += &format!("cluster l admin 6 {{app=x}} in {{}}\n  {direction} deny {word} {}\n", others[0]);
            }
            if let Some(matches) = network {
                let pods = who(others, matches).replace(" in {}", "");
                text += &format!("policy a/n {{app=x}}\n  {direction} {word} {pods} ports TCP/80\n");
            }
            let [source, destination] = if direction == "ingress" { [peer, own] } else { [own, peer] };
            let end = |ip: &str, port: u16| std::net::SocketAddr::new(ip.parse().expect("an address"), port);
            text += &format!("send TCP {} {} flags=2\n", end(source, 40_000), end(destination, 80));
            let scenario = text::parse(&text).map_err(|error| anyhow!("{error}\n{text}"))?;
            let played = play(node, &scenario).map_err(|it| anyhow!("{}\n{text}", it.text))?;
            let wanted = u64::from(passes(admin, behind, network, baseline));
            ensure!((played.packets, played.passed) == (1, wanted), "{played:?}, and {wanted} should pass\n{text}");
        }
    }
    Ok(())
}
