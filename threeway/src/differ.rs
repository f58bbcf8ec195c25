//! A difference between the three sides, and who stands alone.

use std::fmt;

/// Who says something that the other two do not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Alone {
    /// The reading of the API's text.
    Oracle,
    /// Compile, lower and the model of the maps.
    Paper,
    /// The daemon's planner, the maps, the programs.
    Kernel,
    /// Each says something else.
    Everybody,
    /// Both readings agree about the verdict, and the kernel is not where conntrack's model is.
    Conntrack,
    /// The check itself could not go on.
    Check,
}

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Oracle => "the oracle stands alone: compiled rules and the kernel agree against the API's text",
            Self::Paper => "the rules on paper stand alone: the API's text and the kernel agree against them",
            Self::Kernel => "the kernel stands alone: the API's text and the rules on paper agree against it",
            Self::Everybody => "all three say something else",
            Self::Conntrack => "the verdicts agree; the kernel's connection is not what it should be",
            Self::Check => "the check could not go on",
        })
    }
}

/// A packet about which the sides do not agree.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The step of the scenario.
    pub step: usize,
    /// Who stands alone.
    pub alone: Alone,
    /// What each side says, and why.
    pub text: String,
}
