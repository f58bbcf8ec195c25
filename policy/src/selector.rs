//! Label selectors with the semantics of apimachinery's `labels.Selector`: requirements are
//! and-ed, no requirement selects everything, and `NotIn` and `DoesNotExist` match objects that
//! lack the key.

use std::collections::BTreeSet;
use std::fmt;

use thiserror::Error;

use crate::model::Labels;

/// A label selector. Requirements are sorted and each stands once, so that equal selectors
/// written differently compare equal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

impl Selector {
    /// The empty selector `{}`: every object.
    pub const fn everything() -> Self {
        Self { requirements: Vec::new() }
    }

    /// All of these must hold.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let mut requirements: Vec<_> = requirements.into_iter().collect();
        requirements.sort_unstable();
        requirements.dedup();
        Self { requirements }
    }

    /// `matchLabels`: each label must have exactly this value.
    pub fn labels<K: Into<String>, V: Into<String>>(labels: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::new(labels.into_iter().map(|(key, value)| Requirement::equals(key, value)))
    }

    /// Whether it selects every object, because it requires nothing.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it selects an object with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.unmet(labels).is_none()
    }

    /// The first requirement that these labels do not meet.
    pub fn unmet(&self, labels: &Labels) -> Option<&Requirement> {
        self.requirements.iter().find(|requirement| !requirement.matches(labels))
    }

    /// Its requirements, sorted.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

/// One requirement of a selector.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// What is asked of its value.
    pub operator: Operator,
}

/// What a requirement asks of the value of its key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operator {
    /// There is one, and it is among these.
    In(Values),
    /// There is none, or it is not among these.
    NotIn(Values),
    /// There is one.
    Exists,
    /// There is none.
    DoesNotExist,
}

impl Requirement {
    /// `key=value`, one entry of `matchLabels`.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), operator: Operator::In(Values(BTreeSet::from([value.into()]))) }
    }

    /// Whether these labels meet it.
    pub fn matches(&self, labels: &Labels) -> bool {
        match (&self.operator, labels.get(&self.key)) {
            (Operator::In(values), Some(value)) => values.contains(value),
            (Operator::In(_), None) => false,
            (Operator::NotIn(values), Some(value)) => !values.contains(value),
            (Operator::NotIn(_), None) => true,
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
        }
    }
}

/// The values of `In` and `NotIn`: at least one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Values(BTreeSet<String>);

impl Values {
    /// # Errors
    ///
    /// When there are none: the API requires at least one for `In` and `NotIn`.
    pub fn new<V: Into<String>>(values: impl IntoIterator<Item = V>) -> Result<Self, NoValues> {
        let values: BTreeSet<String> = values.into_iter().map(Into::into).collect();
        if values.is_empty() { Err(NoValues) } else { Ok(Self(values)) }
    }

    /// Whether `value` is among them.
    pub fn contains(&self, value: &str) -> bool {
        self.0.contains(value)
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// `In` or `NotIn` without a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("operators In and NotIn need at least one value")]
pub struct NoValues;

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, value) in self.iter().enumerate() {
            write!(f, "{}{value}", if position == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) if values.0.len() == 1 => write!(f, "{key}={values}"),
            Operator::In(values) => write!(f, "{key} in ({values})"),
            Operator::NotIn(values) => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (position, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if position == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        text.split_whitespace().filter_map(|label| label.split_once('=')).collect()
    }

    fn one(key: &str, operator: Operator) -> Selector {
        Selector::new([Requirement { key: key.to_owned(), operator }])
    }

    fn values(list: &[&str]) -> Values {
        Values::new(list.iter().copied()).unwrap()
    }

    #[test]
    fn operators_follow_apimachinery() {
        let a_or_b = || values(&["a", "b"]);
        let empty = || values(&[""]);
        for (selector, object, expected) in [
            (one("k", Operator::In(a_or_b())), "k=a", true),
            (one("k", Operator::In(a_or_b())), "k=c", false),
            (one("k", Operator::In(a_or_b())), "other=a", false),
            (one("k", Operator::In(empty())), "k=", true),
            (one("k", Operator::In(empty())), "", false),
            (one("k", Operator::NotIn(a_or_b())), "k=a", false),
            (one("k", Operator::NotIn(a_or_b())), "k=c", true),
            (one("k", Operator::NotIn(a_or_b())), "other=a", true),
            (one("k", Operator::NotIn(empty())), "", true),
            (one("k", Operator::NotIn(empty())), "k=", false),
            (one("k", Operator::Exists), "k=", true),
            (one("k", Operator::Exists), "kk=a", false),
            (one("k", Operator::DoesNotExist), "kk=a", true),
            (one("k", Operator::DoesNotExist), "k=", false),
        ] {
            assert_eq!(selector.matches(&labels(object)), expected, "{selector} on {object:?}");
        }
    }

    #[test]
    fn requirements_are_anded_and_none_selects_all() {
        let both = Selector::new([
            Requirement::equals("app", "web"),
            Requirement { key: "tier".into(), operator: Operator::DoesNotExist },
        ]);
        assert!(both.matches(&labels("app=web x=y")));
        assert!(!both.matches(&labels("app=web tier=1")));
        assert!(!both.matches(&labels("")));
        assert!(Selector::everything().matches(&labels("")));
        assert!(Selector::everything().matches(&labels("app=web")));
    }

    #[test]
    fn the_same_key_may_be_required_twice() {
        let neither = Selector::new([
            Requirement { key: "k".into(), operator: Operator::Exists },
            Requirement { key: "k".into(), operator: Operator::NotIn(values(&["a"])) },
        ]);
        assert!(neither.matches(&labels("k=b")));
        assert!(!neither.matches(&labels("k=a")));
        assert!(!neither.matches(&labels("")));
    }

    #[test]
    fn spelling_does_not_matter() {
        let one_way = Selector::new([Requirement::equals("a", "1"), Requirement::equals("b", "2")]);
        let other_way = Selector::labels([("b", "2"), ("a", "1"), ("a", "1")]);
        assert_eq!(one_way, other_way);
        assert_eq!(one_way.to_string(), "{a=1, b=2}");
        assert_eq!(one("k", Operator::NotIn(values(&["y", "x"]))).to_string(), "{k notin (x,y)}");
    }

    #[test]
    fn in_without_values_cannot_be_built() {
        assert_eq!(Values::new(Vec::<String>::new()), Err(NoValues));
    }
}
