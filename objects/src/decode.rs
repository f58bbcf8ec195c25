//! A [`Node`] tree to a Kubernetes type, with every deviation named by its path.
//!
//! A serde deserializer of our own, because it can do what a stock one cannot: a type tells it
//! which fields it has, so a field that it has not is refused with the nearest one as a hint, and
//! an error knows path and line.

use std::cell::RefCell;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
    value::StrDeserializer,
};

use crate::error::Problem;
use crate::nearest::nearest;
use crate::node::{Entry, Node, Value};
use crate::path::Quoted;

mod error;

use error::{DecodeError, Place};

/// Types whose unknown fields are passed over: what only the control plane writes, and newer
/// versions of it write more of, says nothing that we act upon.
const WRITTEN_BY_SERVER: [&str; 6] =
    ["ManagedFieldsEntry", "NamespaceStatus", "PodStatus", "ContainerStatus", "NodeStatus", "ServiceStatus"];

/// Reads `T`. All fields that `T` does not have are named, but only the first value of a wrong
/// type.
pub(crate) fn decode<T: DeserializeOwned>(node: &Node) -> Result<T, Vec<Problem>> {
    let unknown = RefCell::new(Vec::new());
    let result = T::deserialize(At { node, place: &Place::Root, unknown: Some(&unknown) });
    let mut problems = unknown.into_inner();
    match result {
        Ok(value) if problems.is_empty() => Ok(value),
        Ok(_) => Err(problems),
        Err(error) => {
            let problem = Problem::new(&error.path.unwrap_or_default(), error.what, error.fix);
            problems.push(problem);
            for problem in &mut problems {
                problem.line = node.line_of(&problem.path);
            }
            Err(problems)
        }
    }
}

/// A value at its place.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    place: &'a Place<'a>,
    /// Where unknown fields are reported; `None` inside what the control plane writes.
    unknown: Option<&'a RefCell<Vec<Problem>>>,
}

impl<'a> At<'a> {
    fn wrong_type(&self, expected: &str) -> DecodeError {
        let what = format!("expected {expected}, found {}", self.node.describe());
        DecodeError { path: Some(self.place.path()), what, fix: self.type_fix(expected) }
    }

    fn no_time(&self) -> DecodeError {
        let what = format!("expected a time, found {}", self.node.describe());
        DecodeError { path: Some(self.place.path()), what, fix: "write it like \"2026-01-31T12:00:00Z\"".to_owned() }
    }

    fn type_fix(&self, expected: &str) -> String {
        match &self.node.value {
            Value::Bool(_, raw) | Value::Int(_, raw) | Value::Float(_, raw) if expected == TEXT => {
                format!("put it in quotes: \"{raw}\"")
            }
            Value::Null if expected == TEXT => "write \"\" for empty text".to_owned(),
            Value::Null if expected == OBJECT => "write {} for an empty object".to_owned(),
            Value::Text(text) if expected == NUMBER && text.parse::<i64>().is_ok() => "remove the quotes".to_owned(),
            Value::Text(_) if expected == BOOLEAN => "write true or false, without quotes".to_owned(),
            Value::List(_) if expected == OBJECT => "remove the dash (or the brackets) in front of it".to_owned(),
            _ if expected == LIST => "put a dash in front of each element".to_owned(),
            _ => format!("write {expected}"),
        }
    }

    fn report_unknown(&self, name: &str, fields: &[&str], entries: &[Entry]) {
        let Some(unknown) = self.unknown else { return };
        // A NetworkPolicy had a status from Kubernetes 1.24 to 1.27, and dumps still carry it.
        let is_object = fields.contains(&"apiVersion") && fields.contains(&"metadata");
        for entry in entries {
            let key = &*entry.key;
            if fields.contains(&key) || (is_object && key == "status") {
                continue;
            }
            let what = match name {
                "" => format!("unknown field {}", Quoted(key)),
                name => format!("{name} has no field {}", Quoted(key)),
            };
            let fix = match nearest(key, fields.iter().copied()) {
                Some(field) => format!("did you mean {field}?"),
                None if fields.len() <= 8 => format!("it has {}", fields.join(", ")),
                None => "remove it, or check the indentation".to_owned(),
            };
            let path = self.place.path().key(key);
            unknown.borrow_mut().push(Problem::new(&path, what, fix).at_line(entry.line));
        }
    }
}

const TEXT: &str = "text";
const NUMBER: &str = "a whole number";
const BOOLEAN: &str = "true or false";
const LIST: &str = "a list";
const OBJECT: &str = "an object";

impl<'de> Deserializer<'de> for At<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value, _) => visitor.visit_bool(*value),
            Value::Int(value, _) => visitor.visit_i64(*value),
            Value::Float(value, _) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(_) => return self.deserialize_seq(visitor),
            Value::Object(_) => return self.deserialize_map(visitor),
        }
        .map_err(|error: DecodeError| error.at(self.place))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Bool(value, _) => visitor.visit_bool(*value).map_err(|error: DecodeError| error.at(self.place)),
            _ => Err(self.wrong_type(BOOLEAN)),
        }
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Int(value, _) => visitor.visit_i64(*value).map_err(|error: DecodeError| error.at(self.place)),
            _ => Err(self.wrong_type(NUMBER)),
        }
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Int(value, _) => visitor.visit_i64(*value).map_err(|error: DecodeError| error.at(self.place)),
            Value::Float(value, _) => visitor.visit_f64(*value).map_err(|error: DecodeError| error.at(self.place)),
            _ => Err(self.wrong_type("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_str(text).map_err(|error: DecodeError| error.at(self.place)),
            _ => Err(self.wrong_type(TEXT)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
        .map_err(|error| error.at(self.place))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self).map_err(|error| match name {
            "Time" | "MicroTime" => self.no_time(),
            _ => error.at(self.place),
        })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::List(items) => visitor
                .visit_seq(Items { at: self, items: items.iter().enumerate() })
                .map_err(|error| error.at(self.place)),
            _ => Err(self.wrong_type(LIST)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Object(entries) => visitor
                .visit_map(Fields { at: self, entries: entries.iter(), value: None })
                .map_err(|error| error.at(self.place)),
            _ => Err(self.wrong_type(OBJECT)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if WRITTEN_BY_SERVER.contains(&name) {
            self.unknown = None;
        }
        if let Value::Object(entries) = &self.node.value {
            self.report_unknown(name, fields, entries);
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.node.value {
            Value::Text(text) => {
                visitor.visit_enum((&**text).into_deserializer()).map_err(|error: DecodeError| error.at(self.place))
            }
            _ => Err(self.wrong_type(TEXT)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }
}

struct Items<'a> {
    at: At<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let place = Place::Index(self.at.place, index);
        seed.deserialize(At { node, place: &place, unknown: self.at.unknown }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'a> {
    at: At<'a>,
    entries: std::slice::Iter<'a, Entry>,
    value: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        let key: StrDeserializer<'_, DecodeError> = (&*entry.key).into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(self.at.place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let Some(entry) = self.value.take() else {
            return Err(DecodeError::custom("a value was asked for before its key"));
        };
        let place = Place::Key(self.at.place, &entry.key);
        seed.deserialize(At { node: &entry.node, place: &place, unknown: self.at.unknown })
    }
}
