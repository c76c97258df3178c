//! Evaluations. Each worker is asked for its next chunk of logits when the join needs it, and samples are fused one by
//! one.
//!
//! Invariants: at most one chunk per modality is outstanding; logits of an abandoned evaluation are accepted and
//! dropped. Messages and inputs of the turn machine are returned as [`Actions`].

use std::collections::BTreeMap;
use std::sync::Arc;

use antiphon_core::event::JobEvent;
use antiphon_core::head::Head;
use antiphon_core::ids::{EvaluationId, ModalityName, Split, WorkerId};
use antiphon_core::join::{Join, Row};
use antiphon_core::metrics::{EvaluationReport, Evaluator};
use antiphon_core::turn::Input;
use antiphon_proto::chunks::Followed;
use antiphon_proto::evaluation::{Evaluate, LogitsChunk};
use antiphon_proto::v1::{self, coordinator_message::Message};
use tracing::warn;

use super::context::Context;
use super::error::JobError;
use super::refusal::Refusal;
use super::times::JobTimes;
use super::turns::Turns;

/// The evaluations of one job.
#[derive(Debug)]
pub(super) struct Evaluations {
    context: Arc<Context>,
    running: Option<Evaluation>,
    /// The last evaluation that was abandoned.
    abandoned: Option<EvaluationId>,
    tuned_weights: Option<BTreeMap<ModalityName, f64>>,
    test_report: Option<EvaluationReport>,
}

/// An evaluation in progress.
#[derive(Debug)]
struct Evaluation {
    id: EvaluationId,
    split: Split,
    join: Join,
    evaluator: Evaluator,
    asked: BTreeMap<ModalityName, Asked>,
}

/// The request to a modality's worker.
#[derive(Debug, Default)]
struct Asked {
    chunks: u64,
    /// Whether the requested chunk has not arrived yet.
    outstanding: bool,
}

/// A worker's logits, with the elements of their tensor.
#[derive(Debug)]
pub(super) struct ReceivedLogits {
    pub(super) message: v1::LogitsChunk,
    pub(super) followed: Followed,
}

/// The resulting messages and inputs.
#[derive(Debug, Default)]
pub(super) struct Actions {
    pub(super) messages: Vec<(WorkerId, Message)>,
    /// Inputs of the turn machine, after the messages are sent.
    pub(super) inputs: Vec<Input>,
}

impl Evaluations {
    pub(super) fn new(context: Arc<Context>, tuned_weights: Option<BTreeMap<ModalityName, f64>>) -> Self {
        Self { context, running: None, abandoned: None, tuned_weights, test_report: None }
    }

    /// Starts an evaluation of a split under this head.
    pub(super) fn begin(&mut self, id: EvaluationId, split: Split, head: &Arc<Head<f32>>, turns: &Turns) -> Actions {
        let (spec, modalities) = (&self.context.spec, &self.context.modalities);
        let tuned = self.tuned_weights.as_ref();
        let evaluator = Evaluator::new(split, modalities, head.classes(), &spec.fusion, tuned);
        let mut join = Join::new(modalities);
        let mut asked = BTreeMap::new();
        let mut actions = Actions::default();
        for modality in modalities {
            if turns.machine.samples().get(modality).is_some_and(|sizes| sizes.of(split) > 0) {
                asked.insert(modality.clone(), Asked::default());
                let Some(worker) = turns.machine.worker(modality).cloned() else { continue };
                let (job, term) = (self.context.id.clone(), self.context.term);
                let evaluate = Evaluate { job, term, evaluation: id, split, head: Arc::clone(head) };
                actions.messages.push((worker, Message::Evaluate(evaluate.encode())));
            } else if let Err(error) = join.push(modality, Vec::new(), true) {
                actions.inputs.push(Input::ShellFailed { reason: error.to_string() });
            }
        }
        self.running = Some(Evaluation { id, split, join, evaluator, asked });
        self.advance(turns, &mut actions);
        actions
    }

    /// Abandons the evaluation, because a worker is lost. Later logits are ignored.
    pub(super) fn abandon(&mut self, id: EvaluationId) {
        self.running = None;
        self.abandoned = Some(id);
    }

    /// Receives a worker's logits.
    ///
    /// # Errors
    /// If they are malformed, or were not requested.
    pub(super) fn take(
        &mut self,
        worker: &WorkerId,
        ReceivedLogits { message, followed }: ReceivedLogits,
        classes: usize,
        turns: &Turns,
        times: &mut JobTimes,
    ) -> Result<Actions, Refusal> {
        // Not from an evicted worker, because its replacement evaluates the split.
        let modality = turns.machine.modality_of(worker).cloned().ok_or_else(Refusal::no_slot)?;
        let at_most = self.context.spec.evaluation.chunk as usize;
        let chunk = LogitsChunk::decode(message, classes, at_most, followed).map_err(Refusal::malformed)?;
        Refusal::check_term(chunk.term, self.context.term)?;
        if self.abandoned.is_some_and(|abandoned| chunk.evaluation <= abandoned) {
            return Ok(Actions::default());
        }
        let running = self.running.as_mut().filter(|running| running.id == chunk.evaluation);
        let running = running.ok_or_else(|| Refusal::unexpected("no such evaluation is in progress"))?;
        let Some(asked) = running.asked.get_mut(&modality) else {
            return Err(Refusal::unexpected(format!("no logits of `{modality}` were requested")));
        };
        if !asked.outstanding || chunk.sequence.checked_add(1) != Some(asked.chunks) {
            return Err(Refusal::unexpected(format!("chunk {} of `{modality}` was not requested", chunk.sequence)));
        }
        asked.outstanding = false;
        if let Some(spent) = chunk.times {
            times.spent(&modality, spent);
        }
        let mut actions = Actions::default();
        let last = chunk.last;
        match running.join.push(&modality, rows(chunk), last) {
            Ok(()) => self.advance(turns, &mut actions),
            // The worker contradicts its earlier messages, so its data cannot be trusted. Another worker's data may be
            // right.
            Err(error) => {
                let (worker, reason) = (worker.clone(), error.to_string());
                actions.inputs.push(Input::WorkerFailed { worker, reason, transient: true });
            }
        }
        Ok(actions)
    }

    /// Counts every complete sample, then requests missing logits or ends the evaluation.
    fn advance(&mut self, turns: &Turns, actions: &mut Actions) {
        let Some(running) = self.running.as_mut() else { return };
        if let Err(error) = running.count() {
            self.running = None;
            actions.inputs.push(Input::ShellFailed { reason: error.to_string() });
        } else if running.join.is_finished() {
            actions.inputs.extend(self.end(turns));
        } else {
            actions.messages.extend(running.ask(&self.context, turns));
        }
    }

    fn end(&mut self, turns: &Turns) -> Option<Input> {
        let Evaluation { id, split, evaluator, .. } = self.running.take()?;
        let report = evaluator.finish();
        if let Some(reason) = &report.not_tuned {
            warn!(evaluation = id.0, reason, "the fusion weights cannot be tuned");
        }
        if split == Split::Validation {
            self.tuned_weights.clone_from(&report.tuned_weights);
        } else {
            self.test_report = Some(report.clone());
        }
        let score = report.headline(&self.context.spec.fusion).map_or(0.0, |scores| scores.accuracy);
        let (job, turn) = (self.context.id.clone(), turns.machine.position().turn);
        self.context.emit(&JobEvent::Evaluated { job, turn, evaluation: id, report });
        Some(Input::EvaluationFinished { evaluation: id, score })
    }

    /// What the current evaluation waits for.
    pub(super) fn activity(&self, turns: &Turns) -> Option<String> {
        let running = self.running.as_ref()?;
        let outstanding = running.asked.iter().filter(|(_, asked)| asked.outstanding);
        let from: Vec<String> = outstanding
            .filter_map(|(modality, _)| {
                let worker = turns.machine.worker(modality)?;
                Some(format!("`{modality}` worker `{worker}`"))
            })
            .collect();
        let (turn, split) = (turns.turn(), running.split);
        Some(format!("turn {turn}: evaluating {split}; waiting for logits of {}", from.join(", ")))
    }

    /// The fusion weights of the last evaluation of the validation split.
    pub(super) fn tuned_weights(&self) -> Option<&BTreeMap<ModalityName, f64>> {
        self.tuned_weights.as_ref()
    }

    /// The report on the test split.
    pub(super) fn test_report(&self) -> Option<&EvaluationReport> {
        self.test_report.as_ref()
    }
}

impl Evaluation {
    fn count(&mut self) -> Result<(), JobError> {
        while let Some(sample) = self.join.next_sample()? {
            let logits: Vec<Option<&[f32]>> = sample.logits.iter().map(Option::as_deref).collect();
            let counted = self.evaluator.push(sample.label, &logits);
            counted.map_err(|source| JobError::Sample { sample: sample.id, split: self.split, source })?;
        }
        Ok(())
    }

    /// The messages that request the chunks that the join needs next.
    fn ask(&mut self, context: &Context, turns: &Turns) -> Vec<(WorkerId, Message)> {
        let hungry: Vec<ModalityName> = self.join.hungry().cloned().collect();
        let mut messages = Vec::new();
        for modality in hungry {
            let Some(asked) = self.asked.get_mut(&modality).filter(|asked| !asked.outstanding) else { continue };
            let next = v1::NextLogits {
                job: context.id.to_string(),
                term: context.term.0,
                evaluation: self.id.0,
                sequence: asked.chunks,
                at_most: context.spec.evaluation.chunk,
            };
            asked.chunks += 1;
            asked.outstanding = true;
            if let Some(worker) = turns.machine.worker(&modality).cloned() {
                messages.push((worker, Message::NextLogits(next)));
            }
        }
        messages
    }
}

fn rows(chunk: LogitsChunk) -> Vec<Row> {
    let Some(logits) = chunk.logits else { return Vec::new() };
    let pairs = chunk.ids.into_iter().zip(chunk.labels).zip(logits.iter_rows());
    pairs.map(|((id, label), logits)| Row { id, label, logits: logits.to_vec() }).collect()
}
