//! Input that was made to hurt: whatever the bytes, reading them gives results, in bounded time
//! and memory.

use std::time::{Duration, Instant};

use objects::{Limits, Outcome, fuzz, parse_documents, parse_documents_within};
use proptest::collection::vec;
use proptest::prelude::*;

/// Far more than any of it takes, even on a busy machine without optimisation.
const PATIENCE: Duration = Duration::from_secs(60);

/// The files of all golden cases: every form of document that we know.
fn seeds() -> Vec<&'static str> {
    let files = [
        include_str!("../testdata/accepted.txt"),
        include_str!("../testdata/refused_text.txt"),
        include_str!("../testdata/refused_fields.txt"),
        include_str!("../testdata/refused_values.txt"),
    ];
    let cases = files.into_iter().flat_map(|file| file.split("\n=== ").skip(1));
    cases.filter_map(|case| case.split_once('\n')?.1.split("\n>>>").next()).collect()
}

/// What YAML and JSON are made of.
const TOKENS: [&str; 58] = [
    "a",
    "b: ",
    "a: ",
    "- ",
    "-",
    "? ",
    ": ",
    ":",
    "{",
    "}",
    "[",
    "]",
    ", ",
    ",",
    "&a ",
    "*a",
    "*a ",
    "&b ",
    "*b",
    "!!str ",
    "!!int ",
    "! ",
    "!x ",
    "!<y> ",
    "|",
    "|-\n",
    ">+2\n",
    "|9\n",
    "\"",
    "'",
    "\\",
    "\\u12",
    "\\ud800",
    "#",
    " #",
    "%YAML 1.2\n",
    "%TAG ! x:\n",
    "---",
    "---\n",
    "--- ",
    "...\n",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "  ",
    "    ",
    "<<: ",
    "<<",
    "~",
    "null",
    "0x1",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\0",
];

/// What our documents are made of.
const WORDS: [&str; 20] = [
    "apiVersion: v1\n",
    "kind: List\n",
    "kind: Pod\n",
    "kind: Namespace\n",
    "items:\n",
    "metadata:\n",
    "  name: a\n",
    "spec:\n",
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n",
    "  ingress:\n",
    "  - from:\n",
    "    - ipBlock:\n",
    "        cidr: 10.0.0.0/8\n",
    "    ports:\n",
    "    - port: 80\n",
    "      endPort: 90\n",
    "  podSelector: {}\n",
    "{\"kind\":",
    "\"v1\"",
    "\"apiVersion\":",
];

fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => proptest::sample::select(TOKENS.to_vec()),
        2 => proptest::sample::select(WORDS.to_vec()),
    ];
    vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// A seed with some of its bytes changed, left out, doubled or taken from another seed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let seeds = seeds();
    let seed = proptest::sample::select(seeds.clone());
    let edit = (any::<proptest::sample::Index>(), 0..5_u8, any::<u8>(), proptest::sample::select(seeds));
    (seed, vec(edit, 0..8)).prop_map(|(seed, edits)| {
        let mut bytes = seed.as_bytes().to_vec();
        for (index, operation, byte, other) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match operation {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..bytes.len().min(at + usize::from(byte % 16) + 1))),
                2 => bytes.insert(at, byte),
                3 => bytes.splice(at..at, other.bytes().take(usize::from(byte))).for_each(drop),
                _ => bytes.splice(at..at, TOKENS[usize::from(byte) % TOKENS.len()].bytes()).for_each(drop),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        fuzz::documents(&bytes);
    }

    #[test]
    fn mutated_documents_never_panic(bytes in mutated()) {
        fuzz::documents(&bytes);
    }

    #[test]
    fn soups_of_tokens_never_panic(text in soup()) {
        fuzz::documents(text.as_bytes());
    }

    /// A document that stands before or after an error is read as if it stood alone.
    #[test]
    fn an_error_never_costs_another_document(garbage in soup()) {
        let good = |name: &str| format!("\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        let text = format!("{}---\n{garbage}\n---{}", good("first"), good("last"));
        let results = parse_documents("a.yaml", text.as_bytes());
        for name in ["first", "last"] {
            let found = results.iter().any(|result| match &result.outcome {
                Outcome::Object(object) => object.key().to_string() == format!("Namespace {name}"),
                _ => false,
            });
            prop_assert!(found, "{name} is missing from {results:?}");
        }
    }
}

fn within_patience(name: &str, text: &str) -> Vec<objects::DocumentResult> {
    let start = Instant::now();
    let results = parse_documents(name, text.as_bytes());
    let took = start.elapsed();
    assert!(took < PATIENCE, "{took:?} for {} bytes beginning with {:?}", text.len(), &text[..text.len().min(20)]);
    results
}

#[test]
fn no_shape_of_input_takes_long() {
    const SIZE: usize = 200_000;
    let shapes: [(&str, String); 24] = [
        ("open lists", "[".repeat(SIZE)),
        ("open objects", "{".repeat(SIZE)),
        ("open objects with keys", "{a: ".repeat(SIZE / 4)),
        ("open JSON", "{\"a\":".repeat(SIZE / 5)),
        ("dashes", "- ".repeat(SIZE / 2)),
        ("question marks", "? ".repeat(SIZE / 2)),
        ("colons", ": ".repeat(SIZE / 2)),
        ("keys in keys", "a: ".repeat(SIZE / 3)),
        ("anchors", "&a ".repeat(SIZE / 3)),
        ("tags", "!a ".repeat(SIZE / 3)),
        ("aliases", format!("a: &a x\nb: [{}]", "*a,".repeat(SIZE / 3))),
        ("quotes", "\"".repeat(SIZE)),
        ("apostrophes", "'".repeat(SIZE)),
        ("one long word", "x".repeat(SIZE)),
        ("one long key", format!("{}: 1", "x".repeat(SIZE))),
        ("blank lines", "\n".repeat(SIZE)),
        ("blanks", " ".repeat(SIZE)),
        ("tabs", "\t".repeat(SIZE)),
        ("comments", "#\n".repeat(SIZE / 2)),
        ("separators", "---\n".repeat(SIZE / 4)),
        ("tiny documents", "---\na\n".repeat(SIZE / 6)),
        ("many keys", (0..SIZE / 8).map(|i| format!("k{i}: 1\n")).collect()),
        ("deeper and deeper", (0..600).map(|i| " ".repeat(i) + "a:\n").collect()),
        ("a long block", format!("a: |\n{}", " x\n".repeat(SIZE / 3))),
    ];
    for (shape, text) in shapes {
        let results = within_patience("a.yaml", &text);
        within_patience("a.json", &text);
        assert!(results.iter().all(|result| !matches!(result.outcome, Outcome::Object(_))), "{shape}");
    }
}

#[test]
fn aliases_cannot_multiply_a_document() {
    // 9^9 words if it were taken literally; and 10,000 times a megabyte of text.
    let mut laughs = "a0: &a0 [lol]\n".to_owned();
    for level in 1..=9 {
        let alias = format!("*a{},", level - 1).repeat(9);
        laughs += &format!("a{level}: &a{level} [{alias}]\n");
    }
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1_000_000), "*a,".repeat(10_000));
    let merges = format!("a: &a {{k: {}}}\nb: [{}]\n", "x".repeat(1_000_000), "{<<: *a},".repeat(10_000));
    for text in [laughs, long, merges] {
        let results = within_patience("a.yaml", &text);
        assert!(matches!(results[..], [objects::DocumentResult { outcome: Outcome::Refused(_), .. }]));
    }
}

#[test]
fn aliases_of_ordinary_size_are_no_bomb() {
    let rules = "  - *rule\n".repeat(200);
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: a}}\nspec:\n  ingress:\n  \
         - &rule {{from: [{{podSelector: {{}}}}], ports: [{{port: 80}}]}}\n{rules}"
    );
    let results = parse_documents("a.yaml", text.as_bytes());
    let [objects::DocumentResult { outcome: Outcome::Object(object), .. }] = &results[..] else {
        panic!("{results:?}");
    };
    let policy::model::Object::NetworkPolicy(policy) = &**object else { panic!("{object:?}") };
    assert_eq!(policy.ingress.as_ref().map(Vec::len), Some(201));
}

fn error_of(results: &[objects::DocumentResult]) -> String {
    match results {
        [result] => result.error().map(ToString::to_string).unwrap_or_default(),
        _ => panic!("{} results", results.len()),
    }
}

#[test]
fn files_past_the_limits_are_refused_as_a_whole() {
    let limits = Limits { file_bytes: 100, objects: 2 };
    let read = |text: &str| parse_documents_within("a.yaml", text.as_bytes(), limits);
    let long = "#".repeat(101);
    assert_eq!(error_of(&read(&long)), "a.yaml: the file has 101 bytes, more than the 100 allowed; split it");
    assert_eq!(read(&long[1..]).len(), 0);
    for many in ["---\na\n---\nb\n---\nc\n---\nd", "[1,2,3,4]"] {
        assert_eq!(error_of(&read(many)), "a.yaml: the file has more than 2 objects; split it");
    }
    assert_eq!(read("[1,2]").len(), 2);
}

#[test]
fn a_document_of_millions_of_tiny_values_is_refused() {
    let ones = "1,".repeat(1_100_000);
    let told = "the document has more than 1000000 values; split it into several files";
    for (name, text) in [("a.yaml", format!("- [{ones}]")), ("a.json", format!("[{ones}1]"))] {
        let results = within_patience(name, &text);
        assert_eq!(error_of(&results), format!("{name}, document 1 (line 1): line 1: {told}"));
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_line() {
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain("a: b".bytes().flat_map(|byte| [byte, 0])).collect();
    assert_eq!(error_of(&parse_documents("a.yaml", &utf16)), "a.yaml: line 1: the file is UTF-16; save it as UTF-8");
    let latin1 = b"a: b\nc: \xe4\n";
    assert_eq!(error_of(&parse_documents("a.yaml", latin1)), "a.yaml: line 2: the file is not UTF-8; save it as UTF-8");
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_no_error() {
    let text = "\u{feff}# c\r\napiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: a\r\n---\r\n\r\napiVersion: v1\r\nkind: \
                Namespace\r\nmetadata:\r\n  name: b\r\n";
    for name in ["a.yaml", "b.yaml"] {
        let results = parse_documents(name, text.as_bytes());
        let keys: Vec<_> =
            results.iter().filter_map(|result| Some((result.key.as_ref()?.to_string(), result.line))).collect();
        assert_eq!(keys, [("Namespace a".to_owned(), 2), ("Namespace b".to_owned(), 8)]);
    }
}

#[test]
fn a_file_name_cannot_forge_a_line() {
    let error = error_of(&parse_documents("a\nb.yaml", b"x"));
    assert!(error.starts_with("\"a\\u{a}b.yaml\", document 1"), "{error}");
}
