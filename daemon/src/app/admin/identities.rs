//! `ListIdentities`: the numbers that stand for pods with the same meaning.

use std::collections::BTreeSet;

use policy::{IdentityKey, model::PodKey};
use proto::bulkhead::admin::v1 as pb;
use tonic::Status;

use super::{AdminService, convert, unless_synced};
use crate::app::engine::State;

pub(super) async fn list(
    service: &AdminService,
    request: pb::ListIdentitiesRequest,
) -> Result<pb::ListIdentitiesResponse, Status> {
    let pb::ListIdentitiesRequest { reserved } = request;
    let (synced, pods) = service.ask(|state| (state.synced, identities(state))).await?;
    unless_synced(synced)?;
    let named = convert::RESERVED.iter().filter(|_| reserved).map(|(number, name)| pb::Identity {
        number: *number,
        reserved_name: (*name).to_owned(),
        ..pb::Identity::default()
    });
    // Reserved numbers are below those of pods.
    Ok(pb::ListIdentitiesResponse { identities: named.chain(pods).collect() })
}

fn identities(state: &State) -> Vec<pb::Identity> {
    let local: BTreeSet<&PodKey> = state.planner.endpoints().map(|endpoint| &endpoint.pod).collect();
    let identity = |(number, identity): (u32, &policy::lower::Identity)| {
        let IdentityKey { namespace, namespace_labels, labels, service_account } = identity.key();
        let pods = identity.pods();
        pb::Identity {
            number,
            reserved_name: String::new(),
            namespace: namespace.clone(),
            labels: convert::labels(labels),
            namespace_labels: convert::labels(namespace_labels),
            service_account: service_account.clone(),
            pods: convert::small(pods.len()),
            local_pods: convert::small(pods.keys().filter(|pod| local.contains(pod)).count()),
        }
    };
    state.planner.universe().iter().map(identity).collect()
}
