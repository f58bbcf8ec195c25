//! Settings files of our own programs: one YAML document whose one field is a list. Read by the same reader as
//! manifests, so that errors name field, line and fix, and each element is read on its own: one that is wrong costs
//! nothing but itself.

use serde::de::DeserializeOwned;

use crate::{
    decode::decode,
    error::Problem,
    node::{Node, Value},
    path::{FieldPath, Segment},
    yaml,
};

/// Most bytes that are read: settings are written by hand.
const MAX_BYTES: usize = 1 << 20;

/// One element of the list.
#[derive(Clone, PartialEq, Debug)]
pub struct Element<T> {
    /// Where it is: `exporters[2]`.
    pub path: FieldPath,
    /// Line where it starts, from 1.
    pub line: usize,
    /// Its field `name`, if that is text.
    pub name: Option<String>,
    /// What it says, or all that is wrong with it.
    pub value: Result<T, Vec<Problem>>,
}

/// Reads the elements of the list `field`.
///
/// # Errors
/// The file as a whole is not what it should be. What is wrong with one element is told there.
pub fn read_list<T: DeserializeOwned>(bytes: &[u8], field: &str) -> Result<Vec<Element<T>>, Problem> {
    let whole = |line: usize, what: String, fix: String| Problem { path: FieldPath::root(), line, what, fix };
    if bytes.len() > MAX_BYTES {
        let what = format!("the file has {} bytes, more than the {MAX_BYTES} allowed", bytes.len());
        return Err(whole(0, what, "remove what is not needed".to_owned()));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| whole(0, "the file is not UTF-8".to_owned(), "save it as UTF-8".to_owned()))?;
    let node = yaml::parse(text, 1).map_err(|error| whole(error.line, error.what, error.fix))?;
    let Some(Node { line, value }) = node else { return Ok(Vec::new()) };
    let Value::Object(entries) = value else {
        return Err(whole(
            line,
            format!("the file is not an object with the field {field}"),
            format!("begin with `{field}:`"),
        ));
    };
    let mut elements = Vec::new();
    for entry in entries {
        let path = FieldPath::root().key(&entry.key);
        let wrong = |what: String, fix: String| Problem { path: path.clone(), line: entry.line, what, fix };
        if &*entry.key != field {
            return Err(wrong("unknown field".to_owned(), format!("the file has one field, {field}")));
        }
        let items = match entry.node.value {
            Value::List(items) => items,
            Value::Null => continue,
            _ => return Err(wrong("is not a list".to_owned(), "put a dash in front of each element".to_owned())),
        };
        for (index, node) in items.into_iter().enumerate() {
            let path = path.index(index);
            let name = node.get("name").and_then(Node::text).map(str::to_owned);
            let value =
                decode::<T>(&node).map_err(|problems| problems.into_iter().map(|it| below(&path, it)).collect());
            elements.push(Element { line: node.line, path, name, value });
        }
    }
    Ok(elements)
}

/// A problem of an element, as one of the file.
fn below(element: &FieldPath, mut problem: Problem) -> Problem {
    let steps: Vec<Segment> = element.segments().iter().chain(problem.path.segments()).cloned().collect();
    problem.path = steps.into_iter().collect();
    problem
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, PartialEq, Debug)]
    struct Thing {
        name: String,
        #[serde(default)]
        size: u32,
    }

    fn read(text: &str) -> Result<Vec<Element<Thing>>, Problem> {
        read_list(text.as_bytes(), "things")
    }

    #[test]
    fn an_element_that_is_wrong_costs_only_itself() {
        let found = read("things:\n- name: a\n  size: 3\n- name: b\n  size: big\n  colour: red\n- 7\n").unwrap();
        assert_eq!(found[0].value, Ok(Thing { name: "a".to_owned(), size: 3 }));
        assert_eq!((found[1].name.as_deref(), found[1].line), (Some("b"), 4));
        let problems = found[1].value.as_ref().unwrap_err();
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "things[1].colour (line 6): Thing has no field \"colour\"; it has name, size",
                "things[1].size (line 5): expected a whole number, found the text \"big\"; write a whole number",
            ]
        );
        assert!(found[2].value.is_err() && found[2].name.is_none());
    }

    #[test]
    fn a_file_that_is_none_is_refused_as_a_whole() {
        for (text, part) in [
            ("- a", "is not an object"),
            ("thing: []", "thing (line 1): unknown field; the file has one field, things"),
            ("things: 3", "put a dash"),
            ("things: [", "not YAML"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(read_list::<Thing>(&[0xff], "things").unwrap_err().what, "the file is not UTF-8");
        assert!(read_list::<Thing>(&vec![b' '; MAX_BYTES + 1], "things").is_err());
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("things:\n").unwrap(), []);
    }
}
