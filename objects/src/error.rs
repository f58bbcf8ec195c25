//! What is wrong with a document, said so that its author can mend it: which file, document and
//! line, which object, which field, what is wrong with it and what to write instead.

use std::fmt;

use crate::path::{FieldPath, Quoted};

/// One thing that is wrong with one field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Problem {
    /// The field. The root when the document as a whole is meant.
    pub path: FieldPath,
    /// Line of the field in the file, from 1; 0 when it is not known.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Problem {
    pub fn new(path: &FieldPath, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { path: path.clone(), line: 0, what: what.into(), fix: fix.into() }
    }

    pub(crate) fn at_line(mut self, line: usize) -> Self {
        self.line = line;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.is_root(), self.line) {
            (true, 0) => {}
            (true, line) => write!(f, "line {line}: ")?,
            (false, 0) => write!(f, "{}: ", self.path)?,
            (false, line) => write!(f, "{} (line {line}): ", self.path)?,
        }
        write!(f, "{}; {}", self.what, self.fix)
    }
}

/// Name of an object as far as its document tells it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ObjectName {
    /// `kind`, or empty.
    pub kind: String,
    /// `metadata.namespace`, if it says one. Absent does not mean cluster-scoped.
    pub namespace: Option<String>,
    /// `metadata.name`, if it says one.
    pub name: Option<String>,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_presentable(&self.kind) {
            f.write_str(&self.kind)?;
        } else {
            write!(f, "{}", Quoted(&self.kind))?;
        }
        let mut lead = " ";
        for part in [&self.namespace, &self.name].into_iter().flatten() {
            f.write_str(lead)?;
            if is_presentable(part) {
                f.write_str(part)?;
            } else {
                write!(f, "{}", Quoted(part))?;
            }
            lead = "/";
        }
        if self.name.is_none() {
            f.write_str(" without a name")?;
        }
        Ok(())
    }
}

fn is_presentable(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// A document, or a file as a whole, that was refused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectError {
    /// Name of the file, as the caller gave it.
    pub source_name: String,
    /// Number of the document in the file, from 1; 0 when the file as a whole is meant.
    pub document: usize,
    /// Number of the element, from 1, when the document is a list.
    pub item: Option<usize>,
    /// Line where the document or element starts, from 1.
    pub line: usize,
    /// Which object, as far as the document tells.
    pub object: Option<ObjectName>,
    /// What is wrong; at least one.
    pub problems: Vec<Problem>,
}

impl ObjectError {
    /// One line per problem, each complete on its own.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let source = match self.source_name.contains(char::is_control) {
            true => Quoted(&self.source_name).to_string(),
            false => self.source_name.clone(),
        };
        self.problems.iter().map(move |problem| {
            let place = match (self.document, self.item) {
                (0, _) => source.clone(),
                (document, None) => format!("{source}, document {document} (line {})", self.line),
                (document, Some(item)) => {
                    format!("{source}, document {document}, item {item} (line {})", self.line)
                }
            };
            match &self.object {
                Some(object) => format!("{place}: {object}: {problem}"),
                None => format!("{place}: {problem}"),
            }
        })
    }
}

impl fmt::Display for ObjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, line) in self.lines().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for ObjectError {}
