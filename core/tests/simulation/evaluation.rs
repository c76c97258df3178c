//! The simulated shell's evaluations: every worker's logits of a split, and their score.

use std::collections::BTreeMap;

use antiphon_core::ids::{EvaluationId, ModalityName, Split, WorkerId};
use antiphon_core::time::Time;
use antiphon_core::turn::Input;

use crate::coordinator::{Coordinator, Refusal};
use crate::learner::Logits;
use crate::report::{EvaluationRecord, score};
use crate::worker::ToWorker;

/// An evaluation in progress.
pub(crate) struct Evaluation {
    id: EvaluationId,
    split: Split,
    answers: BTreeMap<ModalityName, Vec<Logits>>,
}

impl Coordinator {
    pub(super) fn begin_evaluation(&mut self, evaluation: EvaluationId, split: Split) {
        self.evaluation = Some(Evaluation { id: evaluation, split, answers: BTreeMap::new() });
        let head = self.head.head().clone();
        for modality in self.job.modalities.clone() {
            if let Some(worker) = self.machine.worker(&modality.name).cloned() {
                self.send(worker, ToWorker::Evaluate { term: self.term, evaluation, split, head: head.clone() });
            }
        }
    }

    /// A worker is lost: logits that are still on their way are ignored.
    pub(super) fn abandon_evaluation(&mut self, id: EvaluationId) {
        self.evaluation = None;
        self.abandoned = Some(id);
        self.seen.insert("an evaluation was abandoned");
    }

    /// Whether this evaluation's logits are ignored.
    pub(crate) fn has_abandoned(&self, id: EvaluationId) -> bool {
        self.abandoned.is_some_and(|abandoned| id <= abandoned)
    }

    pub(super) fn evaluated(
        &mut self,
        now: Time,
        worker: &WorkerId,
        id: EvaluationId,
        logits: Vec<Logits>,
    ) -> Result<(), Refusal> {
        let modality = self.machine.modality_of(worker).cloned();
        let modality = modality.ok_or_else(|| Refusal::Shell("the sender has no slot in this job".to_owned()))?;
        let open = self.evaluation.as_mut().filter(|open| open.id == id && !open.answers.contains_key(&modality));
        let open = open.ok_or_else(|| Refusal::Shell(format!("evaluation {id} does not wait for `{modality}`")))?;
        open.answers.insert(modality, logits);
        if open.answers.len() < self.job.modalities.len() {
            return Ok(());
        }
        let (split, score) = (open.split, score(&open.answers));
        self.evaluation = None;
        let turn = self.machine.position().turn;
        let record = EvaluationRecord { turn, split, score: score.to_bits() };
        if !self.naive.report.evaluations.contains(&record) {
            return Err(Refusal::Broken(format!("the plain loop has no such evaluation: {record:?}")));
        }
        self.report.evaluations.push(record);
        self.give(now, Input::EvaluationFinished { evaluation: id, score })
    }
}
