//! Masquerade of what pods send to the world, by nftables: one table of our own, replaced as a whole.
//!
//! Done by the program `nft`, which speaks a netlink protocol no Rust crate we use does. Packets from
//! a pod to a pod, and to the node itself, keep their source.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::{Command, Stdio},
};

use ipnetwork::IpNetwork;

use super::{Netns, NetnsError, Node};

/// Name of the table.
pub const TABLE: &str = "bulkhead";

/// What the table is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Masquerade {
    /// Name of the table, [`TABLE`] but in tests. Letters, digits, `_` and `-`.
    pub table: String,
    /// Where pods get their addresses, on this node.
    pub pools: Vec<IpNetwork>,
    /// Where packets of pods go unchanged, besides the pools: pods of other nodes, for example.
    pub keep: Vec<IpNetwork>,
}

/// Masquerade could not be set up or removed.
#[derive(Debug, thiserror::Error)]
pub enum MasqueradeError {
    /// No `nft`.
    #[error("the program nft is not installed: install the package nftables, or switch masquerade off")]
    NoNft,
    /// It could not be started or talked to.
    #[error("running nft: {0}")]
    Run(#[source] io::Error),
    /// It refused.
    #[error("nft: {0}")]
    Refused(String),
    /// A name that cannot be a table's.
    #[error("{0:?} is no name for an nftables table: use letters, digits, _ and -, a letter first")]
    Table(String),
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Makes the table as described, in one transaction: packets see the old one or the new one. May be
/// repeated; connections that are masqueraded already stay so.
pub async fn install(node: &Node, wanted: &Masquerade) -> Result<(), MasqueradeError> {
    check_name(&wanted.table)?;
    nft(node.netns(), ruleset(wanted)).await
}

/// Removes the table. Gone already is done.
pub async fn remove(node: &Node, table: &str) -> Result<(), MasqueradeError> {
    check_name(table)?;
    nft(node.netns(), removal(table)).await
}

fn check_name(table: &str) -> Result<(), MasqueradeError> {
    let good = table.starts_with(|c: char| c.is_ascii_alphabetic())
        && table.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if good { Ok(()) } else { Err(MasqueradeError::Table(table.into())) }
}

/// `delete` fails on a table that is not there; `add` before it makes sure there is one.
fn removal(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

fn ruleset(wanted: &Masquerade) -> String {
    let Masquerade { table, pools, keep } = wanted;
    let mut text = removal(table);
    let _ = writeln!(text, "table inet {table} {{");
    let mut rules = String::new();
    for (v4, family, kind, multicast) in
        [(true, "ip", "ipv4_addr", "224.0.0.0/4"), (false, "ip6", "ipv6_addr", "ff00::/8")]
    {
        let of_family =
            |nets: &[IpNetwork]| -> Vec<IpNetwork> { nets.iter().filter(|net| net.is_ipv4() == v4).copied().collect() };
        let ours = of_family(pools);
        if ours.is_empty() {
            continue;
        }
        let mut unchanged = of_family(keep);
        unchanged.extend(&ours);
        let _ = writeln!(text, "{}", set(&format!("pods_{family}"), kind, &ours));
        let _ = writeln!(text, "{}", set(&format!("keep_{family}"), kind, &unchanged));
        let _ = writeln!(
            rules,
            "    {family} saddr @pods_{family} {family} daddr != @keep_{family} {family} daddr != {multicast} \
             masquerade fully-random"
        );
    }
    // fully-random: ports chosen one after another collide when two CPUs choose at once.
    let _ = writeln!(text, "  chain postrouting {{");
    let _ = writeln!(text, "    type nat hook postrouting priority srcnat; policy accept;");
    text.push_str(&rules);
    text.push_str("  }\n}\n");
    text
}

fn set(name: &str, kind: &str, nets: &[IpNetwork]) -> String {
    let elements: Vec<String> = nets.iter().map(ToString::to_string).collect();
    // auto-merge: blocks may hold each other.
    format!("  set {name} {{ type {kind}; flags interval; auto-merge; elements = {{ {} }}; }}", elements.join(", "))
}

async fn nft(netns: &Netns, script: String) -> Result<(), MasqueradeError> {
    netns.run(move || feed(Command::new("nft").args(["-f", "-"]), &script)).await?
}

fn feed(program: &mut Command, script: &str) -> Result<(), MasqueradeError> {
    let started = program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MasqueradeError::NoNft,
        _ => MasqueradeError::Run(error),
    })?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // If nft ends without reading all, its exit says why.
    let written = stdin.write_all(script.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(MasqueradeError::Run)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(MasqueradeError::Refused(if said.is_empty() { output.status.to_string() } else { said }));
    }
    written.map_err(MasqueradeError::Run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn one_transaction_replaces_the_table() {
        let wanted = Masquerade {
            table: "t".into(),
            pools: nets(&["10.0.0.0/24", "10.0.2.0/24", "fd00::/64"]),
            keep: nets(&["10.0.0.0/16"]),
        };
        let expected = "\
add table inet t
delete table inet t
table inet t {
  set pods_ip { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/24, 10.0.2.0/24 }; }
  set keep_ip { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/16, 10.0.0.0/24, 10.0.2.0/24 }; }
  set pods_ip6 { type ipv6_addr; flags interval; auto-merge; elements = { fd00::/64 }; }
  set keep_ip6 { type ipv6_addr; flags interval; auto-merge; elements = { fd00::/64 }; }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @pods_ip ip daddr != @keep_ip ip daddr != 224.0.0.0/4 masquerade fully-random
    ip6 saddr @pods_ip6 ip6 daddr != @keep_ip6 ip6 daddr != ff00::/8 masquerade fully-random
  }
}
";
        assert_eq!(ruleset(&wanted), expected);
    }

    #[test]
    fn a_family_without_a_pool_has_no_rule() {
        let wanted = Masquerade { table: "t".into(), pools: nets(&["10.0.0.0/24"]), keep: nets(&["fd00::/8"]) };
        assert!(!ruleset(&wanted).contains("ip6"), "{}", ruleset(&wanted));
    }

    #[test]
    fn a_name_cannot_carry_commands() {
        for name in ["", "1", "a b", "a;flush ruleset", "a{", "a\n"] {
            assert!(matches!(check_name(name), Err(MasqueradeError::Table(_))), "{name:?}");
        }
        assert!(check_name("bulkhead-t_1").is_ok());
    }

    #[test]
    fn a_program_that_is_missing_or_fails_is_told() {
        let fed = |script: &str| feed(Command::new("sh").args(["-c", script]), "input").map_err(|e| e.to_string());
        assert_eq!(fed("test \"$(cat)\" = input"), Ok(()));
        assert_eq!(fed("cat >/dev/null; echo no such thing >&2; exit 1"), Err("nft: no such thing".into()));
        assert_eq!(fed("cat >/dev/null; exit 3"), Err("nft: exit status: 3".into()));
        let missing = feed(&mut Command::new("/nonexistent/nft"), "").unwrap_err();
        assert!(matches!(missing, MasqueradeError::NoNft) && missing.to_string().contains("nftables"), "{missing}");
    }
}
