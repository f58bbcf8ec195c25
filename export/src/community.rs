//! Community ID version 1 with seed 0 (github.com/corelight/community-id-spec): the same text for both directions of
//! a connection, whoever saw it, so that records of ours can be joined with those of Zeek, Suricata and others.

use std::net::IpAddr;

use flows::record::protocol;
use sha1::{Digest, Sha1};

/// An end in the order of the specification.
type Endpoint = (Vec<u8>, u16);

/// The ID, `None` if the ends are not of one family.
pub(crate) fn community_id(
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    proto: u8,
    icmp: Option<(u8, u8)>,
) -> Option<String> {
    let bytes = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    if source.0.is_ipv4() != destination.0.is_ipv4() {
        return None;
    }
    let (mut from, mut to): (Endpoint, Endpoint) = ((bytes(source.0), source.1), (bytes(destination.0), destination.1));
    let mut one_way = false;
    if let Some((kind, code)) = icmp {
        // A message that has a counterpart is as if its ports were the two types.
        match counterpart(proto, kind) {
            Some(other) => (from.1, to.1) = (kind.into(), other.into()),
            None => (from.1, to.1, one_way) = (kind.into(), code.into(), true),
        }
    }
    let swap = !one_way && from > to;
    let (from, to) = if swap { (to, from) } else { (from, to) };
    let mut hash = Sha1::new();
    hash.update([0, 0]);
    hash.update(&from.0);
    hash.update(&to.0);
    hash.update([proto, 0]);
    if icmp.is_some() || matches!(proto, protocol::TCP | protocol::UDP | protocol::SCTP) {
        hash.update(from.1.to_be_bytes());
        hash.update(to.1.to_be_bytes());
    }
    Some(format!("1:{}", base64(&hash.finalize())))
}

/// The type of the message that answers one of this type, or that it answers.
fn counterpart(proto: u8, kind: u8) -> Option<u8> {
    const V4: [(u8, u8); 5] = [(8, 0), (13, 14), (15, 16), (17, 18), (10, 9)];
    const V6: [(u8, u8); 6] = [(128, 129), (133, 134), (135, 136), (130, 131), (144, 145), (139, 140)];
    let pairs: &[(u8, u8)] = if proto == protocol::ICMPV6 { &V6 } else { &V4 };
    pairs.iter().find_map(|&(one, other)| match kind {
        it if it == one => Some(other),
        it if it == other => Some(one),
        _ => None,
    })
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (at, &byte)| word | u32::from(byte) << (16 - 8 * at));
        for at in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * at) & 0x3f) as usize];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(source: &str, destination: &str, ports: (u16, u16), proto: u8, icmp: Option<(u8, u8)>) -> String {
        let source = (source.parse().unwrap(), ports.0);
        community_id(source, (destination.parse().unwrap(), ports.1), proto, icmp).unwrap()
    }

    /// From the specification's table of reference results.
    #[test]
    fn the_reference_results_of_the_specification() {
        let tcp = |from, to, ports| id(from, to, ports, protocol::TCP, None);
        assert_eq!(tcp("128.232.110.120", "66.35.250.204", (34855, 80)), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        assert_eq!(tcp("66.35.250.204", "128.232.110.120", (80, 34855)), "1:LQU9qZlK+B5F3KDmev6m5PMibrg=");
        let udp = |from, to, ports| id(from, to, ports, protocol::UDP, None);
        assert_eq!(udp("192.168.1.52", "8.8.8.8", (54585, 53)), "1:d/FP5EW3wiY1vCndhwleRRKHowQ=");
        let ping = |kind| id("192.168.0.89", "192.168.0.1", (0, 0), protocol::ICMP, Some((kind, 0)));
        assert_eq!(ping(8), "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=");
        assert_eq!(
            id("192.168.0.1", "192.168.0.89", (0, 0), protocol::ICMP, Some((0, 0))),
            "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="
        );
    }

    #[test]
    fn base64_pads() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes), text);
        }
    }
}
