//! The JSON form of protobuf messages (protobuf.dev, "ProtoJSON Format") as far as flows need it:
//! fields in the order of the .proto file, zero values left out, 64-bit integers as strings,
//! enums by name, timestamps in RFC 3339. Knows no message; those are in `flow_json`.

use prost_types::{Struct, Timestamp, Value, value::Kind};
use serde::{Serialize, Serializer, ser::SerializeMap};

/// A JSON value whose objects keep their order.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Json {
    Text(String),
    Number(u32),
    Signed(i32),
    Flag(bool),
    List(Vec<Json>),
    Object(Object),
    /// A google.protobuf.Struct, which has a form of its own.
    Struct(serde_json::Value),
}

/// The JSON that a google.protobuf.Struct stands for. Whole numbers up to 2^53 come without a
/// fraction, as every other writer of this form has them.
pub(crate) fn structure(Struct { fields }: Struct) -> serde_json::Value {
    fields.into_iter().map(|(name, value)| (name, dynamic(value))).collect::<serde_json::Map<_, _>>().into()
}

/// The JSON that a google.protobuf.Value stands for.
fn dynamic(Value { kind }: Value) -> serde_json::Value {
    const EXACT: f64 = (1u64 << 53) as f64;
    match kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(flag)) => flag.into(),
        Some(Kind::StringValue(text)) => text.into(),
        // In these bounds the cast is exact.
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() <= EXACT => (number as i64).into(),
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(dynamic).collect::<Vec<_>>().into(),
        Some(Kind::StructValue(object)) => structure(object),
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u32(*number),
            Self::Signed(number) => serializer.serialize_i32(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::List(list) => list.serialize(serializer),
            Self::Object(object) => object.serialize(serializer),
            Self::Struct(value) => value.serialize(serializer),
        }
    }
}

/// A JSON object, made field by field; a field with the zero value is not added.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Object(Vec<(&'static str, Json)>);

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Object {
    /// Without fields.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds what is there.
    fn with(mut self, name: &'static str, value: Option<Json>) -> Self {
        self.0.extend(value.map(|value| (name, value)));
        self
    }

    /// A string.
    pub(crate) fn text(self, name: &'static str, text: &str) -> Self {
        self.with(name, (!text.is_empty()).then(|| Json::Text(text.to_owned())))
    }

    /// Strings.
    pub(crate) fn texts(self, name: &'static str, texts: &[String]) -> Self {
        let list = || Json::List(texts.iter().cloned().map(Json::Text).collect());
        self.with(name, (!texts.is_empty()).then(list))
    }

    /// A 32-bit number.
    pub(crate) fn number(self, name: &'static str, number: u32) -> Self {
        self.with(name, (number != 0).then_some(Json::Number(number)))
    }

    /// A signed 32-bit number.
    pub(crate) fn signed(self, name: &'static str, number: i32) -> Self {
        self.with(name, (number != 0).then_some(Json::Signed(number)))
    }

    /// A 64-bit number.
    pub(crate) fn long(self, name: &'static str, number: u64) -> Self {
        self.with(name, (number != 0).then(|| Json::Text(number.to_string())))
    }

    /// A boolean.
    pub(crate) fn flag(self, name: &'static str, flag: bool) -> Self {
        self.with(name, flag.then_some(Json::Flag(true)))
    }

    /// A boolean that may be absent and is shown also when false (google.protobuf.BoolValue).
    pub(crate) fn wrapped_flag(self, name: &'static str, flag: Option<bool>) -> Self {
        self.with(name, flag.map(Json::Flag))
    }

    /// A number that may be absent and is shown also when zero (google.protobuf.Int32Value).
    pub(crate) fn wrapped_signed(self, name: &'static str, number: Option<i32>) -> Self {
        self.with(name, number.map(Json::Signed))
    }

    /// An enum: `known` is the name of its value, none if only the number is known.
    pub(crate) fn word(self, name: &'static str, number: i32, known: Option<&str>) -> Self {
        match known {
            Some(word) if number != 0 => self.text(name, word),
            _ => self.signed(name, number),
        }
    }

    /// A moment.
    pub(crate) fn time(self, name: &'static str, time: Option<&Timestamp>) -> Self {
        self.with(name, time.map(|time| Json::Text(time.to_string())))
    }

    /// A google.protobuf.Struct.
    pub(crate) fn structure(self, name: &'static str, message: Struct) -> Self {
        self.with(name, Some(Json::Struct(structure(message))))
    }

    /// A message.
    pub(crate) fn object<T>(self, name: &'static str, message: Option<&T>, form: impl Fn(&T) -> Object) -> Self {
        self.with(name, message.map(|message| Json::Object(form(message))))
    }

    /// Messages.
    pub(crate) fn objects<T>(self, name: &'static str, messages: &[T], form: impl Fn(&T) -> Object) -> Self {
        let list = || Json::List(messages.iter().map(|message| Json::Object(form(message))).collect());
        self.with(name, (!messages.is_empty()).then(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_are_left_out_and_order_is_kept() {
        let object = Object::new()
            .text("z", "last letter, first field")
            .text("empty", "")
            .number("zero", 0)
            .long("long", u64::MAX)
            .flag("no", false)
            .wrapped_flag("known_no", Some(false))
            .wrapped_flag("unknown", None)
            .word("enum", 2, Some("TWO"))
            .word("newer", 77, None)
            .word("unset", 0, Some("ZERO"))
            .time("time", Some(&Timestamp { seconds: 1_767_323_045, nanos: 120_000_000 }))
            .object("absent", None::<&()>, |()| Object::new())
            .object("present", Some(&()), |()| Object::new())
            .objects("list", &[1u32, 2], |number| Object::new().number("n", *number))
            .texts("none", &[]);
        assert_eq!(
            serde_json::to_string(&object).unwrap(),
            r#"{"z":"last letter, first field","long":"18446744073709551615","known_no":false,"enum":"TWO","newer":77,"#
                .to_owned() + r#""time":"2026-01-02T03:04:05.120Z","present":{},"list":[{"n":1},{"n":2}]}"#
        );
    }

    #[test]
    fn a_struct_is_the_json_it_stands_for() {
        let value = |kind| Value { kind: Some(kind) };
        let list = prost_types::ListValue {
            values: vec![value(Kind::NumberValue(3.0)), value(Kind::NumberValue(0.5)), value(Kind::NumberValue(1e300))],
        };
        let inner = Struct { fields: [("no".to_owned(), value(Kind::BoolValue(false)))].into() };
        let fields = [
            ("list".to_owned(), value(Kind::ListValue(list))),
            ("inner".to_owned(), value(Kind::StructValue(inner))),
            ("null".to_owned(), value(Kind::NullValue(0))),
            ("infinite".to_owned(), value(Kind::NumberValue(f64::INFINITY))),
            ("text".to_owned(), value(Kind::StringValue("x".to_owned()))),
        ];
        assert_eq!(
            serde_json::to_string(&structure(Struct { fields: fields.into() })).unwrap(),
            r#"{"infinite":null,"inner":{"no":false},"list":[3,0.5,1e+300],"null":null,"text":"x"}"#
        );
    }
}
