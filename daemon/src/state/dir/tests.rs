//! The folder over restarts, crashes at every step, and files that cannot be read.

use std::{collections::BTreeSet, fs, io, os::unix::fs::PermissionsExt};

use proptest::prelude::*;

use super::*;
use crate::{
    ipam::{self, PodAddress, Pools},
    state::{
        IdentityRecord, Phase, PodRef,
        file::{Step, replace_watched},
    },
};

const BOOT: &str = "boot-1";

fn owner(n: u32) -> Owner {
    Owner::new(format!("c{n}"), "eth0")
}

fn record(n: u32) -> EndpointRecord {
    let byte = u8::try_from(n).unwrap();
    EndpointRecord {
        owner: owner(n),
        network: "shop".into(),
        cni_version: "1.1.0".into(),
        netns: format!("/var/run/netns/cni-{n}"),
        netns_inode: 4_026_531_840,
        pod: PodRef { namespace: "shop".into(), name: format!("web-{n}"), uid: "u".into() },
        addresses: vec![PodAddress { address: [10, 0, 0, byte].into(), gateway: [10, 0, 0, 1].into() }],
        mac: crate::mac::Mac::local([2, 0, 0, 0, 0, byte]),
        mtu: 1500,
        host_ifname: format!("bh{n}"),
        host_ifindex: n,
        pod_ifindex: 2,
        slot: n,
        phase: Phase::Ready,
        created_unix_ms: 1_700_000_000_000,
    }
}

fn open(root: &Path) -> (StateDir, Opened) {
    StateDir::open(root, Durability::Process, BOOT).unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(listed) = fs::read_dir(folder) else { return BTreeSet::new() };
    listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/state");
    let identities = Identities {
        identities: vec![IdentityRecord {
            number: 300,
            namespace: "shop".into(),
            namespace_labels: [("a".to_owned(), "b".to_owned())].into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            service_account: "default".into(),
        }],
        next: 301,
        edition: 1,
    };
    for durability in [Durability::Process, Durability::Machine] {
        let (state, _) = StateDir::open(&root, durability, BOOT).unwrap();
        state.put_endpoint(&record(2)).unwrap();
        state.put_endpoint(&record(3)).unwrap();
        state.put_endpoint(&EndpointRecord { phase: Phase::Allocated, ..record(2) }).unwrap();
        state.put_identities(&identities).unwrap();
        assert!(state.remove_endpoint(&owner(3)).unwrap());
        assert!(!state.remove_endpoint(&owner(3)).unwrap());
        drop(state);
        let (_state, opened) = open(&root);
        assert_eq!(opened.endpoints, [EndpointRecord { phase: Phase::Allocated, ..record(2) }]);
        assert_eq!(opened.identities, identities);
        assert_eq!((opened.corrupt, opened.stale), (vec![], vec![]));
    }
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["", "endpoints", "tombstones"].map(mode), [0o700; 3]);
    assert_eq!(["endpoints/c2:eth0.json", "identities.json", "lock"].map(mode), [0o600; 3]);
}

#[test]
fn a_record_of_an_earlier_boot_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    state.put_endpoint(&record(2)).unwrap();
    state.put_identities(&Identities::default()).unwrap();
    drop(state);
    let (state, opened) = StateDir::open(dir.path(), Durability::Process, "boot-2").unwrap();
    assert_eq!((opened.endpoints, opened.stale), (vec![], vec![record(2)]));
    state.put_endpoint(&record(3)).unwrap();
    drop(state);
    // Also when the daemon then starts in that boot again.
    let (_state, opened) = StateDir::open(dir.path(), Durability::Process, "boot-2").unwrap();
    assert_eq!((opened.endpoints, opened.stale), (vec![record(3)], vec![]));
}

#[test]
fn the_kernel_has_a_boot_id() {
    let id = crate::state::boot_id().unwrap();
    assert_eq!((id.len(), id.matches('-').count()), (36, 4), "{id}");
}

#[test]
fn a_second_daemon_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = open(dir.path());
    let error = StateDir::open(dir.path(), Durability::Process, BOOT).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "state folder {:?} is in use by process {}: stop it, or give this daemon another --state-dir",
            dir.path(),
            std::process::id()
        )
    );
    // The one that was refused has not damaged what the first wrote.
    first.put_endpoint(&record(2)).unwrap();
    assert!(matches!(
        StateDir::open(dir.path(), Durability::Process, BOOT),
        Err(StateError::InUse { pid, .. }) if pid == std::process::id().to_string()
    ));
    drop(first);
    assert_eq!(open(dir.path()).1.endpoints, [record(2)]);
}

/// Copies the plain files of a state folder, as a crash at this instant would leave them.
fn snapshot(root: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["", ENDPOINTS] {
        let to = copy.path().join(folder);
        fs::create_dir_all(&to).unwrap();
        for name in file::list(&root.join(folder)).unwrap() {
            fs::copy(&name, to.join(name.file_name().unwrap())).unwrap();
        }
    }
    copy
}

fn bytes(record: &EndpointRecord) -> Vec<u8> {
    serde_json::to_vec(&Stored { format: FORMAT, boot_id: BOOT.into(), content: record }).unwrap()
}

#[test]
fn a_crash_at_any_step_of_a_write_leaves_the_old_or_the_new() {
    let new = EndpointRecord { phase: Phase::Ready, mtu: 9000, ..record(2) };
    for (durability, steps) in [(Durability::Process, 3), (Durability::Machine, 5)] {
        for old in [None, Some(EndpointRecord { phase: Phase::Allocated, ..record(2) })] {
            let dir = tempfile::tempdir().unwrap();
            let (state, _) = open(dir.path());
            state.put_endpoint(&record(3)).unwrap();
            old.iter().for_each(|old| state.put_endpoint(old).unwrap());
            let mut crashes = Vec::new();
            replace_watched(&state.endpoint_path(&owner(2)), &bytes(&new), durability, &mut |step| {
                crashes.push((step, snapshot(dir.path())));
                Ok(())
            })
            .unwrap();
            assert_eq!(crashes.len(), steps);
            for (step, crashed) in crashes {
                let (_state, opened) = open(crashed.path());
                let expected = if step == Step::SyncFolder { Some(&new) } else { old.as_ref() };
                let found = opened.endpoints.iter().find(|record| record.owner == owner(2));
                assert_eq!(found, expected, "before {step:?}");
                assert!(opened.endpoints.contains(&record(3)), "before {step:?}");
                assert_eq!(opened.corrupt, []);
                let left = names(&crashed.path().join(ENDPOINTS));
                assert!(left.iter().all(|name| name.ends_with(".json")), "before {step:?}: {left:?}");
            }
        }
    }
}

#[test]
fn a_crash_after_any_byte_of_the_temporary_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    state.put_endpoint(&record(2)).unwrap();
    drop(state);
    let new = bytes(&EndpointRecord { mtu: 9000, ..record(2) });
    for length in 0..=new.len() {
        fs::write(dir.path().join(ENDPOINTS).join(format!(".77-{length}.tmp")), &new[..length]).unwrap();
    }
    let (_state, opened) = open(dir.path());
    assert_eq!((opened.endpoints, opened.corrupt), (vec![record(2)], vec![]));
    assert_eq!(names(&dir.path().join(ENDPOINTS)), ["c2:eth0.json".to_owned()].into());
}

#[test]
fn a_file_cut_at_any_byte_is_moved_aside_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    state.put_endpoint(&record(3)).unwrap();
    let whole = bytes(&record(2));
    let path = |length: usize| state.endpoint_path(&Owner::new(format!("cut{length}"), "eth0"));
    for length in 0..whole.len() {
        fs::write(path(length), &whole[..length]).unwrap();
    }
    let cut: BTreeSet<(PathBuf, Vec<u8>)> =
        (0..whole.len()).map(|length| (path(length), whole[..length].to_vec())).collect();
    drop(state);
    let (_state, opened) = open(dir.path());
    assert_eq!(opened.endpoints, [record(3)]);
    let kept = opened.corrupt.into_iter().map(|corrupt| (corrupt.path, fs::read(corrupt.moved_to).unwrap()));
    assert_eq!(kept.collect::<BTreeSet<_>>(), cut);
    assert_eq!(names(&dir.path().join(ENDPOINTS)), ["c3:eth0.json".to_owned()].into());
}

#[test]
fn what_was_moved_aside_before_stays() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let (state, _) = open(dir.path());
        let path = state.endpoint_path(&owner(2));
        drop(state);
        fs::write(path, "{").unwrap();
        assert_eq!(open(dir.path()).1.corrupt.len(), 1);
        assert_eq!(names(&dir.path().join(CORRUPT)).len(), round);
    }
}

#[test]
fn an_error_at_any_step_is_told_with_the_step_and_leaves_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    state.put_endpoint(&record(2)).unwrap();
    let path = state.endpoint_path(&owner(2));
    let new = EndpointRecord { mtu: 9000, ..record(2) };
    for failing in [Step::Create, Step::Write, Step::Sync, Step::Rename, Step::SyncFolder] {
        state.put_endpoint(&record(2)).unwrap();
        let error = replace_watched(&path, &bytes(&new), Durability::Machine, &mut |step| {
            if step == failing { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
        })
        .unwrap_err();
        let StateError::Io { path: told, step, source } = &error else { panic!("{error:?}") };
        assert_eq!((told, source.raw_os_error()), (&path, Some(28)));
        assert!(!step.is_empty() && error.to_string().contains("c2:eth0.json"), "{error}");
        assert_eq!(names(&dir.path().join(ENDPOINTS)), ["c2:eth0.json".to_owned()].into());
    }
}

#[test]
fn whatever_is_wrong_with_a_file_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    state.put_endpoint(&record(2)).unwrap();
    let path = state.endpoint_path(&owner(9));
    drop(state);
    let good = String::from_utf8(bytes(&record(9))).unwrap();
    let swap = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to).into_bytes()
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"\0\0\0\0".to_vec(), "expected value"),
        (b"\xff\xfe".to_vec(), "expected value"),
        (b"[]".to_vec(), "invalid length"),
        (b"{}".to_vec(), "missing field `format`"),
        (swap("\"format\":1", "\"format\":\"1\""), "invalid type: string"),
        (swap("\"mtu\":1500", "\"mtu\":-1"), "invalid value: integer `-1`"),
        (swap("10.0.0.9", "10.0.0.256"), "invalid IP address"),
        (swap("02:00:00:00:00:09", "03:00:00:00:00:09"), "first octet must be even"),
        (swap("\"ready\"", "\"readyish\""), "unknown variant `readyish`"),
        (swap("\"c9\"", "\"c8\""), "it is about c8/eth0, which has another file"),
        (good.clone().into_bytes().into_iter().chain(*b"x").collect(), "trailing characters"),
    ];
    for (bytes, reason) in cases {
        fs::write(&path, &bytes).unwrap();
        let (_state, opened) = open(dir.path());
        assert_eq!(opened.endpoints, [record(2)]);
        let [corrupt] = opened.corrupt.as_slice() else { panic!("{reason}: {:?}", opened.corrupt) };
        assert!(corrupt.reason.contains(reason), "{reason}: {corrupt}");
        assert!(corrupt.to_string().contains("c9:eth0.json"), "{corrupt}");
        assert_eq!(fs::read(&corrupt.moved_to).unwrap(), bytes);
    }
    fs::write(dir.path().join(IDENTITIES), "{").unwrap();
    let (_state, opened) = open(dir.path());
    assert_eq!((opened.identities, opened.corrupt.len()), (Identities::default(), 1));
}

#[test]
fn a_field_that_is_not_known_does_no_harm_but_a_newer_format_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    let path = state.endpoint_path(&owner(2));
    drop(state);
    let good = String::from_utf8(bytes(&record(2))).unwrap();
    fs::write(&path, good.replace("\"mtu\":", "\"later\":{\"a\":[1]},\"mtu\":")).unwrap();
    assert_eq!(open(dir.path()).1.endpoints, [record(2)]);
    // Laid out in a way this daemon cannot know.
    fs::write(&path, r#"{"format":2,"everything":"else"}"#).unwrap();
    let error = StateDir::open(dir.path(), Durability::Process, BOOT).unwrap_err();
    assert!(matches!(&error, StateError::Newer { found: 2, known: 1, path: told } if *told == path), "{error}");
    assert!(path.exists());
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let endpoints = dir.path().join(ENDPOINTS);
    fs::create_dir(endpoints.join("folder.json")).unwrap();
    fs::write(endpoints.join("notes.txt"), "x").unwrap();
    let (_state, opened) = open(dir.path());
    assert_eq!((opened.endpoints.len(), opened.corrupt.len()), (0, 0));
    assert_eq!(names(&endpoints).len(), 2);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = StateDir::open(file.path(), Durability::Process, BOOT).unwrap_err();
    assert!(error.to_string().starts_with(&format!("state {:?}: create: ", file.path())), "{error}");
}

#[test]
fn names_of_any_length_fit_a_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    let mut records = Vec::new();
    for container_id in ["c".repeat(245), "c".repeat(246), "c".repeat(5000), ".hidden".into(), "a:b".into(), "ä".into()]
    {
        let record = EndpointRecord { owner: Owner::new(container_id, "eth0"), ..record(2) };
        state.put_endpoint(&record).unwrap();
        records.push(record);
    }
    drop(state);
    records.sort_by(|a, b| a.owner.cmp(&b.owner));
    assert_eq!(open(dir.path()).1.endpoints, records);
    // And one of them that is corrupt can be moved.
    for path in file::list(&dir.path().join(ENDPOINTS)).unwrap() {
        fs::write(path, "{").unwrap();
    }
    assert_eq!(open(dir.path()).1.corrupt.len(), records.len());
}

/// Stands for the plugin's message.
#[derive(Clone, PartialEq, prost::Message)]
struct Stone {
    #[prost(string, tag = "1")]
    name: String,
}

#[test]
fn tombstones_are_read_once_and_a_newer_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    let write = |file: &str, bytes: &[u8]| {
        // As the plugin does: another file takes the place.
        let unfinished = state.tombstone_dir().join(".unfinished");
        fs::write(&unfinished, bytes).unwrap();
        fs::rename(unfinished, state.tombstone_dir().join(file)).unwrap();
    };
    let stone = |name: &str| prost::Message::encode_to_vec(&Stone { name: name.into() });
    write("a.del", &stone("a"));
    write("b.del", &stone("b"));
    write("c.del", b"\x0a\xff");
    fs::write(state.tombstone_dir().join(".d.123"), stone("d")).unwrap();
    let (found, corrupt) = state.tombstones::<Stone>().unwrap();
    assert_eq!(found.iter().map(|found| found.message.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(corrupt.iter().map(|one| one.path.clone()).collect::<Vec<_>>(), [state.tombstone_dir().join("c.del")]);
    write("b.del", &stone("b again"));
    for tombstone in &found {
        state.remove_tombstone(tombstone).unwrap();
        state.remove_tombstone(tombstone).unwrap();
    }
    let (found, corrupt) = state.tombstones::<Stone>().unwrap();
    assert_eq!(found.iter().map(|found| found.message.name.as_str()).collect::<Vec<_>>(), ["b again"]);
    assert_eq!(corrupt, []);
}

#[test]
fn cursors_are_kept_and_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _) = open(dir.path());
    assert_eq!(state.cursors().unwrap(), [] as [IpAddr; 0]);
    let cursors = ["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
    state.save_cursors(&cursors).unwrap();
    assert_eq!(state.cursors().unwrap(), cursors);
    fs::write(dir.path().join(CURSORS), "{").unwrap();
    assert_eq!(state.cursors().unwrap(), [] as [IpAddr; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Allocations, removals and crashes in any order, before and after the record is written: what
    /// an endpoint was told it has, nobody else gets.
    #[test]
    fn no_address_twice_over_restarts(ops in prop::collection::vec((0..8_u32, 0..5_u8), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let pools = || Pools::new(&["10.0.0.0/29".parse().unwrap()]).unwrap();
        let start = || {
            let (state, opened) = StateDir::open(dir.path(), Durability::Process, BOOT).unwrap();
            let (allocator, conflicts) = ipam::restore(pools(), &state).unwrap();
            assert_eq!(conflicts, []);
            (state, opened, allocator)
        };
        let (mut state, _, mut allocator) = start();
        let mut told: std::collections::BTreeMap<u32, IpAddr> = std::collections::BTreeMap::new();
        for (who, what) in ops {
            match what {
                // ADD, and a crash before the record is written: nobody was told.
                0 => {
                    let _ = allocator.allocate(&owner(who), &[]);
                    drop(state);
                    (state, _, allocator) = start();
                }
                1 | 2 => if let Ok(addresses) = allocator.allocate(&owner(who), &[]) {
                    state.put_endpoint(&EndpointRecord { addresses: addresses.clone(), ..record(who) }).unwrap();
                    state.save_cursors(&allocator.cursors()).unwrap();
                    let address = addresses[0].address;
                    prop_assert!(told.values().all(|&other| other != address), "{address} twice");
                    told.insert(who, address);
                },
                3 => {
                    state.remove_endpoint(&owner(who)).unwrap();
                    allocator.free_all(&owner(who));
                    told.remove(&who);
                }
                _ => {
                    drop(state);
                    let opened;
                    (state, opened, allocator) = start();
                    let found: Vec<Owner> = opened.endpoints.into_iter().map(|record| record.owner).collect();
                    prop_assert_eq!(found, told.keys().map(|&who| owner(who)).collect::<Vec<_>>());
                }
            }
            for (&who, &address) in &told {
                prop_assert_eq!(allocator.owner(address), Some(&owner(who)));
            }
        }
    }
}
