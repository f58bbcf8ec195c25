//! "Did you mean ...": the known key that lies nearest to an unknown one.

/// The nearest of `known`, where one is near enough to be a slip of the pen.
pub(super) fn nearest<'a>(key: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain_key = plain(key);
    known
        .into_iter()
        .map(|k| (distance(&plain_key, &plain(k)), k))
        .filter(|(d, k)| *d <= 1 + k.len() / 5)
        .min_by_key(|(d, _)| *d)
        .map(|(_, k)| k)
}

/// Without what different habits of spelling add: case, `_`, `-`. Cut, for keys are input.
fn plain(key: &str) -> Vec<char> {
    key.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).take(64).collect()
}

/// How many letters must be added, removed, changed or swapped with their neighbour (Damerau 1964, each
/// letter touched once).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut least = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == &b[j - 1] && y == &a[i - 1] {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["socket", "mtu", "timeoutSeconds", "stateDir", "cniVersion"];

    #[test]
    fn slips_are_recognised() {
        for (slip, meant) in [
            ("sockett", "socket"),
            ("MTU", "mtu"),
            ("mtus", "mtu"),
            ("mut", "mtu"),
            ("timeout_seconds", "timeoutSeconds"),
            ("timeoutSecond", "timeoutSeconds"),
            ("state-dir", "stateDir"),
            ("cniversion", "cniVersion"),
        ] {
            assert_eq!(nearest(slip, KNOWN), Some(meant), "{slip}");
        }
    }

    #[test]
    fn other_words_get_no_hint() {
        for other in ["bridge", "master", "subnet", "", "isGateway"] {
            assert_eq!(nearest(other, KNOWN), None, "{other}");
        }
    }

    #[test]
    fn distance_counts_edits() {
        let chars = |s: &str| s.chars().collect::<Vec<_>>();
        for (a, b, edits) in [
            ("", "", 0),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("ab", "ba", 1),
            ("mut", "mtu", 1),
        ] {
            assert_eq!(distance(&chars(a), &chars(b)), edits);
        }
    }
}
