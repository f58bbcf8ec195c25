//! Where in an object something is: `spec.ingress[0].ports[1].endPort`.
//!
//! Paths name fields as the Kubernetes API does. A key that is not a plain word, as most label
//! keys are not, is written in brackets and quotes: `metadata.labels["app.kubernetes.io/name"]`.

use std::fmt;

/// One step into an object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Segment {
    /// A field, or a key of a map.
    Key(String),
    /// An element of a list, from 0.
    Index(usize),
}

/// The way from the object to a value in it. Empty: the object itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FieldPath(Vec<Segment>);

impl FieldPath {
    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// From names of fields, outermost first.
    pub fn of(fields: &[&str]) -> Self {
        Self(fields.iter().map(|field| Segment::Key((*field).to_owned())).collect())
    }

    /// This path and then a field or key.
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        let mut segments = self.0.clone();
        segments.push(Segment::Key(name.to_owned()));
        Self(segments)
    }

    /// This path and then an element.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut segments = self.0.clone();
        segments.push(Segment::Index(index));
        Self(segments)
    }

    /// The steps, outermost first.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether this is the object itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Segment> for FieldPath {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        Self(segments.into_iter().collect())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if is_plain_word(key) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(key)?;
                }
                Segment::Key(key) => write!(f, "[{}]", Quoted(key))?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain_word(key: &str) -> bool {
    !key.is_empty() && key.len() <= 80 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Text from the input as it may stand in a message: quoted, control characters escaped, and
/// cut when it is long, so that hostile input can neither forge a line nor flood a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

/// Characters of the input that a message repeats at most.
const QUOTED_CHARS: usize = 80;

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars().take(QUOTED_CHARS) {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                c if c.is_control() || is_invisible(c) => write!(f, "{}", c.escape_unicode())?,
                c => write!(f, "{c}")?,
            }
        }
        if self.0.chars().nth(QUOTED_CHARS).is_some() {
            f.write_str("...")?;
        }
        f.write_str("\"")
    }
}

/// Characters that change how a line reads without being seen: bidirectional controls and
/// zero-width ones.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_the_api_writes_it() {
        let ports = FieldPath::of(&["spec", "ingress"]).index(0).key("ports").index(1);
        assert_eq!(ports.key("endPort").to_string(), "spec.ingress[0].ports[1].endPort");
        let labels = FieldPath::of(&["metadata", "labels"]);
        assert_eq!(labels.key("app").to_string(), "metadata.labels.app");
        assert_eq!(labels.key("a.b/c").to_string(), "metadata.labels[\"a.b/c\"]");
        assert_eq!(FieldPath::root().index(3).to_string(), "[3]");
    }

    #[test]
    fn quoted_text_cannot_forge_a_line() {
        assert_eq!(Quoted("a\nb\"\u{202e}").to_string(), "\"a\\u{a}b\\\"\\u{202e}\"");
        assert_eq!(Quoted(&"x".repeat(200)).to_string().len(), QUOTED_CHARS + 5);
    }
}
