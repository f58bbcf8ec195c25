//! What stands in one column of one row, and what kinds of columns there are. Pure.

use std::borrow::Cow;

/// A value. What has no value is [`Cell::Null`].
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Cell<'a> {
    /// None.
    #[default]
    Null,
    /// Of every kind of number; a truth is 0 or 1.
    Number(u64),
    /// Text.
    Text(Cow<'a, str>),
    /// The fields of all elements, one element after the other: [`Kind::Many`] says how many make one.
    Many(Vec<Cell<'a>>),
}

impl Cell<'_> {
    /// `text`, or nothing if it is empty.
    pub fn filled(text: &str) -> Cell<'_> {
        if text.is_empty() { Cell::Null } else { Cell::text(text) }
    }

    /// `text`, also if it is empty.
    pub fn text(text: &str) -> Cell<'_> {
        Cell::Text(Cow::Borrowed(text))
    }

    /// A number of any size.
    pub fn number(number: impl Into<u64>) -> Self {
        Cell::Number(number.into())
    }

    /// The number, if it is one.
    pub fn as_number(&self) -> Option<u64> {
        match self {
            Cell::Number(number) => Some(*number),
            Cell::Null | Cell::Text(_) | Cell::Many(_) => None,
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => Some(text),
            Cell::Null | Cell::Number(_) | Cell::Many(_) => None,
        }
    }
}

/// Kind of a single value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaf {
    /// Yes or no.
    Bool,
    /// Unsigned, of so many bits: 8, 16, 32 or 64.
    Uint(u8),
    /// Nanoseconds since 1970, UTC.
    Time,
    /// UTF-8.
    Text,
}

/// What the elements of a column of many are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Single values; one field without a name.
    List,
    /// Keys and values; two fields.
    Map,
    /// Structs with these fields.
    Structs,
}

/// Kind of a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One value or none.
    One(Leaf),
    /// Any number of elements with these fields, each of which always has a value.
    Many(Shape, &'static [(&'static str, Leaf)]),
}

impl Kind {
    /// Values in one element.
    pub fn arity(self) -> usize {
        match self {
            Kind::One(_) => 1,
            Kind::Many(_, fields) => fields.len(),
        }
    }

    /// Its name in the documentation, which is DuckDB's for the type.
    pub fn name(self) -> String {
        let leaf = |leaf| match leaf {
            Leaf::Bool => "BOOLEAN".to_owned(),
            Leaf::Uint(8) => "UTINYINT".to_owned(),
            Leaf::Uint(16) => "USMALLINT".to_owned(),
            Leaf::Uint(32) => "UINTEGER".to_owned(),
            Leaf::Uint(_) => "UBIGINT".to_owned(),
            Leaf::Time => "TIMESTAMP (ns, UTC)".to_owned(),
            Leaf::Text => "VARCHAR".to_owned(),
        };
        match self {
            Kind::One(one) => leaf(one),
            Kind::Many(Shape::List, fields) => fields.iter().map(|(_, one)| format!("{}[]", leaf(*one))).collect(),
            Kind::Many(Shape::Map, fields) => {
                let parts: Vec<String> = fields.iter().map(|(_, one)| leaf(*one)).collect();
                format!("MAP({})", parts.join(", "))
            }
            Kind::Many(Shape::Structs, fields) => {
                let parts: Vec<String> = fields.iter().map(|(name, one)| format!("{name} {}", leaf(*one))).collect();
                format!("STRUCT({})[]", parts.join(", "))
            }
        }
    }
}
