//! Checks objects against the reference.

use std::collections::BTreeSet;

use antiphon_core::reference::{Field, JOB_EVENTS, Kind, Object, Presence};
use serde_json::Value;

use super::PRINTED;

/// Fields that have occurred, as `object name.field name`.
pub type Seen = BTreeSet<String>;

/// Checks an object that a command printed against the reference, and adds its fields to `seen`.
///
/// # Errors
/// The difference: an unknown event, an unknown or missing field, or a value of another kind.
pub fn check(printed: &Value, seen: &mut Seen) -> Result<(), String> {
    let name = printed["event"].as_str().unwrap_or_default();
    let of_commands = PRINTED.iter().flat_map(|printed| printed.objects);
    let mut refused = Vec::new();
    for object in JOB_EVENTS.iter().chain(of_commands).filter(|object| object.name == name) {
        let mut there = Seen::new();
        match fits(object, printed, &mut there) {
            Ok(()) => {
                seen.append(&mut there);
                return Ok(());
            }
            Err(reason) => refused.push(reason),
        }
    }
    match refused.is_empty() {
        true => Err(format!("the reference has no event `{name}`: {printed}")),
        false => Err(format!("{}: {printed}", refused.join("; "))),
    }
}

fn fits(object: &Object, value: &Value, seen: &mut Seen) -> Result<(), String> {
    let Value::Object(map) = value else { return Err(format!("{} is not an object", object.name)) };
    for key in map.keys().filter(|key| *key != "event") {
        if !object.all_fields().any(|field| field.name == key) {
            return Err(format!("the reference has no field `{key}` of `{}`", object.name));
        }
    }
    for field in object.all_fields() {
        let path = format!("{}.{}", object.name, field.name);
        match map.get(field.name) {
            Some(Value::Null) if field.presence == Presence::Nullable => {}
            Some(value) => {
                fits_kind(&field.kind, value, seen).map_err(|reason| format!("`{path}`: {reason}"))?;
                seen.insert(path);
            }
            None if field.presence == Presence::Optional => {}
            None => return Err(format!("`{path}` is missing")),
        }
    }
    Ok(())
}

fn fits_kind(kind: &Kind, value: &Value, seen: &mut Seen) -> Result<(), String> {
    let fitting = match (kind, value) {
        (Kind::Object(object), _) => return fits(object, value, seen),
        (Kind::Map(_, kind), Value::Object(map)) => {
            return map.values().try_for_each(|value| fits_kind(kind, value, seen));
        }
        (Kind::List(kind), Value::Array(list)) => {
            return list.iter().try_for_each(|value| fits_kind(kind, value, seen));
        }
        (Kind::OneOf(choices), Value::String(text)) => choices.contains(&text.as_str()),
        (Kind::Whole, Value::Number(number)) => number.is_u64(),
        (Kind::Text, Value::String(_))
        | (Kind::Number, Value::Number(_))
        | (Kind::Flag, Value::Bool(_))
        | (Kind::Any, _) => true,
        _ => false,
    };
    if fitting { Ok(()) } else { Err(format!("{value} is not {kind:?}")) }
}

/// The object that a kind of value consists of, if any.
#[must_use]
pub fn nested(kind: &Kind) -> Option<&'static Object> {
    match kind {
        Kind::Object(object) => Some(object),
        Kind::Map(_, kind) | Kind::List(kind) => nested(kind),
        _ => None,
    }
}

/// All fields of an object and of the objects in it, as [`Seen`] names them.
fn all_fields(object: &Object, paths: &mut Seen) {
    for field in object.all_fields() {
        let Field { name, kind, .. } = field;
        paths.insert(format!("{}.{name}", object.name));
        if let Some(nested) = nested(kind) {
            all_fields(nested, paths);
        }
    }
}

/// Fields of these objects that are in the reference but have not occurred.
pub fn unseen<'a>(objects: impl IntoIterator<Item = &'a Object>, seen: &Seen) -> Seen {
    let mut all = Seen::new();
    for object in objects {
        all_fields(object, &mut all);
    }
    all.difference(seen).cloned().collect()
}
