//! The list of kernels, tests/kernels.toml. Only as much of TOML is understood as that file needs: comments, tables
//! `[[kernel]]` and texts in double quotes without escapes.

use std::fs;

use anyhow::{Context as _, bail, ensure};

use crate::repo;

/// Where the list is.
const LIST: &str = "tests/kernels.toml";

/// One kernel.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Kernel {
    /// What it is called.
    pub(super) name: String,
    /// The package that brings it; `*` is any text.
    pub(super) package: String,
    /// How programs are attached there.
    pub(super) attach: String,
    /// What not every kernel has and this one does, words between spaces.
    pub(super) has: String,
    /// Modules that the tests want.
    pub(super) modules: Vec<String>,
}

/// Reads the list.
pub(super) fn read() -> anyhow::Result<Vec<Kernel>> {
    let path = repo::root().join(LIST);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text)
}

fn parse(text: &str) -> anyhow::Result<Vec<Kernel>> {
    let mut kernels: Vec<Kernel> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let place = || format!("{LIST} line {}: {line:?}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "[[kernel]]" {
            kernels.push(Kernel::default());
            continue;
        }
        let (key, value) = line.split_once(" = ").with_context(|| format!("{} is neither key nor table", place()))?;
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let value = value.with_context(|| format!("{}: the value is no text in double quotes", place()))?;
        let kernel = kernels.last_mut().with_context(|| format!("{} is before the first [[kernel]]", place()))?;
        match key {
            "name" => kernel.name = value.to_owned(),
            "package" => kernel.package = value.to_owned(),
            "attach" => kernel.attach = value.to_owned(),
            "has" => kernel.has = value.to_owned(),
            "modules" => kernel.modules = value.split_whitespace().map(str::to_owned).collect(),
            _ => bail!("{}: no such key", place()),
        }
    }
    for kernel in &kernels {
        let complete = ![&kernel.name, &kernel.package, &kernel.attach].iter().any(|it| it.is_empty());
        ensure!(complete, "{LIST}: kernel {:?} lacks its name, package or attach", kernel.name);
    }
    Ok(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_in_the_repository_is_read() {
        let kernels = read().unwrap();
        let found: Vec<(&str, &str)> = kernels.iter().map(|it| (it.name.as_str(), it.attach.as_str())).collect();
        assert_eq!(found, [("6.1", "clsact"), ("6.12", "tcx")]);
        assert!(kernels.iter().all(|kernel| kernel.modules.contains(&"veth".to_owned())));
        let has: Vec<&str> = kernels.iter().map(|it| it.has.as_str()).collect();
        assert_eq!(has, ["geneve sctp", "geneve netkit sctp"]);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        for (text, wanted) in [
            ("name = \"6.1\"", "before the first"),
            ("[[kernel]]\nnmae = \"6.1\"", "no such key"),
            ("[[kernel]]\nname = 6.1", "double quotes"),
            ("[[kernel]]\nname = \"6.1\"", "lacks"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }
}
