//! Bugs planted on purpose, and that the simulation finds each of them: what it cannot find it does not hold.

use crate::scenario::Scenario;
use crate::{naive, world};

/// What a shell or a worker does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The shell steps the head twice with one contribution.
    AppliesTwice,
    /// The shell steps the head with a contribution that the machine has refused.
    AppliesWhatWasRefused,
    /// The shell sends the head as it was before the step that it has just taken.
    GrantsTheHeadBefore,
    /// The shell carries out effects in another order: P goes back to I before the epoch's last turn is over.
    ResetsTooEarly,
    /// A worker computes its next features before its encoder has learnt.
    ComputesAheadBeforeLearning,
    /// A worker saves its part when it is told to, though its encoder has yet to learn.
    SavesBeforeLearning,
}

/// Simulates so many scenarios with this bug and says what was found, a text for each scenario in which anything was.
fn found(bug: Bug, scenarios: u64) -> Vec<String> {
    let find = |seed: u64| {
        let scenario = Scenario { bug: Some(bug), ..Scenario::any(seed) };
        match world::run(&scenario) {
            Ok(run) => run.report.differs_from(&naive::run(&scenario)),
            Err(broken) => Some(broken.why),
        }
    };
    (0..scenarios).filter_map(find).collect()
}

/// That of these scenarios at least so many show the bug, each of them in one of these ways.
fn assert_found(bug: Bug, at_least: usize, ways: &[&str]) {
    let found = found(bug, 200);
    let unlike = found.iter().find(|why| !ways.iter().any(|way| why.contains(way)));
    assert_eq!(unlike, None, "{bug:?} shows in another way than it should");
    assert!(found.len() >= at_least, "{bug:?} was found in {} of 200 scenarios", found.len());
}

#[test]
fn a_contribution_applied_twice_is_found() {
    assert_found(Bug::AppliesTwice, 180, &["led to"]);
}

#[test]
fn a_contribution_applied_though_refused_is_found() {
    // At times the head itself refuses it, because another turn is open.
    assert_found(Bug::AppliesWhatWasRefused, 60, &["what was refused changed something", "end that turn first"]);
}

#[test]
fn a_head_of_before_the_step_is_found() {
    assert_found(Bug::GrantsTheHeadBefore, 150, &["step "]);
}

#[test]
fn a_reset_before_the_last_turn_is_over_is_found() {
    // A checkpoint that is cut between the two shows it before the next step does.
    assert_found(Bug::ResetsTooEarly, 15, &["step ", "checkpoint "]);
}

#[test]
fn features_of_an_encoder_that_has_yet_to_learn_are_found() {
    assert_found(Bug::ComputesAheadBeforeLearning, 150, &["step "]);
}

#[test]
fn a_part_of_an_encoder_that_has_yet_to_learn_is_found() {
    // Steps are as they should be: only what is saved is not.
    assert_found(Bug::SavesBeforeLearning, 10, &["checkpoint "]);
}
