//! What can go wrong, as the user sees it: a sentence, the fix, the exit code. Where a cause
//! comes from is decided by who makes the failure; how it looks is decided here.

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use tonic::{Code, Status};

use crate::render::text::clean;

/// How the program ends. Documented in `--help`; numbers above 63 are those of sysexits.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// It worked.
    Success = 0,
    /// It did not, for a reason that has no number of its own.
    Failure = 1,
    /// It worked, and the answer is no.
    No = 3,
    /// EX_USAGE: the command line is wrong.
    Usage = 64,
    /// EX_UNAVAILABLE: no daemon, or none that answers.
    Unavailable = 69,
    /// EX_NOPERM: the socket is not ours.
    Denied = 77,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong in a way that clap cannot see.
    #[error("{message}")]
    Usage { message: String, fix: String },
    /// Nobody answers.
    #[error("{message}")]
    Unavailable { message: String, fix: String },
    /// We may not ask.
    #[error("{message}")]
    Denied { message: String, fix: String },
    /// The daemon answered that it cannot; `message` is its own.
    #[error("{message}")]
    Refused { message: String, fix: String },
    /// The answer cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// The program itself could not start.
    #[error("cannot start: {0}")]
    Runtime(io::Error),
}

impl Failure {
    /// The command line is wrong.
    pub(crate) fn usage(message: impl Display, fix: impl Display) -> Self {
        Self::Usage { message: message.to_string(), fix: fix.to_string() }
    }

    /// Nobody answers.
    pub(crate) fn unavailable(message: impl Display, fix: impl Display) -> Self {
        Self::Unavailable { message: message.to_string(), fix: fix.to_string() }
    }

    /// What a gRPC status of the daemon means to the user. `asked` says what was asked, for
    /// messages where the daemon's own does not.
    pub(crate) fn from_status(status: &Status, server: &dyn Display, asked: &str) -> Self {
        let message = status.message().to_owned();
        let none = String::new();
        match status.code() {
            Code::InvalidArgument => Self::Usage { message, fix: none },
            Code::NotFound | Code::FailedPrecondition | Code::AlreadyExists | Code::OutOfRange => {
                Self::Refused { message, fix: none }
            }
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied {
                message: format!("the daemon at {server} refuses: {message}"),
                fix: "run it with sudo".to_owned(),
            },
            Code::Unimplemented => Self::Refused {
                message: format!("the daemon at {server} does not know the request \"{asked}\""),
                fix: "it is older than this program or runs without that part: compare `bulkhead version`".to_owned(),
            },
            Code::Unavailable if std::error::Error::source(status).is_none() => Self::Unavailable {
                message: format!("the daemon at {server} is not ready: {message}"),
                fix: "wait until it has read its source; `bulkhead status` says how far it is".to_owned(),
            },
            Code::DeadlineExceeded => Self::hung(server, asked),
            // The connection itself broke, or what answers does not speak gRPC.
            _ if std::error::Error::source(status).is_some() => Self::Unavailable {
                message: format!("the connection to {server} broke during \"{asked}\": {}", causes(status)),
                fix: format!("look at the daemon's log: {LOG}; is it a bulkhead-daemon that listens there?"),
            },
            code => Self::Refused {
                message: format!("the daemon could not answer \"{asked}\": {message} ({code:?})"),
                fix: format!("look at its log: {LOG}"),
            },
        }
    }

    /// Connected, and then silence.
    pub(crate) fn hung(server: &dyn Display, asked: &str) -> Self {
        Self::unavailable(
            format_args!("{server} accepts connections, but \"{asked}\" got no answer in time"),
            format_args!("wait longer with --timeout, or look why the daemon hangs: {LOG}"),
        )
    }

    /// What to do about it; may be empty.
    fn fix(&self) -> &str {
        match self {
            Self::Usage { fix, .. }
            | Self::Unavailable { fix, .. }
            | Self::Denied { fix, .. }
            | Self::Refused { fix, .. } => fix,
            Self::Output(_) | Self::Runtime(_) => "",
        }
    }

    /// How the program ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Unavailable { .. } => Exit::Unavailable,
            Self::Denied { .. } => Exit::Denied,
            Self::Refused { .. } | Self::Output(_) | Self::Runtime(_) => Exit::Failure,
        }
    }

    /// Tells the user, on stderr.
    pub(crate) fn report(&self) {
        let mut text = format!("bulkhead: {}\n", clean(&self.to_string()));
        if !self.fix().is_empty() {
            text.push_str(&format!("  fix: {}\n", clean(self.fix())));
        }
        // Nobody is left to tell when this cannot be printed.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// How to read the daemon's log.
pub(crate) const LOG: &str = "journalctl -u bulkhead-daemon";

/// The chain of causes below `error`, without repetitions.
fn causes(error: &dyn std::error::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if words.last().is_none_or(|last| !last.contains(&text)) {
            words.push(text);
        }
        cause = error.source();
    }
    words.join(": ")
}
