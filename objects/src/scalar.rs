//! What an unquoted YAML scalar means.
//!
//! Kubernetes' own tools read YAML 1.1: `yes` is a boolean, `0644` is octal, `1_000` is a number.
//! We read the same, so that a file means here what it means there, and a value that only looks
//! like text is refused in a text field instead of being taken for something else.

use std::rc::Rc;

use crate::node::Value;

/// Reads a plain (unquoted, untagged) scalar.
pub(crate) fn plain(raw: &str) -> Value {
    match raw {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            return Value::Bool(true, raw.into());
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            return Value::Bool(false, raw.into());
        }
        _ => {}
    }
    let text: Rc<str> = raw.into();
    if let Some(number) = integer(raw) {
        return Value::Int(number, text);
    }
    if let Some(number) = float(raw) {
        return Value::Float(number, text);
    }
    Value::Text(text)
}

fn integer(raw: &str) -> Option<i64> {
    let (sign, digits) = match raw.as_bytes().first()? {
        b'-' => (-1, &raw[1..]),
        b'+' => (1, &raw[1..]),
        b'0'..=b'9' => (1, raw),
        _ => return None,
    };
    if !digits.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let digits = digits.replace('_', "");
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits.as_str()),
    };
    // `from_str_radix` would take a second sign.
    if digits.starts_with(['-', '+']) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(sign * magnitude).ok()
}

fn float(raw: &str) -> Option<f64> {
    match raw {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // Rust also reads "inf", "nan" and "infinity", which YAML takes for text.
    let numeric = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E');
    let raw = raw.replace('_', "");
    if !raw.bytes().all(numeric) || !raw.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    raw.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_kubernetes_takes_them_for() {
        for (raw, expected) in [
            ("0", 0),
            ("80", 80),
            ("-1", -1),
            ("+7", 7),
            ("0644", 420),
            ("0x1F", 31),
            ("0o17", 15),
            ("0b101", 5),
            ("1_000", 1000),
            ("-0x10", -16),
        ] {
            assert_eq!(plain(raw), Value::Int(expected, raw.into()), "{raw}");
        }
        for raw in ["080", "1.5", "1e3", "-.5", "99999999999999999999", "1_0.5"] {
            assert!(matches!(plain(raw), Value::Float(..)), "{raw}");
        }
        for raw in [
            "web",
            "1.2.3.4",
            "10.0.0.0/8",
            "0x",
            "-",
            "+",
            "--1",
            "0x-1",
            "inf",
            "nan",
            ".",
            "2001-01-01",
            "e1",
            "_",
            "1_a",
        ] {
            assert!(matches!(plain(raw), Value::Text(_)), "{raw}: {:?}", plain(raw));
        }
        for raw in ["yes", "on", "True", "y"] {
            assert!(matches!(plain(raw), Value::Bool(true, _)), "{raw}");
        }
        for raw in ["", "~", "null"] {
            assert_eq!(plain(raw), Value::Null, "{raw}");
        }
    }
}
