//! Protocols and ranges of ports.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A protocol that NetworkPolicy can name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Protocol {
    /// TCP, also when a rule names none (API: "If not specified, this field defaults to TCP").
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// From an IANA protocol number; `None` for the many that no rule can name.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == text)
            .ok_or_else(|| UnknownProtocol { text: text.to_owned() })
    }
}

/// A protocol that NetworkPolicy does not have.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("unknown protocol {text:?}: use TCP, UDP or SCTP")]
pub struct UnknownProtocol {
    /// What was written.
    pub text: String,
}

/// Ports from one number to another, both included. Prints as `80`, `80-90` or `*`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortRange {
    from: u16,
    to: u16,
}

impl PortRange {
    /// Every port of a protocol.
    pub const ALL: Self = Self { from: 0, to: u16::MAX };

    /// One port.
    pub const fn single(port: u16) -> Self {
        Self { from: port, to: port }
    }

    /// From `from` to `to`, both included.
    ///
    /// # Errors
    ///
    /// When `to` is below `from`.
    pub const fn new(from: u16, to: u16) -> Result<Self, PortRangeError> {
        if to < from { Err(PortRangeError { from, to }) } else { Ok(Self { from, to }) }
    }

    /// First port.
    pub const fn from(self) -> u16 {
        self.from
    }

    /// Last port.
    pub const fn to(self) -> u16 {
        self.to
    }

    /// Whether `port` lies in it.
    pub const fn contains(self, port: u16) -> bool {
        self.from <= port && port <= self.to
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("*"),
            Self { from, to } if from == to => write!(f, "{from}"),
            Self { from, to } => write!(f, "{from}-{to}"),
        }
    }
}

/// A range that ends before it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("port range {from}-{to} ends before it begins")]
pub struct PortRangeError {
    /// First port.
    pub from: u16,
    /// Last port.
    pub to: u16,
}
