//! A row as the record it was made from, in the order of the tables.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
};

use datapath_abi::reason::DropReason;
use dns::{Answer, Data, Lookup, Outcome, Question, Record};
use flows::{
    FlowRecord,
    record::{
        End, Icmp, IdentityInfo, Node, PodInfo, PolicyInfo, RuleInfo, RuleRef, Ruling, ServiceInfo, Traffic, Workload,
    },
};

use super::{Cell, DIRECTIONS, ENDS, HOOKS, KINDS, POLICIES, Pools, RECORDS, SCOPES, all};

/// `None` is what is there when nothing is; a word that we do not know is an error.
fn value<T: Copy>(names: &[(T, &'static str)], row: &mut Row<'_, '_>) -> Result<Option<T>, NotARecord> {
    let Some(word) = row.text()? else { return Ok(None) };
    match names.iter().find(|(_, name)| *name == word) {
        Some((value, _)) => Ok(Some(*value)),
        None => Err(row.wrong()),
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
                labels: labels.into(),
                service_account,
                workload,
                identity: pod_identity,
            };
            pools.pods.share(name, info)
        });
        let known_namespace = self.text()?;
        let (service_account, labels) = (self.string()?, self.labels()?);
        let known_as = known_namespace.map(|namespace| {
            let info = IdentityInfo { namespace: namespace.to_owned(), labels: labels.into(), service_account };
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

/// Types of records whose data are addresses: A and AAAA.
const ADDRESSES: [u16; 2] = [1, 28];

impl Row<'_, '_> {
    fn lookup(&mut self) -> Result<Option<Arc<Lookup>>, NotARecord> {
        let name = self.text()?;
        let (rtype, class, id, tries) = (self.count()?, self.count()?, self.count()?, self.count()?);
        let word = self.text()?;
        let unknown = self.wrong();
        let (latency_ns, rcode, flags, announced) = (self.count()?, self.count()?, self.count()?, self.count()?);
        let cut = self.count::<u64>()? != 0;
        let mut records = Vec::new();
        for fields in self.many()?.unwrap_or_default().chunks(RECORDS.arity()) {
            let [Cell::Number(rtype), Cell::Number(class), Cell::Number(ttl_s), Cell::Text(data)] = fields else {
                return Err(self.wrong());
            };
            let small = |number: &u64| u16::try_from(*number).map_err(|_| self.wrong());
            let (rtype, class) = (small(rtype)?, small(class)?);
            let ttl_s = u32::try_from(*ttl_s).map_err(|_| self.wrong())?;
            let ip: Option<IpAddr> = data.parse().ok().filter(|_| ADDRESSES.contains(&rtype));
            let data = ip.map_or_else(|| Data::Text((&**data).into()), Data::Address);
            records.push(Record { rtype, class, ttl_s, data });
        }
        let outcome = match word {
            None => return Ok(None),
            Some("answered") => {
                Outcome::Answered(Answer { latency_ns, rcode, flags, records: records.into(), announced, cut })
            }
            Some("unanswered") => Outcome::Unanswered,
            Some("unfollowed") => Outcome::Unfollowed,
            Some(_) => return Err(unknown),
        };
        let question = Question { name: name.unwrap_or_default().into(), rtype, class };
        Ok(Some(Arc::new(Lookup { question, id, tries, outcome })))
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
    let dns = row.lookup()?;
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
        dns,
        aggregate: None,
    })
}
