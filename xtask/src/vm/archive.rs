//! An initial file system for the kernel: a cpio archive of the "new" format without checksums
//! (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel's source).

use std::{collections::BTreeSet, io::Write};

use anyhow::Context as _;

/// An archive that is being written. Folders are made as files need them.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    written: u64,
    number: u32,
    folders: BTreeSet<String>,
}

/// Type bits of a mode (inode(7)).
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

impl<W: Write> Archive<W> {
    /// An empty one.
    pub(super) fn new(out: W) -> Self {
        Self { out, written: 0, number: 0, folders: BTreeSet::new() }
    }

    /// Adds a folder, with those that it is in.
    pub(super) fn folder(&mut self, path: &str) -> anyhow::Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || self.folders.contains(path) {
            return Ok(());
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        self.folders.insert(path.to_owned());
        self.entry(path, FOLDER | 0o755, &[])
    }

    /// Adds a file that everybody may read and run.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = path.trim_start_matches('/');
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        self.entry(path, FILE | 0o755, content)
    }

    /// Ends it.
    pub(super) fn finish(mut self) -> anyhow::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        self.number += 1;
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is larger than 4 GiB"))?;
        let links = if mode & FOLDER != 0 { 2 } else { 1 };
        // Inode, mode, user, group, links, time, size, device, device of a device file, length of the name, checksum.
        let length = name.len() as u32 + 1;
        let fields = [self.number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, length, 0];
        let mut header = String::from("070701");
        for field in fields {
            header += &format!("{field:08x}");
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> anyhow::Result<()> {
        let missing = (4 - self.written % 4) % 4;
        self.put(&[0; 3][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_format_wants_it() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b", b"12345").unwrap();
        archive.file("a/c", b"").unwrap();
        let bytes = archive.finish().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let names: Vec<&str> =
            ["a\0", "a/b\0", "a/c\0", "TRAILER!!!\0"].into_iter().filter(|it| text.contains(it)).collect();
        assert_eq!(names.len(), 4);
        assert_eq!(text.matches("070701").count(), 4, "the folder once");
        assert_eq!(bytes.len() % 4, 0);
        // Header (110 bytes) and name, padded, then the content, padded.
        assert_eq!(&bytes[112..112 + 6], b"070701");
        let content = 112 + 116;
        assert_eq!(&bytes[content..content + 8], b"12345\0\0\0");
        assert_eq!(&bytes[112 + 54..112 + 62], b"00000005", "the size");
    }
}
