//! `DumpMaps`: entries of the kernel's maps as text, for debugging. Raw entries are copied out of
//! the engine and turned into text one by one as the client reads.

mod text;

use std::sync::Arc;

use datapath_abi::maps;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use proto::bulkhead::admin::v1 as pb;
use tonic::Status;

use super::{AdminService, Table, convert, work_out};
use crate::reconcile::Mirror;

/// Entries on their way to a client.
pub(super) type Entries = BoxStream<'static, Result<pb::MapEntry, Status>>;

/// Texts of a key and a value, made when they are asked for.
type Lines = Box<dyn Iterator<Item = (String, String)> + Send>;

pub(super) async fn answer(service: &AdminService, request: pb::DumpMapsRequest) -> Result<Entries, Status> {
    let pb::DumpMapsRequest { maps: wanted } = request;
    let names = names(&wanted, service.parts.connections.is_some())?;
    let mirror = service.ask(|state| Arc::new(state.mirror.clone())).await?;
    let mut dumped: Vec<(&'static str, Lines)> = Vec::new();
    for name in names {
        dumped.push((name, lines(service, name, &mirror).await?));
    }
    let entries = dumped
        .into_iter()
        .flat_map(|(name, lines)| lines.map(move |(key, value)| Ok(pb::MapEntry { map: name.to_owned(), key, value })));
    Ok(stream::iter(entries).boxed())
}

/// The maps that are asked for, each once, in the order of datapath-abi's list.
fn names(wanted: &[String], with_connections: bool) -> Result<Vec<&'static str>, Status> {
    let dumpable = || maps::ALL.iter().map(|info| info.name).filter(|name| *name != maps::EVENTS);
    let connections = |name: &str| name == maps::CONNTRACK || name == maps::PENDING;
    for name in wanted {
        if name == maps::EVENTS {
            let fix = "use `bulkhead flows`, or leave it out";
            return Err(Status::invalid_argument(format!("maps: EVENTS is a ring buffer without entries: {fix}")));
        }
        if !dumpable().any(|known| known == name) {
            let known = dumpable().collect::<Vec<_>>().join(", ");
            let name = convert::quoted(name);
            return Err(Status::invalid_argument(format!("maps: there is no map {name}: use some of {known}")));
        }
        if connections(name) && !with_connections {
            return Err(Status::unimplemented(format!("this daemon cannot read {name}: leave it out")));
        }
    }
    let chosen = |name: &&str| match wanted.is_empty() {
        true => with_connections || !connections(name),
        false => wanted.iter().any(|one| one == name),
    };
    Ok(dumpable().filter(chosen).collect())
}

/// The entries of one map, sorted by key.
async fn lines(service: &AdminService, name: &'static str, mirror: &Arc<Mirror>) -> Result<Lines, Status> {
    Ok(match name {
        maps::CONNTRACK => of_connections(service, Table::Conntrack).await?,
        maps::PENDING => of_connections(service, Table::Pending).await?,
        maps::COUNTERS | maps::SCALARS => {
            let figures = service.datapath().map_err(|reason| Status::internal(format!("map {name}: {reason}")))?;
            if name == maps::COUNTERS { text::counters(figures) } else { text::scalars(figures) }
        }
        _ => text::of_mirror(name, mirror),
    })
}

async fn of_connections(service: &AdminService, table: Table) -> Result<Lines, Status> {
    let Some(read) = service.parts.connections.clone() else { return Ok(Box::new(std::iter::empty())) };
    let entries = work_out(move || {
        let mut entries = read(table)?;
        entries.sort_by_key(|(key, _)| (key.addr.map(|addr| addr.octets()), key.port, key.proto));
        Ok(entries)
    });
    let unreadable = |reason: String| Status::internal(format!("the table of connections cannot be read: {reason}"));
    let entries = entries.await?.map_err(unreadable)?;
    Ok(Box::new(entries.into_iter().map(|(key, entry)| text::connection(&key, &entry))))
}
