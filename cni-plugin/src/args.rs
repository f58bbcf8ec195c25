//! What the runtime says in the environment: one table of which command needs which variable, and
//! how each is checked.
//!
//! Source: CNI SPEC.md 1.1.0, section 2 "CNI operations", and the table of CNI's own dispatcher
//! (pkg/skel), which asks for CNI_PATH where the text has it optional; runtimes are tested against
//! that. `CNI_ARGS` is taken apart in `args/pairs.rs`.

mod pairs;

use std::ffi::OsString;

pub(crate) use pairs::CniArgs;

/// What CNI_COMMAND says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing: somebody ran the binary by hand.
    Nothing,
    /// VERSION: which versions we speak. Needs neither stdin nor any other variable.
    Version,
    Command(Command),
}

/// A command that is about a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
}

impl Command {
    const ALL: [Self; 5] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status];

    /// Its name in CNI_COMMAND.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }

    /// Commands that take away must succeed where the configuration lets them: what they ignore,
    /// an ADD has refused before.
    pub(crate) const fn is_cleanup(self) -> bool {
        matches!(self, Self::Del | Self::Gc)
    }
}

/// Which commands cannot do without a variable.
const REQUIRED: [(&str, &[Command]); 4] = {
    use Command::{Add, Check, Del, Gc, Status};
    [
        ("CNI_CONTAINERID", &[Add, Del, Check]),
        ("CNI_NETNS", &[Add, Check]),
        ("CNI_IFNAME", &[Add, Del, Check]),
        ("CNI_PATH", &[Add, Del, Check, Gc, Status]),
    ]
};

/// A wrong environment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ArgsError {
    #[error("unknown CNI_COMMAND {0:?}")]
    Command(String),
    #[error("required variables of the environment are missing: {}", .0.join(", "))]
    Missing(Vec<&'static str>),
    #[error("{0} is not valid UTF-8")]
    Encoding(&'static str),
    #[error("{variable} {value:?}: {reason}")]
    Invalid { variable: &'static str, value: String, reason: &'static str },
    #[error("CNI_ARGS: {0:?} is not of the form KEY=VALUE")]
    Pair(String),
    #[error("CNI_ARGS: {0} is given twice")]
    Twice(String),
    #[error("CNI_ARGS: unknown {}: {}", if .0.len() == 1 { "key" } else { "keys" }, .0.join(", "))]
    Unknown(Vec<String>),
    #[error("CNI_ARGS: {key}={value:?}: {reason}")]
    Arg { key: &'static str, value: String, reason: &'static str },
    #[error("CNI_ARGS: {present} is given without {absent}")]
    Incomplete { present: &'static str, absent: &'static str },
}

impl ArgsError {
    /// What to do about it.
    pub(crate) fn fix(&self) -> String {
        match self {
            Self::Command(_) => format!("known commands: {}, VERSION", Command::ALL.map(Command::as_str).join(", ")),
            Self::Unknown(_) => "add IgnoreUnknown=1 to CNI_ARGS to let them pass".to_owned(),
            Self::Incomplete { .. } => "a pod is named by its namespace and its name together".to_owned(),
            Self::Missing(_)
            | Self::Encoding(_)
            | Self::Invalid { .. }
            | Self::Pair(_)
            | Self::Twice(_)
            | Self::Arg { .. } => String::new(),
        }
    }
}

/// Reads a variable. Empty is absent, as in CNI's own dispatcher.
pub(crate) type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// The environment, read but not yet checked.
#[derive(Debug)]
pub(crate) struct Variables {
    container_id: Option<String>,
    netns: Option<String>,
    ifname: Option<String>,
    args: Option<String>,
    netns_override: bool,
}

/// Who is attached, and where: the checked environment of ADD, DEL and CHECK.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) container_id: String,
    pub(crate) ifname: String,
    /// Absolute path. None only on DEL.
    pub(crate) netns: Option<String>,
    pub(crate) cni_args: CniArgs,
    /// Whether the host's own namespace may be attached to (CNI_NETNS_OVERRIDE).
    pub(crate) netns_override: bool,
}

/// The command.
pub(crate) fn asked(env: &Env<'_>) -> Result<Asked, ArgsError> {
    let Some(name) = variable(env, "CNI_COMMAND")? else { return Ok(Asked::Nothing) };
    if name == "VERSION" {
        return Ok(Asked::Version);
    }
    match Command::ALL.into_iter().find(|c| c.as_str() == name) {
        Some(command) => Ok(Asked::Command(command)),
        None => Err(ArgsError::Command(name)),
    }
}

impl Variables {
    /// Reads what `command` may use; all missing variables are reported together.
    pub(crate) fn read(env: &Env<'_>, command: Command) -> Result<Self, ArgsError> {
        let mut missing = Vec::new();
        for (name, commands) in REQUIRED {
            if commands.contains(&command) && variable(env, name)?.is_none() {
                missing.push(name);
            }
        }
        if !missing.is_empty() {
            return Err(ArgsError::Missing(missing));
        }
        let netns_override = variable(env, "CNI_NETNS_OVERRIDE")?.unwrap_or_default();
        Ok(Self {
            container_id: variable(env, "CNI_CONTAINERID")?,
            netns: variable(env, "CNI_NETNS")?,
            ifname: variable(env, "CNI_IFNAME")?,
            args: variable(env, "CNI_ARGS")?,
            netns_override: netns_override == "1" || netns_override.eq_ignore_ascii_case("true"),
        })
    }

    /// Checks them for a command that is about one attachment.
    pub(crate) fn into_args(self, command: Command) -> Result<Args, ArgsError> {
        let Self { container_id, netns, ifname, args, netns_override } = self;
        let container_id = container_id.unwrap_or_default();
        check("CNI_CONTAINERID", &container_id, is_id, ID_RULE)?;
        let ifname = ifname.unwrap_or_default();
        check_ifname(&ifname)?;
        if let Some(path) = &netns {
            check("CNI_NETNS", path, |p| p.starts_with('/'), "must be an absolute path")?;
        }
        let cni_args = match CniArgs::parse(args.as_deref().unwrap_or_default()) {
            Ok(args) => args,
            Err(_) if command.is_cleanup() => CniArgs::default(),
            Err(error) => return Err(error),
        };
        Ok(Args { container_id, ifname, netns, cni_args, netns_override })
    }
}

/// The rule of `is_id` in words.
pub(crate) const ID_RULE: &str = "must begin with a letter or digit and go on with letters, digits, '_', '.' or '-'";

/// Whether `text` can be a container id or the name of a network.
pub(crate) fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// What is wrong with the name of an interface, if anything is: the kernel's rules (dev_valid_name
/// in net/core/dev.c; IFNAMSIZ is 16 with its NUL).
pub(crate) fn ifname_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("must not be empty");
    }
    if name.len() > 15 {
        return Some("must not be longer than 15 bytes");
    }
    if name == "." || name == ".." {
        return Some("must not be . or ..");
    }
    if name.contains(['/', ':']) || name.contains(char::is_whitespace) {
        return Some("must not contain '/', ':' or white space");
    }
    None
}

fn check_ifname(name: &str) -> Result<(), ArgsError> {
    match ifname_fault(name) {
        Some(reason) => Err(ArgsError::Invalid { variable: "CNI_IFNAME", value: name.to_owned(), reason }),
        None => Ok(()),
    }
}

fn check(
    variable: &'static str,
    value: &str,
    ok: impl Fn(&str) -> bool,
    reason: &'static str,
) -> Result<(), ArgsError> {
    if ok(value) { Ok(()) } else { Err(ArgsError::Invalid { variable, value: value.to_owned(), reason }) }
}

fn variable(env: &Env<'_>, name: &'static str) -> Result<Option<String>, ArgsError> {
    match env(name) {
        None => Ok(None),
        Some(value) if value.is_empty() => Ok(None),
        Some(value) => value.into_string().map(Some).map_err(|_| ArgsError::Encoding(name)),
    }
}
