//! An error with its causes in one line, nothing said twice.

/// The error and its causes, outermost first. A cause that has been told already is left out: many
/// errors tell theirs, so that a log line of them says enough, and a verifier's log is long.
pub fn of(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// As aya says that a program was refused: with the reason in the text and as its source.
    #[derive(Debug, thiserror::Error)]
    #[error("the BPF_PROG_LOAD syscall returned {source}. Verifier output: R1 invalid mem access")]
    struct Refused {
        source: io::Error,
    }

    /// As we say which.
    #[derive(Debug, thiserror::Error)]
    #[error("loading the eBPF program from_pod: {source}")]
    struct Program {
        source: Refused,
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("disk full").context("writing x: disk full").context("keeping identities");
        assert_eq!(of(&error), "keeping identities: writing x: disk full");
        let error = anyhow::anyhow!("no such file").context("a").context("b");
        assert_eq!(of(&error), "b: a: no such file");
    }

    #[test]
    fn the_verifiers_log_is_told_once() {
        let source = Refused { source: io::Error::from_raw_os_error(22) };
        let text = of(&anyhow::Error::from(Program { source }));
        assert_eq!(text.matches("BPF_PROG_LOAD").count(), 1, "{text}");
        assert_eq!(text.matches("Invalid argument").count(), 1, "{text}");
        assert!(text.starts_with("loading the eBPF program from_pod: "), "{text}");
    }
}
