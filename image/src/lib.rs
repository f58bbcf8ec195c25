//! Container images as archives, made without a registry and without a runtime: an OCI image layout in a tar
//! archive, which `ctr images import`, `kind load image-archive`, `docker load` and `podman load` read.
//!
//! The same contents make the same bytes: no clock is read, nobody's user id gets in, files keep the order in which
//! they were added.
//!
//! Formats: OCI image specification 1.1, image-layout.md, manifest.md, config.md, layer.md; `manifest.json` for
//! Docker before version 25, as `docker save` writes it.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Write},
};

use anyhow::{Context as _, ensure};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Files of an image.
pub struct Layer(tar::Builder<Vec<u8>>);

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layer({} bytes)", self.0.get_ref().len())
    }
}

impl Default for Layer {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Layer {
    /// Adds a file of root's. `path` has no slash at its start.
    ///
    /// # Errors
    /// The path is longer than an archive holds (255 bytes).
    pub fn file(&mut self, path: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
        put(&mut self.0, path, content, mode).with_context(|| format!("adding {path}"))
    }

    /// Adds a folder of root's, for those that nothing is in.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn folder(&mut self, path: &str, mode: u32) -> anyhow::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        self.0.append_data(&mut header, path, io::empty()).with_context(|| format!("adding {path}"))
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn link(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).with_context(|| format!("adding {path}"))
    }
}

/// What an image is, besides its files.
#[derive(Clone, Debug)]
pub struct Image {
    /// Name and tag under which a runtime knows it, in full: `localhost/bulkhead:1.2.3`.
    pub name: String,
    /// What a container runs that is not told otherwise.
    pub entry_point: Vec<String>,
    /// Where its programs are looked for.
    pub path: String,
    /// For people and scanners: the keys of the OCI specification's annotations.md.
    pub labels: BTreeMap<String, String>,
}

impl Image {
    /// Writes the archive.
    ///
    /// # Errors
    /// The name has no tag, or nothing can be written.
    pub fn write(&self, layer: Layer, archive: impl Write) -> anyhow::Result<()> {
        let Some((_, tag)) = self.name.rsplit_once(':').filter(|(_, tag)| !tag.is_empty() && !tag.contains('/')) else {
            anyhow::bail!("image name {:?}: say its tag as well, as in localhost/bulkhead:1.2.3", self.name);
        };
        ensure!(
            self.name.contains('/'),
            "image name {:?}: say where it is from, as in localhost/{}",
            self.name,
            self.name
        );
        let files = layer.0.into_inner().context("ending the layer")?;
        let mut layer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
        layer.write_all(&files)?;
        let layer = layer.finish()?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entry_point, "Env": [format!("PATH={}", self.path)], "Labels": self.labels},
            "rootfs": {"type": "layers", "diff_ids": [digest(&files)]},
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
        named["annotations"] = json!({
            "io.containerd.image.name": self.name,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]});
        let for_docker = json!([{"Config": blob(&config), "RepoTags": [self.name], "Layers": [blob(&layer)]}]);

        let mut tar = tar::Builder::new(archive);
        put(&mut tar, "oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes(), 0o644)?;
        put(&mut tar, "index.json", index.to_string().as_bytes(), 0o644)?;
        put(&mut tar, "manifest.json", for_docker.to_string().as_bytes(), 0o644)?;
        for content in [&manifest, &config, &layer] {
            put(&mut tar, &blob(content), content, 0o644)?;
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }
}

fn put(tar: &mut tar::Builder<impl Write>, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content)
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

/// Where a content is in the archive.
fn blob(content: &[u8]) -> String {
    format!("blobs/sha256/{}", digest_hex(content))
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", digest_hex(content))
}

fn digest_hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
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
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn image(name: &str) -> Image {
        Image {
            name: name.into(),
            entry_point: vec!["/bin/a".into()],
            path: "/bin".into(),
            labels: BTreeMap::from([("org.opencontainers.image.version".into(), "1".into())]),
        }
    }

    fn layer() -> Layer {
        let mut layer = Layer::default();
        layer.file("bin/a", b"program", 0o755).unwrap();
        layer.link("bin/b", "a").unwrap();
        layer.folder("run", 0o755).unwrap();
        layer
    }

    fn written() -> Vec<u8> {
        let mut archive = Vec::new();
        image("localhost/test:1").write(layer(), &mut archive).unwrap();
        archive
    }

    fn entries(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        tar::Archive::new(archive)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), content)
            })
            .collect()
    }

    #[test]
    fn from_the_index_everything_is_found_under_its_digest() {
        let entries = entries(&written());
        let read = |name: &str| -> Value { serde_json::from_slice(&entries[name]).unwrap() };
        let follow = |descriptor: &Value| -> Vec<u8> {
            let (_, hex) = descriptor["digest"].as_str().unwrap().split_once(':').unwrap();
            let content = entries[&format!("blobs/sha256/{hex}")].clone();
            assert_eq!(digest_hex(&content), hex);
            assert_eq!(descriptor["size"], content.len());
            content
        };
        let index = read("index.json");
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "localhost/test:1");
        let manifest: Value = serde_json::from_slice(&follow(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&follow(&manifest["config"])).unwrap();
        let mut files = Vec::new();
        GzDecoder::new(&*follow(&manifest["layers"][0])).read_to_end(&mut files).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&files));
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/a"]));
        let inside = self::entries(&files);
        assert_eq!(inside.keys().collect::<Vec<_>>(), ["bin/a", "bin/b", "run"]);
        assert_eq!(inside["bin/a"], b"program");
        let for_docker = read("manifest.json");
        assert!(entries.contains_key(for_docker[0]["Layers"][0].as_str().unwrap()));
        assert_eq!(for_docker[0]["RepoTags"], json!(["localhost/test:1"]));
    }

    #[test]
    fn the_same_contents_make_the_same_bytes() {
        assert_eq!(written(), written());
    }

    #[test]
    fn a_name_without_a_tag_or_a_place_is_refused() {
        for name in ["localhost/test", "localhost:5000/test", "localhost/test:", "test:1"] {
            let error = image(name).write(layer(), &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("as in localhost/"), "{error}");
        }
    }

    #[test]
    fn a_digest_is_the_one_that_everybody_knows() {
        // FIPS 180-4, the empty message.
        assert_eq!(digest(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
