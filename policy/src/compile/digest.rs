//! Digest of a rule table: the same on every machine, in every run and in every build that
//! understands rules alike, so that rule sets can be recognised by content across restarts.
//!
//! SHA-256 over an encoding in which every list and string carries its length and every choice a
//! tag, so that no two tables share an encoding; the first 16 bytes of it. A change of the
//! encoding, or of what `lower` makes of a table, changes [`DOMAIN`].

use std::net::IpAddr;

use datapath_abi::policy::Direction;
use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use super::table::{PodMatch, RuleRef, RuleTable, TableNamespaces, TablePeers, TablePorts, TableRule};
use crate::model::{Action, IpBlock, PolicyKind, PolicyRef, PortRange, Precedence, Protocol};
use crate::selector::{Operator, Requirement, Selector, Values};

/// Put in front of the encoding.
const DOMAIN: &[u8] = b"bulkhead rule table 2";

impl RuleTable {
    /// A digest of its content: equal for equal tables, on every platform.
    pub fn digest(&self) -> [u8; 16] {
        let mut sink = Sink(Sha256::new());
        sink.0.update(DOMAIN);
        self.encode(&mut sink);
        let full: [u8; 32] = sink.0.finalize().into();
        let [half @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = full;
        half
    }
}

struct Sink(Sha256);

impl Sink {
    fn tag(&mut self, tag: u8) {
        self.0.update([tag]);
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn list<T: Encode>(&mut self, list: &[T]) {
        self.number(list.len() as u64);
        list.iter().for_each(|item| item.encode(self));
    }
}

trait Encode {
    fn encode(&self, sink: &mut Sink);
}

impl Encode for RuleTable {
    fn encode(&self, sink: &mut Sink) {
        let Self { direction, isolated_by, rules } = self;
        direction.encode(sink);
        sink.list(isolated_by);
        sink.list(rules);
    }
}

impl Encode for Direction {
    fn encode(&self, sink: &mut Sink) {
        sink.tag(match self {
            Self::Egress => 0,
            Self::Ingress => 1,
        });
    }
}

impl Encode for PolicyRef {
    fn encode(&self, sink: &mut Sink) {
        let Self { kind, namespace, name } = self;
        sink.tag(match kind {
            PolicyKind::NetworkPolicy => 0,
            PolicyKind::ClusterNetworkPolicy => 1,
        });
        sink.text(namespace);
        sink.text(name);
    }
}

impl Encode for RuleRef {
    fn encode(&self, sink: &mut Sink) {
        let Self { policy, direction, index } = self;
        policy.encode(sink);
        direction.encode(sink);
        sink.number(u64::from(*index));
    }
}

impl Encode for TableRule {
    fn encode(&self, sink: &mut Sink) {
        let Self { rule, precedence: Precedence(precedence), action, peers, ports } = self;
        rule.encode(sink);
        sink.number(u64::from(*precedence));
        sink.tag(match action {
            Action::Allow => 0,
            Action::Deny => 1,
            Action::Pass => 2,
        });
        peers.encode(sink);
        ports.encode(sink);
    }
}

impl Encode for TablePeers {
    fn encode(&self, sink: &mut Sink) {
        match self {
            Self::Anyone => sink.tag(0),
            Self::These { pods, blocks, nodes } => {
                sink.tag(1);
                sink.list(pods);
                sink.list(blocks);
                sink.list(nodes);
            }
        }
    }
}

impl Encode for PodMatch {
    fn encode(&self, sink: &mut Sink) {
        let Self { namespaces, pods } = self;
        match namespaces {
            TableNamespaces::Named(name) => {
                sink.tag(0);
                sink.text(name);
            }
            TableNamespaces::Matching(selector) => {
                sink.tag(1);
                selector.encode(sink);
            }
        }
        pods.encode(sink);
    }
}

impl Encode for Selector {
    fn encode(&self, sink: &mut Sink) {
        sink.list(self.requirements());
    }
}

impl Encode for Requirement {
    fn encode(&self, sink: &mut Sink) {
        let Self { key, operator } = self;
        sink.text(key);
        match operator {
            Operator::In(values) => {
                sink.tag(0);
                values.encode(sink);
            }
            Operator::NotIn(values) => {
                sink.tag(1);
                values.encode(sink);
            }
            Operator::Exists => sink.tag(2),
            Operator::DoesNotExist => sink.tag(3),
        }
    }
}

impl Encode for Values {
    fn encode(&self, sink: &mut Sink) {
        sink.number(self.iter().count() as u64);
        self.iter().for_each(|value| sink.text(value));
    }
}

impl Encode for IpBlock {
    fn encode(&self, sink: &mut Sink) {
        self.cidr().encode(sink);
        sink.list(self.except());
    }
}

impl Encode for IpNetwork {
    fn encode(&self, sink: &mut Sink) {
        match self.ip() {
            IpAddr::V4(ip) => {
                sink.tag(4);
                sink.0.update(ip.octets());
            }
            IpAddr::V6(ip) => {
                sink.tag(6);
                sink.0.update(ip.octets());
            }
        }
        sink.tag(self.prefix());
    }
}

impl Encode for TablePorts {
    fn encode(&self, sink: &mut Sink) {
        match self {
            Self::All => sink.tag(0),
            Self::These { ranges, named } => {
                sink.tag(1);
                sink.list(ranges);
                sink.list(named);
            }
        }
    }
}

impl Encode for (Protocol, PortRange) {
    fn encode(&self, sink: &mut Sink) {
        let (protocol, range) = self;
        sink.tag(protocol.number());
        sink.number(u64::from(range.from()));
        sink.number(u64::from(range.to()));
    }
}

impl Encode for (Protocol, String) {
    fn encode(&self, sink: &mut Sink) {
        let (protocol, name) = self;
        sink.tag(protocol.number());
        sink.text(name);
    }
}
