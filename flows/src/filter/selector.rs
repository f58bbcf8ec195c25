//! Label selectors in the text form of Kubernetes (`kubectl -l`): `app=web,tier!=db,env in (a,b),
//! !canary`. A key may begin with the source of the label, `k8s:app` or `reserved:world`; `any:`
//! or no source means every source.
//!
//! Not for selectors inside policy objects: those are structures, and `policy` reads them.

use std::collections::BTreeMap;

use crate::record::End;

use super::Problem;

/// Requirements in one selector.
const MAX_REQUIREMENTS: usize = 64;

/// All of these must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Requirement {
    /// `None`: any source.
    source: Option<String>,
    key: String,
    operator: Operator,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Operator {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl Selector {
    /// Parses a selector; the empty text matches everything.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut parser = Parser { text, at: 0 };
        let mut requirements = Vec::new();
        parser.skip_space();
        if parser.rest().is_empty() {
            return Ok(Self { requirements });
        }
        loop {
            if requirements.len() == MAX_REQUIREMENTS {
                return Err(parser.wanted("at most 64 requirements"));
            }
            requirements.push(parser.requirement()?);
            if parser.rest().is_empty() {
                return Ok(Self { requirements });
            }
            parser.expect(",", "`,` or the end")?;
        }
    }

    /// Whether the labels of one end of a flow match.
    pub(super) fn matches_end(&self, end: &End) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(requirement.find(end)))
    }

    /// Whether labels without a source match.
    pub(super) fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| {
            let found = requirement.may_come_from("k8s").then(|| labels.get(&requirement.key)).flatten();
            requirement.holds(found.map(String::as_str))
        })
    }
}

impl Requirement {
    fn may_come_from(&self, source: &str) -> bool {
        self.source.as_ref().is_none_or(|wanted| wanted == source)
    }

    /// The value of the label, `None` if the end has none of that key and source.
    fn find<'a>(&self, end: &'a End) -> Option<&'a str> {
        if self.may_come_from("k8s")
            && let Some(value) = end.k8s_label(&self.key)
        {
            return Some(value);
        }
        (self.may_come_from("reserved") && end.reserved() == Some(&self.key)).then_some("")
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.iter().any(|v| v == value)),
            Operator::Greater(than) => number().is_some_and(|number| number > *than),
            Operator::Less(than) => number().is_some_and(|number| number < *than),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wanted(&self, wanted: &'static str) -> Problem {
        Problem::Selector { at: self.at, wanted }
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn accept(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
            self.skip_space();
        }
        found
    }

    fn expect(&mut self, token: &str, wanted: &'static str) -> Result<(), Problem> {
        if self.accept(token) { Ok(()) } else { Err(self.wanted(wanted)) }
    }

    /// A key or a value: everything up to an operator, a separator or a space. May be empty.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(rest.len());
        self.at += end;
        self.skip_space();
        &rest[..end]
    }

    fn requirement(&mut self) -> Result<Requirement, Problem> {
        let absent = self.accept("!");
        let start = self.at;
        let word = self.word();
        let (source, key) = match word.split_once(':') {
            Some(("any", key)) => (None, key),
            Some((source, key)) => (Some(source.to_owned()), key),
            None => (None, word),
        };
        if key.is_empty() {
            return Err(Problem::Selector { at: start, wanted: "the key of a label" });
        }
        let operator = if absent { Operator::Absent } else { self.operator()? };
        Ok(Requirement { source, key: key.to_owned(), operator })
    }

    fn operator(&mut self) -> Result<Operator, Problem> {
        if self.accept("==") || self.accept("=") {
            return Ok(Operator::In(vec![self.word().to_owned()]));
        }
        if self.accept("!=") {
            return Ok(Operator::NotIn(vec![self.word().to_owned()]));
        }
        if self.accept(">") {
            return Ok(Operator::Greater(self.number()?));
        }
        if self.accept("<") {
            return Ok(Operator::Less(self.number()?));
        }
        let start = self.at;
        match self.word() {
            "in" => Ok(Operator::In(self.values()?)),
            "notin" => Ok(Operator::NotIn(self.values()?)),
            "" => Ok(Operator::Exists),
            _ => Err(Problem::Selector { at: start, wanted: "one of =, ==, !=, <, >, in, notin" }),
        }
    }

    fn number(&mut self) -> Result<i64, Problem> {
        let start = self.at;
        self.word().parse().map_err(|_| Problem::Selector { at: start, wanted: "a whole number" })
    }

    fn values(&mut self) -> Result<Vec<String>, Problem> {
        self.expect("(", "`(` and a list of values")?;
        let mut values = vec![self.word().to_owned()];
        while self.accept(",") {
            values.push(self.word().to_owned());
        }
        self.expect(")", "`,` or `)`")?;
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Selector::parse(selector).unwrap_or_else(|error| panic!("{selector}: {error}")).matches_labels(&labels)
    }

    #[test]
    fn every_operator_of_kubernetes_is_understood() {
        let labels = [("app", "web"), ("example.com/tier", "front"), ("rank", "7"), ("empty", "")];
        for (selector, expected) in [
            ("", true),
            ("  ", true),
            ("app", true),
            ("!app", false),
            ("other", false),
            ("!other", true),
            ("! other", true),
            ("app=web", true),
            ("app == web", true),
            ("app=db", false),
            ("app!=db", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web)", true),
            ("app in (db)", false),
            ("app in(web)", true),
            ("app notin (db,cache)", true),
            ("app notin (web)", false),
            ("other notin (web)", true),
            ("rank>6", true),
            ("rank > 7", false),
            ("rank<8", true),
            ("app<8", false),
            ("other<8", false),
            ("empty=", true),
            ("empty in ()", true),
            ("app=web,example.com/tier=front", true),
            ("app=web , example.com/tier=back", false),
            ("k8s:app=web", true),
            ("any:app=web", true),
            ("container:app=web", false),
            ("!reserved:app", true),
        ] {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn an_error_says_where_and_what() {
        for (selector, at, wanted) in [
            ("=web", 0, "the key of a label"),
            ("app=web,", 8, "the key of a label"),
            ("app=web,,x", 8, "the key of a label"),
            ("k8s:=web", 0, "the key of a label"),
            ("app is web", 4, "one of =, ==, !=, <, >, in, notin"),
            ("app in web", 7, "`(` and a list of values"),
            ("app in (web", 11, "`,` or `)`"),
            ("app=web db", 8, "`,` or the end"),
            ("rank>high", 5, "a whole number"),
            ("!app=web", 4, "`,` or the end"),
        ] {
            assert_eq!(Selector::parse(selector), Err(Problem::Selector { at, wanted }), "{selector}");
        }
        let long = vec!["a"; MAX_REQUIREMENTS + 1].join(",");
        assert!(matches!(Selector::parse(&long), Err(Problem::Selector { wanted: "at most 64 requirements", .. })));
    }
}
