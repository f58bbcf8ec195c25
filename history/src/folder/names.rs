//! Names of the files: `flows-0000000042.log`, `flows-20260102T03Z-0000000042.parquet`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

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
    let hours = first_unix_ns / super::HOUR_NS;
    let (year, month, day) = date(hours / 24);
    folder.join(format!("flows-{year:04}{month:02}{day:02}T{:02}Z-{number:010}.parquet", hours % 24))
}

/// Year, month and day of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn names(folder: &Path) -> Result<Vec<String>, Error> {
    let read = || {
        let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
        names.collect::<io::Result<Vec<String>>>()
    };
    read().map_err(Error::disk(folder))
}

/// The files of a folder, by their number.
pub(super) fn all(folder: &Path) -> Result<BTreeMap<u64, File>, Error> {
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

/// The files of a folder in the order in which their records came.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> Result<BTreeMap<u64, File>, Error> {
    all(folder)
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
