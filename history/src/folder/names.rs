//! Names of the files: `flows-0000000042.log`, `flows-20260102T03Z-0000000042.parquet`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use flows::calendar::Stamp;

use crate::Error;

/// What there is of one number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct File {
    /// The log.
    pub log: Option<PathBuf>,
    /// The table, which holds all of the log if there are both.
    pub table: Option<PathBuf>,
}

pub(super) fn log(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("flows-{number:010}.log"))
}

pub(super) fn table(folder: &Path, number: u64, first_unix_ns: u64) -> PathBuf {
    let hour = Stamp::since_1970(Duration::from_nanos(first_unix_ns)).hour();
    folder.join(format!("flows-{hour}-{number:010}.parquet"))
}

fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let read = || {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
        names.collect::<io::Result<Vec<String>>>()
    };
    read().map_err(Error::disk(folder))
}

/// The files of a folder, by their number: in the order in which their records came.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> Result<BTreeMap<u64, File>, Error> {
    let mut all: BTreeMap<u64, File> = BTreeMap::new();
    for name in names(folder)? {
        let Some((stem, kind)) = name.strip_prefix("flows-").and_then(|name| name.rsplit_once('.')) else { continue };
        let number = stem.rsplit('-').next().filter(|number| number.len() >= 10).and_then(|it| it.parse().ok());
        match (number, kind) {
            (Some(number), "log") => all.entry(number).or_default().log = Some(folder.join(&name)),
            (Some(number), "parquet") => all.entry(number).or_default().table = Some(folder.join(&name)),
            _ => {}
        }
    }
    Ok(all)
}

/// What a crash has left of tables that were being written.
pub(super) fn half_done(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let ours = |name: &String| name.starts_with("flows-") && name.ends_with(".parquet.new");
    Ok(names(folder)?.into_iter().filter(ours).map(|name| folder.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_by_the_hour_of_its_first_record() {
        let name = |seconds: u64| table(Path::new(""), 42, seconds * 1_000_000_000).display().to_string();
        assert_eq!(name(0), "flows-19700101T00Z-0000000042.parquet");
        assert_eq!(name(1_767_323_045), "flows-20260102T03Z-0000000042.parquet");
        assert_eq!(name(1_709_251_199), "flows-20240229T23Z-0000000042.parquet");
        assert_eq!(name(4_102_444_800), "flows-21000101T00Z-0000000042.parquet");
    }
}
