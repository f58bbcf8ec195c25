//! Entry point for fuzzers: hostile bytes as the content of a file.

use crate::document::{Outcome, parse_documents};

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
