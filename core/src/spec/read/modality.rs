//! The modalities.

use super::super::document::{Entry, Node, Value, join};
use super::super::error::SpecError;
use super::super::field::{Field, Kind};
use super::super::fields::{job as at, modality as field};
use super::super::json::Json;
use super::super::model::{ModalitySpec, WorkerRange};
use super::super::reader::Section;
use super::super::scalar;
use super::fit::fit;
use super::{data, encoder, input, optimizer};
use crate::ids::ModalityName;

/// The top-level values that modalities inherit.
struct Defaults {
    data: Option<Node>,
    optimizer: Option<Node>,
}

/// The names, to which other sections refer, and the modalities unless one was refused.
pub(super) type Modalities = (Vec<ModalityName>, Option<Vec<ModalitySpec>>);

pub(super) fn modalities(job: &mut Section<'_>) -> Option<Modalities> {
    let defaults = Defaults { data: job.child(&at::DATA), optimizer: job.child(&at::OPTIMIZER) };
    let Some(node) = job.child(&at::MODALITIES) else {
        job.missing(&at::MODALITIES);
        return None;
    };
    let Value::Map(entries) = &node.value else {
        let error = node.error(format!("is not {}, for example `{}`", at::MODALITIES.kind, at::MODALITIES.example));
        job.log.errors.push(error);
        return None;
    };
    if entries.is_empty() {
        job.refuse(&at::MODALITIES, "{}", "names no modality; give at least one");
    }
    let mut names = Vec::new();
    let mut specs = Vec::new();
    for entry in entries {
        let spec = match ModalityName::try_from(entry.key.as_str()) {
            Ok(name) => {
                names.push(name.clone());
                modality(job, name, &entry.node, &defaults)
            }
            Err(error) => {
                let (location, key) = (entry.location.clone(), at::MODALITIES.key.to_owned());
                job.log.errors.push(SpecError { location, key, value: None, rule: error.to_string() });
                None
            }
        };
        specs.push(spec);
    }
    let all_named = names.len() == entries.len();
    all_named.then(|| (names, specs.into_iter().collect()))
}

fn modality(job: &mut Section<'_>, name: ModalityName, node: &Node, defaults: &Defaults) -> Option<ModalitySpec> {
    let path = join(at::MODALITIES.key, name.as_str());
    let mut section = Section::new(job.log, node.clone(), path, &MODALITY)?;
    let data = section
        .inheriting(&at::DATA, defaults.data.as_ref(), ("source", "parquet"))
        .and_then(|section| data::data(section, &name));
    let input = section.section(&field::INPUT).and_then(input::input);
    let encoder = section.section(&field::ENCODER).and_then(encoder::encoder);
    if let (Some(input), Some((encoder, ..))) = (&input, &encoder) {
        fit(&mut section, input, encoder);
    }
    let optimizer =
        section.inheriting(&at::OPTIMIZER, defaults.optimizer.as_ref(), ("kind", "sgd")).and_then(optimizer::optimizer);
    let workers = section.section(&field::WORKERS).and_then(workers);
    section.finish();
    let (encoder, transfer, precision) = encoder?;
    let (data, input, optimizer, workers) = (data?, input?, optimizer?, workers?);
    Some(ModalitySpec { name, data, input, encoder, transfer, precision, optimizer, workers })
}

static MODALITY: Field = Field::new("", Kind::Section, "{encoder: cnn}", "a modality");

fn workers(mut section: Section<'_>) -> Option<WorkerRange> {
    let min: Option<u32> = section.whole(&field::MIN);
    let get = |node: &Node| scalar::whole(node, 1, 1024).and_then(|n| u32::try_from(n).ok());
    let max = section.read_or(&field::MAX, min, get, |max| Json::from(*max));
    if let (Some(min), Some(max)) = (min, max) {
        if min > max {
            section.refuse(&field::MIN, min, format!("is more than `max`, which is {max}; lower it, or raise `max`"));
        } else if min > 1 {
            section.refuse(&field::MIN, min, "must be 1: each modality has one worker");
        }
    }
    section.finish();
    Some(WorkerRange { min: min?, max: max? })
}

/// Turns a list of modalities (names, or mappings with a `name`) into a mapping with the names as keys.
pub(in super::super) fn names_as_keys(root: &mut Node, errors: &mut Vec<SpecError>) {
    let Value::Map(entries) = &mut root.value else { return };
    for entry in entries.iter_mut().filter(|entry| entry.key == at::MODALITIES.key) {
        let Value::List(items) = &mut entry.node.value else {
            continue;
        };
        let named = items.drain(..).filter_map(|item| match named(item) {
            Ok(entry) => Some(entry),
            Err(node) => {
                let rule = "is neither a name nor a mapping with a `name`";
                errors.push(SpecError { key: at::MODALITIES.key.to_owned(), ..node.error(rule) });
                None
            }
        });
        entry.node.value = Value::Map(named.collect());
    }
}

fn named(mut item: Node) -> Result<Entry, Node> {
    let location = item.location.clone();
    if let Some(key) = item.text().map(str::to_owned) {
        return Ok(Entry { key, location: location.clone(), node: Node::new(location, Value::Map(Vec::new())) });
    }
    let Some((key, location)) = item.child("name").and_then(|n| Some((n.text()?.to_owned(), n.location.clone())))
    else {
        return Err(item);
    };
    if let Value::Map(entries) = &mut item.value {
        entries.retain(|entry| entry.key != "name");
    }
    Ok(Entry { key, location, node: item })
}
