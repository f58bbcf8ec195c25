//! A container image made here, for there is no registry to ask: an OCI image layout in a tar
//! archive, with one layer that holds a static busybox and programs like it.
//!
//! Formats: OCI image specification 1.0, image-layout.md, manifest.md, config.md.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Name under which a runtime knows the one of [`write()`].
pub const NAME: &str = "localhost/bulkhead-test:latest";

/// What a container does that is not told what to do: nothing. So it serves as a sandbox, too.
const ENTRY_POINT: [&str; 3] = ["/bin/busybox", "sleep", "2147483647"];

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

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
        let layer = self.layer().context("the image's layer")?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entry_point, "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut named = descriptor(MANIFEST, &manifest);
        named["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]});

        let mut tar = tar::Builder::new(BufWriter::new(File::create(archive)?));
        file(&mut tar, "oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes(), 0o644)?;
        file(&mut tar, "index.json", index.to_string().as_bytes(), 0o644)?;
        for blob in [&manifest, &config, &layer] {
            let digest = digest(blob);
            let name = digest.strip_prefix("sha256:").unwrap_or(&digest);
            file(&mut tar, &format!("blobs/sha256/{name}"), blob, 0o644)?;
        }
        tar.into_inner()?.flush().with_context(|| format!("writing {}", archive.display()))
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        file(&mut tar, "bin/busybox", &find_busybox()?, 0o755)?;
        for applet in ["cat", "ip", "nc", "nslookup", "ping", "ps", "sh", "sleep", "wget"] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
        }
        for (place, program) in self.programs {
            let content = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
            file(&mut tar, place, &content, 0o755)?;
        }
        Ok(tar.into_inner()?)
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

fn file(tar: &mut tar::Builder<impl Write>, path: &str, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content)
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// This machine's, in Go's words (config.md: GOARCH).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_one_that_everybody_knows() {
        // FIPS 180-4, the empty message.
        assert_eq!(digest(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
