//! What somebody has asked, and what came of it.

use std::{fmt, net::IpAddr};

use domain::base::iana::{Class, OptRcode, Rtype};

/// Most records of an answer that are kept; the others are counted.
pub const MOST_RECORDS: usize = 16;
/// Most bytes of text in all records of an answer together.
pub const MOST_TEXT: usize = 512;

/// What was asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Question {
    /// Name in small letters without the last dot; whatever is not printable, and dots and backslashes within a label, as
    /// `\DDD` (RFC 1035, section 5.1). `.` is the root.
    pub name: Box<str>,
    /// Type, such as 1 for A.
    pub rtype: u16,
    /// Class, nearly always 1 for IN.
    pub class: u16,
}

/// One question of a pod, to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// What was asked.
    pub question: Question,
    /// The message's number.
    pub id: u16,
    /// How often it was asked.
    pub tries: u16,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// An answer.
    Answered(Answer),
    /// No answer in time.
    Unanswered,
    /// Nobody looked: there were too many open questions, or another one took its number.
    Unfollowed,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// From the first question to it, nanoseconds.
    pub latency_ns: u64,
    /// Response code, extended by EDNS where there is one.
    pub rcode: u16,
    /// Second word of the header: [`flag`] bits.
    pub flags: u16,
    /// Records of the answer section, as many as are kept.
    pub records: Box<[Record]>,
    /// How many the header announces.
    pub announced: u16,
    /// It could not be read to its end: it was too long, or is broken.
    pub cut: bool,
}

/// Bits of the header's second word (RFC 1035, section 4.1.1; RFC 4035).
pub mod flag {
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated: the rest is to be had over TCP.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;
    /// Recursion available.
    pub const RA: u16 = 0x0080;
    /// Authentic data.
    pub const AD: u16 = 0x0020;
    /// Checking disabled.
    pub const CD: u16 = 0x0010;
}

/// One record of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Type.
    pub rtype: u16,
    /// Class.
    pub class: u16,
    /// How long it may be kept, seconds.
    pub ttl_s: u32,
    /// What it says.
    pub data: Data,
}

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    /// A and AAAA.
    Address(IpAddr),
    /// Anything else as text without control characters; of a CNAME the name, as in [`Question::name`]. What could not be read or
    /// had no room is empty.
    Text(Box<str>),
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Data::Address(ip) => ip.fmt(f),
            Data::Text(text) => f.write_str(text),
        }
    }
}

impl Lookup {
    /// The answer, if one came.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Unanswered | Outcome::Unfollowed => None,
        }
    }
}

impl Answer {
    /// Addresses in it.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.records.iter().filter_map(|record| match record.data {
            Data::Address(ip) => Some(ip),
            Data::Text(_) => None,
        })
    }

    /// Names that stand for the one that was asked for.
    pub fn aliases(&self) -> impl Iterator<Item = &str> {
        self.records.iter().filter(|record| record.rtype == Rtype::CNAME.to_int()).filter_map(|record| {
            match &record.data {
                Data::Text(name) if !name.is_empty() => Some(&**name),
                Data::Text(_) | Data::Address(_) => None,
            }
        })
    }

    /// How long all of it may be kept, seconds; 0 if there is nothing in it.
    pub fn ttl_s(&self) -> u32 {
        self.records.iter().map(|record| record.ttl_s).min().unwrap_or_default()
    }
}

/// `A`, `TYPE65280`.
pub fn type_name(rtype: u16) -> String {
    Rtype::from_int(rtype).to_string()
}

/// `IN`, `CLASS42`.
pub fn class_name(class: u16) -> String {
    Class::from_int(class).to_string()
}

/// `NOERROR`, `NXDOMAIN`, or the number.
pub fn rcode_name(rcode: u16) -> String {
    OptRcode::masked_from_int(rcode).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_names_of_the_registry() {
        assert_eq!([1, 28, 5, 33, 65, 65280].map(type_name), ["A", "AAAA", "CNAME", "SRV", "HTTPS", "TYPE65280"]);
        assert_eq!([1, 3, 42].map(class_name), ["IN", "CH", "CLASS42"]);
        assert_eq!([0, 2, 3, 5, 16].map(rcode_name), ["NOERROR", "SERVFAIL", "NXDOMAIN", "REFUSED", "BADVERS"]);
    }
}
