//! What the Observer tells of a connection, asked as any client of the Hubble API asks.

use anyhow::{Context as _, bail, ensure};
use prost::Message as _;
use proto::{
    bulkhead::flow::v1::FlowExtension,
    flow::{Flow, IpVersion, Verdict, layer4::Protocol},
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes, observer_client::ObserverClient},
};
use tests::{
    containerd::{Machine, Pod},
    node::eventually,
};

use crate::PATIENCE;

/// Everything that the Observer has recorded.
fn flows(machine: &Machine) -> anyhow::Result<Vec<(Flow, FlowExtension)>> {
    let ask = machine.ask()?;
    // Who names this type gets it, and no generic structure.
    let type_url = "type.googleapis.com/bulkhead.flow.v1.FlowExtension".to_owned();
    let extensions = prost_types::Any { type_url, value: Vec::new() };
    let request = GetFlowsRequest { extensions: Some(extensions), ..GetFlowsRequest::default() };
    let mut client = ObserverClient::new(ask.channel());
    ask.wait(async move {
        let mut stream = client.get_flows(request).await?.into_inner();
        let mut flows = Vec::new();
        while let Some(response) = stream.message().await? {
            let Some(ResponseTypes::Flow(flow)) = response.response_types else { continue };
            let extension = flow.extensions.as_ref().map(|any| any.value.as_slice()).unwrap_or_default();
            let extension =
                FlowExtension::decode(extension).map_err(|error| tonic::Status::data_loss(error.to_string()))?;
            flows.push((flow, extension));
        }
        Ok(flows)
    })
}

/// What a flow is to say: the keys of both ends with the label `app` that they had, and the rest.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) from: (&'a Pod, &'a str),
    pub(crate) to: (&'a Pod, &'a str),
    pub(crate) protocol: &'a str,
    pub(crate) port: u16,
    pub(crate) verdict: Verdict,
}

impl Told<'_> {
    /// Whether this flow is about it, in one family.
    fn is_of(&self, flow: &Flow, family: IpVersion) -> bool {
        let end = |flow: &Option<proto::flow::Endpoint>| {
            flow.as_ref().map(|end| format!("{}/{}", end.namespace, end.pod_name)).unwrap_or_default()
        };
        let l4 = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
        let (protocol, port) = match l4 {
            Some(Protocol::Tcp(tcp)) => ("tcp", tcp.destination_port),
            Some(Protocol::Udp(udp)) => ("udp", udp.destination_port),
            _ => return false,
        };
        end(&flow.source) == self.from.0.key
            && end(&flow.destination) == self.to.0.key
            && (protocol, port) == (self.protocol, u32::from(self.port))
            && flow.ip.as_ref().is_some_and(|ip| ip.ip_version() == family)
            && flow.verdict() == self.verdict
    }

    /// Waits until it has been told in both families, and hands each to `check`.
    pub(crate) fn soon(
        &self,
        machine: &Machine,
        check: impl Fn(&Flow, &FlowExtension) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut last = Vec::new();
        for family in [IpVersion::IPv4, IpVersion::IPv6] {
            let mut found = None;
            eventually(PATIENCE, || {
                last = flows(machine)?;
                found = last.iter().find(|(flow, _)| self.is_of(flow, family)).cloned();
                Ok(found.is_some())
            })?;
            let Self { from, to, protocol, port, verdict } = self;
            let what = format!("{} to {} {protocol}:{port} {family:?} {verdict:?}", from.0.key, to.0.key);
            let Some((flow, extension)) = found else { bail!("no flow of {what}, only {last:#?}") };
            for (end, app) in [(&flow.source, from.1), (&flow.destination, to.1)] {
                let labels = end.as_ref().map(|end| end.labels.clone()).unwrap_or_default();
                ensure!(labels.contains(&format!("k8s:app={app}")), "{what}: {labels:?} without app={app}");
            }
            check(&flow, &extension).with_context(|| format!("{what}: {flow:#?} {extension:#?}"))?;
        }
        Ok(())
    }
}

/// Policies as `namespace/name`.
pub(crate) fn names(policies: &[proto::flow::Policy]) -> Vec<String> {
    policies.iter().map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect()
}
