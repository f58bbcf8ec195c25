//! One YAML document to a [`Node`] tree.
//!
//! The parser gives events; the tree is built here so that every value keeps its line, a key
//! cannot be said twice, and aliases cannot blow the document up ("billion laughs").

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use crate::node::{Budget, Entry, MAX_DEPTH, MAX_NODES, Node, TooLarge, Value, Weight};
use crate::path::Quoted;
use crate::scalar;

/// Text that is not a document: where, what, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TextError {
    pub(crate) line: usize,
    pub(crate) what: String,
    pub(crate) fix: String,
}

impl TextError {
    pub(crate) fn new(line: usize, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { line, what: what.into(), fix: fix.into() }
    }
}

/// Reads `text`, whose first line is line `first_line` of the file. `None` when it holds nothing
/// but comments.
pub(crate) fn parse(text: &str, first_line: usize) -> Result<Option<Node>, TextError> {
    let mut builder = Builder {
        line_offset: first_line - 1,
        last_line: first_line + line_ends(text.trim_end_matches(['\r', '\n'])),
        stack: Vec::new(),
        anchors: HashMap::new(),
        budget: Budget::for_text(text.len()),
        root: None,
        documents: 0,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            TextError::new(
                builder.line(error.marker()),
                format!("this is not YAML: {}", error.info()),
                "look at the indentation, the quotes and the brackets up to this line",
            )
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.root)
}

/// Line ends as YAML has them: a carriage return is one too.
fn line_ends(text: &str) -> usize {
    text.matches(['\n', '\r']).count() - text.matches("\r\n").count()
}

struct Builder {
    line_offset: usize,
    /// The last line that is not empty. What is missing at the end is missing there.
    last_line: usize,
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Node, Weight)>,
    budget: Budget,
    root: Option<Node>,
    documents: usize,
}

/// A list or an object that is not complete yet.
struct Frame {
    line: usize,
    anchor: usize,
    weight: Weight,
    kind: FrameKind,
}

enum FrameKind {
    List(Vec<Node>),
    Object { entries: Vec<Entry>, seen: HashSet<Rc<str>>, merged: Vec<Entry>, key: Option<Key> },
}

struct Key {
    text: Rc<str>,
    line: usize,
    /// `<<`, unquoted: the value's entries are added to the object.
    merges: bool,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), TextError> {
        let line = self.line(&span.start);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(TextError::new(
                        line,
                        "a second document starts here without `---`",
                        "put `---` at the start of a line of its own between documents",
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain;
                if self.awaits_key() {
                    return self.key(&text, line, !quoted && text == "<<");
                }
                let value = scalar_value(text, quoted, tag, line)?;
                let weight = Weight { nodes: 1, bytes: value_bytes(&value) };
                self.charge(weight, line)?;
                self.complete(Node::new(line, value), weight, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(line, anchor, tag, "tag:yaml.org,2002:seq", FrameKind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => self.open(
                line,
                anchor,
                tag,
                "tag:yaml.org,2002:map",
                FrameKind::Object { entries: Vec::new(), seen: HashSet::new(), merged: Vec::new(), key: None },
            ),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                if self.awaits_key() {
                    return Err(TextError::new(line, "an alias stands where a key is expected", "write the key out"));
                }
                let Some((node, weight)) = self.anchors.get(&anchor) else {
                    return Err(TextError::new(
                        line,
                        "an alias stands inside the value that it stands for",
                        "write the value out",
                    ));
                };
                let (weight, anchored) = (*weight, node);
                self.budget.take(weight).map_err(|reason| too_large(reason, line))?;
                let node = anchored.clone();
                self.complete(node, weight, 0)
            }
        }
    }

    fn line(&self, marker: &Marker) -> usize {
        (marker.line().max(1) + self.line_offset).min(self.last_line)
    }

    fn awaits_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame { kind: FrameKind::Object { key: None, .. }, .. }))
    }

    fn charge(&mut self, weight: Weight, line: usize) -> Result<(), TextError> {
        self.budget.take(weight).map_err(|reason| too_large(reason, line))
    }

    fn key(&mut self, text: &str, line: usize, merges: bool) -> Result<(), TextError> {
        self.charge(Weight { nodes: 1, bytes: text.len() }, line)?;
        if let Some(Frame { kind: FrameKind::Object { seen, key, .. }, weight, .. }) = self.stack.last_mut() {
            *weight = weight.add(Weight { nodes: 1, bytes: text.len() });
            let text: Rc<str> = text.into();
            if !seen.insert(Rc::clone(&text)) {
                return Err(duplicate_key(&text, line));
            }
            *key = Some(Key { text, line, merges });
        }
        Ok(())
    }

    fn open(
        &mut self,
        line: usize,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        expected: &str,
        kind: FrameKind,
    ) -> Result<(), TextError> {
        if let Some(tag) = tag
            && format!("{}{}", tag.handle, tag.suffix) != expected
        {
            return Err(unknown_tag(&tag, line));
        }
        if self.awaits_key() {
            return Err(TextError::new(
                line,
                "a list or an object stands where a key is expected",
                "write a word; if `{{` stands here, render the template first",
            ));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(line));
        }
        let weight = Weight { nodes: 1, bytes: 0 };
        self.charge(weight, line)?;
        self.stack.push(Frame { line, anchor, weight, kind });
        Ok(())
    }

    fn close(&mut self) -> Result<(), TextError> {
        let Some(Frame { line, anchor, weight, kind }) = self.stack.pop() else { return Ok(()) };
        let value = match kind {
            FrameKind::List(items) => Value::List(items),
            FrameKind::Object { mut entries, mut seen, merged, .. } => {
                // What the object says itself goes before what it merges, an earlier merge
                // before a later one (https://yaml.org/type/merge.html).
                entries.extend(merged.into_iter().filter(|entry| seen.insert(Rc::clone(&entry.key))));
                Value::Object(entries)
            }
        };
        self.complete(Node::new(line, value), weight, anchor)
    }

    fn complete(&mut self, node: Node, weight: Weight, anchor: usize) -> Result<(), TextError> {
        if anchor != 0 {
            self.charge(weight, node.line)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.weight = frame.weight.add(weight);
        match &mut frame.kind {
            FrameKind::List(items) => items.push(node),
            FrameKind::Object { entries, merged, key, .. } => match key.take() {
                Some(Key { merges: true, line, .. }) => merge(node, merged, line)?,
                Some(Key { text, line, .. }) => entries.push(Entry { key: text, line, node }),
                // A key is always a scalar, which `event` has taken already.
                None => {}
            },
        }
        Ok(())
    }
}

/// Adds what `<<` names to the entries that an object takes over.
fn merge(node: Node, merged: &mut Vec<Entry>, line: usize) -> Result<(), TextError> {
    let refused =
        || TextError::new(line, "`<<` takes an object or a list of objects", "name an object, as in `<<: *name`");
    match node.value {
        Value::Object(entries) => merged.extend(entries),
        Value::List(items) => {
            for item in items {
                match item.value {
                    Value::Object(entries) => merged.extend(entries),
                    _ => return Err(refused()),
                }
            }
        }
        _ => return Err(refused()),
    }
    Ok(())
}

fn scalar_value(text: Cow<'_, str>, quoted: bool, tag: Option<Cow<'_, Tag>>, line: usize) -> Result<Value, TextError> {
    let Some(tag) = tag else {
        return Ok(if quoted { Value::Text((&*text).into()) } else { scalar::plain(&text) });
    };
    let full = format!("{}{}", tag.handle, tag.suffix);
    let value = match full.as_str() {
        "tag:yaml.org,2002:str" | "!" => return Ok(Value::Text((&*text).into())),
        "tag:yaml.org,2002:null" | "tag:yaml.org,2002:bool" | "tag:yaml.org,2002:int" | "tag:yaml.org,2002:float" => {
            scalar::plain(&text)
        }
        _ => return Err(unknown_tag(&tag, line)),
    };
    let fits = match &value {
        Value::Null => full.ends_with(":null"),
        Value::Bool(..) => full.ends_with(":bool"),
        Value::Int(..) => full.ends_with(":int"),
        Value::Float(..) => full.ends_with(":float"),
        Value::Text(_) | Value::List(_) | Value::Object(_) => false,
    };
    if fits {
        Ok(value)
    } else {
        Err(TextError::new(
            line,
            format!("{} is not what the tag !!{} says", Quoted(&text), tag.suffix),
            "remove the tag",
        ))
    }
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Bool(_, raw) | Value::Int(_, raw) | Value::Float(_, raw) | Value::Text(raw) => raw.len(),
        Value::Null | Value::List(_) | Value::Object(_) => 0,
    }
}

pub(crate) fn duplicate_key(key: &str, line: usize) -> TextError {
    TextError::new(line, format!("the key {} is given twice", Quoted(key)), "keep one of them")
}

pub(crate) fn too_deep(line: usize) -> TextError {
    TextError::new(
        line,
        format!("nested deeper than {MAX_DEPTH} levels"),
        "no Kubernetes object is; check the brackets",
    )
}

pub(crate) fn too_large(reason: TooLarge, line: usize) -> TextError {
    match reason {
        TooLarge::Values => TextError::new(
            line,
            format!("the document has more than {MAX_NODES} values"),
            "split it into several files",
        ),
        TooLarge::Aliases => TextError::new(
            line,
            "the aliases up to here make the document far larger than its text",
            "write the values out, or use fewer aliases",
        ),
    }
}

fn unknown_tag(tag: &Tag, line: usize) -> TextError {
    TextError::new(line, format!("unknown tag {}", Quoted(&tag.to_string())), "remove the tag")
}
