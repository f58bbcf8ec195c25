//! The columns: their names, kinds and meaning, a record as a row of them, and a row as a record again.
//!
//! To add a column: one line in a table below, one in the function that fills it, one in the function that reads it,
//! in the same place of each. Files without it read as if it were empty, so no version changes. A test makes a
//! record into a row and back; another wants every column in docs/history.md.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, sync::Arc, sync::LazyLock};

use datapath_abi::{
    event::{EndReason, EventKind, Hook},
    policy::Direction,
    reason::DropReason,
};
use flows::{
    FlowRecord,
    record::{
        End, Icmp, IdentityInfo, Node, PodInfo, PolicyInfo, RuleInfo, RuleRef, RuleScope, Ruling, ServiceInfo, Traffic,
        Workload,
    },
};
use proto::flow::Verdict;

use crate::cell::{
    Kind::{self, Many, One},
    Leaf::{Bool, Text, Time, Uint},
    Shape,
};

pub use crate::{cell::Cell, pool::Pools};

/// One column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    /// Name in the file.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// What it means, for the documentation.
    pub about: &'static str,
}

type Line = (&'static str, Kind, &'static str);

const LABELS: Kind = Many(Shape::Map, &[("key", Text), ("value", Text)]);
const NAMES: Kind = Many(Shape::List, &[("element", Text)]);
const POLICIES: Kind =
    Many(Shape::Structs, &[("kind", Text), ("namespace", Text), ("name", Text), ("uid", Text), ("revision", Uint(64))]);

const HEAD: &[Line] = &[
    ("time", One(Time), "when the packet was seen or the connection was reported, by the node's clock"),
    ("uid", One(Text), "version 7 UUID, the same wherever the record is sent"),
    ("node_epoch", One(Uint(64)), "tells the daemon's starts apart"),
    ("sequence", One(Uint(64)), "number since that start, from 1 without gaps: a gap is a loss"),
    ("node_name", One(Text), "the node that saw it"),
    ("cluster", One(Text), "the node's cluster"),
    ("node_labels", LABELS, "the node's labels"),
    ("kind", One(Text), "`opened`, `dropped`, `closed`, `active`"),
    ("verdict", One(Text), "`forwarded` or `dropped`"),
    ("direction", One(Text), "`egress` or `ingress` of the pod of this node that it is about"),
    ("drop_reason", One(Text), "why it was dropped: a name of docs/abi.md"),
    ("denied_in", One(Text), "the direction in which policy denied it"),
    ("end_reason", One(Text), "`fin`, `rst`, `idle`, `policy_change`, `endpoint_gone`, `replaced`"),
    ("opened_time", One(Time), "when the connection began"),
    ("reply", One(Bool), "a packet from responder to initiator"),
    ("protocol", One(Uint(8)), "IANA number"),
    ("icmp_type", One(Uint(8)), "ICMP"),
    ("icmp_code", One(Uint(8)), "ICMP"),
    ("service_ip", One(Text), "the Service's address that was spoken to, if the destination is its backend"),
    ("service_port", One(Uint(16)), "and its port"),
    ("hook", One(Text), "`from_pod`, `to_pod`, `from_uplink`: which program saw it"),
    ("ifindex", One(Uint(32)), "interface it was seen at"),
    ("forward_packets", One(Uint(64)), "source to destination, total so far"),
    ("forward_bytes", One(Uint(64)), "from the network header on, total so far"),
    ("forward_tcp_flags", One(Uint(8)), "of the packet, or all that were seen"),
    ("reverse_packets", One(Uint(64)), "destination to source"),
    ("reverse_bytes", One(Uint(64)), "destination to source"),
    ("reverse_tcp_flags", One(Uint(8)), "destination to source"),
    ("rtt_us", One(Uint(32)), "microseconds from the first packet to the first answer"),
];

/// Of each end, behind `src_` and `dst_`.
const END: &[Line] = &[
    ("ip", One(Text), "address"),
    ("port", One(Uint(16)), "port, 0 for protocols without"),
    ("identity", One(Uint(32)), "identity that the verdict was reached with"),
    ("slot", One(Uint(32)), "endpoint number, 0 if not on this node"),
    ("namespace", One(Text), "of the pod, or of the identity if the pod is not known"),
    ("pod_name", One(Text), "pod"),
    ("pod_uid", One(Text), "pod"),
    ("service_account", One(Text), "of the pod, or of the identity"),
    ("workload_kind", One(Text), "`Deployment`, ..."),
    ("workload_name", One(Text), "its name"),
    ("pod_identity", One(Uint(32)), "the pod's own identity"),
    ("labels", LABELS, "the pod's, every one"),
    ("identity_namespace", One(Text), "what the identity stands for; empty for reserved ones"),
    ("identity_service_account", One(Text), "of the identity"),
    ("identity_labels", LABELS, "of the identity"),
    ("service_namespace", One(Text), "the Service that was addressed"),
    ("service_name", One(Text), "the Service that was addressed"),
    ("dns_names", NAMES, "names under which pods have resolved the address"),
];

/// What each side's policies said, behind `egress_`, `ingress_`, `staged_egress_`, `staged_ingress_`.
const RULING: &[Line] = &[
    ("ruling", One(Text), "`not_asked`, `open`, `allowed`, `denied`, `isolated`, `exempt`"),
    ("rule_cookie", One(Uint(32)), "the datapath's number of the rule"),
    ("rule_direction", One(Text), "which list of the policy the rule stands in"),
    ("rule_index", One(Uint(32)), "its position there, from 0"),
    ("rule_scope", One(Text), "`all`, `peers`, `ports`, `peers_and_ports`"),
    ("policies", POLICIES, "the rule's policy, or all that isolate the pod"),
];

/// All columns, in the order of the cells of a row.
pub fn all() -> &'static [Column] {
    static ALL: LazyLock<Vec<Column>> = LazyLock::new(|| {
        let tables: [(&str, &[Line]); 7] = [
            ("", HEAD),
            ("src_", END),
            ("dst_", END),
            ("egress_", RULING),
            ("ingress_", RULING),
            ("staged_egress_", RULING),
            ("staged_ingress_", RULING),
        ];
        let column = |front: &str, &(name, kind, about): &Line| Column { name: format!("{front}{name}"), kind, about };
        tables.iter().flat_map(|(front, lines)| lines.iter().map(|line| column(front, line))).collect()
    });
    &ALL
}

/// Position of a column. `time` stands in front, for readers that look no further.
pub const TIME: usize = 0;

const KINDS: &[(EventKind, &str)] = &[
    (EventKind::Opened, "opened"),
    (EventKind::Dropped, "dropped"),
    (EventKind::Closed, "closed"),
    (EventKind::Active, "active"),
];
const ENDS: &[(EndReason, &str)] = &[
    (EndReason::Fin, "fin"),
    (EndReason::Rst, "rst"),
    (EndReason::Idle, "idle"),
    (EndReason::PolicyChange, "policy_change"),
    (EndReason::EndpointGone, "endpoint_gone"),
    (EndReason::Replaced, "replaced"),
];
const HOOKS: &[(Hook, &str)] =
    &[(Hook::FromPod, "from_pod"), (Hook::ToPod, "to_pod"), (Hook::FromUplink, "from_uplink")];
const DIRECTIONS: &[(Direction, &str)] = &[(Direction::Egress, "egress"), (Direction::Ingress, "ingress")];
const SCOPES: &[(RuleScope, &str)] = &[
    (RuleScope::All, "all"),
    (RuleScope::Peers, "peers"),
    (RuleScope::Ports, "ports"),
    (RuleScope::PeersAndPorts, "peers_and_ports"),
];

fn name<T: PartialEq>(names: &[(T, &'static str)], value: &T) -> Cell<'static> {
    // A value that has no name yet is found by the test that makes all of them.
    names.iter().find(|(known, _)| known == value).map_or(Cell::Null, |(_, name)| Cell::text(name))
}

/// `None` is what is there when nothing is; a word that we do not know is an error.
fn value<T: Copy>(names: &[(T, &'static str)], row: &mut Row<'_, '_>) -> Result<Option<T>, NotARecord> {
    let Some(word) = row.text()? else { return Ok(None) };
    match names.iter().find(|(_, name)| *name == word) {
        Some((value, _)) => Ok(Some(*value)),
        None => Err(row.wrong()),
    }
}

/// A record as a row: a cell for each of [`all`].
pub fn row(record: &FlowRecord) -> Vec<Cell<'_>> {
    let FlowRecord {
        sequence,
        time_unix_ns,
        opened_unix_ns,
        node,
        kind,
        reply,
        source,
        destination,
        protocol,
        icmp,
        drop_reason,
        denied_in,
        end_reason,
        hook,
        ifindex,
        forward,
        reverse,
        rtt_us,
        addressed,
        egress,
        ingress,
        staged_egress,
        staged_ingress,
    } = record;
    let Node { name: node_name, cluster, labels: node_labels, epoch } = &**node;
    let optional = |number: Option<u64>| number.map_or(Cell::Null, Cell::Number);
    let mut cells = Vec::with_capacity(all().len());
    cells.extend([
        Cell::number(*time_unix_ns),
        Cell::Text(record.uuid().to_string().into()),
        Cell::number(*epoch),
        Cell::number(*sequence),
        Cell::text(node_name),
        Cell::text(cluster),
        labels(node_labels),
        name(KINDS, kind),
        Cell::text(match record.verdict() {
            Verdict::Dropped => "dropped",
            _ => "forwarded",
        }),
        record.direction().map_or(Cell::Null, |it| name(DIRECTIONS, &it)),
        drop_reason.map_or(Cell::Null, |it| Cell::text(it.name())),
        denied_in.map_or(Cell::Null, |it| name(DIRECTIONS, &it)),
        end_reason.map_or(Cell::Null, |it| name(ENDS, &it)),
        optional(*opened_unix_ns),
        Cell::number(u64::from(*reply)),
        Cell::number(*protocol),
        optional(icmp.map(|it| it.kind.into())),
        optional(icmp.map(|it| it.code.into())),
        addressed.map_or(Cell::Null, |it| Cell::Text(it.ip().to_string().into())),
        optional(addressed.map(|it| it.port().into())),
        name(HOOKS, hook),
        Cell::number(*ifindex),
        Cell::number(forward.packets),
        Cell::number(forward.bytes),
        Cell::number(forward.tcp_flags),
        Cell::number(reverse.packets),
        Cell::number(reverse.bytes),
        Cell::number(reverse.tcp_flags),
        optional(rtt_us.map(|it| it.get().into())),
    ]);
    end(source, &mut cells);
    end(destination, &mut cells);
    for said in [Some(egress), Some(ingress), staged_egress.as_ref(), staged_ingress.as_ref()] {
        ruling(said, &mut cells);
    }
    cells
}

fn labels(labels: &BTreeMap<String, String>) -> Cell<'_> {
    Cell::Many(labels.iter().flat_map(|(key, value)| [Cell::text(key), Cell::text(value)]).collect())
}

fn end<'a>(it: &'a End, cells: &mut Vec<Cell<'a>>) {
    let End { ip, port, identity, slot, pod, known_as, service, dns_names } = it;
    let workload = pod.as_ref().and_then(|pod| pod.workload.as_ref());
    // The same as that of the pod, if there is one.
    let (namespace, account) = (it.namespace(), it.service_account());
    cells.extend([
        Cell::Text(ip.to_string().into()),
        Cell::number(*port),
        Cell::number(*identity),
        Cell::number(*slot),
        Cell::filled(namespace),
        pod.as_ref().map_or(Cell::Null, |pod| Cell::text(&pod.name)),
        pod.as_ref().map_or(Cell::Null, |pod| Cell::filled(&pod.uid)),
        Cell::filled(account),
        workload.map_or(Cell::Null, |it| Cell::text(&it.kind)),
        workload.map_or(Cell::Null, |it| Cell::text(&it.name)),
        pod.as_ref().map_or(Cell::Null, |pod| Cell::number(pod.identity)),
        pod.as_ref().map_or(Cell::Null, |pod| labels(&pod.labels)),
        known_as.as_ref().map_or(Cell::Null, |it| Cell::text(&it.namespace)),
        known_as.as_ref().map_or(Cell::Null, |it| Cell::filled(&it.service_account)),
        known_as.as_ref().map_or(Cell::Null, |it| labels(&it.labels)),
        service.as_ref().map_or(Cell::Null, |it| Cell::text(&it.namespace)),
        service.as_ref().map_or(Cell::Null, |it| Cell::text(&it.name)),
        dns_names.as_ref().map_or(Cell::Null, |names| Cell::Many(names.iter().map(|name| Cell::text(name)).collect())),
    ]);
}

fn ruling<'a>(it: Option<&'a Ruling>, cells: &mut Vec<Cell<'a>>) {
    let policy = |PolicyInfo { kind, namespace, name, uid, revision }: &'a PolicyInfo| {
        [Cell::text(kind), Cell::text(namespace), Cell::text(name), Cell::text(uid), Cell::number(*revision)]
    };
    let word = match it {
        None => return cells.extend([const { Cell::Null }; RULING.len()]),
        Some(Ruling::NotAsked) => "not_asked",
        Some(Ruling::Open) => "open",
        Some(Ruling::Allowed(_)) => "allowed",
        Some(Ruling::Denied(_)) => "denied",
        Some(Ruling::Isolated(_)) => "isolated",
        Some(Ruling::Exempt) => "exempt",
    };
    cells.push(Cell::text(word));
    match it {
        Some(Ruling::Allowed(RuleRef { cookie, info }) | Ruling::Denied(RuleRef { cookie, info })) => {
            cells.push(Cell::number(*cookie));
            match info {
                Some(info) => cells.extend([
                    name(DIRECTIONS, &info.direction),
                    Cell::number(info.index),
                    name(SCOPES, &info.scope),
                    Cell::Many(policy(&info.policy).into()),
                ]),
                None => cells.extend([const { Cell::Null }; 4]),
            }
        }
        Some(Ruling::Isolated(policies)) => {
            cells.extend([const { Cell::Null }; 4]);
            cells.push(Cell::Many(policies.iter().flat_map(|it| policy(it)).collect()));
        }
        None | Some(Ruling::NotAsked | Ruling::Open | Ruling::Exempt) => cells.extend([const { Cell::Null }; 5]),
    }
}

/// A row that is no record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {0} holds what it cannot")]
pub struct NotARecord(String);

/// Reads a row from its first cell to its last.
struct Row<'r, 'c> {
    cells: &'r [Cell<'c>],
    next: usize,
}

impl<'r> Row<'r, '_> {
    fn wrong(&self) -> NotARecord {
        let at = self.next.saturating_sub(1);
        NotARecord(all().get(at).map_or_else(|| format!("number {at}"), |it| it.name.clone()))
    }

    fn cell(&mut self) -> &'r Cell<'r> {
        let cell = self.cells.get(self.next).unwrap_or(&Cell::Null);
        self.next += 1;
        cell
    }

    fn text(&mut self) -> Result<Option<&'r str>, NotARecord> {
        match self.cell() {
            Cell::Null => Ok(None),
            Cell::Text(text) => Ok(Some(text)),
            Cell::Number(_) | Cell::Many(_) => Err(self.wrong()),
        }
    }

    fn string(&mut self) -> Result<String, NotARecord> {
        Ok(self.text()?.unwrap_or_default().to_owned())
    }

    fn number<T: TryFrom<u64>>(&mut self) -> Result<Option<T>, NotARecord> {
        match self.cell() {
            Cell::Null => Ok(None),
            Cell::Number(number) => T::try_from(*number).map(Some).map_err(|_| self.wrong()),
            Cell::Text(_) | Cell::Many(_) => Err(self.wrong()),
        }
    }

    fn count<T: TryFrom<u64> + Default>(&mut self) -> Result<T, NotARecord> {
        Ok(self.number()?.unwrap_or_default())
    }

    fn many(&mut self) -> Result<Option<&'r [Cell<'r>]>, NotARecord> {
        match self.cell() {
            Cell::Null => Ok(None),
            Cell::Many(parts) => Ok(Some(parts)),
            Cell::Number(_) | Cell::Text(_) => Err(self.wrong()),
        }
    }

    fn labels(&mut self) -> Result<BTreeMap<String, String>, NotARecord> {
        let mut labels = BTreeMap::new();
        for pair in self.many()?.unwrap_or_default().chunks(2) {
            match pair {
                [Cell::Text(key), Cell::Text(value)] => {
                    labels.insert(key.clone().into_owned(), value.clone().into_owned())
                }
                _ => return Err(self.wrong()),
            };
        }
        Ok(labels)
    }

    fn policies(&mut self, pools: &mut Pools) -> Result<Option<Vec<Arc<PolicyInfo>>>, NotARecord> {
        let Some(parts) = self.many()? else { return Ok(None) };
        let mut policies = Vec::new();
        for fields in parts.chunks(POLICIES.arity()) {
            let [Cell::Text(kind), Cell::Text(namespace), Cell::Text(name), Cell::Text(uid), Cell::Number(revision)] =
                fields
            else {
                return Err(self.wrong());
            };
            let own = |text: &str| text.to_owned();
            let policy = PolicyInfo {
                kind: own(kind),
                namespace: own(namespace),
                name: own(name),
                uid: own(uid),
                revision: *revision,
            };
            policies.push(pools.policies.share(name, policy));
        }
        Ok(Some(policies))
    }

    fn end(&mut self, pools: &mut Pools) -> Result<End, NotARecord> {
        let ip = self.text()?.and_then(|text| text.parse().ok());
        let ip = ip.ok_or_else(|| self.wrong())?;
        let (port, identity, slot): (u16, u32, u32) = (self.count()?, self.count()?, self.count()?);
        let namespace = self.string()?;
        let pod_name = self.text()?;
        let (uid, service_account) = (self.string()?, self.string()?);
        let workload = match (self.text()?, self.text()?) {
            (Some(kind), Some(name)) => Some(Workload { kind: kind.to_owned(), name: name.to_owned() }),
            _ => None,
        };
        let pod_identity = self.count()?;
        let labels = self.labels()?;
        let pod = pod_name.map(|name| {
            let info = PodInfo {
                namespace,
                name: name.to_owned(),
                uid,
                labels,
                service_account,
                workload,
                identity: pod_identity,
            };
            pools.pods.share(name, info)
        });
        let known_namespace = self.text()?;
        let (service_account, labels) = (self.string()?, self.labels()?);
        let known_as = known_namespace.map(|namespace| {
            let info = IdentityInfo { namespace: namespace.to_owned(), labels, service_account };
            pools.identities.share(&identity.to_string(), info)
        });
        let service = match (self.text()?, self.text()?) {
            (Some(namespace), Some(name)) => {
                let info = ServiceInfo { namespace: namespace.to_owned(), name: name.to_owned() };
                Some(pools.services.share(name, info))
            }
            _ => None,
        };
        let mut dns_names = None;
        if let Some(parts) = self.many()? {
            let names: Option<Vec<String>> = parts.iter().map(|it| it.as_text().map(str::to_owned)).collect();
            dns_names = Some(names.ok_or_else(|| self.wrong())?.into());
        }
        Ok(End { ip, port, identity, slot, pod, known_as, service, dns_names })
    }

    fn ruling(&mut self, pools: &mut Pools) -> Result<Option<Ruling>, NotARecord> {
        let word = self.text()?;
        let unknown = self.wrong();
        let cookie: Option<u32> = self.number()?;
        let (direction, index, scope) = (value(DIRECTIONS, self)?, self.number()?, value(SCOPES, self)?);
        let policies = self.policies(pools)?;
        let rule = |pools: &mut Pools, policies: Option<Vec<Arc<PolicyInfo>>>| {
            let cookie = cookie.unwrap_or_default();
            let policy = policies.and_then(|policies| policies.into_iter().next());
            let info = match (policy, direction, index, scope) {
                (Some(policy), Some(direction), Some(index), Some(scope)) => {
                    Some(pools.rules.share(&cookie.to_string(), RuleInfo { policy, direction, index, scope }))
                }
                _ => None,
            };
            RuleRef { cookie, info }
        };
        Ok(Some(match word {
            None => return Ok(None),
            Some("not_asked") => Ruling::NotAsked,
            Some("open") => Ruling::Open,
            Some("allowed") => Ruling::Allowed(rule(pools, policies)),
            Some("denied") => Ruling::Denied(rule(pools, policies)),
            Some("isolated") => Ruling::Isolated(policies.unwrap_or_default().into()),
            Some("exempt") => Ruling::Exempt,
            Some(_) => return Err(unknown),
        }))
    }
}

/// A row as the record it was made from.
///
/// # Errors
/// A cell holds what its column cannot.
pub fn record(cells: &[Cell<'_>], pools: &mut Pools) -> Result<FlowRecord, NotARecord> {
    let mut row = Row { cells, next: 0 };
    let time_unix_ns = row.number()?.ok_or_else(|| row.wrong())?;
    let _uid = row.text()?;
    let (epoch, sequence) = (row.count()?, row.count()?);
    let node_name = row.string()?;
    let node = Node { name: node_name.clone(), cluster: row.string()?, labels: row.labels()?, epoch };
    let node = pools.nodes.share(&node_name, node);
    let kind = value(KINDS, &mut row)?.ok_or_else(|| row.wrong())?;
    // Made from the others.
    let (_verdict, _direction) = (row.text()?, row.text()?);
    let mut drop_reason = None;
    if let Some(word) = row.text()? {
        drop_reason = Some(*DropReason::ALL.iter().find(|it| it.name() == word).ok_or_else(|| row.wrong())?);
    }
    let denied_in = value(DIRECTIONS, &mut row)?;
    let end_reason = value(ENDS, &mut row)?;
    let opened_unix_ns = row.number()?;
    let reply = row.count::<u64>()? != 0;
    let protocol = row.count()?;
    let icmp = match (row.number()?, row.number()?) {
        (Some(kind), Some(code)) => Some(Icmp { kind, code }),
        _ => None,
    };
    let addressed = match (row.text()?, row.number()?) {
        (Some(ip), Some(port)) => Some(SocketAddr::new(ip.parse().map_err(|_| row.wrong())?, port)),
        _ => None,
    };
    let hook = value(HOOKS, &mut row)?.ok_or_else(|| row.wrong())?;
    let ifindex = row.count()?;
    let forward = Traffic { packets: row.count()?, bytes: row.count()?, tcp_flags: row.count()? };
    let reverse = Traffic { packets: row.count()?, bytes: row.count()?, tcp_flags: row.count()? };
    let rtt_us = NonZeroU32::new(row.count()?);
    let (source, destination) = (row.end(pools)?, row.end(pools)?);
    let mut rulings = [const { None }; 4];
    for place in &mut rulings {
        *place = row.ruling(pools)?;
    }
    let [egress, ingress, staged_egress, staged_ingress] = rulings;
    Ok(FlowRecord {
        sequence,
        time_unix_ns,
        opened_unix_ns,
        node,
        kind,
        reply,
        source,
        destination,
        protocol,
        icmp,
        drop_reason,
        denied_in,
        end_reason,
        hook,
        ifindex,
        forward,
        reverse,
        rtt_us,
        addressed,
        egress: egress.unwrap_or(Ruling::NotAsked),
        ingress: ingress.unwrap_or(Ruling::NotAsked),
        staged_egress,
        staged_ingress,
    })
}

#[cfg(test)]
mod document;
#[cfg(test)]
mod tests;
