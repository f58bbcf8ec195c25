//! Collects everything that is wrong with one object, so that its author mends it in one go.

use std::fmt;

use crate::error::Problem;
use crate::path::{FieldPath, Quoted};
use crate::syntax::Malformed;

/// Problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Problem>);

impl Findings {
    /// Adds a problem.
    pub(crate) fn add(&mut self, path: &FieldPath, what: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Problem::new(path, what, fix));
    }

    /// Adds a problem if a check of `value` found one; gives back what the check gave.
    pub(crate) fn check<T>(&mut self, path: &FieldPath, value: &str, result: Result<T, Malformed>) -> Option<T> {
        self.check_shown(path, Quoted(value), result)
    }

    /// The same for a value that is not text.
    pub(crate) fn check_shown<T>(
        &mut self,
        path: &FieldPath,
        value: impl fmt::Display,
        result: Result<T, Malformed>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Malformed { what, fix }) => {
                self.add(path, format!("{value} {what}"), fix);
                None
            }
        }
    }

    /// `value` if nothing is wrong.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<Problem>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            // A value is missing only when a problem says why.
            _ => Err(self.0),
        }
    }
}
