use dns::{Answer, Record};

use super::*;
use crate::fixture;

fn redaction(labels: &[&str], names: &[&str]) -> Redaction {
    let owned = |list: &[&str]| list.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
    Redaction::new(&owned(labels), &owned(names)).unwrap()
}

#[test]
fn values_go_and_keys_stay() {
    let labels = [("app", "web"), ("example.com/customer", "acme"), ("example.com/cost", "7")];
    let labels = Arc::new(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let told = |patterns: &[&str]| {
        let told = redaction(patterns, &[]).labels(Arc::clone(&labels));
        told.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(told(&["*/customer"]), "app=web example.com/cost=7 example.com/customer=redacted");
    assert_eq!(told(&["example.com/*", "app"]), "app=redacted example.com/cost=redacted example.com/customer=redacted");
    assert!(Arc::ptr_eq(&redaction(&["other"], &["*"]).labels(Arc::clone(&labels)), &labels), "nothing is copied");
}

#[test]
fn a_hidden_name_is_nowhere_in_its_lookup_nor_in_that_of_another() {
    let answer = |records: &[&str]| {
        let record = |text: &&str| match text.parse() {
            Ok(address) => Record { rtype: 1, class: 1, ttl_s: 60, data: Data::Address(address) },
            Err(_) => Record { rtype: 5, class: 1, ttl_s: 60, data: Data::Text((*text).into()) },
        };
        let records = records.iter().map(record).collect();
        Outcome::Answered(Answer { latency_ns: 1, rcode: 0, flags: 0x8180, records, announced: 2, cut: false })
    };
    let told = |names: &[&str], question: &str, records: &[&str]| {
        let mut told = fixture::lookup(answer(records));
        told.lookup.question.name = question.into();
        redaction(&[], names).lookup(&mut told);
        let Outcome::Answered(answer) = &told.lookup.outcome else { panic!("answered") };
        let records: Vec<String> = answer.records.iter().map(|record| record.data.to_string()).collect();
        format!("{}: {}", told.lookup.question.name, records.join(", "))
    };
    let answers = ["edge.example.net", "192.0.2.7", "10 mail.secret.example."];
    let hidden = ["*.Secret.example"];
    assert_eq!(told(&hidden, "db.secret.example", &answers), "redacted: redacted, 192.0.2.7, redacted");
    assert_eq!(told(&hidden, "www.example", &answers), "www.example: edge.example.net, 192.0.2.7, redacted");
    assert_eq!(told(&["*"], "www.example", &answers), "redacted: redacted, 192.0.2.7, redacted");
    assert_eq!(told(&[], "www.example", &answers[..1]), "www.example: edge.example.net");
    let mut unanswered = fixture::lookup(Outcome::Unanswered);
    unanswered.lookup.question.name = "a.secret.example".into();
    redaction(&[], &hidden).lookup(&mut unanswered);
    assert_eq!(&*unanswered.lookup.question.name, REDACTED);
}

#[test]
fn a_pattern_that_hides_nothing_is_refused() {
    for (labels, names) in
        [(&["app=web"][..], &[][..]), (&[""], &[]), (&["a b"], &[]), (&[], &["example.com."]), (&[], &[""])]
    {
        let owned = |list: &[&str]| list.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
        let error = Redaction::new(&owned(labels), &owned(names)).unwrap_err();
        assert!(error.to_string().contains("matches nothing"), "{error}");
    }
}
