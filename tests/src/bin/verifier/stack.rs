//! How deep the stack of a program becomes: the verifier tells the depth of each function, the limit is on what
//! functions that call each other take together.

use std::collections::HashSet;

use anyhow::{Context as _, ensure};
use aya_obj::{Object, generated::bpf_insn};

/// A call of a function, by opcode (`BPF_JMP | BPF_CALL`) and source register (`BPF_PSEUDO_CALL`).
const CALL: (u8, u8) = (0x85, 1);
/// The address of a function as a value (`BPF_LD | BPF_IMM | BPF_DW`, `BPF_PSEUDO_FUNC`): the kernel calls it back, on
/// the same stack.
const ADDRESS: (u8, u8) = (0x18, 4);
/// A frame takes a multiple of this, also an empty one (`check_max_stack_depth` in kernel/bpf/verifier.c).
const ROUND: u64 = 32;

/// Programs with all the functions they call, as they are loaded.
#[derive(Debug)]
pub(crate) struct Calls(Object);

impl Calls {
    /// Of an object file.
    pub(crate) fn of(object: &[u8]) -> anyhow::Result<Self> {
        let mut object = Object::parse(object).context("reading the object file")?;
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_calls(&sections).context("linking the functions")?;
        Ok(Self(object))
    }

    /// The deepest stack of a program, in bytes. `depths` is each function's, in the order of their instructions.
    pub(crate) fn deepest(&self, program: &str, depths: &[u64]) -> anyhow::Result<u64> {
        let program = self.0.programs.get(program).with_context(|| format!("no program {program}"))?;
        let function = self.0.functions.get(&program.function_key()).context("a program without instructions")?;
        deepest(&edges(&function.instructions), depths)
    }
}

/// Of every call, where it is and where it goes.
fn edges(instructions: &[bpf_insn]) -> Vec<(usize, usize)> {
    let target = |(at, instruction): (usize, &bpf_insn)| {
        let kind = (instruction.code, instruction.src_reg());
        let to = usize::try_from(at as i64 + 1 + i64::from(instruction.imm)).ok()?;
        (kind == CALL || kind == ADDRESS).then_some((at, to))
    };
    instructions.iter().enumerate().filter_map(target).collect()
}

fn deepest(edges: &[(usize, usize)], depths: &[u64]) -> anyhow::Result<u64> {
    let mut starts: Vec<usize> = edges.iter().map(|(_, to)| *to).chain([0]).collect();
    starts.sort_unstable();
    starts.dedup();
    ensure!(
        starts.len() == depths.len(),
        "{} functions, and the verifier speaks of {}: {depths:?}",
        starts.len(),
        depths.len()
    );
    let function = |at: usize| starts.partition_point(|start| *start <= at) - 1;
    let calls: Vec<(usize, usize)> = edges.iter().map(|(from, to)| (function(*from), function(*to))).collect();
    // No function calls itself, the verifier refuses that: this ends after as many rounds as there are functions.
    let frame = |function: usize| depths[function].max(1).next_multiple_of(ROUND);
    let mut deep: Vec<u64> = (0..depths.len()).map(frame).collect();
    for _ in 0..depths.len() {
        for &(from, to) in &calls {
            deep[from] = deep[from].max(frame(from) + deep[to]);
        }
    }
    Ok(deep[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_chain_of_calls_counts() {
        // Function 0 at 0..10 calls 1 (10..20) and 2 (20..); 1 calls 2.
        let edges = [(3, 10), (5, 20), (12, 20)];
        assert_eq!(deepest(&edges, &[100, 33, 0]).unwrap(), 128 + 64 + 32);
        assert_eq!(deepest(&[], &[8]).unwrap(), 32);
        assert!(deepest(&edges, &[100, 33]).is_err(), "a function is missing");
    }
}
