//! Tells the story on the terminal, and remembers which lines did not come true.

use std::{
    env,
    io::{IsTerminal as _, Write as _, stdout},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::bail;

/// Share it by cloning.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    colour: bool,
    began: Instant,
    stop: Arc<AtomicBool>,
    untrue: Arc<Mutex<Vec<String>>>,
}

/// How a piece of text looks on a terminal (ECMA-48, SGR).
#[derive(Clone, Copy)]
enum Look {
    Bold,
    Dim,
    Good,
    Bad,
}

impl Teller {
    pub(crate) fn new() -> Self {
        let colour = stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
        Self { colour, began: Instant::now(), stop: Arc::default(), untrue: Arc::default() }
    }

    /// Whether commands are to print in colour.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Ends the story at its next line.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// A new part of the story.
    ///
    /// # Errors
    /// This and the other methods fail when the story is to end.
    pub(crate) fn chapter(&self, title: &str) -> anyhow::Result<()> {
        self.print(&format!("\n{}", self.look(Look::Bold, title)))
    }

    /// Something that needs no proof.
    pub(crate) fn says(&self, text: &str) -> anyhow::Result<()> {
        self.print(&format!("  {text}"))
    }

    /// A line of the story, and whether it came true.
    pub(crate) fn line(&self, came_true: bool, text: &str) -> anyhow::Result<()> {
        let mark = if came_true { self.look(Look::Good, "ok") } else { self.look(Look::Bad, "NOT TRUE:") };
        if !came_true {
            self.untrue.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
        }
        self.print(&format!("  {mark} {text}"))
    }

    /// A command as one would type it.
    pub(crate) fn command(&self, command: &str) -> anyhow::Result<()> {
        self.print(&format!("  {}", self.look(Look::Bold, &format!("$ {command}"))))
    }

    /// What a command has printed; `most` lines of it.
    pub(crate) fn output(&self, text: &str, most: usize) -> anyhow::Result<()> {
        for line in text.lines().take(most) {
            self.print(format!("    {line}").trim_end())?;
        }
        if text.lines().count() > most {
            self.print(&self.look(Look::Dim, "    ..."))?;
        }
        Ok(())
    }

    /// The end: true if every line came true.
    pub(crate) fn end(&self) -> anyhow::Result<bool> {
        let untrue = self.untrue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let took = self.began.elapsed().as_secs_f64();
        if untrue.is_empty() {
            self.chapter(&format!("Every line of this came true, in {took:.1} s."))?;
            return Ok(true);
        }
        self.chapter(&format!("{} of these lines did NOT come true:", untrue.len()))?;
        for line in &untrue {
            self.print(&format!("  {}", self.look(Look::Bad, line)))?;
        }
        Ok(false)
    }

    fn look(&self, look: Look, text: &str) -> String {
        let code = match look {
            Look::Bold => "1",
            Look::Dim => "2",
            Look::Good => "32",
            Look::Bad => "31;1",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn print(&self, line: &str) -> anyhow::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            bail!("stopped");
        }
        let mut out = stdout().lock();
        // Nobody may read us any more; the story is checked all the same.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        Ok(())
    }
}
