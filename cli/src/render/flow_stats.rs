//! The ledger of flows for people: one row for each place that records come to, and how they left it.

use std::io;

use super::{
    out::Out,
    table::{Item, Table, Tone},
};
use crate::view::flow_stats::{Dropped, Events, FlowStats, Readers};

/// Prints it.
pub(crate) fn render(out: &mut Out, stats: &FlowStats) -> io::Result<()> {
    let FlowStats { events, readers, exporters, problems } = stats;
    let mut table = Table::new(["STAGE", "CAME", "WENT ON", "FILTERED", "FOLDED", "WAITING", "LOST", "WHY LOST"])
        .right([1, 2, 3, 4, 5, 6]);
    let Events { observed, kept, dropped } = events;
    let row = |stage: String, came: u64, went_on: u64, [filtered, folded, waiting]: [u64; 3], dropped: &[Dropped]| {
        let lost: u64 = dropped.iter().map(|it| it.count).sum();
        let why: Vec<String> =
            dropped.iter().filter(|it| it.count > 0).map(|it| format!("{} {}", it.reason, it.count)).collect();
        let tone = if lost > 0 { Tone::Bad } else { Tone::Plain };
        [
            Item::from(stage),
            Item::from(came.to_string()),
            Item::from(went_on.to_string()),
            Item::from(filtered.to_string()),
            Item::from(folded.to_string()),
            Item::from(waiting.to_string()),
            Item::new(tone, lost.to_string()),
            Item::from(why.join(", ")),
        ]
    };
    table.row(row("kernel".to_owned(), *observed, *kept, [0; 3], dropped));
    let Readers { now: _, passed, delivered, filtered, lost } = readers;
    let overrun = [Dropped { reason: "ring_overrun".to_owned(), count: *lost }];
    table.row(row("api readers".to_owned(), *passed, *delivered, [*filtered, 0, 0], &overrun));
    for it in exporters {
        // Those that stand for others come to it as well.
        let came = it.carried + it.observed + it.aggregates;
        let stayed = [it.filtered, it.aggregated, it.spooled];
        table.row(row(format!("{} {}", it.kind, it.name), came, it.exported, stayed, &it.dropped));
    }
    out.table(&table, "")?;
    let troubles = exporters.iter().filter(|it| !it.trouble.is_empty());
    let lines: Vec<String> =
        troubles.map(|it| format!("{}: {}", it.name, it.trouble)).chain(problems.clone()).collect();
    if !lines.is_empty() {
        out.raw("\n")?;
    }
    for line in lines {
        out.words(&line)?;
    }
    Ok(())
}
