//! Namespace: a name and labels.

use k8s_openapi::api::core::v1::Namespace;
use policy::model;

use crate::error::Problem;
use crate::findings::Findings;
use crate::{metadata, syntax};

/// Validates a Namespace and turns it into the policy model's. The label
/// `kubernetes.io/metadata.name` becomes its name, whatever the object says, as the API server
/// has it.
///
/// # Errors
///
/// Everything that is wrong with it, by field.
pub fn namespace(object: &Namespace) -> Result<model::Namespace, Vec<Problem>> {
    let mut findings = Findings::default();
    let Namespace { metadata: meta, spec: _, status: _ } = object;
    metadata::no_namespace("Namespace", meta, &mut findings);
    let name = metadata::name(meta, syntax::dns_label, &mut findings);
    let labels = metadata::labels(meta, &mut findings);
    findings.finish(name.map(|name| model::Namespace::new(name, labels)))
}
