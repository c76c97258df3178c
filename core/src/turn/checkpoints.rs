//! Checkpoints start at a turn boundary and are written while training continues.
//!
//! The head is snapshotted at the boundary. Every worker snapshots its encoder when it reads the message that asks for
//! its files. Messages stay in order, so the snapshot lies between the steps before the boundary and those after it. If
//! a worker is lost before its files are written, its replacement is asked for them when it has replayed the steps up
//! to the boundary.

use super::machine::{Duty, Phase, TurnMachine};
use super::message::{Effect, Rejected};
use super::pending_checkpoint::PendingCheckpoint;
use crate::ids::{ModalityName, Turn, WorkerId};
use crate::time::Time;

impl TurnMachine {
    /// Starts a checkpoint at this boundary. No other checkpoint may be pending.
    pub(super) fn begin_checkpoint(&mut self, score: Option<f64>, effects: &mut Vec<Effect>) {
        let turn = self.position.turn;
        // Before the snapshot, because the checkpoint stores its own score.
        if let Some(score) = score
            && self.position.best.is_none_or(|(best, _)| score > best)
        {
            self.position.best = Some((score, turn));
        }
        let missing = self.spec.modalities.iter().map(|modality| (modality.name.clone(), None)).collect();
        self.pending_checkpoint = Some(PendingCheckpoint { position: self.position.clone(), score, missing });
        self.last_checkpoint = Some(turn);
        effects.push(Effect::Snapshot { turn });
        let ready: Vec<ModalityName> =
            self.slots.iter().filter(|(_, slot)| slot.is_ready()).map(|(name, _)| name.clone()).collect();
        for modality in ready {
            self.ask_for_files(&modality, effects);
        }
    }

    /// Whether a checkpoint is pending and every worker whose files it needs holds its slot with a valid lease.
    pub(super) fn checkpoint_is_on_its_way(&self) -> bool {
        let is_there = |modality: &ModalityName| self.slots.get(modality).is_some_and(|slot| slot.expired.is_none());
        self.pending_checkpoint.as_ref().is_some_and(|pending| pending.missing().all(is_there))
    }

    /// Asks this modality's worker for its files, if its encoder has exactly the checkpoint's steps and no worker was
    /// asked yet.
    pub(super) fn ask_for_files(&mut self, modality: &ModalityName, effects: &mut Vec<Effect>) {
        let Some(slot) = self.slots.get(modality) else { return };
        let worker = slot.worker.clone();
        let Some(done) = slot.steps_taken(self.steps_done(modality)) else { return };
        let Some(pending) = &mut self.pending_checkpoint else { return };
        if pending.position.steps_done.get(modality).copied().unwrap_or(0) != done {
            return;
        }
        let turn = pending.turn();
        if let Some(asked @ None) = pending.missing.get_mut(modality) {
            *asked = Some(worker.clone());
            effects.push(Effect::SaveFiles { worker, turn });
        }
    }

    /// Records that the worker which was asked for this modality's files will not write them.
    pub(super) fn files_are_lost(&mut self, modality: &ModalityName) {
        if let Some(asked) = self.pending_checkpoint.as_mut().and_then(|pending| pending.missing.get_mut(modality)) {
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
        let modality = self.modality_of(worker).cloned().ok_or_else(|| Rejected::NoSlot { worker: worker.clone() })?;
        let phase = self.unexpected();
        let Some(pending) = self.pending_checkpoint.as_mut() else { return Err(phase) };
        if turn != pending.turn() {
            let (expected, given) = (pending.turn().to_string(), turn.to_string());
            return Err(Rejected::Malformed { what: "turn", expected, given });
        }
        if pending.missing.get(&modality).is_none_or(|asked| asked.as_ref() != Some(worker)) {
            return Err(phase);
        }
        pending.missing.remove(&modality);
        if pending.has_all_files() {
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
        if !self.pending_checkpoint.as_ref().is_some_and(|pending| pending.turn() == turn && pending.has_all_files()) {
            return Err(self.unexpected());
        }
        if let Some(pending) = self.pending_checkpoint.take() {
            self.history.rebase(&pending.position.steps_done);
            self.forget_heads(effects);
        }
        if let Phase::Boundary { duties, .. } = &self.phase
            && let Some(Duty::Save | Duty::FreeBuffer | Duty::Finish(_)) = duties.front()
        {
            self.begin_duty(now, effects);
        }
        Ok(())
    }

    /// Whether training waits until the pending checkpoint is written.
    #[must_use]
    pub fn waits_for_checkpoint(&self) -> bool {
        match &self.phase {
            Phase::Boundary { duties, .. } => matches!(duties.front(), Some(Duty::Save | Duty::FreeBuffer)),
            Phase::Gathering | Phase::Training(_) | Phase::Finished(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::ids::HeadVersion;
    use crate::spec::Every;

    #[test]
    fn files_of_a_lost_worker_are_written_by_its_replacement() {
        let mut spec = two();
        spec.checkpoints.every = Every::Turns(2);
        let mut machine = running(spec, SAMPLES);
        contribute(&mut machine, 10);
        contribute(&mut machine, 10);
        contribute(&mut machine, 10);
        take(&mut machine, left("audio"));
        take(&mut machine, join("second", "audio"));
        let effects = take(&mut machine, prepared("second", 0));
        assert_eq!(grants(&effects), [replay("w-second", 0)]);
        let effects = replayed(&mut machine, "second", &effects);
        // The snapshot was taken after its first step; it is asked before it takes the second.
        let Effect::SaveFiles { worker: asked, turn } = &effects[0] else { panic!("{effects:?}") };
        assert_eq!((asked.as_str(), turn.0), ("w-second", 2));
        assert_eq!(grants(&effects), [replay("w-second", 2)]);
        let saved = save(&mut machine);
        // Its second step is in progress and not in the checkpoint.
        let Some(Effect::ForgetHeads { versions }) = saved.last() else { panic!("{saved:?}") };
        assert_eq!(versions, &[HeadVersion(0), HeadVersion(1)]);
        // The next replacement starts from this checkpoint.
        take(&mut machine, left("second"));
        take(&mut machine, join("third", "audio"));
        refuse(&mut machine, prepared("third", 0));
        assert_eq!(grants(&take(&mut machine, prepared("third", 1))), [replay("w-third", 2)]);
    }
}
