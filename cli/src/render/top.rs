//! A summary of flows for people.

use std::io;

use super::{
    out::Out,
    table::{Item, Table, Tone},
    text::{count, or_dash, size},
};
use crate::view::top::{Row, Summary, Sums};

/// What a row of zero stands for is left out.
fn number(number: u64) -> String {
    if number == 0 { "-".to_owned() } else { number.to_string() }
}

/// The columns of numbers.
fn numbers(sums: &Sums) -> [Item; 4] {
    let tone = if sums.denied > 0 { Tone::Bad } else { Tone::Plain };
    [
        Item::from(number(sums.connections)),
        Item::new(tone, number(sums.denied)),
        Item::from(number(sums.packets)),
        Item::from(if sums.bytes == 0 { "-".to_owned() } else { size(sums.bytes) }),
    ]
}

/// To the second: `2026-01-02T03:04:05Z`.
fn second(time: Option<&str>) -> String {
    let text = time.unwrap_or_default();
    match text.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => or_dash(text),
    }
}

fn port(row: &Row) -> String {
    if row.port == 0 { row.protocol.clone() } else { format!("{}/{}", row.port, row.protocol) }
}

/// As text; all of a terminal's lines if it is shown again and again.
pub(crate) fn text(summary: &Summary, color: bool) -> String {
    let Summary { top, rows, more, others, total, flows, lost, since, until, by: _ } = summary;
    let last = |row: &Row| Item::new(Tone::Faint, second(row.last_seen.as_deref()));
    let mut table = match top.as_str() {
        "denied" => Table::new(["FROM", "TO", "PORT", "DENIED", "WHY", "LAST SEEN (UTC)"]).right([3]),
        "ports" => Table::new(["PORT", "OF", "CONNECTIONS", "DENIED", "PACKETS", "BYTES", "LAST SEEN (UTC)"])
            .right([2, 3, 4, 5]),
        _ => Table::new(["FROM", "TO", "CONNECTIONS", "DENIED", "PACKETS", "BYTES", "LAST SEEN (UTC)"])
            .right([2, 3, 4, 5]),
    };
    for row in rows {
        let [connections, denied, packets, bytes] = numbers(&row.sums);
        match top.as_str() {
            "denied" => table.row([
                Item::from(&row.source),
                Item::from(&row.destination),
                Item::from(port(row)),
                denied,
                Item::from(row.reason.replace('_', " ")),
                last(row),
            ]),
            "ports" => table.row([
                Item::from(port(row)),
                Item::from(&row.destination),
                connections,
                denied,
                packets,
                bytes,
                last(row),
            ]),
            _ => table.row([
                Item::from(&row.source),
                Item::from(&row.destination),
                connections,
                denied,
                packets,
                bytes,
                last(row),
            ]),
        }
    }
    let mut text = if table.is_empty() { String::new() } else { table.render(color) + "\n" };
    if *more > 0 {
        let Sums { connections, denied, bytes, .. } = others;
        text += &format!(
            "{} more: {}, {} denied, {} (--rows)\n",
            more,
            count(*connections, "connection"),
            count(*denied, "packet"),
            size(*bytes)
        );
    }
    let Sums { connections, denied, bytes, .. } = total;
    text += &format!(
        "{} from {} to {}: {}, {} denied, {}\n",
        count(*flows, "flow"),
        second(since.as_deref()),
        second(until.as_deref()),
        count(*connections, "connection"),
        count(*denied, "packet"),
        size(*bytes)
    );
    if *lost > 0 {
        text += &format!("{} lost: the numbers above are too small\n", count(*lost, "event"));
    }
    text
}

/// Prints it.
pub(crate) fn render(out: &mut Out, summary: &Summary) -> io::Result<()> {
    let text = text(summary, out.color());
    out.raw(&text)
}
