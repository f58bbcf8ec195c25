//! Carries out the steps of an endpoint's life, and knows which endpoints there are. What becomes of programs that somebody
//! else removes is in [`guard`].

pub mod guard;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use policy::model::PodKey;
use tracing::{debug, info, warn};

use self::guard::PutBack;
use super::{
    admin::Stage,
    engine::{Engine, EngineError},
};
use crate::{
    datapath::attach::{AttachError, Attacher},
    endpoint::{self, Step, Undo},
    ipam::{AllocateError, Allocator, Owner, PodAddress, Store as _, Usage},
    mac::Mac,
    net::{
        NetError, Netns, NetnsError, Node,
        host::{self, HostSide},
        link,
        pair::{self, PairError, PairSpec, PodDevice},
        pod::{self, PodSide},
        presence::Presence,
    },
    reconcile::{EndpointKey, LocalEndpoint},
    state::{EndpointRecord, Phase, PodRef, StateDir, StateError},
};

/// Why an attachment could not be made, checked or removed.
#[derive(Debug, thiserror::Error)]
pub enum AttachmentError {
    /// No address.
    #[error(transparent)]
    Address(#[from] AllocateError),
    /// The pod's namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The pair of interfaces.
    #[error(transparent)]
    Link(#[from] PairError),
    /// Addresses and routes.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Rules.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Programs.
    #[error(transparent)]
    Programs(#[from] AttachError),
    /// The record.
    #[error(transparent)]
    State(#[from] StateError),
    /// A random MAC address could not be made.
    #[error("no random MAC address: {0}")]
    Random(#[source] std::io::Error),
    /// Nothing is known of it.
    #[error("there is no attachment {0}: it was never added, or has been removed")]
    Unknown(Owner),
    /// It is not as it was made.
    #[error("attachment {owner} is not as it was made: {}", .problems.join("; "))]
    Differs {
        /// Which.
        owner: Owner,
        /// What is wrong.
        problems: Vec<String>,
    },
    /// Some of an undo has failed; the rest is done.
    #[error("removing {owner}: {}", .problems.join("; "))]
    Undo {
        /// Which.
        owner: Owner,
        /// What is wrong.
        problems: Vec<String>,
    },
}

/// What ADD is asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Container id and interface name.
    pub owner: Owner,
    /// Name of the CNI network.
    pub network: String,
    /// "cniVersion".
    pub cni_version: String,
    /// Path of the pod's namespace, and its inode (0: any).
    pub netns: (String, u64),
    /// Which pod; a bare container gets its id for a name in `default`.
    pub pod: PodRef,
    /// MAC address of the pod's side.
    pub mac: Option<Mac>,
    /// Addresses it must get.
    pub ips: Vec<IpAddr>,
    /// MTU in bytes; 0: the node's.
    pub mtu: u32,
}

/// All attachments of this node. Share it in an [`Arc`].
#[derive(Debug)]
pub struct Attachments {
    node: Node,
    engine: Engine,
    state: Arc<StateDir>,
    attacher: Mutex<Attacher>,
    allocator: Mutex<Allocator>,
    records: Mutex<BTreeMap<Owner, EndpointRecord>>,
    /// One operation on an attachment at a time; different ones do not wait for each other.
    busy: Mutex<HashMap<Owner, Arc<tokio::sync::Mutex<()>>>>,
    /// Those that a DEL is at work on.
    leaving: Leaving,
    presence: Presence,
    /// Programs that somebody had removed.
    put_back: PutBack,
    /// As they were written down last.
    cursors: Mutex<Vec<IpAddr>>,
    mtu: u32,
    /// What new pods get; those that are there may have another.
    device: PodDevice,
}

/// Which attachments are on their way out.
#[derive(Debug, Default)]
struct Leaving(Mutex<BTreeSet<Owner>>);

impl Leaving {
    /// Until the answer is dropped.
    fn enter(&self, owner: &Owner) -> OnTheWayOut<'_> {
        lock(&self.0).insert(owner.clone());
        OnTheWayOut { leaving: self, owner: owner.clone() }
    }

    fn has(&self, owner: &Owner) -> bool {
        lock(&self.0).contains(owner)
    }
}

/// See [`Leaving::enter`].
struct OnTheWayOut<'a> {
    leaving: &'a Leaving,
    owner: Owner,
}

impl Drop for OnTheWayOut<'_> {
    fn drop(&mut self) {
        lock(&self.leaving.0).remove(&self.owner);
    }
}

/// How far an attachment is.
fn stage(phase: Phase, is_leaving: bool, has_link: impl FnOnce() -> bool) -> Stage {
    match phase {
        _ if is_leaving => Stage::Deleting,
        Phase::Allocated => Stage::Creating,
        Phase::Ready if has_link() => Stage::Attached,
        Phase::Ready => Stage::Lost,
    }
}

impl Attachments {
    /// With the records that were found valid, and what new pods get: kind of their links, and MTU.
    #[expect(clippy::too_many_arguments, reason = "each is a part that is made elsewhere, once")]
    pub fn new(
        node: Node,
        engine: Engine,
        state: Arc<StateDir>,
        attacher: Attacher,
        allocator: Allocator,
        records: BTreeMap<Owner, EndpointRecord>,
        (device, mtu): (PodDevice, u32),
        presence: Presence,
    ) -> Self {
        Self {
            node,
            engine,
            state,
            attacher: Mutex::new(attacher),
            cursors: Mutex::new(allocator.cursors()),
            allocator: Mutex::new(allocator),
            records: Mutex::new(records),
            busy: Mutex::default(),
            leaving: Leaving::default(),
            put_back: PutBack::default(),
            presence,
            mtu,
            device,
        }
    }

    /// The state folder.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// A copy of one record.
    pub fn record(&self, owner: &Owner) -> Option<EndpointRecord> {
        lock(&self.records).get(owner).cloned()
    }

    /// A copy of one record, and how far the attachment is.
    pub fn staged(&self, owner: &Owner) -> Option<(EndpointRecord, Stage)> {
        let record = self.record(owner)?;
        let stage = stage(record.phase, self.leaving.has(owner), || self.presence.has(record.host_ifindex));
        Some((record, stage))
    }

    /// A copy of every record.
    pub fn records(&self) -> Vec<EndpointRecord> {
        lock(&self.records).values().cloned().collect()
    }

    /// Writes down which addresses were handed out last, if that has changed: after a restart the next ones
    /// are given out, not those that were freed a moment ago.
    pub fn keep_cursors(&self) -> Result<(), StateError> {
        let cursors = lock(&self.allocator).cursors();
        let mut kept = lock(&self.cursors);
        if *kept != cursors {
            self.state.save_cursors(&cursors)?;
            *kept = cursors;
        }
        Ok(())
    }

    /// How full the pools are.
    pub fn usage(&self) -> Vec<Usage> {
        lock(&self.allocator).usage()
    }

    /// Makes an attachment. Returns when identity and rules are in the kernel and the link is up;
    /// on an error nothing of it is left.
    pub async fn add(&self, wish: Wish) -> Result<EndpointRecord, AttachmentError> {
        let turn = self.turn(&wish.owner);
        let _turn = turn.lock().await;
        let sandbox = self.node.sandbox(Path::new(&wish.netns.0), wish.netns.1)?;
        let mac = match wish.mac {
            Some(mac) => mac,
            None => crate::net::mac::random().map_err(AttachmentError::Random)?,
        };
        let mut record = EndpointRecord {
            owner: wish.owner.clone(),
            network: wish.network,
            cni_version: wish.cni_version,
            netns: wish.netns.0,
            netns_inode: wish.netns.1,
            pod: wish.pod,
            addresses: Vec::new(),
            mac,
            mtu: if wish.mtu == 0 { self.mtu } else { wish.mtu },
            host_ifname: link::host_ifname(&wish.owner.container_id, &wish.owner.ifname),
            host_ifindex: 0,
            pod_ifindex: 0,
            slot: 0,
            phase: Phase::Allocated,
            created_unix_ms: unix_ms(),
        };
        for step in endpoint::ADD {
            let began = Instant::now();
            let done = self.step(step, &mut record, &sandbox, &wish.ips).await;
            debug!(container_id = %record.owner.container_id, ?step, took_us = micros(began), "Step of ADD");
            if let Err(problem) = done {
                // What was there before this ADD is not this ADD's to remove.
                let ours = !matches!(
                    (&problem, step),
                    (AttachmentError::Address(_), Step::Reserve)
                        | (AttachmentError::Link(PairError::HostHasInterface { .. }), Step::Link)
                );
                for undo in endpoint::after_failure(step) {
                    let skip = !ours && (step == Step::Reserve || undo == Undo::DeleteLink);
                    if skip {
                        continue;
                    }
                    if let Err(again) = self.undo(undo, &record).await {
                        warn!(owner = %record.owner, error = %again, "Undo of ADD");
                        // As in `del`: a link that may still be there keeps its programs.
                        if undo == Undo::DeleteLink {
                            break;
                        }
                    }
                }
                return Err(problem);
            }
        }
        info!(
            namespace = %record.pod.namespace, pod = %record.pod.name, container_id = %record.owner.container_id,
            ifindex = record.host_ifindex, slot = record.slot, "Endpoint added"
        );
        Ok(record)
    }

    async fn step(
        &self,
        step: Step,
        record: &mut EndpointRecord,
        sandbox: &Netns,
        ips: &[IpAddr],
    ) -> Result<(), AttachmentError> {
        match step {
            Step::Reserve => {
                record.addresses = lock(&self.allocator).allocate(&record.owner, ips)?;
                self.keep(record)?;
            }
            Step::Link => {
                let Owner { container_id, ifname } = record.owner.clone();
                let pod = (record.network.clone(), record.pod.namespace.clone(), record.pod.name.clone());
                let (device, mac, mtu) = (self.device, record.mac, record.mtu);
                let spec = PairSpec { device, container_id, ifname, mac, mtu, pod: Some(pod) };
                let pair = pair::create(&self.node, sandbox, &spec).await?;
                record.host_ifindex = pair.host_ifindex;
                record.pod_ifindex = pair.pod_ifindex;
                record.host_ifname = pair.host_ifname;
            }
            Step::Rules => record.slot = self.engine.add(local_endpoint(record)).await?,
            Step::Programs => lock(&self.attacher).attach(&record.host_ifname, record.host_ifindex)?,
            Step::PodSide => pod::configure(sandbox, &pod_side(record)).await?,
            Step::HostSide => {
                host::enable(&self.node, &host_side(record)).await?;
                pod::wait_until_open(sandbox, &pod_side(record)).await?;
            }
            Step::Seal => {
                record.phase = Phase::Ready;
                self.keep(record)?;
            }
        }
        Ok(())
    }

    /// Removes an attachment, as far as it is there. Carries on past errors and tells them all.
    pub async fn del(&self, owner: &Owner) -> Result<bool, AttachmentError> {
        let turn = self.turn(owner);
        let _turn = turn.lock().await;
        let Some(record) = self.record(owner) else {
            // An ADD that was cut short may have left the link.
            link::delete_link(&self.node, &link::host_ifname(&owner.container_id, &owner.ifname)).await?;
            lock(&self.allocator).free_all(owner);
            self.leave(owner, &turn);
            return Ok(false);
        };
        let _leaving = self.leaving.enter(owner);
        let mut problems = Vec::new();
        for undo in endpoint::DEL {
            // While the link may still be there its programs stay, and while anything of it is
            // there nobody else gets its address.
            if !problems.is_empty() && (undo == Undo::Free || undo == Undo::ForgetPrograms) {
                continue;
            }
            let began = Instant::now();
            let done = self.undo(undo, &record).await;
            debug!(container_id = %owner.container_id, step = ?undo, took_us = micros(began), "Step of DEL");
            if let Err(problem) = done {
                problems.push(problem.to_string());
                if undo == Undo::DeleteLink {
                    break;
                }
            }
        }
        if !problems.is_empty() {
            return Err(AttachmentError::Undo { owner: owner.clone(), problems });
        }
        self.leave(owner, &turn);
        info!(
            namespace = %record.pod.namespace, pod = %record.pod.name, container_id = %owner.container_id,
            "Endpoint removed"
        );
        Ok(true)
    }

    async fn undo(&self, undo: Undo, record: &EndpointRecord) -> Result<(), AttachmentError> {
        match undo {
            Undo::DeleteLink if record.host_ifindex == 0 => link::delete_link(&self.node, &record.host_ifname).await?,
            Undo::DeleteLink => {
                let HostSide { ifname, ifindex, .. } = host_side(record);
                link::delete_attachment(&self.node, &self.presence, &ifname, ifindex).await?;
            }
            Undo::ForgetPrograms => lock(&self.attacher).forget(record.host_ifindex),
            Undo::RemoveRules => self.engine.remove(key(&record.owner)).await?,
            Undo::Free => {
                self.state.remove_endpoint(&record.owner)?;
                lock(&self.records).remove(&record.owner);
                lock(&self.allocator).free_all(&record.owner);
            }
        }
        Ok(())
    }

    /// Compares an attachment with what ADD has made. `netns`: path and inode (0: any) of the pod's
    /// namespace as the caller says, for attachments whose record has lost it.
    pub async fn check(
        &self,
        owner: &Owner,
        netns: &(String, u64),
        expected: &[IpAddr],
    ) -> Result<(), AttachmentError> {
        let turn = self.turn(owner);
        let _turn = turn.lock().await;
        let record = self.record(owner).ok_or_else(|| AttachmentError::Unknown(owner.clone()))?;
        let mut problems = Vec::new();
        for address in expected {
            if !record.addresses.iter().any(|ours| ours.address == *address) {
                problems.push(format!("prevResult has the address {address}, which is not this attachment's"));
            }
        }
        for ours in &record.addresses {
            if lock(&self.allocator).owner(ours.address) != Some(owner) {
                problems.push(format!("address {} is not reserved", ours.address));
            }
        }
        let (path, inode) = match record.netns.as_str() {
            "" => (netns.0.as_str(), netns.1),
            path => (path, record.netns_inode),
        };
        let sandbox = self.node.sandbox(Path::new(path), inode)?;
        problems.extend(pod::check(&sandbox, &pod_side(&record)).await?.iter().map(ToString::to_string));
        problems.extend(host::check(&self.node, &host_side(&record)).await?.iter().map(ToString::to_string));
        for missing in self.missing_programs(record.host_ifindex).await? {
            problems.push(format!("program {missing} is not attached to {}", record.host_ifname));
        }
        let (slot, ifindex) = (record.slot, record.host_ifindex);
        let in_force = self
            .engine
            .ask(move |state| {
                state.mirror.interfaces.get(&ifindex) == Some(&slot)
                    && state.mirror.endpoints.get(&slot).is_some_and(|endpoint| endpoint.ifindex == ifindex)
            })
            .await?;
        if !in_force {
            problems.push("its rules are not in the kernel".to_owned());
        }
        if problems.is_empty() { Ok(()) } else { Err(AttachmentError::Differs { owner: owner.clone(), problems }) }
    }

    /// Removes every attachment of a network that `keep` does not want. Returns how many, and what
    /// could not be removed.
    pub async fn collect(&self, network: &str, keep: impl Fn(&EndpointRecord) -> bool) -> (u32, Vec<AttachmentError>) {
        let (mut removed, mut problems) = (0, Vec::new());
        for record in self.records().iter().filter(|record| record.network == network && !keep(record)) {
            match self.del(&record.owner).await {
                Ok(_) => removed += 1,
                Err(problem) => problems.push(problem),
            }
        }
        (removed, problems)
    }

    /// Removes attachments whose sandbox is gone. containerd calls no GC, so we look ourselves.
    pub async fn collect_dead(&self) {
        for record in self.records() {
            if record.phase == Phase::Ready && self.is_dead(&record) {
                debug!(owner = %record.owner, netns = %record.netns, "Sandbox is gone");
                if let Err(error) = self.del(&record.owner).await {
                    warn!(%error, "Attachment of a dead sandbox could not be removed");
                }
            }
        }
    }

    /// Whether the namespace of an attachment is gone, or its path means another by now.
    pub fn is_dead(&self, record: &EndpointRecord) -> bool {
        if record.netns.is_empty() {
            // Not known, but a namespace takes its end of the link along, and with that ours.
            return !self.presence.has(record.host_ifindex);
        }
        match self.node.sandbox(Path::new(&record.netns), record.netns_inode) {
            Ok(_) => false,
            Err(error) => error.is_not_found(),
        }
    }

    fn keep(&self, record: &EndpointRecord) -> Result<(), StateError> {
        self.state.put_endpoint(record)?;
        lock(&self.records).insert(record.owner.clone(), record.clone());
        Ok(())
    }

    /// Forgets whose turn it is, if nobody else waits for one.
    fn leave(&self, owner: &Owner, turn: &Arc<tokio::sync::Mutex<()>>) {
        let mut busy = lock(&self.busy);
        // One in the map, one here; who waits holds another, and gets it with the map locked.
        if Arc::strong_count(turn) <= 2 {
            busy.remove(owner);
        }
    }

    fn turn(&self, owner: &Owner) -> Arc<tokio::sync::Mutex<()>> {
        lock(&self.busy).entry(owner.clone()).or_default().clone()
    }
}

/// An owner as the planner names it.
pub fn key(owner: &Owner) -> EndpointKey {
    EndpointKey { container_id: owner.container_id.clone(), ifname: owner.ifname.clone() }
}

/// A record as the planner sees it.
pub fn local_endpoint(record: &EndpointRecord) -> LocalEndpoint {
    let addresses = || record.addresses.iter().map(|it| it.address);
    LocalEndpoint {
        key: key(&record.owner),
        pod: PodKey::new(record.pod.namespace.clone(), record.pod.name.clone()),
        slot: record.slot,
        ifindex: record.host_ifindex,
        mac: record.mac.0,
        v4: addresses().find_map(|ip| if let IpAddr::V4(v4) = ip { Some(v4) } else { None }),
        v6: addresses().find_map(|ip| if let IpAddr::V6(v6) = ip { Some(v6) } else { None }),
    }
}

fn pod_side(record: &EndpointRecord) -> PodSide {
    PodSide { ifname: record.owner.ifname.clone(), ifindex: record.pod_ifindex, addresses: pod_addresses(record) }
}

/// The host side of a record's link.
pub fn host_side(record: &EndpointRecord) -> HostSide {
    HostSide {
        ifname: record.host_ifname.clone(),
        ifindex: record.host_ifindex,
        pod_mac: record.mac,
        addresses: pod_addresses(record),
    }
}

fn pod_addresses(record: &EndpointRecord) -> Vec<PodAddress> {
    record.addresses.clone()
}

/// Locks; what a panicking holder has left is as good as any, for every change is one insertion.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(since: Instant) -> u64 {
    since.elapsed().as_micros() as u64
}

/// Now, milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_leaving_until_its_del_has_ended_however_it_ends() {
        let (leaving, owner) = (Leaving::default(), Owner::new("c1", "eth0"));
        assert!(!leaving.has(&owner));
        let guard = leaving.enter(&owner);
        assert!(leaving.has(&owner) && !leaving.has(&Owner::new("c1", "eth1")));
        drop(guard);
        assert!(!leaving.has(&owner));
    }

    #[test]
    fn stages_follow_from_what_is_known_and_what_is_there() {
        let never = || panic!("nobody has to look");
        assert_eq!(stage(Phase::Ready, true, never), Stage::Deleting);
        assert_eq!(stage(Phase::Allocated, true, never), Stage::Deleting);
        assert_eq!(stage(Phase::Allocated, false, never), Stage::Creating);
        assert_eq!(stage(Phase::Ready, false, || true), Stage::Attached);
        assert_eq!(stage(Phase::Ready, false, || false), Stage::Lost);
    }
}
