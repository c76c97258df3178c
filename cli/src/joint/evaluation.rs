//! The accuracy of trained modalities on a split: each with its head, fused, and with the sum of logits that joint
//! training uses.

use std::collections::BTreeMap;

use antiphon_core::ids::{EvaluationId, ModalityName, Split};
use antiphon_core::join::{Join, Row, Sample};
use antiphon_core::linalg::argmax;
use antiphon_core::metrics::{EvaluationReport, Evaluator};
use antiphon_core::spec::{FusionSpec, JobSpec};
use antiphon_data::PrefetchOptions;
use antiphon_worker::trainer::{Model, Pass};
use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::learner::Member;

/// The results on a split.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The report: each modality alone, and all modalities fused by every rule.
    pub(crate) report: EvaluationReport,
    /// Accuracy of Z = Σ_m W_m h_m + b, the logits of a concatenated head: b counts once.
    pub(crate) summed: f64,
}

/// Evaluates a split. If the fusion weights are tuned, evaluates the validation split first. None if it was cancelled.
///
/// # Errors
/// A sample that cannot be decoded, modalities that disagree on a label, logits that are not finite.
pub(crate) fn evaluate(
    job: &JobSpec,
    split: Split,
    members: &[Member<'_>],
    cancelled: &CancellationToken,
) -> anyhow::Result<Option<Measured>> {
    let mut tuned = None;
    if job.fusion == FusionSpec::Tuned && split != Split::Validation {
        let Some(validation) = pass(job, Split::Validation, members, None, cancelled)? else { return Ok(None) };
        tuned = validation.report.tuned_weights;
    }
    pass(job, split, members, tuned.as_ref(), cancelled)
}

fn pass(
    job: &JobSpec,
    split: Split,
    members: &[Member<'_>],
    tuned: Option<&BTreeMap<ModalityName, f64>>,
    cancelled: &CancellationToken,
) -> anyhow::Result<Option<Measured>> {
    let names: Vec<ModalityName> = members.iter().map(|member| member.data.spec.name.clone()).collect();
    let mut evaluator = Evaluator::new(split, &names, job.labels.classes.count(), &job.fusion, tuned);
    let mut join = Join::new(&names);
    let begin = |member: &Member<'_>| {
        let (data, chunk) = (member.data.split(split), job.evaluation.chunk as usize);
        Pass::new(EvaluationId(0), member.head.clone(), data, member.model, chunk, PrefetchOptions::default())
    };
    let mut passes: Vec<Pass> = members.iter().map(begin).collect();
    let (mut right, mut samples) = (0_u64, 0_u64);
    while !join.is_finished() {
        if cancelled.is_cancelled() {
            return Ok(None);
        }
        let hungry: Vec<ModalityName> = join.hungry().cloned().collect();
        for (m, name) in names.iter().enumerate().filter(|(_, name)| hungry.contains(name)) {
            let (rows, last) = next_rows(&mut passes[m], members[m].model)?;
            join.push(name, rows, last)?;
        }
        while let Some(sample) = join.next_sample()? {
            let logits: Vec<Option<&[f32]>> = sample.logits.iter().map(Option::as_deref).collect();
            evaluator.push(sample.label, &logits).with_context(|| format!("sample `{}`", sample.id))?;
            samples += 1;
            right += u64::from(answer_of_sum(&sample, members[0].head.bias()) == sample.label as usize);
        }
    }
    let summed = if samples == 0 { 0.0 } else { right as f64 / samples as f64 };
    Ok(Some(Measured { report: evaluator.finish(), summed }))
}

fn next_rows(pass: &mut Pass, model: &Model) -> anyhow::Result<(Vec<Row>, bool)> {
    let chunk = pass.next_chunk(model)?;
    let logits = chunk.logits.iter().flat_map(|logits| logits.iter_rows());
    let rows = chunk.ids.into_iter().zip(chunk.labels).zip(logits);
    let rows = rows.map(|((id, label), logits)| Row { id, label, logits: logits.to_vec() }).collect();
    Ok((rows, chunk.last))
}

/// The class with the largest Σ_m Z_m − (k − 1) b, where k is the number of modalities of the sample. Each Z_m includes
/// b.
fn answer_of_sum(sample: &Sample, bias: &[f32]) -> usize {
    let present: Vec<&Vec<f32>> = sample.logits.iter().flatten().collect();
    let spare = present.len() as f64 - 1.0;
    let sum = |class: usize| present.iter().map(|z| f64::from(z[class])).sum::<f64>() - spare * f64::from(bias[class]);
    argmax(&(0..bias.len()).map(sum).collect::<Vec<f64>>())
}
