//! What can go wrong between us and the kernel's network configuration, in terms a caller can react
//! to: not there, there already, or another errno, and of which object.

use std::io;

use super::netns::NetnsError;

/// A change or a question that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The object to read, change or remove is not there.
    #[error("{action} {object}: there is none")]
    NotFound {
        /// What was tried, for example "remove".
        action: &'static str,
        /// On what, for example "link bh0123456789a".
        object: String,
    },
    /// The object to make is there already.
    #[error("{action} {object}: there is one already")]
    AlreadyExists {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
    },
    /// The kernel refused.
    #[error("{action} {object}: {source}{}", in_words(said))]
    Refused {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// What the kernel said about it; empty if it said no more than the errno.
        said: String,
        /// The errno.
        source: io::Error,
    },
    /// No answer: the netlink socket is closed.
    #[error("{action} {object}: the netlink connection is closed")]
    Closed {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
    },
    /// The kernel answered something that does not fit the question.
    #[error("{action} {object}: unexpected answer: {answer}")]
    Unexpected {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// What came.
        answer: String,
    },
    /// A network namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A kernel setting could not be read or written.
    #[error(transparent)]
    Sysctl(#[from] super::sysctl::SysctlError),
}

// errno values of include/uapi/asm-generic/errno{,-base}.h; the same on all architectures but for
// those that rustix names.
const ENOENT: i32 = rustix::io::Errno::NOENT.raw_os_error();
const ESRCH: i32 = rustix::io::Errno::SRCH.raw_os_error();
const EEXIST: i32 = rustix::io::Errno::EXIST.raw_os_error();
const ENODEV: i32 = rustix::io::Errno::NODEV.raw_os_error();
const EADDRNOTAVAIL: i32 = rustix::io::Errno::ADDRNOTAVAIL.raw_os_error();

impl NetError {
    /// From the errno in a netlink error message. Which errno means "there is none" depends on the
    /// object: ENODEV for links, ESRCH for routes, EADDRNOTAVAIL for addresses, ENOENT for neighbours.
    pub(crate) fn from_errno(errno: i32, said: String, action: &'static str, object: String) -> Self {
        match errno {
            EEXIST => Self::AlreadyExists { action, object },
            ENOENT | ESRCH | ENODEV | EADDRNOTAVAIL => Self::NotFound { action, object },
            _ => Self::Refused { action, object, said, source: io::Error::from_raw_os_error(errno) },
        }
    }

    /// No netlink connection could be made.
    pub(crate) fn own(source: io::Error) -> Self {
        Self::Refused { action: "open", object: "a netlink connection".into(), said: String::new(), source }
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the object is there already.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. })
    }
}

fn in_words(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// Turns "as it should be already" into success.
pub(crate) trait Tolerate {
    /// Removing something that is gone is done.
    fn or_gone(self) -> Self;
}

impl Tolerate for Result<(), NetError> {
    fn or_gone(self) -> Self {
        match self {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }
}
