//! `metadata` of any object: name, namespace and labels.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use policy::model::Labels;

use crate::findings::Findings;
use crate::path::{FieldPath, Quoted};
use crate::syntax::{self, Malformed};

/// The namespace of an object that names none, as for `kubectl` without a context.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Annotation of a NetworkPolicy or ClusterNetworkPolicy that says whether it is enforced. Its only
/// value is [`STAGED`]; without it a policy is.
pub const ENFORCEMENT: &str = "policy.bulkhead.io/enforcement";

/// Value of [`ENFORCEMENT`]: the policy is evaluated and reported, not enforced.
pub const STAGED: &str = "staged";

/// Bytes that keys and values of all annotations may have together (apimachinery,
/// `TotalAnnotationSizeLimitB`).
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// `metadata.name`.
pub(crate) fn name(
    meta: &ObjectMeta,
    form: fn(&str) -> Result<(), Malformed>,
    findings: &mut Findings,
) -> Option<String> {
    let path = FieldPath::of(&["metadata", "name"]);
    match meta.name.as_deref().unwrap_or_default() {
        "" if meta.generate_name.is_some() => {
            findings.add(&path, "there is only a generateName, which only an API server can complete", "write a name");
            None
        }
        "" => {
            findings.add(&path, "there is no name", "write one");
            None
        }
        name => findings.check(&path, name, form(name)).map(|()| name.to_owned()),
    }
}

/// `metadata.namespace`.
pub(crate) fn namespace(meta: &ObjectMeta, findings: &mut Findings) -> Option<String> {
    match meta.namespace.as_deref() {
        None | Some("") => Some(DEFAULT_NAMESPACE.to_owned()),
        Some(namespace) => {
            let path = FieldPath::of(&["metadata", "namespace"]);
            findings.check(&path, namespace, syntax::dns_label(namespace)).map(|()| namespace.to_owned())
        }
    }
}

/// Whether a policy is staged. A value that is not understood is a problem: neither enforcing nor
/// not enforcing it would be what its author meant.
pub(crate) fn is_staged(meta: &ObjectMeta, findings: &mut Findings) -> bool {
    let given = meta.annotations.as_ref().and_then(|annotations| annotations.get(ENFORCEMENT));
    let Some(given) = given else { return false };
    if given != STAGED {
        let path = FieldPath::of(&["metadata", "annotations"]).key(ENFORCEMENT);
        let fix = format!("write {STAGED}, or remove the annotation to enforce the policy");
        findings.add(&path, format!("{} is no way to enforce a policy", Quoted(given)), fix);
    }
    true
}

/// That an object without a namespace names none.
pub(crate) fn no_namespace(kind: &str, meta: &ObjectMeta, findings: &mut Findings) {
    if meta.namespace.as_deref().is_some_and(|namespace| !namespace.is_empty()) {
        let path = FieldPath::of(&["metadata", "namespace"]);
        findings.add(&path, format!("a {kind} lies in no namespace"), "remove it");
    }
}

/// `metadata.labels`, and on the way `metadata.annotations`, which only have to be well-formed.
pub(crate) fn labels(meta: &ObjectMeta, findings: &mut Findings) -> Labels {
    annotations(meta, findings);
    let labels = meta.labels.as_ref();
    check_labels(&FieldPath::of(&["metadata", "labels"]), labels, findings);
    labels.cloned().map(Labels::from).unwrap_or_default()
}

/// Keys and values of labels, be it an object's or a selector's.
pub(crate) fn check_labels(path: &FieldPath, labels: Option<&BTreeMap<String, String>>, findings: &mut Findings) {
    for (key, value) in labels.into_iter().flatten() {
        let path = path.key(key);
        findings.check(&path, key, syntax::label_key(key));
        findings.check(&path, value, syntax::label_value(value));
    }
}

fn annotations(meta: &ObjectMeta, findings: &mut Findings) {
    let path = FieldPath::of(&["metadata", "annotations"]);
    let mut bytes = 0_usize;
    for (key, value) in meta.annotations.iter().flatten() {
        bytes += key.len() + value.len();
        // The API server is content with upper-case letters in the prefix of an annotation.
        if let Err(Malformed { fix, .. }) = syntax::label_key(&key.to_lowercase()) {
            findings.add(&path.key(key), format!("{} is not an annotation key", Quoted(key)), fix);
        }
    }
    if bytes > MAX_ANNOTATION_BYTES {
        findings.add(&path, format!("{bytes} bytes of annotations"), format!("keep below {MAX_ANNOTATION_BYTES}"));
    }
}
