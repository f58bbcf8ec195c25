//! The watcher on real folders: what editors, `mv`, `rm` and Kubernetes do to files.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;

use policy::model::{Object, ObjectKey};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::source::{SourceError, SourceProblem};

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

struct Watched {
    folder: TempDir,
    directory: Directory,
    events: mpsc::Receiver<Vec<SourceEvent>>,
    /// Namespaces in force by the events so far, with their version.
    namespaces: BTreeMap<String, String>,
    errors: Vec<SourceError>,
    deletions: usize,
}

fn ns(name: &str, version: u32) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{v: \"{version}\"}}}}\n")
}

impl Watched {
    /// Watches a folder with these files, and takes in the first batch.
    async fn start(files: &[(&str, String)], options: Options) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        Self::over(folder, options).await
    }

    async fn over(folder: TempDir, options: Options) -> Self {
        let (directory, events) = Directory::watch(folder.path(), options).expect("the folder is there");
        let (namespaces, errors) = (BTreeMap::new(), Vec::new());
        let mut watched = Self { folder, directory, events, namespaces, errors, deletions: 0 };
        let first = watched.batch().await;
        assert_eq!(first.last(), Some(&SourceEvent::Synced));
        watched
    }

    async fn batch(&mut self) -> Vec<SourceEvent> {
        let batch = timeout(PATIENCE, self.events.recv()).await.expect("in time").expect("the watcher lives");
        for event in &batch {
            match event {
                SourceEvent::Apply(Object::Namespace(namespace), _) => {
                    let version = namespace.labels().get("v").unwrap_or_default().to_owned();
                    self.namespaces.insert(namespace.name().to_owned(), version);
                }
                SourceEvent::Apply(object, _) => panic!("unexpected {}", object.key()),
                SourceEvent::Delete(ObjectKey::Namespace(name)) => {
                    self.deletions += 1;
                    assert!(self.namespaces.remove(name).is_some(), "{name} was not there");
                }
                SourceEvent::Delete(key) => panic!("unexpected {key}"),
                SourceEvent::Error(error) => self.errors.push(error.clone()),
                SourceEvent::Resolved(error) => {
                    let position = self.errors.iter().position(|standing| standing == error);
                    self.errors.remove(position.expect("what is resolved was wrong before"));
                }
                SourceEvent::Synced => {}
                SourceEvent::Number(..) | SourceEvent::NumbersShared => panic!("files have no numbers"),
            }
        }
        batch
    }

    /// Waits until just these namespaces are in force, with these versions and number of errors.
    async fn until(&mut self, namespaces: &[(&str, &str)], errors: usize) {
        let wanted: BTreeMap<_, _> =
            namespaces.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        while self.namespaces != wanted || self.errors.len() != errors {
            self.batch().await;
        }
        let status = self.directory.status();
        assert!(status.synced);
        assert_eq!(status.objects.len(), namespaces.len());
        assert_eq!(status.errors.len(), errors, "{:?}", status.errors);
    }

    /// Nothing comes for longer than it would take to come.
    async fn nothing_for(&mut self, pause: Duration) {
        if let Ok(batch) = timeout(pause, self.events.recv()).await {
            panic!("unexpected {batch:?}");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }
}

#[tokio::test]
async fn all_there_is_comes_first_and_in_one_batch() {
    let files = [("a.yaml", ns("x", 1)), ("b.yml", ns("w", 1)), ("c.json", String::new()), ("d.txt", ns("z", 1))];
    let mut watched = Watched::start(&files, Options::default()).await;
    watched.until(&[("x", "1"), ("w", "1")], 0).await;
}

#[tokio::test]
async fn files_are_created_edited_renamed_and_deleted() {
    let mut watched = Watched::start(&[], Options::default()).await;
    watched.write("a.yaml", &ns("x", 1));
    watched.until(&[("x", "1")], 0).await;
    watched.write("a.yaml", &(ns("x", 2) + &ns("w", 1)));
    watched.until(&[("x", "2"), ("w", "1")], 0).await;
    watched.write("b.yaml", &ns("z", 1));
    watched.until(&[("x", "2"), ("w", "1"), ("z", "1")], 0).await;
    fs::rename(watched.path("a.yaml"), watched.path("c.yaml")).expect("a rename");
    watched.nothing_for(Duration::from_millis(500)).await;
    assert_eq!(watched.deletions, 0);
    fs::remove_file(watched.path("c.yaml")).expect("a removal");
    watched.until(&[("z", "1")], 0).await;
    fs::rename(watched.path("b.yaml"), watched.path("b.yaml.off")).expect("a rename");
    watched.until(&[], 0).await;
}

#[tokio::test]
async fn inotify_tells_long_before_the_regular_look() {
    let options = Options { rescan: Duration::from_secs(600), ..Options::default() };
    let mut watched = Watched::start(&[], options).await;
    fs::create_dir(watched.path("sub")).expect("a folder");
    watched.write("a.yaml", &ns("x", 1));
    watched.until(&[("x", "1")], 0).await;
    watched.write("sub/b.yaml", &ns("w", 1));
    watched.until(&[("x", "1"), ("w", "1")], 0).await;
    watched.write("sub/b.yaml", &ns("w", 2));
    watched.until(&[("x", "1"), ("w", "2")], 0).await;
}

#[tokio::test]
async fn the_regular_look_finds_what_nobody_tells() {
    let delays = Delays { open: Duration::from_millis(200), ..Delays::default() };
    let options = Options { notice: Notice::Rescan, rescan: Duration::from_millis(50), delays, ..Options::default() };
    let mut watched = Watched::start(&[("a.yaml", ns("x", 1))], options).await;
    watched.write("a.yaml", &ns("x", 2));
    watched.write("b.yaml", &ns("w", 1));
    watched.until(&[("x", "2"), ("w", "1")], 0).await;
    fs::remove_file(watched.path("a.yaml")).expect("a removal");
    watched.until(&[("w", "1")], 0).await;
}

#[tokio::test]
async fn a_file_from_the_future_is_read_all_the_same() {
    let delays = Delays { open: Duration::from_millis(100), ..Delays::default() };
    let options = Options { notice: Notice::Rescan, rescan: Duration::from_millis(50), delays, ..Options::default() };
    let mut watched = Watched::start(&[], options).await;
    watched.write("a.yaml", &ns("x", 1));
    let file = fs::File::options().write(true).open(watched.path("a.yaml")).expect("the file");
    file.set_modified(SystemTime::now() + Duration::from_secs(3600)).expect("a time");
    watched.until(&[("x", "1")], 0).await;
}

#[tokio::test]
async fn a_half_written_file_is_not_read_before_it_is_closed() {
    // Longer than this test takes, so that only the close can bring the file in.
    let delays = Delays { open: PATIENCE * 2, longest: PATIENCE * 4, ..Delays::default() };
    let options = Options { delays, rescan: Duration::from_millis(100), ..Options::default() };
    let both = ns("x", 1) + &ns("w", 1);
    let mut watched = Watched::start(&[("a.yaml", both.clone())], options).await;
    let mut file = fs::File::create(watched.path("a.yaml")).expect("an empty file");
    watched.nothing_for(Duration::from_millis(400)).await;
    file.write_all(ns("x", 2).as_bytes()).expect("the first half");
    file.flush().expect("a flush");
    watched.nothing_for(Duration::from_millis(400)).await;
    file.write_all(ns("w", 2).as_bytes()).expect("the second half");
    drop(file);
    watched.until(&[("x", "2"), ("w", "2")], 0).await;
    assert_eq!(watched.deletions, 0);
}

#[tokio::test]
async fn a_file_that_is_never_closed_is_read_when_it_is_quiet() {
    let delays = Delays { open: Duration::from_millis(200), ..Delays::default() };
    let mut watched = Watched::start(&[], Options { delays, ..Options::default() }).await;
    let mut file = fs::File::create(watched.path("a.yaml")).expect("a file");
    file.write_all(ns("x", 1).as_bytes()).expect("some text");
    watched.until(&[("x", "1")], 0).await;
    drop(file);
}

#[tokio::test]
async fn the_ways_in_which_editors_save_delete_nothing() {
    let mut watched = Watched::start(&[("a.yaml", ns("x", 1))], Options::default()).await;
    let (file, backup, draft) = (watched.path("a.yaml"), watched.path("a.yaml~"), watched.path("a.yaml.tmp"));
    // vim: swap file, backup by rename, new file, backup removed.
    watched.write(".a.yaml.swp", "b0VIM");
    fs::rename(&file, &backup).expect("a backup");
    watched.write("a.yaml", &ns("x", 2));
    fs::remove_file(&backup).expect("a removal");
    fs::remove_file(watched.path(".a.yaml.swp")).expect("a removal");
    watched.until(&[("x", "2")], 0).await;
    // Many others: a draft beside it, renamed over it.
    fs::write(&draft, ns("x", 3)).expect("a draft");
    fs::rename(&draft, &file).expect("a rename");
    watched.until(&[("x", "3")], 0).await;
    // The shell: truncated and written in place.
    watched.write("a.yaml", &ns("x", 4));
    watched.until(&[("x", "4")], 0).await;
    assert_eq!(watched.deletions, 0);
}

#[tokio::test]
async fn a_kubernetes_volume_is_swapped_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().to_owned();
    let version = |name: &str, files: &[(&str, String)]| {
        fs::create_dir(root.join(name)).expect("a version");
        for (file, text) in files {
            fs::write(root.join(name).join(file), text).expect("a file");
        }
    };
    version("..1", &[("a.yaml", ns("x", 1)), ("b.yaml", ns("w", 1))]);
    symlink("..1", root.join("..data")).expect("a symlink");
    for file in ["a.yaml", "b.yaml"] {
        symlink(Path::new("..data").join(file), root.join(file)).expect("a symlink");
    }
    // Neither the regular look nor the time limit for open files can have a part in this.
    let delays = Delays { open: PATIENCE * 2, longest: PATIENCE * 4, ..Delays::default() };
    let mut watched = Watched::over(folder, Options { delays, rescan: PATIENCE * 2, ..Options::default() }).await;
    watched.until(&[("x", "1"), ("w", "1")], 0).await;
    version("..2", &[("a.yaml", ns("x", 2)), ("b.yaml", ns("w", 2))]);
    symlink("..2", root.join("..data_tmp")).expect("a symlink");
    fs::rename(root.join("..data_tmp"), root.join("..data")).expect("the swap");
    fs::remove_dir_all(root.join("..1")).expect("a removal");
    let batch = watched.batch().await;
    assert_eq!(batch.len(), 2, "{batch:?}");
    watched.until(&[("x", "2"), ("w", "2")], 0).await;
}

#[tokio::test]
async fn a_bad_edit_keeps_the_good_version_until_it_is_mended() {
    let mut watched = Watched::start(&[("a.yaml", ns("x", 1)), ("b.yaml", ns("w", 1))], Options::default()).await;
    watched.write("a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {v: 2}}\n");
    watched.write("b.yaml", &ns("w", 2));
    watched.until(&[("x", "1"), ("w", "2")], 1).await;
    let text = watched.directory.status().errors[0].to_string();
    let file = watched.path("a.yaml").display().to_string();
    let expected = format!(
        "{file}, document 1 (line 1): Namespace x: metadata.labels.v (line 3): expected text, found the number 2; put \
         it in quotes: \"2\" (the last good version stays in force)"
    );
    assert_eq!(text, expected);
    watched.write("a.yaml", &ns("x", 2));
    watched.until(&[("x", "2"), ("w", "2")], 0).await;
}

#[tokio::test]
async fn lines_move_in_the_status_without_an_event() {
    let mut watched = Watched::start(&[("a.yaml", ns("x", 1))], Options::default()).await;
    let mut status = watched.directory.status_receiver();
    let line = |status: &SourceStatus| status.objects.values().map(|origin| origin.line).collect::<Vec<_>>();
    assert_eq!(line(&status.borrow_and_update()), [2]);
    watched.write("a.yaml", &format!("# one\n# two\n{}", ns("x", 1)));
    while line(&status.borrow_and_update()) != [4] {
        timeout(PATIENCE, status.changed()).await.expect("in time").expect("the watcher lives");
    }
    watched.nothing_for(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_folder_that_goes_away_takes_nothing_with_it() {
    let outer = tempfile::tempdir().expect("a temporary folder");
    let (here, elsewhere) = (outer.path().join("here"), outer.path().join("elsewhere"));
    fs::create_dir(&here).expect("a folder");
    fs::write(here.join("a.yaml"), ns("x", 1)).expect("a file");
    let options = Options { rescan: Duration::from_millis(100), ..Options::default() };
    let (directory, events) = Directory::watch(&here, options).expect("the folder is there");
    let (namespaces, errors) = (BTreeMap::new(), Vec::new());
    let mut watched = Watched { folder: outer, directory, events, namespaces, errors, deletions: 0 };
    watched.until(&[("x", "1")], 0).await;
    fs::rename(&here, &elsewhere).expect("a rename");
    watched.until(&[("x", "1")], 1).await;
    let expected = format!("{}: cannot be read: the folder is gone; create it again", here.display());
    assert_eq!(watched.errors[0].to_string(), expected);
    // What happens to the old one is of no interest; what lies in the new one is.
    fs::write(elsewhere.join("a.yaml"), ns("x", 7)).expect("a file");
    fs::create_dir(&here).expect("a folder");
    fs::write(here.join("a.yaml"), ns("x", 2)).expect("a file");
    watched.until(&[("x", "2")], 0).await;
    fs::write(here.join("a.yaml"), ns("x", 3)).expect("a file");
    watched.until(&[("x", "3")], 0).await;
    assert_eq!(watched.deletions, 0);
}

#[tokio::test]
async fn what_is_no_file_or_has_no_target_is_an_error_and_blocks_nothing() {
    let mut watched = Watched::start(&[("a.yaml", ns("x", 1))], Options::default()).await;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        watched.path("fifo.yaml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a fifo");
    symlink("nowhere", watched.path("link.yaml")).expect("a symlink");
    watched.until(&[("x", "1")], 2).await;
    assert!(watched.errors.iter().all(|error| matches!(error.problem, SourceProblem::Unreadable(_))));
    fs::remove_file(watched.path("fifo.yaml")).expect("a removal");
    watched.write("nowhere", &ns("w", 1));
    fs::remove_file(watched.path("link.yaml")).expect("a removal");
    watched.until(&[("x", "1")], 0).await;
}

#[tokio::test]
async fn a_folder_below_may_come_and_go() {
    let options = Options { rescan: Duration::from_secs(600), ..Options::default() };
    let mut watched = Watched::start(&[], options).await;
    let outside = tempfile::tempdir().expect("a temporary folder");
    fs::create_dir_all(outside.path().join("sub/deeper")).expect("folders");
    fs::write(outside.path().join("sub/deeper/a.yaml"), ns("x", 1)).expect("a file");
    fs::create_dir(watched.path(".git")).expect("a folder");
    watched.write(".git/b.yaml", &ns("hidden", 1));
    for _ in 0..2 {
        fs::rename(outside.path().join("sub"), watched.path("sub")).expect("a rename");
        watched.until(&[("x", "1")], 0).await;
        fs::rename(watched.path("sub"), outside.path().join("sub")).expect("a rename");
        watched.until(&[], 0).await;
    }
}

#[tokio::test]
async fn what_cannot_be_watched_at_all_is_said_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    let said = |path: &Path| Directory::watch(path, Options::default()).map(|_| ()).expect_err("an error").to_string();
    let expected = format!("the folder {} does not exist; create it, or name another one", missing.display());
    assert_eq!(said(&missing), expected);
    let expected = format!("{} is not a folder; name a folder that holds manifests", file.display());
    assert_eq!(said(&file), expected);
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"/x\xff"));
    assert_eq!(said(odd), "the path /x\u{fffd} is not UTF-8; rename the folder");
}

#[tokio::test]
async fn watching_ends_when_nobody_wants_it() {
    let options = Options { rescan: Duration::from_millis(50), ..Options::default() };
    let watched = Watched::start(&[], options).await;
    let Watched { folder: _folder, directory, mut events, .. } = watched;
    let mut status = directory.status_receiver();
    status.mark_unchanged();
    drop(directory);
    assert_eq!(timeout(PATIENCE, events.recv()).await.expect("in time"), None);
    assert!(status.changed().await.is_err());
}
