//! Going through a split: asks each worker for its next chunk of logits when the join needs it, fuses sample by sample.

use antiphon_core::event::JobEvent;
use antiphon_core::ids::{EvaluationId, ModalityName, Split, Turn, WorkerId};
use antiphon_core::join::{Join, Row};
use antiphon_core::metrics::Evaluator;
use antiphon_core::turn::{Input, TurnMachine};
use antiphon_proto::chunks::Followed;
use antiphon_proto::evaluation::{Evaluate, LogitsChunk};
use antiphon_proto::v1::{self, coordinator_message::Message};
use std::collections::BTreeMap;
use tracing::warn;

use super::Job;
use super::refusal::Refusal;

/// An evaluation under way.
#[derive(Debug)]
pub(super) struct Evaluation {
    id: EvaluationId,
    split: Split,
    join: Join,
    evaluator: Evaluator,
    /// Chunks that each modality was asked for, and whether the last of them is still to come.
    asked: BTreeMap<ModalityName, (u64, bool)>,
}

impl Job {
    pub(super) fn begin_evaluation(&mut self, id: EvaluationId, split: Split) {
        let classes = self.head.head().classes();
        let tuned = self.tuned_weights.as_ref();
        let evaluator = Evaluator::new(split, &self.modalities, classes, &self.spec.fusion, tuned);
        let mut join = Join::new(&self.modalities);
        let samples = self.machine.samples().clone();
        let mut asked = BTreeMap::new();
        for modality in self.modalities.clone() {
            if samples.get(&modality).is_some_and(|sizes| sizes.of(split) > 0) {
                asked.insert(modality.clone(), (0, false));
                self.send_evaluate(id, split, &modality);
            } else if let Err(error) = join.push(&modality, Vec::new(), true) {
                self.give(Input::ShellFailed { reason: error.to_string() });
            }
        }
        self.evaluation = Some(Evaluation { id, split, join, evaluator, asked });
        self.feed();
    }

    /// A worker is lost: whatever logits of it are still on their way are nobody's.
    pub(super) fn abandon_evaluation(&mut self, id: EvaluationId) {
        self.evaluation = None;
        self.abandoned = Some(id);
    }

    fn send_evaluate(&mut self, evaluation: EvaluationId, split: Split, modality: &ModalityName) {
        let Some(worker) = self.machine.worker(modality).cloned() else { return };
        let head = self.head.share();
        let evaluate = Evaluate { job: self.id.clone(), term: self.term, evaluation, split, head };
        self.send(&worker, Message::Evaluate(evaluate.encode()));
    }

    pub(super) fn logits(
        &mut self,
        worker: &WorkerId,
        message: v1::LogitsChunk,
        followed: Followed,
    ) -> Result<(), Refusal> {
        // Not one that was told to let go: somebody else goes through the split in its place.
        let modality = self.machine.modality_of(worker).cloned();
        let modality = modality.ok_or_else(|| Refusal::unexpected("the sender has no place in this job"))?;
        let classes = self.head.head().classes();
        let at_most = self.spec.evaluation.chunk as usize;
        let chunk = LogitsChunk::decode(message, classes, at_most, followed).map_err(Refusal::malformed)?;
        self.same_term(chunk.term)?;
        if self.abandoned.is_some_and(|abandoned| chunk.evaluation <= abandoned) {
            return Ok(());
        }
        let evaluation = self.evaluation.as_mut().filter(|evaluation| evaluation.id == chunk.evaluation);
        let evaluation = evaluation.ok_or_else(|| Refusal::unexpected("no such evaluation is under way"))?;
        let Some((next, outstanding)) = evaluation.asked.get_mut(&modality) else {
            return Err(Refusal::unexpected(format!("no logits of `{modality}` were asked for")));
        };
        if !*outstanding || chunk.sequence.checked_add(1) != Some(*next) {
            return Err(Refusal::unexpected(format!("chunk {} of `{modality}` was not asked for", chunk.sequence)));
        }
        *outstanding = false;
        if let Some(times) = chunk.times {
            self.times.spent(&modality, times);
        }
        let last = chunk.last;
        if let Err(error) = evaluation.join.push(&modality, rows(chunk), last) {
            // The worker contradicts what it sent before: its data cannot be trusted any more. Another one may have better.
            let reason = error.to_string();
            self.give(Input::WorkerFailed { worker: worker.clone(), reason, again: true });
            return Ok(());
        }
        self.feed();
        Ok(())
    }

    /// Counts every sample that is complete, then asks for what is missing, or ends the evaluation.
    fn feed(&mut self) {
        let Some(evaluation) = self.evaluation.as_mut() else { return };
        if let Err(reason) = evaluation.count() {
            self.evaluation = None;
            self.give(Input::ShellFailed { reason });
            return;
        }
        if evaluation.join.is_finished() {
            self.end_evaluation();
            return;
        }
        let hungry: Vec<ModalityName> = evaluation.join.hungry().cloned().collect();
        for modality in hungry {
            self.ask(&modality);
        }
    }

    fn ask(&mut self, modality: &ModalityName) {
        let Some(evaluation) = self.evaluation.as_mut() else { return };
        let Some((next, outstanding)) = evaluation.asked.get_mut(modality) else { return };
        if *outstanding {
            return;
        }
        let message = v1::NextLogits {
            job: self.id.to_string(),
            term: self.term.0,
            evaluation: evaluation.id.0,
            sequence: *next,
            at_most: self.spec.evaluation.chunk,
        };
        *next += 1;
        *outstanding = true;
        if let Some(worker) = self.machine.worker(modality).cloned() {
            self.send(&worker, Message::NextLogits(message));
        }
    }

    fn end_evaluation(&mut self) {
        let Some(Evaluation { id, split, evaluator, .. }) = self.evaluation.take() else { return };
        let report = evaluator.finish();
        if let Some(reason) = &report.not_tuned {
            warn!(job = %self.id, reason);
        }
        if split == Split::Validation {
            self.tuned_weights.clone_from(&report.tuned_weights);
        } else {
            self.test_report = Some(report.clone());
        }
        let score = report.headline(&self.spec.fusion).map_or(0.0, |scores| scores.accuracy);
        let turn = self.machine.position().turn;
        self.emit(&JobEvent::Evaluated { job: self.id.clone(), turn, evaluation: id, report });
        self.give(Input::EvaluationFinished { evaluation: id, score });
    }
}

impl Evaluation {
    /// Whose logits it waits for, in words.
    pub(super) fn activity(&self, turn: Turn, machine: &TurnMachine) -> String {
        let outstanding = self.asked.iter().filter(|(_, (_, outstanding))| *outstanding);
        let from = outstanding.filter_map(|(modality, _)| {
            let worker = machine.worker(modality)?;
            Some(format!("`{modality}` worker `{worker}`"))
        });
        format!(
            "turn {turn}: evaluating {}; logits are to come from {}",
            self.split,
            from.collect::<Vec<_>>().join(", ")
        )
    }

    fn count(&mut self) -> Result<(), String> {
        while let Some(sample) = self.join.next_sample().map_err(|error| error.to_string())? {
            let logits: Vec<Option<&[f32]>> = sample.logits.iter().map(Option::as_deref).collect();
            self.evaluator
                .push(sample.label, &logits)
                .map_err(|error| format!("sample `{}` of {}: {error}", sample.id, self.split))?;
        }
        Ok(())
    }
}

fn rows(chunk: LogitsChunk) -> Vec<Row> {
    let Some(logits) = chunk.logits else { return Vec::new() };
    let pairs = chunk.ids.into_iter().zip(chunk.labels).zip(logits.iter_rows());
    pairs.map(|((id, label), logits)| Row { id, label, logits: logits.to_vec() }).collect()
}
