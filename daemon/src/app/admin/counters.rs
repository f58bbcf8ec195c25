//! `Counters`: packets and bytes by hook and reason, and what belongs to no packet.

use datapath_abi::{maps::Scalar, reason::DropReason};
use proto::bulkhead::admin::v1 as pb;
use tonic::Status;

use super::AdminService;
use crate::telemetry::{PacketFigures, metrics};

pub(super) fn answer(service: &AdminService) -> Result<pb::CountersResponse, Status> {
    let unreadable =
        |reason| Status::internal(format!("the counters cannot be read: {reason}; the daemon's log says more"));
    let figures = service.datapath().map_err(unreadable)?;
    let mut counters: Vec<pb::Counter> = figures.counters.iter().filter_map(counter).collect();
    counters.sort_by(|a, b| (&a.hook, a.reason).cmp(&(&b.hook, b.reason)));
    let scalar = |(scalar, value): &(Scalar, u64)| {
        let (_, name) = Scalar::ALL.iter().find(|(known, _)| known == scalar)?;
        Some(pb::Scalar { name: (*name).to_owned(), value: *value })
    };
    Ok(pb::CountersResponse { counters, scalars: figures.scalars.iter().filter_map(scalar).collect() })
}

fn counter(figures: &PacketFigures) -> Option<pb::Counter> {
    let PacketFigures { hook, reason, packets, bytes } = *figures;
    if packets == 0 && bytes == 0 {
        return None;
    }
    let (name, text) = match u8::try_from(reason).ok().and_then(|number| DropReason::try_from(number).ok()) {
        Some(reason) => (reason.name(), reason.text()),
        None => (metrics::PASSED, "let through"),
    };
    let hook = metrics::HOOKS.get(hook as usize).copied().unwrap_or("unknown");
    Some(pb::Counter {
        hook: hook.to_owned(),
        reason,
        reason_name: name.to_owned(),
        reason_text: text.to_owned(),
        packets,
        bytes,
    })
}
