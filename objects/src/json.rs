//! JSON text to [`Node`] trees: one value, or several in a row.
//!
//! `serde_json` does the reading. Lines come from counting line ends in what it has read so far,
//! which is exact for keys and elements because it reads no further than it must.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::node::{Budget, Entry, MAX_DEPTH, Node, Value, Weight};
use crate::yaml::{TextError, duplicate_key, too_deep, too_large};

/// A value that could not be read, and the line it starts on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BadValue {
    pub(crate) start: usize,
    pub(crate) error: TextError,
}

/// Reads all values in `text`, whose first line is line `first_line` of the file. What could be
/// read before an error is kept.
pub(crate) fn parse(text: &str, first_line: usize) -> (Vec<Node>, Option<BadValue>) {
    let line = Cell::new(first_line);
    let refused = RefCell::new(None);
    let budget = RefCell::new(Budget::for_text(text.len()));
    let mut reader = serde_json::Deserializer::from_reader(CountingReader { rest: text.as_bytes(), line: &line });
    let mut nodes = Vec::new();
    while reader.end().is_err() {
        let start = line.get();
        match (NodeSeed { line: &line, refused: &refused, budget: &budget, depth: 0 }).deserialize(&mut reader) {
            Ok(node) => nodes.push(node),
            Err(error) => {
                let error = refused.take().unwrap_or_else(|| syntax_error(&error, first_line));
                return (nodes, Some(BadValue { start, error }));
            }
        }
    }
    (nodes, None)
}

fn syntax_error(error: &serde_json::Error, first_line: usize) -> TextError {
    let message = error.to_string();
    let what = message.split(" at line ").next().unwrap_or_default();
    TextError::new(
        error.line().max(1) - 1 + first_line,
        format!("this is not JSON: {what}"),
        "look at the commas, the quotes and the brackets up to this line",
    )
}

struct CountingReader<'a> {
    rest: &'a [u8],
    line: &'a Cell<usize>,
}

impl Read for CountingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.rest.read(buffer)?;
        let line_ends = buffer[..count].iter().filter(|byte| **byte == b'\n').count();
        self.line.set(self.line.get() + line_ends);
        Ok(count)
    }
}

/// Builds a node from what the reader meets next. What serde's errors cannot carry (a line) is
/// left in `refused`.
#[derive(Clone, Copy)]
struct NodeSeed<'a> {
    line: &'a Cell<usize>,
    refused: &'a RefCell<Option<TextError>>,
    budget: &'a RefCell<Budget>,
    depth: usize,
}

impl NodeSeed<'_> {
    fn refuse<E: serde::de::Error>(&self, error: TextError) -> E {
        let message = E::custom(&error.what);
        *self.refused.borrow_mut() = Some(error);
        message
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(self.refuse(too_deep(self.line.get())));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let line = self.line.get();
        let taken = self.budget.borrow_mut().take(Weight { nodes: 1, bytes: 0 });
        taken.map_err(|reason| self.refuse::<D::Error>(too_large(reason, line)))?;
        deserializer.deserialize_any(self).map(|value| Node::new(line, value))
    }
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value, value.to_string().into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value, value.to_string().into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        let raw: Rc<str> = value.to_string().into();
        Ok(match i64::try_from(value) {
            Ok(value) => Value::Int(value, raw),
            Err(_) => Value::Float(value as f64, raw),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value, value.to_string().into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut items = Vec::new();
        while let Some(node) = access.next_element_seed(inner)? {
            items.push(node);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            let (key, line): (Rc<str>, _) = (key.into(), self.line.get());
            if !seen.insert(Rc::clone(&key)) {
                return Err(self.refuse(duplicate_key(&key, line)));
            }
            let node = access.next_value_seed(inner)?;
            entries.push(Entry { key, line, node });
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::FieldPath;

    #[test]
    fn every_value_knows_its_line() {
        let text = "\n{\n \"a\": [\n  1,\n  {\"b\":\n true}\n ]\n}\n{\"c\": 2}";
        let (nodes, error) = parse(text, 10);
        assert_eq!(error, None);
        assert_eq!(nodes.len(), 2);
        let a = FieldPath::of(&["a"]);
        assert_eq!((nodes[0].line, nodes[0].line_of(&a)), (11, 12));
        assert_eq!((nodes[0].line_of(&a.index(0)), nodes[0].line_of(&a.index(1))), (13, 14));
        assert_eq!(nodes[0].line_of(&a.index(1).key("b")), 14);
        assert_eq!(nodes[1].line_of(&FieldPath::of(&["c"])), 18);
    }

    #[test]
    fn what_was_read_before_an_error_is_kept() {
        let (nodes, error) = parse("{\"a\": 1}\n{\"b\": }", 1);
        assert_eq!(nodes.len(), 1);
        let BadValue { start, error } = error.expect("a syntax error");
        assert_eq!((start, error.line, error.what.as_str()), (2, 2, "this is not JSON: expected value"));
    }

    #[test]
    fn a_key_given_twice_and_deep_nesting_are_refused() {
        let (_, error) = parse("{\"a\": 1,\n\"a\": 2}", 1);
        assert_eq!(
            error.map(|bad| (bad.error.line, bad.error.what)),
            Some((2, "the key \"a\" is given twice".to_owned()))
        );
        let (_, error) = parse(&"[".repeat(100_000), 1);
        assert_eq!(error.map(|bad| bad.error.what), Some("nested deeper than 64 levels".to_owned()));
    }
}
