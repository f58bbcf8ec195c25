//! LabelSelector to [`Selector`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use policy::selector::{Operator, Requirement, Selector, Values};

use crate::findings::Findings;
use crate::nearest::nearest;
use crate::path::{FieldPath, Quoted};
use crate::{metadata, syntax};

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// Validates a selector. What is wrong is in `findings`, and the selector given back then is not
/// to be used.
pub(crate) fn selector(path: &FieldPath, selector: &LabelSelector, findings: &mut Findings) -> Selector {
    let LabelSelector { match_labels, match_expressions } = selector;
    metadata::check_labels(&path.key("matchLabels"), match_labels.as_ref(), findings);
    let labels = match_labels.iter().flatten().map(|(key, value)| Requirement::equals(key, value));
    let path = path.key("matchExpressions");
    let mut requirements: Vec<Requirement> = labels.collect();
    for (index, expression) in match_expressions.iter().flatten().enumerate() {
        requirements.extend(requirement(&path.index(index), expression, findings));
    }
    Selector::new(requirements)
}

fn requirement(
    path: &FieldPath,
    expression: &LabelSelectorRequirement,
    findings: &mut Findings,
) -> Option<Requirement> {
    let LabelSelectorRequirement { key, operator, values } = expression;
    if key.is_empty() {
        findings.add(&path.key("key"), "there is no key", "write the key of a label");
    } else {
        findings.check(&path.key("key"), key, syntax::label_key(key));
    }
    let path_of_values = path.key("values");
    let values = values.as_deref().unwrap_or_default();
    for (index, value) in values.iter().enumerate() {
        findings.check(&path_of_values.index(index), value, syntax::label_value(value));
    }
    let operator = match operator.as_str() {
        "In" | "NotIn" => match Values::new(values) {
            Ok(values) if operator == "In" => Operator::In(values),
            Ok(values) => Operator::NotIn(values),
            Err(_) => {
                findings.add(&path_of_values, format!("the operator {operator} needs values"), "list at least one");
                return None;
            }
        },
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                findings.add(
                    &path_of_values,
                    format!("the operator {operator} takes no values"),
                    if operator == "Exists" { "remove them, or use In" } else { "remove them, or use NotIn" },
                );
            }
            if operator == "Exists" { Operator::Exists } else { Operator::DoesNotExist }
        }
        "" => {
            findings.add(&path.key("operator"), "there is no operator", format!("use {}", OPERATORS.join(", ")));
            return None;
        }
        other => {
            let fix = match nearest(other, OPERATORS) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("use {}", OPERATORS.join(", ")),
            };
            findings.add(&path.key("operator"), format!("there is no operator {}", Quoted(other)), fix);
            return None;
        }
    };
    Some(Requirement { key: key.clone(), operator })
}
