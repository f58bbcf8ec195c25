//! Modules of a kernel: which files, in which order. A package has no list of dependencies (that is made when it is
//! installed), but each module names those it depends on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// A module, ready to be loaded.
#[derive(Clone, Debug)]
pub(super) struct Module {
    /// Its name.
    pub(super) name: String,
    /// Its file, not compressed.
    pub(super) content: Vec<u8>,
}

/// The modules named and all they depend on, in an order in which they can be loaded. Names that the kernel has built
/// in, or has not at all, are left out.
pub(super) fn ordered(folder: &Path, wanted: &[String]) -> anyhow::Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    collect(folder, &mut files)?;
    let mut done = BTreeSet::new();
    let mut ordered = Vec::new();
    for name in wanted {
        add(name, &files, &mut done, &mut ordered)?;
    }
    Ok(ordered)
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    done: &mut BTreeSet<String>,
    ordered: &mut Vec<Module>,
) -> anyhow::Result<()> {
    let name = name.replace('-', "_");
    let Some(path) = files.get(&name) else { return Ok(()) };
    if !done.insert(name.clone()) {
        return Ok(());
    }
    let content = read(path)?;
    for needed in depends(&content) {
        add(&needed, files, done, ordered)?;
    }
    ordered.push(Module { name, content });
    Ok(())
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, files)?;
        } else if let Some((name, _)) = path.file_name().and_then(|name| name.to_str()?.split_once(".ko")) {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let program = match path.extension().and_then(|it| it.to_str()) {
        Some("ko") => return Ok(fs::read(path)?),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => bail!("{}: compressed in a way that is not known here", path.display()),
    };
    let output = Command::new(program).args(["--decompress", "--stdout"]).arg(path).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    anyhow::ensure!(output.status.success(), "{program} cannot read {}", path.display());
    Ok(output.stdout)
}

/// What a module says it needs: a text `depends=a,b` among others of its section `.modinfo`.
fn depends(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = content.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = content[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_what_it_depends_on_and_once() {
        let folder = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        fs::create_dir_all(folder.join("net")).unwrap();
        fs::write(folder.join("net/sctp.ko"), b"\0license=GPL\0depends=libcrc32c,udp-tunnel\0").unwrap();
        fs::write(folder.join("net/udp_tunnel.ko"), b"x\0depends=libcrc32c\0").unwrap();
        fs::write(folder.join("libcrc32c.ko"), b"x\0depends=\0").unwrap();
        let wanted = ["sctp".to_owned(), "built_in".to_owned(), "libcrc32c".to_owned()];
        let names: Vec<String> = ordered(&folder, &wanted).unwrap().into_iter().map(|it| it.name).collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, ["libcrc32c", "udp_tunnel", "sctp"]);
    }
}
