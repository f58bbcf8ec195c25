//! The deny list: a text, one address or range on each line, and what becomes of it in the map DENIED.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use datapath_abi::uplink::Denied;
use ipnetwork::IpNetwork;

/// What was read of a list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DenyList {
    /// What is to be kept out, each once.
    pub networks: BTreeSet<IpNetwork>,
    /// Lines that could not be read; all others hold.
    pub problems: Vec<Problem>,
}

/// A line that could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Number of the line, from 1.
    pub line: usize,
    /// What stands there, cut short.
    pub text: String,
    /// What is wrong with it, and what to write.
    pub why: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {:?} {}", self.line, self.text, self.why)
    }
}

/// Most characters of a line that are told of it.
const TOLD: usize = 60;

impl DenyList {
    /// Reads a list: an address or a range on each line, `#` begins what is for people, empty lines say nothing.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let said = line.split('#').next().unwrap_or_default().trim();
            if said.is_empty() {
                continue;
            }
            match network(said) {
                Ok(network) => {
                    list.networks.insert(network);
                }
                Err(why) => list.problems.push(Problem { line: number, text: said.chars().take(TOLD).collect(), why }),
            }
        }
        list
    }
}

/// One line.
fn network(said: &str) -> Result<IpNetwork, &'static str> {
    let network: IpNetwork = said
        .parse()
        .map_err(|_| "is neither an address nor a range: write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32")?;
    if network.ip() != network.network() {
        return Err("has bits behind its prefix: write the range's first address, or the address alone");
    }
    if let IpAddr::V6(ip) = network.ip()
        && ip.to_ipv4_mapped().is_some()
    {
        return Err("is IPv4 within IPv6, which nobody sends: write it as IPv4");
    }
    Ok(network)
}

/// What DENIED is to hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// What becomes of packets from each range; of a narrower one before a wider one.
    pub entries: BTreeMap<IpNetwork, Denied>,
    /// Ranges of the list for which there is no room, by the list's order of addresses.
    pub refused: Vec<IpNetwork>,
}

impl Wanted {
    /// Refuses the networks of a list, spares `spared` wherever one of them covers it, with room for `capacity` entries. Those that
    /// are spared come first: without one of them nobody it would be covered by is refused.
    pub fn of(networks: &BTreeSet<IpNetwork>, spared: &BTreeSet<IpAddr>, capacity: usize) -> Self {
        let mut covered: BTreeMap<IpNetwork, Vec<IpNetwork>> = BTreeMap::new();
        for ip in spared {
            for network in around(*ip).filter(|network| networks.contains(network)) {
                covered.entry(network).or_default().push(IpNetwork::from(*ip));
            }
        }
        let mut wanted = Self::default();
        for network in networks {
            let covered = covered.remove(network).unwrap_or_default();
            let new = covered.iter().filter(|ip| !wanted.entries.contains_key(ip)).count();
            if wanted.entries.len() + new + 1 > capacity {
                wanted.refused.push(*network);
                continue;
            }
            for ip in covered {
                wanted.entries.insert(ip, Denied { verdict: Denied::SPARED });
            }
            // A node that is on the list by its very address stays spared.
            wanted.entries.entry(*network).or_insert(Denied { verdict: Denied::REFUSED });
        }
        wanted
    }

    /// What to write and what to remove where `found` is. Who is spared is written before anybody is refused, and goes after.
    pub fn changes(&self, found: &BTreeMap<IpNetwork, Denied>) -> Vec<Change> {
        let new = |verdict: u32| {
            self.entries
                .iter()
                .filter(move |(key, denied)| denied.verdict == verdict && found.get(*key) != Some(*denied))
                .map(|(key, denied)| Change::Put(*key, *denied))
        };
        let old = |verdict: u32| {
            found
                .iter()
                .filter(move |(key, denied)| denied.verdict == verdict && !self.entries.contains_key(*key))
                .map(|(key, _)| Change::Remove(*key))
        };
        let [spared, refused] = [Denied::SPARED, Denied::REFUSED];
        old(refused).chain(new(spared)).chain(new(refused)).chain(old(spared)).collect()
    }
}

/// All ranges that an address is in.
fn around(ip: IpAddr) -> impl Iterator<Item = IpNetwork> {
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    (0..=bits).filter_map(move |prefix| {
        let range = IpNetwork::new(ip, prefix).ok()?;
        IpNetwork::new(range.network(), prefix).ok()
    })
}

/// One write to DENIED.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Writes an entry.
    Put(IpNetwork, Denied),
    /// Removes one.
    Remove(IpNetwork),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> BTreeSet<IpNetwork> {
        let list = DenyList::parse(text);
        assert_eq!(list.problems, []);
        list.networks
    }

    fn ips(text: &str) -> BTreeSet<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn lines_are_addresses_and_ranges_of_both_families() {
        let text =
            "# known to be bad\n192.0.2.7\n\n198.51.100.0/24   # all of it\n2001:db8::/32\n2001:db8::1\n192.0.2.7/32\n";
        let found: Vec<String> = list(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::/32", "2001:db8::1/128"]);
    }

    #[test]
    fn a_wrong_line_is_named_and_the_others_hold() {
        let list =
            DenyList::parse("192.0.2.0/24\nexample.org\n192.0.2.1/24\n10.0.0.0/33\n::ffff:192.0.2.1\n2001:db8::1\n");
        assert_eq!(list.networks.len(), 2);
        let lines: Vec<(usize, &str)> = list.problems.iter().map(|it| (it.line, it.text.as_str())).collect();
        assert_eq!(lines, [(2, "example.org"), (3, "192.0.2.1/24"), (4, "10.0.0.0/33"), (5, "::ffff:192.0.2.1")]);
        assert!(list.problems[1].to_string().contains("line 3"), "{}", list.problems[1]);
        let long = DenyList::parse(&"x".repeat(10_000));
        assert_eq!(long.problems[0].text.len(), TOLD);
    }

    #[test]
    fn nodes_are_spared_also_where_they_are_on_the_list_themselves() {
        let wanted = Wanted::of(&list("192.0.2.0/24\n10.0.0.1\n"), &ips("192.0.2.9 10.0.0.1 10.0.0.2"), 10);
        let verdicts: Vec<(u32, u32)> =
            wanted.entries.iter().map(|(range, denied)| (u32::from(range.prefix()), denied.verdict)).collect();
        assert_eq!(verdicts, [(32, Denied::SPARED), (24, Denied::REFUSED), (32, Denied::SPARED)]);
        assert_eq!(wanted.refused, []);
    }

    #[test]
    fn what_has_no_room_is_refused_by_name_and_never_without_whom_it_must_spare() {
        let networks = list("10.0.0.0/8\n192.0.2.0/24\n198.51.100.0/24\n");
        let wanted = Wanted::of(&networks, &ips("192.0.2.9 192.0.2.10"), 3);
        let refused: Vec<String> = wanted.refused.iter().map(ToString::to_string).collect();
        assert_eq!(refused, ["192.0.2.0/24"]);
        assert_eq!(wanted.entries.len(), 2);
    }

    #[test]
    fn at_every_moment_between_two_writes_nodes_are_spared() {
        let spared = ips("192.0.2.9");
        let before = Wanted::of(&list("198.51.100.0/24\n"), &spared, 10).entries;
        let after = Wanted::of(&list("192.0.2.0/24\n"), &spared, 10);
        let mut there = before.clone();
        let node: IpNetwork = "192.0.2.9/32".parse().unwrap();
        let range: IpNetwork = "192.0.2.0/24".parse().unwrap();
        for changes in
            [after.changes(&before), Wanted { entries: before.clone(), refused: Vec::new() }.changes(&after.entries)]
        {
            for change in changes {
                match change {
                    Change::Put(key, denied) => there.insert(key, denied),
                    Change::Remove(key) => there.remove(&key),
                };
                assert!(!there.contains_key(&range) || there.contains_key(&node), "{change:?}: {there:?}");
            }
        }
        assert_eq!(there, before);
        assert_eq!(after.changes(&after.entries), []);
    }

    #[test]
    fn every_range_that_covers_a_node_spares_it() {
        let networks = list("0.0.0.0/0\n10.0.0.0/8\n10.1.2.3\n::/0\n2001:db8::/127\n");
        let spared = ips("10.1.2.3 10.2.2.3 192.0.2.1 2001:db8::1 2001:db8::2");
        let wanted = Wanted::of(&networks, &spared, 100);
        assert_eq!(wanted.refused, []);
        for ip in spared {
            assert_eq!(wanted.entries.get(&IpNetwork::from(ip)), Some(&Denied { verdict: Denied::SPARED }), "{ip}");
        }
        assert_eq!(wanted.entries.len(), 5 + 4, "one of the five is a node itself");
    }
}
