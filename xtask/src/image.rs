//! `cargo xtask image`: the container image, as an archive that needs no registry. Everything in it is linked
//! statically, so that it needs no distribution below it; the same binaries make the same bytes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use image::{Image, Layer};

use crate::{
    programs, repo,
    setup::{self, Purpose},
};

/// Options of `cargo xtask image`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Name and tag of the image [default: localhost/bulkhead:VERSION]
    #[arg(long, value_name = "NAME:TAG")]
    name: Option<String>,
    /// Where to put the archive [default: target/image/bulkhead.tar]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Not optimised: sooner built, slower to run. For tests
    #[arg(long)]
    debug: bool,
}

impl Options {
    /// The one that is measured.
    pub(crate) fn release() -> Self {
        Self { debug: false, ..Self::debug() }
    }

    /// The one that tests install.
    pub(crate) fn debug() -> Self {
        Self { name: None, output: None, debug: true }
    }
}

/// The programs in it. The plugin lies beside the daemon, which installs it on the node.
const PROGRAMS: [&str; 3] = ["bulkhead-daemon", "bulkhead-cni", "bulkhead"];
/// Where they are.
const FOLDER: &str = "bin";

/// Where it is put unless somebody says otherwise.
pub(crate) fn archive() -> PathBuf {
    folder().join("bulkhead.tar")
}

fn folder() -> PathBuf {
    repo::target_dir().join("image")
}

/// Builds the programs and the archive.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::run(Purpose::Build)?;
    build(options)
}

/// As [`run`], on a machine that is set up.
pub(crate) fn build(options: &Options) -> anyhow::Result<()> {
    programs::ebpf()?;
    let built = programs::portable(!options.debug)?;
    let files = copy(&built, &folder().join("rootfs"))?;
    let mut layer = Layer::default();
    layer.folder("run", 0o755)?;
    layer.folder("tmp", 0o1777)?;
    layer.folder(FOLDER, 0o755)?;
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let content = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        layer.file(&format!("{FOLDER}/{name}"), &content, 0o755)?;
    }
    let version = env!("CARGO_PKG_VERSION");
    let image = Image {
        name: options.name.clone().unwrap_or_else(|| format!("localhost/bulkhead:{version}")),
        entry_point: vec![format!("/{FOLDER}/bulkhead-daemon")],
        path: format!("/{FOLDER}"),
        labels: labels(version),
    };
    let archive = options.output.clone().unwrap_or_else(archive);
    // Whoever reads it meanwhile has the old one or the new one.
    let unfinished = archive.with_extension("new");
    let file = File::create(&unfinished).with_context(|| format!("making {}", unfinished.display()))?;
    image.write(layer, BufWriter::new(file))?;
    let size = fs::metadata(&unfinished)?.len();
    fs::rename(&unfinished, &archive).with_context(|| format!("making {}", archive.display()))?;
    println!("image {}: {} ({} MiB)", image.name, archive.display(), size >> 20);
    Ok(())
}

/// Puts the programs where the Containerfile takes them from.
fn copy(built: &Path, rootfs: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = rootfs.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    PROGRAMS
        .iter()
        .map(|name| {
            let to = folder.join(name);
            fs::copy(built.join(name), &to).with_context(|| format!("copying {name} from {}", built.display()))?;
            Ok(to)
        })
        .collect()
}

/// Keys of the OCI image specification, annotations.md.
fn labels(version: &str) -> BTreeMap<String, String> {
    let key = |name| format!("org.opencontainers.image.{name}");
    let mut labels = BTreeMap::from([
        (key("title"), "Bulkhead".to_owned()),
        (key("description"), "Kubernetes network plugin: policy by pod identity in eBPF, flow logs".to_owned()),
        (key("licenses"), env!("CARGO_PKG_LICENSE").to_owned()),
        (key("version"), version.to_owned()),
    ]);
    if let Some(commit) = repo::commit() {
        labels.insert(key("revision"), commit);
    }
    labels
}
