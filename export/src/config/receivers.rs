//! Receivers that are reached over the network, as they are written, and the spool in front of them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;
use tonic::{
    metadata::{Ascii, MetadataKey, MetadataValue},
    transport::Uri,
};

use super::{MIB, OtlpTarget, SpoolSettings, SyslogTarget, Wrong, range};
use crate::{
    sender::BatchLimits,
    spool::Limits,
    syslog::Style,
    tls::{SYSTEM_CA, Tls},
};

/// Longest deadline, in seconds.
const LONGEST_DEADLINE: u64 = 300;

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename = "otlp", rename_all = "camelCase")]
pub(super) struct OtlpSpec {
    endpoint: String,
    tls: Option<TlsSpec>,
    timeout_seconds: Option<u64>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename = "syslog", rename_all = "camelCase")]
pub(super) struct SyslogSpec {
    address: String,
    #[serde(default)]
    transport: Transport,
    tls: Option<TlsSpec>,
    facility: Option<u64>,
    app_name: Option<String>,
    #[serde(default)]
    message: Message,
    timeout_seconds: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Transport {
    #[default]
    Tls,
    Tcp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Message {
    #[default]
    Ocsf,
    Text,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename = "tls", rename_all = "camelCase")]
pub(super) struct TlsSpec {
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    server_name: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename = "spool", rename_all = "camelCase")]
pub(super) struct SpoolSpec {
    max_mebibytes: Option<u64>,
    sync_milliseconds: Option<u64>,
    batch_records: Option<u64>,
    batch_kibibytes: Option<u64>,
}

/// How long an attempt may take.
pub(super) fn deadline(seconds: Option<u64>, field: &'static str) -> Result<Duration, Wrong> {
    let seconds = range(field, seconds.unwrap_or(10), LONGEST_DEADLINE, "the default is 10")?;
    Ok(Duration::from_secs(seconds))
}

impl TlsSpec {
    pub(super) fn check(&self) -> Result<Tls, Wrong> {
        let Self { ca_file, cert_file, key_file, server_name } = self;
        let absolute = |field, path: &str| match PathBuf::from(path) {
            path if path.is_absolute() => Ok(path),
            path => Err((field, format!("{} is no absolute path", path.display()), "begin it with /")),
        };
        let own = match (cert_file, key_file) {
            (Some(certificate), Some(key)) => {
                Some((absolute("tls.certFile", certificate)?, absolute("tls.keyFile", key)?))
            }
            (None, None) => None,
            _ => {
                let what = "certFile and keyFile need each other".to_owned();
                return Err(("tls", what, "name both, or none if the receiver asks for none"));
            }
        };
        let ca_file = absolute("tls.caFile", ca_file.as_deref().unwrap_or(SYSTEM_CA))?;
        Ok(Tls { ca_file, own, server_name: server_name.clone() })
    }
}

impl OtlpSpec {
    pub(super) fn check(&self) -> Result<OtlpTarget, Wrong> {
        const ENDPOINT: &str = "otlp.endpoint";
        const FIX: &str = "write https://HOST:PORT, or http://HOST:PORT where everybody may read along";
        let Self { endpoint, tls, timeout_seconds, headers } = self;
        let uri: Uri = endpoint.parse().map_err(|error| (ENDPOINT, format!("{endpoint:?} is no URL: {error}"), FIX))?;
        let bare = matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/" | ""));
        if uri.host().is_none_or(str::is_empty) || !bare {
            return Err((ENDPOINT, format!("{endpoint:?} is not the URL of a host"), FIX));
        }
        let tls = match (uri.scheme_str(), tls) {
            (Some("https"), tls) => Some(tls.clone().unwrap_or_default().check()?),
            (Some("http"), None) => None,
            (Some("http"), Some(_)) => {
                return Err((ENDPOINT, format!("{endpoint:?} is not https, and `tls` is there"), "write https://"));
            }
            _ => return Err((ENDPOINT, format!("{endpoint:?} is neither https nor http"), FIX)),
        };
        for (key, value) in headers {
            let good = key.parse::<MetadataKey<Ascii>>().is_ok() && value.parse::<MetadataValue<Ascii>>().is_ok();
            if !good || key.starts_with("grpc-") {
                let what = format!("{key:?} cannot be a header of gRPC");
                return Err(("otlp.headers", what, "take lower case letters, digits and dashes, and ASCII values"));
            }
        }
        let deadline = deadline(*timeout_seconds, "otlp.timeoutSeconds")?;
        Ok(OtlpTarget { endpoint: endpoint.clone(), tls, deadline, headers: headers.clone() })
    }
}

impl SyslogSpec {
    pub(super) fn check(&self) -> Result<SyslogTarget, Wrong> {
        let Self { address, transport, tls, facility, app_name, message, timeout_seconds } = self;
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            return Err(("syslog.address", format!("{address:?} is not HOST:PORT"), "write it like logs.example:6514"));
        }
        let tls = match (transport, tls) {
            (Transport::Tls, tls) => Some(tls.clone().unwrap_or_default().check()?),
            (Transport::Tcp, None) => None,
            (Transport::Tcp, Some(_)) => {
                return Err(("syslog.tls", "is there, and `transport` is tcp".to_owned(), "remove one of them"));
            }
        };
        let facility = match facility.unwrap_or(16) {
            facility @ 0..24 => facility as u8,
            other => {
                return Err((
                    "syslog.facility",
                    format!("{other} is not between 0 and 23"),
                    "the default is 16, local0",
                ));
            }
        };
        let app_name = app_name.clone().unwrap_or_else(|| "bulkhead".to_owned());
        if app_name.is_empty() || app_name.len() > 48 || !app_name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = format!("{app_name:?} is no APP-NAME");
            return Err(("syslog.appName", what, "take up to 48 printable ASCII characters without blanks"));
        }
        let style = Style { facility, app_name, json: *message == Message::Ocsf };
        let deadline = deadline(*timeout_seconds, "syslog.timeoutSeconds")?;
        Ok(SyslogTarget { address: address.clone(), tls, deadline, style })
    }
}

impl SpoolSpec {
    pub(super) fn check(&self) -> Result<SpoolSettings, Wrong> {
        let Self { max_mebibytes, sync_milliseconds, batch_records, batch_kibibytes } = self;
        let mebibytes = range("spool.maxMebibytes", max_mebibytes.unwrap_or(256), 1 << 20, "the default is 256")?;
        let sync = match sync_milliseconds.unwrap_or(1000) {
            0 => Duration::ZERO,
            other => {
                let fix = "the default is 1000; 0 syncs each batch";
                Duration::from_millis(range("spool.syncMilliseconds", other, 3_600_000, fix)?)
            }
        };
        let records = range("spool.batchRecords", batch_records.unwrap_or(512), 10_000, "the default is 512")?;
        // A receiver of gRPC takes 4 MiB unless told otherwise.
        let kibibytes = range("spool.batchKibibytes", batch_kibibytes.unwrap_or(1024), 16_384, "the default is 1024")?;
        Ok(SpoolSettings {
            limits: Limits { max_bytes: mebibytes * MIB, sync_every: sync },
            batch: BatchLimits { records: records as usize, bytes: kibibytes as usize * 1024 },
        })
    }
}
