//! The forms that the Kubernetes API prescribes for names, labels, ports and address blocks.
//!
//! The rules are those of apimachinery's `util/validation` and of the API server's validation of
//! NetworkPolicy. A check gives back what is wrong as a sentence to follow the quoted value, and
//! what to write instead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// What is wrong with a value, and the fix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed {
    pub(crate) what: &'static str,
    pub(crate) fix: &'static str,
}

type Check = Result<(), Malformed>;

const fn malformed<T>(what: &'static str, fix: &'static str) -> Result<T, Malformed> {
    Err(Malformed { what, fix })
}

/// RFC 1123 label: a namespace, and one part of a name with dots.
pub(crate) fn dns_label(text: &str) -> Check {
    const FIX: &str = "use lower-case letters, digits and '-', beginning and ending with a letter or digit";
    if text.len() > 63 {
        return malformed("is longer than 63 characters", "shorten it");
    }
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return malformed("is empty", FIX);
    };
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if alphanumeric(first) && alphanumeric(last) && bytes.iter().all(|b| alphanumeric(b) || *b == b'-') {
        Ok(())
    } else {
        malformed("is not a DNS label", FIX)
    }
}

/// RFC 1123 subdomain: most names.
pub(crate) fn dns_subdomain(text: &str) -> Check {
    const FIX: &str =
        "use lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit";
    if text.len() > 253 {
        return malformed("is longer than 253 characters", "shorten it");
    }
    if text.is_empty() {
        return malformed("is empty", FIX);
    }
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part_is_fine = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
    };
    if text.split('.').all(part_is_fine) { Ok(()) } else { malformed("is not a DNS name", FIX) }
}

/// Key of a label or annotation: `[prefix/]name`.
pub(crate) fn label_key(text: &str) -> Check {
    const FIX: &str = "write name or prefix/name: the name of letters, digits, '-', '_' and '.', beginning and \
                       ending with a letter or digit, the prefix a lower-case DNS name";
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix
        && dns_subdomain(prefix).is_err()
    {
        return malformed("is not a label key: the part before '/' is not a DNS name", FIX);
    }
    if name.len() > 63 {
        return malformed("is not a label key: its name is longer than 63 characters", "shorten it");
    }
    if name.is_empty() {
        return malformed("is not a label key: its name is empty", FIX);
    }
    if is_qualified(name) { Ok(()) } else { malformed("is not a label key", FIX) }
}

/// Value of a label; may be empty.
pub(crate) fn label_value(text: &str) -> Check {
    if text.len() > 63 {
        return malformed("is longer than 63 characters", "shorten it");
    }
    if text.is_empty() || is_qualified(text) {
        Ok(())
    } else {
        malformed(
            "is not a label value",
            "use letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        )
    }
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Name of a port: an IANA service name (RFC 6335, section 5.1), lower case.
pub(crate) fn port_name(text: &str) -> Check {
    const FIX: &str = "use at most 15 lower-case letters, digits and single '-', with at least one letter";
    if text.len() > 15 {
        return malformed("is longer than 15 characters", FIX);
    }
    let bytes = text.as_bytes();
    if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
        return malformed("is not a port name", FIX);
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        return malformed("is not a port name: it has no letter", FIX);
    }
    if text.starts_with('-') || text.ends_with('-') || text.contains("--") {
        return malformed("is not a port name: '-' begins it, ends it or stands twice in a row", FIX);
    }
    Ok(())
}

/// A domain name of a ClusterNetworkPolicy: two parts or more, of which the first may be `*` for one
/// part or several, and perhaps a dot at the end (the pattern of the CRD, in words).
pub(crate) fn domain_name(text: &str) -> Check {
    const FIX: &str = "write it like example.com, or *.example.com for every name below";
    let name = text.strip_prefix("*.").unwrap_or(text);
    let name = name.strip_suffix('.').unwrap_or(name);
    let part_is_fine = |part: &str| {
        let bytes = part.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.into_iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.contains('.') && name.split('.').all(part_is_fine) {
        Ok(())
    } else {
        malformed("is not a domain name", FIX)
    }
}

/// A port number.
pub(crate) fn port_number(number: i32) -> Result<u16, Malformed> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => malformed("is not a port", "use a number from 1 to 65535"),
    }
}

/// An address.
pub(crate) fn ip(text: &str) -> Result<IpAddr, Malformed> {
    parse_ip(text).ok_or(Malformed { what: "is not an IP address", fix: "write it like 10.1.2.3 or fd00::1" })
}

/// An address block. The API server takes leading zeros in IPv4 (as decimal) and bits set beyond
/// the prefix (which mean nothing) for the sake of old objects, and so do we.
pub(crate) fn cidr(text: &str) -> Result<IpNetwork, Malformed> {
    const FIX: &str = "write it like 10.0.0.0/8 or fd00::/8";
    if text.is_empty() {
        return malformed("is empty", FIX);
    }
    let Some((address, length)) = text.split_once('/') else {
        return malformed("has no prefix length", FIX);
    };
    let Some(address) = parse_ip(address) else {
        return malformed("does not begin with an IP address", FIX);
    };
    let (bits, too_long) = match address {
        IpAddr::V4(_) => (32, Malformed { what: "has no prefix length from 0 to 32", fix: FIX }),
        IpAddr::V6(_) => (128, Malformed { what: "has no prefix length from 0 to 128", fix: FIX }),
    };
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
        return Err(too_long);
    }
    let Some(length) = length.parse::<u8>().ok().filter(|length| *length <= bits) else { return Err(too_long) };
    if let IpAddr::V6(address) = address
        && address.to_ipv4_mapped().is_some()
        && length < 96
    {
        return malformed(
            "mixes IPv4 and IPv6: an IPv4-mapped address with a prefix shorter than 96",
            "write the IPv4 block and the IPv6 block apart",
        );
    }
    IpNetwork::new(address, length).map_err(|_| too_long)
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 16 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, function: impl Fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(function(text), "{name} refuses {text:?}");
        }
        for text in bad {
            assert!(!function(text), "{name} accepts {text:?}");
        }
    }

    #[test]
    fn names_labels_and_ports_follow_the_api() {
        let (l63, l64) = ("a".repeat(63), "a".repeat(64));
        let subdomain = format!("{l63}.{l63}.{l63}.{}", "a".repeat(61));
        let prefixed = format!("example.com/{l63}");
        check(
            "dns_label",
            |t| dns_label(t).is_ok(),
            &["a", "a-b", "0", &l63],
            &["", "-a", "a-", "A", "a.b", "ä", &l64],
        );
        check(
            "dns_subdomain",
            |t| dns_subdomain(t).is_ok(),
            &["a", "a.b-c.d0", &l64, &subdomain],
            &["", ".a", "a.", "a..b", "a.-b", "A", "a_b", &format!("{subdomain}a")],
        );
        check(
            "label_key",
            |t| label_key(t).is_ok(),
            &["app", "App_1.x-y", "a.b/c", &l63, &prefixed],
            &["", "/", "a/", "/a", "A.b/c", "a/b/c", "-a", "a-", "a b", &l64],
        );
        check(
            "label_value",
            |t| label_value(t).is_ok(),
            &["", "a", "A_1.x-y", &l63],
            &["-a", "a.", "a b", "a/b", &l64],
        );
        check(
            "port_name",
            |t| port_name(t).is_ok(),
            &["http", "a", "1a", "a-b", "123456789012a-b"],
            &["", "80", "Http", "-a", "a-", "a--b", "a_b", "abcdefghijklmnop"],
        );
    }

    #[test]
    fn domain_names_follow_the_pattern() {
        check(
            "domain_name",
            |t| domain_name(t).is_ok(),
            &["example.com", "*.example.com", "a.b.c.", "A_b.c-d", "1.2"],
            &["", "com", "*", "*.", "*.com", "a.*.com", "*a.b.com", "a..b", ".a.b", "-a.b", "a_.b", "a b.c"],
        );
    }

    #[test]
    fn blocks_are_read_as_the_api_server_reads_them() {
        let same = |a: &str, b: &str| assert_eq!(cidr(a).ok(), b.parse::<IpNetwork>().ok(), "{a}");
        same("10.0.0.0/8", "10.0.0.0/8");
        same("10.1.2.3/8", "10.1.2.3/8");
        same("010.000.0.1/32", "10.0.0.1/32");
        same("::/0", "::/0");
        same("fd00::1/64", "fd00::1/64");
        same("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104");
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "10.0.0.256/8",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "::/129",
            ":::/0",
            "host/8",
            "fe80::1%eth0/64",
            "::ffff:10.0.0.0/95",
            "0x0a.0.0.0/8",
        ] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_1_to_65535() {
        assert_eq!(port_number(1), Ok(1));
        assert_eq!(port_number(65535), Ok(65535));
        for bad in [0, -1, 65536, i32::MIN, i32::MAX] {
            assert!(port_number(bad).is_err(), "{bad}");
        }
    }
}
