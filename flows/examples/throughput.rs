//! How many events a second one core turns into records: `cargo run --release -p flows --features
//! test-util --example throughput`. Prints one line per number of clients that follow everything
//! through the conversion to protobuf; the writer and the clients run on threads of their own.

use std::{
    collections::BTreeMap,
    hint::black_box,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use datapath_abi::{addr::Addr, event::FlowEvent};
use rustix::time::{ClockId, clock_gettime};

use flows::{
    Pipeline, fixture,
    observer::convert,
    record::{IdentityInfo, PodInfo},
    ring::{Cursor, Entry, Next},
};

const PODS: u32 = 10_000;
const EVENTS: usize = 2_000_000;

fn main() {
    let world = crowd();
    let events: Vec<FlowEvent> = (0..PODS).map(event).collect();
    println!("{PODS} pods, {EVENTS} events, ring of {}", flows::pipeline::DEFAULT_CAPACITY);
    for clients in [0, 1, 2] {
        run(clients, &world, &events);
    }
}

fn run(clients: usize, world: &fixture::World, events: &[FlowEvent]) {
    let pipeline = Pipeline::new(fixture::node(), flows::pipeline::DEFAULT_CAPACITY);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..clients).map(|_| scope.spawn(|| follow(&pipeline, &done))).collect();
        let (start, start_cpu) = (Instant::now(), cpu_time());
        for chunk in events.iter().cycle().take(EVENTS).collect::<Vec<_>>().chunks(64) {
            let mut batch = pipeline.batch(fixture::clock(), world);
            for event in chunk {
                batch.push(event).expect("the events follow the contract");
            }
        }
        let (wall, cpu) = (start.elapsed(), cpu_time() - start_cpu);
        done.store(true, Ordering::Release);
        let read: Vec<String> = readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader ends"))
            .map(|(r, l)| format!("{r} read, {l} lost"))
            .collect();
        let rate = EVENTS as f64 / cpu.as_secs_f64();
        let each_ns = cpu.as_nanos() / EVENTS as u128;
        println!("{clients} clients: {rate:.0} events/s of CPU time, {each_ns} ns each, {wall:.1?} in all {read:?}");
    });
}

/// CPU time of this thread: what others do on the machine does not count.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Converts everything it gets; how many it got and lost.
fn follow(pipeline: &Pipeline, done: &AtomicBool) -> (u64, u64) {
    let mut cursor = Cursor::new(pipeline.ring().clone(), 0);
    let (mut read, mut lost) = (0, 0);
    loop {
        let finished = done.load(Ordering::Acquire);
        match cursor.advance() {
            Next::Entry(Entry::Flow(record)) => {
                black_box(convert::flow(&record));
                read += 1;
            }
            Next::Entry(Entry::Lost(_)) => {}
            Next::Overrun(count) => lost += count,
            Next::End if finished => return (read, lost),
            Next::End => thread::yield_now(),
        }
    }
}

fn address(pod: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a40_0000 + pod)
}

/// The world of the fixture and many more pods, ten labels each.
fn crowd() -> fixture::World {
    let mut world = fixture::world();
    for pod in 0..PODS {
        let namespace = format!("team-{}", pod % 50);
        let labels: BTreeMap<String, String> =
            (0..10).map(|n| (format!("app.kubernetes.io/label-{n}"), format!("value-{}", pod % (n + 100)))).collect();
        let identity = 1000 + pod / 4;
        world.identities.entry(identity).or_insert_with(|| {
            let service_account = "default".to_owned();
            Arc::new(IdentityInfo { namespace: namespace.clone(), labels: labels.clone().into(), service_account })
        });
        let info = PodInfo {
            namespace,
            name: format!("workload-{pod}"),
            uid: format!("00000000-0000-4000-8000-{pod:012}"),
            labels: labels.into(),
            service_account: "default".to_owned(),
            workload: None,
            identity,
        };
        world.pods.insert(address(pod).into(), Arc::new(info));
    }
    world
}

/// Every fourth one is denied, and names the policies that isolate.
fn event(number: u32) -> FlowEvent {
    let base = if number.is_multiple_of(4) { fixture::denied() } else { fixture::opened() };
    let peer = number.wrapping_mul(7919) % PODS;
    FlowEvent {
        addr: [Addr::from_v4(address(number).octets()), Addr::from_v4(address(peer).octets())],
        identity: [1000 + number / 4, 1000 + peer / 4],
        ..base
    }
}
