//! Optimizers and their learning-rate schedules.

use super::super::document::Node;
use super::super::fields::optimizer as at;
use super::super::model::{LearningRateSchedule, OptimizerRule, OptimizerSpec};
use super::super::reader::Section;
use super::super::scalar;

pub(super) fn optimizer(mut section: Section<'_>) -> Option<OptimizerSpec> {
    let kind = section.choice(&at::KIND)?;
    let lr = section.number(&at::LR);
    let rule = if kind == "adamw" { adamw(&mut section) } else { sgd(&mut section) };
    let schedule = section.section(&at::SCHEDULE).and_then(schedule);
    let clip = section.optional_number(&at::CLIP);
    section.finish();
    Some(OptimizerSpec { rule: rule?, lr: lr?, schedule: schedule?, clip: clip? })
}

fn sgd(section: &mut Section<'_>) -> Option<OptimizerRule> {
    let momentum = section.number(&at::MOMENTUM);
    let weight_decay = section.number(&at::WEIGHT_DECAY);
    Some(OptimizerRule::Sgd { momentum: momentum?, weight_decay: weight_decay? })
}

fn adamw(section: &mut Section<'_>) -> Option<OptimizerRule> {
    let beta1 = section.number(&at::BETA1);
    let beta2 = section.number(&at::BETA2);
    let eps = section.number(&at::EPS);
    let weight_decay = section.number(&at::ADAMW_WEIGHT_DECAY);
    Some(OptimizerRule::Adamw { beta1: beta1?, beta2: beta2?, eps: eps?, weight_decay: weight_decay? })
}

fn schedule(mut section: Section<'_>) -> Option<LearningRateSchedule> {
    let kind = section.choice(&at::SCHEDULE_KIND)?;
    let warmup = section.number(&at::WARMUP);
    let schedule = match kind {
        "step" => {
            let steps = section.read(&at::AT, epochs, |at| at.as_slice().into());
            let factor = section.number(&at::FACTOR);
            step(warmup, steps, factor)
        }
        "cosine" => {
            let floor = section.number(&at::FLOOR);
            warmup.zip(floor).map(|(warmup, floor)| LearningRateSchedule::Cosine { floor, warmup })
        }
        _ => warmup.map(|warmup| LearningRateSchedule::Constant { warmup }),
    };
    section.finish();
    schedule
}

fn step(warmup: Option<f64>, at: Option<Vec<f64>>, factor: Option<f64>) -> Option<LearningRateSchedule> {
    Some(LearningRateSchedule::Step { at: at?, factor: factor?, warmup: warmup? })
}

/// Numbers above 0, each above the one before; at least one.
fn epochs(node: &Node) -> Option<Vec<f64>> {
    use std::ops::Bound::{Excluded, Unbounded};
    let at = scalar::list(node, |node| scalar::number(node, Excluded(0.0), Unbounded))?;
    (!at.is_empty() && at.is_sorted_by(|a, b| a < b)).then_some(at)
}
