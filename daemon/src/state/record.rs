//! What the files hold. Fields may be added (with a default) without a new format; a change of
//! meaning raises it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ipam::{Owner, PodAddress},
    mac::Mac,
};

/// Format of all files.
pub const FORMAT: u32 = 1;

/// How far an ADD came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Addresses are taken; what else is there is not known. After a restart such a record is undone.
    Allocated,
    /// The ADD succeeded: everything in the record is true.
    Ready,
}

/// Which pod the runtime said this is. Empty for runtimes that do not say.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PodRef {
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID.
    pub uid: String,
}

/// One attachment of a container to a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Container id and interface name.
    pub owner: Owner,
    /// Name of the CNI network: GC is per network.
    pub network: String,
    /// "cniVersion" of the configuration it was added with.
    #[serde(default)]
    pub cni_version: String,
    /// Path of the pod's network namespace, as the daemon opens it.
    pub netns: String,
    /// Inode of the namespace, to notice when the path means another.
    pub netns_inode: u64,
    /// The pod.
    pub pod: PodRef,
    /// Its addresses and gateways, one per family at most.
    pub addresses: Vec<PodAddress>,
    /// MAC address of the pod's side.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// Name of the host side.
    pub host_ifname: String,
    /// Index of the host side; 0 while there is none.
    #[serde(default)]
    pub host_ifindex: u32,
    /// Index of the pod's side in its namespace; 0 while there is none.
    #[serde(default)]
    pub pod_ifindex: u32,
    /// Slot in the datapath's endpoint map.
    pub slot: u32,
    /// How far the ADD came.
    pub phase: Phase,
    /// When the ADD came, milliseconds since 1970 by the wall clock. Tombstones older than this are
    /// of another attachment.
    pub created_unix_ms: u64,
}

/// What one identity number stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdentityRecord {
    /// The number.
    pub number: u32,
    /// Namespace.
    pub namespace: String,
    /// All labels of the namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// The pod's labels that count.
    pub labels: BTreeMap<String, String>,
    /// Service account.
    pub service_account: String,
}

/// All identities of the node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Identities {
    /// By number.
    pub identities: Vec<IdentityRecord>,
    /// The number after the one given out last, so that those given back do not come again before all others.
    #[serde(default)]
    pub next: u32,
    /// Another number each time all were written.
    #[serde(default)]
    pub edition: u64,
}

/// What has changed about identities since all were written.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct IdentitiesSince {
    /// Since which [`Identities::edition`].
    pub edition: u64,
    /// What numbers stand for now; `None`: for nobody.
    pub changed: BTreeMap<u32, Option<IdentityRecord>>,
    /// As in [`Identities::next`].
    pub next: u32,
}

impl IdentitiesSince {
    /// Brings what was written before up to date, if it is that.
    pub(super) fn apply_to(self, before: &mut Identities) {
        let Self { edition, changed, next } = self;
        if edition != before.edition {
            return;
        }
        before.identities.retain(|identity| !changed.contains_key(&identity.number));
        before.identities.extend(changed.into_values().flatten());
        before.identities.sort_by_key(|identity| identity.number);
        before.next = next;
    }
}

/// What is around every content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stored<T> {
    pub(crate) format: u32,
    /// The boot it was written in.
    pub(crate) boot_id: String,
    pub(crate) content: T,
}

/// Read before the rest, which another format may lay out otherwise.
#[derive(Debug, Deserialize)]
pub(crate) struct Head {
    pub(crate) format: u32,
}
