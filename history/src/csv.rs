//! Rows as CSV (RFC 4180) for spreadsheets and scripts: one line each, the columns' names in front. Lists are one
//! cell, their elements parted by `;`. Pure.

use crate::{
    cell::{Cell, Kind, Leaf, Shape},
    columns,
};

/// The line of names.
pub fn head() -> String {
    let names: Vec<&str> = columns::all().iter().map(|column| &*column.name).collect();
    names.join(",") + "\r\n"
}

/// A row's line.
pub fn line(cells: &[Cell<'_>]) -> String {
    let mut line = String::new();
    for (at, (column, cell)) in columns::all().iter().zip(cells).enumerate() {
        if at > 0 {
            line.push(',');
        }
        let text = match (column.kind, cell) {
            (_, Cell::Null) => continue,
            (Kind::One(leaf), cell) => text(leaf, cell),
            (Kind::Many(shape, fields), Cell::Many(parts)) => {
                let between = if shape == Shape::Map { "=" } else { "/" };
                let element = |part: &[Cell<'_>]| {
                    let parts: Vec<String> =
                        part.iter().zip(fields).map(|(cell, (_, leaf))| text(*leaf, cell)).collect();
                    parts.join(between)
                };
                parts.chunks(fields.len()).map(element).collect::<Vec<_>>().join(";")
            }
            (Kind::Many(..), _) => continue,
        };
        if text.contains([',', '"', '\r', '\n']) {
            line.push('"');
            line.push_str(&text.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(&text);
        }
    }
    line + "\r\n"
}

fn text(leaf: Leaf, cell: &Cell<'_>) -> String {
    match (leaf, cell) {
        (Leaf::Time, Cell::Number(ns)) => flows::observer::convert::timestamp(*ns).to_string(),
        (Leaf::Bool, Cell::Number(number)) => (*number != 0).to_string(),
        (_, Cell::Number(number)) => number.to_string(),
        (_, Cell::Text(text)) => text.to_string(),
        (_, Cell::Null | Cell::Many(_)) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_would_part_a_line_is_quoted() {
        let mut record = flows::fixture::record(&flows::fixture::opened());
        let mut pod = (**record.source.pod.as_ref().unwrap()).clone();
        pod.labels =
            std::collections::BTreeMap::from([("a".to_owned(), "x,\"y\"".to_owned()), ("b".to_owned(), String::new())])
                .into();
        record.source.pod = Some(Arc::new(pod));
        let line = line(&columns::row(&record));
        assert!(line.starts_with("2026-01-02T03:04:05Z,"), "{line}");
        assert!(line.contains(",\"a=x,\"\"y\"\";b=\","), "{line}");
        assert!(line.contains("NetworkPolicy/shop/db-clients/uid-db-clients/3"), "{line}");
        assert_eq!(head().matches(',').count(), columns::all().len() - 1);
    }
}
