//! The chart, and what it is made into for those who do without Helm: manifests/*.yaml.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// The files, and the values that each is made with.
pub const FILES: [(&str, &[&str]); 2] = [("bulkhead.yaml", &[]), ("bulkhead-uninstall.yaml", &["uninstall=true"])];
/// What people apply lies in this namespace.
const NAMESPACE: &str = "kube-system";

/// Folder of the manifests.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// A file as it should be, made by Helm; `programs` has it.
///
/// # Errors
/// Helm refuses the chart or a value, in its words.
pub fn file(programs: &Path, values: &[&str]) -> anyhow::Result<String> {
    let made = render(programs, values)?;
    let with: String = values.iter().map(|value| format!(" --set {value}")).collect();
    Ok(format!(
        "# Made from the chart manifests/helm/bulkhead{with} by `cargo xtask cluster chart`: change that, not this.\n{made}"
    ))
}

/// The chart with values set, as `helm template` prints it.
///
/// # Errors
/// As [`file`].
pub fn render(programs: &Path, values: &[&str]) -> anyhow::Result<String> {
    let chart = folder().join("helm/bulkhead");
    let mut command = Command::new(programs.join("helm"));
    command.arg("template").arg("bulkhead").arg(chart).args(["--namespace", NAMESPACE]);
    for value in values {
        command.args(["--set", value]);
    }
    let home = tempfile::tempdir()?;
    // Nothing of the user's own Helm has a say.
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, home.path());
    }
    let output = command.output().context("starting helm")?;
    ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).context("helm printed no text")
}

/// Writes the files anew.
///
/// # Errors
/// As [`file`], or they cannot be written.
pub fn write(programs: &Path) -> anyhow::Result<()> {
    for (name, values) in FILES {
        let path = folder().join(name);
        fs::write(&path, file(programs, values)?).with_context(|| format!("writing {}", path.display()))?;
        println!("manifests/{name}");
    }
    Ok(())
}
