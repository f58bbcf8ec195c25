//! Figures of all parts at one moment: what status and metrics have in common. Health is decided
//! here, too.

use std::{
    collections::BTreeMap,
    sync::PoisonError,
    time::{Duration, Instant},
};

use datapath_abi::{
    control::SweepReport,
    endpoint::RulesPtr,
    maps::{self, MapInfo, Scalar},
};
use futures::future::BoxFuture;
use policy::model::PodKey;

use super::{AdminService, PROBE_PATIENCE};
use crate::{
    app::engine::{Services, State},
    reconcile::{EndpointKey, Mirror, Refusal},
    telemetry::{
        self, Build, ConntrackFigures, DatapathFigures, EngineFigures, FlowFigures, Health, MapFigures, PacketFigures,
        PoolFigures, Snapshot, SourceFigures,
    },
};

/// What is copied out of the engine for status and metrics.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct EngineView {
    /// Counts.
    pub(super) figures: EngineFigures,
    /// The source has told all it had.
    pub(super) synced: bool,
    /// Since objects last changed.
    pub(super) since_change: Option<Duration>,
    /// What stands refused.
    pub(super) refusals: Vec<Refusal>,
    /// The write that the kernel refused.
    pub(super) trouble: Option<String>,
    /// Addresses of pods elsewhere that found no room.
    pub(super) strangers: usize,
    /// What is wrong with Services.
    pub(super) services: ServicesView,
    /// Entries of each map that the daemon writes.
    pub(super) entries: BTreeMap<&'static str, u64>,
    /// Every endpoint, and whether the source has an object for its pod.
    pub(super) endpoints: Vec<(EndpointKey, PodKey, bool)>,
}

/// What is wrong with Services.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ServicesView {
    /// The write that the kernel refused.
    pub(super) trouble: Option<String>,
    /// Ports that found no room, in words.
    pub(super) refused: Vec<String>,
    /// Services that stand where another one already does, in words.
    pub(super) clashes: Vec<String>,
}

impl ServicesView {
    fn of(services: &Services) -> Self {
        let refused = services.index.refusals().map(|(port, refusal)| {
            let service = &port.service;
            match refusal {
                services::Refusal::Frontend => service.to_string(),
                services::Refusal::Backends(count) => format!("{count} backends of {service}"),
            }
        });
        let clashes = services.index.clashes().map(|clash| {
            let others: Vec<String> = clash.others.iter().map(ToString::to_string).collect();
            format!("{} is {}'s and {} wants it, too", clash.at, clash.owner, others.join(", "))
        });
        Self { trouble: services.trouble.clone(), refused: refused.collect(), clashes: clashes.collect() }
    }
}

impl EngineView {
    /// Copies out.
    pub(super) fn of(state: &State) -> Self {
        let State { planner, mirror, refusals, trouble, synced, last_change, plans, last_plan, services } = state;
        let isolated = |rules: [u64; 2]| rules.into_iter().any(|word| RulesPtr(word).has(RulesPtr::ISOLATED));
        let index = planner.index();
        let described: BTreeMap<u32, bool> =
            planner.views(mirror).into_iter().map(|view| (view.endpoint.slot, view.has_object)).collect();
        Self {
            figures: EngineFigures {
                endpoints: planner.endpoints().count() as u64,
                endpoints_isolated: mirror.endpoints.values().filter(|it| isolated(it.rules)).count() as u64,
                identities: planner.universe().iter().filter(|(_, it)| !it.pods().is_empty()).count() as u64,
                namespaces: index.namespaces().count() as u64,
                pods: index.pods().count() as u64,
                policies: index.network_policies().count() as u64,
                rule_sets: planner.rule_sets() as u64,
                refusals: refusals.len() as u64,
                in_trouble: trouble.is_some(),
                plans: *plans,
                last_plan: *last_plan,
            },
            synced: *synced,
            since_change: last_change.map(|then| Instant::now().saturating_duration_since(then)),
            refusals: refusals.clone(),
            trouble: trouble.clone(),
            strangers: planner.strangers(),
            services: ServicesView::of(services),
            entries: entries(mirror, services),
            endpoints: planner
                .endpoints()
                // One that was not planned yet has no view, and its object may be still to come.
                .map(|it| (it.key.clone(), it.pod.clone(), described.get(&it.slot).copied().unwrap_or(true)))
                .collect(),
        }
    }
}

/// How many entries each map has that the daemon writes. Slots, not capacity, for ENDPOINTS.
fn entries(mirror: &Mirror, services: &Services) -> BTreeMap<&'static str, u64> {
    let Mirror {
        endpoints,
        staged: _,
        interfaces,
        addresses,
        cidrs,
        peers,
        regions,
        ports,
        rulesets,
        generation: _,
        ..
    } = mirror;
    let [frontends, backends, gone] = services.index.sizes();
    let counts = [
        (maps::ENDPOINTS, endpoints.len()),
        (maps::INTERFACES, interfaces.len()),
        (maps::ADDRESSES, addresses.len()),
        (maps::CIDRS, cidrs.len()),
        (maps::PEERS, peers.len()),
        (maps::REGIONS, regions.len()),
        (maps::PORTS, ports.len()),
        (maps::RULESETS, rulesets.len()),
        (maps::FRONTENDS, frontends),
        (maps::BACKENDS, backends),
        (maps::GONE, gone),
    ];
    counts.into_iter().map(|(name, count)| (name, count as u64)).collect()
}

/// How full a map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fill {
    /// The map.
    pub(super) info: &'static MapInfo,
    /// Entries in use.
    pub(super) entries: u64,
    /// Entries it can hold.
    pub(super) capacity: u64,
}

impl AdminService {
    /// Fill of the maps for which it is known, in the order of datapath-abi's list: those the
    /// daemon writes, and once there was a sweep those of connections. Arrays of a fixed length
    /// are always full and say nothing; of the ring buffer only the kernel knows.
    pub(super) fn fills(&self, engine: Option<&EngineView>) -> Vec<Fill> {
        let sweep = self.sweep();
        let entries = |name: &str| match (name, sweep) {
            (maps::CONNTRACK, Some(report)) => Some(u64::from(report.established)),
            (maps::PENDING, Some(report)) => Some(u64::from(report.pending)),
            _ => engine?.entries.get(name).copied(),
        };
        let capacity = |info: &MapInfo| {
            let configured = self.parts.facts.capacities.get(info.name);
            u64::from(configured.copied().unwrap_or(info.capacity))
        };
        let known = maps::ALL.iter().filter_map(|info| Some((info, entries(info.name)?)));
        known.map(|(info, entries)| Fill { info, entries, capacity: capacity(info) }).collect()
    }

    /// The last sweep of connections.
    pub(super) fn sweep(&self) -> Option<SweepReport> {
        *self.parts.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counters of the programs.
    pub(super) fn datapath(&self) -> Result<DatapathFigures, String> {
        let counters = self.parts.counts.by_reason()?.into_iter().map(|(hook, reason, counter)| {
            let maps::Counter { packets, bytes } = counter;
            PacketFigures { hook, reason, packets, bytes }
        });
        let counters = counters.collect();
        let scalars = Scalar::ALL.iter().map(|&(scalar, _)| Ok((scalar, self.parts.counts.scalar(scalar)?)));
        Ok(DatapathFigures { counters, scalars: scalars.collect::<Result<_, String>>()? })
    }

    /// Ranges of pod addresses, sorted.
    pub(super) fn pools(&self) -> Vec<PoolFigures> {
        let mut pools = (self.parts.pools)();
        pools.sort_by_key(|(range, ..)| *range);
        pools.into_iter().map(|(range, used, free)| PoolFigures { range: range.to_string(), used, free }).collect()
    }

    /// Figures of the flow pipeline.
    pub(super) fn flows(&self) -> FlowFigures {
        let pipeline = &self.parts.pipeline;
        FlowFigures {
            ledger: pipeline.ledger().balance(),
            records: pipeline.ring().len(),
            record_capacity: pipeline.ring().capacity(),
        }
    }
}

impl telemetry::Source for AdminService {
    fn snapshot(&self) -> BoxFuture<'_, Snapshot> {
        Box::pin(async {
            let engine = self.ask_within(PROBE_PATIENCE, EngineView::of).await.ok();
            let facts = &self.parts.facts;
            let source = self.source();
            let fills = self.fills(engine.as_ref()).into_iter();
            Snapshot {
                build: Build {
                    version: facts.version.clone(),
                    commit: facts.commit.clone(),
                    abi_version: facts.abi_version,
                    kernel: facts.kernel.clone(),
                    attach_mode: facts.attach_mode.clone(),
                },
                uptime: facts.started.elapsed(),
                engine: engine.map(|view| view.figures),
                datapath: self.datapath().ok(),
                maps: fills
                    .map(|Fill { info, entries, capacity }| MapFigures { name: info.name, entries, capacity })
                    .collect(),
                source: SourceFigures { synced: source.synced, errors: source.errors.len() as u64 },
                conntrack: self.sweep().map(|report| ConntrackFigures {
                    established: report.established.into(),
                    pending: report.pending.into(),
                }),
                pools: self.pools(),
                flows: self.flows(),
                exporters: self.parts.pipeline.ledger().exporters(),
                export_problems: self.parts.pipeline.ledger().export_problems().len() as u64,
                put_back: (self.parts.put_back)(),
                shared: (self.parts.shared)(),
            }
        })
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async {
            match self.ask_within(PROBE_PATIENCE, |state| (state.synced, state.trouble.clone())).await {
                Ok((synced, trouble)) => {
                    let unread = (!synced).then(|| "the source has not been read completely yet".to_owned());
                    let refused = trouble.map(|reason| format!("rules could not be brought up to date: {reason}"));
                    Health { alive: true, problems: unread.into_iter().chain(refused).collect() }
                }
                Err(why) => Health { alive: false, problems: vec![why.to_string()] },
            }
        })
    }
}
