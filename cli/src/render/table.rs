//! Tables for people: columns two spaces apart, no borders, nothing at the ends of lines, so
//! that `awk` and `cut` can read them as well. Never wrapped: a line is a record.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Width, presets};

use super::text::clean;

/// What a cell means, which decides its colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
    Faint,
    Title,
}

/// `text` in the colour of its tone. ANSI escape codes: ECMA-48, 8.3.117 (SGR).
pub(crate) fn paint(tone: Tone, text: &str, color: bool) -> String {
    let code = match tone {
        _ if !color => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
        Tone::Faint => "2",
        Tone::Title => "1",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// One cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Item {
    text: String,
    tone: Tone,
}

impl Item {
    /// Text with a meaning. Control characters are made visible.
    pub(crate) fn new(tone: Tone, text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()).into_owned(), tone }
    }
}

impl<T: AsRef<str>> From<T> for Item {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// Rows under a header.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<Item>>,
    indent: usize,
    right: Vec<usize>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(header: impl Into<Vec<&'static str>>) -> Self {
        Self { header: header.into(), rows: Vec::new(), indent: 0, right: Vec::new() }
    }

    /// The same, this many spaces from the left.
    pub(crate) fn indent(mut self, spaces: usize) -> Self {
        self.indent = spaces;
        self
    }

    /// The same, with these columns (from 0) aligned to the right: numbers.
    pub(crate) fn right(mut self, columns: impl Into<Vec<usize>>) -> Self {
        self.right = columns.into();
        self
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, row: impl Into<Vec<Item>>) {
        self.rows.push(row.into());
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As text, with a newline at the end.
    pub(crate) fn render(&self, color: bool) -> String {
        self.render_aligned(color, &mut Vec::new(), true)
    }

    /// As text, with columns at least as wide as `widths`, which grows: so that the parts of a
    /// stream stand under each other.
    pub(crate) fn render_aligned(&self, color: bool, widths: &mut Vec<u16>, with_header: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if with_header && !self.header.is_empty() {
            table.set_header(self.header.iter().map(|title| cell(title, Tone::Faint, color)));
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|item| cell(&item.text, item.tone, color)));
        }
        let mut content = table.column_max_content_widths();
        widths.resize(content.len().max(widths.len()), 0);
        for (wide, known) in content.iter_mut().zip(widths.iter_mut()) {
            *known = (*known).max(*wide);
            *wide = *known;
        }
        let last = content.len().saturating_sub(1);
        for (index, column) in table.column_iter_mut().enumerate() {
            let gap = if index == last { 0 } else { 2 };
            column.set_padding((0, gap)).set_constraint(ColumnConstraint::Absolute(Width::Fixed(content[index] + gap)));
            if self.right.contains(&index) {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        let mut text = String::new();
        for line in table.lines() {
            let line = line.trim_end();
            if !line.is_empty() {
                text.extend(std::iter::repeat_n(' ', self.indent));
            }
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// A cell, coloured by its tone.
fn cell(text: &str, tone: Tone, color: bool) -> Cell {
    let cell = Cell::new(text);
    match (color, tone) {
        (false, _) | (_, Tone::Plain) => cell,
        (_, Tone::Good) => cell.fg(comfy_table::Color::DarkGreen),
        (_, Tone::Warn) => cell.fg(comfy_table::Color::DarkYellow),
        (_, Tone::Bad) => cell.fg(comfy_table::Color::DarkRed),
        (_, Tone::Faint) => cell.add_attribute(comfy_table::Attribute::Dim),
        (_, Tone::Title) => cell.add_attribute(comfy_table::Attribute::Bold),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(["NAME", "USED", "WHAT"]).right([1]);
        table.row(["a".into(), "5".into(), Item::new(Tone::Bad, "x\u{1b}y")]);
        table.row(["longer".into(), "12345".into(), "".into()]);
        table
    }

    #[test]
    fn columns_stand_under_each_other_and_nothing_trails() {
        assert_eq!(sample().render(false), "NAME     USED  WHAT\na           5  x\\u{1b}y\nlonger  12345\n");
        assert_eq!(
            sample().indent(2).render(false),
            "  NAME     USED  WHAT\n  a           5  x\\u{1b}y\n  longer  12345\n"
        );
    }

    #[test]
    fn colour_changes_no_width() {
        let colored = sample().render(true);
        assert!(colored.contains("\u{1b}[38;5;1m"), "{colored:?}");
        let mut plain = String::new();
        let mut rest = colored.as_str();
        while let Some((before, after)) = rest.split_once("\u{1b}[") {
            plain.push_str(before);
            rest = after.split_once('m').expect("a sequence ends with m").1;
        }
        plain.push_str(rest);
        let trimmed: Vec<&str> = plain.lines().map(str::trim_end).collect();
        assert_eq!(trimmed.join("\n") + "\n", sample().render(false));
    }

    #[test]
    fn parts_of_a_stream_keep_the_widths_of_earlier_parts() {
        let mut widths = Vec::new();
        let first = sample().render_aligned(false, &mut widths, true);
        let mut next = Table::new(["NAME", "USED", "WHAT"]).right([1]);
        next.row(["b".into(), "6".into(), "z".into()]);
        let next = next.render_aligned(false, &mut widths, false);
        assert_eq!(next, "b           6  z\n");
        assert!(first.starts_with("NAME  "));
    }
}
