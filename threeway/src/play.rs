//! Plays a scenario on all three sides and compares them after every packet.

mod told;

use std::{fmt::Write as _, net::IpAddr};

use datapath_abi::{
    conntrack::{FLAG_INITIATOR_HIGH, FLAG_MIDSTREAM},
    policy::Direction,
};
use policy::{
    fixture,
    model::{Object, PodKey},
    world::Flow,
};

use self::told::{Maps, Told};
use crate::{
    differ::{Alone, Difference},
    node::{Did, Node},
    paper::{Paper, Rules as _, Said},
    scenario::{Packet, Scenario, Step},
    text,
    track::{Asked, Connection, Fate, Key, Tracker},
    truth::Truth,
};

/// What was played.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Played {
    /// Packets that were sent.
    pub packets: u64,
    /// How many of them passed.
    pub passed: u64,
}

/// Plays all of it.
///
/// # Errors
/// The first packet about which the sides do not agree.
pub fn play(node: &mut Node, scenario: &Scenario) -> Result<Played, Box<Difference>> {
    let mut truth = Truth::new(&scenario.locals);
    let mut tracker = Tracker::default();
    let mut played = Played::default();
    let stuck = |step: usize, error: anyhow::Error| {
        Box::new(Difference { step, alone: Alone::Check, text: format!("{error:#}\n") })
    };
    node.begin(&scenario.locals).map_err(|error| stuck(0, error))?;
    let mut steps = scenario.steps.iter().enumerate().peekable();
    while let Some((at, step)) = steps.peek().copied() {
        // Everything up to the next packet is one event to the daemon.
        if !matches!(step, Step::Send(_)) {
            node.step(step, &truth).map_err(|error| stuck(at, error))?;
            truth.step(step);
            steps.next();
            continue;
        }
        node.reconcile().map_err(|error| stuck(at, error))?;
        let objects = truth.objects();
        let index = fixture::index(objects.iter().cloned());
        let paper = Paper::new(&objects, &index);
        let scene = Scene { truth: &truth, objects: &objects, paper: &paper };
        while let Some((at, Step::Send(packet))) = steps.peek().copied() {
            steps.next();
            let found = scene.send(node, &mut tracker, packet).map_err(|error| match error {
                Trouble::Check(error) => stuck(at, error),
                Trouble::Differ(alone, text) => Box::new(Difference { step: at, alone, text }),
            })?;
            if let Some(passed) = found {
                played.packets += 1;
                played.passed += u64::from(passed);
            }
        }
    }
    Ok(played)
}

/// What holds until objects change.
struct Scene<'a> {
    truth: &'a Truth,
    objects: &'a [Object],
    paper: &'a Paper<'a>,
}

enum Trouble {
    Check(anyhow::Error),
    Differ(Alone, String),
}

impl Scene<'_> {
    /// Sends a packet and compares; says whether it passed, `None` if nobody would send it.
    fn send(&self, node: &mut Node, tracker: &mut Tracker, packet: &Packet) -> Result<Option<bool>, Trouble> {
        let key = tracker.key(packet);
        let Some((did, bytes)) = node.send(packet, &key).map_err(Trouble::Check)? else { return Ok(None) };
        let end = |ip: IpAddr| self.truth.end(self.objects, ip);
        let running = |ip: IpAddr| self.truth.local(ip).map(|(number, _)| number);
        let is_ruled = |direction, pod: &PodKey| self.paper.is_ruled(direction, pod);
        let by_hand = Maps::new(node, self.truth);
        let asked = |rules| Asked { end: &end, running: &running, is_ruled: &is_ruled, rules };
        let oracle = tracker.step(packet, bytes, &asked(self.paper.oracle()));
        let paper = tracker.step(packet, bytes, &asked(self.paper));
        let kernel = Told::of(node, packet, &did);

        let readings = oracle.fate.coarse() == paper.fate.coarse();
        let on_paper = kernel.as_ref().is_ok_and(|told| told.agrees(&paper.fate));
        let alone = match (readings, on_paper) {
            (true, true) => None,
            (true, false) => Some(Alone::Kernel),
            (false, true) => Some(Alone::Oracle),
            (false, false) if kernel.as_ref().is_ok_and(|told| told.agrees_about_verdict(&oracle.fate)) => {
                Some(Alone::Paper)
            }
            (false, false) => Some(Alone::Everybody),
        };
        let flow = asked(self.paper).flow(packet);
        let first = matches!(paper.fate, Fate::Opens(_) | Fate::Refused(..));
        if let (None, true, Ok(told)) = (alone, first, &kernel) {
            self.same_staged(&flow, told).map_err(|(alone, text)| {
                Trouble::Differ(
                    alone,
                    format!("{}\n{alone}\n{text}\n{}", text::packet(packet), self.paper.explain(&flow)),
                )
            })?;
        }
        let entry = same_connection(paper.after.as_ref(), &key, &did);
        let alone = alone.or_else(|| entry.is_err().then_some(Alone::Conntrack));
        let Some(alone) = alone else {
            tracker.note(packet, &paper);
            return Ok(Some(paper.fate.passes()));
        };

        let mut text = String::new();
        let maps = tracker.step(packet, bytes, &asked(&by_hand));
        let sides = [("API text", &oracle.fate), ("paper", &paper.fate), ("maps, asked by hand", &maps.fate)];
        let _ = writeln!(text, "{}\n{alone}", text::packet(packet));
        for (who, fate) in sides {
            let _ = writeln!(text, "  {who}: {}", told::words(fate));
        }
        let _ = writeln!(text, "  kernel: {}", kernel.map_or_else(|error| error, |told| told.to_string()));
        if let Err(error) = entry {
            let _ = writeln!(text, "  its connection: {error}");
        }
        let _ = writeln!(text, "\nWhy, on paper, for the flow that it opens:\n{}", self.paper.explain(&flow));
        if !first {
            let flow = asked(self.paper).answered(packet);
            let _ = writeln!(text, "and for the one that it answers:\n{}", self.paper.explain(&flow));
        }
        Err(Trouble::Differ(alone, text))
    }
}

impl Scene<'_> {
    /// Whether all three say the same of what would be if the staged policies were enforced.
    fn same_staged(&self, flow: &Flow, told: &Told) -> Result<(), (Alone, String)> {
        for direction in [Direction::Egress, Direction::Ingress] {
            let (subject, _) = flow.seen_from(direction);
            let is_local = self.truth.local(subject.ip()).is_some();
            let paper = if is_local { self.paper.staged(direction, flow) } else { None };
            // Where staged policies have no say they must make no difference.
            let otherwise = || self.paper.oracle().side(direction, flow).passes();
            let wanted = paper.as_ref().map_or_else(otherwise, Said::passes);
            let oracle = self.paper.oracle_with_staged().side(direction, flow).passes();
            let kernel = &told.staged[direction as usize];
            let alone = match (!is_local || oracle == wanted, *kernel == paper) {
                (true, true) => continue,
                (true, false) => Alone::Kernel,
                (false, true) => Alone::Oracle,
                (false, false) => Alone::Everybody,
            };
            let words = told::staged_words;
            return Err((
                alone,
                format!(
                    "with the staged policies, {direction:?}:\n  API text: would {}\n  paper: {}\n  kernel: {}",
                    if oracle { "pass" } else { "be dropped" },
                    words(&paper),
                    words(kernel)
                ),
            ));
        }
        Ok(())
    }
}

/// Whether the kernel's connection is where it should be.
fn same_connection(wanted: Option<&Connection>, key: &Key, did: &Did) -> Result<(), String> {
    let Some(wanted) = wanted else {
        return match &did.entry {
            None => Ok(()),
            Some((entry, _)) => Err(format!("there should be none, and there is {entry:?}")),
        };
    };
    let Some((entry, _)) = &did.entry else {
        return Err(format!("there is none, and there should be {:?}", wanted.model));
    };
    let mut ends = key.1;
    ends.sort_unstable_by_key(|(ip, port)| (datapath_abi::addr::Addr::from(*ip).words, *port));
    let initiator = ends[usize::from(entry.flags & FLAG_INITIATOR_HIGH != 0)];
    let found = (entry.state, entry.packets(), entry.bytes(), entry.flags & FLAG_MIDSTREAM != 0, initiator);
    let model = &wanted.model;
    let wanted = (model.state() as u8, model.packets, model.bytes, model.midstream, wanted.initiator());
    if found == wanted {
        return Ok(());
    }
    Err(format!("(state, packets, bytes, midstream, initiator) is {found:?}, and should be {wanted:?}"))
}
