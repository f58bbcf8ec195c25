//! Entry point for fuzzers: hostile bytes as the content of a file.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::document::{Outcome, parse_documents};
use crate::identity;

/// Reads `bytes` as YAML and as JSON and checks what must hold of any result: an error says
/// something about a place in the file, and an object has the key that its document was given.
///
/// # Panics
///
/// When that does not hold, or when reading does; both are bugs.
pub fn documents(bytes: &[u8]) {
    let lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    for name in ["fuzz.yaml", "fuzz.json"] {
        for result in parse_documents(name, bytes) {
            assert!(result.line >= 1 && result.line <= lines, "line {} of {lines}", result.line);
            match &result.outcome {
                Outcome::Object(object) => assert_eq!(result.key, Some(object.key())),
                Outcome::Skipped { api_version } => assert!(!api_version.is_empty()),
                Outcome::Refused(error) => {
                    assert!(!error.problems.is_empty(), "an error without a problem");
                    for problem in &error.problems {
                        assert!(problem.line <= lines, "line {} of {lines}", problem.line);
                    }
                    for line in error.lines() {
                        assert!(!line.contains(['\n', '\r', '\u{1b}']), "control characters in a message");
                    }
                }
            }
        }
    }
}

/// Reads `bytes` as the JSON of an Identity: what is accepted is read the same again when it has been written, and what
/// is refused is refused for a reason of one line.
///
/// # Panics
///
/// When that does not hold, or when reading does; both are bugs.
pub fn shared_identity(bytes: &[u8]) {
    let Ok(object) = serde_json::from_slice::<Value>(bytes) else { return };
    let meta = |object: &Value| {
        let name = object["metadata"]["name"].as_str().map(str::to_owned);
        ObjectMeta { name, ..ObjectMeta::default() }
    };
    match identity::identity(&meta(&object), &object["spec"]) {
        Ok((number, key)) => {
            let again = identity::object(number, &key);
            assert_eq!(identity::identity(&meta(&again), &again["spec"]).ok(), Some((number, key)));
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "an error without a problem");
            for problem in &problems {
                assert!(!problem.to_string().contains(['\n', '\r', '\u{1b}']), "control characters in a message");
            }
        }
    }
}
