//! The turn boundary: what a job does between two turns, one duty after the other.

use std::collections::VecDeque;

use super::machine::{Duty, Phase, TurnMachine};
use super::message::{Effect, Outcome, Rejected, ReplayBufferLevel};
use crate::ids::{EvaluationId, Split};
use crate::spec::Every;
use crate::time::Time;

impl TurnMachine {
    /// After a turn was applied: starts the duties that are due, or else the next turn.
    pub(super) fn after_turn(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.is_something_due() {
            self.enter_boundary(now, self.is_complete(), effects);
        } else {
            self.grant_next(now, effects);
        }
    }

    /// Whether the next turn of the same epoch follows without a duty.
    pub(super) fn goes_straight_on(&self) -> bool {
        !self.at_epoch_end() && !self.is_something_due()
    }

    fn is_something_due(&self) -> bool {
        self.is_complete()
            || self.stop_requested
            || self.is_due(self.spec.evaluation.every) && self.has(Split::Validation)
            || self.is_due(self.spec.checkpoints.every)
            || self.saves_early()
            || self.replay_buffer == ReplayBufferLevel::Full
    }

    /// Whether a checkpoint has to free the replay buffer. Not while a pending checkpoint will free some of it.
    fn saves_early(&self) -> bool {
        self.replay_buffer != ReplayBufferLevel::Normal
            && self.pending_checkpoint.is_none()
            && self.last_checkpoint != Some(self.position.turn)
    }

    /// Collects the duties of this boundary and starts the first one.
    pub(super) fn enter_boundary(&mut self, now: Time, complete: bool, effects: &mut Vec<Effect>) {
        let mut duties = VecDeque::new();
        let is_new = self.last_checkpoint != Some(self.position.turn);
        let trained = is_new && self.position.turn.0 > 0;
        let stopping = self.stop_requested && !complete;
        // Also when stopping: a job that resumes later must not have skipped an evaluation that selects its best
        // checkpoint.
        let evaluate = if complete { trained } else { self.is_due(self.spec.evaluation.every) };
        if evaluate && self.has(Split::Validation) {
            duties.push_back(Duty::Evaluate { evaluation: None, split: Split::Validation });
        }
        let is_due = self.is_due(self.spec.checkpoints.every) || self.saves_early();
        if is_new && (complete || stopping || is_due) {
            duties.push_back(Duty::Save);
        }
        if complete && self.has(Split::Test) {
            duties.push_back(Duty::Evaluate { evaluation: None, split: Split::Test });
        }
        if complete || stopping {
            duties.push_back(Duty::Finish(if complete { Outcome::Succeeded } else { Outcome::Stopped }));
        } else if self.replay_buffer == ReplayBufferLevel::Full {
            duties.push_back(Duty::FreeBuffer);
        }
        self.phase = Phase::Boundary { duties, score: None };
        self.begin_duty(now, effects);
    }

    pub(super) fn evaluation_finished(
        &mut self,
        now: Time,
        evaluation: EvaluationId,
        score: f64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        let phase = self.unexpected();
        let Phase::Boundary { duties, score: validation } = &mut self.phase else { return Err(phase) };
        let Some(Duty::Evaluate { evaluation: Some(open), split }) = duties.front() else { return Err(phase) };
        if *open != evaluation {
            return Err(Rejected::Malformed {
                what: "evaluation",
                expected: open.to_string(),
                given: evaluation.to_string(),
            });
        }
        if *split == Split::Validation {
            *validation = Some(score);
        }
        duties.pop_front();
        self.begin_duty(now, effects);
        Ok(())
    }

    /// Starts the first remaining duty once its workers are ready. Without remaining duties, training continues. A stop
    /// that was requested in the meantime comes first.
    pub(super) fn begin_duty(&mut self, now: Time, effects: &mut Vec<Effect>) {
        loop {
            let Phase::Boundary { duties, score } = &mut self.phase else { return };
            let score = *score;
            match duties.front_mut() {
                Some(Duty::Evaluate { .. }) => return self.begin_evaluation(effects),
                Some(Duty::Save) => {
                    if self.pending_checkpoint.is_some() {
                        return;
                    }
                    duties.pop_front();
                    self.begin_checkpoint(score, effects);
                }
                Some(Duty::FreeBuffer) => {
                    if self.replay_buffer == ReplayBufferLevel::Full {
                        // The last checkpoint may have started too early to free enough.
                        if self.pending_checkpoint.is_none() && self.last_checkpoint != Some(self.position.turn) {
                            self.begin_checkpoint(score, effects);
                        }
                        return;
                    }
                    duties.pop_front();
                }
                Some(Duty::Finish(outcome)) => {
                    if self.pending_checkpoint.is_none() {
                        let outcome = outcome.clone();
                        self.finish(outcome, effects);
                    }
                    return;
                }
                None if self.stop_requested => {
                    if self.last_checkpoint != Some(self.position.turn) {
                        duties.push_back(Duty::Save);
                    }
                    duties.push_back(Duty::Finish(Outcome::Stopped));
                }
                None => return self.grant_next(now, effects),
            }
        }
    }

    /// Starts the evaluation that is due, if every worker is ready.
    fn begin_evaluation(&mut self, effects: &mut Vec<Effect>) {
        if !self.all_ready() {
            return;
        }
        let next = self.next_evaluation;
        if let Phase::Boundary { duties, .. } = &mut self.phase
            && let Some(Duty::Evaluate { evaluation: evaluation @ None, split }) = duties.front_mut()
        {
            *evaluation = Some(next);
            effects.push(Effect::Evaluate { evaluation: next, split: *split });
            self.next_evaluation = next.next();
        }
    }

    fn is_due(&self, every: Every) -> bool {
        match every {
            Every::Epochs(n) => self.at_epoch_end() && self.epochs_done().is_multiple_of(n.max(1)),
            Every::Turns(n) => self.position.turn.0.is_multiple_of(n.max(1)),
            Every::End => false,
        }
    }

    /// Whether any modality has samples in this split.
    fn has(&self, split: Split) -> bool {
        self.samples.values().any(|sizes| sizes.of(split) > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Input, SplitSizes};
    use super::*;
    use crate::ids::Turn;
    use crate::spec::{JobSpec, Length};

    fn names(effects: &[Effect]) -> Vec<String> {
        let short = |effect: &Effect| match effect {
            Effect::Evaluate { split, .. } => format!("evaluate {split}"),
            Effect::Snapshot { turn } => format!("snapshot {turn}"),
            Effect::SaveFiles { worker, turn } => format!("files {turn} of {worker}"),
            Effect::WriteManifest { turn } => format!("manifest {turn}"),
            Effect::Grant { turn, .. } => format!("grant {}", turn.turn),
            Effect::Finish(outcome) => format!("finish {outcome:?}"),
            other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
        };
        effects.iter().map(short).collect()
    }

    fn spec(length: Length, evaluate: Every, save: Every) -> JobSpec {
        let mut spec = job(&["audio"]);
        spec.schedule.length = length;
        spec.evaluation.every = evaluate;
        spec.checkpoints.every = save;
        spec
    }

    const SAMPLES: SplitSizes = SplitSizes { train: 20, validation: 5, test: 5 };

    fn saved(name: &str, turn: u64) -> Input {
        Input::FilesSaved { worker: worker(name), turn: Turn(turn) }
    }

    #[test]
    fn a_job_ends_with_validation_checkpoint_and_test() {
        let mut machine = running(spec(Length::Turns(1), Every::End, Every::End), SAMPLES);
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "EndTurn", "evaluate validation"]);
        let finished = |evaluation, score| Input::EvaluationFinished { evaluation: EvaluationId(evaluation), score };
        refuse(&mut machine, finished(7, 0.5));
        let effects = take(&mut machine, finished(0, 0.5));
        assert_eq!(names(&effects), ["snapshot 1", "files 1 of w-audio", "evaluate test"]);
        refuse(&mut machine, Input::CheckpointWritten { turn: Turn(1) });
        refuse(&mut machine, saved("audio", 2));
        refuse(&mut machine, saved("stranger", 1));
        assert!(take(&mut machine, finished(1, 0.1)).is_empty(), "the job is not over before its checkpoint is there");
        let waits = "checkpoint 1 waits for files of `audio` worker `w-audio`";
        assert_eq!(machine.activity(), format!("turn 1: {waits}"));
        let waiting = machine.waiting(Time(1), |_| 1).expect("the end waits").reason;
        assert_eq!(waiting, format!("turn 1: finishing; {waits}"));
        assert_eq!(names(&take(&mut machine, saved("audio", 1))), ["manifest 1"]);
        assert_eq!(machine.activity(), "turn 1: writing the head and the manifest of checkpoint 1");
        refuse(&mut machine, saved("audio", 1));
        let pending = machine.pending_checkpoint().expect("it is being written");
        assert_eq!((pending.score, pending.position.best), (Some(0.5), Some((0.5, Turn(1)))));
        let effects = take(&mut machine, Input::CheckpointWritten { turn: Turn(1) });
        assert_eq!(names(&effects), ["ForgetHeads", "finish Succeeded"]);
        assert_eq!(machine.position().best, Some((0.5, Turn(1))), "the test split chooses nothing");
    }

    #[test]
    fn no_turns_means_the_initial_state_is_written() {
        let mut machine = machine_of(spec(Length::Turns(0), Every::End, Every::End));
        let effects = prepare_all(&mut machine, SplitSizes { train: 20, ..SplitSizes::default() });
        assert_eq!(names(&effects[effects.len() - 3..]), ["Started", "snapshot 0", "files 0 of w-audio"]);
        assert_eq!(names(&save(&mut machine)), ["manifest 0", "finish Succeeded"]);
    }

    #[test]
    fn periods_are_counted_in_epochs_or_turns() {
        let mut machine = running(spec(Length::Epochs(3), Every::Epochs(2), Every::Turns(3)), SAMPLES);
        let mut seen = Vec::new();
        while machine.outcome().is_none() {
            let effects = drive(&mut machine, 10);
            seen.extend(names(&effects).into_iter().filter(|n| n.starts_with("eval") || n.starts_with("snapshot")));
        }
        // Two turns are an epoch: turns 3 and 6 are saved, the ends of epoch 2 (turn 4) and of the job (6) validated.
        assert_eq!(seen, ["snapshot 3", "evaluate validation", "evaluate validation", "snapshot 6", "evaluate test"]);
    }

    #[test]
    fn training_continues_during_a_checkpoint_until_the_next_is_due() {
        let mut machine = running(spec(Length::Turns(9), Every::End, Every::Turns(2)), SAMPLES);
        contribute(&mut machine, 10);
        let effects = contribute(&mut machine, 10);
        assert_eq!(names(&effects), ["Apply", "EndTurn", "snapshot 2", "files 2 of w-audio", "grant 2"]);
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "grant 3", "EndTurn"]);
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "EndTurn"], "one at a time");
        let waiting = machine.waiting(Time(1), |_| 1).expect("the next checkpoint waits").reason;
        let pending = "checkpoint 2 waits for files of `audio` worker `w-audio`";
        assert_eq!(waiting, format!("turn 4: a checkpoint is due; {pending}"));
        let effects = save(&mut machine);
        assert_eq!(names(&effects), ["manifest 2", "ForgetHeads", "snapshot 4", "files 4 of w-audio", "grant 4"]);
        assert_eq!(machine.waiting(Time(1), |_| 1), None);
    }

    #[test]
    fn a_full_replay_buffer_causes_an_early_checkpoint() {
        let mut machine = running(spec(Length::Turns(9), Every::End, Every::End), SAMPLES);
        contribute(&mut machine, 10);
        assert!(take(&mut machine, Input::ReplayBuffer(ReplayBufferLevel::High)).is_empty());
        let effects = contribute(&mut machine, 10);
        assert_eq!(names(&effects), ["Apply", "EndTurn", "snapshot 2", "files 2 of w-audio", "grant 2"]);
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "grant 3", "EndTurn"], "one is on its way");
        assert!(take(&mut machine, Input::ReplayBuffer(ReplayBufferLevel::Full)).is_empty());
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "EndTurn"]);
        let waiting = machine.waiting(Time(1), |_| 1).expect("the buffer is full").reason;
        let pending = "checkpoint 2 waits for files of `audio` worker `w-audio`";
        assert_eq!(waiting, format!("turn 4: the replay buffer is full until a checkpoint is written; {pending}"));
        let effects = save(&mut machine);
        let Some(Effect::ForgetHeads { versions }) = effects.get(1) else { panic!("{effects:?}") };
        assert_eq!(versions.iter().map(|version| version.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(names(&take(&mut machine, Input::ReplayBuffer(ReplayBufferLevel::Normal))), ["grant 4"]);
    }

    #[test]
    fn a_checkpoint_that_frees_too_little_is_followed_by_another() {
        let mut machine = running(spec(Length::Turns(9), Every::End, Every::Turns(1)), SAMPLES);
        assert_eq!(names(&contribute(&mut machine, 10))[2..], ["snapshot 1", "files 1 of w-audio", "grant 1"]);
        take(&mut machine, Input::ReplayBuffer(ReplayBufferLevel::Full));
        machine.spec.checkpoints.every = Every::End;
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "EndTurn"]);
        // The level of the replay buffer stays the same.
        let effects = save(&mut machine);
        assert_eq!(names(&effects), ["manifest 1", "ForgetHeads", "snapshot 2", "files 2 of w-audio"]);
        assert_eq!(names(&save(&mut machine)), ["manifest 2", "ForgetHeads"]);
        assert_eq!(names(&take(&mut machine, Input::ReplayBuffer(ReplayBufferLevel::High))), ["grant 2"]);
    }

    #[test]
    fn a_stop_is_heeded_at_the_next_boundary_with_a_checkpoint() {
        let mut machine = running(spec(Length::Epochs(3), Every::Epochs(1), Every::End), SAMPLES);
        assert!(take(&mut machine, Input::Stop).is_empty(), "the open turn is finished first");
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "EndTurn", "snapshot 1", "files 1 of w-audio"]);
        assert_eq!(names(&save(&mut machine)), ["manifest 1", "ForgetHeads", "finish Stopped"]);
    }

    #[test]
    fn stopping_now_does_not_lose_the_pending_checkpoint() {
        let mut machine = running(spec(Length::Epochs(3), Every::Epochs(1), Every::End), SAMPLES);
        take(&mut machine, Input::Stop);
        contribute(&mut machine, 10);
        let worker = machine.worker(&modality("audio")).expect("it has one").clone();
        assert!(take(&mut machine, Input::StopNow).is_empty(), "the files of a connected worker are awaited");
        take(&mut machine, Input::FilesSaved { worker: worker.clone(), turn: Turn(1) });
        take(&mut machine, Input::Left { worker, why: "for a test".to_owned() });
        assert!(take(&mut machine, Input::StopNow).is_empty(), "the manifest needs no worker");
        let mut without = machine.clone();
        assert_eq!(names(&take(&mut without, Input::StopWithoutCheckpoint)), ["finish Stopped"]);
        refuse(&mut without, Input::StopWithoutCheckpoint);
        let written = take(&mut machine, Input::CheckpointWritten { turn: Turn(1) });
        assert_eq!(names(&written), ["ForgetHeads", "finish Stopped"]);
    }

    #[test]
    fn stopping_now_does_not_wait_for_files_of_a_lost_worker() {
        let mut machine = running(spec(Length::Epochs(3), Every::Epochs(1), Every::End), SAMPLES);
        take(&mut machine, Input::Stop);
        contribute(&mut machine, 10);
        let worker = machine.worker(&modality("audio")).expect("it has one").clone();
        take(&mut machine, Input::Left { worker, why: "for a test".to_owned() });
        assert!(take(&mut machine, Input::Stop).is_empty(), "it waits, however often it is asked");
        assert_eq!(names(&take(&mut machine, Input::StopNow)), ["finish Stopped"]);
    }

    #[test]
    fn stopping_now_does_not_wait_for_files_of_a_silent_worker() {
        let mut machine = running(spec(Length::Epochs(3), Every::Epochs(1), Every::End), SAMPLES);
        take(&mut machine, Input::Stop);
        contribute(&mut machine, 10);
        assert!(take(&mut machine, Input::StopNow).is_empty(), "its files are on their way");
        let later = Time(1) + machine.lease_ttl();
        take_at(&mut machine, later, Input::Tick);
        assert_eq!(names(&take_at(&mut machine, later, Input::StopNow)), ["finish Stopped"]);
    }

    #[test]
    fn a_stop_during_an_evaluation_is_heeded_after_it() {
        let mut machine = running(spec(Length::Epochs(3), Every::Turns(1), Every::End), SAMPLES);
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "EndTurn", "evaluate validation"]);
        assert!(take(&mut machine, Input::Stop).is_empty());
        let done = Input::EvaluationFinished { evaluation: EvaluationId(0), score: 0.5 };
        assert_eq!(names(&take(&mut machine, done)), ["snapshot 1", "files 1 of w-audio"]);
    }

    #[test]
    fn a_job_resumed_at_its_end_only_reports() {
        let mut first = running(spec(Length::Turns(2), Every::End, Every::End), SAMPLES);
        while first.outcome().is_none() {
            drive(&mut first, 10);
        }
        let position = first.position().clone();
        let mut second = resumed(first.spec().clone(), position);
        let effects = prepare_all(&mut second, SAMPLES);
        assert_eq!(names(&effects[1..]), ["Ready", "Started", "evaluate test"]);
    }
}
