//! Container images for tests, made here, for there is no registry to ask: a static busybox, and programs like it.

use std::{collections::BTreeMap, fs, io::BufWriter, path::Path};

use anyhow::Context as _;
use image::Layer;

/// Name under which a runtime knows the one of [`write()`].
pub const NAME: &str = "localhost/bulkhead-test:latest";

/// What a container does that is not told what to do: nothing. So it serves as a sandbox, too.
const ENTRY_POINT: [&str; 3] = ["/bin/busybox", "sleep", "2147483647"];

/// What is in an image: a busybox, and programs that need no library.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Name under which a runtime knows it.
    pub name: &'a str,
    /// What a container runs.
    pub entry_point: &'a [&'a str],
    /// Programs: their place in the image without the first slash, and where they are now.
    pub programs: &'a [(&'a str, &'a Path)],
}

/// Writes the archive of an image with nothing but busybox, for `ctr images import`.
///
/// # Errors
/// There is no static busybox.
pub fn write(archive: &Path) -> anyhow::Result<()> {
    Image { name: NAME, entry_point: &ENTRY_POINT, programs: &[] }.write(archive)
}

impl Image<'_> {
    /// Writes the archive, for `ctr images import`.
    ///
    /// # Errors
    /// There is no static busybox, or not one of the programs.
    pub fn write(&self, archive: &Path) -> anyhow::Result<()> {
        let image = image::Image {
            name: self.name.to_owned(),
            entry_point: self.entry_point.iter().map(ToString::to_string).collect(),
            path: "/bin".to_owned(),
            labels: BTreeMap::new(),
        };
        let file = fs::File::create(archive).with_context(|| format!("making {}", archive.display()))?;
        image.write(self.layer()?, BufWriter::new(file)).with_context(|| format!("writing {}", archive.display()))
    }

    fn layer(&self) -> anyhow::Result<Layer> {
        let mut layer = Layer::default();
        layer.file("bin/busybox", &find_busybox()?, 0o755)?;
        for applet in ["cat", "ip", "nc", "nslookup", "ping", "ps", "sh", "sleep", "wget"] {
            layer.link(&format!("bin/{applet}"), "busybox")?;
        }
        for (place, program) in self.programs {
            let content = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
            layer.file(place, &content, 0o755)?;
        }
        Ok(layer)
    }
}

/// A busybox that needs no library.
fn find_busybox() -> anyhow::Result<Vec<u8>> {
    for path in ["/bin/busybox", "/usr/bin/busybox"] {
        let Ok(bytes) = fs::read(path) else { continue };
        // A dynamic program names the interpreter that loads it (elf(5), PT_INTERP).
        if !bytes.windows(8).any(|window| window == b"/ld-linu" || window == b"/ld-musl") {
            return Ok(bytes);
        }
    }
    anyhow::bail!(
        "no static busybox at /bin/busybox: install the package busybox-static (`cargo xtask setup --for test`)"
    )
}
