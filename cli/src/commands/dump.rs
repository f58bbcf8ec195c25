//! `bulkhead dump`: entries of the kernel's maps as text, for debugging.

use std::io::{self, Write as _};

use datapath_abi::maps;
use proto::bulkhead::admin::v1::DumpMapsRequest;

use super::Context;
use crate::{
    failure::{Exit, Failure},
    render::{out::Format, text::clean},
    view::counters::MapEntry,
};

/// Dump entries of the kernel's maps as text, for debugging
#[derive(clap::Args, Debug)]
#[command(after_help = "\
One entry per line: map, key, value, separated by tabs; sorted. With -o json one object per line.
If not all entries of a map are told, a note on standard error says so, with -o json an object with
the field `note`.

Examples:
  bulkhead dump                             every map but the ring buffer
  bulkhead dump PEERS PORTS                 the rules
  bulkhead dump CONNTRACK                   connections: state, pods, age, packets and bytes both ways
  bulkhead dump CONNTRACK -o json | jq -r .value
  bulkhead dump ORIGINS CARRIED DENIED      what the overlay and the deny list hold")]
pub(crate) struct DumpArgs {
    /// Maps to dump; none: every one
    #[arg(value_name = "MAP", value_parser = map)]
    maps: Vec<String>,
    /// Most entries of each map [default: 10000 of those that the programs write, all of the others]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// The name of a map that has entries.
fn map(text: &str) -> Result<String, String> {
    let names = || maps::ALL.iter().map(|map| map.name).filter(|name| *name != maps::EVENTS);
    match names().find(|name| name.eq_ignore_ascii_case(text)) {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!("there is no map {text:?} to dump; there are {}", names().collect::<Vec<_>>().join(", "))),
    }
}

impl DumpArgs {
    /// Asks and prints.
    pub(crate) async fn run(self, context: &mut Context) -> Result<Exit, Failure> {
        let connection = context.connect().await?;
        let request = DumpMapsRequest { maps: self.maps, limit: self.limit.unwrap_or(0) };
        let mut entries = connection.answer("dump", connection.admin().dump_maps(request)).await?;
        while let Some(entry) = connection.next("dump", &mut entries).await? {
            let entry = MapEntry::from(entry);
            match context.out.format() {
                Format::Table => match entry {
                    MapEntry::Entry { map, key, value } => {
                        let line = [map, key, value].map(|field| clean(&field).into_owned());
                        context.out.line(&line.join("\t"))?;
                    }
                    // Not among the entries: those are for programs, too.
                    MapEntry::Note { map, note } => {
                        context.out.flush()?;
                        writeln!(io::stderr(), "bulkhead: {}: {}", clean(&map), clean(&note))?;
                    }
                },
                Format::Json => context.out.json_line(&entry)?,
            }
            if context.out.closed() {
                break;
            }
        }
        Ok(Exit::Success)
    }
}
