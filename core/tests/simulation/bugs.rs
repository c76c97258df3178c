//! Planted bugs, and tests that the simulation finds each of them.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;
use crate::{naive, world};

/// A mistake of the shell or of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bug {
    /// The shell steps the head twice with one contribution.
    AppliesTwice,
    /// The shell steps the head with a contribution that the machine has rejected.
    AppliesRejected,
    /// The shell sends the head from before its last step.
    GrantsTheHeadBefore,
    /// The shell carries out effects in another order: P is reset before the epoch's last turn is folded.
    ResetsTooEarly,
    /// A worker computes its next features before its encoder has learned.
    ComputesAheadBeforeLearning,
    /// A worker saves its files on request, before its encoder has learned.
    SavesBeforeLearning,
    /// The shell loses a contribution that the machine has accepted.
    LosesAContribution,
    /// The shell loses a `Learned` message of a worker.
    LosesLearned,
    /// The shell loses a `FilesSaved` message of a worker.
    LosesFilesSaved,
    /// The shell accepts messages of older terms.
    TakesOldTerms,
    /// The store lets a fenced coordinator write.
    StoreTakesOldTerms,
    /// The shell has a worker replay a step twice.
    ReplaysOneTooMany,
    /// The shell skips a step of a replay.
    ReplaysOneTooFew,
    /// The shell replays steps under the newest head.
    ReplaysUnderTheNewestHead,
    /// The shell treats every request to stop as one to stop at once.
    StopsAtOnce,
}

/// The error that the simulation finds in a seed's scenario with this bug.
fn find(bug: Bug, seed: u64) -> Option<String> {
    let scenario = Scenario { bug: Some(bug), ..Scenario::any(seed) };
    let naive = Rc::new(naive::run(&scenario));
    match world::run(&scenario, &naive) {
        Ok(run) => run.differs_from(&naive),
        Err(broken) => Some(broken.why),
    }
}

/// Asserts that at least this many of 200 scenarios show the bug, each in one of these ways.
fn assert_found(bug: Bug, at_least: usize, ways: &[&str]) {
    assert_found_in(200, bug, at_least, ways);
}

fn assert_found_in(scenarios: u64, bug: Bug, at_least: usize, ways: &[&str]) {
    let found: Vec<String> = (0..scenarios).filter_map(|seed| find(bug, seed)).collect();
    let unlike = found.iter().find(|why| !ways.iter().any(|way| why.contains(way)));
    assert_eq!(unlike, None, "{bug:?} shows in another way than it should");
    assert!(found.len() >= at_least, "{bug:?} was found in {} of {scenarios} scenarios", found.len());
}

#[test]
fn a_contribution_applied_twice_is_found() {
    assert_found(Bug::AppliesTwice, 180, &["led to"]);
}

#[test]
fn a_contribution_applied_though_refused_is_found() {
    // At times the head itself rejects it, because another turn is open.
    let ways = ["what was refused changed something", "came within a turn of", "led to", "of a head of", "step "];
    assert_found(Bug::AppliesRejected, 40, &ways);
}

#[test]
fn a_head_of_before_the_step_is_found() {
    assert_found(Bug::GrantsTheHeadBefore, 150, &["step "]);
}

#[test]
fn a_reset_before_the_last_turn_is_over_is_found() {
    // A snapshot between the two shows it before the next step does.
    assert_found(Bug::ResetsTooEarly, 15, &["step ", "checkpoint "]);
}

#[test]
fn features_of_an_encoder_that_has_yet_to_learn_are_found() {
    assert_found(Bug::ComputesAheadBeforeLearning, 150, &["step "]);
}

#[test]
fn files_of_an_encoder_that_has_not_learned_are_found() {
    // The steps are right; only the saved files are wrong.
    assert_found(Bug::SavesBeforeLearning, 10, &["checkpoint "]);
}

#[test]
fn a_contribution_that_is_lost_after_it_was_taken_is_found() {
    assert_found(Bug::LosesAContribution, 80, &["led to"]);
}

#[test]
fn a_lost_learned_message_is_found() {
    assert_found(Bug::LosesLearned, 10, &["nothing is to come any more", "a copy or a lie", "while `"]);
}

#[test]
fn a_lost_files_saved_message_is_found() {
    assert_found(Bug::LosesFilesSaved, 10, &["nothing is to come any more", "a copy or a lie"]);
}

#[test]
fn a_message_of_another_term_that_is_taken_is_found() {
    assert_found(Bug::TakesOldTerms, 10, &["a copy or a lie"]);
}

#[test]
fn a_manifest_of_an_older_term_that_is_written_is_found() {
    assert_found_in(2_000, Bug::StoreTakesOldTerms, 1, &["a manifest of term"]);
}

#[test]
fn a_step_that_is_replayed_twice_is_found() {
    assert_found(Bug::ReplaysOneTooMany, 20, &["was granted"]);
}

#[test]
fn a_step_that_is_not_replayed_is_found() {
    assert_found(Bug::ReplaysOneTooFew, 8, &["was granted", "encoder `"]);
}

#[test]
fn a_job_that_stops_without_its_checkpoint_is_found() {
    assert_found_in(2_000, Bug::StopsAtOnce, 4, &["was to leave a checkpoint"]);
}

#[test]
fn a_step_that_is_replayed_under_another_head_is_found() {
    assert_found(Bug::ReplaysUnderTheNewestHead, 10, &["of encoder"]);
}
