//! The text of a file to the texts of its documents.
//!
//! Done before anything is parsed, so that an error in one document cannot swallow the next. A
//! line that begins with `---` or `...` ends a document wherever it stands: YAML allows neither
//! inside any kind of scalar (YAML 1.2.2, rule `c-forbidden`).

/// A part of a file that may hold a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chunk<'a> {
    /// Line of the file that `text` begins with, from 1.
    pub(crate) first_line: usize,
    /// Its text, from the separator on if there is one.
    pub(crate) text: &'a str,
}

impl Chunk<'_> {
    /// Line of the first thing in it that is neither blank nor comment; `None` if there is none.
    pub(crate) fn content_line(&self) -> Option<usize> {
        let mut lines = self.text.lines().enumerate();
        lines.find(|(_, line)| has_content(line)).map(|(index, _)| self.first_line + index)
    }
}

/// Cuts a file at its document separators; parts without content are left out.
pub(crate) fn split(text: &str) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = text;
    let mut line = 1;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let first_line = line;
        let mut length = 0;
        for (index, text_line) in rest.split_inclusive('\n').enumerate() {
            if index > 0 && is_marker(text_line, "---") {
                break;
            }
            length += text_line.len();
            line += 1;
            if is_marker(text_line, "...") {
                break;
            }
        }
        let (text, after) = rest.split_at(length);
        rest = after;
        Some(Chunk { first_line, text })
    })
    .filter(|chunk| chunk.content_line().is_some())
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    let line = match line.strip_prefix("---") {
        Some(rest) if is_marker(line, "---") => rest,
        _ => line,
    };
    if is_marker(line, "...") {
        return false;
    }
    let line = line.trim_matches([' ', '\t', '\r']);
    !line.is_empty() && !line.starts_with(['#', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, usize, &str)> {
        split(text).map(|chunk| (chunk.first_line, chunk.content_line().unwrap_or(0), chunk.text)).collect()
    }

    #[test]
    fn documents_are_cut_at_separators_and_empty_ones_left_out() {
        assert_eq!(lines("a: 1\n---\nb: 2\n"), [(1, 1, "a: 1\n"), (2, 3, "---\nb: 2\n")]);
        assert_eq!(lines("---\n# c\n---\n\n---\na: 1"), [(5, 6, "---\na: 1")]);
        assert_eq!(lines("%YAML 1.1\n---\na: 1\n...\n# end\n"), [(2, 3, "---\na: 1\n...\n")]);
        assert_eq!(lines("--- {a: 1}\n--- # c\r\nb: 2\r\n"), [(1, 1, "--- {a: 1}\n"), (2, 3, "--- # c\r\nb: 2\r\n")]);
        assert_eq!(lines("a: 1\n...\nb: 2"), [(1, 1, "a: 1\n...\n"), (3, 3, "b: 2")]);
        assert_eq!(lines("a: |\n ---\n  ---\n----\n"), [(1, 1, "a: |\n ---\n  ---\n----\n")]);
        assert_eq!(lines(""), []);
        assert_eq!(lines("\n\n# nothing\n---\n"), []);
    }
}
