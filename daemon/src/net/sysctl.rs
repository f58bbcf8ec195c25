//! Kernel settings below /proc/sys/net, of the calling thread's network namespace.
//!
//! Written only where they differ, so that a read-only /proc/sys with the right values is enough.
//! A setting the kernel does not have is skipped: IPv6 can be compiled out or disabled at boot.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// A setting that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("kernel setting {path}: {step}: {source}")]
pub struct SysctlError {
    /// Its file.
    pub path: PathBuf,
    /// What was tried.
    pub step: &'static str,
    /// Why not.
    pub source: io::Error,
}

/// Whether a setting is as wanted now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was before.
    Same,
    /// It was changed.
    Changed,
    /// The kernel has no such setting.
    Absent,
}

/// Where they are: in a container /proc/sys cannot be written to, and has another place where it can.
/// Either is that of the network namespace of whoever looks (proc(5), /proc/sys/net).
fn root() -> &'static Path {
    static ROOT: OnceLock<&'static Path> = OnceLock::new();
    ROOT.get_or_init(|| {
        let mounted = Path::new("/host/proc/sys/net");
        if mounted.is_dir() { mounted } else { Path::new("/proc/sys/net") }
    })
}

/// Sets `name` (as in "ipv4/ip_forward") to `value`. Interface names may be part of it, they hold no
/// slash; but `.` needs no care here, unlike in sysctl(8).
pub fn set(name: &str, value: &str) -> Result<Outcome, SysctlError> {
    set_below(root(), name, value)
}

/// Reads a setting; `None` if the kernel does not have it.
pub fn get(name: &str) -> Result<Option<String>, SysctlError> {
    get_at(&root().join(name))
}

fn set_below(root: &Path, name: &str, value: &str) -> Result<Outcome, SysctlError> {
    let path = root.join(name);
    match get_at(&path)? {
        None => Ok(Outcome::Absent),
        Some(found) if found == value => Ok(Outcome::Same),
        Some(_) => match fs::write(&path, value) {
            Ok(()) => Ok(Outcome::Changed),
            Err(source) => Err(SysctlError { path, step: "write", source }),
        },
    }
}

fn get_at(path: &Path) -> Result<Option<String>, SysctlError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SysctlError { path: path.into(), step: "read", source }),
    }
}

/// Which address families pods use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Families {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// Lets the node forward between pods and the world.
///
/// A router does not listen to other routers, so `forwarding` would make the kernel drop the IPv6
/// default route it learned by router advertisements. Interfaces that listen (`accept_ra` 1) are
/// therefore told to listen in spite of it (2), before forwarding is switched on
/// (Documentation/networking/ip-sysctl.rst, `accept_ra`).
pub fn enable_forwarding(families: Families) -> Result<(), SysctlError> {
    if families.v4 {
        set("ipv4/ip_forward", "1")?;
    }
    if families.v6 {
        // The gateway's address is on `lo`.
        set("ipv6/conf/lo/disable_ipv6", "0")?;
    }
    if families.v6 && get("ipv6/conf/all/forwarding")?.is_some_and(|now| now != "1") {
        let conf = root().join("ipv6/conf");
        let listed = fs::read_dir(&conf)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|source| SysctlError { path: conf, step: "list", source })?;
        for interface in listed {
            let Ok(name) = interface.file_name().into_string() else { continue };
            if name == "all" || super::link::is_host_ifname(&name) {
                continue;
            }
            let accept_ra = format!("ipv6/conf/{name}/accept_ra");
            if get(&accept_ra)?.as_deref() == Some("1") {
                set(&accept_ra, "2")?;
            }
        }
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Settings of the host side of a pod's link. To be made before it goes up.
///
/// * `rp_filter` strict: the route to a pod's address leads through it and nowhere else, so
///   nothing legitimate is lost, and a forged source is refused even without our programs. If the
///   route is missing the pod has no network anyway. Where the node has `all` at 2 (loose), that
///   wins: the kernel takes the greater (Documentation/networking/ip-sysctl.rst).
/// * `forwarding` per interface: a link that was made while `default` differs from `all` would not
///   forward.
/// * `accept_ra` off: a pod is no router of the node.
/// * `disable_ipv6` as the pool has IPv6 or not, whatever the node's default is.
pub fn host_link(ifname: &str, families: Families) -> Result<(), SysctlError> {
    if families.v4 {
        set(&format!("ipv4/conf/{ifname}/rp_filter"), "1")?;
        set(&format!("ipv4/conf/{ifname}/forwarding"), "1")?;
    }
    if families.v6 {
        set(&format!("ipv6/conf/{ifname}/disable_ipv6"), "0")?;
        set(&format!("ipv6/conf/{ifname}/forwarding"), "1")?;
        set(&format!("ipv6/conf/{ifname}/accept_ra"), "0")?;
    } else {
        set(&format!("ipv6/conf/{ifname}/disable_ipv6"), "1")?;
    }
    Ok(())
}

/// Settings of the pod's side; to be made in the pod's namespace, before the link goes up.
///
/// Some runtimes switch IPv6 off in new namespaces; a pod that is given an IPv6 address gets it back.
/// A pod without one keeps what it has: a chained plugin may want it.
pub fn pod_link(ifname: &str, families: Families) -> Result<(), SysctlError> {
    if families.v6 {
        set(&format!("ipv6/conf/{ifname}/disable_ipv6"), "0")?;
        set("ipv6/conf/lo/disable_ipv6", "0")?;
        set(&format!("ipv6/conf/{ifname}/accept_ra"), "0")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_only_what_differs_and_skips_what_is_absent() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "1\n").unwrap();
        assert_eq!(set_below(root.path(), "a", "1").unwrap(), Outcome::Same);
        assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "1\n");
        assert_eq!(set_below(root.path(), "a", "2").unwrap(), Outcome::Changed);
        assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "2");
        assert_eq!(set_below(root.path(), "b", "2").unwrap(), Outcome::Absent);
        assert!(!root.path().join("b").exists());
    }

    #[test]
    fn an_error_names_the_file() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("a")).unwrap();
        let error = set_below(root.path(), "a", "1").unwrap_err();
        assert_eq!((error.path, error.step), (root.path().join("a"), "read"));
    }
}
