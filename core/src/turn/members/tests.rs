use super::super::testing::*;
use super::super::{Input, Outcome};
use super::*;
use crate::ids::{EvaluationId, HeadVersion};
use crate::spec::{Every, JobSpec, Length, ScheduleMode};

const SAMPLES: SplitSizes = SplitSizes { train: 20, validation: 5, test: 0 };

fn two() -> JobSpec {
    let mut spec = job(&["audio", "image"]);
    spec.schedule.lease_ttl = 15.0;
    spec.schedule.turn_deadline = 60.0;
    spec
}

fn at(seconds: u64) -> Time {
    Time(seconds * 1_000_000)
}

fn join(who: &str, of: &str) -> Input {
    Input::Joined { worker: worker(who), modality: modality(of) }
}

fn prepared(who: &str, steps_done: u64) -> Input {
    Input::Prepared { worker: worker(who), samples: SAMPLES, steps_done }
}

fn left(who: &str) -> Input {
    Input::Left { worker: worker(who), why: "it closed its stream".to_owned() }
}

fn beat(who: &str, progress: u64, busy: bool) -> Input {
    Input::Heartbeat { worker: worker(who), progress, busy }
}

fn failed(who: &str, again: bool) -> Input {
    Input::WorkerFailed { worker: worker(who), reason: "the store does not answer".to_owned(), again }
}

/// What is granted, again or for the first time: (again, whom, turn, attempt, head).
fn grants(effects: &[Effect]) -> Vec<(bool, String, u64, u32, u64)> {
    let grant = |effect: &Effect| match effect {
        Effect::Grant { worker, turn, .. } => {
            Some((false, worker.to_string(), turn.turn.0, turn.attempt.0, turn.head_version.0))
        }
        Effect::Replay { worker, turn, .. } => {
            Some((true, worker.to_string(), turn.turn.0, turn.attempt.0, turn.head_version.0))
        }
        _ => None,
    };
    effects.iter().filter_map(grant).collect()
}

fn granted(whom: &str, turn: u64, attempt: u32) -> (bool, String, u64, u32, u64) {
    (false, whom.to_owned(), turn, attempt, turn)
}

fn again(whom: &str, turn: u64) -> (bool, String, u64, u32, u64) {
    (true, whom.to_owned(), turn, 0, turn)
}

/// The worker has taken again what it was told to.
fn relearned(machine: &mut TurnMachine, who: &str, effects: &[Effect]) -> Vec<Effect> {
    let turn = effects.iter().find_map(|effect| match effect {
        Effect::Replay { turn, .. } => Some(turn.clone()),
        _ => None,
    });
    take(machine, Input::Learned { worker: worker(who), turn: turn.expect("something to take again") })
}

#[test]
fn a_place_is_given_once_and_only_for_modalities_of_the_job() {
    let mut machine = machine_of(two());
    take(&mut machine, join("audio", "audio"));
    refuse(&mut machine, join("second", "audio"));
    refuse(&mut machine, join("other", "video"));
    refuse(&mut machine, join("audio", "image"));
}

#[test]
fn a_worker_with_another_history_or_other_data_is_refused() {
    let mut machine = machine_of(two());
    take(&mut machine, join("audio", "audio"));
    refuse(&mut machine, prepared("audio", 3));
    refuse(&mut machine, prepared("stranger", 0));
    let none = Input::Prepared { worker: worker("audio"), samples: SplitSizes::default(), steps_done: 0 };
    refuse(&mut machine, none);
    take(&mut machine, prepared("audio", 0));
    take(&mut machine, left("audio"));
    take(&mut machine, join("audio", "audio"));
    let samples = SplitSizes { validation: 6, ..SAMPLES };
    let other = refuse(&mut machine, Input::Prepared { worker: worker("audio"), samples, steps_done: 0 });
    assert_eq!(other.to_string(), "samples.validation: expected 5, as the worker before it had, got 6");
    refuse(&mut machine, prepared("image", 0));
}

#[test]
fn a_replacement_takes_its_own_steps_again_and_is_granted_the_turn_that_waited() {
    let mut machine = running(two(), SAMPLES);
    for _ in 0..4 {
        contribute(&mut machine, 10);
    }
    // Turn 4 is audio's; it dies with the head in its hands.
    let lost = open_header(&machine, 10);
    assert!(take(&mut machine, left("audio")).is_empty());
    let waiting = machine.waiting(Time(1), |_| 0).expect("the turn is held up").reason;
    assert_eq!(waiting, "turn 4 is held up: waiting for 1 `audio` worker: 0 registered");
    assert!(matches!(refuse(&mut machine, Input::Contribution(lost)), Rejected::StaleAttempt { .. }));

    let effects = take(&mut machine, join("second", "audio"));
    assert!(matches!(&effects[..], [Effect::Assign { .. }]), "{effects:?}");
    let effects = take(&mut machine, prepared("second", 0));
    assert_eq!(grants(&effects), [again("w-second", 0)]);
    let waiting = machine.waiting(Time(1), |_| 1).expect("the turn is held up").reason;
    let reason = "`audio` worker `w-second` takes its steps since the checkpoint again, 0 of 2 done";
    assert_eq!(waiting, format!("turn 4 is held up: {reason}"));
    let effects = relearned(&mut machine, "second", &effects);
    assert_eq!(grants(&effects), [again("w-second", 2)]);
    let effects = relearned(&mut machine, "second", &effects);
    assert!(matches!(&effects[..], [Effect::Ready { replayed: 2, .. }, Effect::Grant { .. }]), "{effects:?}");
    assert_eq!(grants(&effects), [granted("w-second", 4, 1)]);
    assert_eq!(machine.waiting(Time(1), |_| 1), None);
    assert_eq!(grants(&contribute(&mut machine, 10)), [granted("w-image", 5, 0)]);
}

#[test]
fn the_others_go_on_until_the_lost_modality_has_its_turn() {
    let mut machine = running(two(), SAMPLES);
    // Image has turn 1 next; it dies before.
    take(&mut machine, left("image"));
    assert_eq!(machine.waiting(Time(1), |_| 0), None, "audio has the head");
    assert!(grants(&contribute(&mut machine, 10)).is_empty());
    take(&mut machine, join("second", "image"));
    let effects = take(&mut machine, prepared("second", 0));
    // It was not granted to anybody before.
    assert_eq!(grants(&effects), [granted("w-second", 1, 0)]);
}

#[test]
fn a_late_result_is_taken_unless_its_turn_was_granted_again() {
    for late in [true, false] {
        let mut machine = running(two(), SAMPLES);
        contribute(&mut machine, 10);
        contribute(&mut machine, 10);
        let header = open_header(&machine, 10);
        take_at(&mut machine, at(14), beat("image", 1, false));
        let effects = take_at(&mut machine, at(16), Input::Tick);
        let why = "it gave no sign of life for 15 s".to_owned();
        assert_eq!(effects, [Effect::Offer { worker: worker("audio"), modality: modality("audio"), why }]);
        let effects = take_at(&mut machine, at(17), join("second", "audio"));
        let why = "its place was given to `w-second`".to_owned();
        assert_eq!(effects[0], Effect::Evict { worker: worker("audio"), why });
        let effects = take_at(&mut machine, at(18), prepared("second", 0));
        assert_eq!(grants(&effects), [again("w-second", 0)]);
        if late {
            let taken = take_at(&mut machine, at(19), Input::Contribution(header.clone()));
            assert_eq!(grants(&taken), [granted("w-image", 3, 0)]);
            let effects = relearned(&mut machine, "second", &effects);
            assert_eq!(grants(&effects), [again("w-second", 2)], "the step that came late is its own too");
            let effects = relearned(&mut machine, "second", &effects);
            assert!(matches!(&effects[..], [Effect::Ready { replayed: 2, .. }]), "{effects:?}");
        } else {
            let effects = relearned(&mut machine, "second", &effects);
            assert_eq!(grants(&effects), [granted("w-second", 2, 1)]);
            let refused = refuse(&mut machine, Input::Contribution(header.clone()));
            assert_eq!(refused, Rejected::StaleAttempt { given: 0, current: 1 });
        }
        let learned = Input::Learned { worker: worker("audio"), turn: header.turn };
        assert!(matches!(refuse(&mut machine, learned), Rejected::NotAMember { .. }));
    }
}

#[test]
fn a_sign_of_life_keeps_a_place_that_nobody_has_taken() {
    let mut machine = running(two(), SAMPLES);
    let (deadline, why) = machine.next_deadline().expect("a lease");
    assert_eq!((deadline.since(Time(1)), why), (Span::from_secs(15), "a worker's lease ends"));
    let lapsed = take_at(&mut machine, deadline, Input::Tick);
    assert_eq!(lapsed.len(), 2, "{lapsed:?}");
    let waiting = machine.waiting(deadline, |_| 2).expect("nobody is there").reason;
    let reason = "`audio` worker `w-audio` gives no sign of life; its place is offered to others";
    assert_eq!(waiting, format!("turn 0 is held up: {reason}"));
    let kept = take_at(&mut machine, deadline, beat("audio", 1, true));
    assert_eq!(kept, [Effect::Keep { worker: worker("audio") }]);
    assert_eq!(machine.waiting(deadline, |_| 2), None);
    // Image lapsed while it was not its turn: it is granted when it shows up.
    assert!(grants(&contribute(&mut machine, 10)).is_empty());
    let kept = take_at(&mut machine, deadline, beat("image", 1, false));
    assert_eq!(grants(&kept), [granted("w-image", 1, 0)]);
}

#[test]
fn whoever_was_silent_beyond_the_deadline_of_its_turn_has_its_time_anew() {
    let mut machine = running(two(), SAMPLES);
    take_at(&mut machine, at(1), beat("audio", 1, true));
    take_at(&mut machine, at(16), Input::Tick);
    take_at(&mut machine, at(100), beat("image", 1, false));
    assert_eq!(take_at(&mut machine, at(100), beat("audio", 1, true)), [Effect::Keep { worker: worker("audio") }]);
    // No deadline lies behind: one that is late says that the coordinator stood still.
    assert_eq!(machine.next_deadline(), Some((at(115), "a worker's lease ends")));
}

#[test]
fn whoever_has_the_head_and_gets_nothing_done_is_replaced_and_progress_extends_the_deadline() {
    let mut machine = running(two(), SAMPLES);
    for second in 1..=70 {
        let progress = if second <= 30 { second } else { 30 };
        // That it has nothing to do is no excuse: it has the head.
        take_at(&mut machine, at(second), beat("audio", progress, second % 2 == 0));
        take_at(&mut machine, at(second), beat("image", 1, false));
        assert!(take_at(&mut machine, at(second), Input::Tick).is_empty(), "second {second}");
    }
    let (deadline, why) = machine.next_deadline().expect("the turn's");
    assert_eq!((deadline, why), (at(85), "a worker's lease ends"));
    take_at(&mut machine, at(85), beat("image", 1, false));
    take_at(&mut machine, at(85), beat("audio", 30, true));
    assert_eq!(machine.next_deadline(), Some((at(90), "a turn's deadline is over")));
    let effects = take_at(&mut machine, at(90), Input::Tick);
    let why = "it got nothing done for 60 s".to_owned();
    assert_eq!(effects, [Effect::Offer { worker: worker("audio"), modality: modality("audio"), why }]);
    assert!(take_at(&mut machine, at(91), beat("audio", 30, true)).is_empty(), "a sign of life is not enough");
    assert_eq!(take_at(&mut machine, at(92), beat("audio", 31, true)), [Effect::Keep { worker: worker("audio") }]);
}

#[test]
fn a_failure_that_would_come_again_ends_the_job_and_others_the_third_time() {
    let mut machine = running(two(), SAMPLES);
    let mut hopeless = machine.clone();
    let finished = take(&mut hopeless, failed("image", false));
    let reason = "`image` worker `w-image`: the store does not answer".to_owned();
    assert_eq!(finished, [Effect::Finish(Outcome::Failed { reason })]);

    for number in 0..2 {
        let evicted = take(&mut machine, failed("image", true));
        assert!(matches!(&evicted[..], [Effect::Evict { .. }]), "{evicted:?}");
        take(&mut machine, join(&format!("image-{number}"), "image"));
        take(&mut machine, left(&format!("image-{number}")));
        take(&mut machine, join("image", "image"));
    }
    let finished = take(&mut machine, failed("image", true));
    let reason = "`image` worker `w-image`: the store does not answer (3 times in a row)".to_owned();
    assert_eq!(finished, [Effect::Finish(Outcome::Failed { reason })]);
}

#[test]
fn whoever_fails_is_left_alone_for_a_while_and_others_take_its_place_meanwhile() {
    let mut machine = running(two(), SAMPLES);
    take_at(&mut machine, at(10), failed("image", true));
    let mut spare = machine.clone();
    let assigned = take_at(&mut spare, at(10), join("spare", "image"));
    assert!(matches!(&assigned[..], [Effect::Assign { .. }]), "{assigned:?}");

    let offered = take_at(&mut machine, at(10), join("image", "image"));
    let why = "it has failed, and is left alone for a while: the store does not answer".to_owned();
    assert_eq!(offered, [Effect::Offer { worker: worker("image"), modality: modality("image"), why }]);
    refuse(&mut machine, prepared("image", 0));
    let mut spare = machine.clone();
    let given = take_at(&mut spare, at(10), join("spare", "image"));
    let [Effect::Evict { worker: evicted, why }, Effect::Assign { worker: assigned, .. }] = &given[..] else {
        panic!("another one is tried at once: {given:?}")
    };
    assert_eq!((evicted.as_str(), assigned.as_str()), ("w-image", "w-spare"));
    assert_eq!(why, "its place was given to `w-spare`");

    take_at(&mut machine, at(10), left("audio"));
    let waiting = machine.waiting(at(10), |_| 1).expect("it waits").reason;
    assert!(waiting.starts_with("turn 0 is held up: waiting for 1 `audio` worker"), "{waiting}");
    assert_eq!(machine.next_deadline(), Some((at(11), "a worker is tried again")));
    assert_eq!(take_at(&mut machine, Time(10_999_999), Input::Tick), []);
    let assigned = take_at(&mut machine, at(11), Input::Tick);
    assert!(matches!(&assigned[..], [Effect::Keep { .. }, Effect::Assign { .. }]), "{assigned:?}");
    refuse(&mut machine, join("spare", "image"));
}

#[test]
fn when_workers_fail_one_after_the_other_nobody_is_tried_for_a_while_that_is_longer() {
    let mut machine = running(two(), SAMPLES);
    take_at(&mut machine, at(2), failed("image", true));
    take_at(&mut machine, at(2), join("spare", "image"));
    take_at(&mut machine, at(2), failed("spare", true));
    for who in ["image", "spare", "third"] {
        let mut machine = machine.clone();
        assert_eq!(take_at(&mut machine, at(3), join(who, "image")), [], "{who}");
        refuse(&mut machine, join("fourth", "image"));
        refuse(&mut machine, prepared(who, 0));
        assert_eq!(take_at(&mut machine, Time(5_999_999), Input::Tick), []);
        assert_eq!(machine.next_deadline(), Some((at(6), "a worker is tried again")), "four times as long");
        let assigned = take_at(&mut machine, at(6), Input::Tick);
        assert!(matches!(&assigned[..], [Effect::Assign { .. }]), "{assigned:?}");
    }
    let assigned = take_at(&mut machine, at(7), join("image", "image"));
    assert!(matches!(&assigned[..], [Effect::Assign { .. }]), "{assigned:?}");
}

#[test]
fn whoever_cannot_open_what_another_one_has_opened_ends_no_job_and_is_tried_less_and_less_often() {
    let mut machine = running(two(), SAMPLES);
    take_at(&mut machine, at(2), left("image"));
    take_at(&mut machine, at(2), join("misplaced", "image"));
    let mut now = at(2);
    for pause in [1, 4, 16, 64, 64] {
        let evicted = take_at(&mut machine, now, failed("misplaced", false));
        assert!(matches!(&evicted[..], [Effect::Evict { .. }]), "{evicted:?}");
        let offered = take_at(&mut machine, now, join("misplaced", "image"));
        assert!(matches!(&offered[..], [Effect::Offer { .. }]), "{offered:?}");
        let mut good = machine.clone();
        let given = take_at(&mut good, now, join("good", "image"));
        assert!(matches!(&given[..], [Effect::Evict { .. }, Effect::Assign { .. }]), "it is tried at once: {given:?}");
        now = now + Span::from_secs(pause);
        assert_eq!(machine.members[&modality("image")].paused(), Some(now));
        take_at(&mut machine, now, beat("audio", 9, false));
        let assigned = take_at(&mut machine, now, Input::Tick);
        assert!(assigned.iter().any(|effect| matches!(effect, Effect::Assign { .. })), "{assigned:?}");
    }
    // Two that cannot: it may be the data, and nobody is tried before the pause is over.
    take_at(&mut machine, now, failed("misplaced", false));
    take_at(&mut machine, now, join("lost", "image"));
    take_at(&mut machine, now, failed("lost", false));
    take_at(&mut machine, now, join("good", "image"));
    assert_eq!(machine.members[&modality("image")].paused(), Some(now + Span::from_secs(64)));

    // What went wrong with the first one to open the data would go wrong again.
    let mut machine = machine_of(two());
    take(&mut machine, join("image", "image"));
    let finished = take(&mut machine, failed("image", false));
    assert!(matches!(&finished[..], [Effect::Finish(Outcome::Failed { .. })]), "{finished:?}");
}

#[test]
fn a_job_that_waits_for_somebody_who_is_left_alone_says_so() {
    let mut machine = running(two(), SAMPLES);
    take_at(&mut machine, at(10), failed("audio", true));
    take_at(&mut machine, at(10), join("audio", "audio"));
    let waiting = machine.waiting(at(10), |_| 1).expect("it waits").reason;
    let place = "`audio` worker `w-audio` has failed, and is tried again after a pause: the store does not answer";
    assert_eq!(waiting, format!("turn 0 is held up: {place}"));
    take_at(&mut machine, at(11), Input::Tick);
    let waiting = machine.waiting(at(11), |_| 1).expect("it waits").reason;
    assert_eq!(waiting, "turn 0 is held up: `audio` worker `w-audio` opens its data");
}

#[test]
fn whoever_is_asked_to_stop_finishes_its_step_and_is_let_go() {
    let mut machine = running(two(), SAMPLES);
    let leaving = |who: &str| Input::Leaving { worker: worker(who) };
    let gone = |who: &str| Effect::Evict { worker: worker(who), why: "it was asked to stop".to_owned() };
    assert_eq!(take(&mut machine, leaving("image")), [gone("image")]);
    refuse(&mut machine, leaving("image"));
    assert!(take(&mut machine, leaving("audio")).is_empty(), "it has the head");
    assert_eq!(contribute(&mut machine, 10).last(), Some(&gone("audio")));
    assert_eq!(machine.worker(&modality("audio")), None);
}

#[test]
fn a_part_that_is_lost_with_its_worker_is_written_by_whoever_comes_to_the_same_place() {
    let mut spec = two();
    spec.checkpoints.every = Every::Turns(2);
    let mut machine = running(spec, SAMPLES);
    contribute(&mut machine, 10);
    contribute(&mut machine, 10);
    contribute(&mut machine, 10);
    take(&mut machine, left("audio"));
    take(&mut machine, join("second", "audio"));
    let effects = take(&mut machine, prepared("second", 0));
    assert_eq!(grants(&effects), [again("w-second", 0)]);
    let effects = relearned(&mut machine, "second", &effects);
    // The checkpoint was cut after its first step; it is asked before it takes the second.
    let Effect::SaveFiles { worker: asked, turn } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!((asked.as_str(), turn.0), ("w-second", 2));
    assert_eq!(grants(&effects), [again("w-second", 2)]);
    let saved = save(&mut machine);
    // Its second step is not in the checkpoint, and is under way.
    let Some(Effect::ForgetHeads { versions }) = saved.last() else { panic!("{saved:?}") };
    assert_eq!(versions, &[HeadVersion(0), HeadVersion(1)]);
    // Whoever comes now begins from this checkpoint.
    take(&mut machine, left("second"));
    take(&mut machine, join("third", "audio"));
    refuse(&mut machine, prepared("third", 0));
    assert_eq!(grants(&take(&mut machine, prepared("third", 1))), [again("w-third", 2)]);
}

#[test]
fn an_evaluation_begins_anew_when_a_worker_is_lost_and_replaced() {
    let mut spec = two();
    spec.evaluation.every = Every::Turns(1);
    let mut machine = running(spec, SAMPLES);
    contribute(&mut machine, 10);
    let evaluation = EvaluationId(0);
    assert_eq!(take(&mut machine, left("image")), [Effect::AbandonEvaluation { evaluation }]);
    refuse(&mut machine, Input::EvaluationFinished { evaluation, score: 0.5 });
    let waiting = machine.waiting(Time(1), |_| 0).expect("it waits").reason;
    let place = "waiting for 1 `image` worker: 0 registered";
    assert_eq!(waiting, format!("turn 1: evaluating validation is held up: {place}"));
    take(&mut machine, join("image", "image"));
    let effects = take(&mut machine, prepared("image", 0));
    assert!(matches!(effects[..], [Effect::Ready { .. }, Effect::Evaluate { evaluation: EvaluationId(1), .. }]));
    let done = Input::EvaluationFinished { evaluation: EvaluationId(1), score: 0.5 };
    assert_eq!(grants(&take(&mut machine, done)), [granted("w-image", 1, 0)]);
}

#[test]
fn an_evaluation_that_waits_for_somebody_who_gives_no_sign_of_life_says_so() {
    let mut spec = two();
    spec.evaluation.every = Every::Turns(1);
    let mut machine = running(spec, SAMPLES);
    contribute(&mut machine, 10);
    assert_eq!(machine.waiting(Time(1), |_| 1), None);
    take_at(&mut machine, at(14), beat("audio", 1, true));
    take_at(&mut machine, at(16), Input::Tick);
    let waiting = machine.waiting(at(16), |_| 1).expect("it waits").reason;
    let place = "`image` worker `w-image` gives no sign of life; its place is offered to others";
    assert_eq!(waiting, format!("turn 1: evaluating validation is held up: {place}"));
    take_at(&mut machine, at(17), beat("image", 1, true));
    assert_eq!(machine.waiting(at(17), |_| 1), None);
}

#[test]
fn sequential_an_encoder_that_died_before_it_had_learnt_has_learnt_when_it_is_replaced() {
    let mut spec = two();
    spec.schedule.mode = ScheduleMode::Sequential;
    let mut machine = running(spec, SAMPLES);
    contribute(&mut machine, 10);
    take(&mut machine, left("audio"));
    take(&mut machine, join("second", "audio"));
    let effects = take(&mut machine, prepared("second", 0));
    let effects = relearned(&mut machine, "second", &effects);
    assert!(
        matches!(&effects[..], [Effect::Ready { .. }, Effect::EndTurn { .. }, Effect::Grant { .. }]),
        "{effects:?}"
    );
    assert_eq!(grants(&effects), [granted("w-image", 1, 0)]);
}

#[test]
fn a_held_up_job_stops_at_once_when_asked_to_stop_now() {
    let mut spec = two();
    spec.schedule.length = Length::Turns(4);
    let mut machine = running(spec, SAMPLES);
    take(&mut machine, left("audio"));
    assert!(take(&mut machine, Input::Stop).is_empty());
    assert!(take(&mut machine, Input::Stop).is_empty(), "it waits, however often it is asked");
    assert_eq!(take(&mut machine, Input::StopNow), [Effect::Finish(Outcome::Stopped)]);
    refuse(&mut machine, Input::Stop);
}
