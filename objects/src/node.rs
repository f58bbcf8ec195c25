//! A document as a tree in which every value knows its line: what YAML and JSON have in common.
//!
//! Here are also the limits that keep a hostile document small: how deep it nests, and how much
//! it may grow when aliases are replaced by what they stand for.

use std::rc::Rc;

use crate::path::{FieldPath, Segment};

/// Deepest nesting of lists and objects. The deepest Kubernetes type we read, a Pod with managed
/// fields, stays below 30.
pub(crate) const MAX_DEPTH: usize = 64;

/// A value and the line it starts on, from 1.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

/// What a value is. Scalars that are not text keep the text they were written as, for messages.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool, Rc<str>),
    Int(i64, Rc<str>),
    Float(f64, Rc<str>),
    Text(Rc<str>),
    List(Vec<Node>),
    Object(Vec<Entry>),
}

/// A key of an object with its value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Rc<str>,
    /// Line of the key, which for a nested value is not the line of the value.
    pub(crate) line: usize,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn new(line: usize, value: Value) -> Self {
        Self { line, value }
    }

    /// The value of a key, if this is an object that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Object(entries) => entries.iter().find(|entry| &*entry.key == key),
            _ => None,
        }
    }

    /// The text, if this is text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Line of the key or element a path leads to, or of the nearest one around it that exists.
    pub(crate) fn line_of(&self, path: &FieldPath) -> usize {
        let (mut node, mut line) = (self, self.line);
        for segment in path.segments() {
            let next = match (segment, &node.value) {
                (Segment::Key(key), _) => node.entry(key).map(|entry| (&entry.node, entry.line)),
                (Segment::Index(index), Value::List(items)) => items.get(*index).map(|item| (item, item.line)),
                (Segment::Index(_), _) => None,
            };
            match next {
                Some(found) => (node, line) = found,
                None => break,
            }
        }
        line
    }

    /// What this is, for a message.
    pub(crate) fn describe(&self) -> String {
        use crate::path::Quoted;
        match &self.value {
            Value::Null => "nothing (null)".to_owned(),
            Value::Bool(_, raw) => format!("the boolean {raw}"),
            Value::Int(_, raw) | Value::Float(_, raw) => format!("the number {raw}"),
            Value::Text(text) => format!("the text {}", Quoted(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        }
    }
}

/// How large a tree is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Weight {
    pub(crate) nodes: usize,
    pub(crate) bytes: usize,
}

impl Weight {
    pub(crate) fn add(self, other: Self) -> Self {
        Self { nodes: self.nodes.saturating_add(other.nodes), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// What a document may weigh once aliases are replaced: as much as text of its size could weigh
/// without any alias, and some more for small ones; but never more values than [`MAX_NODES`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    limit: Weight,
    used: Weight,
}

/// Nodes and bytes that even the smallest document may grow to.
const BUDGET_FLOOR: usize = 64 * 1024;

/// Values in one document, some 100 bytes of memory each. A list of 10,000 pods has about half
/// as many.
pub(crate) const MAX_NODES: usize = 1_000_000;

/// A document that outgrew its budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TooLarge {
    /// It has more than [`MAX_NODES`] values.
    Values,
    /// Only its aliases make it so large.
    Aliases,
}

impl Budget {
    pub(crate) fn for_text(bytes: usize) -> Self {
        let limit = bytes.saturating_mul(2).saturating_add(BUDGET_FLOOR);
        Self { limit: Weight { nodes: limit, bytes: limit }, used: Weight::default() }
    }

    /// Takes `weight` from what is left, if that is enough.
    pub(crate) fn take(&mut self, weight: Weight) -> Result<(), TooLarge> {
        self.used = self.used.add(weight);
        if self.used.nodes > self.limit.nodes || self.used.bytes > self.limit.bytes {
            Err(TooLarge::Aliases)
        } else if self.used.nodes > MAX_NODES {
            Err(TooLarge::Values)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_for_the_deepest_part_of_a_path_that_exists() {
        let leaf = Node::new(4, Value::Null);
        let list = Node::new(3, Value::List(vec![leaf]));
        let root = Node::new(1, Value::Object(vec![Entry { key: "a".into(), line: 2, node: list }]));
        let path = FieldPath::of(&["a"]);
        assert_eq!(root.line_of(&path), 2);
        assert_eq!(root.line_of(&path.index(0)), 4);
        assert_eq!(root.line_of(&path.index(0).key("missing")), 4);
        assert_eq!(root.line_of(&path.index(7)), 2);
    }

    #[test]
    fn a_budget_runs_out() {
        let mut budget = Budget::for_text(0);
        assert_eq!(budget.take(Weight { nodes: BUDGET_FLOOR, bytes: 0 }), Ok(()));
        assert_eq!(budget.take(Weight { nodes: 1, bytes: 0 }), Err(TooLarge::Aliases));
        let mut budget = Budget::for_text(MAX_NODES);
        assert_eq!(budget.take(Weight { nodes: MAX_NODES, bytes: MAX_NODES }), Ok(()));
        assert_eq!(budget.take(Weight { nodes: 1, bytes: 0 }), Err(TooLarge::Values));
    }
}
