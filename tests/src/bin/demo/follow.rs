//! `bulkhead flows --follow`: the real command, whose lines are kept until the story asks for those of
//! one connection.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use ::tests::ask::Bulkhead;
use anyhow::{Context as _, bail};

/// The command, running.
#[derive(Debug)]
pub(crate) struct Follow {
    child: Child,
    lines: Receiver<String>,
    /// Read and not asked for yet.
    waiting: Vec<Line>,
}

/// A line of its table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// As printed, perhaps with colours.
    pub(crate) printed: String,
    /// Without colours.
    pub(crate) plain: String,
}

impl Follow {
    /// Starts it.
    pub(crate) fn start(bulkhead: &Bulkhead, colour: bool) -> anyhow::Result<Self> {
        let when = if colour { "always" } else { "never" };
        let mut command = bulkhead.command(&["flows", "--follow", "--color", when])?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting bulkhead")?;
        let output = child.stdout.take().context("standard output is piped")?;
        let (told, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, waiting: Vec::new() })
    }

    /// The next `count` lines that hold all of `texts`; fewer if they do not come in time.
    pub(crate) fn find(&mut self, texts: &[&str], count: usize, patience: Duration) -> anyhow::Result<Vec<Line>> {
        let until = Instant::now() + patience;
        let mut found = Vec::new();
        loop {
            let mut index = 0;
            while index < self.waiting.len() && found.len() < count {
                if texts.iter().all(|text| self.waiting[index].plain.contains(text)) {
                    found.push(self.waiting.remove(index));
                } else {
                    index += 1;
                }
            }
            if found.len() == count {
                return Ok(found);
            }
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(printed) => self.waiting.push(Line { plain: without_colours(&printed), printed }),
                Err(RecvTimeoutError::Timeout) => return Ok(found),
                Err(RecvTimeoutError::Disconnected) => bail!("`bulkhead flows --follow` has ended"),
            }
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes out the sequences `ESC [ ... m` (ECMA-48, SGR).
fn without_colours(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out_and_nothing_else() {
        assert_eq!(without_colours("\x1b[2mmam\x1b[0m \x1b[38;5;2mALLOWED  \x1b[39ma -> b"), "mam ALLOWED  a -> b");
        assert_eq!(without_colours("plain"), "plain");
        assert_eq!(without_colours("cut \x1b[3"), "cut ");
    }
}
