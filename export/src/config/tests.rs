//! What is taken, and what each mistake is called.

use super::*;

const GOOD: &str = "\
exporters:
- name: denials
  includeFilters:
  - verdict: [DROPPED]
    source_pod: [shop/]
  - source_workload: [{kind: Deployment, name: web}]
  excludeFilters:
  - destination_port: ['53']
  fieldMask: [uuid, source.pod_name]
  aggregate: {windowSeconds: 30}
  file:
    path: /var/log/bulkhead/denials.ndjson
    maxMebibytes: 10
    maxAgeMinutes: 60
    keep: 3
    compress: gzip
- name: all
  file: {path: /var/log/bulkhead/flows.ndjson}
";

#[test]
fn what_is_written_is_what_is_read() {
    let settings = read(GOOD.as_bytes()).unwrap();
    assert_eq!(settings.refused, []);
    let [denials, all] = settings.exporters.as_slice() else { panic!("{settings:?}") };
    let rotation = Rotation { max_bytes: 10 << 20, max_age: Some(Duration::from_secs(3600)), keep: 3, compress: true };
    assert_eq!(denials.target, Target::File(FileTarget { path: "/var/log/bulkhead/denials.ndjson".into(), rotation }));
    assert!(denials.wanted.uid && !denials.wanted.node);
    let groups = NonZeroUsize::new(4096).unwrap();
    assert_eq!(denials.aggregation, Some(aggregate::Limits { window: Duration::from_secs(30), groups }));
    assert_eq!(all.aggregation, None);
    let rotation = Rotation { max_bytes: 100 << 20, max_age: None, keep: 5, compress: false };
    assert_eq!(all.target, Target::File(FileTarget { path: "/var/log/bulkhead/flows.ndjson".into(), rotation }));
    assert_eq!(read(GOOD.as_bytes()).unwrap().exporters, settings.exporters);
}

/// The error of a file with one exporter that is wrong and one that is not.
fn refused(text: &str) -> String {
    let text = format!("exporters:\n- name: good\n  file: {{path: /g}}\n{text}");
    let settings = read(text.as_bytes()).unwrap();
    assert_eq!(settings.exporters.len(), 1, "{settings:?}");
    let lines: Vec<_> = settings.refused.iter().map(|it| it.text.clone()).collect();
    lines.join("\n")
}

#[test]
fn every_mistake_names_exporter_field_and_fix_and_costs_no_other_exporter_anything() {
    for (text, expected) in [
        (
            "- name: a\n  file: {path: flows}",
            "exporter \"a\": exporters[1].file.path: flows is no absolute path of a file; begin it with /",
        ),
        (
            "- name: a\n  fiel: {path: /x}",
            "exporter \"a\": exporters[1].fiel (line 5): exporter has no field \"fiel\"; did you mean file?",
        ),
        (
            "- name: a\n  aggregate: {windowSeconds: 0}\n  file: {path: /x}",
            "exporter \"a\": exporters[1].aggregate.windowSeconds: 0 is not between 1 and 3600; the default is 60",
        ),
        ("- name: a", "exporter \"a\": exporters[1].file: no receiver is named; add `file:`, `otlp:` or `syslog:`"),
        (
            "- name: A_b\n  file: {path: /x}",
            "exporter \"A_b\": exporters[1].name: \"A_b\" is no name; take up to 63 lower case letters, digits and \
             dashes, such as `siem-1`",
        ),
        (
            "- name: history\n  file: {path: /x}",
            "exporter \"history\": exporters[1].name: \"history\" is the name of the flow history in statistics and \
             metrics; take another, such as `siem-1`",
        ),
        (
            "- name: good\n  file: {path: /x}",
            "exporter \"good\": exporters[1] (line 4): the one on line 2 has the same name; choose another",
        ),
        (
            "- name: b\n  file: {path: /g}",
            "exporter \"b\": exporters[1].file.path: exporter \"good\" writes to this file; choose another",
        ),
        (
            "- name: b\n  file: {path: /x, keep: 0}",
            "exporter \"b\": exporters[1].file.keep: 0 is not between 1 and 10000; the default is 5",
        ),
        (
            "- name: b\n  file: {path: /x}\n  includeFilters: [{source_ip: [10.0.0.0/99]}]",
            "exporter \"b\": exporters[1].filters: includeFilters[0].source_ip[0]: `10.0.0.0/99` is neither an IP address nor \
             a CIDR such as 10.0.0.0/8; correct it, or leave it out",
        ),
        (
            "- name: b\n  file: {path: /x}\n  excludeFilters: [{verdict: [DENIED]}]",
            "exporter \"b\": exporters[1].includeFilters/excludeFilters: verdict: unknown name \"DENIED\"; take the name that \
             the flow API has",
        ),
        (
            "- name: b\n  file: {path: /x}\n  fieldMask: [source.pod]",
            "exporter \"b\": exporters[1].fieldMask: field_mask: flow.Flow has no field `source.pod`; take paths of the flow \
             API, such as `source.pod_name`",
        ),
        ("- name: b\n  file: {path: /x, compress: brotli}", "exporter \"b\": exporters[1].file.compress (line 5): "),
    ] {
        let error = refused(text);
        assert!(error.starts_with(expected), "{text}:\n{error}\nwant\n{expected}");
    }
    assert!(read(b"exporter: []").unwrap_err().to_string().contains("exporters"));
    assert!(read(b"").unwrap().exporters.is_empty());
}

#[test]
fn a_receiver_of_otlp_has_tls_unless_asked_otherwise_by_name() {
    let one = |text: &str| {
        let text = format!("exporters:\n- name: a\n  otlp: {text}\n");
        let settings = read(text.as_bytes()).unwrap();
        match settings.exporters.into_iter().next() {
            Some(exporter) => Ok(exporter.target),
            None => Err(settings.refused[0].text.clone()),
        }
    };
    let Ok(Target::Otlp(target, spool)) = one("{endpoint: 'https://otel:4317', headers: {x-tenant: shop}}") else {
        panic!()
    };
    let tls = Tls { ca_file: crate::tls::SYSTEM_CA.into(), own: None, server_name: None };
    assert_eq!((target.tls, target.deadline), (Some(tls), Duration::from_secs(10)));
    assert_eq!(spool.limits, Limits { max_bytes: 256 << 20, sync_every: Duration::from_secs(1) });
    assert_eq!(spool.batch, BatchLimits { records: 512, bytes: 1 << 20 });
    let Ok(Target::Otlp(target, _)) = one("{endpoint: 'http://otel:4317'}") else { panic!() };
    assert_eq!(target.tls, None);
    for (text, part) in [
        ("{endpoint: 'otel:4317'}", "otlp.endpoint"),
        ("{endpoint: 'https://otel:4317/v1/logs'}", "is not the URL of a host"),
        ("{endpoint: 'ftp://otel'}", "neither https nor http"),
        ("{endpoint: 'http://otel', tls: {}}", "is not https"),
        ("{endpoint: 'https://otel', tls: {certFile: /c}}", "need each other"),
        ("{endpoint: 'https://otel', tls: {caFile: c}}", "tls.caFile: c is no absolute path; begin it with /"),
        ("{endpoint: 'https://otel', timeoutSeconds: 0}", "otlp.timeoutSeconds: 0 is not between 1 and 300"),
        ("{endpoint: 'https://otel', headers: {'X Y': a}}", "cannot be a header"),
        ("{endpoint: 'https://otel'}\n  spool: {maxMebibytes: 0}", "spool.maxMebibytes: 0"),
        ("{endpoint: 'https://otel'}\n  file: {path: /x}", "more than one receiver is named; make an exporter of each"),
    ] {
        let error = one(text).unwrap_err();
        assert!(error.starts_with("exporter \"a\": exporters[0].") && error.contains(part), "{text}: {error}");
    }
    let error = read(b"exporters:\n- name: a\n  file: {path: /x}\n  spool: {}\n").unwrap().refused[0].text.clone();
    assert!(error.contains("a file needs none; leave it out"), "{error}");
}

#[test]
fn a_receiver_of_syslog_has_tls_unless_asked_otherwise_by_name() {
    let one = |text: &str| {
        let text = format!("exporters:\n- name: a\n  syslog: {text}\n");
        let settings = read(text.as_bytes()).unwrap();
        match settings.exporters.into_iter().next() {
            Some(exporter) => Ok(exporter.target),
            None => Err(settings.refused[0].text.clone()),
        }
    };
    let Ok(Target::Syslog(target, _)) = one("{address: 'logs:6514'}") else { panic!() };
    assert_eq!(target.style, Style { facility: 16, app_name: "bulkhead".to_owned(), json: true });
    assert!(target.tls.is_some());
    let Ok(Target::Syslog(target, _)) = one("{address: '[::1]:601', transport: tcp, message: text, facility: 4}")
    else {
        panic!()
    };
    assert_eq!((target.tls, target.style.facility, target.style.json), (None, 4, false));
    for (text, part) in [
        ("{address: logs}", "syslog.address: \"logs\" is not HOST:PORT; write it like logs.example:6514"),
        ("{address: 'logs:0'}", "is not HOST:PORT"),
        ("{address: ':514'}", "is not HOST:PORT"),
        ("{address: 'logs:601', transport: tcp, tls: {}}", "syslog.tls: is there"),
        ("{address: 'logs:601', transport: udp}", "syslog.transport"),
        ("{address: 'logs:601', facility: 24}", "syslog.facility: 24 is not between 0 and 23"),
        ("{address: 'logs:601', appName: 'a b'}", "no APP-NAME"),
    ] {
        let error = one(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}
