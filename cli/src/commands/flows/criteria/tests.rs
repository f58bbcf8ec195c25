use super::*;

/// Makes an option as the command line would.
fn given(flag: &'static str, field: Field, end: End, value: &str) -> Given {
    Given { flag, field, end, value: Value::parse(field, value).expect(value), negated: false }
}

fn not(given: Given) -> Given {
    Given { negated: true, ..given }
}

/// Source and destination pods of each filter.
fn pods(filters: &[FlowFilter]) -> Vec<(Vec<String>, Vec<String>)> {
    filters.iter().map(|filter| (filter.source_pod.clone(), filter.destination_pod.clone())).collect()
}

fn pair(source: &[&str], destination: &[&str]) -> (Vec<String>, Vec<String>) {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    (own(source), own(destination))
}

#[test]
fn no_options_are_no_filters() {
    assert_eq!(filters(&[]).unwrap(), (vec![], vec![]));
}

#[test]
fn either_end_becomes_two_alternatives() {
    let (white, black) = filters(&[given("pod", Field::Pod, End::Either, "shop/web")]).unwrap();
    assert_eq!(pods(&white), [pair(&["shop/web"], &[]), pair(&[], &["shop/web"])]);
    assert!(black.is_empty());
}

#[test]
fn different_options_must_all_match_and_values_of_one_are_alternatives() {
    let options = [
        given("from-pod", Field::Pod, End::Source, "shop/web"),
        given("from-pod", Field::Pod, End::Source, "shop/api"),
        given("port", Field::Port, End::Either, "5432"),
        given("protocol", Field::Protocol, End::Whole, "TCP"),
        given("verdict", Field::Verdict, End::Whole, "denied"),
    ];
    let (white, _) = filters(&options).unwrap();
    let base = FlowFilter {
        source_pod: vec!["shop/web".into(), "shop/api".into()],
        protocol: vec!["tcp".into()],
        verdict: vec![Verdict::Dropped as i32],
        ..FlowFilter::default()
    };
    let port = vec!["5432".to_owned()];
    let expected =
        [FlowFilter { source_port: port.clone(), ..base.clone() }, FlowFilter { destination_port: port, ..base }];
    assert_eq!(white, expected);
}

#[test]
fn a_namespace_completes_pods_that_name_none() {
    let shop = || given("namespace", Field::Namespace, End::Either, "shop");
    let (white, _) = filters(&[shop(), given("pod", Field::Pod, End::Either, "web")]).unwrap();
    assert_eq!(pods(&white), [pair(&["shop/web"], &[]), pair(&[], &["shop/web"])]);
    let (white, _) = filters(&[shop(), given("to-pod", Field::Pod, End::Destination, "db")]).unwrap();
    assert_eq!(pods(&white), [pair(&[], &["shop/db"])]);
    // Alone it is all of the namespace; a pod without one is that pod anywhere.
    let (white, _) = filters(&[shop()]).unwrap();
    assert_eq!(pods(&white), [pair(&["shop/"], &[]), pair(&[], &["shop/"])]);
    let (white, _) = filters(&[given("to-pod", Field::Pod, End::Destination, "db")]).unwrap();
    assert_eq!(pods(&white), [pair(&[], &["/db"])]);
}

#[test]
fn a_namespace_beside_a_complete_pod_is_a_second_condition() {
    let options =
        [given("namespace", Field::Namespace, End::Either, "shop"), given("pod", Field::Pod, End::Either, "other/x")];
    let (white, _) = filters(&options).unwrap();
    // Both on one end cannot be.
    assert_eq!(pods(&white), [pair(&["shop/"], &["other/x"]), pair(&["other/x"], &["shop/"])]);
}

#[test]
fn conditions_that_exclude_each_other_are_refused() {
    let options = [
        given("from-namespace", Field::Namespace, End::Source, "shop"),
        given("from-pod", Field::Pod, End::Source, "other/x"),
    ];
    let error = filters(&options).unwrap_err();
    assert!(error.to_string().contains("no pod can match"), "{error}");
}

#[test]
fn what_a_filter_cannot_say_is_refused() {
    let options =
        [given("ip", Field::Ip, End::Either, "10.0.0.1"), given("from-ip", Field::Ip, End::Source, "10.0.0.0/8")];
    let error = filters(&options).unwrap_err();
    assert_eq!(error.to_string(), "--ip and --from-ip cannot be combined");
}

#[test]
fn each_not_leaves_out_on_its_own() {
    let options = [
        not(given("protocol", Field::Protocol, End::Whole, "udp")),
        not(given("to-port", Field::Port, End::Destination, "80")),
        given("verdict", Field::Verdict, End::Whole, "allowed"),
    ];
    let (white, black) = filters(&options).unwrap();
    assert_eq!(white, [FlowFilter { verdict: vec![Verdict::Forwarded as i32], ..FlowFilter::default() }]);
    let udp = FlowFilter { protocol: vec!["udp".into()], ..FlowFilter::default() };
    let port = FlowFilter { destination_port: vec!["80".into()], ..FlowFilter::default() };
    assert_eq!(black, [udp, port]);
}

#[test]
fn values_are_checked_before_anything_is_asked() {
    for (field, text, says) in [
        (Field::Namespace, "Shop", "shop"),
        (Field::Namespace, "shop/", "shop"),
        (Field::Pod, "/", "shop/web-0"),
        (Field::Pod, "a/b/c", "shop/web-0"),
        (Field::Pod, "web*", "shop/web-0"),
        (Field::Label, " ", "app=web"),
        (Field::Workload, "Deployment/", "Deployment/web"),
        (Field::Ip, "10.0.0.0/33", "CIDR"),
        (Field::Ip, "fd00::/129", "CIDR"),
        (Field::Ip, "10.0.0", "CIDR"),
        (Field::Identity, "16777216", "16777215"),
        (Field::Identity, "moon", "world"),
        (Field::Port, "0", "65535"),
        (Field::Port, "http", "65535"),
        (Field::Protocol, "http", "sctp"),
        (Field::Verdict, "maybe", "denied"),
    ] {
        let error = Value::parse(field, text).expect_err(text);
        assert!(error.contains(says), "{field:?} {text}: {error}");
    }
}

#[test]
fn identities_have_names() {
    for (text, number) in [("world", 2), ("host", 1), ("0", 0), ("16777215", identity::MAX)] {
        assert_eq!(Value::parse(Field::Identity, text), Ok(Value::Identity(number)));
    }
}
