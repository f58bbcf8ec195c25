//! The daemon's state for people: a block of facts, then whatever needs attention, then maps.

use std::io;

use super::{
    out::Out,
    table::{Item, Table, Tone},
    text::{count, duration, or_dash, percent},
};
use crate::view::status::{Condition, Gate, Refusal, Severity, SourceError, Status};

/// A map from this share on is shown as a warning.
const NEARLY_FULL_PERCENT: u64 = 80;

/// Prints the state.
pub(crate) fn render(out: &mut Out, status: &Status) -> io::Result<()> {
    facts(out, status)?;
    if status.conditions.is_empty() {
        out.title("All is well.")?;
    } else {
        out.title("CONDITIONS")?;
        for condition in &status.conditions {
            self::condition(out, condition)?;
        }
    }
    if !status.source.errors.is_empty() {
        out.title("REFUSED IN THE SOURCE")?;
        for error in &status.source.errors {
            source_error(out, error)?;
        }
    }
    if !status.refusals.is_empty() {
        out.title("NOT IN FORCE AS WRITTEN")?;
        for refusal in &status.refusals {
            self::refusal(out, refusal)?;
        }
    }
    maps(out, status)
}

/// The block of facts.
fn facts(out: &mut Out, status: &Status) -> io::Result<()> {
    let Status { build, datapath, counts, source, conntrack, events, .. } = status;
    out.field("node", &status.node)?;
    let commit = if build.commit.is_empty() { "unknown" } else { &build.commit };
    let uptime = duration(status.uptime_seconds);
    out.field(
        "daemon",
        &format!("version {} (commit {commit}), ABI {}, up {uptime}", build.version, build.abi_version),
    )?;
    out.field(
        "datapath",
        &format!("{} on {}, MTU {}, kernel {}", datapath.attach_mode, datapath.device, datapath.mtu, datapath.kernel),
    )?;
    out.field("uplink", &or_dash(&datapath.uplink))?;
    if let Some(Gate { interfaces, denied_ranges }) = &datapath.gate {
        let at: Vec<String> = interfaces.iter().map(|at| format!("{} ({})", at.name, at.way)).collect();
        let refused = count(*denied_ranges, "denied range");
        out.field("gate", &format!("packets from outside are looked at on {}; {refused}", at.join(", ")))?;
    }
    out.field("routing", &or_dash(&datapath.routing))?;
    out.field("pins", &datapath.pin_path)?;
    let synced = if source.synced { "read completely" } else { "not read completely yet" };
    let change = source.last_change_seconds.map(|ago| format!(", last change {} ago", duration(ago)));
    out.field("source", &format!("{}, {synced}{}", source.spec, change.unwrap_or_default()))?;
    out.field(
        "objects",
        &format!(
            "{}, {}, {}",
            count(counts.namespaces, "namespace"),
            count(counts.pods, "pod"),
            count(counts.policies, "policy/policies")
        ),
    )?;
    out.field(
        "endpoints",
        &format!(
            "{}, {} isolated; {}, {}",
            counts.endpoints,
            counts.endpoints_isolated,
            count(counts.identities, "identity/identities"),
            count(counts.rule_sets, "rule set")
        ),
    )?;
    out.field(
        "connections",
        &format!(
            "{} established, {} pending; {} decided anew, {} found no space",
            conntrack.established, conntrack.pending, conntrack.redecided, conntrack.full
        ),
    )?;
    out.field(
        "events",
        &format!(
            "{} written, {} lost; {} of {} flow records held",
            events.written, events.lost, events.records, events.record_capacity
        ),
    )?;
    for (index, pool) in status.pools.iter().enumerate() {
        // Nobody reads the number of free addresses in a /64.
        let few = pool.free.filter(|free| *free < 1 << 32);
        let free = few.map_or_else(|| "more than enough".to_owned(), |free| free.to_string());
        let name = if index == 0 { "addresses" } else { "" };
        out.field(name, &format!("{}: {} used, {free} free", pool.range, pool.used))?;
    }
    Ok(())
}

/// One condition and its fix.
fn condition(out: &mut Out, condition: &Condition) -> io::Result<()> {
    let (tone, word) = match condition.severity {
        Severity::Info => (Tone::Plain, "info"),
        Severity::Warning => (Tone::Warn, "warning"),
        Severity::Error => (Tone::Bad, "error"),
    };
    out.toned(tone, &format!("{word}: {} ({})", condition.message, condition.code))?;
    fix(out, &condition.fix)
}

/// One refused object: where, what, why.
fn source_error(out: &mut Out, error: &SourceError) -> io::Result<()> {
    let place = error.origin.as_ref().map_or_else(|| "unknown place".to_owned(), ToString::to_string);
    let object = error.object.as_ref().map(|object| format!("{} {}", object.kind, object.path()));
    let subject: Vec<String> =
        [object, Some(error.field.clone())].into_iter().flatten().filter(|text| !text.trim().is_empty()).collect();
    let separator = if subject.is_empty() { "" } else { ": " };
    out.toned(Tone::Bad, &format!("{place}{separator}{}", subject.join(", ")))?;
    out.words(&format!("  {}", error.message))?;
    fix(out, &error.fix)?;
    if error.last_good_in_force {
        out.line("  meanwhile: its last good version stays in force")?;
    }
    if error.denied_meanwhile {
        out.line("  meanwhile: what it selects is denied")?;
    }
    Ok(())
}

/// One thing that did not fit.
fn refusal(out: &mut Out, refusal: &Refusal) -> io::Result<()> {
    let direction = refusal.direction.map(|direction| format!(", {direction}")).unwrap_or_default();
    out.toned(Tone::Bad, &format!("{} {}{direction}", refusal.object.kind, refusal.object.path()))?;
    out.words(&format!("  {}", refusal.reason))?;
    fix(out, &refusal.fix)?;
    if !refusal.meanwhile.is_empty() {
        out.words(&format!("  meanwhile: {}", refusal.meanwhile))?;
    }
    Ok(())
}

/// What to do, if it is known.
fn fix(out: &mut Out, fix: &str) -> io::Result<()> {
    if fix.is_empty() { Ok(()) } else { out.words(&format!("  fix: {fix}")) }
}

/// How full the maps are.
fn maps(out: &mut Out, status: &Status) -> io::Result<()> {
    if status.maps.is_empty() {
        return Ok(());
    }
    out.raw("\n")?;
    let mut table = Table::new(["MAP", "USED", "CAPACITY", "FULL", "HOLDS"]).right([1, 2, 3]);
    for map in &status.maps {
        let full = u128::from(map.entries) * 100 >= u128::from(map.capacity) * u128::from(NEARLY_FULL_PERCENT);
        let tone = if full && map.capacity > 0 { Tone::Warn } else { Tone::Plain };
        table.row([
            Item::from(&map.name),
            Item::from(map.entries.to_string()),
            Item::from(map.capacity.to_string()),
            Item::new(tone, percent(map.entries, map.capacity)),
            Item::from(&map.purpose),
        ]);
    }
    out.table(&table, "")
}
