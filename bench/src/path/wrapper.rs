//! The object with the programs to compare with and the wrappers in front of what is measured.

use anyhow::{Context as _, ensure};
use aya::{
    maps::{MapData, ProgramArray},
    programs::SchedClassifier,
};
use daemon::datapath::load::{self, Capacities};
use datapath_abi::conntrack::{CtEntry, CtKey};
use tests::prog::{Context, Programs, Ran};

use super::cases::Case;

/// The object file, aligned as its parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bulkhead-floor.o"));

/// Does nothing.
pub(crate) const EMPTY: &str = "bench_empty";
/// Five-tuple of both families, one LRU lookup with the conntrack key.
pub(crate) const FLOOR: &str = "bench_floor";
/// IPv4 alone, a smaller key.
pub(crate) const FLOOR4: &str = "bench_floor4";
/// Writes the header back.
pub(crate) const RESTORE: &str = "bench_restore";
/// As [`RESTORE`], and another source port each time; IPv4.
pub(crate) const VARY4: &str = "bench_vary4";
/// As [`VARY4`], IPv6.
pub(crate) const VARY6: &str = "bench_vary6";

/// Bytes that a wrapper writes back.
const RESTORED: usize = 72;

/// The loaded object.
pub(crate) struct Wrapper {
    programs: Programs,
    target: ProgramArray<MapData>,
    runs: u64,
}

impl Wrapper {
    /// Loads it.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let names = [EMPTY, FLOOR, FLOOR4, RESTORE, VARY4, VARY6];
        let mut ebpf = load::load_object(OBJECT, None, &Capacities::default(), &names)?;
        let target = ProgramArray::try_from(ebpf.take_map("TARGET").context("no map TARGET")?)?;
        Ok(Self { programs: Programs::of(ebpf)?, target, runs: 0 })
    }

    /// Lets the floor programs find a packet's five-tuple.
    pub(crate) fn know(&mut self, key: CtKey) -> anyhow::Result<()> {
        self.know_one_of_many(key)?;
        let [src, dst] = key.addr.map(|addr| {
            let [.., a, b, c, d] = addr.octets();
            u32::from_ne_bytes([a, b, c, d])
        });
        let [[a, b], [c, d]] = key.port.map(u16::to_be_bytes);
        let key4 = [src, dst, u32::from_ne_bytes([a, b, c, d]), u32::from(key.proto)];
        self.programs.hash::<[u32; 4], CtEntry>("FLOOR4").insert(key4, CtEntry::default(), 0)?;
        Ok(())
    }

    /// The same, but for [`FLOOR4`], whose table has no room for a crowd.
    pub(crate) fn know_one_of_many(&mut self, key: CtKey) -> anyhow::Result<()> {
        Ok(self.programs.hash::<CtKey, CtEntry>("FLOOR").insert(key, CtEntry::default(), 0)?)
    }

    /// Nanoseconds of a program of this object without a wrapper.
    pub(crate) fn alone(&self, program: &str, case: &Case, repeat: u32) -> anyhow::Result<f64> {
        let ran = self.programs.run(program, &case.packet, Context::default(), repeat)?;
        Ok(nanoseconds(&ran))
    }

    /// Nanoseconds of the wrapper and a case's program.
    pub(crate) fn in_front_of(&mut self, product: &Programs, case: &Case, repeat: u32) -> anyhow::Result<(f64, Ran)> {
        let programs = if case.program.starts_with("bench_") { &self.programs } else { product };
        set(&mut self.target, programs, case.program)?;
        self.run(case, repeat)
    }

    /// Nanoseconds of the wrapper and nothing.
    pub(crate) fn in_front_of_empty(&mut self, case: &Case, repeat: u32) -> anyhow::Result<(f64, Ran)> {
        set(&mut self.target, &self.programs, EMPTY)?;
        self.run(case, repeat)
    }

    fn run(&mut self, case: &Case, repeat: u32) -> anyhow::Result<(f64, Ran)> {
        ensure!(case.packet.len() >= RESTORED, "a packet of {} bytes is too short", case.packet.len());
        let mut template = [0u64; RESTORED / 8 + 2];
        for (word, bytes) in template.iter_mut().zip(case.packet[..RESTORED].chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().context("eight bytes")?);
        }
        // Ports go on from where the last run has stopped, so that none comes back soon.
        template[RESTORED / 8] = self.runs;
        template[RESTORED / 8 + 1] = case.mask;
        self.runs += u64::from(repeat);
        self.programs.array::<[u64; RESTORED / 8 + 2]>("TEMPLATE").set(0, template, 0)?;
        let ran = self.programs.run(case.wrapper, &case.packet, case.context, repeat)?;
        Ok((nanoseconds(&ran), ran))
    }
}

fn set(target: &mut ProgramArray<MapData>, programs: &Programs, name: &str) -> anyhow::Result<()> {
    let program: &SchedClassifier =
        programs.ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?;
    target.set(0, program.fd()?, 0)?;
    Ok(())
}

/// The kernel gives whole nanoseconds.
fn nanoseconds(ran: &Ran) -> f64 {
    ran.mean.as_nanos() as f64
}
