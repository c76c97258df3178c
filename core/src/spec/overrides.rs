//! `--set a.b.c=value`: replaces one value of a job after its file was read.

use super::document::{Entry, Node, Value, join, load};
use super::error::{Location, SpecError, shorten};
use super::fields::EXCLUSIVE;
use super::reader::expand_short;

/// The largest number of keys before `=`.
const MOST_KEYS: usize = 16;

/// `a.b.c=value`: the path of a field, in keys and positions in lists, and its new value as YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override(String);

impl From<&str> for Override {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for Override {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Override {
    /// Sets the value in the tree, and creates missing mappings along its path.
    pub(super) fn apply(&self, index: usize, root: &mut Node) -> Result<(), SpecError> {
        let location = Location::Override { index, text: self.0.clone() };
        let refuse = |key: &str, rule: &str| SpecError {
            location: location.clone(),
            key: shorten(key),
            value: None,
            rule: rule.to_owned(),
        };
        let Some((path, text)) = self.0.split_once('=') else {
            return Err(refuse("", "has no `=`; write key=value, for example schedule.epochs=3"));
        };
        let path = path.trim();
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return Err(refuse("", "has an empty key before `=`; write key=value, for example schedule.epochs=3"));
        }
        if path.split('.').count() > MOST_KEYS {
            return Err(refuse(path, &format!("has more than {MOST_KEYS} keys before `=`; use fewer")));
        }
        let mut value = load(text)
            .map_err(|error| refuse(path, &error.rule))?
            .unwrap_or_else(|| Node::plain(location.clone(), "null"));
        relocate(&mut value, &location);
        set(root, "", path, value, &location).map_err(|rule| refuse(path, &rule))?;
        for (one, other) in EXCLUSIVE.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            if path == one {
                remove_from_file(root, other);
            }
        }
        Ok(())
    }
}

fn relocate(node: &mut Node, location: &Location) {
    node.location.clone_from(location);
    match &mut node.value {
        Value::Scalar { .. } => {}
        Value::List(items) => items.iter_mut().for_each(|item| relocate(item, location)),
        Value::Map(entries) => {
            for entry in entries {
                entry.location.clone_from(location);
                relocate(&mut entry.node, location);
            }
        }
    }
}

fn set(node: &mut Node, above: &str, path: &str, value: Node, location: &Location) -> Result<(), String> {
    let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    if node.is_null() {
        node.value = Value::Map(Vec::new());
    }
    if !above.is_empty() && key.parse::<usize>().is_err() {
        *node = expand_short(node.clone(), above);
    }
    let target = match &mut node.value {
        Value::Map(entries) => entry(entries, key, location),
        Value::List(items) => item(items, key, location)?,
        Value::Scalar { text, .. } => {
            return Err(format!("`{above}` is `{}`, which has no keys; set all of `{above}`", shorten(text)));
        }
    };
    match rest {
        None => *target = value,
        Some(rest) => set(target, &join(above, key), rest, value, location)?,
    }
    Ok(())
}

fn entry<'a>(entries: &'a mut Vec<Entry>, key: &str, location: &Location) -> &'a mut Node {
    let at = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        let node = Node::plain(location.clone(), "null");
        entries.push(Entry { key: key.to_owned(), location: location.clone(), node });
        entries.len() - 1
    });
    &mut entries[at].node
}

fn item<'a>(items: &'a mut Vec<Node>, key: &str, location: &Location) -> Result<&'a mut Node, String> {
    let length = items.len();
    let at = key.parse::<usize>().ok().filter(|n| *n <= length).ok_or_else(|| {
        format!(
            "`{}` is not an index of a list of length {length}; use 0 to {length}, where {length} appends",
            shorten(key)
        )
    })?;
    if at == length {
        items.push(Node::plain(location.clone(), "null"));
    }
    Ok(&mut items[at])
}

/// Removes what the file sets under a path of two keys. What another override sets stays.
fn remove_from_file(root: &mut Node, path: &str) {
    let Some((section, key)) = path.split_once('.') else {
        return;
    };
    let Value::Map(entries) = &mut root.value else { return };
    for entry in entries.iter_mut().filter(|entry| entry.key == section) {
        if let Value::Map(fields) = &mut entry.node.value {
            fields.retain(|field| field.key != key || matches!(field.node.location, Location::Override { .. }));
        }
    }
}
