//! A file of manifests to objects: every document on its own, so that one that is refused costs
//! nothing but itself.

use std::collections::BTreeSet;

use policy::model::{Object, ObjectKey};

use crate::closed::closed;
use crate::decode::decode;
use crate::error::{ObjectError, ObjectName, Problem};
use crate::kind::{Kind, Recognised, recognise};
use crate::node::{Node, Value};
use crate::path::FieldPath;
use crate::split::{Chunk, split};
use crate::yaml::TextError;
use crate::{cluster_node, cluster_policy, endpoint_slice, json, namespace, network_policy, pod, service, yaml};

/// What hostile or mistaken input may cost at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: usize,
    /// Objects in one file, those passed over and refused included.
    pub objects: usize,
}

impl Default for Limits {
    /// 16 MiB, which is more than ten times what an API server takes for one object, and 20,000
    /// objects.
    fn default() -> Self {
        Self { file_bytes: 16 * 1024 * 1024, objects: 20_000 }
    }
}

/// One document of a file, or one element of a list in it.
#[derive(Clone, PartialEq, Debug)]
pub struct DocumentResult {
    /// Number of the document in the file, from 1; 0 when the file as a whole was refused.
    pub document: usize,
    /// Number of the element, from 1, when the document is a list.
    pub item: Option<usize>,
    /// Line where it starts, from 1.
    pub line: usize,
    /// What the document calls itself, when it gets that far.
    pub name: Option<ObjectName>,
    /// Names the object, also when it was refused, as long as its kind and name could be read.
    pub key: Option<ObjectKey>,
    /// What came of it.
    pub outcome: Outcome,
    /// What may stand in for a policy that was refused: it selects the same pods, as far as it can be said whom, and
    /// allows them nothing.
    pub closed: Option<Box<Object>>,
}

/// What came of a document.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// An object for the policy index.
    Object(Box<Object>),
    /// Of a kind that is none of our business.
    Skipped {
        /// Its `apiVersion`.
        api_version: String,
    },
    /// Refused.
    Refused(ObjectError),
}

impl DocumentResult {
    /// The error, if it was refused.
    pub fn error(&self) -> Option<&ObjectError> {
        match &self.outcome {
            Outcome::Refused(error) => Some(error),
            Outcome::Object(_) | Outcome::Skipped { .. } => None,
        }
    }
}

/// Reads a file within the default [`Limits`].
///
/// YAML with any number of documents, JSON values in a row, arrays, and `kind: List`. What only
/// holds comments is no document and does not count.
pub fn parse_documents(source_name: &str, bytes: &[u8]) -> Vec<DocumentResult> {
    parse_documents_within(source_name, bytes, Limits::default())
}

/// Reads a file within limits of the caller's.
pub fn parse_documents_within(source_name: &str, bytes: &[u8], limits: Limits) -> Vec<DocumentResult> {
    let mut reader = Reader { source_name, limits, document: 0, results: Vec::new(), full: false };
    match text_of(bytes, limits) {
        Ok(text) => reader.file(text),
        Err(error) => reader.refuse_file(error),
    }
    reader.results
}

fn text_of(bytes: &[u8], limits: Limits) -> Result<&str, TextError> {
    if bytes.len() > limits.file_bytes {
        let what = format!("the file has {} bytes, more than the {} allowed", bytes.len(), limits.file_bytes);
        return Err(TextError::new(0, what, "split it"));
    }
    if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return Err(TextError::new(1, "the file is UTF-16", "save it as UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        TextError::new(line, "the file is not UTF-8", "save it as UTF-8")
    })
}

struct Reader<'a> {
    source_name: &'a str,
    limits: Limits,
    document: usize,
    results: Vec<DocumentResult>,
    /// More objects than the limits allow: the file as a whole has been refused.
    full: bool,
}

/// Which part of the file is being read.
#[derive(Clone, Copy)]
struct Place {
    document: usize,
    item: Option<usize>,
    line: usize,
}

impl Reader<'_> {
    fn file(&mut self, text: &str) {
        let json_only = self.source_name.ends_with(".json");
        if json_only {
            if !text.trim().is_empty() {
                self.json_chunk(Chunk { first_line: 1, text }, false);
            }
            return;
        }
        for chunk in split(text) {
            if self.full {
                return;
            }
            if looks_like_json(chunk.text) { self.json_chunk(chunk, true) } else { self.yaml_chunk(chunk, None) }
        }
    }

    fn json_chunk(&mut self, chunk: Chunk<'_>, may_be_yaml: bool) {
        // A separator line in front is not JSON, but counts as a line.
        let body = chunk.text.strip_prefix("---").unwrap_or(chunk.text);
        let (nodes, error) = json::parse(body, chunk.first_line);
        if may_be_yaml && error.is_some() {
            return self.yaml_chunk(chunk, error.map(|bad| bad.error));
        }
        for node in nodes {
            self.document += 1;
            self.root(self.document, &node);
        }
        if let Some(bad) = error {
            self.document += 1;
            self.refuse_text(bad.start, bad.error);
        }
    }

    /// `json_error`: why the same text is not JSON, which is told when it got further.
    fn yaml_chunk(&mut self, chunk: Chunk<'_>, json_error: Option<TextError>) {
        match yaml::parse(chunk.text, chunk.first_line) {
            Ok(None) => {}
            Ok(Some(node)) => {
                self.document += 1;
                self.root(self.document, &node);
            }
            Err(error) => {
                self.document += 1;
                let error = match json_error {
                    Some(json_error) if json_error.line >= error.line => json_error,
                    _ => error,
                };
                self.refuse_text(chunk.content_line().unwrap_or(chunk.first_line), error);
            }
        }
    }

    fn root(&mut self, document: usize, node: &Node) {
        let place = Place { document, item: None, line: node.line };
        match &node.value {
            Value::List(items) => self.items(place, items, None),
            _ => self.object(place, node, None),
        }
    }

    fn items(&mut self, place: Place, items: &[Node], kind: Option<Kind>) {
        for (index, item) in items.iter().enumerate() {
            if self.full {
                return;
            }
            let place = Place { item: Some(index + 1), line: item.line, ..place };
            self.object(place, item, kind);
        }
    }

    /// `kind`: what an element of a typed list is, which need not say so itself.
    fn object(&mut self, place: Place, node: &Node, kind: Option<Kind>) {
        let name = name_of(node, kind);
        let refused = |problem: Problem| Err((None, vec![problem]));
        let outcome = match head_of(node, kind) {
            Err(problem) => refused(problem),
            Ok((api_version, said)) => match recognise(api_version, said) {
                Recognised::Object(kind) => read(kind, node).map(|o| (Some(kind), o)).map_err(|p| (Some(kind), p)),
                Recognised::Foreign => {
                    let outcome = Outcome::Skipped { api_version: api_version.to_owned() };
                    return self.push(place, Some(name), None, outcome, None);
                }
                Recognised::Mistaken { kind, field, what, fix } => {
                    Err((kind, vec![Problem::new(&FieldPath::of(&[field]), what, fix)]))
                }
                Recognised::List(kind) => match (place.item, node.get("items").map(|items| &items.value)) {
                    (None, Some(Value::List(items))) => return self.items(place, items, kind),
                    (None, None | Some(Value::Null)) => return,
                    (None, Some(_)) => refused(Problem::new(
                        &FieldPath::of(&["items"]),
                        "items is not a list",
                        "put a dash in front of each object",
                    )),
                    (Some(_), _) => refused(Problem::new(
                        &FieldPath::of(&["kind"]),
                        "a list stands inside a list",
                        "put its items into the outer one",
                    )),
                },
            },
        };
        match outcome {
            Ok((kind, object)) => {
                let key = kind.map(|_| object.key());
                self.push(place, Some(name), key, Outcome::Object(Box::new(object)), None);
            }
            Err((kind, mut problems)) => {
                for problem in &mut problems {
                    problem.line = node.line_of(&problem.path);
                }
                let key = kind.and_then(|kind| kind.key(&name));
                let closed = kind.and_then(|kind| closed(kind, node)).map(Box::new);
                let name = (!name.kind.is_empty()).then_some(name);
                let error = self.error(place, name.clone(), problems);
                self.push(place, name, key, Outcome::Refused(error), closed);
            }
        }
    }

    fn error(&self, place: Place, object: Option<ObjectName>, problems: Vec<Problem>) -> ObjectError {
        let Place { document, item, line } = place;
        ObjectError { source_name: self.source_name.to_owned(), document, item, line, object, problems }
    }

    fn push(
        &mut self,
        place: Place,
        name: Option<ObjectName>,
        key: Option<ObjectKey>,
        outcome: Outcome,
        closed: Option<Box<Object>>,
    ) {
        if self.results.len() >= self.limits.objects {
            let what = format!("the file has more than {} objects", self.limits.objects);
            self.full = true;
            self.results.clear();
            return self.refuse_file(TextError::new(0, what, "split it"));
        }
        let Place { document, item, line } = place;
        self.results.push(DocumentResult { document, item, line, name, key, outcome, closed });
    }

    fn refuse_text(&mut self, start: usize, error: TextError) {
        let place = Place { document: self.document, item: None, line: start };
        let problem = Problem::new(&FieldPath::root(), error.what, error.fix).at_line(error.line);
        let error = self.error(place, None, vec![problem]);
        self.push(place, None, None, Outcome::Refused(error), None);
    }

    fn refuse_file(&mut self, error: TextError) {
        let place = Place { document: 0, item: None, line: 1 };
        let problem = Problem::new(&FieldPath::root(), error.what, error.fix).at_line(error.line);
        let error = self.error(place, None, vec![problem]);
        self.results.push(DocumentResult {
            document: 0,
            item: None,
            line: 1,
            name: None,
            key: None,
            outcome: Outcome::Refused(error),
            closed: None,
        });
    }
}

fn looks_like_json(text: &str) -> bool {
    let text = text.strip_prefix("---").unwrap_or(text);
    text.trim_start().starts_with(['{', '['])
}

/// What a document calls itself, as far as it does.
fn name_of(node: &Node, kind: Option<Kind>) -> ObjectName {
    let text = |node: Option<&Node>| node.and_then(Node::text).map(str::to_owned);
    let metadata = node.get("metadata");
    ObjectName {
        kind: text(node.get("kind")).or(kind.map(|kind| kind.as_str().to_owned())).unwrap_or_default(),
        namespace: text(metadata.and_then(|metadata| metadata.get("namespace"))),
        name: text(metadata.and_then(|metadata| metadata.get("name"))),
    }
}

/// `apiVersion` and `kind` of a document.
fn head_of(node: &Node, kind: Option<Kind>) -> Result<(&str, &str), Problem> {
    if !matches!(node.value, Value::Object(_)) {
        let what = format!("expected an object, found {}", node.describe());
        return Err(Problem::new(&FieldPath::root(), what, "begin the document with apiVersion, kind and metadata"));
    }
    let said = node.get("kind").and_then(Node::text).unwrap_or_default();
    let likely = Kind::ALL.into_iter().find(|ours| ours.as_str() == said);
    let head = |field: &str, example: String| match node.get(field) {
        Some(Node { value: Value::Text(text), .. }) if !text.is_empty() => Ok(&**text),
        Some(other) if other.value != Value::Null && other.text() != Some("") => {
            let what = format!("expected text, found {}", other.describe());
            Err(Problem::new(&FieldPath::of(&[field]), what, example))
        }
        _ => Err(Problem::new(&FieldPath::root(), format!("there is no {field}"), example)),
    };
    let default = kind.map(|kind| (kind.api_version(), kind.as_str()));
    if let (Some(default), None, None) = (default, node.get("apiVersion"), node.get("kind")) {
        return Ok(default);
    }
    let kind = head("kind", "write Namespace, Pod, Service, NetworkPolicy or ClusterNetworkPolicy".to_owned())?;
    let api_version = head("apiVersion", format!("write {}", likely.map_or("v1", Kind::api_version)))?;
    Ok((api_version, kind))
}

fn read(kind: Kind, node: &Node) -> Result<Object, Vec<Problem>> {
    let object = match kind {
        Kind::Namespace => namespace::namespace(&decode(node)?).map(Object::from),
        Kind::Pod => pod::pod(&decode(node)?).map(Object::from),
        Kind::Node => cluster_node::node(&decode(node)?).map(Object::from),
        Kind::Service => service::service(&decode(node)?).map(Object::from),
        Kind::EndpointSlice => endpoint_slice::endpoint_slice(&decode(node)?).map(Object::from),
        Kind::NetworkPolicy => network_policy::network_policy(&decode(node)?).map(Object::from),
        Kind::ClusterNetworkPolicy => cluster_policy::cluster_policy(&decode(node)?).map(Object::from),
    };
    object.map_err(|mut problems| {
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert((problem.path.clone(), problem.what.clone())));
        problems
    })
}
