//! Typed reading of a JSON value that knows where it is, so that an error names the key.
//!
//! `null` reads as absent everywhere: Go runtimes write it for an empty slice or map.

use serde_json::{Map, Value};

/// A value and the path that leads to it, such as `args.cni.labels[2].key`.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    path: String,
    value: &'a Value,
}

/// A value of the wrong type.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{path}: expected {expected}, found {found}")]
pub(crate) struct TypeError {
    pub(crate) path: String,
    pub(crate) expected: &'static str,
    pub(crate) found: String,
}

impl<'a> Field<'a> {
    /// A value under a name.
    pub(crate) fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self { path: path.into(), value }
    }

    /// Where we are.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The value as the user wrote it, cut where it gets long.
    pub(crate) fn excerpt(&self) -> String {
        excerpt(self.value)
    }

    /// Whether it is `null`.
    pub(crate) fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// Whether there is nothing in it: `{}`, `[]`, `""`.
    pub(crate) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// The fields of an object.
    pub(crate) fn entries(&self) -> Result<Vec<(&'a str, Field<'a>)>, TypeError> {
        let map = self.map()?;
        Ok(map.iter().map(|(key, value)| (key.as_str(), Self::new(self.join(key), value))).collect())
    }

    /// A field of an object, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Field<'a>>, TypeError> {
        let value = self.map()?.get(key).filter(|v| !v.is_null());
        Ok(value.map(|value| Self::new(self.join(key), value)))
    }

    /// A field of an object read by `read`, unless it is absent or null.
    pub(crate) fn read<T, E: From<TypeError>>(
        &self,
        key: &str,
        read: impl FnOnce(&Field<'a>) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        self.get(key)?.map(|field| read(&field)).transpose()
    }

    /// The elements of an array.
    pub(crate) fn list(&self) -> Result<Vec<Field<'a>>, TypeError> {
        let list = self.value.as_array().ok_or_else(|| self.wrong("a list"))?;
        Ok(list.iter().enumerate().map(|(i, value)| Self::new(format!("{}[{i}]", self.path), value)).collect())
    }

    /// A string.
    pub(crate) fn str(&self) -> Result<&'a str, TypeError> {
        self.value.as_str().ok_or_else(|| self.wrong("a string"))
    }

    /// A string.
    pub(crate) fn string(&self) -> Result<String, TypeError> {
        self.str().map(str::to_owned)
    }

    /// A list of strings.
    pub(crate) fn strings(&self) -> Result<Vec<String>, TypeError> {
        self.list()?.iter().map(Field::string).collect()
    }

    /// True or false.
    pub(crate) fn bool(&self) -> Result<bool, TypeError> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// A whole number.
    pub(crate) fn i64(&self) -> Result<i64, TypeError> {
        self.value.as_i64().ok_or_else(|| self.wrong("a whole number"))
    }

    /// A whole number that fits 32 bits without sign.
    pub(crate) fn u32(&self) -> Result<u32, TypeError> {
        let number = self.value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.ok_or_else(|| self.wrong("a whole number from 0 to 4294967295"))
    }

    fn map(&self) -> Result<&'a Map<String, Value>, TypeError> {
        self.value.as_object().ok_or_else(|| self.wrong("an object"))
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn wrong(&self, expected: &'static str) -> TypeError {
        let path = if self.path.is_empty() { "network configuration".to_owned() } else { self.path.clone() };
        TypeError { path, expected, found: self.excerpt() }
    }
}

/// A value in one line of at most about 100 characters.
fn excerpt(value: &Value) -> String {
    const MOST: usize = 100;
    let text = value.to_string();
    if text.chars().count() <= MOST {
        return text;
    }
    text.chars().take(MOST).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_names_the_way_to_the_value() {
        let value = json!({"args": {"cni": {"labels": [{"key": "a"}, {"key": 7}]}}});
        let labels =
            Field::new("", &value).get("args").unwrap().unwrap().get("cni").unwrap().unwrap().get("labels").unwrap();
        let key = labels.unwrap().list().unwrap()[1].get("key").unwrap().unwrap();
        assert_eq!(key.str().unwrap_err().to_string(), "args.cni.labels[1].key: expected a string, found 7");
    }

    #[test]
    fn null_is_absent() {
        let value = json!({"dns": null});
        assert!(Field::new("", &value).get("dns").unwrap().is_none());
    }

    #[test]
    fn numbers_keep_to_their_range() {
        for (value, fits) in
            [(json!(0), true), (json!(4294967295_u64), true), (json!(4294967296_u64), false), (json!(-1), false)]
        {
            assert_eq!(Field::new("mtu", &value).u32().is_ok(), fits, "{value}");
        }
        assert!(Field::new("mtu", &json!(1.5)).u32().is_err());
        assert!(Field::new("mtu", &json!("9")).u32().is_err());
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let value = json!("ä".repeat(500));
        assert!(Field::new("x", &value).excerpt().chars().count() <= 103);
    }
}
