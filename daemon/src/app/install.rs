//! Makes the container runtime use us: puts the plugin where runtimes look for plugins, and once pods can be
//! served the network's configuration, which is what makes a kubelet call its node Ready. Both appear whole or
//! not at all, and both stay when the agent stops: pods that start meanwhile are told to try again.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{engine::Engine, run::stopped};
use crate::config::{Config, Install};

/// Name of the plugin's program, which is its `type` in a configuration.
const PLUGIN: &str = "bulkhead-cni";
/// Name of the configuration's file. Runtimes take the first of the folder by name.
pub const CONFLIST: &str = "10-bulkhead.conflist";
/// Name of the network.
const NETWORK: &str = "bulkhead";
/// Pause between two looks whether pods can be served.
const PAUSE: Duration = Duration::from_millis(20);
/// Pause after which what failed is tried again: a disk may have room again.
const RETRY: Duration = Duration::from_secs(10);

/// A file could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("{step} {path}: {source}")]
struct InstallError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Installs both when the source has been read.
pub(super) async fn when_ready(config: Installation, engine: Engine, mut stop: watch::Receiver<bool>) {
    loop {
        match engine.ask(|state| state.synced).await {
            Ok(true) => break,
            Ok(false) => {}
            Err(_) => return,
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stopped(&mut stop) => return,
        }
    }
    loop {
        match install(&config) {
            Ok(()) => return,
            Err(problem) => error!(error = %problem, "The plugin could not be installed: no pod can start"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// What is installed, and where.
#[derive(Clone, Debug)]
pub(super) struct Installation {
    folders: Install,
    plugin: PathBuf,
    conflist: Vec<u8>,
}

impl Installation {
    /// As the agent is configured; `None` if it is to install nothing. The plugin lies beside the agent's own
    /// program.
    pub(super) fn of(config: &Config) -> Option<Self> {
        let folders = config.install.clone()?;
        let plugin = std::env::current_exe().unwrap_or_default().with_file_name(PLUGIN);
        let conflist = json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["1.0.0", "1.1.0"],
            "name": NETWORK,
            "plugins": [{
                "type": PLUGIN,
                "socket": config.cni_socket(),
                "stateDir": config.state_dir,
            }],
        });
        let mut conflist = serde_json::to_vec_pretty(&conflist).expect("strings become JSON");
        conflist.push(b'\n');
        Some(Self { folders, plugin, conflist })
    }
}

fn install(installation: &Installation) -> Result<(), InstallError> {
    let Installation { folders: Install { bin_dir, conf_dir }, plugin, conflist } = installation;
    let content = fs::read(plugin).map_err(|source| InstallError { step: "reading", path: plugin.clone(), source })?;
    if put(bin_dir, PLUGIN, &content, 0o755)? {
        info!(folder = %bin_dir.display(), "Plugin installed");
    }
    if put(conf_dir, CONFLIST, conflist, 0o644)? {
        info!(folder = %conf_dir.display(), "Network configuration installed: the runtime uses Bulkhead from now on");
    }
    for rival in rivals(conf_dir) {
        warn!(file = %rival.display(), "Another network comes first by name: the runtime uses that one. Remove it");
    }
    Ok(())
}

/// Writes a file beside and renames it, if it is not there with this content. Says whether it did.
fn put(folder: &Path, name: &str, content: &[u8], mode: u32) -> Result<bool, InstallError> {
    let path = folder.join(name);
    let failed = |step| {
        let path = path.clone();
        move |source| InstallError { step, path, source }
    };
    fs::create_dir_all(folder).map_err(failed("making the folder of"))?;
    if fs::read(&path).is_ok_and(|found| found == content) {
        return Ok(false);
    }
    // A dot first: no runtime takes it for a plugin or a configuration.
    let unfinished = folder.join(format!(".{name}.new"));
    fs::write(&unfinished, content).map_err(failed("writing"))?;
    fs::set_permissions(&unfinished, fs::Permissions::from_mode(mode)).map_err(failed("setting permissions of"))?;
    fs::rename(&unfinished, &path).map_err(failed("putting in place"))?;
    Ok(true)
}

/// Configurations that a runtime takes before ours.
fn rivals(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_network = |path: &PathBuf| {
        path.extension().is_some_and(|extension| ["conf", "conflist", "json"].iter().any(|it| extension == *it))
    };
    let mut before: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| !name.starts_with('.') && name < CONFLIST))
        .map(|entry| entry.path())
        .filter(is_network)
        .collect();
    before.sort();
    before
}

/// Takes both away again. Says what was there.
pub fn remove(folders: &Install, only_say: bool) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    // The configuration first: a runtime that reads it wants the plugin.
    for path in [folders.conf_dir.join(CONFLIST), folders.bin_dir.join(PLUGIN)] {
        if !path.exists() {
            continue;
        }
        if !only_say {
            fs::remove_file(&path)?;
        }
        removed.push(path);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(root: &Path) -> Installation {
        let plugin = root.join("image/bulkhead-cni");
        fs::create_dir_all(root.join("image")).unwrap();
        fs::write(&plugin, "program").unwrap();
        let folders = Install { bin_dir: root.join("bin"), conf_dir: root.join("net.d") };
        Installation { folders, plugin, conflist: b"{}".to_vec() }
    }

    #[test]
    fn both_are_put_in_place_once_and_taken_away_again() {
        let root = tempfile::tempdir().unwrap();
        let installation = installation(root.path());
        install(&installation).unwrap();
        let plugin = root.path().join("bin/bulkhead-cni");
        assert_eq!(fs::metadata(&plugin).unwrap().permissions().mode() & 0o777, 0o755);
        let made = fs::metadata(&plugin).unwrap().modified().unwrap();
        install(&installation).unwrap();
        assert_eq!(fs::metadata(&plugin).unwrap().modified().unwrap(), made, "written twice");
        assert_eq!(fs::read_dir(root.path().join("net.d")).unwrap().count(), 1, "something was left beside it");
        assert_eq!(remove(&installation.folders, true).unwrap().len(), 2);
        assert_eq!(remove(&installation.folders, false).unwrap().len(), 2);
        assert_eq!(remove(&installation.folders, false).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_network_that_comes_first_is_named() {
        let root = tempfile::tempdir().unwrap();
        for name in
            ["05-other.conflist", "10-aaa.conf", "10-bulkhead.conflist", "20-late.conflist", ".hidden", "00-README"]
        {
            fs::write(root.path().join(name), "").unwrap();
        }
        assert_eq!(rivals(root.path()), ["05-other.conflist", "10-aaa.conf"].map(|name| root.path().join(name)));
    }

    #[test]
    fn a_plugin_that_is_not_there_leaves_no_configuration() {
        let root = tempfile::tempdir().unwrap();
        let mut installation = installation(root.path());
        installation.plugin = root.path().join("nowhere");
        let error = install(&installation).unwrap_err().to_string();
        assert!(error.starts_with("reading ") && error.contains("nowhere"), "{error}");
        assert!(!root.path().join("net.d").exists());
    }
}
