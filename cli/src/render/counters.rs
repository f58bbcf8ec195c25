//! Counters for people.

use std::io;

use super::{
    out::Out,
    table::{Item, Table},
};
use crate::view::counters::Counters;

/// Prints them.
pub(crate) fn render(out: &mut Out, counters: &Counters) -> io::Result<()> {
    let mut table = Table::new(["HOOK", "REASON", "PACKETS", "BYTES", "MEANING"]).right([2, 3]);
    for counter in &counters.counters {
        table.row([
            Item::from(&counter.hook),
            Item::from(&counter.reason_name),
            Item::from(counter.packets.to_string()),
            Item::from(counter.bytes.to_string()),
            Item::from(&counter.reason_text),
        ]);
    }
    out.table(&table, "no packet was counted yet")?;
    if counters.scalars.is_empty() {
        return Ok(());
    }
    out.raw("\n")?;
    let mut table = Table::new(["COUNTER", "VALUE"]).right([1]);
    for scalar in &counters.scalars {
        table.row([Item::from(&scalar.name), Item::from(scalar.value.to_string())]);
    }
    out.table(&table, "")
}
