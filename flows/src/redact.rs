//! What records do not tell: values of labels and DNS names that somebody has asked to hide. It is taken out before there is a
//! record, so no reader, exporter or file can have it. Pure.

use std::{collections::BTreeMap, sync::Arc};

use dns::{Data, Outcome, Told};

use crate::filter::Glob;

/// What stands in its place.
pub const REDACTED: &str = "redacted";

/// What is hidden; by default nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Redaction {
    labels: Vec<Glob>,
    names: Vec<Glob>,
}

/// A pattern that can match nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{pattern:?} matches nothing: {why}")]
pub struct Useless {
    /// What was given.
    pub pattern: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Redaction {
    /// Hides the values of labels whose key, and DNS names that match one of these. `*` stands for any run of characters.
    ///
    /// # Errors
    /// A pattern that can match nothing: then what was meant to be hidden would be told.
    pub fn new(labels: &[String], names: &[String]) -> Result<Self, Useless> {
        let refuse = |pattern: &str, why| Err(Useless { pattern: pattern.to_owned(), why });
        for pattern in labels.iter().chain(names) {
            if pattern.is_empty() || pattern.chars().any(char::is_whitespace) {
                return refuse(pattern, "neither keys nor names are empty or have spaces");
            }
        }
        if let Some(pattern) = labels.iter().find(|it| it.contains(['=', ':'])) {
            return refuse(pattern, "give the label's key alone");
        }
        if let Some(pattern) = names.iter().find(|it| it.ends_with('.')) {
            return refuse(pattern, "names have no dot at their end");
        }
        let names = names.iter().map(|name| Glob::new(&name.to_ascii_lowercase())).collect();
        Ok(Self { labels: labels.iter().map(|key| Glob::new(key)).collect(), names })
    }

    /// The labels with what is hidden among them; the same map if that is nothing.
    pub fn labels(&self, labels: Arc<BTreeMap<String, String>>) -> Arc<BTreeMap<String, String>> {
        let hides = |key: &String| self.labels.iter().any(|glob| glob.matches(key));
        if !labels.keys().any(hides) {
            return labels;
        }
        let told = |(key, value): (&String, &String)| {
            (key.clone(), if hides(key) { REDACTED.to_owned() } else { value.clone() })
        };
        Arc::new(labels.iter().map(told).collect())
    }

    /// The name, or what stands in its place.
    pub fn name<'a>(&self, name: &'a str) -> &'a str {
        if self.names.iter().any(|glob| glob.matches(name)) { REDACTED } else { name }
    }

    /// A lookup with what is hidden of it: the name that was asked for, and what records say of it and of other such names.
    /// Addresses stay, they are in the flows that follow.
    pub fn lookup(&self, told: &mut Told) {
        let question = &mut told.lookup.question.name;
        let is_hidden = self.name(question) != &**question;
        if is_hidden {
            *question = REDACTED.into();
        }
        let Outcome::Answered(answer) = &mut told.lookup.outcome else { return };
        for record in &mut answer.records {
            let Data::Text(text) = &mut record.data else { continue };
            // All that is said of a hidden name; of another what names a hidden one, as `10 mail.example.` does (MX).
            let mut words = text.split_whitespace().map(|word| word.strip_suffix('.').unwrap_or(word));
            if is_hidden || words.any(|word| self.name(word) != word) {
                *text = REDACTED.into();
            }
        }
    }
}

#[cfg(test)]
mod tests;
