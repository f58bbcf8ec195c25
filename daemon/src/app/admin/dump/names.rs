//! Who is at the ends of a connection: names for what the tables have as numbers.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use datapath_abi::endpoint::NO_SLOT;
use policy::model::PodKey;

use crate::app::{admin::convert, engine::State};

/// One end of a connection, as its entry has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    pub(super) ip: IpAddr,
    pub(super) slot: u32,
    pub(super) ifindex: u32,
    pub(super) identity: u32,
}

/// The names there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Endpoints of this node by slot, with the interface.
    endpoints: BTreeMap<u32, (u32, PodKey)>,
    /// Pods elsewhere.
    addresses: HashMap<IpAddr, PodKey>,
}

impl Names {
    /// Copies them out of the engine.
    pub(super) fn of(state: &State) -> Self {
        let endpoints = state.planner.endpoints().map(|it| (it.slot, (it.ifindex, it.pod.clone())));
        let pods = state.planner.index().pods().filter(|pod| pod.is_peer());
        let addresses = pods.flat_map(|pod| pod.ips.iter().map(|ip| (*ip, pod.key.clone())));
        Self { endpoints: endpoints.collect(), addresses: addresses.collect() }
    }

    /// An end in words: `shop/web`, `world`.
    pub(super) fn name(&self, end: End) -> String {
        let End { ip, slot, ifindex, identity } = end;
        if slot != NO_SLOT {
            // A slot is given out again, an interface's index is not.
            return match self.endpoints.get(&slot).filter(|(own, _)| *own == ifindex) {
                Some((_, pod)) => pod.to_string(),
                None => "a pod that is gone".to_owned(),
            };
        }
        match (convert::reserved_name(identity), self.addresses.get(&ip)) {
            ("", Some(pod)) => pod.to_string(),
            ("", None) => "a pod that is gone".to_owned(),
            (reserved, _) => reserved.to_owned(),
        }
    }
}
