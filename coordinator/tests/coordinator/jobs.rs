//! Complete jobs with valid workers.

use antiphon_core::digest::{run_digest, sha256};
use antiphon_store::checkpoints::Checkpoint;
use serde_json::Value;

use super::fake_worker::FakeWorker;
use super::server::{Server, TINY, told};
use antiphon_proto::v1::coordinator_message::Message as Told;
use antiphon_proto::v1::worker_message::Message;
use antiphon_proto::v1::{self, JobState};

/// Runs `job` with one valid worker per modality, and returns why they were released.
pub(crate) async fn run_with_good_workers(server: &Server) -> (String, String) {
    let (mut a, mut b) = (FakeWorker::start(server, "a").await, FakeWorker::start(server, "b").await);
    let reasons = tokio::join!(a.work(), b.work());
    drop((a, b));
    server.no_worker_is_registered().await;
    reasons
}

/// The bytes of the files that determine a run's digest.
pub(crate) async fn files(url: &str) -> Vec<(String, Vec<u8>)> {
    let checkpoint = Checkpoint::open_url(url).await.expect("the checkpoint opens");
    let mut files = Vec::new();
    for name in ["head.safetensors", "projector.safetensors", "encoder-a.safetensors", "encoder-b.safetensors"] {
        let bytes = checkpoint.file(name).await.expect("the file is sound");
        files.push((name.to_owned(), bytes.to_vec()));
    }
    files
}

pub(crate) fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().expect("it is text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_from_submission_to_its_digest() {
    let server = Server::start("whole").await;
    let job = server.submit(TINY, "whole").await.expect("it is taken");
    let released = run_with_good_workers(&server).await;
    assert_eq!(released.0, "job `whole` is over");
    let events = server.events(&job, 0).await;
    assert_eq!(events[0]["event"], "submitted");
    // Checkpoints are written in parallel with the next turns.
    let beside = ["waiting", "checkpoint"];
    let kinds: Vec<&str> = events.iter().map(|event| text(&event["event"])).filter(|k| !beside.contains(k)).collect();
    assert_eq!(of_kind(&events, "checkpoint").iter().map(|event| &event["turn"]).collect::<Vec<_>>(), [4, 8]);
    let epoch = ["step", "step", "step", "step", "evaluated"];
    let end = ["evaluated", "times", "finished"];
    let expected = ["submitted", "started"].into_iter().chain(epoch).chain(epoch).chain(end);
    assert_eq!(kinds, expected.collect::<Vec<_>>());
    let turns: Vec<(u64, &str)> = of_kind(&events, "step")
        .iter()
        .map(|step| (step["turn"].as_u64().expect("a number"), text(&step["modality"])))
        .collect();
    assert_eq!(turns, [(0, "a"), (1, "b"), (2, "a"), (3, "b"), (4, "a"), (5, "b"), (6, "a"), (7, "b")]);
    let finished = server.finished(&job).await;
    assert_eq!((text(&finished["state"]), finished["turn"].as_u64()), ("succeeded", Some(8)));
    assert_eq!(finished["evaluation"]["samples"], 7);
    let written = files(text(&finished["checkpoint"])).await;
    let hashes: Vec<_> = written.iter().map(|(name, bytes)| (name, sha256(bytes))).collect();
    assert_eq!(text(&finished["digest"]), format!("sha256:{}", run_digest(&hashes)));
    let status = server.status(&job).await;
    assert_eq!(status.state(), JobState::Succeeded);
    assert_eq!((status.turn, status.turns, status.last_event), (8, 8, events.len() as u64));
    assert_eq!(status.checkpoint, text(&finished["checkpoint"]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_begins_where_it_says_and_sees_what_the_others_see() {
    let server = Server::start("watch").await;
    let job = server.submit(TINY, "watched").await.expect("it is taken");
    let (early, _) = tokio::join!(server.events(&job, 0), run_with_good_workers(&server));
    for after in [0, 1, 7, early.len() - 1, early.len(), early.len() + 100] {
        let late = server.events(&job, after as u64).await;
        assert_eq!(late, early.get(after..).unwrap_or_default(), "after {after}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_stopped_and_resumed_ends_in_the_same_bits() {
    let server = Server::start("resume").await;
    let whole = server.submit(TINY, "whole").await.expect("it is taken");
    run_with_good_workers(&server).await;
    let whole = server.finished(&whole).await;

    let first = server.submit(TINY, "first").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::named(&server, "wa", "a").await, FakeWorker::named(&server, "wb", "b").await);
    let turns = async {
        let grant = a.work_until_granted().await;
        a.answer(super::fake_worker::granted(grant)).await;
        let grant = a.work_until_granted().await;
        let stop = v1::StopJobRequest { job: first.clone(), now: false };
        let status = server.jobs().await.stop_job(stop).await.expect("the job is known").into_inner().status;
        assert_eq!(status.expect("there is a status").state(), JobState::Running, "it runs to the end of the turn");
        a.answer(super::fake_worker::granted(grant)).await;
        a.work().await
    };
    tokio::join!(turns, b.work());
    let stopped = server.finished(&first).await;
    assert_eq!((text(&stopped["state"]), stopped["turn"].as_u64()), ("stopped", Some(3)));
    let status = server.status(&first).await;
    assert_eq!((status.state(), status.reason.as_str()), (JobState::Stopped, "stopped on request"));
    drop((a, b));
    server.no_worker_is_registered().await;

    let checkpoint = text(&stopped["checkpoint"]).to_owned();
    let second = server.submit_from(TINY, "second", Some(checkpoint.clone())).await.expect("it is taken");
    run_with_good_workers(&server).await;
    let resumed = server.finished(&second).await;
    assert_eq!(server.events(&second, 0).await[0]["resumed_from"], checkpoint.as_str());
    assert_eq!((text(&resumed["state"]), resumed["turn"].as_u64()), ("succeeded", Some(8)));
    assert_eq!(resumed["digest"], whole["digest"]);
    assert_eq!(server.status(&second).await.term, 2, "a job that resumes has a later term");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_says_what_it_waits_for() {
    let server = Server::start("waiting").await;
    let job = server.submit(TINY, "waits").await.expect("it is taken");
    let both = "waiting for 1 `a` worker: 0 registered; waiting for 1 `b` worker: 0 registered";
    let status = server.waits_for(&job, both).await;
    assert_eq!((status.state(), status.turns), (JobState::Waiting, 0));
    let mut a = FakeWorker::start(&server, "a").await;
    server.waits_for(&job, "waiting for 1 `b` worker: 0 registered; `a` worker `w-a` is opening its data").await;
    let assigned = a.hear().await;
    a.answer(assigned).await;
    server.waits_for(&job, "waiting for 1 `b` worker: 0 registered").await;
    let mut b = FakeWorker::start(&server, "b").await;
    server.waits_for(&job, "`b` worker `w-b` is opening its data").await;
    let next = server.submit(TINY, "next").await.expect("it is taken");
    let both = "waiting for 1 `a` worker: 1 registered, none free; \
                waiting for 1 `b` worker: 1 registered, none free";
    server.waits_for(&next, both).await;
    let assigned = b.hear().await;
    b.answer(assigned).await;
    server.waits_for(&job, "turn 0: `a` worker `w-a` has the head").await;
    tokio::join!(a.work(), b.work());
    assert_eq!(server.status(&job).await.reason, "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_go_from_job_to_job() {
    let server = Server::start("next").await;
    let mut digests = Vec::new();
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    for job in ["one", "two"] {
        server.submit(TINY, job).await.expect("it is taken");
        a.forget();
        b.forget();
        tokio::join!(a.work(), b.work());
        digests.push(server.finished(job).await["digest"].clone());
    }
    assert_eq!(digests[0], digests[1]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_resumes_only_with_what_it_began_with() {
    let server = Server::start("changed").await;
    let whole = server.submit(TINY, "whole").await.expect("it is taken");
    run_with_good_workers(&server).await;
    let checkpoint = text(&server.finished(&whole).await["checkpoint"]).to_owned();
    let resume = |specification: String, job: &'static str| {
        let (server, checkpoint) = (&server, Some(checkpoint.clone()));
        async move { server.submit_from(&specification, job, checkpoint).await }
    };
    let reseeded = resume(TINY.replace("seed: 5", "seed: 6"), "reseeded").await.expect_err("it is another job");
    let same = "set seed to the old value to resume from it";
    let expected =
        format!("cannot resume from checkpoint `{checkpoint}`: it was written with seed 5, but the job has 6; {same}");
    assert_eq!(told(&reseeded), format!("FAILED_PRECONDITION: {expected}"));

    let longer = resume(TINY.replace("epochs: 2", "epochs: 3"), "longer").await.expect("it is taken");
    let mut a = FakeWorker::start(&server, "a").await;
    let Told::Assign(assign) = a.hear().await else { panic!("it has a job") };
    let samples = Some(v1::SplitSizes { train: 7, validation: 5, test: 7 });
    let prepared = v1::Prepared { samples, steps_done: 4, ..a.prepared(&assign.job, assign.term) };
    a.send(Message::Prepared(prepared)).await;
    let Told::Rejected(rejected) = a.hear().await else { panic!("it has other data") };
    let expected =
        "`a` has 7 samples to train on, but the checkpoint was written with 6; resume with the same data".to_owned();
    assert_eq!((rejected.job, rejected.term, rejected.message), (longer.clone(), assign.term, expected));
    let reason = "other data".to_owned();
    a.send(Message::Failed(v1::Failed { job: longer.clone(), term: assign.term, reason, transient: false })).await;
    assert_eq!(text(&server.finished(&longer).await["reason"]), "`a` worker `w-a`: other data");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_open_its_data_ends_no_running_job() {
    let server = Server::start("misplaced").await;
    let job = server.submit(TINY, "continues").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    b.answer(assigned).await;
    a.work_until_granted().await;
    drop(a);
    let mut misplaced = FakeWorker::named(&server, "misplaced", "a").await;
    let Told::Assign(assign) = misplaced.hear().await else { panic!("it has a job") };
    let failed = v1::Failed { job: assign.job, term: assign.term, reason: "no such file".to_owned(), transient: false };
    misplaced.send(Message::Failed(failed)).await;
    let paused = "turn 0 is blocked: `a` worker `misplaced` failed and will be retried: no such file";
    let leaves = async {
        // The worker is released, and its slot is empty until it is assigned again.
        while let Ok(Told::Release(release)) = misplaced.next().await {
            misplaced.send(Message::Released(v1::Released { job: release.job })).await;
        }
    };
    let others = async {
        server.waits_for(&job, paused).await;
        let mut good = FakeWorker::named(&server, "good", "a").await;
        tokio::join!(good.work(), b.work());
    };
    tokio::select! {
        () = leaves => panic!("it is let go of, and stays"),
        () = others => {}
    }
    assert_eq!(text(&server.finished(&job).await["state"]), "succeeded");
    server.stop().await;
}

/// Tests both modes: which worker has the head while the first worker learns from its step.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_sequential_turn_waits_for_the_encoder_before_it() {
    let server = Server::start("schedules").await;
    let mut digests = Vec::new();
    for mode in ["pipelined", "sequential"] {
        let specification = TINY.replace("schedule: {", &format!("schedule: {{mode: {mode}, "));
        let job = server.submit(&specification, mode).await.expect("it is taken");
        let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
        let assigned = b.hear().await;
        b.answer(assigned).await;
        let grant = a.work_until_granted().await;
        let turn = grant.turn.clone();
        let contribution = a.step(&grant);
        a.send(Message::Contribution(contribution)).await;
        let learned = Message::Learned(v1::Learned { turn, times: Some(v1::WorkerTimes::default()) });
        if mode == "sequential" {
            // The job reports that it waits for the learning worker; only then the worker reports that it has learned.
            while server.status(&job).await.reason != "turn 0: `a` worker `w-a` is learning from it" {
                tokio::task::yield_now().await;
            }
            a.send(learned).await;
            let grant = b.work_until_granted().await;
            b.answer(Told::Grant(grant)).await;
        } else {
            let grant = b.work_until_granted().await;
            a.send(learned).await;
            b.answer(Told::Grant(grant)).await;
        }
        tokio::join!(a.work(), b.work());
        drop((a, b));
        server.no_worker_is_registered().await;
        digests.push(server.finished(&job).await["digest"].clone());
    }
    assert_eq!(digests[0], digests[1]);
    server.stop().await;
}
