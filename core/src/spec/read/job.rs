//! The whole job, its labels, checkpoints and evaluation.

use std::collections::BTreeSet;

use super::super::document::{Node, Value};
use super::super::fields::{job as at, keeping, labels};
use super::super::json::Json;
use super::super::model::{CheckpointSpec, Classes, EvaluationSpec, Every, JobSpec, LabelSpec};
use super::super::reader::{Section, texts_json};
use super::super::scalar;
use super::{head, modality, schedule};
use crate::ids::JobName;

/// Reads a whole job. None if any field was refused.
pub(in super::super) fn job(mut job: Section<'_>) -> Option<JobSpec> {
    let name = name(&mut job);
    let seed = job.whole(&at::SEED);
    let modalities = modality::modalities(&mut job);
    let names = modalities.as_ref().map(|(names, _)| names.as_slice());
    let labels = label_spec(&mut job);
    let head = job.section(&at::HEAD).and_then(head::head);
    let schedule = job.section(&at::SCHEDULE).and_then(|section| schedule::schedule(section, names));
    let fusion = schedule::fusion(&mut job, names);
    let checkpoints = job.section(&at::CHECKPOINTS).and_then(checkpoints);
    let evaluation = job.section(&at::EVALUATION).and_then(evaluation);
    job.finish();
    Some(JobSpec {
        name: name?,
        seed: seed?,
        modalities: modalities?.1?,
        labels: labels?,
        head: head?,
        schedule: schedule?,
        fusion: fusion?,
        checkpoints: checkpoints?,
        evaluation: evaluation?,
    })
}

fn name(job: &mut Section<'_>) -> Option<JobName> {
    job.read(&at::NAME, |node| JobName::try_from(node.text()?).ok(), |name| Json::text(name.as_str()))
}

fn label_spec(job: &mut Section<'_>) -> Option<LabelSpec> {
    if !job.has(&at::LABELS) {
        job.missing(&at::LABELS);
    }
    let node = job.child(&at::LABELS)?;
    let mut section = job.section_of(&at::LABELS, node)?;
    let column = section.text(&labels::COLUMN);
    let classes = section.read(&labels::CLASSES, classes, classes_json);
    if let Some(Classes::Names(names)) = &classes {
        let mut seen = BTreeSet::new();
        for name in names.iter().filter(|name| !seen.insert(name.as_str())) {
            section.refuse(&labels::CLASSES, name, "names two classes; give each class a different name");
        }
    }
    section.finish();
    Some(LabelSpec { column: column?, classes: classes? })
}

fn classes(node: &Node) -> Option<Classes> {
    match &node.value {
        Value::List(items) if (2..=labels::MOST_CLASSES).contains(&(items.len() as u64)) => {
            scalar::list(node, scalar::text).map(Classes::Names)
        }
        _ => {
            let count = scalar::whole(node, 2, labels::MOST_CLASSES)?;
            u32::try_from(count).ok().map(Classes::Count)
        }
    }
}

fn classes_json(classes: &Classes) -> Json {
    match classes {
        Classes::Count(count) => (*count).into(),
        Classes::Names(names) => texts_json(names),
    }
}

fn checkpoints(mut section: Section<'_>) -> Option<CheckpointSpec> {
    let to = section.optional_text(&keeping::TO);
    let every = every(&mut section);
    let keep = section.whole(&keeping::KEEP);
    section.finish();
    Some(CheckpointSpec { to: to?, every: every?, keep: keep? })
}

fn evaluation(mut section: Section<'_>) -> Option<EvaluationSpec> {
    let every = every(&mut section);
    let chunk = section.whole(&keeping::CHUNK);
    section.finish();
    Some(EvaluationSpec { every: every?, chunk: chunk? })
}

fn every(section: &mut Section<'_>) -> Option<Every> {
    section.read(&keeping::EVERY, scalar::period, |every| Json::text(every.to_string()))
}
