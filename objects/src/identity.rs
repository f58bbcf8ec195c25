//! Identity, our own kind: a number that means the same on every node of a cluster, and what it means. Its name is the
//! number. Read and written here, so that both say the same.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use policy::{IdentityKey, identity::SHARED_NUMBERS, model::Labels};
use serde_json::{Map, Value, json};

use crate::error::Problem;
use crate::findings::Findings;
use crate::path::{FieldPath, Quoted};
use crate::{metadata, syntax};

/// API group of our kinds.
pub const GROUP: &str = "bulkhead.io";
/// Version of [`GROUP`].
pub const VERSION: &str = "v1";
/// Kind.
pub const KIND: &str = "Identity";
/// As URLs name it.
pub const PLURAL: &str = "identities";

/// Annotation of one that no pod has: since when, RFC 3339. Who uses it again takes it off.
pub const UNUSED_SINCE: &str = "bulkhead.io/unused-since";

/// Validates an Identity: its number, and what it stands for. `spec` is what lies under that name.
///
/// # Errors
///
/// Everything that is wrong with it, by field.
pub fn identity(meta: &ObjectMeta, spec: &Value) -> Result<(u32, IdentityKey), Vec<Problem>> {
    let mut findings = Findings::default();
    metadata::no_namespace(KIND, meta, &mut findings);
    let name = meta.name.as_deref().unwrap_or_default();
    let number = number(name);
    if number.is_none() {
        let (first, last) = (SHARED_NUMBERS.start(), SHARED_NUMBERS.end());
        let what = format!("{} is not a number from {first} to {last}", Quoted(name));
        findings.add(&FieldPath::of(&["metadata", "name"]), what, "delete it: agents make those that are needed");
    }
    let key = match spec.as_object() {
        Some(spec) => key(spec, &mut findings),
        None => {
            findings.add(&FieldPath::of(&["spec"]), "there is none", "delete it: agents make those that are needed");
            None
        }
    };
    findings.finish(number.zip(key))
}

/// What a name says. Nothing but the usual way to write a number, so that each has one name.
fn number(name: &str) -> Option<u32> {
    let number: u32 = name.parse().ok().filter(|number| SHARED_NUMBERS.contains(number))?;
    (number.to_string() == name).then_some(number)
}

fn key(spec: &Map<String, Value>, findings: &mut Findings) -> Option<IdentityKey> {
    for field in spec.keys() {
        if !["namespace", "namespaceLabels", "labels", "serviceAccount"].contains(&field.as_str()) {
            findings.add(&FieldPath::of(&["spec"]).key(field), "is no field of an Identity", "leave it out");
        }
    }
    let namespace = text(spec, "namespace", syntax::dns_label, findings);
    let service_account = text(spec, "serviceAccount", syntax::dns_subdomain, findings);
    let namespace_labels = labels(spec, "namespaceLabels", findings);
    let labels = labels(spec, "labels", findings);
    Some(IdentityKey {
        namespace: namespace?,
        namespace_labels: namespace_labels?,
        labels: labels?,
        service_account: service_account?,
    })
}

type Form = fn(&str) -> Result<(), syntax::Malformed>;

fn text(spec: &Map<String, Value>, field: &str, form: Form, findings: &mut Findings) -> Option<String> {
    let path = FieldPath::of(&["spec", field]);
    match spec.get(field) {
        Some(Value::String(text)) => findings.check(&path, text, form(text)).map(|()| text.clone()),
        _ => {
            findings.add(&path, "there is no text", "write one");
            None
        }
    }
}

fn labels(spec: &Map<String, Value>, field: &str, findings: &mut Findings) -> Option<Labels> {
    let path = FieldPath::of(&["spec", field]);
    let mut labels = BTreeMap::new();
    match spec.get(field) {
        None => {}
        Some(Value::Object(given)) => {
            for (key, value) in given {
                match value.as_str() {
                    Some(value) => drop(labels.insert(key.clone(), value.to_owned())),
                    None => findings.add(&path.key(key), "the value of a label is a text", "write one"),
                }
            }
        }
        Some(_) => findings.add(&path, "these are no labels", "write keys and values"),
    }
    metadata::check_labels(&path, Some(&labels), findings);
    Some(labels.into_iter().collect())
}

/// The object that says what a number stands for.
pub fn object(number: u32, key: &IdentityKey) -> Value {
    let IdentityKey { namespace, namespace_labels, labels, service_account } = key;
    let plain = |labels: &Labels| -> Map<String, Value> {
        labels.iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
    };
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": KIND,
        "metadata": {"name": number.to_string()},
        "spec": {
            "namespace": namespace,
            "namespaceLabels": plain(namespace_labels),
            "labels": plain(labels),
            "serviceAccount": service_account,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, spec: Value) -> Result<(u32, IdentityKey), Vec<String>> {
        let meta = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        identity(&meta, &spec).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let key = IdentityKey {
            namespace: "shop".to_owned(),
            namespace_labels: Labels::default().with("kubernetes.io/metadata.name", "shop"),
            labels: Labels::default().with("app", "web").with("empty", ""),
            service_account: "default".to_owned(),
        };
        for number in [*SHARED_NUMBERS.start(), 70_000, *SHARED_NUMBERS.end()] {
            let object = object(number, &key);
            let name = object["metadata"]["name"].as_str().unwrap();
            assert_eq!(read(name, object["spec"].clone()), Ok((number, key.clone())));
        }
        let bare = json!({"namespace": "shop", "serviceAccount": "default"});
        let (_, bare) = read("70000", bare).unwrap();
        assert!(bare.labels.is_empty() && bare.namespace_labels.is_empty());
    }

    #[test]
    fn what_cannot_be_is_refused_by_field() {
        let good = || json!({"namespace": "a", "serviceAccount": "default", "labels": {"app": "web"}});
        for name in ["", "0", "255", "256", "65535", "16777216", "070000", "+70000", "70000 ", "web", "4295037296"] {
            let said = read(name, good()).unwrap_err();
            assert!(said.len() == 1 && said[0].contains("metadata.name"), "{name}: {said:?}");
        }
        for (field, value) in [
            ("namespace", json!("A")),
            ("namespace", json!(1)),
            ("namespace", Value::Null),
            ("serviceAccount", json!("-")),
            ("labels", json!([])),
            ("labels", json!({"app": 1})),
            ("labels", json!({"a b": "c"})),
            ("namespaceLabels", json!({"a": "c d"})),
            ("more", json!({})),
        ] {
            let mut spec = good();
            spec[field] = value;
            let said = read("70000", spec.clone()).unwrap_err();
            assert!(said.iter().any(|line| line.contains(&format!("spec.{field}"))), "{spec}: {said:?}");
        }
        assert!(read("70000", Value::Null).unwrap_err()[0].contains("spec"));
    }
}
