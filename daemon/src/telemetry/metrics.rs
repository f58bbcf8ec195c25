//! Figures as Prometheus reads them: every metric is declared here once, with its help, and the
//! text is made anew for each scrape. Format: OpenMetrics 1.0, which Prometheus has read since 2.5.

use std::fmt;

use datapath_abi::{event, maps::Scalar, reason::DropReason};
use flows::ledger::{ExportLoss, ExporterBalance, Loss};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::source::kubernetes::registry::RegistryFigures;

use super::{Build, CniMetrics, DatapathFigures, EngineFigures, FlowFigures, PacketFigures, Snapshot};

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every name begins with.
const PREFIX: &str = "bulkhead";

/// Names of the hooks, by [`event::Hook`].
pub const HOOKS: [&str; event::HOOKS as usize] = ["from_pod", "to_pod", "from_uplink"];

/// Name of reason 0.
pub const PASSED: &str = "passed";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Counter,
    Gauge,
    GaugeSeconds,
}

/// A metric, without the prefix and the suffix that its kind adds.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    kind: Kind,
    help: &'static str,
}

impl Metric {
    const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help }
    }

    const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help }
    }

    const fn seconds(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::GaugeSeconds, help }
    }
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident($name:literal, $help:literal);)*) => {
        $(const $constant: Metric = Metric::$kind($name, $help);)*

        /// Every metric but those of the CNI service and the scalars, which datapath-abi lists.
        #[cfg(test)]
        const DECLARED: &[Metric] = &[$($constant,)*];
    };
}

metrics! {
    BUILD_INFO = gauge("build_info", "1, with the version, commit, ABI, kernel and way of attaching as labels");
    UPTIME = seconds("uptime", "Since the daemon started");
    ENGINE_UP = gauge("engine_up", "Whether the engine, which writes the maps, answers");
    ENGINE_TROUBLE = gauge("engine_trouble", "Whether the kernel has refused the last write to its maps");
    PLANS = counter("plans", "Times that rules were brought up to date");
    LAST_PLAN = seconds("last_plan_duration", "How long the last plan took, from the change to the last write");
    ENDPOINTS = gauge("endpoints", "Pod interfaces of this node");
    ENDPOINTS_ISOLATED = gauge("endpoints_isolated", "Those that policies isolate in at least one direction");
    IDENTITIES = gauge("identities", "Identities that have pods");
    NAMESPACES = gauge("namespaces", "Namespaces in force");
    PODS = gauge("pods", "Pods in force");
    POLICIES = gauge("policies", "Policies in force");
    RULE_SETS = gauge("rule_sets", "Rule sets, each shared by all endpoints with the same rules");
    REFUSALS = gauge("refusals", "Directions of endpoints whose rules could not be put in force");
    SOURCE_SYNCED = gauge("source_synced", "Whether the source has been read completely");
    SOURCE_ERRORS = gauge("source_errors", "Things that stand wrong in the source");
    PASSED_PACKETS = counter("passed_packets", "Packets let through, by hook");
    PASSED_BYTES = counter("passed_bytes", "Bytes let through, from the network header on, by hook");
    DROPPED_PACKETS = counter("dropped_packets", "Packets dropped, by hook and reason");
    DROPPED_BYTES = counter("dropped_bytes", "Bytes dropped, from the network header on, by hook and reason");
    MAP_ENTRIES = gauge("map_entries", "Entries in use of the maps whose fill is known");
    MAP_CAPACITY = gauge("map_capacity", "Entries that these maps can hold");
    CONNECTIONS = gauge("connections", "Connections as the last sweep found them, by state");
    IPAM_USED = gauge("ipam_addresses_used", "Addresses that pods have, by range");
    IPAM_FREE = gauge("ipam_addresses_free", "Addresses that can be given out, by range; 2^64 stands for more than that");
    PUT_BACK = counter("programs_put_back", "Times that programs which somebody had removed from a pod's interface were put back");
    PUT_BACK_FAILED = counter("programs_put_back_failures", "Times that this failed");
    SHARED = gauge("shared_identities", "Identities that the cluster has a number for");
    SHARED_FOUND = counter("shared_identities_found", "Times that the API server was asked for an identity's number and there was one or was made");
    SHARED_LAST = seconds("shared_identity_last_wait", "How long that took the last time");
    SHARED_FAILED = counter("shared_identity_failures", "Times that there was none");
    SHARED_CONFLICTS = counter("shared_identity_conflicts", "Numbers tried that were somebody's already");
    FLOW_OBSERVED = counter("flow_events_observed", "Events of the kernel, those it could not hand over included");
    FLOW_KEPT = counter("flow_records_kept", "Events that became flow records");
    FLOW_DROPPED = counter("flow_events_dropped", "Events that became no record, by reason");
    FLOW_HELD = gauge("flow_records_held", "Flow records in memory");
    FLOW_CAPACITY = gauge("flow_record_capacity", "Flow records that memory is set aside for");
    DNS_PACKETS = counter("dns_packets", "Packets with DNS messages of pods that were read");
    DNS_IGNORED = counter("dns_messages_ignored", "DNS messages of pods that nothing was made of, by reason");
    DNS_LOOKUPS = counter("dns_lookups", "Questions of pods, by what came of them");
    READERS = gauge("flow_readers", "Clients that read flows at this moment");
    READERS_REFUSED = counter("flow_readers_refused", "Clients turned away because there were too many");
    READER_PASSED = counter("flow_reader_records_passed", "Records that readers have gone past, each reader counted");
    READER_DELIVERED = counter("flow_reader_records_delivered", "Records sent to readers");
    READER_FILTERED = counter("flow_reader_records_filtered", "Records that readers' filters left out");
    READER_LOST = counter("flow_reader_records_lost", "Records overwritten before a slow reader came to them");
    EXPORT_PROBLEMS = gauge("export_problems", "Things that stand wrong in the settings of exporters");
    EXPORT_CARRIED = counter("export_records_carried", "Records that lay in the spool when the daemon started, by exporter");
    EXPORT_OBSERVED = counter("export_records_observed", "Records that an exporter has come to since, by exporter");
    EXPORT_EXPORTED = counter("export_records_exported", "Records that the receiver has taken, by exporter");
    EXPORT_FILTERED = counter("export_records_filtered", "Records that filters left out, by exporter");
    EXPORT_AGGREGATED = counter("export_records_aggregated", "Records that are told together with others, by exporter");
    EXPORT_AGGREGATES = counter("export_records_aggregates", "Records that were made to tell of those, by exporter");
    EXPORT_DROPPED = counter("export_records_dropped", "Records lost, by exporter and reason");
    EXPORT_SPOOLED = gauge("export_records_spooled", "Records that wait, by exporter");
    EXPORT_SPOOL_BYTES = gauge("export_spool_bytes", "Bytes that the spool takes on disk, by exporter");
    EXPORT_RETRIES = counter("export_retries", "Times that something had to be tried again, by exporter");
    EXPORT_TROUBLE = gauge("export_trouble", "Whether something stands in the way of an exporter, by exporter");
}

/// The metric of a scalar.
const fn scalar_metric(scalar: Scalar, name: &'static str) -> Metric {
    let help = match scalar {
        Scalar::EventsLost => "Flow events that found the ring buffer full",
        Scalar::ConntrackFull => "Connections that got an answer but found the table of connections full",
        Scalar::PendingFull => "New connections that the table of connections without an answer refused",
        Scalar::EventsWritten => "Flow events written to the ring buffer",
        Scalar::PendingShare => {
            "New connections of endpoints that had their share of the table of connections without an answer"
        }
        Scalar::Redecided => "Connections decided anew because rules had changed",
        Scalar::UplinkUnrecorded => "Packets dropped at the uplink without a record, as there were too many of them",
        Scalar::DnsLost => "DNS messages of pods that found their ring buffer full",
        Scalar::DnsWritten => "DNS messages of pods written to their ring buffer",
    };
    Metric::counter(name, help)
}

/// The text for one scrape.
///
/// # Errors
/// The encoder refuses a value; that is a defect.
pub fn encode(snapshot: Snapshot, cni: &CniMetrics) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    cni.register(&mut registry);
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes metrics out, each with all its samples.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    /// One metric and its samples; none: the metric is left out.
    fn write<'a>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Labels<'a>, Number)>,
    ) -> Result<(), fmt::Error> {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let (kind, unit) = match metric.kind {
            Kind::Counter => (MetricType::Counter, None),
            Kind::Gauge => (MetricType::Gauge, None),
            Kind::GaugeSeconds => (MetricType::Gauge, Some(Unit::Seconds)),
        };
        // As the registry does it for metrics of its own.
        let help = format!("{}.", metric.help);
        let mut encoder = self.0.encode_descriptor(metric.name, &help, unit.as_ref(), kind)?;
        for (labels, number) in samples {
            let labels: Vec<(&str, String)> = labels.into_iter().map(|(name, value)| (name, escaped(value))).collect();
            match labels.as_slice() {
                [] => put(&mut encoder, metric.kind, number)?,
                _ => put(&mut encoder.encode_family(&labels)?, metric.kind, number)?,
            }
        }
        Ok(())
    }

    fn one(&mut self, metric: &Metric, number: impl Into<Number>) -> Result<(), fmt::Error> {
        self.write(metric, [(Labels::new(), number.into())])
    }
}

/// Writes one sample.
fn put(sample: &mut MetricEncoder<'_>, kind: Kind, number: Number) -> Result<(), fmt::Error> {
    match (kind, number) {
        (Kind::Counter, Number::Whole(number)) => sample.encode_counter::<Labelless, _, u64>(&number, None),
        (Kind::Counter, Number::Real(number)) => sample.encode_counter::<Labelless, _, u64>(&number, None),
        (_, Number::Real(number)) => sample.encode_gauge(&number),
        // The encoder has no gauges beyond 2^63.
        (_, Number::Whole(number)) => match i64::try_from(number) {
            Ok(number) => sample.encode_gauge(&number),
            Err(_) => sample.encode_gauge(&(number as f64)),
        },
    }
}

/// No labels, for exemplars, of which there are none.
type Labelless = [(&'static str, &'static str); 0];

enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<bool> for Number {
    fn from(yes: bool) -> Self {
        Self::Whole(yes.into())
    }
}

impl From<std::time::Duration> for Number {
    fn from(duration: std::time::Duration) -> Self {
        Self::Real(duration.as_secs_f64())
    }
}

/// A label's value as the format wants it (OpenMetrics 1.0, "escaped-string"). The encoder does
/// not do that.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self {
            build,
            uptime,
            engine,
            datapath,
            maps,
            source,
            conntrack,
            pools,
            flows,
            exporters,
            export_problems,
            put_back,
            shared,
        } = self;
        let to = &mut Writer(encoder);
        write_build(to, build)?;
        to.one(&UPTIME, *uptime)?;
        to.one(&ENGINE_UP, engine.is_some())?;
        if let Some(engine) = engine {
            write_engine(to, engine)?;
        }
        to.one(&PUT_BACK, put_back.done)?;
        to.one(&PUT_BACK_FAILED, put_back.failed)?;
        if let Some(RegistryFigures { numbers, found, last, failures, conflicts }) = *shared {
            to.one(&SHARED, numbers)?;
            to.one(&SHARED_FOUND, found)?;
            to.one(&SHARED_LAST, last)?;
            to.one(&SHARED_FAILED, failures)?;
            to.one(&SHARED_CONFLICTS, conflicts)?;
        }
        to.one(&SOURCE_SYNCED, source.synced)?;
        to.one(&SOURCE_ERRORS, source.errors)?;
        if let Some(datapath) = datapath {
            write_datapath(to, datapath)?;
        }
        to.write(&MAP_ENTRIES, maps.iter().map(|map| (vec![("map", map.name)], map.entries.into())))?;
        to.write(&MAP_CAPACITY, maps.iter().map(|map| (vec![("map", map.name)], map.capacity.into())))?;
        let connections = conntrack.iter().flat_map(|it| [("established", it.established), ("pending", it.pending)]);
        to.write(&CONNECTIONS, connections.map(|(state, count)| (vec![("state", state)], count.into())))?;
        to.write(&IPAM_USED, pools.iter().map(|pool| (vec![("range", &*pool.range)], pool.used.into())))?;
        to.write(&IPAM_FREE, pools.iter().map(|pool| (vec![("range", &*pool.range)], pool.free.into())))?;
        write_flows(to, flows)?;
        to.one(&EXPORT_PROBLEMS, *export_problems)?;
        write_exporters(to, exporters)
    }
}

fn write_build(to: &mut Writer<'_>, build: &Build) -> Result<(), fmt::Error> {
    let Build { version, commit, abi_version, kernel, attach_mode } = build;
    let abi = abi_version.to_string();
    let labels: Labels<'_> =
        vec![("version", version), ("commit", commit), ("abi", &abi), ("kernel", kernel), ("attach_mode", attach_mode)];
    to.write(&BUILD_INFO, [(labels, 1.into())])
}

fn write_engine(to: &mut Writer<'_>, engine: &EngineFigures) -> Result<(), fmt::Error> {
    let EngineFigures {
        endpoints,
        endpoints_isolated,
        identities,
        namespaces,
        pods,
        policies,
        rule_sets,
        refusals,
        in_trouble,
        plans,
        last_plan,
    } = *engine;
    to.one(&ENGINE_TROUBLE, in_trouble)?;
    to.one(&PLANS, plans)?;
    to.one(&LAST_PLAN, last_plan)?;
    to.one(&ENDPOINTS, endpoints)?;
    to.one(&ENDPOINTS_ISOLATED, endpoints_isolated)?;
    to.one(&IDENTITIES, identities)?;
    to.one(&NAMESPACES, namespaces)?;
    to.one(&PODS, pods)?;
    to.one(&POLICIES, policies)?;
    to.one(&RULE_SETS, rule_sets)?;
    to.one(&REFUSALS, refusals)
}

fn write_datapath(to: &mut Writer<'_>, datapath: &DatapathFigures) -> Result<(), fmt::Error> {
    let DatapathFigures { counters, scalars } = datapath;
    let hook = |figures: &PacketFigures| HOOKS.get(figures.hook as usize).copied().unwrap_or("unknown");
    let passed = || counters.iter().filter(|figures| figures.reason == 0);
    let dropped = || {
        counters.iter().filter_map(|figures| {
            let reason = DropReason::try_from(u8::try_from(figures.reason).ok()?).ok()?;
            Some((vec![("hook", hook(figures)), ("reason", reason.name())], figures))
        })
    };
    to.write(&PASSED_PACKETS, passed().map(|it| (vec![("hook", hook(it))], it.packets.into())))?;
    to.write(&PASSED_BYTES, passed().map(|it| (vec![("hook", hook(it))], it.bytes.into())))?;
    to.write(&DROPPED_PACKETS, dropped().map(|(labels, it)| (labels, it.packets.into())))?;
    to.write(&DROPPED_BYTES, dropped().map(|(labels, it)| (labels, it.bytes.into())))?;
    for &(scalar, value) in scalars {
        if let Some((_, name)) = Scalar::ALL.iter().find(|(known, _)| *known == scalar) {
            to.one(&scalar_metric(scalar, name), value)?;
        }
    }
    Ok(())
}

fn write_flows(to: &mut Writer<'_>, flows: &FlowFigures) -> Result<(), fmt::Error> {
    let FlowFigures { ledger, records, record_capacity } = flows;
    to.one(&FLOW_OBSERVED, ledger.observed)?;
    to.one(&FLOW_KEPT, ledger.kept)?;
    let dropped = Loss::ALL.into_iter().map(|loss| (vec![("reason", loss.name())], ledger.dropped(loss).into()));
    to.write(&FLOW_DROPPED, dropped)?;
    to.one(&FLOW_HELD, *records)?;
    to.one(&FLOW_CAPACITY, *record_capacity)?;
    let dns::Figures { packets, malformed, unsolicited, answered, unanswered, unfollowed } = ledger.dns;
    to.one(&DNS_PACKETS, packets)?;
    let by = |name, pairs: [(&'static str, u64); 2]| pairs.map(|(value, count)| (vec![(name, value)], count.into()));
    to.write(&DNS_IGNORED, by("reason", [("malformed", malformed), ("unsolicited", unsolicited)]))?;
    let outcomes = [("answered", answered), ("unanswered", unanswered), ("unfollowed", unfollowed)];
    to.write(&DNS_LOOKUPS, outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count.into())))?;
    to.one(&READERS, ledger.readers)?;
    to.one(&READERS_REFUSED, ledger.readers_refused)?;
    to.one(&READER_PASSED, ledger.passed)?;
    to.one(&READER_DELIVERED, ledger.delivered)?;
    to.one(&READER_FILTERED, ledger.filtered)?;
    to.one(&READER_LOST, ledger.reader_lost)
}

/// One counter of exporters.
type Count = fn(&ExporterBalance) -> u64;

fn write_exporters(to: &mut Writer<'_>, exporters: &[ExporterBalance]) -> Result<(), fmt::Error> {
    let each: [(&Metric, Count); 10] = [
        (&EXPORT_CARRIED, |it| it.carried),
        (&EXPORT_OBSERVED, |it| it.observed),
        (&EXPORT_EXPORTED, |it| it.exported),
        (&EXPORT_FILTERED, |it| it.filtered),
        (&EXPORT_AGGREGATED, |it| it.aggregated),
        (&EXPORT_AGGREGATES, |it| it.aggregates),
        (&EXPORT_SPOOLED, |it| it.spooled),
        (&EXPORT_SPOOL_BYTES, |it| it.spool_bytes),
        (&EXPORT_RETRIES, |it| it.retries),
        (&EXPORT_TROUBLE, |it| u64::from(!it.trouble.is_empty())),
    ];
    for (metric, count) in each {
        to.write(
            metric,
            exporters.iter().map(|it| (vec![("exporter", &*it.name), ("kind", it.kind)], count(it).into())),
        )?;
    }
    let dropped = exporters.iter().flat_map(|it| {
        ExportLoss::ALL.into_iter().map(move |loss| {
            (vec![("exporter", &*it.name), ("kind", it.kind), ("reason", loss.name())], it.lost(loss).into())
        })
    });
    to.write(&EXPORT_DROPPED, dropped)
}

#[cfg(test)]
mod tests;
