//! Ethernet addresses of interfaces: their text and what they can be. Pure; `net` makes random ones.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// An Ethernet address of six bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// Text that is no Ethernet address for an interface.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six pairs of hexadecimal digits.
    #[error("{0:?} is no MAC address: write six pairs of hexadecimal digits, as in 02:00:00:00:00:01")]
    Form(String),
    /// A group address, or all zeroes: no interface can have it.
    #[error("MAC address {0} cannot be an interface's: its first octet must be even, and not all may be zero")]
    NotUnicast(String),
}

impl Mac {
    /// A locally administered unicast address (IEEE 802-2014, section 8.2) of these bits.
    pub fn local(mut bits: [u8; 6]) -> Self {
        bits[0] = bits[0] & 0xfc | 0x02;
        Self(bits)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(form)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(form());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        if parts.next().is_some() {
            return Err(form());
        }
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(MacError::NotUnicast(text.to_owned()));
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_there_and_back() {
        let mac: Mac = "02:B0:1c:4e:ad:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:b0:1c:4e:ad:01");
        assert_eq!(mac.to_string().parse::<Mac>(), Ok(mac));
    }

    #[test]
    fn what_no_interface_can_have_is_refused() {
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "0x:00:00:00:00:01", "2:0:0:0:0:1", "+2:00:00:00:00:01"]
        {
            assert_eq!(text.parse::<Mac>(), Err(MacError::Form(text.to_owned())));
        }
        for text in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"] {
            assert_eq!(text.parse::<Mac>(), Err(MacError::NotUnicast(text.to_owned())));
        }
    }

    #[test]
    fn local_ones_are_unicast_whatever_the_bits() {
        for first in 0..=255 {
            let mac = Mac::local([first, 1, 2, 3, 4, 5]);
            assert_eq!((mac.0[0] & 0b11, mac.0[0] & 0xfc), (0b10, first & 0xfc), "{mac}");
        }
    }
}
