//! Errors as the runtime sees them: a code of the CNI specification, a sentence, and what to do.
//!
//! Modules fail with their own enums; each says here which code it is. Codes from 100 are ours
//! (specification 1.1.0, section "Error": 0-99 are reserved).

use proto::bulkhead::cni::v1::CniError;
use serde_json::{Value, json};

use crate::{
    args::ArgsError, chain::ChainError, client::CallError, conf::ConfError, netns::NetnsError, result::RenderError,
    tombstone::TombstoneError, version::Version,
};

/// Codes that the plugin itself gives. The daemon's codes are passed on as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Code {
    /// The version of the configuration is not supported, or too old for the command.
    IncompatibleVersion = 1,
    /// A key that is not supported; the message names key and value.
    UnsupportedField = 2,
    /// A variable of the environment is missing or wrong.
    InvalidEnvironment = 4,
    /// Reading stdin or writing a tombstone failed.
    Io = 5,
    /// stdin is not JSON, or a key has the wrong type.
    Decode = 6,
    /// The configuration is well-formed and wrong.
    InvalidConfig = 7,
    /// CNI_NETNS is not a network namespace, or the host's.
    InvalidNetns = 8,
    /// The daemon is not there now.
    TryAgainLater = 11,
    /// STATUS: the daemon is not there, so no ADD can be served.
    NotReady = 50,
    /// The daemon answered something that it must not.
    DaemonDefect = 100,
    /// The daemon does not know the call: it is older than the plugin.
    DaemonTooOld = 101,
}

/// The error object that goes to stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: u32,
    pub(crate) msg: String,
    pub(crate) details: String,
}

impl Failure {
    pub(crate) fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code: code as u32, msg: msg.into(), details: details.into() }
    }

    /// The error as JSON.
    pub(crate) fn to_json(&self, version: Version) -> Value {
        let mut out = json!({"cniVersion": version.as_str(), "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            out["details"] = self.details.clone().into();
        }
        out
    }
}

/// What the daemon said, unchanged, unless it said nothing.
impl From<CniError> for Failure {
    fn from(error: CniError) -> Self {
        let CniError { code, msg, details } = error;
        if code == 0 {
            return Self::new(
                Code::DaemonDefect,
                format!("bulkhead-daemon reported an error without a code: {msg}"),
                details,
            );
        }
        Self { code, msg, details }
    }
}

impl From<ArgsError> for Failure {
    fn from(error: ArgsError) -> Self {
        Self::new(Code::InvalidEnvironment, error.to_string(), error.fix())
    }
}

impl From<ConfError> for Failure {
    fn from(error: ConfError) -> Self {
        let code = match &error {
            ConfError::Syntax(_) | ConfError::Type(_) | ConfError::Result(_) => Code::Decode,
            ConfError::Version { .. } | ConfError::CommandVersion { .. } => Code::IncompatibleVersion,
            ConfError::Unsupported { .. } => Code::UnsupportedField,
            ConfError::NoName | ConfError::Missing { .. } | ConfError::Invalid { .. } => Code::InvalidConfig,
        };
        Self::new(code, error.to_string(), error.fix())
    }
}

impl From<ChainError> for Failure {
    fn from(error: ChainError) -> Self {
        Self::new(Code::InvalidConfig, error.to_string(), "put bulkhead-cni first in the list of plugins")
    }
}

impl From<NetnsError> for Failure {
    fn from(error: NetnsError) -> Self {
        Self::new(Code::InvalidNetns, error.to_string(), "")
    }
}

impl From<TombstoneError> for Failure {
    fn from(error: TombstoneError) -> Self {
        Self::new(Code::Io, error.to_string(), "")
    }
}

impl From<RenderError> for Failure {
    fn from(error: RenderError) -> Self {
        Self::new(Code::DaemonDefect, error.to_string(), "")
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let code = match &error {
            CallError::Unreachable { .. } | CallError::Broken { .. } | CallError::Timeout { .. } => Code::TryAgainLater,
            CallError::Unimplemented { .. } => Code::DaemonTooOld,
            CallError::Runtime(_) | CallError::Status { .. } | CallError::Empty { .. } => Code::DaemonDefect,
        };
        Self::new(code, error.to_string(), error.fix())
    }
}
