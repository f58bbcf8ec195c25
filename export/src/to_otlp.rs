//! The receiver of OTLP/gRPC logs. Which answers mean what is OTLP's ("OTLP/gRPC Response", "OTLP/gRPC Throttling"),
//! with one exception: who refuses us rather than our records (UNAUTHENTICATED, PERMISSION_DENIED, UNIMPLEMENTED) is
//! asked again, because no record is at fault.

use std::{error::Error as _, sync::Arc, time::Duration};

use flows::record::Node;
use prost::Message as _;
use proto::{
    google::rpc,
    opentelemetry::proto::{
        collector::logs::v1::{
            ExportLogsPartialSuccess, ExportLogsServiceRequest, logs_service_client::LogsServiceClient,
        },
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    },
};
use tokio::time::timeout;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataKey, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use crate::{
    config::OtlpTarget,
    notice::Notice,
    otlp,
    sender::{Outcome, Parcel, Receiver},
    tls::Files,
};

/// Type of the detail that says when to come again.
const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// See the module.
#[derive(Debug)]
pub(crate) struct ToOtlp {
    target: OtlpTarget,
    node: Arc<Node>,
    headers: Vec<(MetadataKey<Ascii>, MetadataValue<Ascii>)>,
    /// The connection, and the files that it was made with.
    connected: Option<(LogsServiceClient<Channel>, Files)>,
}

impl ToOtlp {
    pub(crate) fn new(target: OtlpTarget, node: Arc<Node>) -> Self {
        let headers = target.headers.iter().filter_map(|(key, value)| {
            // Checked when the settings were read.
            Some((key.parse().ok()?, value.parse().ok()?))
        });
        Self { headers: headers.collect(), target, node, connected: None }
    }

    async fn client(&mut self) -> Result<LogsServiceClient<Channel>, String> {
        let files = match &self.target.tls {
            Some(tls) => Files::read(tls).await?,
            None => Files::default(),
        };
        if let Some((client, with)) = &self.connected
            && *with == files
        {
            return Ok(client.clone());
        }
        let OtlpTarget { endpoint, tls, deadline, .. } = &self.target;
        let mut to = Endpoint::from_shared(endpoint.clone()).map_err(|error| format!("{endpoint}: {error}"))?;
        // Also when nothing is sent: half of a connection that has gone is noticed.
        to = to.tcp_nodelay(true).http2_keep_alive_interval(Duration::from_secs(30)).keep_alive_timeout(*deadline);
        if let Some(tls) = tls {
            let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&files.ca));
            if let Some((certificate, key)) = &files.own {
                config = config.identity(Identity::from_pem(certificate, key));
            }
            if let Some(name) = &tls.server_name {
                config = config.domain_name(name);
            }
            to = to.tls_config(config).map_err(|error| format!("TLS for {endpoint}: {}", chain(&error)))?;
        }
        let channel = match timeout(*deadline, to.connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(format!("{endpoint}: {}", chain(&error))),
            Err(_) => return Err(format!("{endpoint}: no connection within {}s", deadline.as_secs_f32())),
        };
        let client = LogsServiceClient::new(channel);
        self.connected = Some((client.clone(), files));
        Ok(client)
    }

    fn request(&self, parcels: &[Parcel]) -> Request<ExportLogsServiceRequest> {
        // What we have encoded ourselves can be decoded; a record that cannot would be sent empty, not lost.
        let log_records = parcels.iter().map(|it| LogRecord::decode(&*it.payload).unwrap_or_default()).collect();
        let scope_logs = vec![ScopeLogs { scope: Some(otlp::scope()), log_records, schema_url: String::new() }];
        let resource = Some(otlp::resource(&self.node));
        let mut request = Request::new(ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource, scope_logs, schema_url: String::new() }],
        });
        for (key, value) in &self.headers {
            request.metadata_mut().insert(key.clone(), value.clone());
        }
        request
    }
}

impl Receiver for ToOtlp {
    async fn send(&mut self, parcels: &[Parcel]) -> Outcome {
        let mut client = match self.client().await {
            Ok(client) => client,
            Err(why) => return Outcome::Again { after: None, why },
        };
        let (endpoint, deadline) = (&self.target.endpoint, self.target.deadline);
        match timeout(deadline, client.export(self.request(parcels))).await {
            Ok(Ok(answer)) => {
                let partial = answer.into_inner().partial_success.unwrap_or_default();
                let ExportLogsPartialSuccess { rejected_log_records, error_message } = partial;
                Outcome::Taken { rejected: rejected_log_records.try_into().unwrap_or(0), why: error_message }
            }
            Ok(Err(status)) => {
                let outcome = judge(&status, endpoint);
                if matches!(outcome, Outcome::Again { .. }) {
                    self.connected = None;
                }
                outcome
            }
            Err(_) => {
                self.connected = None;
                Outcome::Again { after: None, why: format!("{endpoint}: no answer within {}s", deadline.as_secs_f32()) }
            }
        }
    }

    fn notice(&self, notice: &Notice) -> Vec<u8> {
        otlp::loss(notice, &self.node).encode_to_vec()
    }
}

/// What an error means for what was sent.
fn judge(status: &Status, endpoint: &str) -> Outcome {
    let why = format!("{endpoint}: {:?}: {}", status.code(), status.message());
    let after = retry_delay(status);
    let again = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => after.is_some(),
        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => true,
        // What has never got to the receiver, it has not refused.
        _ => status.source().is_some(),
    };
    if again { Outcome::Again { after, why } } else { Outcome::Refused { why } }
}

/// How long the receiver asks to be left alone for.
fn retry_delay(status: &Status) -> Option<Duration> {
    let details = rpc::Status::decode(status.details()).ok()?.details;
    let info = details.iter().find(|any| any.type_url.rsplit('/').next() == Some(RETRY_INFO))?;
    let delay = rpc::RetryInfo::decode(&*info.value).ok()?.retry_delay.unwrap_or_default();
    Some(Duration::try_from(delay).unwrap_or_default())
}

/// An error and what has led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
