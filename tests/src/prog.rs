//! The programs, loaded with maps of their own and run one packet at a time by
//! `BPF_PROG_TEST_RUN`, without a link or traffic.

use std::{fmt, time::Duration};

use anyhow::Context as _;
use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, MapData, RingBuf},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use daemon::datapath::load::{self, Capacities};
use datapath_abi::{event::FlowEvent, maps};
use zerocopy::FromBytes as _;

/// What a program sees of the packet's way: fields of `struct __sk_buff`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Interface whose hook it is; must exist in the caller's network namespace.
    pub ifindex: u32,
    /// Interface it came in by; 0 when a process of the host has sent it.
    pub ingress_ifindex: u32,
    /// Payload of the segments that the kernel will make of it; 0: it is one packet.
    pub gso_size: u32,
}

impl Context {
    /// As `struct __sk_buff` (include/uapi/linux/bpf.h), of which the kernel accepts these.
    fn bytes(self) -> [u8; 192] {
        let mut bytes = [0; 192];
        bytes[36..40].copy_from_slice(&self.ingress_ifindex.to_ne_bytes());
        bytes[40..44].copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes[176..180].copy_from_slice(&self.gso_size.to_ne_bytes());
        bytes
    }
}

/// What a run has left.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The program's return value.
    pub verdict: i32,
    /// The packet afterwards.
    pub bytes: Vec<u8>,
    /// Mean of the runs, whole nanoseconds as the kernel gives it.
    pub mean: Duration,
}

/// A loaded object.
pub struct Programs {
    /// Programs and maps.
    pub ebpf: Ebpf,
    events: Option<RingBuf<MapData>>,
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").field("ebpf", &self.ebpf).finish_non_exhaustive()
    }
}

impl Programs {
    /// Loads the product's object with maps that nobody else has.
    pub fn load(capacities: &Capacities) -> anyhow::Result<Self> {
        Self::of(load::load(None, capacities)?)
    }

    /// From an object that is loaded already.
    pub fn of(mut ebpf: Ebpf) -> anyhow::Result<Self> {
        let events = match ebpf.take_map(maps::EVENTS) {
            Some(map) => Some(RingBuf::try_from(map)?),
            None => None,
        };
        Ok(Self { ebpf, events })
    }

    /// Runs a program `repeat` times on one packet, which each run finds as the one before has
    /// left it.
    pub fn run(&self, program: &str, packet: &[u8], context: Context, repeat: u32) -> anyhow::Result<Ran> {
        let loaded: &SchedClassifier =
            self.ebpf.program(program).with_context(|| format!("no program {program}"))?.try_into()?;
        let mut bytes = vec![0; packet.len() + 256];
        let context = context.bytes();
        let result = loaded
            .test_run(TestRunOptions {
                data_in: Some(packet),
                data_out: Some(&mut bytes),
                ctx_in: Some(&context),
                repeat,
                ..TestRunOptions::default()
            })
            .with_context(|| format!("running {program}"))?;
        bytes.truncate(result.data_size_out as usize);
        Ok(Ran { verdict: result.return_value as i32, bytes, mean: result.duration })
    }

    /// Takes all events out of the ring buffer.
    pub fn events(&mut self) -> Vec<FlowEvent> {
        let Some(ring) = &mut self.events else { return Vec::new() };
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(FlowEvent::read_from_bytes(&item).expect("an event has the size of a FlowEvent"));
        }
        events
    }

    /// Takes all events out of the ring buffer and counts them.
    pub fn drain(&mut self) -> u64 {
        let Some(ring) = &mut self.events else { return 0 };
        let mut count = 0;
        while ring.next().is_some() {
            count += 1;
        }
        count
    }

    /// A hash map (LRU or not).
    pub fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        HashMap::try_from(self.ebpf.map_mut(name).expect("the object has this map")).expect("it is a hash of these")
    }

    /// An array.
    pub fn array<V: Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        Array::try_from(self.ebpf.map_mut(name).expect("the object has this map")).expect("it is an array of these")
    }

    /// A trie.
    pub fn trie<K: Pod, V: Pod>(&mut self, name: &str) -> LpmTrie<&mut MapData, K, V> {
        LpmTrie::try_from(self.ebpf.map_mut(name).expect("the object has this map")).expect("it is a trie of these")
    }
}
