//! A control group of our own for containers. It cannot be private to a room: the kernel keeps
//! what was made in a hierarchy until somebody removes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::owner;

/// Where hierarchies are mounted (cgroups(7)): the one of version 2 itself, those of version 1
/// below.
const ROOT: &str = "/sys/fs/cgroup";
/// How long processes that were killed may take to leave.
const PATIENCE: Duration = Duration::from_secs(10);

/// A name in every hierarchy. A runtime makes the group of it where it needs one; all of them go
/// when this is dropped.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
}

impl Cgroup {
    /// With a name that nothing else has. Removes what runs that died have left.
    ///
    /// # Errors
    /// There are no hierarchies.
    pub fn fresh() -> anyhow::Result<Self> {
        anyhow::ensure!(!hierarchies().is_empty(), "no control groups at {ROOT}: mount them");
        sweep();
        Ok(Self { name: owner::fresh_name() })
    }

    /// As a path in a hierarchy.
    pub fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Makes it in every hierarchy, free to use the processors and memory that its parent uses (cpuset(7):
    /// a group of version 1 begins without any).
    ///
    /// # Errors
    /// As the kernel says.
    pub fn make(&self) -> anyhow::Result<()> {
        for hierarchy in hierarchies() {
            let group = hierarchy.join(&self.name);
            fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let (Ok(parents), Ok(_)) = (fs::read(hierarchy.join(file)), fs::metadata(group.join(file))) {
                    fs::write(group.join(file), parents).with_context(|| format!("{}/{file}", group.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Where it has been made.
    pub fn found(&self) -> Vec<PathBuf> {
        hierarchies().into_iter().map(|hierarchy| hierarchy.join(&self.name)).filter(|group| group.exists()).collect()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let began = Instant::now();
        for hierarchy in hierarchies() {
            let group = hierarchy.join(&self.name);
            while let Err(error) = remove(&group) {
                if began.elapsed() > PATIENCE {
                    eprintln!("left behind: control group {}: {error}", group.display());
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Removes what runs that died have left.
pub fn sweep() {
    for hierarchy in hierarchies() {
        for name in owner::names_in(&hierarchy, "") {
            if owner::is_abandoned(&name) {
                let _ = remove(&hierarchy.join(name));
            }
        }
    }
}

fn hierarchies() -> Vec<PathBuf> {
    let is_one = |folder: &PathBuf| folder.join("cgroup.procs").exists();
    let below = owner::names_in(Path::new(ROOT), "").into_iter().map(|name| Path::new(ROOT).join(name));
    // Of version 2 every folder below is a group and no hierarchy.
    let root = PathBuf::from(ROOT);
    if is_one(&root) { vec![root] } else { below.filter(is_one).collect() }
}

/// Removes a group with those in it. None is as good.
fn remove(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
