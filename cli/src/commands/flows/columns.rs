//! Flows in the columns of the history: CSV lines or one Parquet file.

use std::io::{self, IsTerminal as _};

use flows::{FlowRecord, observer::convert};
use history::{cell::Cell, codec, columns, csv, table};
use proto::observer::{GetFlowsResponse, get_flows_response::ResponseTypes};

use crate::{
    failure::Failure,
    render::{
        out::{Out, Tabular},
        text::count,
    },
};

/// Where rows go.
pub(super) enum Sheet {
    /// Lines.
    Csv,
    /// A file.
    Parquet(Box<table::Writer<io::Stdout>>),
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    Failure::Output(io::Error::other(error.to_string()))
}

impl Sheet {
    /// Begins. A terminal shows no Parquet, and a file has an end: it cannot `follow`.
    pub(super) fn begin(tabular: Tabular, follow: bool, out: &mut Out) -> Result<Self, Failure> {
        match tabular {
            Tabular::Csv => {
                out.raw(&csv::head())?;
                Ok(Self::Csv)
            }
            Tabular::Parquet if follow => {
                Err(Failure::usage("a Parquet file has an end", "leave out --follow, or use -o csv"))
            }
            Tabular::Parquet if io::stdout().is_terminal() => {
                Err(Failure::usage("a terminal cannot show Parquet", "send it to a file: > flows.parquet"))
            }
            Tabular::Parquet => {
                let writer = table::Writer::new(io::stdout()).map_err(|error| refused(&error))?;
                Ok(Self::Parquet(Box::new(writer)))
            }
        }
    }

    /// A record that was read from a file.
    pub(super) fn record(&mut self, record: &FlowRecord, out: &mut Out) -> Result<(), Failure> {
        self.row(&columns::row(record), out)
    }

    /// What the daemon has told.
    pub(super) fn message(&mut self, message: &GetFlowsResponse, out: &mut Out) -> Result<(), Failure> {
        let flow = match &message.response_types {
            Some(ResponseTypes::Flow(flow)) => flow,
            Some(ResponseTypes::LostEvents(lost)) => {
                eprintln!("note: {} lost here, between these rows", count(lost.num_events_lost, "event"));
                return Ok(());
            }
            Some(ResponseTypes::NodeStatus(_)) | None => return Ok(()),
        };
        let Some(bytes) = convert::cells(flow) else {
            return Err(Failure::unavailable(
                "the daemon knows of no rows",
                "it is older than this program: use -o json",
            ));
        };
        match codec::decode(&bytes) {
            Ok(cells) if cells.len() == columns::all().len() => self.row(&cells, out),
            _ => Err(refused(&"the daemon has sent what is no row")),
        }
    }

    fn row(&mut self, cells: &[Cell<'_>], out: &mut Out) -> Result<(), Failure> {
        match self {
            Self::Csv => Ok(out.raw(&csv::line(cells))?),
            Self::Parquet(writer) => writer.push(cells).map_err(|error| refused(&error)),
        }
    }

    /// Ends it.
    pub(super) fn finish(self, out: &mut Out) -> Result<(), Failure> {
        if let Self::Parquet(writer) = self {
            writer.finish().map_err(|error| refused(&error))?;
        }
        Ok(out.flush()?)
    }
}
