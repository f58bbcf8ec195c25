//! Scenarios that have shown a bug once, or would show one that random worlds find too rarely, each with a sentence
//! at its beginning. `cargo xtask differential` prints new ones in this form.

use std::{fs, path::Path};

use anyhow::{Context as _, anyhow, ensure};
use tests::trial::trial;
use threeway::{node::Node, play::play, text};

#[test]
fn what_differed_once_does_not_again() {
    trial(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
        let mut node = Node::new()?;
        let mut played = 0;
        for entry in fs::read_dir(&folder).context("testdata")? {
            let path = entry?.path();
            let text = fs::read_to_string(&path)?;
            ensure!(text.starts_with("# "), "{}: begins with a sentence about the bug", path.display());
            let scenario = text::parse(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
            ensure!(scenario.packets() > 0, "{}: sends nothing", path.display());
            play(&mut node, &scenario).map_err(|it| anyhow!("{}: {}\n{}", path.display(), it.alone, it.text))?;
            played += 1;
        }
        ensure!(played > 0, "there is at least one");
        Ok(())
    });
}
