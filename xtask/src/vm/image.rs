//! The root of a machine in which tests run: the test programs without debug information, the product's binaries,
//! the programs of this system that they call, the libraries of all these, and the modules of the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use cargo_metadata::Message;

use super::{Job, archive::Archive, kernels::Kernel, modules::Module};
use crate::{programs, repo, run};

/// Programs of this system that tests and the product call.
const CALLED: [&str; 11] =
    ["ip", "nft", "mount", "umount", "busybox", "ping", "tc", "cat", "mkfifo", "sleep", "sysctl"];
/// Those that most tests do without.
const OPTIONAL: [&str; 7] = ["busybox", "ping", "tc", "cat", "mkfifo", "sleep", "sysctl"];
/// What tests read at the place where they were compiled.
const DATA: [&str; 3] = ["docs", "policy/testdata/e2e", "tests/kernels.toml"];
/// Jobs that are no tests: binaries of the package `tests`, and the three-way check.
const BINARIES: [&str; 2] = ["verifier", THREEWAY];
const THREEWAY: &str = "threeway";
/// Tests of the package `daemon`; all others are of `tests`.
const DAEMON: [&str; 1] = ["net"];
/// Where programs are in the machine.
const BIN: &str = "/usr/bin";
/// Where the product's are.
const PRODUCT: &str = "/opt/bulkhead";
/// Where the object file with the programs is.
pub(super) const OBJECT: &str = "/opt/bulkhead/object";

/// What cargo has built: file by name, for the tests and the binaries of the packages `tests` and `threeway`.
pub(super) type Built = BTreeMap<String, PathBuf>;

/// Which programs are built.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which<'a> {
    /// Those of these jobs.
    Of(&'a [Job]),
    /// All, as `cargo xtask test` builds them: nothing is compiled once more.
    All,
}

/// Builds programs of the packages `tests` and `threeway`.
pub(super) fn build_tests(which: Which<'_>) -> anyhow::Result<Built> {
    let mut cargo = run::cargo();
    cargo.args(["test", "--no-run", "--package", "tests"]);
    match which {
        Which::Of(jobs) => {
            // Binaries come with any test; a binary alone would be built with other features.
            cargo.args(["--test", "matrix"]);
            if jobs.iter().any(|job| job.program == THREEWAY) {
                cargo.args(["--package", THREEWAY, "--test", "finds"]);
            }
            if jobs.iter().any(|job| DAEMON.contains(&job.program.as_str())) {
                cargo.args(["--package", "daemon"]);
            }
            for job in jobs.iter().filter(|job| !BINARIES.contains(&job.program.as_str())) {
                cargo.args(["--test", &job.program]);
            }
        }
        Which::All => drop(cargo.args(["--package", "daemon", "--package", THREEWAY])),
    }
    cargo.args(["--message-format", "json-render-diagnostics"]).stdout(Stdio::piped());
    let shown = run::show(&cargo);
    let mut child = cargo.spawn().with_context(|| format!("starting `{shown}`"))?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let mut built = Built::new();
    for message in Message::parse_stream(std::io::BufReader::new(stdout)) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        let Some(executable) = artifact.executable else { continue };
        let is_program = artifact.target.is_bin() && !artifact.profile.test;
        // The tests inside of binaries and libraries, which have the same names, are nobody's concern here.
        if is_program || artifact.target.is_test() {
            built.insert(artifact.target.name, executable.into());
        }
    }
    ensure!(child.wait()?.success(), "`{shown}` failed");
    Ok(built)
}

/// What goes into the machine.
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) built: &'a Built,
    pub(super) modules: &'a [Module],
    pub(super) jobs: &'a [Job],
    /// How long each job may take, in seconds.
    pub(super) each: u64,
}

impl Image<'_> {
    /// Writes it.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let folder = path.parent().context("an image is in a folder")?;
        let mut archive = Archive::new(BufWriter::new(File::create(path)?));
        let mut libraries = BTreeSet::new();
        let mut put = |archive: &mut Archive<_>, file: &Path, place: &str| -> anyhow::Result<()> {
            libraries.extend(needs(file)?);
            archive.file(place, &stripped(file, folder)?)
        };
        put(&mut archive, self.file("guest")?, "/init")?;
        let mut names: BTreeSet<&str> = self.jobs.iter().map(|job| job.program.as_str()).collect();
        names.insert("talk");
        for name in names {
            put(&mut archive, self.file(name)?, &format!("/tests/{name}"))?;
        }
        for name in ["bulkhead-daemon", "bulkhead-cni", "bulkhead"] {
            put(&mut archive, &programs::bin_dir(false).join(name), &format!("{PRODUCT}/{name}"))?;
        }
        for name in CALLED {
            match run::find(name) {
                Some(file) => put(&mut archive, &file, &format!("{BIN}/{name}"))?,
                None => {
                    ensure!(OPTIONAL.contains(&name), "the program {name} is not there (`cargo xtask setup --for vm`)")
                }
            }
        }
        archive.file(
            OBJECT,
            &fs::read(repo::root().join("target/ebpf").join(repo::OBJECT_IN_TARGET)).context("the eBPF object")?,
        )?;
        for library in libraries {
            archive.file(&library, &fs::read(&library).with_context(|| format!("library {library}"))?)?;
        }
        for data in DATA {
            tree(&mut archive, &repo::root().join(data))?;
        }
        for (number, module) in self.modules.iter().enumerate() {
            archive.file(&module_path(number, module), &module.content)?;
        }
        for folder in ["/root", "/tmp", "/var/lib", "/etc"] {
            archive.folder(folder)?;
        }
        archive.folder(&repo::root().join("target").to_string_lossy())?;
        archive.file("/plan", self.plan().as_bytes())?;
        archive.finish()?;
        Ok(())
    }

    fn file(&self, name: &str) -> anyhow::Result<&Path> {
        self.built.get(name).map(PathBuf::as_path).with_context(|| {
            let known = self.built.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            format!("there are no tests {name:?}: choose of {known}")
        })
    }

    /// What the first process is to do, see tests/src/bin/guest.rs.
    fn plan(&self) -> String {
        let mut plan = String::new();
        for (number, module) in self.modules.iter().enumerate() {
            plan += &format!("module\t{}\n", module_path(number, module));
        }
        let root = repo::root().join("tests");
        for (name, value) in [
            ("PATH", BIN),
            ("HOME", "/root"),
            ("BULKHEAD_KERNEL_TESTS", "required"),
            ("BULKHEAD_BIN_DIR", PRODUCT),
            ("BULKHEAD_ATTACH", &self.kernel.attach),
            ("BULKHEAD_KERNEL_HAS", &self.kernel.has),
            ("BULKHEAD_EMULATED", "1"),
            ("CARGO_MANIFEST_DIR", &root.to_string_lossy()),
            ("RUST_BACKTRACE", "0"),
        ] {
            plan += &format!("env\t{name}={value}\n");
        }
        for job in self.jobs {
            plan += &format!("run\t{}\t/tests/{}", self.each, job.program);
            for argument in &job.arguments {
                plan += &format!("\t{argument}");
            }
            plan += "\n";
        }
        plan
    }
}

fn module_path(number: usize, module: &Module) -> String {
    format!("/modules/{number:02}-{}.ko", module.name)
}

fn tree<W: std::io::Write>(archive: &mut Archive<W>, path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            tree(archive, &entry?.path())?;
        }
        return Ok(());
    }
    archive.file(&path.to_string_lossy(), &fs::read(path).with_context(|| format!("{}", path.display()))?)
}

/// A program without what only a debugger reads, which is nine tenths of it.
fn stripped(file: &Path, folder: &Path) -> anyhow::Result<Vec<u8>> {
    let out = folder.join("stripped");
    run::capture(Command::new("strip").arg("--strip-debug").arg("-o").arg(&out).arg(file))?;
    let content = fs::read(&out)?;
    fs::remove_file(&out)?;
    Ok(content)
}

/// The libraries of a program, the loader among them.
fn needs(program: &Path) -> anyhow::Result<Vec<String>> {
    // A static program has none, of which ldd complains.
    let output = Command::new("ldd").arg(program).env("LC_ALL", "C").output().context("starting ldd")?;
    Ok(libraries(&String::from_utf8_lossy(&output.stdout)))
}

/// `libc.so.6 => /lib/libc.so.6 (0x..)`, `/lib64/ld.so (0x..)`.
fn libraries(ldd: &str) -> Vec<String> {
    let path = |line: &str| {
        let (before, _) = line.trim().rsplit_once(" (0x")?;
        let path = before.rsplit_once("=> ").map_or(before, |(_, path)| path);
        path.starts_with('/').then(|| path.to_owned())
    };
    ldd.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x7ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f12)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f34)\n";
        assert_eq!(libraries(text), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(libraries("\tnot a dynamic executable\n"), Vec::<String>::new());
    }
}
