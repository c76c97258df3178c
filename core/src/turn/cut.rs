//! A checkpoint in the making: cut at a turn boundary, written while training goes on.
//!
//! The head is snapshotted when the cut is made. Every worker snapshots its part when it comes to the message that asks for
//! it, which is after the steps before the cut and before those after it, because messages stay in order. A worker that is
//! lost before its part is there is no loss: whoever takes its steps again is asked when it comes to the same place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::members::Member;
use super::{Duty, Effect, Phase, Position, Rejected, TurnMachine};
use crate::ids::{ModalityName, Turn, WorkerId};
use crate::time::Time;

/// The checkpoint that is being written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Where training stood when it was cut; its turn is the checkpoint's name.
    pub position: Position,
    /// The validation score of this very state, if it was evaluated.
    pub score: Option<f64>,
    /// Whose parts are to come, and who was asked for them; nobody yet where no worker has come to that place.
    missing: BTreeMap<ModalityName, Option<WorkerId>>,
}

impl Cut {
    /// Its turn.
    #[must_use]
    pub fn turn(&self) -> Turn {
        self.position.turn
    }

    /// Whose parts are to come.
    pub fn missing(&self) -> impl Iterator<Item = &ModalityName> {
        self.missing.keys()
    }

    /// Whether all parts are there and the manifest is being written.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }
}

impl TurnMachine {
    /// Cuts a checkpoint here. Not while another one is being written.
    pub(super) fn begin_cut(&mut self, score: Option<f64>, effects: &mut Vec<Effect>) {
        let turn = self.position.turn;
        // Before it is cut, so that it knows of itself when a job goes on from it.
        if let Some(score) = score
            && self.position.best.is_none_or(|(best, _)| score > best)
        {
            self.position.best = Some((score, turn));
        }
        let missing = self.spec.modalities.iter().map(|modality| (modality.name.clone(), None)).collect();
        self.cut = Some(Cut { position: self.position.clone(), score, missing });
        self.cut_at = Some(turn);
        effects.push(Effect::Snapshot { turn });
        let ready: Vec<ModalityName> =
            self.members.iter().filter(|(_, member)| member.is_ready()).map(|(name, _)| name.clone()).collect();
        for modality in ready {
            self.ask_for_part(&modality, effects);
        }
    }

    /// Whether a checkpoint is being written, and everybody is there, and alive, of whom it still needs a part.
    pub(super) fn cut_is_on_its_way(&self) -> bool {
        let is_there =
            |modality: &ModalityName| self.members.get(modality).is_some_and(|member| member.lapse.is_none());
        self.cut.as_ref().is_some_and(|cut| cut.missing().all(is_there))
    }

    /// Asks the worker of this modality for its part, if its encoder is where the checkpoint was cut and it was not asked yet.
    pub(super) fn ask_for_part(&mut self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        let Some(member) = self.members.get(modality) else { return };
        let worker = member.worker.clone();
        let Some(done) = member.steps_behind(self.steps_done(modality)) else { return };
        let Some(cut) = &mut self.cut else { return };
        if cut.position.steps_done.get(modality).copied().unwrap_or(0) != done {
            return;
        }
        let turn = cut.turn();
        if let Some(asked @ None) = cut.missing.get_mut(modality) {
            *asked = Some(worker.clone());
            effects.push(Effect::SaveFiles { worker, turn });
        }
    }

    /// Whoever was asked for this modality's part will not give it.
    pub(super) fn part_is_lost(&mut self, modality: &ModalityName) {
        if let Some(asked) = self.cut.as_mut().and_then(|cut| cut.missing.get_mut(modality)) {
            *asked = None;
        }
    }

    pub(super) fn files_saved(
        &mut self,
        now: Time,
        worker: &WorkerId,
        turn: Turn,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        let modality =
            self.modality_of(worker).cloned().ok_or_else(|| Rejected::NotAMember { worker: worker.clone() })?;
        let phase = self.unexpected();
        let Some(cut) = self.cut.as_mut() else { return Err(phase) };
        if turn != cut.turn() {
            let (expected, given) = (cut.turn().to_string(), turn.to_string());
            return Err(Rejected::Malformed { what: "turn", expected, given });
        }
        if cut.missing.get(&modality).is_none_or(|asked| asked.as_ref() != Some(worker)) {
            return Err(phase);
        }
        cut.missing.remove(&modality);
        if cut.is_whole() {
            effects.push(Effect::WriteManifest { turn });
        }
        self.heard(now, worker, effects);
        Ok(())
    }

    pub(super) fn checkpoint_written(
        &mut self,
        now: Time,
        turn: Turn,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        self.not_finished()?;
        if !self.cut.as_ref().is_some_and(|cut| cut.turn() == turn && cut.is_whole()) {
            return Err(self.unexpected());
        }
        if let Some(cut) = self.cut.take() {
            self.history.rebase(&cut.position.steps_done);
            self.forget_heads(effects);
        }
        if let Phase::Boundary { duties, .. } = &self.phase
            && let Some(Duty::Save | Duty::Room | Duty::Finish(_)) = duties.front()
        {
            self.begin_duty(now, effects);
        }
        Ok(())
    }

    /// Lets go of the heads that nobody will be granted again.
    pub(super) fn forget_heads(&mut self, effects: &mut Vec<Effect>) {
        let mut versions = Vec::new();
        for modality in &self.spec.modalities {
            let needed = self.members.get(&modality.name).and_then(Member::begins_at);
            versions.extend(self.history.forget(&modality.name, needed));
        }
        if !versions.is_empty() {
            versions.sort_unstable();
            effects.push(Effect::ForgetHeads { versions });
        }
    }

    /// Whether no turn is taken until the checkpoint that is being written is there.
    #[must_use]
    pub fn waits_for_checkpoint(&self) -> bool {
        match &self.phase {
            Phase::Boundary { duties, .. } => matches!(duties.front(), Some(Duty::Save | Duty::Room)),
            Phase::Gathering | Phase::Training(_) | Phase::Finished(_) => false,
        }
    }

    pub(super) fn steps_done(&self, modality: &ModalityName) -> u64 {
        self.position.steps_done.get(modality).copied().unwrap_or(0)
    }
}
