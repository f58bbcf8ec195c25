//! `cargo xtask mutants`: breaks the code in named ways and expects the three-way check to notice each of
//! them, in random worlds or in the scenarios that it keeps. A mutant that survives is a hole in the check.
//!
//! All of them are written into one copy of the tree, below the target folder, each behind a number that is
//! chosen when the check starts: so everything is built once, and nothing of it is in the product.

mod list;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};

use self::list::{MUTANTS, Mutant, SUPPORT};
use crate::{
    programs, repo,
    run::{self, Privilege},
    setup::{self, Purpose},
};

/// Options of `cargo xtask mutants`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Only mutants whose name holds this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,

    /// Packets in which each must be caught
    #[arg(long, default_value_t = 400_000)]
    packets: u64,

    /// Where the random worlds begin
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Say which there are, and do nothing
    #[arg(long)]
    list: bool,
}

/// The variable by which a mutant is chosen; 0 is none.
const CHOICE: &str = "BULKHEAD_MUTANT";
/// Scenarios that the check keeps: bugs that it has found, and what random worlds have too rarely.
const SCENARIOS: &str = "threeway/testdata";
/// Name of the check that has mutants in it.
const BIN: &str = "threeway-mutants";

/// How it ended with one of them.
#[derive(Debug)]
enum End {
    /// Noticed: after how many packets or in which scenario, and who stood alone.
    Caught(String, String),
    /// Not noticed.
    Survived,
}

/// `cargo xtask mutants`.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let chosen: Vec<(usize, &Mutant)> = (1..)
        .zip(MUTANTS)
        .filter(|(_, mutant)| options.only.as_ref().is_none_or(|text| mutant.name.contains(text.as_str())))
        .collect();
    ensure!(!chosen.is_empty(), "no mutant's name holds that: --list shows them");
    if options.list {
        chosen.iter().for_each(|(_, mutant)| println!("{:<28} {:<9} {}", mutant.name, mutant.part(), mutant.breaks));
        return Ok(());
    }
    setup::run(Purpose::Test)?;
    let root = Privilege::find()?;
    root.keep_alive();
    let check = build()?;
    if let End::Caught(_, who) = notice(&check, 0, options, root)? {
        bail!("without any mutant the sides differ: {who}");
    }
    println!("{:<28} {:<9} {:>9}  {:>6}  who stood alone", "mutant", "in", "packets", "time");
    let mut survivors = Vec::new();
    for (number, mutant) in &chosen {
        let began = Instant::now();
        let (packets, who) = match notice(&check, *number, options, root)? {
            End::Caught(packets, who) => (packets, who),
            End::Survived => {
                survivors.push(format!("{} ({})", mutant.name, mutant.breaks));
                ("survived".to_owned(), String::new())
            }
        };
        let took = began.elapsed().as_secs_f64();
        println!("{:<28} {:<9} {packets:>9}  {took:>5.1}s  {who}", mutant.name, mutant.part());
    }
    println!("{} of {} caught", chosen.len() - survivors.len(), chosen.len());
    ensure!(survivors.is_empty(), "the three-way check does not notice: {}", survivors.join("; "));
    Ok(())
}

/// Runs the check with one mutant: random worlds, then what is too rare in those.
fn notice(check: &Path, number: usize, options: &Options, root: Privilege) -> anyhow::Result<End> {
    let worlds = ["--packets", &options.packets.to_string(), "--seed", &options.seed.to_string()].map(OsString::from);
    if let caught @ End::Caught(..) = play(check, number, &worlds, root)? {
        return Ok(caught);
    }
    let folder = repo::root().join(SCENARIOS);
    let files = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files = files.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    files.sort();
    for file in files {
        if let End::Caught(_, who) = play(check, number, &["--file".into(), file.clone().into()], root)? {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(End::Caught("scenario".to_owned(), format!("{who} ({name})")));
        }
    }
    Ok(End::Survived)
}

/// Runs the check once.
fn play(check: &Path, number: usize, arguments: &[OsString], root: Privilege) -> anyhow::Result<End> {
    let mut command = root.command("env");
    command.arg(format!("{CHOICE}={number}")).arg(check).args(arguments);
    // Nobody reads the scenario: it need not be small.
    command.args(["--patience", "0"]).stdin(Stdio::null());
    let shown = run::show(&command);
    let output = command.output().with_context(|| format!("starting `{shown}`"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) => Ok(End::Survived),
        Some(1) => {
            let packets = text.lines().find_map(|line| line.strip_prefix("the sides differ")).and_then(packets);
            let who = text.lines().find_map(who).unwrap_or("nobody knows who").to_owned();
            Ok(End::Caught(packets.unwrap_or(0).to_string(), who))
        }
        _ => bail!("`{shown}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim()),
    }
}

/// ` in world 3 of seed 1, step 30, after 750 packets (...`
fn packets(line: &str) -> Option<u64> {
    let (_, after) = line.split_once(", after ")?;
    after.split(' ').next()?.parse().ok()
}

/// The sentence about who stands alone, without what it goes on to say.
fn who(line: &str) -> Option<&str> {
    ["stands alone", "stand alone", "all three say", "the verdicts agree", "the check could not"]
        .iter()
        .any(|words| line.contains(words))
        .then(|| line.split([':', ';']).next().unwrap_or(line))
}

/// Builds programs and check out of a copy of the tree that has all mutants in it.
fn build() -> anyhow::Result<PathBuf> {
    let base = repo::target_dir().join("mutants");
    let tree = base.join("tree");
    write_tree(&tree)?;
    let object = programs::ebpf_of(&tree, &base.join("ebpf"))?;
    println!("building the check with {} mutants", MUTANTS.len());
    let mut cargo = run::cargo();
    cargo.current_dir(&tree);
    // A folder of its own: what two trees have in common would be built again whenever the other one is.
    let target = base.join("check");
    cargo.env("CARGO_TARGET_DIR", &target).env("BULKHEAD_EBPF_OBJECT", object);
    run::go(cargo.args(["build", "--package", "threeway", "--bin", BIN]))?;
    Ok(target.join("debug").join(BIN))
}

/// Writes the copy; leaves alone what is there already, so that it need not be built again.
fn write_tree(tree: &Path) -> anyhow::Result<()> {
    let root = repo::root();
    let mut git = Command::new("git");
    git.current_dir(&root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let files = run::capture(&mut git).context("listing the files of the tree")?;
    let mut kept = BTreeSet::new();
    for name in files.split('\0').filter(|name| !name.is_empty()) {
        let from = root.join(name);
        // A file that was removed and not yet committed.
        let Ok(content) = fs::read(&from) else { continue };
        let content = match String::from_utf8(content) {
            Ok(text) => broken(name, text)?.into_bytes(),
            Err(bytes) => bytes.into_bytes(),
        };
        write(&tree.join(name), &content)?;
        let mode = fs::metadata(&from)?.permissions();
        fs::set_permissions(tree.join(name), mode)?;
        kept.insert(name.to_owned());
    }
    for (name, content) in SUPPORT {
        write(&tree.join(name), content.as_bytes())?;
        kept.insert((*name).to_owned());
    }
    drop_others(tree, tree, &kept)
}

fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|found| found == content) {
        return Ok(());
    }
    let folder = path.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder).and_then(|()| fs::write(path, content)).with_context(|| path.display().to_string())
}

/// Removes what an older tree had.
fn drop_others(folder: &Path, tree: &Path, kept: &BTreeSet<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(tree)?.to_string_lossy().into_owned();
        if path.is_dir() {
            drop_others(&path, tree, kept)?;
        } else if !kept.contains(&name) && name != "Cargo.lock" {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// A file with its mutants in it.
fn broken(name: &str, mut text: String) -> anyhow::Result<String> {
    for (number, mutant) in (1..).zip(MUTANTS).filter(|(_, mutant)| mutant.file == name) {
        let chosen = format!("{}::mutant::on({number})", mutant.home());
        text = replaced(&text, mutant.find, &mutant.replace.replace("{m}", &chosen))
            .with_context(|| format!("mutant {} in {name}", mutant.name))?;
    }
    for (_, find, replace) in list::HOOKS.iter().filter(|(file, ..)| *file == name) {
        text = replaced(&text, find, replace).with_context(|| format!("what all mutants need, in {name}"))?;
    }
    Ok(text)
}

/// The text with one place replaced, which must be there once.
fn replaced(text: &str, find: &str, replace: &str) -> anyhow::Result<String> {
    let times = text.matches(find).count();
    ensure!(times == 1, "this is there {times} times, not once:\n{find}");
    Ok(text.replacen(find, replace, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes a line that a mutant breaks finds out here, not in an hour.
    #[test]
    fn every_mutant_finds_its_place() {
        let files: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.file).collect();
        let hooks = list::HOOKS.iter().map(|(file, ..)| *file);
        for name in files.into_iter().chain(hooks) {
            let text = fs::read_to_string(repo::root().join(name)).unwrap();
            if let Err(error) = broken(name, text) {
                panic!("{error:#}");
            }
        }
    }

    #[test]
    fn names_are_different_and_each_changes_something() {
        let names: BTreeSet<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        assert_eq!(names.len(), MUTANTS.len());
        assert!(MUTANTS.iter().all(|mutant| mutant.replace.contains("{m}") && mutant.find != mutant.replace));
        for part in ["compile", "lower", "decide", "conntrack", "planner"] {
            assert!(MUTANTS.iter().any(|mutant| mutant.part() == part), "{part}");
        }
    }

    #[test]
    fn what_the_check_says_is_understood() {
        let line = " in world 3 of seed 1, step 30, after 750 packets (50 % passed) in 3 worlds";
        assert_eq!(packets(line), Some(750));
        let line = "the kernel stands alone: the API's text and the rules on paper agree against it";
        assert_eq!(who(line), Some("the kernel stands alone"));
        assert_eq!(who("send TCP"), None);
    }
}
