//! What the engine's thread does: takes commands in, plans, carries out, clears away. Commands that wait are taken
//! together, so that a burst costs one plan.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use datapath_abi::overlay::BELIEVED;
use policy::model::{Object, ObjectKey, PodKey};
use tokio::sync::{oneshot, watch};
use tracing::{debug, error, info, warn};

use super::{Command, EngineError, KeepIdentities, State};
use crate::{
    app::knowledge::Knowledge,
    datapath::maps::{TableError, Tables},
    reconcile::{Capacity, Change, LocalEndpoint, Planner, Refusal, Unshared},
};

/// How long packets may be under way that have begun before a swing. Programs run in one go on
/// one CPU and take microseconds; this is generous.
const GRACE: Duration = Duration::from_millis(50);
/// How long to wait before trying again what the kernel has refused.
const RETRY: Duration = Duration::from_secs(1);
/// Most commands that are taken together.
const BURST: usize = 512;

/// Who is to be told when the next plan is carried out.
enum Waiting {
    Added { slot: u32, reply: oneshot::Sender<Result<u32, EngineError>> },
    Removed(oneshot::Sender<Result<(), EngineError>>),
}

/// An ADD that waits, and who waits for it.
type HeldAdd = (Box<LocalEndpoint>, oneshot::Sender<Result<u32, EngineError>>);

/// What is told of the numbers that the cluster shares.
pub(super) struct Sharing {
    /// It has some.
    pub(super) on: bool,
    pub(super) unshared: watch::Sender<BTreeSet<Unshared>>,
    pub(super) shared: watch::Sender<bool>,
}

impl Sharing {
    fn tell(&self, planner: &Planner) {
        if self.on {
            let unshared = planner.unshared();
            self.unshared.send_if_modified(|told| {
                let news = *told != unshared;
                *told = unshared;
                news
            });
        }
        let shared = self.on && planner.is_in_step();
        self.shared.send_if_modified(|told| std::mem::replace(told, shared) != shared);
    }
}

/// Numbers of identities that packets between nodes may carry.
struct Carried {
    /// They carry some.
    on: bool,
    /// What the programs know; `None`: to be read.
    told: Option<BTreeSet<u32>>,
    /// What they should know may have changed.
    stale: bool,
}

impl Carried {
    /// What they should know, if that may have changed: every number that the cluster has given, while all of them mean
    /// here what they mean elsewhere.
    fn wanted(&self, sharing: &Sharing, planner: &Planner) -> Option<BTreeSet<u32>> {
        if !self.stale {
            return None;
        }
        if !(self.on && sharing.on && planner.is_in_step()) {
            return Some(BTreeSet::new());
        }
        Some([BELIEVED].into_iter().chain(planner.identities().given().all().map(|(number, _)| number)).collect())
    }

    /// Takes back what should not be known any more: before rules that speak of it go.
    fn take_back(&mut self, tables: &mut Tables, wanted: &BTreeSet<u32>) -> Result<(), TableError> {
        let told = match self.told.take() {
            Some(told) => told,
            None => tables.numbers()?,
        };
        let told = self.told.insert(told);
        // BELIEVED, which is for all, comes first.
        for number in told.difference(wanted).copied().collect::<Vec<_>>() {
            tables.drop_number(number)?;
            told.remove(&number);
        }
        Ok(())
    }

    /// Tells what is new: after rules speak of it.
    fn tell(&mut self, tables: &mut Tables, wanted: &BTreeSet<u32>) -> Result<(), TableError> {
        let told = self.told.get_or_insert_default();
        for number in wanted.difference(told).copied().collect::<Vec<_>>().into_iter().rev() {
            tables.add_number(number)?;
            told.insert(number);
        }
        self.stale = false;
        Ok(())
    }
}

pub(super) struct Worker {
    state: State,
    tables: Tables,
    capacity: Capacity,
    knowledge: Arc<Knowledge>,
    keep: KeepIdentities,
    sharing: Sharing,
    carried: Carried,
    waiting: Vec<Waiting>,
    /// ADDs that came before the source was read.
    held: VecDeque<HeldAdd>,
    /// When what is left over may be removed, and the round of the last plan whose swing is long enough ago then.
    garbage_at: Option<(Instant, u64)>,
    /// Pods about which something was said since what is known of them was brought up to date.
    touched: BTreeSet<PodKey>,
    retry_at: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        state: State,
        tables: Tables,
        capacity: Capacity,
        knowledge: Arc<Knowledge>,
        keep: KeepIdentities,
        sharing: Sharing,
        carries: bool,
    ) -> Self {
        Self {
            state,
            tables,
            capacity,
            knowledge,
            keep,
            sharing,
            carried: Carried { on: carries, told: None, stale: true },
            waiting: Vec::new(),
            held: VecDeque::new(),
            garbage_at: None,
            touched: BTreeSet::new(),
            retry_at: None,
        }
    }

    pub(super) fn run(&mut self, inbox: &Receiver<Command>) {
        loop {
            let first = match self.next(inbox) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let began = Instant::now();
            let mut changed = self.retry_at.is_some_and(|at| at <= began);
            for command in first.into_iter().chain(inbox.try_iter().take(BURST)) {
                match command {
                    Command::Stop => return,
                    Command::Ask(question) => question(&self.state),
                    other => changed |= self.take(other),
                }
            }
            if changed && self.state.synced {
                self.reconcile(began);
            }
            if let Some((_, round)) = self.garbage_at.filter(|(at, _)| *at <= Instant::now()) {
                self.collect(round);
            }
        }
    }

    fn next(&self, inbox: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        match [self.garbage_at.map(|(at, _)| at), self.retry_at].into_iter().flatten().min() {
            Some(at) => inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Takes a command in. True if there is something to plan.
    fn take(&mut self, command: Command) -> bool {
        match command {
            Command::Objects { apply, delete } => {
                for object in apply {
                    debug!(object = %object.key(), "Object applied");
                    match object {
                        Object::Service(_) | Object::EndpointSlice(_) => self.state.services.index.apply(object),
                        _ => self.state.planner.apply(object),
                    }
                }
                for key in delete {
                    debug!(object = %key, "Object deleted");
                    match key {
                        ObjectKey::Service(_) | ObjectKey::EndpointSlice(_) => self.state.services.index.delete(&key),
                        _ => self.state.planner.delete(&key),
                    }
                }
                self.state.last_change = Some(Instant::now());
                true
            }
            Command::Numbers(told) => {
                self.state.planner.give(told);
                self.carried.stale = true;
                true
            }
            Command::NumbersShared => {
                self.sharing.on = true;
                self.carried.stale = true;
                true
            }
            Command::Synced => {
                self.state.synced = true;
                for (endpoint, reply) in std::mem::take(&mut self.held) {
                    self.add(*endpoint, reply);
                }
                true
            }
            Command::Swept(round) => {
                if !self.state.services.swept(self.tables.services(), round) {
                    self.retry_at = Some(Instant::now() + RETRY);
                }
                false
            }
            Command::HostAddresses(addresses) => {
                self.state.planner.set_host_addresses(addresses);
                true
            }
            Command::Add { endpoint, reply } => {
                if self.state.synced {
                    self.add(*endpoint, reply)
                } else {
                    self.held.push_back((endpoint, reply));
                    false
                }
            }
            Command::Remove { key, reply } => {
                self.held.retain(|(endpoint, _)| endpoint.key != key);
                let slot = self.state.planner.endpoints().find(|endpoint| endpoint.key == key).map(|it| it.slot);
                match slot {
                    Some(slot) => {
                        self.state.planner.remove_endpoint(slot);
                        self.waiting.push(Waiting::Removed(reply));
                        true
                    }
                    None => {
                        let _ = reply.send(Ok(()));
                        false
                    }
                }
            }
            Command::IdleIdentities { now, grace, reply } => {
                let State { planner, mirror, synced, .. } = &mut self.state;
                // Before the source has told of them, everybody's pods are missing.
                let idle = if *synced { planner.idle_identities(mirror, now, grace) } else { BTreeSet::new() };
                let _ = reply.send(idle);
                false
            }
            Command::ReleaseIdentities { numbers, now, grace } => {
                let State { planner, mirror, .. } = &mut self.state;
                let released = planner.release_identities(mirror, &numbers, now, grace);
                self.carried.stale |= !released.is_empty();
                if !released.is_empty() {
                    info!(numbers = released.len(), "Identities given back that nobody has any more");
                }
                if let Err(problem) = self.keep_identities() {
                    // They are written down with the next change, and free until a restart at least.
                    warn!(error = %problem, "Identities that were given back are still written down");
                }
                // They may be waited for.
                !released.is_empty()
            }
            Command::Ask(_) | Command::Stop => false,
        }
    }

    fn add(&mut self, mut endpoint: LocalEndpoint, reply: oneshot::Sender<Result<u32, EngineError>>) -> bool {
        let more = endpoint.ips().count();
        if self.state.mirror.addresses.len() + more > self.capacity.addresses {
            let _ = reply.send(Err(EngineError::AddressesFull(self.capacity.addresses)));
            return false;
        }
        let Some(slot) = self.state.planner.free_slot(&self.state.mirror, &BTreeSet::new()) else {
            let _ = reply.send(Err(EngineError::EndpointsFull(self.capacity.endpoints.saturating_sub(1))));
            return false;
        };
        endpoint.slot = slot;
        self.state.planner.add_endpoint(endpoint);
        self.waiting.push(Waiting::Added { slot, reply });
        true
    }

    /// Plans and carries out. On a refusal of the kernel the rest is left alone and tried again:
    /// pointers are swung last, so that everybody stays under complete rules.
    fn reconcile(&mut self, began: Instant) {
        self.retry_at = None;
        self.serve();
        self.touched.append(&mut self.state.planner.touched());
        let plan = match self.state.planner.plan(&self.state.mirror) {
            Ok(plan) => plan,
            Err(exhausted) => return self.fail(EngineError::Identities(exhausted.to_string())),
        };
        if let Err(reason) = self.keep_identities() {
            return self.fail(EngineError::Kernel(reason));
        }
        let changes = plan.changes.len();
        let numbers = self.carried.wanted(&self.sharing, &self.state.planner);
        if let Err(problem) = self.write(&plan.changes, numbers.as_ref()) {
            return self.fail(EngineError::Kernel(problem.to_string()));
        }
        self.state.trouble = None;
        self.state.plans += 1;
        self.state.last_plan = began.elapsed();
        // Before anybody is answered: the first packet's record is to have names.
        let touched = std::mem::take(&mut self.touched);
        self.knowledge.update(&self.state.planner, &self.state.mirror, &touched);
        for waiting in self.waiting.drain(..) {
            match waiting {
                Waiting::Added { slot, reply } => {
                    let _ = reply.send(Ok(slot));
                }
                Waiting::Removed(reply) => {
                    let _ = reply.send(Ok(()));
                }
            }
        }
        self.sharing.tell(&self.state.planner);
        self.report(plan.refusals);
        let strangers = self.state.planner.strangers();
        if strangers > 0 {
            // Until objects go, or others that went have made room.
            warn!(strangers, capacity = self.capacity.addresses, map = "ADDRESSES", "Addresses found no room");
            self.retry_at = Some(Instant::now() + RETRY);
        }
        if changes > 0 {
            self.await_garbage();
            info!(changes, took_us = self.state.last_plan.as_micros() as u64, "Rules brought up to date");
        }
    }

    /// Brings Services up to date; they wait for nobody's rules.
    fn serve(&mut self) {
        if !self.state.services.bring_up_to_date(self.tables.services(), &self.knowledge) {
            self.retry_at = Some(Instant::now() + RETRY);
        }
    }

    fn keep_identities(&mut self) -> Result<(), String> {
        if !self.state.planner.identities().unkept().is_empty() {
            (self.keep)(self.state.planner.identities())?;
            self.state.planner.identities_kept();
        }
        Ok(())
    }

    /// Carries a plan out. `numbers`: what packets may carry, if that has changed.
    fn write(&mut self, changes: &[Change], numbers: Option<&BTreeSet<u32>>) -> Result<(), TableError> {
        if let Some(numbers) = numbers {
            self.carried.take_back(&mut self.tables, numbers)?;
        }
        for change in changes {
            self.carry_out(change)?;
        }
        if let Some(numbers) = numbers {
            self.carried.tell(&mut self.tables, numbers)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, change: &Change) -> Result<(), TableError> {
        self.tables.apply(change)?;
        self.state.mirror.apply(change);
        Ok(())
    }

    /// Something could not be written: whoever waits for it is told, and endpoints that are only
    /// half there leave again.
    fn fail(&mut self, problem: EngineError) {
        error!(error = %problem, "Rules could not be brought up to date");
        for waiting in self.waiting.drain(..) {
            match waiting {
                Waiting::Added { slot, reply } => {
                    self.state.planner.remove_endpoint(slot);
                    let _ = reply.send(Err(problem.clone()));
                }
                Waiting::Removed(reply) => {
                    let _ = reply.send(Err(problem.clone()));
                }
            }
        }
        self.state.trouble = Some(problem.to_string());
        self.carried.told = None;
        match self.tables.read() {
            Ok(mirror) => self.state.mirror = mirror,
            Err(again) => error!(error = %again, "Maps could not be read back"),
        }
        self.state.planner.forget_installed();
        self.retry_at = Some(Instant::now() + RETRY);
    }

    fn report(&mut self, refusals: Vec<Refusal>) {
        for refusal in refusals.iter().filter(|refusal| !self.state.refusals.contains(refusal)) {
            warn!(
                namespace = %refusal.pod.namespace, pod = %refusal.pod.name, direction = ?refusal.direction,
                reason = %refusal.reason, remains = ?refusal.remains, "Rules refused"
            );
        }
        self.state.refusals = refusals;
    }

    /// Waits for packets under way, unless it does already: plans that follow each other closely do not put it off.
    fn await_garbage(&mut self) {
        self.garbage_at.get_or_insert((Instant::now() + GRACE, self.state.planner.round()));
    }

    /// Removes what nobody refers to any more. Space that this makes may admit what was refused.
    fn collect(&mut self, round: u64) {
        self.garbage_at = None;
        let changes = self.state.planner.garbage_until(&self.state.mirror, round);
        let freed = !changes.is_empty();
        for change in &changes {
            if let Err(problem) = self.carry_out(change) {
                return self.fail(EngineError::Kernel(problem.to_string()));
            }
        }
        if self.state.planner.has_garbage(&self.state.mirror) {
            // Left over by plans that were made meanwhile.
            self.await_garbage();
        }
        if freed && !self.state.refusals.is_empty() {
            self.reconcile(Instant::now());
        }
    }
}
