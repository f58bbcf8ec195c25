//! Addresses as configurations and runtimes write them.
//!
//! Each reader gives the reason in words when the text is none, to be put behind the key's name.

use std::{fmt, net::IpAddr};

use ipnetwork::IpNetwork;

/// The hardware address of a single interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac([u8; 6]);

impl Mac {
    /// Reads `02:00:00:00:00:01` or `02-00-00-00-00-01`.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be a MAC address such as 02:00:00:00:00:01";
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or(FORM)?;
            // A sign would pass from_str_radix.
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(FORM);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| FORM)?;
        }
        if parts.next().is_some() {
            return Err(FORM);
        }
        // IEEE 802: the lowest bit of the first byte marks a group; the kernel refuses both
        // (is_valid_ether_addr in include/linux/etherdevice.h).
        if bytes[0] & 1 == 1 {
            return Err("must not be a multicast address");
        }
        if bytes == [0; 6] {
            return Err("must not be all zero");
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An address that a pod can have; a prefix length behind it is let pass and dropped, for the
/// daemon knows the prefixes of its pools.
pub(crate) fn plain_address(text: &str) -> Result<IpAddr, &'static str> {
    let address = match text.contains('/') {
        true => cidr(text)?.ip(),
        false => text.parse().map_err(|_| "must be an IP address")?,
    };
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err("must be the address of a single host");
    }
    Ok(address)
}

/// An address with its prefix length.
pub(crate) fn cidr(text: &str) -> Result<IpNetwork, &'static str> {
    const FORM: &str = "must be an IP address with prefix length, such as 10.0.0.2/24";
    // ipnetwork also takes a bare address or a netmask behind the slash.
    match text.split_once('/') {
        Some((_, length)) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().map_err(|_| FORM)
        }
        _ => Err(FORM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_read_in_both_forms() {
        assert_eq!(Mac::parse("02:00:00:Aa:bb:0c").unwrap().to_string(), "02:00:00:aa:bb:0c");
        assert_eq!(Mac::parse("02-00-00-aa-bb-0c").unwrap().to_string(), "02:00:00:aa:bb:0c");
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "2:0:0:0:0:1",
            "02:00:00:00:00:+1",
            "02:00:00:00:00:zz",
            "02:00-00:00:00:01",
            "01:00:00:00:00:01",
            "00:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
        ] {
            assert!(Mac::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_of_one_host_only() {
        for good in ["10.0.0.2", "10.0.0.2/24", "fd00::2", "fd00::2/64"] {
            assert!(plain_address(good).is_ok(), "{good}");
        }
        for bad in ["", "10.0.0", "10.0.0.2/33", "10.0.0.2/", "0.0.0.0", "224.0.0.1", "::1", "::", "ff02::1", "x"] {
            assert!(plain_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_length_is_a_number() {
        assert!(cidr("10.0.0.2/24").is_ok());
        for bad in ["10.0.0.2", "10.0.0.2/255.255.255.0", "10.0.0.2/+24", "10.0.0.2/", "fd00::/129", "/24"] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }
}
