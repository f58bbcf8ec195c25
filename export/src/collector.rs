//! A receiver of OTLP logs for tests: real gRPC on a real socket, with or without TLS, that keeps what it takes and
//! answers what it is told to.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::opentelemetry::proto::{
    collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::any_value::Value,
    logs::v1::LogRecord,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// What it answers instead of taking everything.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Status(Status),
    /// Takes all but so many.
    Partial(i64),
    /// After that long.
    Late(Duration),
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) taken: Vec<LogRecord>,
    pub(crate) answers: VecDeque<Answer>,
    /// Refuses whatever has a record of one of these sequences in it.
    pub(crate) poison: Vec<i64>,
    pub(crate) requests: usize,
    pub(crate) headers: Vec<String>,
}

/// The receiver.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Service(Arc<Mutex<State>>);

/// The value of an attribute as text.
pub(crate) fn attribute(record: &LogRecord, key: &str) -> Option<String> {
    let value = record.attributes.iter().find(|it| it.key == key)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let header = request.metadata().get("x-tenant").map(|value| value.to_str().unwrap().to_owned());
        let logs = request.into_inner().resource_logs;
        let records: Vec<LogRecord> =
            logs.into_iter().flat_map(|it| it.scope_logs).flat_map(|it| it.log_records).collect();
        let answer = {
            let mut state = self.0.lock().unwrap();
            state.requests += 1;
            state.headers.extend(header);
            let is_poison = |record: &LogRecord| {
                let sequence = attribute(record, "bulkhead.sequence").and_then(|it| it.parse::<i64>().ok());
                sequence.is_some_and(|it| state.poison.contains(&it))
            };
            if records.iter().any(is_poison) {
                return Err(Status::invalid_argument("poison"));
            }
            state.answers.pop_front()
        };
        let mut partial_success = None;
        match answer {
            Some(Answer::Status(status)) => return Err(status),
            Some(Answer::Partial(rejected_log_records)) => {
                let error_message = "no room".to_owned();
                partial_success = Some(ExportLogsPartialSuccess { rejected_log_records, error_message });
            }
            Some(Answer::Late(after)) => tokio::time::sleep(after).await,
            None => {}
        }
        self.0.lock().unwrap().taken.extend(records);
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

impl Collector {
    /// On `address`, port 0 for any; with `tls` the files of an authority, whose clients alone are let in.
    pub(crate) async fn start(address: &str, tls: Option<&Authority>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let mut server = Server::builder();
        if let Some(authority) = tls {
            let (certificate, key) = authority.sign("collector");
            let own = Identity::from_pem(certificate, key);
            let clients = Certificate::from_pem(authority.pem());
            server = server.tls_config(ServerTlsConfig::new().identity(own).client_ca_root(clients)).unwrap();
        }
        let router = server.add_service(LogsServiceServer::new(Service(state.clone())));
        let task = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, state, task }
    }

    /// Sequences of the records taken, in the order in which they came.
    pub(crate) fn sequences(&self) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        state.taken.iter().filter_map(|it| attribute(it, "bulkhead.sequence")?.parse().ok()).collect()
    }

    /// What it answers next.
    pub(crate) fn answer(&self, answer: Answer) {
        self.state.lock().unwrap().answers.push_back(answer);
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        // OpenSSL takes a certificate whose subject is its issuer's for a root.
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a name.
    pub(crate) fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The files that a client needs, in a folder: ca.pem, own.pem, own.key.
    pub(crate) fn write_client(&self, folder: &Path) -> [PathBuf; 3] {
        let (certificate, key) = self.sign("bulkhead");
        let files = [("ca.pem", self.pem()), ("own.pem", certificate), ("own.key", key)];
        files.map(|(name, text)| {
            std::fs::write(folder.join(name), text).unwrap();
            folder.join(name)
        })
    }
}
