//! Opening and entering namespaces.

use std::path::Path;

use daemon::net::{Netns, NetnsError, Node};

use crate::namespace::{Namespace, needs_root, told};

#[test]
fn what_is_no_namespace_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("file"), "").unwrap();
    let made = std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap();
    assert!(made.success());
    for (name, expected) in [
        ("missing", "does not exist"),
        ("file/below", "does not exist"),
        (".", "is no network namespace: it is a folder"),
        ("file", "is no network namespace: it is a plain file: the namespace was unmounted from it, or never was"),
        // Would wait for a writer for ever if it was opened for reading.
        ("fifo", "is no network namespace: it is something else"),
    ] {
        let error = told(Netns::open(&path(name)));
        assert!(error.contains(expected) && error.contains(&format!("{:?}", path(name))), "{error}");
    }
    assert!(Netns::open(&path("missing")).unwrap_err().is_not_found());
    assert!(!Netns::open(&path("file")).unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_namespace_of_another_kind_cannot_be_entered() {
    needs_root!();
    let mounts = Netns::open(Path::new("/proc/self/ns/mnt")).unwrap();
    assert!(matches!(mounts.run(|| ()).await, Err(NetnsError::NotNetns { .. })));
}

#[tokio::test]
async fn the_nodes_own_namespace_is_no_sandbox() {
    needs_root!();
    let here = Namespace::new();
    let node = Node::at(here.netns.clone()).await.unwrap();
    assert!(matches!(node.sandbox(&here.path(), 0), Err(NetnsError::Own { .. })));
    let own = Node::own().await.unwrap();
    assert!(matches!(own.sandbox(Path::new("/proc/self/ns/net"), 0), Err(NetnsError::Own { .. })));
    assert!(own.sandbox(&here.path(), 0).is_ok());
}

#[tokio::test]
async fn a_path_that_means_another_namespace_is_noticed() {
    needs_root!();
    let (here, there) = (Namespace::new(), Namespace::new());
    let node = Node::at(here.netns.clone()).await.unwrap();
    let inode = there.netns.id().inode;
    assert!(node.sandbox(&there.path(), inode).is_ok());
    match node.sandbox(&there.path(), inode + 1) {
        Err(NetnsError::Replaced { expected, found, .. }) => assert_eq!((expected, found), (inode + 1, inode)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_visit_happens_there_and_leaves_the_caller_here() {
    needs_root!();
    let there = Namespace::new();
    let before = Netns::own().unwrap().id();
    let during = there.netns.run(|| Netns::own().unwrap().id()).await.unwrap();
    assert_eq!(during, there.netns.id());
    assert_ne!(during, before);
    assert_eq!(Netns::own().unwrap().id(), before);
    assert_eq!(there.netns.run_blocking(|| Netns::own().unwrap().id()).unwrap(), during);
}

#[tokio::test]
async fn a_visit_that_panics_is_an_error() {
    needs_root!();
    let there = Namespace::new();
    assert!(matches!(there.netns.run(|| panic!("on purpose")).await, Err(NetnsError::Panicked { .. })));
}

#[tokio::test]
async fn a_namespace_that_was_unmounted_can_still_be_used_while_it_is_open() {
    needs_root!();
    let there = Namespace::new();
    let open = there.netns.clone();
    drop(there);
    assert!(open.run(|| ()).await.is_ok());
    assert!(Netns::open(open.path()).unwrap_err().is_not_found());
}
