//! `FlowStats`: what became of every event and record, up to each exporter's receiver.

use flows::ledger::{Balance, ExportLoss, ExporterBalance, Loss};
use proto::bulkhead::admin::v1 as pb;

use super::AdminService;

pub(super) fn answer(service: &AdminService) -> pb::FlowStatsResponse {
    let ledger = service.parts.pipeline.ledger();
    let balance = ledger.balance();
    let Balance { observed, kept, passed, delivered, filtered, reader_lost, readers, .. } = balance;
    pb::FlowStatsResponse {
        observed,
        kept,
        dropped: Loss::ALL.map(|loss| dropped(loss.name(), balance.dropped(loss))).into(),
        readers: Some(pb::FlowReaders { now: readers, passed, delivered, filtered, lost: reader_lost }),
        exporters: ledger.exporters().into_iter().map(exporter).collect(),
        problems: ledger.export_problems(),
    }
}

fn dropped(reason: &str, count: u64) -> pb::Dropped {
    pb::Dropped { reason: reason.to_owned(), count }
}

fn exporter(balance: ExporterBalance) -> pb::Exporter {
    let lost = ExportLoss::ALL.map(|loss| dropped(loss.name(), balance.lost(loss)));
    let ExporterBalance {
        name,
        kind,
        carried,
        observed,
        exported,
        filtered,
        aggregated,
        aggregates,
        spooled,
        dropped: _,
        spool_bytes,
        retries,
        trouble,
    } = balance;
    pb::Exporter {
        name,
        kind: kind.to_owned(),
        carried,
        observed,
        exported,
        filtered,
        aggregated,
        aggregates,
        spooled,
        dropped: lost.into(),
        spool_bytes,
        retries,
        trouble,
    }
}
