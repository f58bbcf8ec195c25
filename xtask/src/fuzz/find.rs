//! What the fuzzer has found: the input, made as small as it gets in a few seconds, what was said, and
//! how to go on.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use super::engine::Engine;
use crate::repo;

/// Seconds to make the input smaller.
const MINIMIZE_S: u32 = 10;
/// Bytes that are shown.
const SHOWN: usize = 512;

/// A find.
#[derive(Debug)]
pub(super) struct Find {
    target: String,
    what: String,
    /// The input, and where it is; `None` if libFuzzer ended without one.
    input: Option<(PathBuf, Vec<u8>)>,
    log: String,
}

impl Find {
    /// Looks at what a run has left that ended with `status`.
    pub(super) fn new(
        engine: &Engine,
        target: &str,
        found: &Path,
        log: &str,
        status: ExitStatus,
    ) -> anyhow::Result<Self> {
        let mut path = None;
        for entry in fs::read_dir(found)? {
            path = Some(entry?.path());
        }
        let input = match path {
            None => None,
            Some(path) => {
                let path = smaller(engine, target, &path).unwrap_or(path);
                let bytes = fs::read(&path)?;
                Some((path, bytes))
            }
        };
        let what = what(log).unwrap_or_else(|| format!("libFuzzer ended with {status}"));
        Ok(Self { target: target.to_owned(), what, input, log: log.to_owned() })
    }

    /// In one line.
    pub(super) fn line(&self) -> String {
        format!("{}: {}", self.target, self.what.lines().next().unwrap_or_default())
    }

    /// All of it, and how to go on.
    pub(super) fn told(&self) -> String {
        let Self { target, what, input, log } = self;
        let mut text = format!("\n{target}: {what}\n");
        let Some((path, bytes)) = input else {
            let lines: Vec<&str> = log.lines().collect();
            let _ = write!(
                text,
                "no input was kept; the end of the log:\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
            return text;
        };
        let path = path.strip_prefix(repo::root()).unwrap_or(path).display();
        let _ = writeln!(text, "the input, {} bytes, {path}:\n{}", bytes.len(), dump(&bytes[..bytes.len().min(SHOWN)]));
        let _ = writeln!(text, "once more:      cargo xtask fuzz {target} --input {path}");
        let _ = writeln!(text, "make it a test: cp {path} fuzz/finds/{target}/what_it_shows");
        let _ = write!(
            text,
            "                and the line `what_it_shows` in `finds! {{ {target} {{ }} }}` of fuzz/tests/finds.rs"
        );
        text
    }
}

/// The panic, or what libFuzzer calls it (a timeout, memory).
fn what(log: &str) -> Option<String> {
    let mut lines = log.lines().skip_while(|line| !line.contains("panicked at"));
    if let Some(place) = lines.next() {
        let place = place.split_once("panicked at ").map_or(place, |(_, place)| place);
        let said: Vec<&str> =
            lines.take_while(|line| !line.starts_with("==") && !line.starts_with("note: run with")).take(8).collect();
        return Some(format!("{}\n  at {}", said.join("\n").trim(), place.trim_end_matches(':')));
    }
    let line = log.lines().find(|line| line.contains("ERROR: libFuzzer: "))?;
    Some(line.split_once("ERROR: ").map_or(line, |(_, what)| what).to_owned())
}

/// The input without what does not matter; `None` if that could not be had.
fn smaller(engine: &Engine, target: &str, path: &Path) -> Option<PathBuf> {
    let small = path.with_file_name("small");
    let mut command = engine.fuzzer(target);
    command.args(["-minimize_crash=1", &format!("-max_total_time={MINIMIZE_S}")]);
    command.arg(format!("-exact_artifact_path={}", small.display())).arg(path);
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    small.is_file().then_some(small)
}

/// As `hexdump -C` shows it.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let hex: String = chunk.iter().map(|byte| format!("{byte:02x} ")).collect();
        let shown: String =
            chunk.iter().map(|&byte| if (0x20..0x7f).contains(&byte) { byte as char } else { '.' }).collect();
        let _ = writeln!(text, "  {:04x}  {hex:<48} {shown}", row * 16);
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_message_and_place() {
        let log = "#2 INITED cov: 1\n\nthread '<unnamed>' (7) panicked at fuzz/src/packet.rs:60:9:\n\
                   assertion failed\n  left: 1\n right: 2\n==12== ERROR: libFuzzer: deadly signal\n";
        assert_eq!(what(log).unwrap(), "assertion failed\n  left: 1\n right: 2\n  at fuzz/src/packet.rs:60:9");
        assert_eq!(
            what("==1== ERROR: libFuzzer: timeout after 10 seconds\n").unwrap(),
            "libFuzzer: timeout after 10 seconds"
        );
        assert_eq!(what("Done\n"), None);
    }

    #[test]
    fn the_input_is_shown_as_bytes_and_as_text() {
        assert_eq!(dump(b"a\x00"), "  0000  61 00                                            a.");
    }
}
