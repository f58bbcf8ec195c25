//! The table of `docs/packets.md`: which packet has which fate. A line is written when its packets were
//! sent and did what it says, and nothing else: the words of a line are made from what was proven.

use std::{env, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, bail};
use datapath_abi::{
    event::{EndReason, Hook},
    maps::Scalar,
    policy::Direction,
    reason::DropReason,
};

use crate::{
    host::{FAMILIES, Family},
    lab::{At, Lab},
    packet::Packet,
    scene::{self, Scene},
    seen::Seen,
};

/// What is sent.
#[derive(Clone, Debug)]
pub enum Frame {
    /// A packet; events about it must have its ports.
    Packet(Packet),
    /// Bytes that are no packet, or one whose transport header nobody finds.
    Bytes(Vec<u8>),
    /// A packet that the kernel will cut into segments of this size.
    Gso(Packet, u32),
}

impl From<Packet> for Frame {
    fn from(packet: Packet) -> Self {
        Frame::Packet(packet)
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Frame::Bytes(bytes)
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    end: End,
    opens: bool,
    closes: Option<EndReason>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// To the pod that it is for, or to the node's stack if it is for somebody else.
    Through,
    /// To the node's stack, although it is for a pod.
    Stack,
    /// On, without being counted.
    Uncounted,
    /// Nowhere, with a record.
    Dropped(DropReason, Option<Direction>),
    /// Nowhere, without.
    Quiet(DropReason),
}

/// It gets where it is to go.
pub const PASSES: Fate = Fate { end: End::Through, opens: false, closes: None };
/// The same, and a connection begins.
pub const OPENS: Fate = Fate { opens: true, ..PASSES };
/// It goes to the node's stack, also when it is for a pod of this node.
pub const TO_STACK: Fate = Fate { end: End::Stack, ..PASSES };
/// It goes on and is not counted: ARP.
pub const UNCOUNTED: Fate = Fate { end: End::Uncounted, ..PASSES };

/// It is dropped and told of, for a reason that is no policy.
pub const fn drops(reason: DropReason) -> Fate {
    Fate { end: End::Dropped(reason, None), ..PASSES }
}

/// It is dropped and told of, by a policy.
pub const fn refused(reason: DropReason, direction: Direction) -> Fate {
    Fate { end: End::Dropped(reason, Some(direction)), ..PASSES }
}

/// It is dropped and not told of.
pub const fn drops_quietly(reason: DropReason) -> Fate {
    Fate { end: End::Quiet(reason), ..PASSES }
}

impl Fate {
    /// And a connection that was there has ended.
    #[must_use]
    pub const fn closes(mut self, end: EndReason) -> Self {
        self.closes = Some(end);
        self
    }

    /// And a connection begins.
    #[must_use]
    pub const fn opening(mut self) -> Self {
        self.opens = true;
        self
    }

    /// What the first packet of a connection has.
    pub fn usual(scene: &Scene) -> Self {
        match scene.refuses() {
            Some((reason, direction)) => refused(reason, direction),
            None => OPENS,
        }
    }

    /// Fails unless this is what has happened, and nothing else.
    fn prove(&self, mut seen: Seen, scene: &Scene) {
        if let Some(end) = self.closes {
            seen = seen.closes(end);
        }
        seen = match self.end {
            End::Through if matches!(scene.at, At::From(_)) && scene.to.is_local() => seen.reaches(&scene.to),
            End::Through | End::Stack => seen.passes(),
            End::Uncounted => seen.goes_on(),
            End::Dropped(reason, direction) => seen.drops(reason, direction),
            End::Quiet(reason) => seen.drops_quietly(reason),
        };
        if self.opens {
            seen.opens();
        }
    }

    /// Verdict, reason, counters, records; `hooks` are the programs that have seen it.
    fn cells(&self, hooks: &str) -> [String; 4] {
        let (verdict, reason, counter) = match self.end {
            End::Through => ("passes", String::new(), Some("passed")),
            End::Stack => ("to the node", String::new(), Some("passed")),
            End::Uncounted => ("passes", String::new(), None),
            End::Quiet(reason) | End::Dropped(reason, None) => {
                ("dropped", reason.name().to_owned(), Some(reason.name()))
            }
            End::Dropped(reason, Some(Direction::Egress)) => {
                ("dropped", format!("{}, egress", reason.name()), Some(reason.name()))
            }
            End::Dropped(reason, Some(Direction::Ingress)) => {
                ("dropped", format!("{}, ingress", reason.name()), Some(reason.name()))
            }
        };
        let mut records = Vec::new();
        if let Some(end) = self.closes {
            records.push(format!("closed ({})", format!("{end:?}").to_lowercase()));
        }
        if matches!(self.end, End::Dropped(..)) {
            records.push("dropped".to_owned());
        }
        if self.opens {
            records.push("opened".to_owned());
        }
        let mut counters: Vec<String> = counter.map(|name| format!("{hooks} {name}")).into_iter().collect();
        if !records.is_empty() {
            let (_, name) = Scalar::ALL.iter().find(|(scalar, _)| *scalar == Scalar::EventsWritten).expect("a scalar");
            counters.push(if records.len() == 1 { (*name).to_owned() } else { format!("{name} × {}", records.len()) });
        }
        [verdict.to_owned(), reason, counters.join(", "), records.join(", ")]
    }
}

/// The programs that see packets of these situations.
fn hooks(scenes: &[Scene]) -> String {
    let sees = |hook| scenes.iter().any(|scene| scene.at.hook() == hook);
    let names: Vec<&str> = [(Hook::FromPod, "`from_pod`"), (Hook::ToPod, "`to_pod`")]
        .into_iter()
        .filter_map(|(hook, name)| sees(hook).then_some(name))
        .collect();
    names.join(" or ")
}

/// Situations in words.
fn who(scenes: &[Scene]) -> String {
    let names = |scenes: &[Scene]| -> Vec<&str> { scenes.iter().map(|scene| scene.who).collect() };
    match scene::SETS.iter().find(|(_, set)| names(set) == names(scenes)) {
        Some((name, _)) => format!("*{name}*"),
        None => names(scenes).join("; "),
    }
}

/// The table, while it is being proven.
#[derive(Debug)]
pub struct Table {
    lab: Lab,
    text: String,
    lines: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// An empty one.
    pub fn new() -> Self {
        Self { lab: Lab::new(), text: String::new(), lines: 0 }
    }

    /// Begins a group of lines, with a sentence about all of them.
    pub fn group(&mut self, title: &str, sentence: &str) {
        let _ = write!(
            self.text,
            "\n## {title}\n\n{sentence}\n\n| packet | IP | from, to | verdict | reason | counters | records |\n\
             |---|---|---|---|---|---|---|\n"
        );
    }

    /// Begins lines about one kind of packet: `make` says which frames it is, each of which has the fate
    /// that the line names.
    #[must_use = "it is not in the table before a line of it is proven"]
    pub fn packet<F: Into<Frame>>(
        &mut self,
        name: &str,
        make: impl Fn(&Scene, Family) -> Vec<F> + 'static,
    ) -> Entry<'_> {
        let make = move |scene: &Scene, family| make(scene, family).into_iter().map(Into::into).collect();
        Entry {
            table: self,
            name: name.to_owned(),
            families: &FAMILIES,
            before: Box::new(|_, _, _| {}),
            make: Box::new(make),
        }
    }

    /// How many lines have been proven.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Compares a file with `head` and the table; writes it if UPDATE_GOLDEN is set.
    ///
    /// # Errors
    /// The file cannot be read or written, or is not what was proven: the first line that differs.
    pub fn settle(&self, path: &Path, head: &str) -> anyhow::Result<()> {
        let proven = format!("{head}{}", self.text);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            return fs::write(path, proven).with_context(|| format!("writing {}", path.display()));
        }
        let written = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        if written == proven {
            return Ok(());
        }
        let mut pairs = written.lines().map(Some).chain([None]).zip(proven.lines().map(Some).chain([None]));
        let (number, (is, should)) = pairs
            .by_ref()
            .enumerate()
            .find(|(_, (is, should))| is != should)
            .context("they differ in their last line ends")?;
        bail!(
            "{} is stale at line {}: run with UPDATE_GOLDEN=1 and read the difference\n is:     {}\n proven: {}",
            path.display(),
            number + 1,
            is.unwrap_or("(its end)"),
            should.unwrap_or("(its end)")
        )
    }
}

type Before = dyn Fn(&mut Lab, &Scene, Family);
type Make = dyn Fn(&Scene, Family) -> Vec<Frame>;

/// Lines about one kind of packet.
pub struct Entry<'t> {
    table: &'t mut Table,
    name: String,
    families: &'static [Family],
    before: Box<Before>,
    make: Box<Make>,
}

impl std::fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Entry<'_> {
    /// Of IPv4 alone.
    pub fn v4(mut self) -> Self {
        self.families = &[Family::V4];
        self
    }

    /// Of IPv6 alone.
    pub fn v6(mut self) -> Self {
        self.families = &[Family::V6];
        self
    }

    /// After other packets, or changes of policy.
    pub fn after(mut self, before: impl Fn(&mut Lab, &Scene, Family) + 'static) -> Self {
        self.before = Box::new(before);
        self
    }

    /// In these situations it has the fate that any first packet of a connection has there, which the table
    /// has shown.
    pub fn usual(mut self, scenes: &[Scene]) -> Self {
        for scene in scenes {
            self.prove(scene, &Fate::usual(scene));
        }
        self.line(&who(scenes), ["as a plain packet", "", "", ""].map(str::to_owned));
        self
    }

    /// The same, with a line for each fate: the plain packets themselves.
    pub fn shown(self, scenes: &[Scene]) -> Self {
        let mut fates: Vec<(Fate, Vec<Scene>)> = Vec::new();
        for scene in scenes {
            let fate = Fate::usual(scene);
            match fates.iter_mut().find(|(other, _)| *other == fate) {
                Some((_, same)) => same.push(*scene),
                None => fates.push((fate, vec![*scene])),
            }
        }
        fates.into_iter().fold(self, |entry, (fate, scenes)| entry.fate(&scenes, fate))
    }

    /// In these situations it has this fate.
    pub fn fate(mut self, scenes: &[Scene], fate: Fate) -> Self {
        for scene in scenes {
            self.prove(scene, &fate);
        }
        self.line(&who(scenes), fate.cells(&hooks(scenes)));
        self
    }

    fn line(&mut self, who: &str, [verdict, reason, counters, records]: [String; 4]) {
        let families = match self.families {
            [Family::V4] => "4",
            [Family::V6] => "6",
            _ => "4, 6",
        };
        let _ = writeln!(
            self.table.text,
            "| {} | {families} | {who} | {verdict} | {reason} | {counters} | {records} |",
            self.name
        );
        self.table.lines += 1;
    }

    fn prove(&mut self, scene: &Scene, fate: &Fate) {
        for family in self.families {
            self.prove_family(scene, *family, fate);
        }
    }

    fn prove_family(&mut self, scene: &Scene, family: Family, fate: &Fate) {
        let lab = &mut self.table.lab;
        lab.reset();
        scene.set(lab);
        (self.before)(lab, scene, family);
        let frames = (self.make)(scene, family);
        let mut sent = 0;
        for frame in &frames {
            let seen = match frame {
                Frame::Packet(packet) => lab.send(scene.at, packet),
                Frame::Gso(packet, size) => lab.send_gso(scene.at, packet, *size),
                Frame::Bytes(bytes) if lab.can_send(scene.at, bytes) => lab.send_bytes(scene.at, bytes),
                Frame::Bytes(_) => continue,
            };
            sent += 1;
            // What fails says what was sent, but not which line of the table it was for.
            eprintln!("{}, IPv{}, {}", self.name, if family == Family::V4 { 4 } else { 6 }, scene.who);
            fate.prove(seen, scene);
        }
        assert!(sent > 0, "{}, {}: nothing was sent", self.name, scene.who);
    }
}
