//! Where decoding is, and what it says when it cannot go on. serde's own words for types are put
//! into words for people who write manifests.

use std::fmt;

use serde::de::Unexpected;

use crate::path::{FieldPath, Quoted, Segment};

/// The way from the document to a value, as a chain of borrowed steps: nothing is allocated
/// unless something is wrong.
pub(super) enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl Place<'_> {
    pub(super) fn path(&self) -> FieldPath {
        let mut segments = Vec::new();
        let mut place = self;
        loop {
            place = match place {
                Place::Root => break,
                Place::Key(parent, key) => {
                    segments.push(Segment::Key((*key).to_owned()));
                    parent
                }
                Place::Index(parent, index) => {
                    segments.push(Segment::Index(*index));
                    parent
                }
            };
        }
        segments.into_iter().rev().collect()
    }
}

#[derive(Debug)]
pub(super) struct DecodeError {
    pub(super) path: Option<FieldPath>,
    pub(super) what: String,
    pub(super) fix: String,
}

impl DecodeError {
    pub(super) fn at(mut self, place: &Place<'_>) -> Self {
        self.path.get_or_insert_with(|| place.path());
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: None, what: message.to_string(), fix: "correct the value".to_owned() }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        let expected = plain_name(expected);
        let what = format!("expected {expected}, found {}", plain_value(unexpected));
        Self { path: None, what, fix: format!("write {expected}") }
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        let expected = plain_name(expected);
        let what = format!("{} is not {expected}", plain_value(unexpected));
        Self { path: None, what, fix: format!("write {expected}") }
    }
}

/// What types call what they expect, in words for people who do not know Rust.
fn plain_name(expected: &dyn serde::de::Expected) -> String {
    match expected.to_string().as_str() {
        "IntOrString" => "a whole number or a name".to_owned(),
        "i32" | "a 32-bit integer" => format!("a whole number from {} to {}", i32::MIN, i32::MAX),
        other => other.to_owned(),
    }
}

fn plain_value(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Bool(value) => format!("the boolean {value}"),
        Unexpected::Str(text) => format!("the text {}", Quoted(text)),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        Unexpected::Unit | Unexpected::Option => "nothing (null)".to_owned(),
        other => other.to_string(),
    }
}
