//! A record as a row, in the order of the tables.

use std::collections::BTreeMap;

use dns::{Answer, Data, Lookup, Outcome, Record};
use flows::{
    FlowRecord,
    record::{End, Node, PolicyInfo, RuleRef, Ruling},
};
use proto::flow::Verdict;

use super::{Cell, DIRECTIONS, DNS, ENDS, HOOKS, KINDS, RULING, SCOPES, all, name};

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
        dns,
        // Each record is kept by itself.
        aggregate: _,
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
    lookup(dns.as_deref(), &mut cells);
    cells
}

fn lookup<'a>(it: Option<&'a Lookup>, cells: &mut Vec<Cell<'a>>) {
    let Some(Lookup { question, id, tries, outcome }) = it else {
        return cells.extend([const { Cell::Null }; DNS.len()]);
    };
    let (word, answer) = match outcome {
        Outcome::Answered(answer) => ("answered", Some(answer)),
        Outcome::Unanswered => ("unanswered", None),
        Outcome::Unfollowed => ("unfollowed", None),
    };
    cells.extend([
        Cell::text(&question.name),
        Cell::number(question.rtype),
        Cell::number(question.class),
        Cell::number(*id),
        Cell::number(*tries),
        Cell::text(word),
    ]);
    let Some(Answer { latency_ns, rcode, flags, records, announced, cut }) = answer else {
        return cells.extend([const { Cell::Null }; 6]);
    };
    let fields = |Record { rtype, class, ttl_s, data }: &'a Record| {
        let data = match data {
            Data::Address(ip) => Cell::Text(ip.to_string().into()),
            Data::Text(text) => Cell::text(text),
        };
        [Cell::number(*rtype), Cell::number(*class), Cell::number(*ttl_s), data]
    };
    cells.extend([
        Cell::number(*latency_ns),
        Cell::number(*rcode),
        Cell::number(*flags),
        Cell::number(*announced),
        Cell::number(u64::from(*cut)),
        Cell::Many(records.iter().flat_map(fields).collect()),
    ]);
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
