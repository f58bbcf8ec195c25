//! Ages conntrack: runs the program `sweep`, and finds out how fast jiffies tick.

use std::time::Duration;

use aya::Ebpf;
use datapath_abi::control::{Clock, Sweep, SweepReport};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    load::program,
    maps::{TableError, run},
};

/// Values of CONFIG_HZ (kernel/Kconfig.hz), plus alpha's.
const TICK_RATES: [u32; 5] = [100, 250, 300, 1000, 1024];

/// One endpoint may have this part of PENDING: so no three push out what others wait for.
const SHARES: u32 = 4;

/// How many connections of one endpoint may wait in a PENDING of this capacity.
pub fn share(pending: u32) -> u32 {
    (pending / SHARES).max(1)
}

/// Runs sweeps.
#[derive(Debug)]
pub struct Sweeper {
    ebpf: Ebpf,
    share: u32,
    first: Clock,
    hz: Option<u32>,
}

impl Sweeper {
    /// From an object that was loaded with `sweep` and `clock`. Notes the time, to compare later. `pending`: the capacity
    /// of PENDING.
    pub fn new(ebpf: Ebpf, pending: u32) -> Result<Self, TableError> {
        let first = clock(&ebpf)?;
        Ok(Self { ebpf, share: share(pending), first, hz: None })
    }

    /// The programs' monotonic time now, nanoseconds.
    pub fn monotonic_ns(&self) -> Result<u64, TableError> {
        Ok(clock(&self.ebpf)?.monotonic_ns)
    }

    /// One pass over both conntrack tables. `active_interval`: how often a living connection is
    /// reported. `None`: the tick rate is not known yet, which takes half a second from
    /// [`Sweeper::new`] on.
    pub fn sweep(&mut self, active_interval: Duration) -> Result<Option<SweepReport>, TableError> {
        let Some(hz) = self.hz()? else { return Ok(None) };
        let order = Sweep { active_interval_ns: active_interval.as_nanos() as u64, hz, share: self.share };
        let mut data = [0; size_of::<Sweep>() + size_of::<SweepReport>()];
        data[..size_of::<Sweep>()].copy_from_slice(order.as_bytes());
        let mut out = data;
        run(&self.ebpf, program::SWEEP, &data, Some(&mut out))?;
        Ok(SweepReport::read_from_bytes(&out[size_of::<Sweep>()..]).ok())
    }

    fn hz(&mut self) -> Result<Option<u32>, TableError> {
        if self.hz.is_none() {
            let now = clock(&self.ebpf)?;
            let elapsed_ns = now.monotonic_ns.saturating_sub(self.first.monotonic_ns);
            // After half a second 250 and 300 are 25 ticks apart, and the error is two at most.
            if elapsed_ns >= 500_000_000 {
                let ticks = u64::from(now.jiffies.wrapping_sub(self.first.jiffies));
                let rate = ticks * 1_000_000_000 / elapsed_ns;
                self.hz = TICK_RATES.into_iter().min_by_key(|known| u64::from(*known).abs_diff(rate));
            }
        }
        Ok(self.hz)
    }
}

fn clock(ebpf: &Ebpf) -> Result<Clock, TableError> {
    let data = [0; size_of::<Clock>()];
    let mut out = data;
    run(ebpf, program::CLOCK, &data, Some(&mut out))?;
    Ok(Clock::read_from_bytes(&out).expect("the buffer has the size of a Clock"))
}
