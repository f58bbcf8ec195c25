//! What comes and goes on a machine without us: nothing of this counts as left behind.

use std::collections::BTreeSet;

/// Places where others mount: sessions, credentials of services, sticks, container engines.
const MOUNTS: [&str; 7] = [
    "/run/user/",
    "/run/credentials/",
    "/snap/",
    "/media/",
    "/run/docker/",
    "/var/lib/docker/",
    "/var/lib/containers/",
];

/// Mounts that come with the first use of something and stay for good: `ip netns add` binds this
/// folder to itself (ip-netns(8)).
const FIRST_USE: [&str; 1] = ["/run/netns"];

/// Endings of systemd's units (systemd.unit(5)), each of which is a control group.
const UNITS: [&str; 6] = [".service", ".scope", ".slice", ".mount", ".socket", ".swap"];

/// Words in the name of a control group that make it ours, or that of a container we have started.
const OURS: [&str; 3] = ["bulkhead", "bh-", "containerd-"];

/// Whether something mounted here is not our doing.
pub(super) fn mounts_at(point: &str) -> bool {
    FIRST_USE.contains(&point) || MOUNTS.iter().any(|prefix| point.starts_with(prefix))
}

/// Whether this control group is not our doing.
pub(super) fn makes_cgroup(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let unit = UNITS.iter().any(|ending| name.ends_with(ending)) || name == "docker";
    // Slices hold what others put into them, so they are entered, unless they are of a kind that
    // never holds anything of ours.
    let entered = matches!(name, "system.slice" | "user.slice" | "machine.slice");
    unit && !entered && !OURS.iter().any(|word| name.contains(word))
}

/// Least digits of a name that a program has given and no person.
const DIGITS: usize = 16;

/// Whether a control group is one more of those that somebody has there already: their names are hexadecimal numbers of one
/// length, as managers of sessions and sandboxes give them.
pub(super) fn makes_more_of(path: &str, before: &BTreeSet<String>) -> bool {
    let parts = |path: &'_ str| path.rsplit_once('/').map(|(folder, name)| (folder.to_owned(), name.to_owned()));
    let is_number = |name: &str| name.len() >= DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let Some((folder, name)) = parts(path) else { return false };
    is_number(&name)
        && before
            .iter()
            .filter_map(|other| parts(other))
            .any(|(place, other)| place == folder && other.len() == name.len() && is_number(&other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_systemd_starts_is_not_ours_but_a_container_is() {
        assert!(makes_cgroup("/sys/fs/cgroup/system.slice/apt-daily.service"));
        assert!(makes_cgroup("/sys/fs/cgroup/user.slice/user-1000.slice"));
        assert!(!makes_cgroup("/sys/fs/cgroup/system.slice/cri-containerd-0123.scope"));
        assert!(!makes_cgroup("/sys/fs/cgroup/system.slice/bulkhead-daemon.service"));
        assert!(!makes_cgroup("/sys/fs/cgroup/system.slice"));
        assert!(!makes_cgroup("/sys/fs/cgroup/k8s.io/0123"));
    }

    #[test]
    fn one_more_of_somebodys_groups_is_not_ours() {
        let before: BTreeSet<String> =
            ["/sys/fs/cgroup/memory/sessions/0123456789abcdef", "/sys/fs/cgroup/k8s.io"].map(str::to_owned).into();
        assert!(makes_more_of("/sys/fs/cgroup/memory/sessions/fedcba9876543210", &before));
        assert!(!makes_more_of("/sys/fs/cgroup/memory/sessions/fedcba98765432100", &before), "another length");
        assert!(!makes_more_of("/sys/fs/cgroup/memory/sessions/bh-fedcba9876543", &before));
        assert!(!makes_more_of("/sys/fs/cgroup/memory/others/fedcba9876543210", &before));
        assert!(!makes_more_of("/sys/fs/cgroup/k8s.io/fedcba9876543210", &before));
    }

    #[test]
    fn a_session_mounts_what_it_wants() {
        assert!(mounts_at("/run/user/1000/doc"));
        assert!(mounts_at("/run/netns"));
        assert!(!mounts_at("/run/netns/bh-1"));
        assert!(!mounts_at("/tmp/x/rootfs"));
    }
}
