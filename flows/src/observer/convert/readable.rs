//! `bulkhead.flow.v1.FlowExtension` as a `google.protobuf.Struct`: the names of the .proto file,
//! enumerations by name, nothing that is empty or zero. Written out by hand, because messages do
//! not describe themselves here; every message is taken apart by name, so that none can be forgotten.

use std::collections::BTreeMap;

use prost_types::{ListValue, Struct, Value, value::Kind};
use proto::bulkhead::flow::v1::{
    End, EndReason, EventKind, FlowExtension, Lookup, LookupOutcome, LookupRecord, Outcome, Policy, Rule, Ruling,
    Traffic,
};

/// Collects the fields of one message.
#[derive(Default)]
struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, kind: Kind) {
        self.0.insert(name.to_owned(), Value { kind: Some(kind) });
    }

    fn text(mut self, name: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.is_empty() {
            self.put(name, Kind::StringValue(text));
        }
        self
    }

    /// Exact up to 2^53, like every number in JSON.
    fn number(mut self, name: &str, number: u64) -> Self {
        if number != 0 {
            self.put(name, Kind::NumberValue(number as f64));
        }
        self
    }

    /// One that is set.
    fn flag(mut self, name: &str) -> Self {
        self.put(name, Kind::BoolValue(true));
        self
    }

    fn object(mut self, name: &str, object: Option<Fields>) -> Self {
        if let Some(object) = object {
            self.put(name, Kind::StructValue(object.into_struct()));
        }
        self
    }

    fn list(mut self, name: &str, objects: Vec<Fields>) -> Self {
        if !objects.is_empty() {
            let values = objects
                .into_iter()
                .map(|object| Value { kind: Some(Kind::StructValue(object.into_struct())) })
                .collect();
            self.put(name, Kind::ListValue(ListValue { values }));
        }
        self
    }

    fn into_struct(self) -> Struct {
        Struct { fields: self.0 }
    }
}

/// The whole extension.
pub(super) fn object(extension: FlowExtension) -> Struct {
    let FlowExtension {
        kind,
        sequence,
        opened,
        end_reason,
        drop_reason,
        drop_text,
        forward,
        reverse,
        rtt_us,
        egress,
        ingress,
        source,
        destination,
        protocol,
        staged_egress,
        staged_ingress,
        addressed,
        lookup,
    } = extension;
    let kind = EventKind::try_from(kind).unwrap_or_default();
    let end_reason = EndReason::try_from(end_reason).unwrap_or_default();
    Fields::default()
        .text("kind", kind.as_str_name())
        .number("sequence", sequence)
        .text("opened", opened.map_or_else(String::new, |time| time.to_string()))
        .text("end_reason", if end_reason == EndReason::Unspecified { "" } else { end_reason.as_str_name() })
        .text("drop_reason", drop_reason)
        .text("drop_text", drop_text)
        .object("forward", forward.map(traffic))
        .object("reverse", reverse.map(traffic))
        .number("rtt_us", rtt_us.into())
        .object("egress", egress.map(ruling))
        .object("ingress", ingress.map(ruling))
        .object("staged_egress", staged_egress.map(ruling))
        .object("staged_ingress", staged_ingress.map(ruling))
        .object("source", source.map(end))
        .object("destination", destination.map(end))
        .number("protocol", protocol.into())
        .text("addressed", addressed)
        .object("lookup", lookup.map(self::lookup))
        .into_struct()
}

fn traffic(traffic: Traffic) -> Fields {
    let Traffic { packets, bytes, tcp_flags } = traffic;
    Fields::default().number("packets", packets).number("bytes", bytes).number("tcp_flags", tcp_flags.into())
}

fn lookup(lookup: Lookup) -> Fields {
    let Lookup { name, r#type, class, id, tries, outcome, rcode, latency_ns, flags, records, announced, cut } = lookup;
    let record = |LookupRecord { r#type, class, ttl, data }| {
        Fields::default().text("type", r#type).text("class", class).number("ttl", u64::from(ttl)).text("data", data)
    };
    let fields = Fields::default()
        .text("name", name)
        .text("type", r#type)
        .text("class", class)
        .number("id", id.into())
        .number("tries", tries.into())
        .text("outcome", LookupOutcome::try_from(outcome).unwrap_or_default().as_str_name())
        .text("rcode", rcode)
        .number("latency_ns", latency_ns)
        .number("flags", flags.into())
        .list("records", records.into_iter().map(record).collect())
        .number("announced", announced.into());
    if cut { fields.flag("cut") } else { fields }
}

fn ruling(ruling: Ruling) -> Fields {
    let Ruling { outcome, rule, isolated_by } = ruling;
    let outcome = Outcome::try_from(outcome).unwrap_or_default();
    let rule = rule.map(|Rule { policy: named, index, cookie }| {
        let mut fields = Fields::default().object("policy", named.map(policy)).number("cookie", cookie.into());
        // Rule 0 is a rule like any other.
        fields.put("index", Kind::NumberValue(index.into()));
        fields
    });
    Fields::default()
        .text("outcome", outcome.as_str_name())
        .object("rule", rule)
        .list("isolated_by", isolated_by.into_iter().map(policy).collect())
}

fn policy(policy: Policy) -> Fields {
    let Policy { kind, namespace, name, uid } = policy;
    Fields::default().text("kind", kind).text("namespace", namespace).text("name", name).text("uid", uid)
}

fn end(end: End) -> Fields {
    let End { service_account, pod_uid } = end;
    Fields::default().text("service_account", service_account).text("pod_uid", pod_uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        observer::convert::{extension, flow},
    };

    /// As compact JSON, for reading.
    fn json(kind: &Option<Kind>) -> String {
        match kind {
            Some(Kind::StringValue(text)) => format!("{text:?}"),
            Some(Kind::NumberValue(number)) => number.to_string(),
            Some(Kind::StructValue(object)) => json_object(object),
            Some(Kind::ListValue(list)) => {
                let items: Vec<String> = list.values.iter().map(|value| json(&value.kind)).collect();
                format!("[{}]", items.join(","))
            }
            other => panic!("never made: {other:?}"),
        }
    }

    fn json_object(object: &Struct) -> String {
        let fields: Vec<String> =
            object.fields.iter().map(|(name, value)| format!("{name}:{}", json(&value.kind))).collect();
        format!("{{{}}}", fields.join(","))
    }

    fn readable(event: &datapath_abi::event::FlowEvent) -> String {
        json_object(&object(extension(&flow(&fixture::record(event))).unwrap()))
    }

    #[test]
    fn a_denial_reads_as_isolated_by_its_policies() {
        assert_eq!(
            readable(&fixture::denied()),
            concat!(
                r#"{destination:{pod_uid:"uid-db-0",service_account:"db-sa"},"#,
                r#"drop_reason:"default_deny",drop_text:"isolated by policy and no rule allows it","#,
                r#"egress:{outcome:"OPEN"},forward:{bytes:60,packets:1,tcp_flags:2},"#,
                r#"ingress:{isolated_by:["#,
                r#"{kind:"NetworkPolicy",name:"db-clients",namespace:"shop",uid:"uid-db-clients"},"#,
                r#"{kind:"NetworkPolicy",name:"default-deny",namespace:"shop",uid:"uid-default-deny"}],"#,
                r#"outcome:"ISOLATED"},kind:"DROPPED",protocol:6,reverse:{},sequence:1,"#,
                r#"source:{pod_uid:"uid-eve-0",service_account:"eve-sa"}}"#,
            )
        );
    }

    #[test]
    fn a_lookup_reads_with_its_answer() {
        let record = &fixture::lookups(&fixture::world())[0];
        let text = json_object(&object(extension(&flow(record)).unwrap()));
        let lookup = concat!(
            r#"lookup:{announced:2,class:"IN",flags:384,id:4711,latency_ns:1250000,name:"www.example.com",outcome:"ANSWERED","#,
            r#"rcode:"NOERROR",records:[{class:"IN",data:"edge.example.net",ttl:300,type:"CNAME"},"#,
            r#"{class:"IN",data:"192.0.2.7",ttl:30,type:"A"}],tries:1,type:"A"}"#,
        );
        assert!(text.contains(lookup), "{text}");
    }

    #[test]
    fn an_end_reads_with_its_rule_totals_and_times() {
        assert_eq!(
            readable(&fixture::closed()),
            concat!(
                r#"{destination:{pod_uid:"uid-db-0",service_account:"db-sa"},egress:{outcome:"OPEN"},"#,
                r#"end_reason:"FIN",forward:{bytes:1200,packets:10,tcp_flags:27},"#,
                r#"ingress:{outcome:"RULE_ALLOWS",rule:{cookie:71,index:1,"#,
                r#"policy:{kind:"NetworkPolicy",name:"db-clients",namespace:"shop",uid:"uid-db-clients"}}},"#,
                r#"kind:"CLOSED",opened:"2026-01-02T03:04:05Z",protocol:6,"#,
                r#"reverse:{bytes:9000,packets:8,tcp_flags:27},rtt_us:150,sequence:1,"#,
                r#"source:{pod_uid:"uid-web-0",service_account:"web-sa"}}"#,
            )
        );
    }
}
