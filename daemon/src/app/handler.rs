//! What a CNI call does here: from the plugin's messages to [`Attachments`] and back.

use std::{sync::Arc, time::Duration};

use datapath_abi::endpoint::HOST_MAC;
use proto::bulkhead::cni::v1 as wire;

use super::{
    attachments::{AttachmentError, Attachments, Wish},
    engine::{Engine, EngineError},
    source::{Register, UnknownPod},
};
use crate::{
    cni::{
        Handler, Verb,
        convert::{self, BadRequest, Made, code},
    },
    ipam::{AllocateError, Owner},
    mac::Mac,
    net::{NetError, pair::PairError},
    state::EndpointRecord,
    telemetry::{CniMetrics, CniVerb},
};

/// Serves the plugin.
#[derive(Debug)]
pub struct CniHandler {
    attachments: Arc<Attachments>,
    engine: Engine,
    register: Register,
    metrics: CniMetrics,
}

impl CniHandler {
    /// On these attachments.
    pub fn new(attachments: Arc<Attachments>, engine: Engine, register: Register, metrics: CniMetrics) -> Self {
        Self { attachments, engine, register, metrics }
    }
}

impl Handler for CniHandler {
    async fn add(&self, request: wire::AddRequest) -> Result<wire::CniResult, wire::CniError> {
        let wire::AddRequest {
            id,
            netns,
            network,
            pod,
            mac,
            ips,
            aliases: _,
            cgroup_path: _,
            pod_annotations: _,
            labels: _,
            other_args: _,
        } = request;
        let owner = convert::owner(id)?;
        let wire::Network { name: network, cni_version, mtu } = network.unwrap_or_default();
        let wish = Wish {
            netns: convert::netns(netns)?,
            pod: convert::pod(pod, &owner)?,
            mac: convert::mac(&mac)?,
            ips: convert::ips(&ips)?,
            mtu: convert::mtu(mtu)?,
            owner,
            network,
            cni_version,
        };
        self.register.introduce(&wish.pod).await.map_err(unknown)?;
        let record = self.attachments.add(wish).await.map_err(to_wire)?;
        Ok(made(record).into())
    }

    async fn del(&self, request: wire::DelRequest) -> Result<(), wire::CniError> {
        let wire::DelRequest { id, netns: _, network: _, pod: _, prev_result: _ } = request;
        let owner = convert::owner(id)?;
        self.attachments.del(&owner).await.map(|_| ()).map_err(to_wire)
    }

    async fn check(&self, request: wire::CheckRequest) -> Result<(), wire::CniError> {
        let wire::CheckRequest { id, netns, network: _, pod: _, prev_result } = request;
        let owner = convert::owner(id)?;
        let expected = convert::addresses_in(prev_result.as_ref(), &owner.ifname);
        let netns = convert::netns(netns)?;
        self.attachments.check(&owner, &netns, &expected).await.map_err(to_wire)
    }

    async fn gc(&self, request: wire::GcRequest) -> (u32, Option<wire::CniError>) {
        let wire::GcRequest { network, valid_attachments } = request;
        let network = network.unwrap_or_default().name;
        let (removed, problems) = match valid_attachments {
            Some(wire::AttachmentList { ids }) => {
                let owners: Result<Vec<Owner>, BadRequest> =
                    ids.into_iter().map(|id| convert::owner(Some(id))).collect();
                match owners {
                    Ok(valid) => self.attachments.collect(&network, |record| valid.contains(&record.owner)).await,
                    Err(bad) => return (0, Some(bad.into())),
                }
            }
            None => self.attachments.collect(&network, |record| !self.attachments.is_dead(record)).await,
        };
        let details: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let error = (!details.is_empty()).then(|| wire::CniError {
            code: code::IO,
            msg: format!("{} stale attachments could not be removed", details.len()),
            details: details.join("; "),
        });
        (removed, error)
    }

    async fn status(&self, _request: wire::StatusRequest) -> Result<(), wire::CniError> {
        let looked = self.engine.ask(|state| (state.synced, state.trouble.clone())).await;
        let error = |code, msg: String, details: &str| Err(wire::CniError { code, msg, details: details.to_owned() });
        match looked {
            Err(stopped) => return error(code::NOT_AVAILABLE, stopped.to_string(), "wait for the daemon to be back"),
            Ok((false, _)) => {
                return error(
                    code::NOT_AVAILABLE,
                    "the source of objects has not been read yet".to_owned(),
                    "wait; `bulkhead status` says what is missing",
                );
            }
            Ok((true, Some(trouble))) => {
                return error(
                    code::LIMITED,
                    format!("the kernel refused a change of rules: {trouble}"),
                    "pods keep the rules they had; see the daemon's log",
                );
            }
            Ok((true, None)) => {}
        }
        // Every family must have an address left: a pod gets one of each.
        let usage = self.attachments.usage();
        for is_v4 in [true, false] {
            let mut family = usage.iter().filter(|usage| usage.pool.is_ipv4() == is_v4).peekable();
            if family.peek().is_some() && family.all(|usage| usage.free == 0) {
                let name = if is_v4 { "IPv4" } else { "IPv6" };
                return error(
                    code::NOT_AVAILABLE,
                    format!("no {name} address is free"),
                    "delete pods, or add a range with --pool",
                );
            }
        }
        Ok(())
    }

    fn observe(&self, verb: Verb, code: u32, took: Duration) {
        let verb = match verb {
            Verb::Add => CniVerb::Add,
            Verb::Del => CniVerb::Del,
            Verb::Check => CniVerb::Check,
            Verb::Gc => CniVerb::Gc,
            Verb::Status => CniVerb::Status,
        };
        self.metrics.observe(verb, code, took);
    }
}

fn made(record: EndpointRecord) -> Made {
    Made {
        pod: (record.owner.ifname, record.mac, record.netns),
        host: (record.host_ifname, Mac(HOST_MAC)),
        mtu: record.mtu,
        addresses: record.addresses,
    }
}

/// What to do about an attachment that is there already.
const DEL_FIRST: &str = "run DEL for it before another ADD";

/// A failure with the code that tells the runtime what to make of it.
fn to_wire(error: AttachmentError) -> wire::CniError {
    use AttachmentError as E;
    let (code, details) = match &error {
        E::Address(AllocateError::Exhausted { .. }) => (code::NO_ADDRESS, "delete pods, or add a range with --pool"),
        E::Address(AllocateError::HasAddresses { .. }) => (code::EXISTS, DEL_FIRST),
        E::Address(_) => (code::INVALID_CONFIG, "ask for another address, or for none"),
        E::Netns(error) if error.is_not_found() => (code::INVALID_ENVIRONMENT, "the sandbox may be gone already"),
        E::Netns(_) | E::Link(PairError::Net(NetError::Netns(_))) => {
            (code::INVALID_ENVIRONMENT, "CNI_NETNS must be the path of the pod's network namespace")
        }
        E::Link(PairError::HostHasInterface { .. }) => (code::EXISTS, DEL_FIRST),
        E::Link(PairError::PodHasInterface { .. }) => {
            (code::EXISTS, "choose another CNI_IFNAME, or run DEL of the network that made it")
        }
        E::Link(_) | E::Net(_) => (code::IO, ""),
        E::Engine(EngineError::Stopped) => (code::TRY_AGAIN, "the daemon is coming back"),
        E::Engine(EngineError::EndpointsFull(_) | EngineError::AddressesFull(_)) => (code::NO_SPACE, ""),
        E::Engine(_) | E::Programs(_) => (code::KERNEL, "see the daemon's log"),
        E::State(_) => (code::IO, "is the disk of the state folder full?"),
        E::Random(_) => (code::IO, ""),
        E::Unknown(_) => (code::UNKNOWN_CONTAINER, ""),
        E::Differs { .. } => (code::DIFFERS, ""),
        E::Undo { .. } => (code::IO, "what could be removed has been; call DEL again"),
    };
    wire::CniError { code, msg: error.to_string(), details: details.to_owned() }
}

/// A kubelet calls ADD again after a while.
fn unknown(problem: UnknownPod) -> wire::CniError {
    let details = match &problem {
        UnknownPod::Absent { .. } => "it may have been deleted, or replaced by one with the same name",
        UnknownPod::Unanswered { .. } => "its rules depend on them; wait for the API server to be back",
        UnknownPod::Unnumbered { .. } => "other nodes know a pod by it; wait for the API server to be back",
        UnknownPod::Engine(_) => "the daemon is coming back",
    };
    wire::CniError { code: code::TRY_AGAIN, msg: problem.to_string(), details: details.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_add_is_told_once_what_to_do() {
        let owner = Owner::new("c1", "eth0");
        let addresses = vec!["10.0.0.2".parse().unwrap()];
        let twice = [
            AttachmentError::Address(AllocateError::HasAddresses { owner, addresses }),
            AttachmentError::Link(PairError::HostHasInterface { ifname: "bh1".into(), container_id: "c1".into() }),
        ];
        let said = twice.map(to_wire).map(|error| (error.code, error.msg, error.details));
        let fix = || "run DEL for it before another ADD".to_owned();
        assert_eq!(said[0], (code::EXISTS, "c1/eth0 was added before and has 10.0.0.2".to_owned(), fix()));
        let message = "the node has the interface bh1 of container c1 already: it was added before";
        assert_eq!(said[1], (code::EXISTS, message.to_owned(), fix()));
    }
}
