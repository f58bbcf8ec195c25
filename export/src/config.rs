//! The settings file: a list of exporters, each with its receiver, its filters and its fields. Read as manifests are,
//! so that an error names exporter, field, line and fix; an exporter that is wrong costs no other one anything.
//! Bytes in, settings out: nothing here opens what it names.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf, time::Duration};

use flows::{aggregate, filter::FilterSet, ledger::HISTORY};
use objects::{Problem, settings};
use serde::Deserialize;

use crate::{file::Rotation, sender::BatchLimits, spool::Limits, syslog::Style, tls::Tls, wanted::Wanted};

mod filters;
mod receivers;

use filters::FilterSpec;
use receivers::{OtlpSpec, SpoolSpec, SyslogSpec};

/// The one field of the file.
const FIELD: &str = "exporters";
/// Longest name: it is a label of metrics and the name of a folder.
const LONGEST_NAME: usize = 63;
/// Exporters in one file.
const MOST_EXPORTERS: usize = 32;
const MIB: u64 = 1 << 20;

/// Everything that the file says.
#[derive(Debug, Default)]
pub struct Settings {
    /// The exporters that are in order, in the order of the file.
    pub exporters: Vec<Exporter>,
    /// What is wrong with the others, one line each, naming the exporter, and their names.
    pub refused: Vec<Refused>,
}

/// An exporter that cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What is wrong and what to write instead.
    pub text: String,
}

/// One exporter.
#[derive(Clone, Debug)]
pub struct Exporter {
    /// Name, unique in the file.
    pub name: String,
    /// As it was written, to see whether it has changed.
    spec: Spec,
    /// Which records.
    pub filters: FilterSet,
    /// Which parts of them.
    pub wanted: Wanted,
    /// How those are told together that say the same; `None`: each by itself.
    pub aggregation: Option<aggregate::Limits>,
    /// Where to.
    pub target: Target,
}

impl PartialEq for Exporter {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

/// Where records go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A file of OCSF events, one a line.
    File(FileTarget),
    /// Whoever takes OTLP logs over gRPC.
    Otlp(OtlpTarget, SpoolSettings),
    /// Whoever takes messages of RFC 5424.
    Syslog(SyslogTarget, SpoolSettings),
}

impl Target {
    /// Name for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Otlp(..) => "otlp",
            Self::Syslog(..) => "syslog",
        }
    }
}

/// A file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileTarget {
    /// Absolute.
    pub path: PathBuf,
    /// When a new one is begun.
    pub rotation: Rotation,
}

/// A receiver of OTLP logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtlpTarget {
    /// URL, `https://` or, asked for by name, `http://`.
    pub endpoint: String,
    /// With `https` only, and always then.
    pub tls: Option<Tls>,
    /// How long a connection or an answer may take.
    pub deadline: Duration,
    /// Metadata of each request.
    pub headers: BTreeMap<String, String>,
}

/// A receiver of syslog messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyslogTarget {
    /// `host:port`.
    pub address: String,
    /// Unless plain TCP was asked for by name.
    pub tls: Option<Tls>,
    /// How long a connection and a batch may take.
    pub deadline: Duration,
    /// What messages look like.
    pub style: Style,
}

/// How records wait for a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpoolSettings {
    /// Of the spool.
    pub limits: Limits,
    /// Of what is sent in one go.
    pub batch: BatchLimits,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename = "exporter", rename_all = "camelCase")]
struct Spec {
    name: String,
    #[serde(default)]
    include_filters: Vec<FilterSpec>,
    #[serde(default)]
    exclude_filters: Vec<FilterSpec>,
    #[serde(default)]
    field_mask: Vec<String>,
    aggregate: Option<AggregateSpec>,
    file: Option<FileSpec>,
    otlp: Option<OtlpSpec>,
    syslog: Option<SyslogSpec>,
    spool: Option<SpoolSpec>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename = "aggregate", rename_all = "camelCase")]
struct AggregateSpec {
    window_seconds: Option<u64>,
    max_groups: Option<u64>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename = "file", rename_all = "camelCase")]
struct FileSpec {
    path: String,
    #[serde(default)]
    format: FileFormat,
    max_mebibytes: Option<u64>,
    max_age_minutes: Option<u64>,
    keep: Option<u32>,
    #[serde(default)]
    compress: Compression,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FileFormat {
    #[default]
    Ocsf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Compression {
    #[default]
    None,
    Gzip,
}

/// What is wrong with a field, and what to do about it.
type Wrong = (&'static str, String, &'static str);

/// Reads the file.
///
/// # Errors
/// The file as a whole is not what it should be.
pub fn read(bytes: &[u8]) -> Result<Settings, Problem> {
    let elements = settings::read_list::<Spec>(bytes, FIELD)?;
    let mut settings = Settings::default();
    let (mut names, mut paths) = (BTreeMap::<String, usize>::new(), BTreeMap::<PathBuf, String>::new());
    for (index, element) in elements.into_iter().enumerate() {
        let place = format!("{} (line {})", element.path, element.line);
        let who = element.name.as_deref().map_or_else(|| place.clone(), |name| format!("exporter {name:?}"));
        let mut refuse = |text: String| {
            settings.refused.push(Refused { name: element.name.clone(), text: format!("{who}: {text}") })
        };
        let spec = match element.value {
            Ok(spec) => spec,
            Err(problems) => {
                problems.iter().for_each(|problem| refuse(problem.to_string()));
                continue;
            }
        };
        if index >= MOST_EXPORTERS {
            refuse(format!("{place}: more than {MOST_EXPORTERS} exporters; merge some of them"));
            continue;
        }
        if let Some(line) = names.insert(spec.name.clone(), element.line) {
            refuse(format!("{place}: the one on line {line} has the same name; choose another"));
            continue;
        }
        match spec.check() {
            Err((field, what, fix)) => refuse(format!("{}.{field}: {what}; {fix}", element.path)),
            Ok(exporter) => {
                if let Target::File(file) = &exporter.target {
                    if let Some(other) = paths.get(&file.path) {
                        let what = format!("exporter {other:?} writes to this file");
                        refuse(format!("{}.file.path: {what}; choose another", element.path));
                        continue;
                    }
                    paths.insert(file.path.clone(), exporter.name.clone());
                }
                settings.exporters.push(exporter);
            }
        }
    }
    Ok(settings)
}

impl Spec {
    fn check(self) -> Result<Exporter, Wrong> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let ends = [self.name.bytes().next(), self.name.bytes().last()];
        let is_name = self.name.len() <= LONGEST_NAME
            && self.name.bytes().all(|byte| plain(byte) || byte == b'-')
            && ends.into_iter().all(|end| end.is_some_and(plain));
        if !is_name {
            let what = format!("{:?} is no name", self.name);
            return Err(("name", what, "take up to 63 lower case letters, digits and dashes, such as `siem-1`"));
        }
        if self.name == HISTORY {
            let what = format!("{HISTORY:?} is the name of the flow history in statistics and metrics");
            return Err(("name", what, "take another, such as `siem-1`"));
        }
        let lists = [&self.include_filters, &self.exclude_filters]
            .map(|list| list.iter().map(FilterSpec::to_proto).collect::<Result<Vec<_>, _>>());
        let [include, exclude] = lists;
        let wrong_word = |what: String| ("includeFilters/excludeFilters", what, "take the name that the flow API has");
        let (include, exclude) = (include.map_err(wrong_word)?, exclude.map_err(wrong_word)?);
        let filters = FilterSet::compile(&include, &exclude).map_err(|error| {
            // The words of the API, in those of the file.
            let text =
                error.to_string().replacen("whitelist", "includeFilters", 1).replacen("blacklist", "excludeFilters", 1);
            ("filters", text, "correct it, or leave it out")
        })?;
        let wanted = Wanted::of(&self.field_mask).map_err(|error| {
            ("fieldMask", error.to_string(), "take paths of the flow API, such as `source.pod_name`")
        })?;
        let aggregation = self.aggregate.as_ref().map(AggregateSpec::check).transpose()?;
        let spool = match &self.spool {
            Some(spool) => spool.check()?,
            None => SpoolSpec::default().check()?,
        };
        let target = match (&self.file, &self.otlp, &self.syslog) {
            (Some(_), ..) if self.spool.is_some() => {
                return Err(("spool", "a file needs none".to_owned(), "leave it out"));
            }
            (Some(file), None, None) => Target::File(file.check()?),
            (None, Some(otlp), None) => Target::Otlp(otlp.check()?, spool),
            (None, None, Some(syslog)) => Target::Syslog(syslog.check()?, spool),
            (None, None, None) => {
                return Err(("file", "no receiver is named".to_owned(), "add `file:`, `otlp:` or `syslog:`"));
            }
            _ => return Err(("file", "more than one receiver is named".to_owned(), "make an exporter of each")),
        };
        Ok(Exporter { name: self.name.clone(), spec: self, filters, wanted, aggregation, target })
    }
}

impl AggregateSpec {
    fn check(&self) -> Result<aggregate::Limits, Wrong> {
        let Self { window_seconds, max_groups } = self;
        let seconds = range("aggregate.windowSeconds", window_seconds.unwrap_or(60), 3600, "the default is 60")?;
        let groups = range("aggregate.maxGroups", max_groups.unwrap_or(4096), 65_536, "the default is 4096")?;
        let groups = NonZeroUsize::new(groups as usize).unwrap_or(NonZeroUsize::MIN);
        Ok(aggregate::Limits { window: Duration::from_secs(seconds), groups })
    }
}

impl FileSpec {
    fn check(&self) -> Result<FileTarget, Wrong> {
        let Self { path, format: FileFormat::Ocsf, max_mebibytes, max_age_minutes, keep, compress } = self;
        let path = PathBuf::from(path);
        if !path.is_absolute() || path.file_name().is_none() {
            return Err(("file.path", format!("{} is no absolute path of a file", path.display()), "begin it with /"));
        }
        let mebibytes = range("file.maxMebibytes", max_mebibytes.unwrap_or(100), 1 << 20, "the default is 100")?;
        let minutes = match max_age_minutes {
            Some(minutes) => {
                Some(range("file.maxAgeMinutes", *minutes, 527_040, "leave it out to rotate by size only")?)
            }
            None => None,
        };
        let keep = range("file.keep", keep.unwrap_or(5).into(), 10_000, "the default is 5")?;
        let rotation = Rotation {
            max_bytes: mebibytes * MIB,
            max_age: minutes.map(|minutes| Duration::from_secs(60 * minutes)),
            keep: keep as usize,
            compress: *compress == Compression::Gzip,
        };
        Ok(FileTarget { path, rotation })
    }
}

/// A number that must not be zero or absurd.
fn range(field: &'static str, value: u64, most: u64, fix: &'static str) -> Result<u64, Wrong> {
    match value {
        1.. if value <= most => Ok(value),
        _ => Err((field, format!("{value} is not between 1 and {most}"), fix)),
    }
}

#[cfg(test)]
mod tests;
