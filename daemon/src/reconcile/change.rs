//! What a plan consists of.

use datapath_abi::{
    addr::{Addr, AddrEntry},
    endpoint::{Endpoint, Swing},
    policy::{Decision, Direction, PeerEntry, PeerKey, PortKey, RulesetInfo},
};
use policy::model::{PodKey, PolicyRef};

/// One write to the kernel.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// Entry of PORTS.
    PutPort(PortKey, Decision),
    /// Entry of PEERS.
    PutPeer(PeerKey, PeerEntry),
    /// Entry of REGIONS: rule set, first address, prefix length in the 128-bit form.
    PutRegion(u32, Addr, u8, PeerEntry),
    /// Entry of RULESETS.
    PutRuleset(u32, RulesetInfo),
    /// Entry of ADDRESSES.
    PutAddress(Addr, AddrEntry),
    /// Entry of CIDRS.
    PutCidr(Addr, u8, AddrEntry),
    /// Entry of ENDPOINTS that nothing refers to yet.
    PutEndpoint(u32, Endpoint),
    /// Entry of STAGED; zeroes for none.
    PutStaged(u32, [u64; 2]),
    /// Entry of INTERFACES.
    PutInterface(u32, u32),
    /// The next generation of rules.
    PutGeneration(u64),
    /// Points endpoints at other rules.
    Swing(Vec<Swing>),
    /// Removes an entry of INTERFACES.
    DropInterface(u32),
    /// Clears an entry of ENDPOINTS.
    ClearEndpoint(u32),
    /// Removes an entry of ADDRESSES.
    DropAddress(Addr),
    /// Removes an entry of CIDRS.
    DropCidr(Addr, u8),
    /// Removes an entry of PEERS.
    DropPeer(PeerKey),
    /// Removes an entry of REGIONS.
    DropRegion(u32, Addr, u8),
    /// Removes an entry of PORTS.
    DropPort(PortKey),
    /// Removes an entry of RULESETS.
    DropRuleset(u32),
}

/// What holds instead of what was refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Remains {
    /// The last complete rules.
    LastComplete,
    /// Everything is denied: there were none.
    Denied,
    /// What is enforced, as ever: rules with staged policies, which are not evaluated now.
    Unevaluated,
}

/// Rules that could not be put in force.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Refusal {
    /// Whose.
    pub pod: PodKey,
    /// In which direction.
    pub direction: Direction,
    /// The policies that have a say there.
    pub policies: Vec<PolicyRef>,
    /// Why, in words, with numbers.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
    /// What holds meanwhile.
    pub remains: Remains,
}

/// An ordered list of changes, and what is left undone.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Plan {
    /// In the order in which they are to be carried out.
    pub changes: Vec<Change>,
    /// All refusals that stand after this plan.
    pub refusals: Vec<Refusal>,
}
