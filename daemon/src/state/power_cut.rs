//! Crashes after every operation on the disk: of the daemon, which keeps all that the kernel was told, and
//! of the machine, which keeps what was synced and any part of the rest.
//!
//! What a power cut may do is taken from what POSIX promises, not from one file system: names that were
//! not synced with their folder are there or not, from some point on or only the last; contents that
//! were not synced are whole, half, zeros or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::{
    Durability, EndpointRecord, Identities, IdentityRecord, Opened, Phase, PodRef, StateDir,
    file::is_unfinished,
    journal::{self, Op},
};
use crate::ipam::{self, Owner, PodAddress, Pools, Store as _};

const BOOT: &str = "boot-1";

fn record(n: u8, phase: Phase) -> EndpointRecord {
    EndpointRecord {
        owner: Owner::new(format!("c{n}"), "eth0"),
        network: "shop".into(),
        cni_version: "1.1.0".into(),
        netns: format!("/var/run/netns/cni-{n}"),
        netns_inode: 4_026_531_840,
        pod: PodRef { namespace: "shop".into(), name: format!("web-{n}"), uid: "u".into() },
        addresses: vec![PodAddress { address: [10, 0, 0, n].into(), gateway: [10, 0, 0, 1].into() }],
        mac: crate::mac::Mac::local([2, 0, 0, 0, 0, n]),
        mtu: 1500,
        host_ifname: format!("bh{n}"),
        host_ifindex: u32::from(n),
        pod_ifindex: 2,
        slot: u32::from(n),
        phase,
        created_unix_ms: 1_700_000_000_000,
    }
}

fn identities(count: u32) -> Identities {
    let identity = |number: u32| IdentityRecord {
        number: 256 + number,
        namespace: "shop".into(),
        namespace_labels: BTreeMap::new(),
        labels: [("app".to_owned(), number.to_string())].into(),
        service_account: "default".into(),
    };
    Identities { identities: (0..count).map(identity).collect(), next: 0, edition: 0 }
}

/// One call that was answered, or was under way.
#[derive(Clone, Debug)]
enum Act {
    Put(Box<EndpointRecord>),
    Removed(Owner),
    Identities(Identities),
    Other,
}

/// A life of a state folder: every operation, and after how many of them each call was answered.
struct Story {
    ops: Vec<Op>,
    acts: Vec<(usize, Act)>,
}

fn story(root: &Path, durability: Durability) -> Story {
    let mut acts = Vec::new();
    let ops = journal::record(|| {
        let (state, _) = StateDir::open(root, durability, BOOT).unwrap();
        let mut did = |act: Act| acts.push((journal::length(), act));
        did(Act::Other);
        let put = |record: EndpointRecord| {
            state.put_endpoint(&record).unwrap();
            Act::Put(Box::new(record))
        };
        did(put(record(2, Phase::Allocated)));
        did(put(record(2, Phase::Ready)));
        state.save_cursors(&[[10, 0, 0, 2].into()]).unwrap();
        did(Act::Other);
        state.put_identities(&identities(1)).unwrap();
        did(Act::Identities(identities(1)));
        did(put(record(3, Phase::Allocated)));
        did(put(record(3, Phase::Ready)));
        state.remove_endpoint(&record(2, Phase::Ready).owner).unwrap();
        did(Act::Removed(record(2, Phase::Ready).owner));
        state.put_identities(&identities(2)).unwrap();
        did(Act::Identities(identities(2)));
        // The address of the one that has gone goes to another.
        did(put(EndpointRecord { owner: Owner::new("c9", "eth0"), ..record(2, Phase::Ready) }));
    });
    Story { ops, acts }
}

/// What is on the disk.
#[derive(Default)]
struct Disk {
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// What becomes of content that was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Whole,
    Half,
    Zeros,
    Nothing,
}

/// Plays operations again. `lost` says which changes of names never reached the disk.
fn replay(ops: &[Op], lost: &BTreeSet<usize>, content: Content) -> Disk {
    let mut disk = Disk::default();
    // By the name that a file was written under: it is never written again.
    let mut written: BTreeMap<&Path, Vec<u8>> = BTreeMap::new();
    for op in ops {
        if let Op::Write(path, bytes) = op {
            let synced = ops.iter().any(|other| matches!(other, Op::Sync(it) if it == path));
            let kept = match content {
                _ if synced => bytes.clone(),
                Content::Whole => bytes.clone(),
                Content::Half => bytes[..bytes.len() / 2].to_vec(),
                Content::Zeros => vec![0; bytes.len()],
                Content::Nothing => Vec::new(),
            };
            written.insert(path, kept);
        }
    }
    for (at, op) in ops.iter().enumerate().filter(|(at, _)| !lost.contains(at)) {
        match op {
            Op::Folder(path) => {
                disk.folders.insert(path.clone());
            }
            Op::Create(path) if disk.folders.contains(path.parent().unwrap()) => {
                let later = ops[at..].iter().any(|op| matches!(op, Op::Write(it, _) if it == path));
                let bytes = if later { written[path.as_path()].clone() } else { Vec::new() };
                disk.files.insert(path.clone(), bytes);
            }
            Op::Rename(from, to) => {
                if let Some(bytes) = disk.files.remove(from) {
                    disk.files.insert(to.clone(), bytes);
                }
            }
            Op::Remove(path) => {
                disk.files.remove(path);
            }
            Op::Create(_) | Op::Write(..) | Op::Sync(_) | Op::SyncFolder(_) => {}
        }
    }
    disk
}

/// Changes of names that are not on the disk for certain.
fn unsynced(ops: &[Op], root: &Path) -> Vec<usize> {
    let folder = |op: &Op| match op {
        // The state folder itself is somebody else's to make.
        Op::Folder(path) if path == root => None,
        Op::Folder(path) | Op::Create(path) | Op::Rename(_, path) | Op::Remove(path) => {
            path.parent().map(Path::to_owned)
        }
        Op::Write(..) | Op::Sync(_) | Op::SyncFolder(_) => None,
    };
    let synced = |at: usize, folder: &Path| ops[at..].iter().any(|op| *op == Op::SyncFolder(folder.to_owned()));
    let named = ops.iter().enumerate().filter_map(|(at, op)| Some((at, folder(op)?)));
    named.filter(|(at, folder)| !synced(*at, folder)).map(|(at, _)| at).collect()
}

/// Every way to lose some of these: from one on to the end, and all but the last.
fn losses(pending: &[usize]) -> Vec<BTreeSet<usize>> {
    let mut all: Vec<BTreeSet<usize>> =
        (0..=pending.len()).map(|from| pending[from..].iter().copied().collect()).collect();
    if let [before @ .., _] = pending {
        all.push(before.iter().copied().collect());
    }
    all
}

/// Puts a disk into a folder and starts a daemon's state there.
fn start(disk: &Disk, root: &Path, boot: &str, durability: Durability) -> (tempfile::TempDir, StateDir, Opened) {
    let place = tempfile::tempdir().unwrap();
    let moved = |path: &Path| place.path().join(path.strip_prefix(root).unwrap());
    for folder in &disk.folders {
        fs::create_dir_all(moved(folder)).unwrap();
    }
    for (path, bytes) in &disk.files {
        fs::write(moved(path), bytes).unwrap();
    }
    let (state, opened) = StateDir::open(place.path(), durability, boot).unwrap();
    (place, state, opened)
}

/// What the answered calls have promised: records and identities; and the call under way, if there is one.
fn promised(acts: &[(usize, Act)], after: usize) -> (BTreeMap<Owner, EndpointRecord>, Identities, Option<&Act>) {
    let (mut records, mut identities, mut under_way) = (BTreeMap::new(), Identities::default(), None);
    for (at, act) in acts {
        if *at > after {
            under_way = under_way.or(Some(act));
            continue;
        }
        match act {
            Act::Put(record) => {
                records.insert(record.owner.clone(), (**record).clone());
            }
            Act::Removed(owner) => {
                records.remove(owner);
            }
            Act::Identities(all) => identities = all.clone(),
            Act::Other => {}
        }
    }
    (records, identities, under_way)
}

/// Everything that was promised is there, and besides only what the call under way may have done.
fn keeps_its_promises(story: &Story, after: usize, opened: &Opened, place: &str) {
    let (records, identities, under_way) = promised(&story.acts, after);
    let mut allowed = vec![records.clone()];
    let mut done = records;
    match under_way {
        Some(Act::Put(record)) => {
            done.insert(record.owner.clone(), (**record).clone());
        }
        Some(Act::Removed(owner)) => {
            done.remove(owner);
        }
        _ => {}
    }
    allowed.push(done);
    let found: BTreeMap<Owner, EndpointRecord> =
        opened.endpoints.iter().map(|record| (record.owner.clone(), record.clone())).collect();
    assert!(allowed.contains(&found), "{place}: found {found:?}, promised {:?}", allowed[0]);
    let new = matches!(under_way, Some(Act::Identities(new)) if *new == opened.identities);
    assert!(new || opened.identities == identities, "{place}: {:?}", opened.identities);
    assert!(opened.corrupt.is_empty(), "{place}: {:?}", opened.corrupt);
}

/// Every address that can be handed out now is nobody's who was promised one.
fn hands_out_nothing_twice(story: &Story, after: usize, state: &StateDir, place: &str) {
    let pools = Pools::new(&["10.0.0.0/28".parse().unwrap()]).unwrap();
    let (mut allocator, conflicts) = ipam::restore(pools, state).unwrap();
    assert!(conflicts.is_empty(), "{place}: {conflicts:?}");
    let (mut records, _, under_way) = promised(&story.acts, after);
    if let Some(Act::Removed(owner)) = under_way {
        records.remove(owner);
    }
    let taken: BTreeSet<IpAddr> =
        records.values().flat_map(|record| record.addresses.iter().map(|it| it.address)).collect();
    let mut given = BTreeSet::new();
    for n in 100.. {
        let Ok(addresses) = allocator.allocate(&Owner::new(format!("new{n}"), "eth0"), &[]) else { break };
        for PodAddress { address, .. } in addresses {
            assert!(!taken.contains(&address) && given.insert(address), "{place}: {address} is handed out twice");
        }
    }
    assert!(given.len() >= 10, "{place}: only {given:?} are left");
}

/// No file is left that only half says something, and each that did is named.
fn names_what_is_broken(disk: &Disk, root: &Path, state: &StateDir, opened: &Opened, place: &str) {
    let is_record = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
    let broken = disk.files.iter().filter(|(path, bytes)| {
        is_record(path)
            && !path.ends_with("cursors.json")
            && serde_json::from_slice::<serde_json::Value>(bytes).is_err()
    });
    let broken: BTreeSet<PathBuf> =
        broken.map(|(path, _)| state.root().join(path.strip_prefix(root).unwrap())).collect();
    let named: BTreeSet<PathBuf> = opened.corrupt.iter().map(|corrupt| corrupt.path.clone()).collect();
    assert_eq!(named, broken, "{place}");
    for folder in ["", "endpoints"] {
        for entry in fs::read_dir(state.root().join(folder)).unwrap() {
            assert!(!is_unfinished(&entry.unwrap().file_name()), "{place}");
        }
    }
}

#[test]
fn a_crash_of_the_daemon_after_any_operation_loses_nothing() {
    for durability in [Durability::Process, Durability::Machine] {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("state");
        let story = story(&root, durability);
        assert!(story.ops.len() > 25, "{:?}", story.ops);
        for after in 0..=story.ops.len() {
            let place = format!("{durability:?}, after {after} of {} operations", story.ops.len());
            // The last write may have come to its half.
            for content in [Content::Whole, Content::Half] {
                let mut ops = story.ops[..after].to_vec();
                if let (Content::Half, Some(Op::Write(_, bytes))) = (content, ops.last_mut()) {
                    bytes.truncate(bytes.len() / 2);
                }
                let disk = replay(&ops, &BTreeSet::new(), Content::Whole);
                let (_place, state, opened) = start(&disk, &root, BOOT, durability);
                keeps_its_promises(&story, after, &opened, &place);
                hands_out_nothing_twice(&story, after, &state, &place);
                names_what_is_broken(&disk, &root, &state, &opened, &place);
            }
        }
    }
}

/// The pods of before are gone with the machine: nothing of them may live on, and nothing may keep the
/// daemon from starting.
#[test]
fn after_a_power_cut_the_daemon_begins_anew_whatever_is_left_on_the_disk() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("state");
    let story = story(&root, Durability::Process);
    let mut tried = 0;
    for after in 0..=story.ops.len() {
        let ops = &story.ops[..after];
        for lost in losses(&unsynced(ops, &root)) {
            for content in [Content::Whole, Content::Half, Content::Zeros, Content::Nothing] {
                let place = format!("after {after}, without {lost:?}, contents {content:?}");
                let disk = replay(ops, &lost, content);
                let (_place, state, opened) = start(&disk, &root, "boot-2", Durability::Process);
                assert!(opened.endpoints.is_empty(), "{place}: {:?}", opened.endpoints);
                names_what_is_broken(&disk, &root, &state, &opened, &place);
                let known = [Identities::default(), identities(1), identities(2)];
                assert!(known.contains(&opened.identities), "{place}: {:?}", opened.identities);
                let pools = Pools::new(&["10.0.0.0/28".parse().unwrap()]).unwrap();
                let (mut allocator, conflicts) = ipam::restore(pools, &state).unwrap();
                assert!(conflicts.is_empty() && allocator.owners().next().is_none(), "{place}");
                assert!(allocator.allocate(&record(7, Phase::Ready).owner, &[]).is_ok(), "{place}");
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

/// With syncs, what was answered outlives the machine.
#[test]
fn what_is_synced_survives_a_power_cut() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("state");
    let story = story(&root, Durability::Machine);
    for after in 0..=story.ops.len() {
        let ops = &story.ops[..after];
        for lost in losses(&unsynced(ops, &root)) {
            for content in [Content::Whole, Content::Half, Content::Zeros, Content::Nothing] {
                let place = format!("after {after}, without {lost:?}, contents {content:?}");
                let disk = replay(ops, &lost, content);
                let (_place, state, opened) = start(&disk, &root, BOOT, Durability::Machine);
                keeps_its_promises(&story, after, &opened, &place);
                hands_out_nothing_twice(&story, after, &state, &place);
            }
        }
    }
}
