//! Entries of rule sets into a draft, with the port sets they refer to: all of them, or nothing and the reason why.

use datapath_abi::{
    addr::Addr,
    policy::{PeerEntry, PeerKey, PortKey, RulesetInfo},
};
use policy::lower::Peer;

use super::super::{Planner, draft::Draft, port_sets::PortSets};
use crate::reconcile::mirror::Mirror;

/// Why rules could not be put in force, and what to do about it.
pub(in super::super) type Refused = (String, String);

/// Takes entries.
#[derive(Debug)]
pub(super) struct Writing<'a, 'm> {
    mirror: &'a Mirror,
    draft: &'a mut Draft<'m>,
    port_sets: &'a mut PortSets,
    /// Those that were not known before.
    new_port_sets: Vec<u32>,
}

impl Writing<'_, '_> {
    pub(super) fn peer(&mut self, key: PeerKey, peer: &Peer) {
        let entry = self.entry(peer);
        self.draft.put_peer(key, entry);
    }

    pub(super) fn region(&mut self, key: (u32, Addr, u8), peer: &Peer) {
        let entry = self.entry(peer);
        self.draft.put_region(key, entry);
    }

    pub(super) fn ruleset(&mut self, number: u32, info: RulesetInfo) {
        self.draft.put_ruleset(number, info);
    }

    fn entry(&mut self, peer: &Peer) -> PeerEntry {
        let portset = if peer.ports.is_empty() {
            0
        } else if let Some(number) = self.port_sets.get(&peer.ports) {
            number
        } else {
            let number = self.port_sets.add(&peer.ports, self.mirror);
            self.new_port_sets.push(number);
            number
        };
        for (prefix, decision) in &peer.ports.entries {
            let key = PortKey { portset, port: prefix.port, proto: prefix.proto, length: prefix.length };
            self.draft.put_port(key, *decision);
        }
        PeerEntry { portset, lengths: peer.ports.lengths(), otherwise: peer.otherwise }
    }
}

impl Planner {
    /// Adds to the draft what `entries` gives, or nothing and the reason why.
    pub(super) fn write(
        &mut self,
        mirror: &Mirror,
        draft: &mut Draft<'_>,
        entries: impl FnOnce(&mut Writing<'_, '_>),
    ) -> Result<(), Refused> {
        let mark = draft.mark();
        let port_sets = self.port_sets.get_or_insert_with(|| PortSets::found(mirror));
        let mut writing = Writing { mirror, draft: &mut *draft, port_sets: &mut *port_sets, new_port_sets: Vec::new() };
        entries(&mut writing);
        let Writing { new_port_sets, .. } = writing;
        let Some(refused) = draft.overflow(&self.capacity) else { return Ok(()) };
        draft.rewind(mark);
        new_port_sets.into_iter().for_each(|number| port_sets.remove(number));
        Err(refused)
    }

    /// The entry for a peer, if all that it refers to is in the maps or in the plan.
    pub(super) fn entry(&self, peer: &Peer) -> Option<PeerEntry> {
        let portset = if peer.ports.is_empty() { 0 } else { self.port_sets.as_ref()?.get(&peer.ports)? };
        Some(PeerEntry { portset, lengths: peer.ports.lengths(), otherwise: peer.otherwise })
    }
}
