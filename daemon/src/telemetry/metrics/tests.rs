//! Holds that there is no dead metric: all that are declared, all reasons and all scalars appear
//! in the text with the value they were given, and nothing else does.

use std::{collections::BTreeSet, time::Duration};

use flows::ledger::Balance;

use super::*;
use crate::app::attachments::guard::PutBackFigures;
use crate::telemetry::{CniVerb, ConntrackFigures, MapFigures, PoolFigures, SourceFigures};

/// Every figure has a value of its own.
fn full() -> Snapshot {
    let counters = (0..event::HOOKS).flat_map(|hook| {
        let reasons = std::iter::once(0).chain(DropReason::ALL.iter().map(|&reason| reason as u32));
        reasons.map(move |reason| PacketFigures {
            hook,
            reason,
            packets: u64::from(1000 * (hook + 1) + reason),
            bytes: u64::from(100_000 * (hook + 1) + reason),
        })
    });
    Snapshot {
        build: Build {
            version: "1.2.3".to_owned(),
            commit: "a\"b\\c\nd".to_owned(),
            abi_version: 7,
            kernel: "6.12.9".to_owned(),
            attach_mode: "tcx".to_owned(),
        },
        uptime: Duration::from_millis(1500),
        engine: Some(EngineFigures {
            endpoints: 11,
            endpoints_isolated: 12,
            identities: 13,
            namespaces: 14,
            pods: 15,
            policies: 16,
            rule_sets: 17,
            refusals: 18,
            in_trouble: true,
            plans: 19,
            last_plan: Duration::from_micros(250),
        }),
        datapath: Some(DatapathFigures {
            counters: counters.collect(),
            scalars: (20..).zip(Scalar::ALL).map(|(value, &(scalar, _))| (scalar, value)).collect(),
        }),
        maps: vec![
            MapFigures { name: "PEERS", entries: 30, capacity: 31 },
            MapFigures { name: "PORTS", entries: 32, capacity: 33 },
        ],
        source: SourceFigures { synced: true, errors: 34 },
        conntrack: Some(ConntrackFigures { established: 35, pending: 36 }),
        pools: vec![PoolFigures { range: "fd00::/64".to_owned(), used: 37, free: u64::MAX }],
        flows: FlowFigures {
            ledger: Balance {
                observed: 40,
                kept: 41,
                kernel_ring_full: 42,
                malformed: 43,
                passed: 44,
                delivered: 45,
                filtered: 46,
                reader_lost: 47,
                readers: 48,
                readers_refused: 49,
                dns: dns::Figures {
                    packets: 80,
                    malformed: 81,
                    unsolicited: 82,
                    answered: 83,
                    unanswered: 84,
                    unfollowed: 85,
                },
            },
            records: 50,
            record_capacity: 51,
        },
        exporters: vec![ExporterBalance {
            name: "siem".to_owned(),
            kind: "file",
            carried: 61,
            observed: 62,
            exported: 63,
            filtered: 64,
            aggregated: 91,
            aggregates: 92,
            spooled: 65,
            dropped: [66, 67, 68, 69, 70, 76],
            spool_bytes: 71,
            retries: 72,
            trouble: "disk full".to_owned(),
        }],
        export_problems: 60,
        put_back: PutBackFigures { done: 52, failed: 53 },
        shared: Some(RegistryFigures {
            numbers: 54,
            found: 55,
            last: Duration::from_millis(5600),
            failures: 57,
            conflicts: 58,
        }),
    }
}

fn text(snapshot: Snapshot) -> String {
    let cni = CniMetrics::default();
    cni.observe(CniVerb::Add, 0, Duration::from_millis(7));
    cni.observe(CniVerb::Add, 11, Duration::from_millis(70));
    encode(snapshot, &cni).unwrap()
}

/// Names in `# TYPE` lines.
fn families(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
}

fn family(metric: &Metric) -> String {
    let unit = if metric.kind == Kind::GaugeSeconds { "_seconds" } else { "" };
    format!("{PREFIX}_{}{unit}", metric.name)
}

#[test]
fn every_declared_metric_is_there_and_no_other() {
    let text = text(full());
    let mut declared: BTreeSet<String> = DECLARED.iter().map(family).collect();
    assert_eq!(declared.len(), DECLARED.len(), "two metrics have one name");
    declared.extend(Scalar::ALL.iter().map(|(scalar, name)| family(&scalar_metric(*scalar, name))));
    declared.extend(["bulkhead_cni_requests", "bulkhead_cni_request_duration_seconds"].map(str::to_owned));
    assert_eq!(families(&text), declared);
    for name in &declared {
        assert!(text.lines().any(|line| line.starts_with(&format!("# HELP {name} "))), "{name} has no help");
        assert!(text.lines().any(|line| line.starts_with(name.as_str())), "{name} has no sample");
    }
}

#[test]
fn every_reason_at_every_hook_has_its_own_count() {
    let text = text(full());
    for (hook, name) in (1..).zip(HOOKS) {
        for &reason in DropReason::ALL {
            let labels = format!("{{hook=\"{name}\",reason=\"{}\"}}", reason.name());
            let (packets, bytes) = (1000 * hook + reason as u32, 100_000 * hook + reason as u32);
            for sample in [
                format!("bulkhead_dropped_packets_total{labels} {packets}\n"),
                format!("bulkhead_dropped_bytes_total{labels} {bytes}\n"),
            ] {
                assert!(text.contains(&sample), "no {sample}");
            }
        }
        assert!(text.contains(&format!("bulkhead_passed_packets_total{{hook=\"{name}\"}} {}\n", 1000 * hook)));
        assert!(text.contains(&format!("bulkhead_passed_bytes_total{{hook=\"{name}\"}} {}\n", 100_000 * hook)));
    }
}

#[test]
fn values_reach_their_metric() {
    let text = text(full());
    for sample in [
        "bulkhead_uptime_seconds 1.5",
        "bulkhead_engine_up 1",
        "bulkhead_engine_trouble 1",
        "bulkhead_plans_total 19",
        "bulkhead_last_plan_duration_seconds 0.00025",
        "bulkhead_endpoints 11",
        "bulkhead_endpoints_isolated 12",
        "bulkhead_identities 13",
        "bulkhead_namespaces 14",
        "bulkhead_pods 15",
        "bulkhead_policies 16",
        "bulkhead_rule_sets 17",
        "bulkhead_refusals 18",
        "bulkhead_events_lost_total 20",
        "bulkhead_redecided_total 24",
        "bulkhead_map_entries{map=\"PEERS\"} 30",
        "bulkhead_map_capacity{map=\"PORTS\"} 33",
        "bulkhead_source_synced 1",
        "bulkhead_source_errors 34",
        "bulkhead_connections{state=\"established\"} 35",
        "bulkhead_connections{state=\"pending\"} 36",
        "bulkhead_ipam_addresses_used{range=\"fd00::/64\"} 37",
        "bulkhead_ipam_addresses_free{range=\"fd00::/64\"} 18446744073709553000.0",
        "bulkhead_flow_events_observed_total 40",
        "bulkhead_flow_records_kept_total 41",
        "bulkhead_flow_events_dropped_total{reason=\"kernel_ring_full\"} 42",
        "bulkhead_flow_events_dropped_total{reason=\"malformed\"} 43",
        "bulkhead_flow_reader_records_passed_total 44",
        "bulkhead_flow_reader_records_delivered_total 45",
        "bulkhead_flow_reader_records_filtered_total 46",
        "bulkhead_flow_reader_records_lost_total 47",
        "bulkhead_flow_readers 48",
        "bulkhead_flow_readers_refused_total 49",
        "bulkhead_flow_records_held 50",
        "bulkhead_dns_packets_total 80",
        "bulkhead_dns_messages_ignored_total{reason=\"malformed\"} 81",
        "bulkhead_dns_messages_ignored_total{reason=\"unsolicited\"} 82",
        "bulkhead_dns_lookups_total{outcome=\"answered\"} 83",
        "bulkhead_dns_lookups_total{outcome=\"unanswered\"} 84",
        "bulkhead_dns_lookups_total{outcome=\"unfollowed\"} 85",
        "bulkhead_export_problems 60",
        "bulkhead_export_records_carried_total{exporter=\"siem\",kind=\"file\"} 61",
        "bulkhead_export_records_observed_total{exporter=\"siem\",kind=\"file\"} 62",
        "bulkhead_export_records_exported_total{exporter=\"siem\",kind=\"file\"} 63",
        "bulkhead_export_records_filtered_total{exporter=\"siem\",kind=\"file\"} 64",
        "bulkhead_export_records_spooled{exporter=\"siem\",kind=\"file\"} 65",
        "bulkhead_export_records_dropped_total{exporter=\"siem\",kind=\"file\",reason=\"ring_overrun\"} 66",
        "bulkhead_export_records_dropped_total{exporter=\"siem\",kind=\"file\",reason=\"rejected\"} 70",
        "bulkhead_export_records_dropped_total{exporter=\"siem\",kind=\"file\",reason=\"expired\"} 76",
        "bulkhead_export_spool_bytes{exporter=\"siem\",kind=\"file\"} 71",
        "bulkhead_export_retries_total{exporter=\"siem\",kind=\"file\"} 72",
        "bulkhead_export_trouble{exporter=\"siem\",kind=\"file\"} 1",
        "bulkhead_flow_record_capacity 51",
        "bulkhead_cni_requests_total{verb=\"ADD\",code=\"0\"} 1",
        "bulkhead_cni_requests_total{verb=\"ADD\",code=\"11\"} 1",
        "bulkhead_cni_requests_total{verb=\"GC\",code=\"0\"} 0",
        "bulkhead_cni_request_duration_seconds_count{verb=\"ADD\"} 2",
        "bulkhead_cni_request_duration_seconds_bucket{le=\"0.01\",verb=\"ADD\"} 1",
    ] {
        assert!(text.lines().any(|line| line == sample), "no {sample:?} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn labels_cannot_break_out_of_their_line() {
    let text = text(full());
    let line = text.lines().find(|line| line.starts_with("bulkhead_build_info{")).unwrap();
    let labels = r#"version="1.2.3",commit="a\"b\\c\nd",abi="7",kernel="6.12.9",attach_mode="tcx""#;
    assert_eq!(line, format!("bulkhead_build_info{{{labels}}} 1"));
}

#[test]
fn what_is_not_known_is_absent_and_not_zero() {
    let text = text(Snapshot::default());
    let absent = ["bulkhead_endpoints", "bulkhead_dropped_packets", "bulkhead_events_lost", "bulkhead_connections"];
    let families = families(&text);
    for name in absent {
        assert!(!families.contains(name), "{name}");
    }
    assert!(text.contains("bulkhead_engine_up 0\n"));
}
