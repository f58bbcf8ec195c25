//! Runs `testdata/errors.txt`: bad inputs, one block each, with the answer that the runtime gets.

use std::fmt::Write;

use super::super::fake::{Behaviour, Fake, dispatch, env};
use crate::golden;

#[test]
fn bad_input_gets_a_message_that_names_it() {
    let text = std::fs::read_to_string(golden::path("errors.txt")).unwrap();
    let mut out = Vec::new();
    for block in text.trim_end().split("\n\n") {
        out.push(answer(block));
    }
    assert!(out.len() > 60, "only {} blocks", out.len());
    golden::check("errors.txt", &(out.join("\n\n") + "\n"));
}

/// The block with what came out in place of what it says came out.
fn answer(block: &str) -> String {
    let mut out = String::new();
    let mut variables = env("ADD");
    let mut stdin = None;
    for line in block.lines().filter(|l| !l.starts_with("> ")) {
        writeln!(out, "{line}").unwrap();
        if line.starts_with('#') {
            continue;
        }
        if let Some(text) = line.strip_prefix('<') {
            stdin = Some(text.trim_start());
        } else {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no VARIABLE=value: {line}"));
            variables.insert(name.to_owned(), value.into());
        }
    }
    if let Some(stdin) = stdin {
        let daemon = Fake::new(Behaviour::Serve);
        let ran = dispatch(&daemon, &variables, stdin.as_bytes());
        assert_eq!((ran.exit, ran.stderr.as_str()), (1, ""), "this is no bad input:\n{block}");
        assert!(daemon.asked.borrow().is_empty(), "the daemon was asked:\n{block}");
        write!(out, "> {}", ran.stdout).unwrap();
    }
    out.trim_end().to_owned()
}
