//! Counters of the programs: what they say, and that a change is exactly what was expected:
//! these moved by so much, and no other did.

use std::{collections::BTreeMap, fmt};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use datapath_abi::{
    event::Hook,
    maps::{self, Counter, Scalar},
    reason::{DropReason, REASONS},
};

/// All hooks.
pub const HOOKS: [Hook; 3] = [Hook::FromPod, Hook::ToPod, Hook::FromUplink];

/// One counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// Packets that went on, at a hook.
    Passed(Hook),
    /// Packets that were dropped, at a hook, for a reason.
    Dropped(Hook, DropReason),
    /// A scalar.
    Scalar(Scalar),
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Count::Passed(hook) => write!(f, "{hook:?} passed"),
            Count::Dropped(hook, reason) => write!(f, "{hook:?} {}", reason.name()),
            Count::Scalar(scalar) => write!(f, "{scalar:?}"),
        }
    }
}

/// Every counter's value, sums over all CPUs; `bytes` is 0 for scalars.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<Count, Counter>);

impl Counts {
    /// Reads all of them.
    pub fn read(ebpf: &Ebpf) -> Self {
        let mut all = BTreeMap::new();
        let counters: PerCpuArray<&MapData, Counter> = array(ebpf, maps::COUNTERS);
        for hook in HOOKS {
            for number in 0..REASONS {
                let values = counters.get(&(hook as u32 * REASONS + number), 0).expect("COUNTERS has this index");
                let mut sum = Counter::default();
                for value in values.iter() {
                    sum.packets += value.packets;
                    sum.bytes += value.bytes;
                }
                let count = match DropReason::try_from(number as u8) {
                    Ok(reason) => Count::Dropped(hook, reason),
                    Err(_) => Count::Passed(hook),
                };
                all.insert(count, sum);
            }
        }
        let scalars: PerCpuArray<&MapData, u64> = array(ebpf, maps::SCALARS);
        for (scalar, _) in Scalar::ALL {
            let values = scalars.get(&(*scalar as u32), 0).expect("SCALARS has this index");
            all.insert(Count::Scalar(*scalar), Counter { packets: values.iter().sum(), bytes: 0 });
        }
        Self(all)
    }

    /// What has moved since `before`.
    pub fn since(&self, before: &Counts) -> Change {
        let mut moved = BTreeMap::new();
        for (count, now) in &self.0 {
            let then = before.0.get(count).copied().unwrap_or_default();
            if now != &then {
                moved.insert(
                    *count,
                    Counter {
                        packets: now.packets.wrapping_sub(then.packets),
                        bytes: now.bytes.wrapping_sub(then.bytes),
                    },
                );
            }
        }
        Change(moved)
    }
}

fn array<'a, V: aya::Pod>(ebpf: &'a Ebpf, name: &str) -> PerCpuArray<&'a MapData, V> {
    PerCpuArray::try_from(ebpf.map(name).expect("the object has this map")).expect("it is a per-CPU array")
}

/// Which counters moved, and by how much.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change(BTreeMap<Count, Counter>);

impl Change {
    /// Takes `packets` (and `bytes`) off what remains to be explained of one counter. The error
    /// says what was found instead.
    pub fn explain(&mut self, count: Count, packets: u64, bytes: u64) -> Result<(), String> {
        let all = format!("{:?}", self.0);
        let Some(moved) = self.0.get_mut(&count) else {
            return Err(format!("{count:?} did not move; these did: {all}"));
        };
        if moved.packets < packets || moved.bytes < bytes {
            return Err(format!("{count:?} moved by {moved:?}, wanted {packets} and {bytes} bytes"));
        }
        moved.packets -= packets;
        moved.bytes -= bytes;
        if *moved == Counter::default() {
            self.0.remove(&count);
        }
        Ok(())
    }

    /// By how much a counter moved.
    pub fn of(&self, count: Count) -> u64 {
        self.0.get(&count).map_or(0, |moved| moved.packets)
    }

    /// The counters that moved.
    pub fn moved(&self) -> impl Iterator<Item = (Count, Counter)> + '_ {
        self.0.iter().map(|(count, moved)| (*count, *moved))
    }

    /// Whether nothing remains.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
