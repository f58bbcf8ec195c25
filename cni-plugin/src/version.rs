//! The versions of the CNI specification that this plugin speaks.
//!
//! What differs between them: the shape of a result (`result`), and since when a command exists.
//! Source: CNI SPEC.md and spec-upgrades.md of 1.1.0.

use std::fmt;

/// A version of the specification, ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// One address per family, under `ip4` and `ip6`.
    V0_1_0,
    /// The same shape.
    V0_2_0,
    /// Interfaces, and a list of addresses with their IP version.
    V0_3_0,
    /// The same shape.
    V0_3_1,
    /// CHECK; `prevResult` on DEL.
    V0_4_0,
    /// Addresses lose their IP version.
    V1_0_0,
    /// GC, STATUS; more fields in interfaces and routes.
    V1_1_0,
}

impl Version {
    /// All of them, oldest first.
    pub(crate) const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest.
    pub(crate) const CURRENT: Self = Self::V1_1_0;

    /// What a configuration without `cniVersion` means, as CNI's own dispatcher reads it.
    pub(crate) const UNSTATED: Self = Self::V0_1_0;

    /// The version of this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == text)
    }

    /// Its name in `cniVersion`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// All names, for messages.
    pub(crate) fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_rise() {
        for pair in Version::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
        }
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
        for unknown in ["", "1.1", "1.1.0 ", "v1.1.0", "1.2.0", "0.0.1"] {
            assert_eq!(Version::parse(unknown), None);
        }
    }
}
