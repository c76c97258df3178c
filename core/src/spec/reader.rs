//! Walks a job's tree field by field.
//!
//! An error is recorded and reading continues, so one pass finds every error. Each field is read through its entry in
//! the table, which supplies the key, the rule for errors, and the explanation.

use super::document::{Entry, Node, Style, Value, join, load};
use super::error::SpecError;
use super::explain::FieldReport;
use super::field::{Field, Kind};
use super::fields::short_key;
use super::json::Json;
use super::scalar;
use super::suggest::nearest;
use crate::ids::EncoderName;

/// The result of a pass over a job.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) errors: Vec<SpecError>,
    pub(super) fields: Vec<FieldReport>,
    pub(super) encoders: KnownEncoders,
}

/// Encoders that a job may name besides the built-in ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownEncoders {
    /// The encoders that the program registers, if it registers any.
    Registered(Vec<EncoderName>),
    /// Any name. The coordinator uses this, because it builds no encoder: the client checks the job and the worker
    /// builds the encoder.
    Any,
}

impl Default for KnownEncoders {
    fn default() -> Self {
        Self::Registered(Vec::new())
    }
}

impl KnownEncoders {
    fn has(&self, name: &EncoderName) -> bool {
        match self {
            Self::Registered(names) => names.contains(name),
            Self::Any => true,
        }
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Registered(names) => names.iter().map(EncoderName::as_str).collect(),
            Self::Any => Vec::new(),
        }
    }
}

/// A value was refused, and the error is recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused;

/// A mapping that is being read. A rejected value is None, and its error is already recorded.
pub(super) struct Section<'r> {
    pub(super) log: &'r mut Log,
    node: Node,
    /// The path under which it is read. For an inherited mapping, that is not the path in the file.
    path: String,
    known: Vec<&'static str>,
}

impl<'r> Section<'r> {
    /// Reads a mapping, or the bare value that stands for one; None if it is neither.
    pub(super) fn new(log: &'r mut Log, node: Node, path: String, field: &Field) -> Option<Self> {
        let node = expand_short(node, &path);
        let node = if node.is_null() { empty_at(&node) } else { node };
        match &node.value {
            Value::Map(_) => Some(Self { log, node, path, known: Vec::new() }),
            _ => {
                if !node.is_broken() {
                    log.errors.push(node.error(format!("is not {}, for example `{}`", field.kind, field.example)));
                }
                None
            }
        }
    }

    /// The mapping under a key; an empty one if there is none.
    pub(super) fn section(&mut self, field: &'static Field) -> Option<Section<'_>> {
        let node = self.own(field);
        self.section_of(field, node)
    }

    /// The mapping under a key. Missing keys are inherited from another mapping.
    pub(super) fn inheriting(
        &mut self,
        field: &'static Field,
        base: Option<&Node>,
        tag: (&str, &str),
    ) -> Option<Section<'_>> {
        let mut node = self.own(field);
        if node.is_null() {
            node = empty_at(&node);
        }
        if let Some(base) = base.filter(|base| !base.is_null()) {
            node = inherit(base.clone(), node, tag, &join(&self.path, field.key));
        }
        self.section_of(field, node)
    }

    fn own(&mut self, field: &'static Field) -> Node {
        self.child(field).unwrap_or_else(|| Node { path: join(&self.node.path, field.key), ..empty_at(&self.node) })
    }

    /// A mapping that was assembled from other ones, read as if it stood under a key.
    pub(super) fn section_of(&mut self, field: &'static Field, node: Node) -> Option<Section<'_>> {
        self.known.push(field.key);
        let path = join(&self.path, field.key);
        Section::new(self.log, node, path, field)
    }

    /// The value under a key, if there is one.
    pub(super) fn child(&mut self, field: &'static Field) -> Option<Node> {
        self.known.push(field.key);
        self.node.child(field.key).cloned()
    }

    pub(super) fn has(&self, field: &Field) -> bool {
        self.node.child(field.key).is_some()
    }

    /// Reads a field by `get`, which returns None for a value that does not fit.
    pub(super) fn read<T>(
        &mut self,
        field: &'static Field,
        get: impl Fn(&Node) -> Option<T>,
        json: impl Fn(&T) -> Json,
    ) -> Option<T> {
        let (node, given) = self.find(field)?;
        let Some(value) = get(&node) else {
            self.misfit(field, node, |node| get(node).is_some());
            return None;
        };
        self.note(field, json(&value), given.then_some(&node));
        Some(value)
    }

    /// As `read`, with a default that depends on the rest of the job.
    pub(super) fn read_or<T>(
        &mut self,
        field: &'static Field,
        default: Option<T>,
        get: impl Fn(&Node) -> Option<T>,
        json: impl Fn(&T) -> Json,
    ) -> Option<T> {
        if self.has(field) {
            return self.read(field, get, json);
        }
        self.known.push(field.key);
        self.note(field, json(default.as_ref()?), None);
        default
    }

    fn find(&mut self, field: &'static Field) -> Option<(Node, bool)> {
        let Some(node) = self.child(field) else {
            return match field.default {
                Some(text) => load(text).ok().flatten().map(|node| (node, false)),
                None => {
                    self.missing(field);
                    None
                }
            };
        };
        if node.is_broken() {
            return None;
        }
        if node.is_null() && field.default != Some("null") {
            let advice = if field.default.is_some() { ", or remove the key" } else { "" };
            let rule = format!("has no value; give {}{advice}", field.kind);
            self.log.errors.push(SpecError { value: None, ..node.error(rule) });
            return None;
        }
        Some((node, true))
    }

    /// Records that a required key is missing.
    pub(super) fn missing(&mut self, field: &Field) {
        let rule = format!("is missing; give {}, for example `{}: {}`", field.kind, field.key, field.example);
        let location = self.node.location.clone();
        self.log.errors.push(SpecError { location, key: join(&self.node.path, field.key), value: None, rule });
    }

    fn misfit(&mut self, field: &Field, mut node: Node, fits: impl Fn(&Node) -> bool) {
        let mut error = node.error(format!("is not {}", field.kind));
        if let Some(location) = node.overridden() {
            error.location = location.clone();
        }
        if let (Kind::OneOf(words), Some(text)) = (field.kind, node.text())
            && let Some(word) = nearest(text, words)
        {
            error.rule += &format!("; did you mean `{word}`?");
        }
        if let Value::Scalar { style: style @ Style::Quoted, .. } = &mut node.value {
            *style = Style::Plain;
            if fits(&node) {
                error.rule += "; remove the quotes";
            }
        }
        self.log.errors.push(error);
    }

    /// Adds a field to the explanation.
    pub(super) fn note(&mut self, field: &'static Field, value: Json, given: Option<&Node>) {
        self.log.fields.push(FieldReport {
            key: join(&self.path, field.key),
            value,
            given: given.map(|node| node.location.clone()),
            unit: field.unit,
            range: field.kind.to_string(),
            meaning: field.meaning,
            example: field.example,
        });
    }

    /// Refuses a value that is valid by itself but conflicts with others.
    pub(super) fn refuse(&mut self, field: &Field, value: impl ToString, rule: impl Into<String>) {
        let location_and_key = self.node.child(field.key).map(|node| (node.location.clone(), node.path.clone()));
        let (location, key) =
            location_and_key.unwrap_or_else(|| (self.node.location.clone(), join(&self.node.path, field.key)));
        self.log.errors.push(SpecError { location, key, value: Some(value.to_string()), rule: rule.into() });
    }

    /// Refuses all keys that were not read.
    pub(super) fn finish(self) {
        let Value::Map(entries) = &self.node.value else { return };
        for Entry { key, location, node } in entries.iter().filter(|entry| !self.known.contains(&entry.key.as_str())) {
            let advice = match nearest(key, &self.known) {
                Some(word) => format!("did you mean `{word}`?"),
                None => {
                    let mut known = self.known.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("the keys are {}", listed(&known))
                }
            };
            let rule = format!("is not a known key; {advice}");
            self.log.errors.push(SpecError { location: location.clone(), key: node.path.clone(), value: None, rule });
        }
    }

    pub(super) fn whole<T: TryFrom<u64>>(&mut self, field: &'static Field) -> Option<T> {
        let Kind::Whole(low, high) = field.kind else {
            return None;
        };
        let number = self.read(field, |node| scalar::whole(node, low, high), |n| Json::Whole(*n))?;
        T::try_from(number).ok()
    }

    pub(super) fn optional_whole(&mut self, field: &'static Field) -> Option<Option<u32>> {
        let Kind::Whole(low, high) = field.kind else {
            return None;
        };
        let get = |node: &Node| scalar::whole(node, low, high).and_then(|n| u32::try_from(n).ok());
        self.read(field, optional(get), |n| (*n).into())
    }

    pub(super) fn wholes(&mut self, field: &'static Field) -> Option<Vec<u32>> {
        let Kind::Wholes { count: (least, most), each: (low, high) } = field.kind else {
            return None;
        };
        let one = |node: &Node| scalar::whole(node, low, high).and_then(|n| u32::try_from(n).ok());
        let get = |node: &Node| scalar::list(node, one).filter(|list| (least..=most).contains(&list.len()));
        self.read(field, get, |list| list.as_slice().into())
    }

    pub(super) fn number(&mut self, field: &'static Field) -> Option<f64> {
        let Kind::Number(low, high) = field.kind else {
            return None;
        };
        self.read(field, |node| scalar::number(node, low, high), |x| Json::Number(*x))
    }

    pub(super) fn optional_number(&mut self, field: &'static Field) -> Option<Option<f64>> {
        let Kind::Number(low, high) = field.kind else {
            return None;
        };
        self.read(field, optional(|node: &Node| scalar::number(node, low, high)), |x| (*x).into())
    }

    pub(super) fn share(&mut self, field: &'static Field) -> Option<f64> {
        self.read(field, scalar::share, |x| Json::Number(*x))
    }

    pub(super) fn flag(&mut self, field: &'static Field) -> Option<bool> {
        self.read(field, scalar::flag, |flag| Json::Flag(*flag))
    }

    pub(super) fn text(&mut self, field: &'static Field) -> Option<String> {
        self.read(field, scalar::text, |text| Json::text(text))
    }

    pub(super) fn optional_text(&mut self, field: &'static Field) -> Option<Option<String>> {
        self.read(field, optional(scalar::text), |text| text.clone().map_or(Json::Null, Json::Text))
    }

    pub(super) fn texts(&mut self, field: &'static Field) -> Option<Vec<String>> {
        self.read(field, scalar::texts, |texts| texts_json(texts))
    }

    /// The name of a registered encoder, if the field holds one. A name that is neither registered nor built in is
    /// refused.
    pub(super) fn registered(&mut self, field: &'static Field) -> Option<Result<EncoderName, Refused>> {
        let Kind::OneOf(built_in) = field.kind else { return None };
        let text = self.child(field)?.text().filter(|text| !built_in.contains(text))?.to_owned();
        let encoders = self.log.encoders.clone();
        if let Some(name) = EncoderName::try_from(text.as_str()).ok().filter(|name| encoders.has(name)) {
            self.text(field);
            return Some(Ok(name));
        }
        let all: Vec<&str> = built_in.iter().copied().chain(encoders.names()).collect();
        let mut rule = format!("is not built into this program, which has the encoders {}", listed(&all));
        match nearest(&text, &all) {
            Some(word) => rule += &format!("; did you mean `{word}`?"),
            None => rule += "; for an encoder of your own, use the program that registers it",
        }
        self.refuse(field, text, rule);
        Some(Err(Refused))
    }

    /// One of the words that the field takes.
    pub(super) fn choice(&mut self, field: &'static Field) -> Option<&'static str> {
        let Kind::OneOf(words) = field.kind else { return None };
        let get = |node: &Node| words.iter().copied().find(|word| node.text() == Some(word));
        self.read(field, get, |word| Json::text(*word))
    }
}

/// Reads by `get`, and accepts null as no value.
pub(super) fn optional<T>(get: impl Fn(&Node) -> Option<T>) -> impl Fn(&Node) -> Option<Option<T>> {
    move |node| {
        if node.is_null() { Some(None) } else { get(node).map(Some) }
    }
}

pub(super) fn texts_json(texts: &[String]) -> Json {
    Json::List(texts.iter().map(Json::text).collect())
}

/// `` `a`, `b` ``
pub(super) fn listed<T: std::fmt::Display>(words: &[T]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn empty_at(node: &Node) -> Node {
    Node { value: Value::Map(Vec::new()), ..node.clone() }
}

/// Replaces a bare value by the mapping that it abbreviates, and null by an empty mapping.
pub(super) fn expand_short(node: Node, path: &str) -> Node {
    let Some(key) = short_key(path) else { return node };
    match &node.value {
        Value::Map(_) => node,
        _ if node.is_null() => node,
        Value::List(_) if key == "kind" => node,
        _ => {
            let (location, path) = (node.location.clone(), node.path.clone());
            let entry = Entry { key: key.to_owned(), location: location.clone(), node };
            Node { location, path, value: Value::Map(vec![entry]) }
        }
    }
}

/// The mapping `own`, with missing keys inherited from `base`. If the two have different values of the `tag` key, given
/// with its default, nothing is inherited.
fn inherit(base: Node, own: Node, tag: (&str, &str), path: &str) -> Node {
    let (base, own) = (expand_short(base, path), expand_short(own, path));
    let Value::Map(entries) = &own.value else { return own };
    let Value::Map(defaults) = &base.value else {
        return if entries.is_empty() { base } else { own };
    };
    let kind = |node: &Node| node.child(tag.0).and_then(Node::text).map(str::to_owned);
    if kind(&own).is_some_and(|own| own != kind(&base).unwrap_or_else(|| tag.1.to_owned())) {
        return own;
    }
    let inherited = defaults.iter().filter(|entry| own.child(&entry.key).is_none());
    let all = inherited.chain(entries).cloned().collect();
    Node { value: Value::Map(all), ..own }
}
