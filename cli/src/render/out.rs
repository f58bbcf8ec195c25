//! Where output goes: stdout, with or without colour, as text or JSON. A reader that has seen
//! enough (`| head`) is no error: what is written after that goes nowhere, and the command ends
//! with the exit code it would have had.

use std::{
    io::{self, BufWriter, IsTerminal, Stdout, Write},
    thread,
};

use clap::ValueEnum;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{
    table::{Table, Tone, paint},
    text::clean,
};

/// Width of the names in a list of fields, with the gap.
const FIELD_WIDTH: usize = 14;

/// What `--output` may say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs: one document, or one object per line where the output is a stream
    #[value(alias = "jsonpb")]
    Json,
    /// `flows` only: a line of names, then one line each
    Csv,
    /// `flows` only: a file as those of the history
    Parquet,
}

/// Outputs that have the columns of the history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tabular {
    /// RFC 4180.
    Csv,
    /// One file.
    Parquet,
}

impl Output {
    /// The rendering that it asks for, and the columns if it asks for those.
    pub(crate) fn parts(self) -> (Format, Option<Tabular>) {
        match self {
            Self::Table => (Format::Table, None),
            Self::Json => (Format::Json, None),
            Self::Csv => (Format::Json, Some(Tabular::Csv)),
            Self::Parquet => (Format::Json, Some(Tabular::Parquet)),
        }
    }
}

/// Shape of what is rendered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs: one document, or one object per line where the output is a stream
    Json,
}

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl ColorChoice {
    /// Whether to colour what goes to stdout. `NO_COLOR`: no-color.org, counts if not empty.
    fn decide(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                io::stdout().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
            }
        }
    }
}

/// Waits for the reader of our stdout to close it, so that a stream in which nothing happens ends
/// with its reader: `bulkhead flows --follow | grep -m1 DENIED`.
#[derive(Debug)]
pub(crate) struct ReaderGone(Option<oneshot::Receiver<()>>);

impl ReaderGone {
    /// Begins to watch, on a thread of its own that ends with the program.
    pub(crate) fn watch() -> Self {
        let (tell, told) = oneshot::channel();
        thread::spawn(move || {
            let stdout = io::stdout();
            // Errors and hang-ups are reported without being asked for (poll(2)); a file never has any.
            let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
            while let Err(Errno::INTR) = poll(&mut watched, None) {}
            let gone = watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP);
            if gone {
                // Nobody waits any more when the stream has ended meanwhile.
                let _ = tell.send(());
            }
        });
        Self(Some(told))
    }

    /// Returns when it has happened.
    pub(crate) async fn happened(&mut self) {
        if let Some(told) = &mut self.0
            && told.await.is_ok()
        {
            return;
        }
        // Watching is not possible here: then the next line finds out.
        self.0 = None;
        std::future::pending().await
    }
}

/// Stdout.
#[derive(Debug)]
pub(crate) struct Out {
    writer: BufWriter<Stdout>,
    format: Format,
    color: bool,
    closed: bool,
}

impl Out {
    /// Stdout with these wishes.
    pub(crate) fn new(format: Format, color: ColorChoice) -> Self {
        Self { writer: BufWriter::new(io::stdout()), format, color: color.decide(), closed: false }
    }

    /// The shape wished for.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether to colour.
    pub(crate) fn color(&self) -> bool {
        self.color
    }

    /// The reader has gone.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// One line of text.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.raw(text)?;
        self.raw("\n")
    }

    /// One line of text that strangers had a part in.
    pub(crate) fn words(&mut self, text: &str) -> io::Result<()> {
        self.line(&clean(text))
    }

    /// A line of text with a meaning, which colours it.
    pub(crate) fn toned(&mut self, tone: Tone, text: &str) -> io::Result<()> {
        let text = paint(tone, &clean(text), self.color);
        self.line(&text)
    }

    /// A title over what follows, after an empty line.
    pub(crate) fn title(&mut self, text: &str) -> io::Result<()> {
        self.raw("\n")?;
        self.toned(Tone::Title, text)
    }

    /// A name and what it stands for.
    pub(crate) fn field(&mut self, name: &str, text: &str) -> io::Result<()> {
        let name = paint(Tone::Faint, &format!("{name:<FIELD_WIDTH$}"), self.color);
        self.line(format!("{name}{}", clean(text)).trim_end())
    }

    /// A table, and what it says if it is empty.
    pub(crate) fn table(&mut self, table: &Table, empty: &str) -> io::Result<()> {
        if table.is_empty() { self.line(empty) } else { self.raw(&table.render(self.color)) }
    }

    /// One JSON document, indented.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.line(&text)
    }

    /// One JSON object on one line.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_string(value)?;
        self.line(&text)
    }

    /// Text as it is.
    pub(crate) fn raw(&mut self, text: &str) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let result = self.writer.write_all(text.as_bytes());
        self.note(result)
    }

    /// Hands everything to the reader.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let result = self.writer.flush();
        self.note(result)
    }

    /// Notes that the reader has gone; any other error is one.
    fn note(&mut self, result: io::Result<()>) -> io::Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other,
        }
    }
}
