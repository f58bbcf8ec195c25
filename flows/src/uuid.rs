//! The stable name of a record: a version 7 UUID (RFC 9562, section 5.7) made from what the
//! record is, not from chance, so that sending a record twice gives it the same name.
//! Not a general UUID library.

use std::{fmt, str::FromStr};

/// A UUID, sixteen bytes in network order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// From a time, a number that tells this node and start of the daemon from others, and the
    /// record's number.
    ///
    /// 48 bits of milliseconds and 12 bits of the rest of the millisecond keep the order of
    /// time; 30 bits of `salt` and the low 32 bits of `sequence` make it unique.
    pub fn new(time_unix_ns: u64, salt: u64, sequence: u64) -> Self {
        let millis = time_unix_ns / 1_000_000;
        let fraction = (time_unix_ns % 1_000_000) * 4096 / 1_000_000;
        let high = millis << 16 | 0x7 << 12 | fraction;
        let low = 0b10 << 62 | (mix(salt) & 0x3fff_ffff) << 32 | (sequence & 0xffff_ffff);
        Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// The sixteen bytes in network order.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Spreads every bit of `value` over the whole word (finaliser of SplitMix64, Steele et al., 2014).
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a UUID: want 32 hexadecimal digits in groups of 8-4-4-4-12")]
pub struct ParseUuidError;

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 {
            return Err(ParseUuidError);
        }
        let mut value = 0u128;
        for (index, &byte) in bytes.iter().enumerate() {
            match (index, byte) {
                (8 | 13 | 18 | 23, b'-') => {}
                (8 | 13 | 18 | 23, _) => return Err(ParseUuidError),
                (_, byte) => {
                    let digit = char::from(byte).to_digit(16).ok_or(ParseUuidError)?;
                    value = value << 4 | u128::from(digit);
                }
            }
        }
        Ok(Self(value.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02T03:04:05.678901234Z.
    const TIME_NS: u64 = 1_767_323_045_678_901_234;

    #[test]
    fn the_text_has_version_7_and_the_time_in_front() {
        let text = Uuid::new(TIME_NS, 1, 42).to_string();
        let millis = u64::from_str_radix(&text[..13].replace('-', ""), 16).unwrap();
        assert_eq!(millis, TIME_NS / 1_000_000);
        assert_eq!(&text[14..15], "7");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
    }

    #[test]
    fn the_same_record_has_the_same_name_and_others_do_not() {
        let one = Uuid::new(TIME_NS, 1, 42);
        assert_eq!(one, Uuid::new(TIME_NS, 1, 42));
        assert_ne!(one, Uuid::new(TIME_NS, 1, 43));
        assert_ne!(one, Uuid::new(TIME_NS, 2, 42));
        assert!(one < Uuid::new(TIME_NS + 1_000, 0, 0));
    }

    #[test]
    fn text_and_bytes_are_the_same_thing() {
        let one = Uuid::new(TIME_NS, 7, 9);
        assert_eq!(one.to_string().parse(), Ok(one));
        assert_eq!(one.to_string().to_uppercase().parse(), Ok(one));
        for bad in ["", "x", &"0".repeat(36), &one.to_string()[1..], "0000000g-0000-7000-8000-000000000000"] {
            assert_eq!(bad.parse::<Uuid>(), Err(ParseUuidError), "{bad}");
        }
    }
}
