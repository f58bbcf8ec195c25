//! `bulkhead flows`: connections and denials as they were recorded, or as they happen.

mod columns;
mod criteria;
mod flags;
mod folder;
mod stats;

use std::{
    io::IsTerminal as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::value_parser;
use flows::observer::convert;
use prost_types::FieldMask;
use proto::observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes};
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use super::Context;
use crate::{
    connect::Connection,
    failure::{Exit, Failure},
    parse::Moment,
    render::{
        self, flow_json,
        flow_table::{self, FlowTable},
        out::{Format, Out, ReaderGone},
    },
    view::top::{self, By, Top, What},
};

/// How many flows are shown when nothing says how many.
const DEFAULT_LAST: u64 = 20;

/// A pause in the stream that long means that what is there can be printed.
const PAUSE: Duration = Duration::from_millis(30);

/// Nor is anything kept back for longer than that when there is no pause.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often a summary that goes on is shown.
const REDRAW: Duration = Duration::from_secs(1);

/// Rows that are aligned together at most.
const BATCH: usize = 500;

/// Show connections and denials, with the rules that decided
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without options the last 20 of this node's recorded flows. VERDICT is what happened: ALLOWED (a
connection began), DENIED (a packet was dropped), CLOSED (it ended), CUT (a policy or label change
ended it), ACTIVE (a long one lives on), LOST (events that could not be recorded). Times are UTC.

Options for one end (--pod, --ip...) match if either end does; with from- or to- in front, that end.
Different options must all match; of one option given several times, one. --not turns the next
option around.

Examples:
  bulkhead flows --follow                             as they happen
  bulkhead flows --verdict denied --since 10m         what was denied lately, and why
  bulkhead flows -n shop --last 100                   the last 100 of a namespace
  bulkhead flows --to-pod shop/db --port 5432         who talks to the database
  bulkhead flows --label app=web,tier=front           by label selector
  bulkhead flows -n shop --not --protocol udp         everything but UDP
  bulkhead flows --identity world --from-pod shop/    what leaves the cluster from a namespace
  bulkhead flows -f -o json | jq -r .flow.uuid        one JSON object per line
  bulkhead flows -o json | jq .flow.extensions.value  with what the Hubble API has no field for
  bulkhead flows --since 7d --verdict denied          from the history, where the daemon keeps one
  bulkhead flows --since 7d -o parquet > flows.parquet  for DuckDB, Polars, Spark; also -o csv
  bulkhead flows --dir FOLDER --since 7d -o csv       from its files, without a daemon
  bulkhead flows --top denied --since 1d              who was denied what, and how often
  bulkhead flows --top talkers --by namespace -f      who talks to whom, as a table that goes on
  bulkhead flows stats                                what became of every record, and what was lost")]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct FlowsArgs {
    #[command(subcommand)]
    command: Option<FlowsCommand>,

    /// Keep going: print flows as they happen
    #[arg(short, long)]
    follow: bool,

    /// The last N flows that match; with --follow, that many before going on
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    last: Option<u64>,

    /// The oldest N flows that match
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..), conflicts_with_all = ["last", "follow"])]
    first: Option<u64>,

    /// Every flow that is recorded
    #[arg(long, conflicts_with_all = ["last", "first"])]
    all: bool,

    /// Not older than this: 5m (ago), or 2026-01-02T03:04:05Z
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    since: Option<Moment>,

    /// Not newer than this
    #[arg(long, value_name = "TIME", value_parser = Moment::parse, conflicts_with = "follow")]
    until: Option<Moment>,

    /// Add flows up instead of showing each, over all that are recorded unless other options choose; with --follow
    /// again every second
    #[arg(long, value_name = "WHAT", value_enum)]
    top: Option<What>,

    /// What --top calls the ends by
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, requires = "top")]
    by: By,

    /// Rows of --top
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u32).range(1..), requires = "top")]
    rows: u32,

    /// Read the history's files in this folder instead of asking the daemon
    #[arg(long, value_name = "FOLDER", conflicts_with = "follow")]
    dir: Option<PathBuf>,

    #[command(flatten)]
    flags: flags::Flags,
}

/// What else can be asked about flows.
#[derive(clap::Subcommand, Debug)]
enum FlowsCommand {
    Stats(stats::StatsArgs),
}

impl FlowsArgs {
    /// The request, for what the rendering in `format` reads.
    fn request(&self, now: SystemTime, format: Format) -> Result<GetFlowsRequest, Failure> {
        let since = self.since.as_ref().map(|moment| moment.timestamp(now));
        let until = self.until.as_ref().map(|moment| moment.timestamp(now));
        if let (Some(since), Some(until)) = (&since, &until)
            && (since.seconds, since.nanos) > (until.seconds, until.nanos)
        {
            return Err(Failure::usage(format_args!("--since ({since}) is later than --until ({until})"), "swap them"));
        }
        let anywhere = !self.follow && since.is_none() && until.is_none() && self.top.is_none();
        let number = match (self.last.or(self.first), self.all) {
            (Some(number), _) => number,
            // 0 would mean "start at the newest" to a server that follows.
            (None, true) => u64::MAX,
            (None, false) if self.top.is_some() && since.is_none() && until.is_none() => u64::MAX,
            (None, false) if anywhere => DEFAULT_LAST,
            (None, false) => 0,
        };
        let (whitelist, blacklist) = criteria::filters(self.flags.given())?;
        let (fields, extensions) = match format {
            _ if self.top.is_some() => (top::FIELDS, Some(flow_json::reads_extension())),
            Format::Table => (flow_table::FIELDS, Some(flow_json::reads_extension())),
            // Whoever reads our JSON may be any client of the API, which ours is not.
            Format::Json => (flow_json::FIELDS, None),
        };
        Ok(GetFlowsRequest {
            number,
            first: self.first.is_some(),
            follow: self.follow,
            since,
            until,
            whitelist,
            blacklist,
            field_mask: Some(FieldMask { paths: fields.iter().map(|field| (*field).to_owned()).collect() }),
            experimental: None,
            extensions,
        })
    }

    /// Whether the answer has the columns of the history.
    pub(crate) fn has_columns(&self) -> bool {
        self.command.is_none()
    }

    /// Asks and prints, until the end or for ever.
    pub(crate) async fn run(mut self, context: &mut Context) -> Result<Exit, Failure> {
        if let Some(FlowsCommand::Stats(stats)) = self.command.take() {
            return stats.run(context).await;
        }
        let request = self.request(SystemTime::now(), context.out.format())?;
        if self.top.is_some() && context.tabular.is_some() {
            return Err(Failure::usage("--top has no columns of the history", "use -o table or -o json"));
        }
        let mut printer = Printer::new(self.top.map(|what| Top::new(what, self.by, self.rows as usize)), self.follow);
        if let Some(folder) = &self.dir {
            return folder::run(folder, request, context.tabular, printer, &mut context.out);
        }
        let connection = context.connect().await?;
        if let Some(tabular) = context.tabular {
            let columns = convert::reads_rows(history::rows::names());
            let request = GetFlowsRequest { extensions: Some(columns), field_mask: None, ..request };
            let sheet = columns::Sheet::begin(tabular, self.follow, &mut context.out)?;
            let stream = connection.answer("flows", connection.observer().get_flows(request)).await?;
            fill(sheet, self.follow, &connection, stream, &mut context.out).await?;
            return Ok(Exit::Success);
        }
        let stream = connection.answer("flows", connection.observer().get_flows(request)).await?;
        printer.pump(self.follow, &connection, stream, &mut context.out).await?;
        Ok(Exit::Success)
    }
}

/// Writes a stream in the columns of the history. One that follows is handed over as it comes.
async fn fill(
    mut sheet: columns::Sheet,
    follow: bool,
    connection: &Connection,
    mut stream: Streaming<GetFlowsResponse>,
    out: &mut Out,
) -> Result<(), Failure> {
    while !out.closed() {
        let message = if follow {
            match timeout(PAUSE, stream.message()).await {
                Ok(message) => message.map_err(|status| connection.failure(&status, "flows"))?,
                Err(_) => {
                    out.flush()?;
                    continue;
                }
            }
        } else {
            connection.next("flows", &mut stream).await?
        };
        let Some(message) = message else { break };
        sheet.message(&message, out)?;
    }
    sheet.finish(out)
}

/// What becomes of a stream.
#[derive(Debug)]
enum Sheet {
    /// A line each.
    Lines(FlowTable),
    /// One summary.
    Sum(Box<Top>),
}

/// Prints a stream: aligned in batches, but never keeping back what has come.
#[derive(Debug)]
struct Printer {
    sheet: Sheet,
    follow: bool,
    rows: usize,
    /// When the rows that wait have to be printed at the latest.
    due: Option<Instant>,
}

impl Printer {
    /// For a stream that goes on for ever (`follow`) or not; one that is to be summed up, or shown.
    fn new(top: Option<Top>, follow: bool) -> Self {
        let sheet = top.map_or_else(|| Sheet::Lines(FlowTable::default()), |top| Sheet::Sum(Box::new(top)));
        Self { sheet, follow, rows: 0, due: None }
    }

    /// Whether it wants the extension in our own type, rather than in one that every client can print.
    fn reads_extension(&self, format: Format) -> bool {
        matches!(self.sheet, Sheet::Sum(_)) || format == Format::Table
    }

    /// Reads until the stream ends or nobody reads us any more.
    async fn pump(
        &mut self,
        follow: bool,
        connection: &Connection,
        mut stream: Streaming<GetFlowsResponse>,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let mut reader_gone = follow.then(ReaderGone::watch);
        while !out.closed() {
            let message = match self.due {
                Some(due) => {
                    let pause = if matches!(self.sheet, Sheet::Lines(_)) { PAUSE } else { Duration::MAX };
                    let patience = pause.min(due.saturating_duration_since(Instant::now()));
                    match timeout(patience, stream.message()).await {
                        Ok(message) => message.map_err(|status| connection.failure(&status, "flows")),
                        Err(_) => {
                            self.flush(out)?;
                            continue;
                        }
                    }
                }
                // While following silence is normal, and the reader may go meanwhile.
                None => match &mut reader_gone {
                    Some(gone) => tokio::select! {
                        message = stream.message() => message.map_err(|status| connection.failure(&status, "flows")),
                        () = gone.happened() => return Ok(()),
                    },
                    None => connection.next("flows", &mut stream).await,
                },
            };
            match message {
                Ok(Some(message)) => self.print(&message, out)?,
                Ok(None) => break,
                Err(failure) => {
                    self.flush(out)?;
                    return Err(failure);
                }
            }
        }
        self.finish(out)?;
        if follow && !out.closed() {
            return Err(Failure::unavailable(
                "the daemon has ended the stream",
                "it was probably restarted: run the command again",
            ));
        }
        Ok(())
    }

    /// Takes one message.
    fn print(&mut self, message: &GetFlowsResponse, out: &mut Out) -> Result<(), Failure> {
        match &mut self.sheet {
            Sheet::Sum(top) => {
                match &message.response_types {
                    Some(ResponseTypes::Flow(flow)) => top.flow(flow),
                    Some(ResponseTypes::LostEvents(lost)) => top.lost(lost.num_events_lost),
                    Some(ResponseTypes::NodeStatus(_)) | None => {}
                }
                // One that ends is told at its end.
                if !self.follow {
                    return Ok(());
                }
            }
            Sheet::Lines(_) if out.format() == Format::Json => out.json_line(&flow_json::response(message))?,
            Sheet::Lines(table) => match &message.response_types {
                Some(ResponseTypes::Flow(flow)) => table.flow(flow),
                Some(ResponseTypes::LostEvents(lost)) => table.lost(lost, message.time.as_ref()),
                Some(ResponseTypes::NodeStatus(status)) => table.node(status, message.time.as_ref()),
                None => {}
            },
        }
        self.rows += 1;
        let now = Instant::now();
        let (patience, batch) = match self.sheet {
            Sheet::Lines(_) => (PATIENCE, BATCH),
            Sheet::Sum(_) => (REDRAW, usize::MAX),
        };
        let due = *self.due.get_or_insert(now + patience);
        if self.rows >= batch || due <= now { self.flush(out) } else { Ok(()) }
    }

    /// Hands over what has come.
    fn flush(&mut self, out: &mut Out) -> Result<(), Failure> {
        (self.rows, self.due) = (0, None);
        match &mut self.sheet {
            Sheet::Lines(table) => {
                let text = table.take(out.color());
                out.raw(&text)?;
            }
            Sheet::Sum(top) if self.follow => {
                let summary = top.summary();
                match out.format() {
                    Format::Json => out.json_line(&summary)?,
                    Format::Table => {
                        // Cursor to the first place, and what is there erased: ECMA-48, 8.3.21 (CUP) and 8.3.39 (ED).
                        let begin = if std::io::stdout().is_terminal() { "\u{1b}[H\u{1b}[2J" } else { "" };
                        let text = render::top::text(&summary, out.color());
                        out.raw(&format!("{begin}{text}"))?;
                    }
                }
            }
            Sheet::Sum(_) => {}
        }
        Ok(out.flush()?)
    }

    /// Hands over the rest.
    fn finish(&mut self, out: &mut Out) -> Result<(), Failure> {
        if let (Sheet::Sum(top), false) = (&self.sheet, self.follow) {
            let summary = top.summary();
            match out.format() {
                Format::Json => out.json(&summary)?,
                Format::Table => render::top::render(out, &summary)?,
            }
        }
        self.flush(out)
    }
}
