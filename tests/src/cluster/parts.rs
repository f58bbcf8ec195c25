//! The programs a cluster is made of, built from Go modules whose every byte go.sum names
//! (tests/cluster). They are kept outside of the repository, by a digest of what they are made from,
//! so that they are built once on a machine.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use sha2::{Digest as _, Sha256};

/// Kubernetes' version, as in tests/cluster/kubernetes/go.mod.
pub const KUBERNETES: &str = "v1.36.3";
/// containerd's, as in tests/cluster/containerd/go.mod.
const CONTAINERD: &str = "v2.3.7";
/// That of the clients of the flow API, as in tests/cluster/hubble/go.mod.
pub const HUBBLE: &str = "v1.19.4";
/// Name of the OpenTelemetry Collector among the programs; its version is in tests/cluster/collector/go.mod.
pub const COLLECTOR: &str = "collector";
/// The oldest Go that builds them.
const GO_FLOOR: (u32, u32) = (1, 26);

/// Names under which the one program is what they say.
const NAMES: [&str; 8] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubeadm",
    "kubectl",
    "kubelet",
];

/// What one call of `go build` makes.
struct Part {
    /// For people.
    name: &'static str,
    /// Folder of the module, below tests/cluster.
    module: &'static str,
    packages: &'static [&'static str],
    tags: &'static str,
    ldflags: String,
}

fn parts() -> Vec<Part> {
    let (major, minor) = KUBERNETES.trim_start_matches('v').split_once('.').unwrap_or_default();
    let minor = minor.split('.').next().unwrap_or_default();
    let kubernetes = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES} -X k8s.io/component-base/version.gitMajor={major} \
         -X k8s.io/component-base/version.gitMinor={minor} -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}"
    );
    let part = |name, module, packages, tags, ldflags: &str| Part {
        name,
        module,
        packages,
        tags,
        ldflags: ldflags.to_owned(),
    };
    vec![
        part("Kubernetes and etcd (about four minutes)", "kubernetes", &["."], "", &kubernetes),
        part("the test image's program", "kubernetes", &["k8s.io/kubernetes/test/images/agnhost"], "", &kubernetes),
        part(
            "containerd",
            "containerd",
            &[
                "github.com/containerd/containerd/v2/cmd/containerd",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/ctr",
            ],
            "no_btrfs,no_devmapper,no_zfs",
            &format!("-s -w -X github.com/containerd/containerd/v2/version.Version={CONTAINERD}"),
        ),
        part("CoreDNS", "coredns", &["."], "", "-s -w"),
        part("Helm", "helm", &["helm.sh/helm/v4/cmd/helm"], "", "-s -w"),
        part(
            "clients of the flow API",
            "hubble",
            &["github.com/cilium/cilium/hubble", "github.com/cilium/cilium/hubble-relay"],
            "",
            &format!("-s -w -X github.com/cilium/cilium/hubble/pkg.Version={HUBBLE}"),
        ),
        part("an OpenTelemetry Collector", COLLECTOR, &["."], "", "-s -w"),
    ]
}

/// A folder with all of them: those of [`NAMES`], `agnhost`, `containerd`, `containerd-shim-runc-v2`,
/// `ctr`, `coredns`, `helm`, `hubble`, `hubble-relay`, `collector`. Builds what is not there, and says so on standard error.
///
/// # Errors
/// There is no Go, or it could not build one.
pub fn folder() -> anyhow::Result<PathBuf> {
    let go = find_go()?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
    let cache = cache()?;
    let folder = cache.join(digest(&go, &sources)?);
    let done = folder.join("done");
    if done.exists() {
        return Ok(folder);
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    // Somebody else may be at it.
    let turn = File::create(folder.join("turn"))?;
    rustix::fs::flock(&turn, rustix::fs::FlockOperation::LockExclusive).context("waiting for a turn to build")?;
    if done.exists() {
        return Ok(folder);
    }
    for part in parts() {
        build(&go, &sources, &folder, &part)?;
    }
    for name in NAMES {
        let link = folder.join(name);
        if !link.exists() {
            symlink("kubernetes", &link)?;
        }
    }
    fs::write(&done, "")?;
    forget_others(&cache, &folder);
    Ok(folder)
}

fn build(go: &Path, sources: &Path, folder: &Path, part: &Part) -> anyhow::Result<()> {
    eprintln!("Building {} in {}", part.name, folder.display());
    let began = Instant::now();
    let mut command = Command::new(go);
    command.current_dir(sources.join(part.module));
    // With C it would all be compiled a second time; nobody needs it.
    command
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOTOOLCHAIN", "local")
        .env_remove("GOOS")
        .env_remove("GOARCH");
    command.args(["build", "-trimpath", "-buildvcs=false", "-tags", part.tags, "-ldflags", &part.ldflags, "-o"]);
    command.arg(format!("{}/", folder.display())).args(part.packages);
    let status = command.status().with_context(|| format!("starting {}", go.display()))?;
    ensure!(status.success(), "{} could not be built: `go build` ended with {status}", part.name);
    eprintln!("Built {} in {} s", part.name, began.elapsed().as_secs());
    Ok(())
}

/// Programs of earlier versions of the modules. One is of no use to anybody, and big.
fn forget_others(cache: &Path, ours: &Path) {
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let path = entry.path();
        if path == ours || !path.join("done").exists() {
            continue;
        }
        // One that runs keeps its files; whoever is about to start from there builds again.
        let _ = fs::remove_dir_all(path);
    }
}

/// Where programs are kept: `$BULKHEAD_CACHE`, else the user's folder for such things.
fn cache() -> anyhow::Result<PathBuf> {
    let folder = match (env::var_os("BULKHEAD_CACHE"), env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(folder), _, _) => PathBuf::from(folder),
        (None, Some(folder), _) => Path::new(&folder).join("bulkhead"),
        (None, None, Some(home)) => Path::new(&home).join(".cache/bulkhead"),
        (None, None, None) => bail!("no place to keep programs: set BULKHEAD_CACHE, or HOME"),
    };
    Ok(folder.join("cluster"))
}

/// What the programs are made from.
fn digest(go: &Path, sources: &Path) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    hash.update(go_version(go)?);
    for part in parts() {
        for word in [part.name, part.module, part.tags, &part.ldflags].iter().chain(part.packages) {
            hash.update(word.as_bytes());
            hash.update([0]);
        }
        for file in ["go.mod", "go.sum", "main.go"] {
            let path = sources.join(part.module).join(file);
            match fs::read(&path) {
                Ok(bytes) => hash.update(bytes),
                Err(_) if file == "main.go" => {}
                Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
            }
        }
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn go_version(go: &Path) -> anyhow::Result<String> {
    let output = Command::new(go)
        .env("GOTOOLCHAIN", "local")
        .arg("version")
        .output()
        .with_context(|| format!("starting {}", go.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A Go that is new enough: in `BULKHEAD_GO`, or in PATH.
fn find_go() -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/local/go/bin")]);
    let places = env::var_os("BULKHEAD_GO").map(PathBuf::from).into_iter().chain(folders.map(|it| it.join("go")));
    let fix = "`cargo xtask setup --for cluster` installs one";
    let mut old = None;
    for go in places.filter(|go| go.is_file()) {
        let version = go_version(&go)?;
        let number = version.split_whitespace().find_map(|word| word.strip_prefix("go1.")).unwrap_or_default();
        let minor: u32 = number.split('.').next().unwrap_or_default().parse().unwrap_or(0);
        if (1, minor) >= GO_FLOOR {
            return Ok(go);
        }
        old = Some(version);
    }
    let (major, minor) = GO_FLOOR;
    match old {
        Some(version) => bail!("{version} is too old: Kubernetes needs {major}.{minor}; {fix}"),
        None => bail!("there is no `go`, which builds Kubernetes: {fix}"),
    }
}
