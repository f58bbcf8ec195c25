//! `bulkhead flows --dir`: the same question, answered from a folder of history files without a daemon.

use std::path::Path;

use flows::{
    filter::FilterSet,
    observer::{Mask, convert},
};
use history::{Error, Scan, Wanted};
use proto::observer::GetFlowsRequest;

use super::{Printer, columns::Sheet};
use crate::{
    failure::{Exit, Failure},
    render::out::{Out, Tabular},
};

/// Rows that are looked at in one go.
const ROWS: usize = 1024;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused { message: error.to_string(), fix: String::new() }
    }
}

/// Where records go.
enum Sink {
    Rendered(Box<Printer>, Mask),
    Columns(Sheet),
}

fn unix_ns(time: Option<prost_types::Timestamp>) -> Option<u64> {
    let time = time?;
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.nanos).unwrap_or(0)))
}

/// Prints what `request` asks for. Files that cannot be read are passed over, and are a failure at the end.
pub(super) fn run(
    folder: &Path,
    request: GetFlowsRequest,
    tabular: Option<Tabular>,
    printer: Printer,
    out: &mut Out,
) -> Result<Exit, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::usage(error, "see bulkhead flows --help");
    let GetFlowsRequest { number, first, since, until, whitelist, blacklist, field_mask, .. } = request;
    let filters = FilterSet::compile(&whitelist, &blacklist).map_err(|error| wrong(&error))?;
    let mut left = if number == 0 { u64::MAX } else { number };
    let wanted = Wanted {
        since: unix_ns(since).unwrap_or(0),
        until: unix_ns(until).unwrap_or(u64::MAX),
        filters,
        last: (number != 0 && number != u64::MAX && !first).then_some(number),
    };
    let mut sink = match tabular {
        None => {
            let mask = Mask::parse(field_mask.as_ref()).map_err(|error| wrong(&error))?;
            Sink::Rendered(Box::new(printer), mask)
        }
        Some(tabular) => Sink::Columns(Sheet::begin(tabular, false, out)?),
    };
    let form = match &sink {
        Sink::Rendered(printer, _) if printer.reads_extension(out.format()) => convert::ExtensionForm::Typed,
        _ => convert::ExtensionForm::Readable,
    };
    let mut scan = Scan::open(folder, wanted)?;
    let mut problems = Vec::new();
    while left > 0 && !out.closed() {
        let batch = scan.next(ROWS);
        problems.extend(batch.problems);
        for record in batch.records.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            match &mut sink {
                Sink::Rendered(printer, mask) => printer.print(&convert::response(record, mask, &form), out)?,
                Sink::Columns(sheet) => sheet.record(record, out)?,
            }
        }
        if batch.done {
            break;
        }
    }
    match sink {
        Sink::Rendered(mut printer, _) => printer.finish(out)?,
        Sink::Columns(sheet) => sheet.finish(out)?,
    }
    out.flush()?;
    let mut problems = problems.into_iter();
    let Some(first) = problems.next() else { return Ok(Exit::Success) };
    for problem in problems {
        Failure::from(problem).report();
    }
    Err(first.into())
}
