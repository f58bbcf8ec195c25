//! The keys of our own section of the configuration, and which other keys may stand beside them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{ConfError, hint};
use crate::{args::Command, json::Field};

/// Keys of the specification and of libcni that may stand in a plugin's section. (`ipam` and `ipMasq`
/// are looked at in `refuse_what_others_do`.)
const STANDARD: [&str; 14] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "capabilities",
    "args",
    "ipam",
    "ipMasq",
    "dns",
    "prevResult",
    "runtimeConfig",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
];

/// Our own.
const OURS: [&str; 5] = ["socket", "mtu", "timeoutSeconds", "stateDir", "namespace"];

/// RFC 8200 section 5: IPv6 needs at least this.
const SMALLEST_MTU: u32 = 1280;
const LARGEST_MTU: u32 = 65535;

/// Seconds. An ADD waits for addresses, identity and policy; Kubernetes runtimes give up after minutes.
const DEFAULT_TIMEOUT: u32 = 30;
const LONGEST_TIMEOUT: u32 = 600;

/// unix(7): sun_path has 108 bytes with its NUL.
const LONGEST_SOCKET: usize = 107;

/// RFC 1123, section 2.1: a label has 63 characters at most.
const LONGEST_NAMESPACE: usize = 63;

/// Our own settings, with their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where the daemon listens.
    pub(crate) socket: String,
    /// The daemon's folder; ours in it is `tombstones`.
    pub(crate) state_dir: PathBuf,
    /// How long one call may take.
    pub(crate) timeout: Duration,
    /// Bytes; 0: the daemon decides.
    pub(crate) mtu: u32,
    /// Of pods for which the runtime names none; empty: the daemon decides.
    pub(crate) namespace: String,
}

impl Settings {
    /// Reads our keys, those that `command` needs.
    pub(super) fn read(root: &Field<'_>, command: Command) -> Result<Self, ConfError> {
        let socket = root.read("socket", socket)?;
        let state_dir = root.read("stateDir", absolute)?;
        let timeout = root.read("timeoutSeconds", |f| within(f, 1, LONGEST_TIMEOUT))?;
        let mtu = root.read("mtu", |f| within(f, SMALLEST_MTU, LARGEST_MTU))?;
        let namespace = if command.is_cleanup() { None } else { root.read("namespace", namespace)? };
        Ok(Self {
            socket: socket.unwrap_or_else(|| "/run/bulkhead/cni.sock".to_owned()),
            state_dir: state_dir.unwrap_or_else(|| "/var/lib/bulkhead".into()),
            timeout: Duration::from_secs(timeout.unwrap_or(DEFAULT_TIMEOUT).into()),
            mtu: mtu.unwrap_or_default(),
            namespace: namespace.unwrap_or_default(),
        })
    }
}

/// Refuses the first key that neither the specification nor we know. Keys with a `/` belong to
/// whoever owns the domain before it (CNI SPEC.md: cni.dev/ is reserved) and are not ours to judge.
pub(super) fn refuse_unknown_keys(root: &Field<'_>) -> Result<(), ConfError> {
    for (key, field) in root.entries()? {
        if key.contains('/') || STANDARD.contains(&key) || OURS.contains(&key) {
            continue;
        }
        let fix = match hint::nearest(key, STANDARD.into_iter().chain(OURS)) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("remove it; bulkhead-cni knows {}", OURS.join(", ")),
        };
        return Err(ConfError::Unsupported { key: field.path().to_owned(), value: field.excerpt(), fix });
    }
    Ok(())
}

/// Refuses what other plugins leave to a delegate or do themselves and the daemon does here.
pub(super) fn refuse_what_others_do(root: &Field<'_>) -> Result<(), ConfError> {
    let refuse = |field: &Field<'_>, fix: &str| {
        Err(ConfError::Unsupported { key: field.path().to_owned(), value: field.excerpt(), fix: fix.to_owned() })
    };
    if let Some(ipam) = root.get("ipam")? {
        ipam.entries()?;
        if !ipam.is_empty() {
            return refuse(&ipam, "remove it: bulkhead-daemon gives out the addresses itself");
        }
    }
    if let Some(masq) = root.get("ipMasq")?
        && masq.bool()?
    {
        return refuse(&masq, "remove it: bulkhead-daemon masquerades, and its own settings say what");
    }
    Ok(())
}

fn socket(field: &Field<'_>) -> Result<String, ConfError> {
    let path = absolute(field)?;
    if path.as_os_str().len() > LONGEST_SOCKET {
        return Err(ConfError::invalid(field, format!("must not be longer than {LONGEST_SOCKET} bytes")));
    }
    field.string().map_err(ConfError::from)
}

/// Name of a Kubernetes namespace: an RFC 1123 label.
fn namespace(field: &Field<'_>) -> Result<String, ConfError> {
    let name = field.str()?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = name.bytes().next().is_some_and(plain) && name.bytes().next_back().is_some_and(plain);
    if !ends || name.len() > LONGEST_NAMESPACE || !name.bytes().all(|byte| plain(byte) || byte == b'-') {
        let rule = format!(
            "must be the name of a namespace: 1 to {LONGEST_NAMESPACE} small letters, digits and '-', with a letter or \
             digit at both ends"
        );
        return Err(ConfError::invalid(field, rule));
    }
    Ok(name.to_owned())
}

fn absolute(field: &Field<'_>) -> Result<PathBuf, ConfError> {
    let text = field.str()?;
    if !Path::new(text).is_absolute() || text.contains('\0') {
        return Err(ConfError::invalid(field, "must be an absolute path"));
    }
    Ok(text.into())
}

fn within(field: &Field<'_>, least: u32, most: u32) -> Result<u32, ConfError> {
    match field.u32() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(ConfError::invalid(field, format!("must be a whole number from {least} to {most}"))),
    }
}
