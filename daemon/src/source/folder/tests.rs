//! What follows from changes of files, step by step.

use super::*;

/// Minimal manifests: `ns a`, `pod a`, `policy a` by name; a namespace's label tells versions apart.
fn ns(name: &str, version: u32) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{v: \"{version}\"}}}}\n")
}

/// Names its object, and is refused.
fn bad_ns(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{v: 1}}}}\n")
}

/// Does not tell which object it is.
const GARBAGE: &str = "---\nkind: [\n";

fn write(file: &str, text: impl Into<String>) -> (String, Change) {
    (file.to_owned(), Change::Content(text.into().into_bytes()))
}

fn remove(file: &str) -> (String, Change) {
    (file.to_owned(), Change::Removed)
}

/// Events in one line each, short enough to be read in a table.
fn show(events: &[SourceEvent]) -> Vec<String> {
    let line = |event: &SourceEvent| match event {
        SourceEvent::Apply(Object::Namespace(namespace), origin) => {
            let version = namespace.labels().get("v").unwrap_or("-");
            format!("apply {} v{version} from {}#{}", namespace.name(), origin.file, origin.document)
        }
        SourceEvent::Apply(object, origin) => format!("apply {} from {}", object.key(), origin.file),
        SourceEvent::Delete(key) => format!("delete {key}"),
        SourceEvent::Error(error) => format!("error {}", short(error)),
        SourceEvent::Resolved(error) => format!("resolved {}", short(error)),
        SourceEvent::Synced => "synced".to_owned(),
        SourceEvent::Number(..) | SourceEvent::NumbersShared => panic!("files have no numbers"),
    };
    events.iter().map(line).collect()
}

fn short(error: &SourceError) -> String {
    let key = error.key.as_ref().map_or("?".to_owned(), ToString::to_string);
    let problem = match &error.problem {
        SourceProblem::Refused(refused) => format!("document {}", refused.document),
        SourceProblem::Duplicate { winner, .. } => format!("also in {}#{}", winner.file, winner.document),
        SourceProblem::Unreadable(reason) | SourceProblem::Slow(reason) => reason.clone(),
    };
    let closed = if error.closed { ", denies" } else { "" };
    format!("{}: {key}: {problem}, keeps {}{closed}", error.place, error.kept)
}

/// Changes, and the events they give.
type Step<'a> = (&'a [(String, Change)], &'a [&'a str]);

/// Runs steps and compares what each gives.
fn check(steps: &[Step<'_>]) -> Folder {
    let mut folder = Folder::default();
    for (number, (changes, expected)) in steps.iter().enumerate() {
        let events = folder.update(changes.iter().cloned());
        assert_eq!(show(&events), *expected, "step {}", number + 1);
        let errors = folder.status(true).errors;
        assert!(errors.is_sorted(), "step {}", number + 1);
    }
    folder
}

#[test]
fn files_come_change_and_go() {
    check(&[
        (
            &[write("a", ns("x", 1) + &ns("xx", 1)), write("b", ns("z", 1))],
            &["apply x v1 from a#1", "apply xx v1 from a#2", "apply z v1 from b#1"],
        ),
        (&[write("a", ns("x", 1) + &ns("xx", 1))], &[]),
        (&[write("a", ns("xx", 1) + &ns("x", 2))], &["apply x v2 from a#2"]),
        (&[write("a", ns("x", 2))], &["delete Namespace xx"]),
        (&[write("a", "")], &["delete Namespace x"]),
        (&[remove("b")], &["delete Namespace z"]),
        (&[remove("b"), remove("never")], &[]),
    ]);
}

#[test]
fn a_rename_deletes_and_applies_nothing() {
    let folder = check(&[
        (&[write("a", ns("x", 1))], &["apply x v1 from a#1"]),
        (&[remove("a"), write("b", ns("x", 1))], &[]),
        (&[write("a", ns("x", 1)), remove("b")], &[]),
    ]);
    let origins: Vec<_> = folder.status(true).objects.into_values().map(|origin| origin.file).collect();
    assert_eq!(origins, ["a"]);
}

#[test]
fn a_refused_document_leaves_the_last_good_version_in_force() {
    check(&[
        (&[write("a", ns("x", 1) + &ns("xx", 1))], &["apply x v1 from a#1", "apply xx v1 from a#2"]),
        (
            &[write("a", bad_ns("x") + &ns("xx", 2))],
            &["apply xx v2 from a#2", "error a: Namespace x: document 1, keeps 1"],
        ),
        (&[write("a", bad_ns("x") + &ns("xx", 3))], &["apply xx v3 from a#2"]),
        (
            &[write("a", ns("x", 2) + &ns("xx", 3))],
            &["apply x v2 from a#1", "resolved a: Namespace x: document 1, keeps 1"],
        ),
    ]);
}

#[test]
fn a_refused_document_without_a_good_version_brings_nothing() {
    check(&[
        (&[write("a", bad_ns("x"))], &["error a: Namespace x: document 1, keeps 0"]),
        (&[write("a", ns("x", 1))], &["apply x v1 from a#1", "resolved a: Namespace x: document 1, keeps 0"]),
    ]);
}

/// A policy for who is labelled so, with a mistake in a rule or without.
fn pol(app: &str, cidr: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: pol, namespace: x}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: {app}}}}}\n  policyTypes: [Ingress]\n  \
         ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]\n"
    )
}

#[test]
fn one_stands_in_for_a_refused_policy_until_a_good_version_is_known() {
    let (good, bad) = (pol("db", "10.0.0.0/8"), pol("db", "10.0.0.0/88"));
    let denies = "a: NetworkPolicy x/pol: document 1, keeps 0, denies";
    let folder = check(&[
        (&[write("a", &bad)], &["apply NetworkPolicy x/pol from a", &format!("error {denies}")]),
        // Another that cannot be read either selects others.
        (&[write("a", pol("web", "10.0.0.0/88"))], &["apply NetworkPolicy x/pol from a"]),
        (
            &[write("a", bad.clone() + GARBAGE)],
            &["apply NetworkPolicy x/pol from a", "error a: ?: document 2, keeps 0"],
        ),
        (
            &[write("a", GARBAGE)],
            &[
                "resolved a: ?: document 2, keeps 0",
                "resolved a: NetworkPolicy x/pol: document 1, keeps 0, denies",
                "error a: ?: document 1, keeps 1",
            ],
        ),
        (&[write("a", &bad)], &["resolved a: ?: document 1, keeps 1", &format!("error {denies}")]),
        // A good one elsewhere counts, though its file comes later.
        (
            &[write("b", &good)],
            &[
                "apply NetworkPolicy x/pol from b",
                &format!("resolved {denies}"),
                "error a: NetworkPolicy x/pol: document 1, keeps 0",
            ],
        ),
        (
            &[remove("b")],
            &[
                "apply NetworkPolicy x/pol from a",
                "resolved a: NetworkPolicy x/pol: document 1, keeps 0",
                &format!("error {denies}"),
            ],
        ),
        (&[write("a", &good)], &["apply NetworkPolicy x/pol from a", &format!("resolved {denies}")]),
        (&[write("a", &bad)], &["error a: NetworkPolicy x/pol: document 1, keeps 1"]),
        (
            &[write("a", "# none")],
            &["delete NetworkPolicy x/pol", "resolved a: NetworkPolicy x/pol: document 1, keeps 1"],
        ),
    ]);
    assert_eq!(folder.status(true), SourceStatus { synced: true, ..SourceStatus::default() });
}

#[test]
fn an_object_named_by_a_refused_document_stays_but_others_may_go() {
    check(&[
        (&[write("a", ns("x", 1) + &ns("xx", 1))], &["apply x v1 from a#1", "apply xx v1 from a#2"]),
        (&[write("a", bad_ns("x"))], &["delete Namespace xx", "error a: Namespace x: document 1, keeps 1"]),
        (&[write("a", "# none")], &["delete Namespace x", "resolved a: Namespace x: document 1, keeps 1"]),
    ]);
}

#[test]
fn a_document_that_names_no_object_keeps_everything_last_known_from_its_file() {
    check(&[
        (
            &[write("a", ns("x", 1) + &ns("xx", 1)), write("b", ns("z", 1))],
            &["apply x v1 from a#1", "apply xx v1 from a#2", "apply z v1 from b#1"],
        ),
        (&[write("a", ns("x", 2) + GARBAGE)], &["apply x v2 from a#1", "error a: ?: document 2, keeps 1"]),
        (&[write("a", GARBAGE)], &["resolved a: ?: document 2, keeps 1", "error a: ?: document 1, keeps 2"]),
        (
            &[write("a", [0xff, 0xfe].map(char::from).iter().collect::<String>())],
            &["resolved a: ?: document 1, keeps 2", "error a: ?: document 1, keeps 2"],
        ),
        (&[remove("a")], &["delete Namespace x", "delete Namespace xx", "resolved a: ?: document 1, keeps 2"]),
    ]);
}

#[test]
fn a_file_that_cannot_be_read_or_is_too_large_keeps_its_objects() {
    let mut folder = Folder::new(Limits { file_bytes: 100, ..Limits::default() });
    assert_eq!(show(&folder.update([write("a", ns("x", 1))])), ["apply x v1 from a#1"]);
    let unreadable = || ("a".to_owned(), Change::Unreadable("denied".to_owned()));
    assert_eq!(show(&folder.update([unreadable()])), ["error a: ?: denied, keeps 1"]);
    assert_eq!(show(&folder.update([unreadable()])), Vec::<String>::new());
    let large = ns("x", 1) + &"#".repeat(100);
    let expected = ["resolved a: ?: denied, keeps 1", "error a: ?: document 0, keeps 1"];
    assert_eq!(show(&folder.update([write("a", large)])), expected);
    assert_eq!(show(&folder.update([write("a", ns("x", 1))])), ["resolved a: ?: document 0, keeps 1"]);
}

#[test]
fn the_first_file_by_name_wins_and_the_next_takes_over() {
    let folder = check(&[
        (&[write("b", ns("x", 2))], &["apply x v2 from b#1"]),
        (&[write("c", ns("x", 3))], &["error c: Namespace x: also in b#1, keeps 0"]),
        (
            &[write("a", ns("x", 1))],
            &[
                "apply x v1 from a#1",
                "resolved c: Namespace x: also in b#1, keeps 0",
                "error b: Namespace x: also in a#1, keeps 0",
                "error c: Namespace x: also in a#1, keeps 0",
            ],
        ),
        (
            &[remove("a")],
            &[
                "apply x v2 from b#1",
                "resolved b: Namespace x: also in a#1, keeps 0",
                "resolved c: Namespace x: also in a#1, keeps 0",
                "error c: Namespace x: also in b#1, keeps 0",
            ],
        ),
        (&[remove("b")], &["apply x v3 from c#1", "resolved c: Namespace x: also in b#1, keeps 0"]),
        (&[remove("c")], &["delete Namespace x"]),
    ]);
    assert_eq!(folder.status(true), SourceStatus { synced: true, ..SourceStatus::default() });
}

#[test]
fn the_last_good_version_of_the_winner_wins_too() {
    check(&[
        (
            &[write("a", ns("x", 1)), write("b", ns("x", 2))],
            &["apply x v1 from a#1", "error b: Namespace x: also in a#1, keeps 0"],
        ),
        (&[write("a", bad_ns("x"))], &["error a: Namespace x: document 1, keeps 1"]),
        (
            &[write("a", "# none")],
            &[
                "apply x v2 from b#1",
                "resolved a: Namespace x: document 1, keeps 1",
                "resolved b: Namespace x: also in a#1, keeps 0",
            ],
        ),
    ]);
}

#[test]
fn a_refused_definition_does_not_win_over_a_good_one() {
    check(&[(
        &[write("a", bad_ns("x")), write("b", ns("x", 2))],
        &["apply x v2 from b#1", "error a: Namespace x: document 1, keeps 0"],
    )]);
}

#[test]
fn within_a_file_the_first_definition_wins() {
    check(&[
        (
            &[write("a", ns("x", 1) + &ns("x", 2))],
            &["apply x v1 from a#1", "error a: Namespace x: also in a#1, keeps 0"],
        ),
        (&[write("a", ns("x", 2))], &["apply x v2 from a#1", "resolved a: Namespace x: also in a#1, keeps 0"]),
        (
            &[write("a", bad_ns("x") + &ns("x", 3))],
            &["apply x v3 from a#2", "error a: Namespace x: document 1, keeps 0"],
        ),
    ]);
}

#[test]
fn what_isolates_comes_before_and_leaves_after_what_is_isolated() {
    let all = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: x}\n---\n\
               apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: pol, namespace: x}\n"
        .to_owned()
        + &ns("x", 1);
    check(&[
        (&[write("a", all)], &["apply x v1 from a#3", "apply NetworkPolicy x/pol from a", "apply Pod x/p from a"]),
        (&[remove("a")], &["delete Pod x/p", "delete NetworkPolicy x/pol", "delete Namespace x"]),
    ]);
}

#[test]
fn errors_say_where_and_what_stays() {
    let mut folder = Folder::default();
    folder.update([write("a.yaml", ns("x", 1) + &ns("xx", 1)), write("b.yaml", ns("xx", 2))]);
    folder.update([write("a.yaml", bad_ns("x") + &ns("xx", 1) + GARBAGE)]);
    let texts: Vec<_> = folder.status(true).errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "a.yaml, document 3 (line 10): line 10: this is not YAML: while parsing a node, did not find expected node \
             content; look at the indentation, the quotes and the brackets up to this line",
            "a.yaml, document 1 (line 2): Namespace x: metadata.labels.v (line 4): expected text, found the number 1; \
             put it in quotes: \"1\" (the last good version stays in force)",
            "b.yaml, document 1 (line 2): Namespace xx is also defined in a.yaml, document 2 (line 6), which counts; \
             remove one of them",
        ]
    );
}

/// However files change, what is in force is what the files as they are now say, plus what
/// refused documents keep; and the events, applied one after the other, give just that.
#[test]
fn events_add_up_to_what_is_in_force() {
    let contents = ["", GARBAGE, "# none"].map(str::to_owned).into_iter();
    let contents: Vec<String> = contents
        .chain([
            ns("x", 1),
            ns("x", 2),
            bad_ns("x"),
            ns("xx", 1) + &ns("x", 1),
            ns("xx", 2) + GARBAGE,
            ns("x", 3) + &ns("x", 1),
            pol("db", "10.0.0.0/8"),
            pol("db", "10.0.0.0/88"),
            ns("x", 1) + &pol("web", "10.0.0.0/88"),
        ])
        .collect();
    let mut seed = 1_u64;
    let mut random = |below: usize| {
        // Numerical Recipes' linear congruence: the test must not depend on chance.
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % (1 << 32);
        usize::try_from(seed >> 16).unwrap_or(0) % below
    };
    let mut folder = Folder::default();
    let mut applied: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    let mut standing: BTreeSet<SourceError> = BTreeSet::new();
    for step in 0..3000 {
        let changes: Vec<_> = (0..=random(3))
            .map(|_| {
                let file = ["a", "b", "c"][random(3)];
                match random(4) {
                    0 => remove(file),
                    1 => (file.to_owned(), Change::Unreadable("no".to_owned())),
                    _ => write(file, contents[random(contents.len())].clone()),
                }
            })
            .collect();
        for event in folder.update(changes) {
            match event {
                SourceEvent::Apply(object, _) => {
                    let before = applied.insert(object.key(), object.clone());
                    assert_ne!(before, Some(object), "step {step}: applied without a change");
                }
                SourceEvent::Delete(key) => assert!(applied.remove(&key).is_some(), "step {step}: {key} was not there"),
                SourceEvent::Error(error) => assert!(standing.insert(error), "step {step}: told twice"),
                SourceEvent::Resolved(error) => assert!(standing.remove(&error), "step {step}: was not there"),
                SourceEvent::Synced => panic!("only the watcher says that"),
                SourceEvent::Number(..) | SourceEvent::NumbersShared => panic!("files have no numbers"),
            }
        }
        let status = folder.status(true);
        assert_eq!(applied.keys().collect::<Vec<_>>(), status.objects.keys().collect::<Vec<_>>(), "step {step}");
        assert_eq!(standing.iter().cloned().collect::<Vec<_>>(), status.errors, "step {step}");
    }
}
