//! Small pieces of text: durations, counts, and words of strangers made safe for a terminal.

use std::borrow::Cow;

/// `text` with control characters made visible. Names and messages come from YAML that anybody
/// may have written; an escape sequence in them must not reach the terminal.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars().map(|c| if is_unsafe(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect(),
    )
}

/// Control characters, and those that turn the direction of text around (Unicode TR36, 2.6).
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A duration by its two greatest units: `45s`, `12m5s`, `3h12m`, `4d3h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// `1 pod`, `2 pods`. `noun` makes its plural with an s, or as given behind a slash:
/// `policy/policies`.
pub(crate) fn count(number: impl Into<u64>, noun: &str) -> String {
    let number = number.into();
    let (one, many) = noun.split_once('/').map_or((noun, None), |(one, many)| (one, Some(many)));
    match (number, many) {
        (1, _) => format!("1 {one}"),
        (_, Some(many)) => format!("{number} {many}"),
        (_, None) => format!("{number} {one}s"),
    }
}

/// A share in percent, without decimals, rounded down; `<1%` for what is there but little.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match (u128::from(part) * 100).checked_div(u128::from(whole)) {
        None => "-".to_owned(),
        Some(0) if part > 0 => "<1%".to_owned(),
        Some(percent) => format!("{percent}%"),
    }
}

/// A number of bytes by its greatest unit (IEC 80000-13), with one digit behind the point.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (u64::BITS - 1 - bytes.leading_zeros()) / 10;
    let power = power.min(UNITS.len() as u32);
    let tenths = u128::from(bytes) * 10 / (1 << (10 * power));
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power as usize - 1])
}

/// `text`, or a dash if there is none.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(clean("plain, ünïcode"), "plain, ünïcode");
        assert_eq!(clean("a\u{1b}[31mb\nc\u{202e}d"), "a\\u{1b}[31mb\\u{a}c\\u{202e}d");
    }

    #[test]
    fn durations_show_two_units() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m0s"), (725, "12m5s"), (11_520, "3h12m"), (356_400, "4d3h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn counts_have_their_plural() {
        assert_eq!(count(1u32, "policy/policies"), "1 policy");
        assert_eq!(count(0u32, "policy/policies"), "0 policies");
        assert_eq!(count(2u64, "pod"), "2 pods");
    }

    #[test]
    fn percent_never_shows_something_as_nothing() {
        for (part, whole, text) in
            [(0, 0, "-"), (0, 9, "0%"), (1, 1000, "<1%"), (999, 1000, "99%"), (u64::MAX, u64::MAX, "100%")]
        {
            assert_eq!(percent(part, whole), text);
        }
    }
}
