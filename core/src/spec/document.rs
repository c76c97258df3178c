//! A job file as a tree of values with their lines and columns.
//!
//! Reading is bounded for every text: its length, its depth of nesting, and its number of values with aliases expanded.
//! Scalars keep their text. The field that reads a scalar decides what it means, so the name `no` stays a name.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};

use super::error::{Location, SpecError, shorten};

/// The largest job file, in bytes.
const MOST_BYTES: usize = 1 << 20;
/// The largest depth of nested mappings and lists.
const MOST_DEPTH: usize = 32;
/// The largest number of values, with aliases expanded. Every kilobyte of text counts as one more.
const MOST_NODES: usize = 20_000;
/// The longest key, in bytes.
const MOST_KEY: usize = 256;

/// A value and its position.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) location: Location,
    /// The path of its key, empty for the whole document.
    pub(super) path: String,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar { text: String, style: Style },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes: it may be a number, a truth value or null.
    Plain,
    /// With quotes: text.
    Quoted,
    /// Expanded from a variable: it may be a number, but is never null.
    Expanded,
    /// Not expandable; the error is already recorded.
    Broken,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) location: Location,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn new(location: Location, value: Value) -> Self {
        Self { location, path: String::new(), value }
    }

    pub(super) fn plain(location: Location, text: &str) -> Self {
        Self::new(location, Value::Scalar { text: text.to_owned(), style: Style::Plain })
    }

    /// The text of a scalar that has a value.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The text of a scalar that was not quoted.
    pub(super) fn bare(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { style: Style::Quoted, .. } => None,
            _ => self.text(),
        }
    }

    /// Whether there is no value: `null`, `~` or an empty scalar.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, style: Style::Plain }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Whether a scalar in it could not be expanded.
    pub(super) fn is_broken(&self) -> bool {
        match &self.value {
            Value::Scalar { style, .. } => *style == Style::Broken,
            Value::List(items) => items.iter().any(Self::is_broken),
            Value::Map(entries) => entries.iter().any(|e| e.node.is_broken()),
        }
    }

    /// The location of the override that changed it, if one did.
    pub(super) fn overridden(&self) -> Option<&Location> {
        if let Location::Override { .. } = self.location {
            return Some(&self.location);
        }
        match &self.value {
            Value::Scalar { .. } => None,
            Value::List(items) => items.iter().find_map(Self::overridden),
            Value::Map(entries) => entries.iter().find_map(|entry| entry.node.overridden()),
        }
    }

    /// The value under a key of a mapping.
    pub(super) fn child(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// The value on one line, as messages show it.
    pub(super) fn flow(&self) -> String {
        shorten(&self.unbounded_flow())
    }

    fn unbounded_flow(&self) -> String {
        match &self.value {
            Value::Scalar { text, style: Style::Quoted } => format!("\"{text}\""),
            Value::Scalar { text, .. } => text.clone(),
            Value::List(items) => {
                format!("[{}]", items.iter().map(Self::flow).collect::<Vec<_>>().join(", "))
            }
            Value::Map(entries) => {
                let pairs: Vec<_> = entries.iter().map(|e| format!("{}: {}", e.key, e.node.flow())).collect();
                format!("{{{}}}", pairs.join(", "))
            }
        }
    }

    /// An error about this value.
    pub(super) fn error(&self, rule: impl Into<String>) -> SpecError {
        SpecError {
            location: self.location.clone(),
            key: self.path.clone(),
            value: Some(self.flow()),
            rule: rule.into(),
        }
    }

    /// Sets the path of each value, and removes keys that occur a second time.
    pub(super) fn assign_paths(&mut self, path: &str, errors: &mut Vec<SpecError>) {
        path.clone_into(&mut self.path);
        match &mut self.value {
            Value::Scalar { .. } => {}
            Value::List(items) => {
                for (n, item) in items.iter_mut().enumerate() {
                    item.assign_paths(&join(path, &n.to_string()), errors);
                }
            }
            Value::Map(entries) => {
                let mut seen: BTreeMap<String, Location> = BTreeMap::new();
                entries.retain(|entry| match seen.get(&entry.key) {
                    Some(first) => {
                        errors.push(duplicate(&join(path, &entry.key), entry, first));
                        false
                    }
                    None => {
                        seen.insert(entry.key.clone(), entry.location.clone());
                        true
                    }
                });
                for entry in entries {
                    entry.node.assign_paths(&join(path, &entry.key), errors);
                }
            }
        }
    }
}

fn duplicate(path: &str, entry: &Entry, first: &Location) -> SpecError {
    let origin = match first {
        Location::File { line, .. } => format!(" (first on line {line})"),
        Location::Override { .. } => String::new(),
    };
    let rule = format!("the key is given twice{origin}; keep one of them");
    SpecError { location: entry.location.clone(), key: shorten(path), value: None, rule }
}

/// `a.b` and `c` give `a.b.c`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Reads YAML, which includes JSON. Returns None if the text holds only comments.
///
/// # Errors
/// If the text is not YAML, holds more than one document, or exceeds a bound. Duplicate keys are no error here.
pub(super) fn load(text: &str) -> Result<Option<Node>, SpecError> {
    if text.len() > MOST_BYTES {
        let rule = format!("the job has {} bytes; make it shorter than {MOST_BYTES}", text.len());
        return Err(whole_file(Location::START, rule));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| unreadable(text, &error))?;
        builder.take(event, location(span.start))?;
    }
    Ok(builder.root)
}

fn location(mark: Marker) -> Location {
    Location::File { line: mark.line(), column: mark.col() + 1 }
}

fn whole_file(location: Location, rule: String) -> SpecError {
    SpecError { location, key: String::new(), value: None, rule }
}

fn unreadable(text: &str, error: &ScanError) -> SpecError {
    let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    let advice = if indent.contains('\t') {
        "; indent with spaces, not tabs"
    } else if line.contains("${") {
        "; put quotes around text with ${...}"
    } else {
        ""
    };
    whole_file(location(*error.marker()), format!("not valid YAML: {}{advice}", error.info()))
}

/// A mapping or list that is still open.
struct Frame {
    location: Location,
    anchor: usize,
    contents: Contents,
}

enum Contents {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Location)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Frame>,
    anchors: BTreeMap<usize, (Node, usize)>,
    documents: usize,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, location: Location) -> Result<(), SpecError> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(whole_file(location, "a second document begins here; a job file holds one job".into()));
                }
                Ok(())
            }
            Event::Scalar(_, _, _, Some(tag))
            | Event::SequenceStart(_, Some(tag))
            | Event::MappingStart(_, Some(tag)) => Err(whole_file(
                location,
                format!("the tag `{}` is not supported; remove it", shorten(&tag.to_string())),
            )),
            Event::Scalar(text, style, anchor, None) => {
                let style = if style == ScalarStyle::Plain { Style::Plain } else { Style::Quoted };
                let size = 1 + text.len() / 1024;
                self.add(Node::new(location, Value::Scalar { text: text.into_owned(), style }), anchor, size)
            }
            Event::SequenceStart(anchor, None) => self.open(location, anchor, Contents::List(Vec::new())),
            Event::MappingStart(anchor, None) => {
                self.open(location, anchor, Contents::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, size)) => self.add(node, 0, size),
                None => Err(whole_file(
                    location,
                    "the alias is inside the value that it refers to; write the value out".into(),
                )),
            },
        }
    }

    fn open(&mut self, location: Location, anchor: usize, contents: Contents) -> Result<(), SpecError> {
        if self.open.len() == MOST_DEPTH {
            return Err(whole_file(location, format!("nested deeper than {MOST_DEPTH} levels; use fewer levels")));
        }
        self.open.push(Frame { location, anchor, contents });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SpecError> {
        let Some(Frame { location, anchor, contents }) = self.open.pop() else {
            return Ok(());
        };
        let value = match contents {
            Contents::List(items) => Value::List(items),
            Contents::Map { entries, .. } => Value::Map(entries),
        };
        self.add(Node::new(location, value), anchor, 1)
    }

    /// Adds a finished value to the open mapping or list. `size` is the number of values that it adds.
    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), SpecError> {
        self.nodes += size;
        if self.nodes > MOST_NODES {
            return Err(whole_file(
                node.location,
                format!("more than {MOST_NODES} values, with aliases expanded; use fewer"),
            ));
        }
        if anchor > 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut().map(|frame| &mut frame.contents) {
            None => self.root = Some(node),
            Some(Contents::List(items)) => items.push(node),
            Some(Contents::Map { entries, key }) => match key.take() {
                Some((key, location)) => entries.push(Entry { key, location, node }),
                None => *key = Some(key_of(node)?),
            },
        }
        Ok(())
    }
}

fn key_of(node: Node) -> Result<(String, Location), SpecError> {
    match node.value {
        Value::Scalar { text, .. } if text.len() <= MOST_KEY => Ok((text, node.location)),
        Value::Scalar { .. } => {
            Err(whole_file(node.location, format!("a key is longer than {MOST_KEY} bytes; shorten it")))
        }
        _ => {
            let rule = format!("`{}` is not a key; keys are plain text", node.flow());
            Err(whole_file(node.location, rule))
        }
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { text, .. } => text.len() / 1024,
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|e| count(&e.node)).sum(),
    }
}
