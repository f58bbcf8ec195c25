//! The network configuration on stdin.
//!
//! The specification's own keys are let pass or read, ours are read, and any other key is refused
//! by name, because a key that is silently ignored is a setting that silently does not hold. DEL and
//! GC are lenient: a configuration edited after the ADD must not keep a pod from going away.
//! What runtimes put in (`runtimeConfig`, `args`) is read in `conf/wanted.rs`.

mod address;
mod hint;
mod settings;
mod valid;
mod wanted;

use proto::bulkhead::cni::v1::{AttachmentId, CniResult, Dns};
use serde_json::Value;

pub(crate) use address::{Mac, cidr, plain_address};
pub(crate) use settings::Settings;
pub(crate) use wanted::Wanted;

use crate::{
    args::{Command, ID_RULE, is_id},
    json::{Field, TypeError},
    result,
    version::Version,
};

/// A wrong configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    #[error("network configuration on stdin is not JSON: {0}")]
    Syntax(serde_json::Error),
    #[error(transparent)]
    Type(#[from] TypeError),
    #[error("network configuration has no name")]
    NoName,
    #[error("cniVersion {found:?} is not supported")]
    Version { found: String },
    #[error("cniVersion {found} does not know {command}")]
    CommandVersion { found: Version, command: &'static str, since: Version },
    #[error("{key}: {value} is not supported")]
    Unsupported { key: String, value: String, fix: String },
    #[error("{command} needs {key}")]
    Missing { command: &'static str, key: &'static str },
    #[error("{key}: {value}: {reason}")]
    Invalid { key: String, value: String, reason: String },
    #[error("{0}")]
    Result(#[from] result::ParseError),
}

impl ConfError {
    /// What to do about it.
    pub(crate) fn fix(&self) -> String {
        match self {
            Self::NoName => "add \"name\"".to_owned(),
            Self::Version { .. } => format!("supported versions: {}", Version::list()),
            Self::CommandVersion { since, .. } => format!("set cniVersion to {since} or newer"),
            Self::Unsupported { fix, .. } => fix.clone(),
            Self::Syntax(_) | Self::Type(_) | Self::Missing { .. } | Self::Invalid { .. } | Self::Result(_) => {
                String::new()
            }
        }
    }

    /// A value that is of the right type and wrong.
    fn invalid(field: &Field<'_>, reason: impl Into<String>) -> Self {
        Self::Invalid { key: field.path().to_owned(), value: field.excerpt(), reason: reason.into() }
    }
}

/// stdin as JSON.
#[derive(Debug)]
pub(crate) struct Document(Value);

/// The configuration, checked for one command.
#[derive(Debug)]
pub(crate) struct Conf {
    pub(crate) settings: Settings,
    /// The result of the plugins before us (ADD) or of all (DEL, CHECK).
    pub(crate) prev_result: Option<CniResult>,
    /// What the runtime wants for this attachment.
    pub(crate) wanted: Wanted,
    /// What resolv.conf should hold: runtimeConfig.dns, else the configuration's.
    pub(crate) dns: Option<Dns>,
    /// GC: None where the runtime gave no list.
    pub(crate) valid_attachments: Option<Vec<AttachmentId>>,
}

impl Document {
    /// Parses stdin.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ConfError> {
        let value = serde_json::from_slice(bytes).map_err(ConfError::Syntax)?;
        Field::new("", &value).entries()?;
        Ok(Self(value))
    }

    fn root(&self) -> Field<'_> {
        Field::new("", &self.0)
    }

    /// The name of the network.
    pub(crate) fn name(&self) -> Result<String, ConfError> {
        let Some(field) = self.root().get("name")? else { return Err(ConfError::NoName) };
        match field.str()? {
            "" => Err(ConfError::NoName),
            name if is_id(name) => Ok(name.to_owned()),
            _ => Err(ConfError::invalid(&field, ID_RULE)),
        }
    }

    /// The version that the result must have.
    pub(crate) fn version(&self) -> Result<Version, ConfError> {
        match self.root().read("cniVersion", Field::str)?.unwrap_or_default() {
            "" => Ok(Version::UNSTATED),
            name => Version::parse(name).ok_or_else(|| ConfError::Version { found: name.to_owned() }),
        }
    }

    /// All the rest, for `command`.
    pub(crate) fn conf(&self, command: Command, version: Version) -> Result<Conf, ConfError> {
        let since = match command {
            Command::Add | Command::Del => Version::V0_1_0,
            Command::Check => Version::V0_4_0,
            Command::Gc | Command::Status => Version::V1_1_0,
        };
        if version < since {
            return Err(ConfError::CommandVersion { found: version, command: command.as_str(), since });
        }
        let root = self.root();
        let settings = Settings::read(&root, command)?;
        if !command.is_cleanup() {
            settings::refuse_unknown_keys(&root)?;
            settings::refuse_what_others_do(&root)?;
        }
        let prev_result = self.prev_result(command, version)?;
        let (wanted, dns) = match command {
            Command::Add => (Wanted::read(&root)?, wanted::dns(&root)?),
            Command::Check | Command::Status => {
                Wanted::read(&root)?;
                wanted::dns(&root)?;
                (Wanted::default(), None)
            }
            Command::Del | Command::Gc => (Wanted::default(), None),
        };
        let valid_attachments = if command == Command::Gc { valid::attachments(&root)? } else { None };
        Ok(Conf { settings, prev_result, wanted, dns, valid_attachments })
    }

    fn prev_result(&self, command: Command, version: Version) -> Result<Option<CniResult>, ConfError> {
        let parse = || self.root().read("prevResult", |field| result::parse(field, version).map_err(ConfError::from));
        match command {
            Command::Add => parse(),
            Command::Check => {
                let missing = ConfError::Missing { command: "CHECK", key: "prevResult" };
                parse()?.ok_or(missing).map(Some)
            }
            // Only a help to find what must go; what cannot be read is as good as absent.
            Command::Del => Ok(parse().unwrap_or_default()),
            Command::Gc | Command::Status => Ok(None),
        }
    }
}
