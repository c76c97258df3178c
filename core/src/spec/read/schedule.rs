//! The schedule and the fusion rule, which refer to modalities by name.

use std::collections::BTreeMap;
use std::ops::Bound::{Included, Unbounded};

use super::super::document::{Node, Value};
use super::super::field::{Field, Kind};
use super::super::fields::{job, schedule as at};
use super::super::json::Json;
use super::super::model::{FusionSpec, Length, ScheduleMode, ScheduleSpec, TurnOrder};
use super::super::reader::{Section, listed};
use super::super::scalar;
use super::super::suggest::nearest;
use crate::ids::ModalityName;

type Names<'a> = Option<&'a [ModalityName]>;

pub(super) fn schedule(mut section: Section<'_>, names: Names<'_>) -> Option<ScheduleSpec> {
    let length = length(&mut section);
    let order = order(&mut section, names);
    let mode = mode(&mut section);
    let batch = section.whole(&at::BATCH);
    let turn_batches = section.whole(&at::TURN_BATCHES);
    let micro_shards = section.whole(&at::MICRO_SHARDS);
    if let Some(count) = micro_shards.filter(|count| *count > 1) {
        section.refuse(&at::MICRO_SHARDS, count, "must be 1: each modality has one worker");
    }
    let lease_ttl = section.read(&at::LEASE_TTL, scalar::seconds, |seconds| Json::Number(*seconds));
    let turn_deadline = section.read(&at::TURN_DEADLINE, scalar::seconds, |seconds| Json::Number(*seconds));
    for (field, given) in [(&at::LEASE_TTL, lease_ttl), (&at::TURN_DEADLINE, turn_deadline)] {
        if let Some(seconds) = given.filter(|seconds| *seconds < 0.1) {
            section.refuse(field, format!("{seconds} s"), "is too short for a heartbeat; use at least 100 ms");
        }
    }
    section.finish();
    Some(ScheduleSpec {
        length: length?,
        order: order?,
        mode: mode?,
        batch: batch?,
        turn_batches: turn_batches?,
        micro_shards: micro_shards?,
        lease_ttl: lease_ttl?,
        turn_deadline: turn_deadline?,
    })
}

fn length(section: &mut Section<'_>) -> Option<Length> {
    if !section.has(&at::TURNS) {
        let epochs = section.whole(&at::EPOCHS).map(Length::Epochs);
        section.child(&at::TURNS);
        return epochs;
    }
    let turns = section.whole(&at::TURNS).map(Length::Turns);
    if let Some(epochs) = section.child(&at::EPOCHS) {
        section.refuse(&at::EPOCHS, epochs.flow(), "conflicts with `turns`; give one of the two");
    }
    turns
}

fn order(section: &mut Section<'_>, names: Names<'_>) -> Option<TurnOrder> {
    let Kind::Whole(low, high) = at::ORDER_TURNS else {
        return None;
    };
    let turns = |node: &Node| scalar::whole(node, low, high).and_then(|n| u32::try_from(n).ok());
    if let Some(node) = section.child(&at::ORDER)
        && let Value::Map(_) = node.value
    {
        let kind = at::ORDER_TURNS.to_string();
        let weights = weights(section, &at::ORDER, &node, names, &kind, turns)?;
        let json = weights.iter().map(|(name, n)| (name.to_string(), Json::from(*n))).collect();
        section.note(&at::ORDER, Json::Map(json), Some(&node));
        return Some(TurnOrder::Weighted(weights));
    }
    let get = |node: &Node| match node.text()? {
        "cyclic" => Some(TurnOrder::Cyclic),
        "weak-first" => Some(TurnOrder::WeakFirst),
        _ => None,
    };
    section.read(&at::ORDER, get, |order| Json::text(if *order == TurnOrder::Cyclic { "cyclic" } else { "weak-first" }))
}

fn mode(section: &mut Section<'_>) -> Option<ScheduleMode> {
    let known = [ScheduleMode::Pipelined, ScheduleMode::Sequential];
    let get = |node: &Node| known.into_iter().find(|mode| node.text() == Some(mode.as_str()));
    section.read(&at::MODE, get, |mode| Json::text(mode.as_str()))
}

pub(super) fn fusion(section: &mut Section<'_>, names: Names<'_>) -> Option<FusionSpec> {
    if let Some(node) = section.child(&job::FUSION)
        && let Value::Map(_) = node.value
    {
        return fixed(section, &node, names);
    }
    let get = |node: &Node| match node.text()? {
        "entropy" => Some(FusionSpec::Entropy),
        "mean" => Some(FusionSpec::Mean),
        "tuned" => Some(FusionSpec::Tuned),
        _ => None,
    };
    section.read(&job::FUSION, get, |fusion| {
        Json::text(match fusion {
            FusionSpec::Mean => "mean",
            FusionSpec::Tuned => "tuned",
            _ => "entropy",
        })
    })
}

fn fixed(section: &mut Section<'_>, node: &Node, names: Names<'_>) -> Option<FusionSpec> {
    let weight = |node: &Node| scalar::number(node, Included(0.0), Unbounded);
    let weights = weights(section, &job::FUSION, node, names, "a number of 0 or more", weight)?;
    for name in names.unwrap_or_default().iter().filter(|name| !weights.contains_key(name)) {
        section.refuse(&job::FUSION, node.flow(), format!("gives no weight to `{name}`; name every modality"));
    }
    if weights.values().all(|weight| *weight == 0.0) {
        section.refuse(&job::FUSION, node.flow(), "gives every modality the weight 0; make at least one weight larger");
    }
    let json = weights.iter().map(|(name, weight)| (name.to_string(), Json::from(*weight))).collect();
    section.note(&job::FUSION, Json::Map(json), Some(node));
    Some(FusionSpec::Fixed(weights))
}

/// A mapping from modalities that the job has.
fn weights<T>(
    section: &mut Section<'_>,
    field: &Field,
    node: &Node,
    names: Names<'_>,
    kind: &str,
    get: impl Fn(&Node) -> Option<T>,
) -> Option<BTreeMap<ModalityName, T>> {
    let Value::Map(entries) = &node.value else { return None };
    let mut weights = BTreeMap::new();
    for entry in entries {
        let Ok(name) = ModalityName::try_from(entry.key.as_str()) else {
            section
                .log
                .errors
                .push(entry.node.error(format!("is for `{}`, which is not a valid name of a modality", entry.key)));
            continue;
        };
        if let Some(names) = names.filter(|names| !names.contains(&name)) {
            let words: Vec<&str> = names.iter().map(ModalityName::as_str).collect();
            let advice = match nearest(name.as_str(), &words) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("the modalities are {}", listed(&words)),
            };
            let error = entry.node.error(format!("is for a modality that the job does not have; {advice}"));
            section.log.errors.push(error);
        }
        match get(&entry.node) {
            Some(weight) => {
                weights.insert(name, weight);
            }
            None if entry.node.is_broken() => {}
            None => section.log.errors.push(entry.node.error(format!("is not {kind}"))),
        }
    }
    if entries.is_empty() {
        section.refuse(field, "{}", "names no modality; give at least one");
    }
    Some(weights)
}
