//! A turn boundary: what a job does between two turns, one duty after the other.

use std::collections::VecDeque;

use super::{Duty, Effect, Outcome, Phase, Rejected, TurnMachine};
use crate::ids::{EvaluationId, Split, Turn, WorkerId};
use crate::spec::Every;
use crate::time::Time;

impl TurnMachine {
    /// A turn has been applied: go on, or do what is due first.
    pub(super) fn after_turn(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if self.is_something_due() {
            self.enter_boundary(now, self.is_complete(), effects);
        } else {
            self.grant_next(now, effects);
        }
    }

    /// Whether the next turn follows at once, in the same epoch.
    pub(super) fn goes_straight_on(&self) -> bool {
        !self.at_epoch_end() && !self.is_something_due()
    }

    fn is_something_due(&self) -> bool {
        self.is_complete()
            || self.stop_requested
            || self.is_due(self.spec.evaluation.every) && self.has(Split::Validation)
            || self.is_due(self.spec.checkpoints.every)
    }

    /// Collects the duties of this boundary and begins the first.
    pub(super) fn enter_boundary(&mut self, now: Time, complete: bool, effects: &mut Vec<Effect>) {
        let mut duties = VecDeque::new();
        let is_new = self.resumed_at != Some(self.position.turn);
        let trained = is_new && self.position.turn.0 > 0;
        let stopping = self.stop_requested && !complete;
        // Also when stopping: a job that goes on later must not have skipped what would have chosen its best checkpoint.
        let evaluate = if complete { trained } else { self.is_due(self.spec.evaluation.every) };
        if evaluate && self.has(Split::Validation) {
            duties.push_back(self.evaluation(Split::Validation));
        }
        if is_new && (complete || stopping || self.is_due(self.spec.checkpoints.every)) {
            duties.push_back(self.save());
        }
        if complete && self.has(Split::Test) {
            duties.push_back(self.evaluation(Split::Test));
        }
        if complete || stopping {
            duties.push_back(Duty::Finish(if complete { Outcome::Succeeded } else { Outcome::Stopped }));
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
        let Phase::Boundary { duties, score: kept } = &mut self.phase else { return Err(phase) };
        let Some(Duty::Evaluate { evaluation: open, split }) = duties.front() else { return Err(phase) };
        if *open != evaluation {
            return Err(Rejected::Malformed {
                what: "evaluation",
                expected: open.to_string(),
                given: evaluation.to_string(),
            });
        }
        if *split == Split::Validation {
            *kept = Some(score);
        }
        self.duty_done(now, effects);
        Ok(())
    }

    pub(super) fn part_saved(
        &mut self,
        worker: &WorkerId,
        turn: Turn,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        let phase = self.unexpected();
        let current = self.position.turn;
        let Phase::Boundary { duties, score } = &mut self.phase else { return Err(phase) };
        let score = *score;
        let Some(Duty::Save { missing, writing }) = duties.front_mut() else { return Err(phase) };
        if turn != current {
            return Err(Rejected::Malformed { what: "turn", expected: current.to_string(), given: turn.to_string() });
        }
        let Some(place) = missing.iter().position(|w| w == worker) else { return Err(phase) };
        missing.remove(place);
        if missing.is_empty() && !*writing {
            *writing = true;
            // Before the manifest is written, so that it knows of itself when a job goes on from it.
            if let Some(score) = score
                && self.position.best.is_none_or(|(best, _)| score > best)
            {
                self.position.best = Some((score, turn));
            }
            effects.push(Effect::WriteManifest { turn, score });
        }
        Ok(())
    }

    pub(super) fn checkpoint_written(
        &mut self,
        now: Time,
        turn: Turn,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Rejected> {
        let Phase::Boundary { duties, .. } = &self.phase else { return Err(self.unexpected()) };
        let Some(Duty::Save { writing: true, .. }) = duties.front() else { return Err(self.unexpected()) };
        if turn != self.position.turn {
            return Err(self.unexpected());
        }
        self.duty_done(now, effects);
        Ok(())
    }

    fn duty_done(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if let Phase::Boundary { duties, .. } = &mut self.phase {
            duties.pop_front();
        }
        self.begin_duty(now, effects);
    }

    /// Begins the first duty that is left; training goes on when none is. A stop that came meanwhile is heeded first.
    fn begin_duty(&mut self, now: Time, effects: &mut Vec<Effect>) {
        let turn = self.position.turn;
        let Phase::Boundary { duties, .. } = &self.phase else { return };
        match duties.front() {
            Some(Duty::Evaluate { evaluation, split }) => {
                effects.push(Effect::Evaluate { evaluation: *evaluation, split: *split });
            }
            Some(Duty::Save { .. }) => effects.push(Effect::SaveParts { turn }),
            Some(Duty::Finish(outcome)) => self.finish(outcome.clone(), effects),
            None if self.stop_requested => {
                let saved = self.is_due(self.spec.checkpoints.every);
                let save = (!saved).then(|| self.save());
                let duties = save.into_iter().chain([Duty::Finish(Outcome::Stopped)]).collect();
                self.phase = Phase::Boundary { duties, score: None };
                self.begin_duty(now, effects);
            }
            None => self.grant_next(now, effects),
        }
    }

    fn evaluation(&mut self, split: Split) -> Duty {
        let evaluation = self.next_evaluation;
        self.next_evaluation = evaluation.next();
        Duty::Evaluate { evaluation, split }
    }

    fn save(&self) -> Duty {
        Duty::Save { missing: self.members.values().map(|member| member.worker.clone()).collect(), writing: false }
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
        self.samples().values().any(|sizes| sizes.of(split) > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Input, SplitSizes};
    use super::*;
    use crate::spec::{JobSpec, Length};

    fn names(effects: &[Effect]) -> Vec<String> {
        let short = |effect: &Effect| match effect {
            Effect::Evaluate { split, .. } => format!("evaluate {split}"),
            Effect::SaveParts { turn } => format!("save {turn}"),
            Effect::WriteManifest { turn, score } => format!("manifest {turn} {score:?}"),
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

    #[test]
    fn the_end_of_a_job_is_validated_saved_tested_and_finished_in_this_order() {
        let mut machine = running(spec(Length::Turns(1), Every::End, Every::End), SAMPLES);
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "EndTurn", "evaluate validation"]);
        let finished = |evaluation, score| Input::EvaluationFinished { evaluation: EvaluationId(evaluation), score };
        refuse(&mut machine, finished(7, 0.5));
        assert_eq!(names(&take(&mut machine, finished(0, 0.5))), ["save 1"]);
        refuse(&mut machine, Input::CheckpointWritten { turn: Turn(1) });
        let saved = |name: &str, turn| Input::PartSaved { worker: worker(name), turn: Turn(turn) };
        refuse(&mut machine, saved("audio", 2));
        refuse(&mut machine, saved("stranger", 1));
        assert_eq!(names(&take(&mut machine, saved("audio", 1))), ["manifest 1 Some(0.5)"]);
        refuse(&mut machine, saved("audio", 1));
        assert_eq!(names(&take(&mut machine, Input::CheckpointWritten { turn: Turn(1) })), ["evaluate test"]);
        assert_eq!(machine.position().best, Some((0.5, Turn(1))));
        assert_eq!(names(&take(&mut machine, finished(1, 0.1))), ["finish Succeeded"]);
        assert_eq!(machine.position().best, Some((0.5, Turn(1))), "the test split chooses nothing");
    }

    #[test]
    fn no_turns_means_the_initial_state_is_written() {
        let mut machine = machine_of(spec(Length::Turns(0), Every::End, Every::End));
        let effects = prepare_all(&mut machine, SplitSizes { train: 20, ..SplitSizes::default() });
        assert_eq!(names(&effects[effects.len() - 2..]), ["Started", "save 0"]);
        take(&mut machine, Input::PartSaved { worker: worker("audio"), turn: Turn(0) });
        let effects = take(&mut machine, Input::CheckpointWritten { turn: Turn(0) });
        assert_eq!(names(&effects), ["finish Succeeded"]);
    }

    #[test]
    fn periods_are_counted_in_epochs_or_turns() {
        let mut machine = running(spec(Length::Epochs(3), Every::Epochs(2), Every::Turns(3)), SAMPLES);
        let mut seen = Vec::new();
        while machine.outcome().is_none() {
            let effects = drive(&mut machine, 10);
            seen.extend(names(&effects).into_iter().filter(|n| n.starts_with("eval") || n.starts_with("save")));
        }
        // Two turns are an epoch: turns 3 and 6 are saved, the ends of epoch 2 (turn 4) and of the job (6) validated.
        assert_eq!(seen, ["save 3", "evaluate validation", "evaluate validation", "save 6", "evaluate test"]);
    }

    #[test]
    fn a_stop_is_heeded_at_the_next_boundary_with_a_checkpoint() {
        let mut machine = running(spec(Length::Epochs(3), Every::Epochs(1), Every::End), SAMPLES);
        assert!(take(&mut machine, Input::Stop).is_empty(), "the open turn is finished first");
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "EndTurn", "save 1"]);
        take(&mut machine, Input::PartSaved { worker: worker("audio"), turn: Turn(1) });
        let effects = take(&mut machine, Input::CheckpointWritten { turn: Turn(1) });
        assert_eq!(names(&effects), ["finish Stopped"]);
    }

    #[test]
    fn a_stop_during_an_evaluation_is_heeded_after_it() {
        let mut machine = running(spec(Length::Epochs(3), Every::Turns(1), Every::End), SAMPLES);
        assert_eq!(names(&contribute(&mut machine, 10)), ["Apply", "EndTurn", "evaluate validation"]);
        assert!(take(&mut machine, Input::Stop).is_empty());
        let done = Input::EvaluationFinished { evaluation: EvaluationId(0), score: 0.5 };
        assert_eq!(names(&take(&mut machine, done)), ["save 1"]);
    }

    #[test]
    fn a_job_resumed_at_its_end_only_reports() {
        let mut first = running(spec(Length::Turns(2), Every::End, Every::End), SAMPLES);
        while first.outcome().is_none() {
            drive(&mut first, 10);
        }
        let position = first.position().clone();
        let mut again = resumed(first.spec().clone(), position);
        let effects = prepare_all(&mut again, SAMPLES);
        assert_eq!(names(&effects[1..]), ["Started", "evaluate test"]);
    }
}
