//! Masquerade of what pods send to the world, by nftables: one table of our own, replaced as a whole.
//!
//! Packets from a pod to a pod, and to the node itself, keep their source.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;
use rustix::io::Errno;

use super::{
    Netns, NetnsError, Node,
    nftables::{End, Family, Field, Transaction, is_family, is_in, masquerade},
};

/// Name of the table.
pub const TABLE: &str = "bulkhead";
/// Longest name of a table: `NFT_NAME_MAXLEN` of include/uapi/linux/netfilter/nf_tables.h, without the final 0.
const LONGEST_NAME: usize = 255;
/// Name of its chain.
const CHAIN: &str = "postrouting";

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
    /// The kernel refused.
    #[error("nftables table {table}: {source}{}", advice(source))]
    Refused {
        /// Which.
        table: String,
        /// Why.
        source: io::Error,
    },
    /// A name that cannot be a table's.
    #[error("{0:?} is no name for an nftables table: use letters, digits, _ and -, a letter first, at most 255")]
    Table(String),
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// What to do about a kernel that says so.
fn advice(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::OPNOTSUPP | Errno::NOENT) => {
            ": this kernel lacks nf_tables or its masquerade; load the module nft_masq, or switch masquerade off"
        }
        Some(Errno::PERM) => ": needs CAP_NET_ADMIN",
        Some(Errno::MSGSIZE) => ": too many ranges are to be left alone; name fewer, larger ones",
        _ => "",
    }
}

/// Makes the table as described, in one transaction: packets see the old one or the new one. May be
/// repeated; connections that are masqueraded already stay so.
pub async fn install(node: &Node, wanted: &Masquerade) -> Result<(), MasqueradeError> {
    let wanted = wanted.clone();
    change(node.netns(), wanted.table.clone(), move |transaction| {
        remove_old(transaction);
        describe(transaction, &wanted);
    })
    .await
}

/// Removes the table. Gone already is done.
pub async fn remove(node: &Node, table: &str) -> Result<(), MasqueradeError> {
    match change(node.netns(), table.into(), remove_old).await {
        // Where there is no nf_tables there is no table.
        Err(MasqueradeError::Refused { source, .. })
            if Errno::from_io_error(&source) == Some(Errno::PROTONOSUPPORT) =>
        {
            Ok(())
        }
        done => done,
    }
}

async fn change(
    netns: &Netns,
    table: String,
    changes: impl FnOnce(&mut Transaction<'_>) + Send + 'static,
) -> Result<(), MasqueradeError> {
    check_name(&table)?;
    netns
        .run(move || {
            let mut transaction = Transaction::new(&table);
            changes(&mut transaction);
            transaction.commit().map_err(|source| MasqueradeError::Refused { table: table.clone(), source })
        })
        .await?
}

fn check_name(table: &str) -> Result<(), MasqueradeError> {
    let good = table.starts_with(|c: char| c.is_ascii_alphabetic())
        && table.len() <= LONGEST_NAME
        && table.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if good { Ok(()) } else { Err(MasqueradeError::Table(table.into())) }
}

/// A table that is not there cannot be removed: making it first makes sure there is one.
fn remove_old(transaction: &mut Transaction<'_>) {
    transaction.add_table();
    transaction.delete_table();
}

fn describe(transaction: &mut Transaction<'_>, wanted: &Masquerade) {
    transaction.add_table();
    transaction.add_source_nat_chain(CHAIN);
    for (family, suffix, multicast) in [
        (Family::V4, "ip", IpNetwork::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4)),
        (Family::V6, "ip6", IpNetwork::new(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8)),
    ] {
        let multicast = multicast.expect("the length is one of the family's");
        let of_family = |nets: &[IpNetwork]| -> Vec<IpNetwork> {
            nets.iter().filter(|net| net.is_ipv4() == multicast.is_ipv4()).copied().collect()
        };
        let pools = of_family(&wanted.pools);
        if pools.is_empty() {
            continue;
        }
        let mut keep = of_family(&wanted.keep);
        keep.extend(&pools);
        keep.push(multicast);
        let (from, to) = (format!("pods_{suffix}"), format!("keep_{suffix}"));
        transaction.add_set(&from, family, &ends(&pools));
        transaction.add_set(&to, family, &ends(&keep));
        let rule = is_family(family)
            .into_iter()
            .chain(is_in(Field::Source, family, &from, true))
            .chain(is_in(Field::Destination, family, &to, false))
            .chain([masquerade()]);
        transaction.add_rule(CHAIN, rule);
    }
}

/// Where the intervals begin and end that blocks of one family cover together, ascending. Blocks may hold each other,
/// and those side by side become one: the ranges of a thousand nodes are usually few intervals.
fn ends(blocks: &[IpNetwork]) -> Vec<End> {
    let Some(first) = blocks.first() else { return Vec::new() };
    let width: u32 = if first.is_ipv4() { 32 } else { 128 };
    let mut ranges: Vec<(u128, u128)> =
        blocks.iter().map(|block| (number(block.network()), number(block.broadcast()))).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some((_, last)) if start <= last.saturating_add(1) => *last = end.max(*last),
            _ => merged.push((start, end)),
        }
    }
    let key = |number: u128| number.to_be_bytes()[16 - width as usize / 8..].to_vec();
    let top = u128::MAX >> (128 - width);
    let mut ends = Vec::with_capacity(merged.len() * 2);
    for (start, end) in merged {
        ends.push(End { key: key(start), closes: false });
        // The interval that reaches the last address has no end.
        if end != top {
            ends.push(End { key: key(end + 1), closes: true });
        }
    }
    ends
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(blocks: &[&str]) -> Vec<String> {
        let blocks: Vec<IpNetwork> = blocks.iter().map(|text| text.parse().unwrap()).collect();
        let address = |key: &[u8]| match <[u8; 4]>::try_from(key) {
            Ok(octets) => Ipv4Addr::from(octets).to_string(),
            Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(key).unwrap()).to_string(),
        };
        ends(&blocks).iter().map(|end| format!("{}{}", if end.closes { "<" } else { "" }, address(&end.key))).collect()
    }

    #[test]
    fn blocks_become_intervals() {
        assert_eq!(shown(&[]), [""; 0]);
        assert_eq!(shown(&["10.0.0.0/24", "10.0.2.0/24"]), ["10.0.0.0", "<10.0.1.0", "10.0.2.0", "<10.0.3.0"]);
        assert_eq!(shown(&["fd00::/64"]), ["fd00::", "<fd00:0:0:1::"]);
        assert_eq!(shown(&["192.0.2.7/32"]), ["192.0.2.7", "<192.0.2.8"]);
    }

    #[test]
    fn blocks_in_each_other_and_side_by_side_become_one() {
        assert_eq!(shown(&["10.0.1.0/24", "10.0.0.0/16", "10.0.0.0/24"]), ["10.0.0.0", "<10.1.0.0"]);
        assert_eq!(shown(&["10.0.1.0/24", "10.0.0.0/24"]), ["10.0.0.0", "<10.0.2.0"]);
    }

    #[test]
    fn nothing_is_behind_the_last_address() {
        assert_eq!(shown(&["0.0.0.0/0"]), ["0.0.0.0"]);
        assert_eq!(shown(&["255.255.255.255/32", "1.0.0.0/8"]), ["1.0.0.0", "<2.0.0.0", "255.255.255.255"]);
        assert_eq!(shown(&["::/0", "fd00::/8"]), ["::"]);
        assert_eq!(shown(&["ff00::/8"]), ["ff00::"]);
    }

    #[test]
    fn a_name_is_one() {
        for name in ["", "1", "a b", "a;flush ruleset", "a{", "a\n", &"t".repeat(256)] {
            assert!(matches!(check_name(name), Err(MasqueradeError::Table(_))), "{name:?}");
        }
        assert!(check_name("bulkhead-t_1").is_ok());
        assert!(check_name(&"t".repeat(255)).is_ok());
    }
}
