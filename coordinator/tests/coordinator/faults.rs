//! Workers that are lost, silent, late or asked to stop: the job gives the same bits.

use antiphon_proto::stream::REASON_LIMIT;
use antiphon_proto::v1::{self, coordinator_message::Message as Told, worker_message::Message};
use serde_json::Value;

use super::abuse::work_until;
use super::fake_worker::{FakeWorker, granted};
use super::jobs::{of_kind, run_with_good_workers, text};
use super::server::{Server, TINY, told};

/// The result of the job without faults.
async fn undisturbed(server: &Server) -> Value {
    let job = server.submit(TINY, "undisturbed").await.expect("it is taken");
    run_with_good_workers(server).await;
    server.no_worker_is_registered().await;
    server.finished(&job).await
}

fn same(faulty: &Value, peaceful: &Value) {
    assert_eq!(text(&faulty["state"]), "succeeded", "{faulty}");
    for what in ["digest", "turn", "evaluation"] {
        assert_eq!(faulty[what], peaceful[what], "{what}");
    }
}

async fn beat(worker: &FakeWorker, job: &str, progress: u64) {
    let beat = v1::Heartbeat { job: job.to_owned(), progress, busy: true, ..Default::default() };
    worker.send(Message::Heartbeat(beat)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_with_the_head_is_replaced() {
    let server = Server::start("dies").await;
    let peaceful = undisturbed(&server).await;
    let job = server.submit(TINY, "faulty").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    b.answer(assigned).await;
    let first = a.work_until_granted().await;
    a.answer(granted(first)).await;
    let second = b.work_until_granted().await;
    b.answer(granted(second)).await;
    // Turn 2: the worker has answered one grant and dies with another grant unanswered.
    a.work_until_granted().await;
    drop(a);
    server.waits_for(&job, "turn 2 is blocked: waiting for 1 `a` worker: 0 registered").await;
    let mut a = FakeWorker::named(&server, "second-a", "a").await;
    tokio::join!(a.work(), b.work());
    same(&server.finished(&job).await, &peaceful);
    let events = server.events(&job, 0).await;
    let [lost] = of_kind(&events, "worker_lost")[..] else { panic!("one is lost: {events:?}") };
    assert_eq!((text(&lost["modality"]), text(&lost["worker"]), &lost["turn"]), ("a", "w-a", &Value::from(2)));
    let [ready] = of_kind(&events, "worker_ready")[..] else { panic!("one comes: {events:?}") };
    assert_eq!((text(&ready["worker"]), &ready["replayed"]), ("second-a", &Value::from(1)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_during_a_checkpoint_is_replaced() {
    let server = Server::start("files").await;
    let peaceful = undisturbed(&server).await;
    let job = server.submit(TINY, "faulty").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let until_asked = async {
        work_until(&mut b, |told| matches!(told, Told::SaveFiles(_))).await;
        drop(b);
    };
    let until_held_up = async {
        // Its own files are written, and it has had turn 4.
        while server.status(&job).await.turn < 5 {
            // The messages that it has sent may be sufficient, but not yet processed.
            let look_again = tokio::time::sleep(std::time::Duration::from_millis(10));
            let told = tokio::select! {
                told = a.hear() => told,
                () = look_again => continue,
            };
            a.answer(told).await;
        }
    };
    tokio::join!(until_asked, until_held_up);
    server.waits_for(&job, "turn 5 is blocked: waiting for 1 `b` worker: 0 registered").await;
    assert_eq!(server.status(&job).await.checkpoint, "");
    let mut b = FakeWorker::named(&server, "second-b", "b").await;
    tokio::join!(a.work(), b.work());
    same(&server.finished(&job).await, &peaceful);
    let events = server.events(&job, 0).await;
    assert_eq!(of_kind(&events, "checkpoint").len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_restarts_when_a_worker_is_replaced() {
    let server = Server::start("evaluates").await;
    let peaceful = undisturbed(&server).await;
    let job = server.submit(TINY, "faulty").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let until_asked = async {
        work_until(&mut b, |told| matches!(told, Told::NextLogits(_))).await;
        drop(b);
    };
    let reason = "turn 4: the evaluation of validation is blocked: waiting for 1 `b` worker: 0 registered";
    let works = async {
        loop {
            let told = a.hear().await;
            let asked = matches!(told, Told::NextLogits(_));
            a.answer(told).await;
            if asked {
                break;
            }
        }
        server.waits_for(&job, reason).await;
    };
    tokio::join!(until_asked, works);
    let mut b = FakeWorker::named(&server, "second-b", "b").await;
    tokio::join!(a.work(), b.work());
    same(&server.finished(&job).await, &peaceful);
    server.stop().await;
}

/// With a short lease, the worker that has the head sends no heartbeat until its slot is released.
async fn expired(name: &str) -> (Server, Value, String, FakeWorker, FakeWorker, v1::Grant) {
    let server = Server::start(name).await;
    let peaceful = undisturbed(&server).await;
    let specification = TINY.replace("schedule: {", "schedule: {lease_ttl: 200 ms, ");
    let job = server.submit(&specification, "faulty").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    b.answer(assigned).await;
    let grant = a.work_until_granted().await;
    a.stop_heartbeats();
    let reason = "turn 0 is blocked: `a` worker `w-a` sends no heartbeat; its slot is released";
    server.waits_for(&job, reason).await;
    (server, peaceful, job, a, b, grant)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_result_counts_if_its_worker_was_not_replaced() {
    let (server, peaceful, job, mut a, mut b, grant) = expired("late").await;
    a.answer(granted(grant)).await;
    a.resume_heartbeats();
    tokio::join!(a.work(), b.work());
    same(&server.finished(&job).await, &peaceful);
    let events = server.events(&job, 0).await;
    assert!(!of_kind(&events, "lease_expired").is_empty(), "{events:?}");
    assert_eq!(of_kind(&events, "worker_lost").len(), 0, "{events:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_after_the_turn_was_granted_again_is_rejected() {
    let (server, peaceful, job, mut a, mut b, grant) = expired("too-late").await;
    let mut second = FakeWorker::named(&server, "second-a", "a").await;
    let again = second.work_until_granted().await;
    let attempt = |grant: &v1::Grant| grant.turn.as_ref().map(|turn| (turn.turn, turn.attempt));
    assert_eq!((attempt(&grant), attempt(&again)), (Some((0, 0)), Some((0, 1))));
    let late = a.step(&grant);
    let Told::Release(release) = a.hear().await else { panic!("its place is given away") };
    assert_eq!(release.reason, "its slot was given to `second-a`");
    a.send(Message::Contribution(late)).await;
    let Told::Rejected(rejected) = a.hear().await else { panic!("it comes too late") };
    assert_eq!(rejected.reason(), v1::RejectedReason::StaleAttempt);
    assert_eq!(rejected.message, "attempt 0 is not open; attempt 1 is");
    // It leaves without letting go of the job: a free worker would get the slot if the other one were late too.
    drop(a);
    second.answer(granted(again)).await;
    tokio::join!(second.work(), b.work());
    same(&server.finished(&job).await, &peaceful);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_progress_loses_its_slot_despite_heartbeats() {
    let server = Server::start("stuck-worker").await;
    let peaceful = undisturbed(&server).await;
    let specification = TINY.replace("schedule: {", "schedule: {turn_deadline: 200 ms, ");
    let job = server.submit(&specification, "faulty").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    b.answer(assigned).await;
    a.work_until_granted().await;
    a.stop_heartbeats();
    let reason = "turn 0 is blocked: `a` worker `w-a` makes no progress; its slot is released";
    let beats = async {
        loop {
            beat(&a, &job, 1).await;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = server.waits_for(&job, reason) => {}
        () = beats => {}
    }
    let mut second = FakeWorker::named(&server, "second-a", "a").await;
    // It leaves without letting go of the job: a free worker would get the slot if the other one were late too.
    work_until(&mut a, |told| matches!(told, Told::Release(_))).await;
    drop(a);
    tokio::join!(second.work(), b.work());
    same(&server.finished(&job).await, &peaceful);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_asked_to_stop_finishes_its_step_and_is_replaced() {
    let server = Server::start("asked").await;
    let peaceful = undisturbed(&server).await;
    let job = server.submit(TINY, "faulty").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    b.answer(assigned).await;
    let grant = a.work_until_granted().await;
    a.send(Message::Leaving(v1::Leaving { job: job.clone(), term: 1 })).await;
    a.answer(granted(grant)).await;
    let Told::Release(release) = a.hear().await else { panic!("it is let go") };
    assert_eq!(release.reason, "it was asked to stop");
    let second = b.work_until_granted().await;
    b.answer(granted(second)).await;
    server.waits_for(&job, "turn 2 is blocked: waiting for 1 `a` worker: 1 registered, none free").await;
    drop(a);
    let mut a = FakeWorker::named(&server, "second-a", "a").await;
    tokio::join!(a.work(), b.work());
    same(&server.finished(&job).await, &peaceful);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_with_too_long_a_reason_ends_the_connection() {
    let server = Server::start("at-length").await;
    let peaceful = undisturbed(&server).await;
    let job = server.submit(TINY, "faulty").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    b.answer(assigned).await;
    a.work_until_granted().await;
    let reason = "x".repeat(REASON_LIMIT + 1);
    a.send(Message::Failed(v1::Failed { job: job.clone(), term: 1, reason, transient: true })).await;
    let ended = a.next().await.expect_err("its stream ends").expect("it is told why");
    let why = "`failed.reason` is 8193 bytes long, expected a text of at most 8192 bytes";
    assert_eq!(told(&ended), format!("INVALID_ARGUMENT: {why}"));
    server.waits_for(&job, "turn 0 is blocked: waiting for 1 `a` worker: 0 registered").await;
    let mut a = FakeWorker::named(&server, "second-a", "a").await;
    tokio::join!(a.work(), b.work());
    same(&server.finished(&job).await, &peaceful);
    let events = server.events(&job, 0).await;
    let [lost] = of_kind(&events, "worker_lost")[..] else { panic!("one is lost: {events:?}") };
    assert_eq!(text(&lost["reason"]), format!("its connection is lost: {why}"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_failure_is_retried_twice() {
    let server = Server::start("again").await;
    let peaceful = undisturbed(&server).await;
    for failures in [2, 3] {
        let job = server.submit(TINY, &format!("failing-{failures}")).await.expect("it is taken");
        let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
        for _ in 0..failures {
            let Told::Assign(assign) = a.hear().await else { panic!("it is assigned") };
            let reason = "the store answers 503".to_owned();
            a.send(Message::Failed(v1::Failed { job: job.clone(), term: assign.term, reason, transient: true })).await;
            let Told::Release(release) = a.hear().await else { panic!("it lets go") };
            a.send(Message::Released(v1::Released { job: release.job })).await;
        }
        if failures == 2 {
            tokio::join!(a.work(), b.work());
            same(&server.finished(&job).await, &peaceful);
        } else {
            b.work().await;
            let finished = server.finished(&job).await;
            let reason = "`a` worker `w-a`: the store answers 503 (3 times in a row)";
            assert_eq!((text(&finished["state"]), text(&finished["reason"])), ("failed", reason));
        }
        drop((a, b));
        server.no_worker_is_registered().await;
    }
    server.stop().await;
}

/// A replay buffer with space for one head in memory and three in total: a little more than a turn.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_do_not_fit_have_a_checkpoint_written_early() {
    use antiphon_coordinator::config::Config;
    use antiphon_coordinator::job::contract::ReplayBufferLimits;
    use antiphon_coordinator::registry::Coordinator;
    let replay_buffer = ReplayBufferLimits { memory: 60, disk: 120 };
    let server = Server::start_with(Coordinator::new(Config { replay_buffer, ..super::server::config("room") })).await;
    let specification = format!("{TINY}checkpoints: {{every: end}}\n");
    let job = server.submit(&specification, "faulty").await.expect("it is taken");
    run_with_good_workers(&server).await;
    let finished = server.finished(&job).await;
    assert_eq!(text(&finished["state"]), "succeeded", "{finished}");
    let events = server.events(&job, 0).await;
    let early = of_kind(&events, "checkpoint").len();
    assert!((2..=8).contains(&early), "{early} checkpoints of 8 turns");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_store_error_is_in_the_status_until_it_has_saved() {
    let server = Server::start("suffers").await;
    let peaceful = undisturbed(&server).await;
    let job = server.submit(TINY, "faulty").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let store_error = "cannot write `encoder-b.safetensors`: the server answered 503; retrying for 35 s so far";
    let suffers = async {
        let mut asked = Vec::new();
        let mut waits = tokio::time::interval(std::time::Duration::from_millis(5));
        loop {
            tokio::select! {
                told = b.hear() => match told {
                    Told::SaveFiles(save) => {
                        b.report_store_error(store_error);
                        asked.push(save);
                    }
                    told => b.answer(told).await,
                },
                _ = waits.tick() => {
                    let reason = server.status(&job).await.reason;
                    if reason.starts_with("turn 8: a checkpoint is due;") && reason.contains(store_error) {
                        let pending = "checkpoint 4 waits for files of `b` worker `w-b`";
                        let waits = "turn 8: a checkpoint is due;";
                        assert_eq!(reason, format!("{waits} {pending}; `b` worker `w-b`: {store_error}"));
                        break;
                    }
                }
            }
        }
        b.report_store_error("");
        for save in asked {
            b.answer(Told::SaveFiles(save)).await;
        }
        // The next file is requested once this one is written, and then there is no error.
        let asked = work_until(&mut b, |told| matches!(told, Told::SaveFiles(_))).await;
        let reason = server.status(&job).await.reason;
        assert!(!reason.contains(store_error), "{reason}");
        b.answer(asked).await;
        b.work().await
    };
    tokio::join!(a.work(), suffers);
    same(&server.finished(&job).await, &peaceful);
    server.stop().await;
}
