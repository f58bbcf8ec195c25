//! One load of each program, with the verifier's own account of it.
//!
//! The kernel writes that account into a buffer of the caller, and aya hands it out only when loading fails. So each
//! program is loaded twice: once as usual, and once while this process may open no more files, which makes
//! the kernel fail in its very last step, when it has verified the program and wants to give it a descriptor
//! (`bpf_prog_load` in kernel/bpf/syscall.c: `bpf_check`, then `bpf_prog_new_fd`).

use std::fs;

use anyhow::{Context as _, bail, ensure};
use aya::programs::{Program, ProgramError};
use daemon::datapath::load::{self, Capacities, program};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde_json::{Map, Value, json};

use crate::stack;

/// All programs on the running kernel: `{"release": .., "programs": {NAME: {..}}}`.
pub(crate) fn kernel(object: &[u8]) -> anyhow::Result<Value> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
    let calls = stack::Calls::of(object)?;
    let mut programs = Map::new();
    for name in program::ALL {
        programs.insert(name.to_owned(), one(object, name, &calls).with_context(|| name.to_owned())?);
    }
    Ok(json!({"release": release.trim(), "programs": programs}))
}

fn one(object: &[u8], name: &'static str, calls: &stack::Calls) -> anyhow::Result<Value> {
    // With all that can be asked of them: what is off the verifier leaves out.
    let mut capacities = Capacities::least();
    capacities.listen_to_dns([53, 1053, 5353, 8053]);
    let mut ebpf = load::load_object(object, None, &capacities, &[])?;
    let program = ebpf.program_mut(name).context("the object has no such program")?;
    let account = Account::parse(&log(program)?)?;
    load::load_program(program).context("loading it")?;
    let info = program.info()?;
    Ok(json!({
        "processed": account.processed,
        "peak_states": account.peak_states,
        "total_states": account.total_states,
        "frame": account.stack.iter().max(),
        "stack": calls.deepest(name, &account.stack)?,
        "instructions": info.size_translated().context("the kernel hides the program's size (no root?)")? / 8,
        "native_bytes": info.size_jitted(),
    }))
}

/// What the verifier says of a program that it accepts.
fn log(program: &mut Program) -> anyhow::Result<String> {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before }).context("the limit of open files")?;
    let result = load::load_program(program);
    setrlimit(Resource::Nofile, before).context("the limit of open files, back")?;
    match result {
        Err(ProgramError::LoadError { io_error, verifier_log })
            if io_error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) =>
        {
            Ok(verifier_log.to_string())
        }
        Err(error) => Err(error).context("the verifier refuses it"),
        Ok(()) => bail!("the kernel has opened a file beyond the limit"),
    }
}

/// The verifier's account (`print_verification_stats` in kernel/bpf/verifier.c).
#[derive(Debug, PartialEq, Eq)]
struct Account {
    processed: u64,
    total_states: u64,
    peak_states: u64,
    /// By function of the program, in the order of their instructions.
    stack: Vec<u64>,
}

impl Account {
    fn parse(log: &str) -> anyhow::Result<Self> {
        let line = |start: &str| {
            let found = log.lines().rev().find(|line| line.starts_with(start));
            found.with_context(|| format!("the verifier's account has no line {start:?}:\n{log}"))
        };
        let processed = line("processed ")?;
        let after = |word: &str| -> anyhow::Result<u64> {
            let mut words = processed.split_whitespace();
            let number = words.find(|it| *it == word).and_then(|_| words.next()).and_then(|it| it.parse().ok());
            number.with_context(|| format!("no number after {word:?} in {processed:?}"))
        };
        let stack = line("stack depth ")?.trim_start_matches("stack depth ");
        let stack = stack.split_whitespace().next().unwrap_or_default();
        let stack: Vec<u64> = stack
            .split('+')
            .map(|part| part.parse().with_context(|| format!("stack depth {stack:?}")))
            .collect::<Result<_, _>>()?;
        ensure!(!stack.is_empty(), "no stack depth");
        Ok(Self {
            processed: after("processed")?,
            total_states: after("total_states")?,
            peak_states: after("peak_states")?,
            stack,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_the_verifier_is_read() {
        let log = "Func#2 is safe for any args that match its prototype\nverification time 1234 usec\n\
                   stack depth 208+0+64\n\
                   processed 4242 insns (limit 1000000) max_states_per_insn 12 total_states 300 peak_states 200 mark_read 40\n";
        let wanted = Account { processed: 4242, total_states: 300, peak_states: 200, stack: vec![208, 0, 64] };
        assert_eq!(Account::parse(log).unwrap(), wanted);
        assert!(Account::parse("processed 1 insns\n").is_err());
    }
}
