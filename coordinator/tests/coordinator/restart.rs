//! Coordinators that shut down or die, and their successors with the same state.

use antiphon_coordinator::config::{Config, Keep};
use antiphon_coordinator::edge::server::ServeError;
use antiphon_coordinator::registry::Coordinator;
use antiphon_proto::v1::{self, JobState};
use antiphon_store::checkpoints::{Checkpoint, MANIFEST};
use antiphon_store::storage::Store;
use futures::TryStreamExt as _;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use serde_json::Value;
use tonic::Status;

use super::fake_worker::{FakeWorker, granted};
use super::jobs::{run_with_good_workers, text};
use super::server::{Server, TIMEOUT, TINY, config, told};

/// The number of the first event of the second term.
const SECOND: u64 = (1 << 32) + 1;

/// A coordinator whose jobs are in memory under `name`. It fences the previous coordinator of that name.
async fn leader(name: &str) -> Server {
    let config = Config { keep: Keep::Jobs, ..config(name) };
    Server::start_with(Coordinator::open(config).await.expect("it opens")).await
}

/// The error of the older coordinator after the one of term `by` has taken over.
async fn fenced(older: Server, name: &str, by: u64) {
    let Err(ServeError::Journal(error)) = older.ended().await else { panic!("it was fenced") };
    let expected = format!("another coordinator (term {by}) has taken over memory://{name}/runs; this one stops");
    assert_eq!(error.to_string(), expected);
}

/// The events after number `after` with their ascending numbers, and the status that ended the stream.
async fn events(server: &Server, job: &str, after: u64) -> (Vec<(u64, Value)>, Result<(), Status>) {
    let request = v1::WatchJobRequest { job: job.to_owned(), after };
    let mut stream = server.jobs().await.watch_job(request).await.expect("the job is known").into_inner();
    let mut events: Vec<(u64, Value)> = Vec::new();
    loop {
        match tokio::time::timeout(TIMEOUT, stream.message()).await.expect("events come or end") {
            Ok(Some(event)) => {
                assert!(events.last().is_none_or(|(last, _)| *last < event.number), "numbers ascend");
                events.push((event.number, serde_json::from_str(&event.json).expect("an event is JSON")));
            }
            Ok(None) => return (events, Ok(())),
            Err(status) => return (events, Err(status)),
        }
    }
}

/// The kinds of events, without `step` and `waiting`.
fn kinds(events: &[(u64, Value)]) -> Vec<&str> {
    let kinds = events.iter().map(|(_, event)| text(&event["event"]));
    kinds.filter(|kind| !["step", "waiting", "times", "evaluated", "checkpoint"].contains(kind)).collect()
}

/// The end of a job without faults.
async fn undisturbed(name: &str, specification: &str) -> Value {
    let server = Server::start(name).await;
    let job = server.submit(specification, "whole").await.expect("it is taken");
    run_with_good_workers(&server).await;
    let finished = server.finished(&job).await;
    server.stop().await;
    finished
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_job_resumes_and_the_older_coordinator_stops() {
    let older = leader("takeover").await;
    let mut idle = FakeWorker::start(&older, "c").await;
    older.submit(TINY, "first").await.expect("it is taken");
    let newer = leader("takeover").await;
    older.submit(TINY, "late").await.expect_err("it is not the leader any more");
    let Err(Some(status)) = idle.next().await else { panic!("its stream ends with a reason") };
    assert_eq!(told(&status), "UNAVAILABLE: the coordinator is shutting down");
    fenced(older, "takeover", 2).await;

    let both = "waiting for 1 `a` worker: 0 registered; waiting for 1 `b` worker: 0 registered";
    let status = newer.waits_for("first", both).await;
    assert_eq!((status.state(), status.term), (JobState::Waiting, 2));
    let listed = newer.jobs().await.list_jobs(v1::ListJobsRequest {}).await.expect("they are listed").into_inner().jobs;
    assert_eq!(listed.len(), 1, "what was not acknowledged is not there: {listed:?}");
    let taken = newer.submit(TINY, "first").await.expect_err("its id is taken");
    assert_eq!(told(&taken), "ALREADY_EXISTS: there is a job `first` already; choose another id");

    run_with_good_workers(&newer).await;
    let (told_of, ended) = events(&newer, "first", 0).await;
    ended.expect("the job is over");
    assert_eq!(kinds(&told_of), ["submitted", "recovered", "started", "finished"]);
    assert_eq!((told_of[0].0, told_of[1].0), (1, SECOND));
    let expected = serde_json::json!({
        "event": "recovered", "job": "first", "term": 2, "turn": 0, "checkpoint": null,
        "reason": "the coordinator of term 1 has ended",
    });
    assert_eq!(told_of[1].1, expected);
    assert_eq!(told_of.last().expect("it has events").1["digest"], undisturbed("takeover-not", TINY).await["digest"]);
    newer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_job_ends_in_the_same_bits() {
    let specification = TINY.replace("epochs: 2", "epochs: 30");
    let first = leader("suspend").await;
    first.submit(&specification, "long").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&first, "a").await, FakeWorker::start(&first, "b").await);
    let watched = async { events(&first, "long", 0).await };
    let turns = async {
        let grant = a.work_until_granted().await;
        a.answer(granted(grant)).await;
        let grant = a.work_until_granted().await;
        first.shutdown.cancel();
        a.answer(granted(grant)).await;
        a.work().await
    };
    let ((before, ended), ..) = tokio::join!(watched, turns, b.work());
    let left = ended.expect_err("the job is not over");
    assert_eq!(told(&left), "UNAVAILABLE: the coordinator shuts down, and the next one resumes the job");
    assert_eq!(kinds(&before), ["submitted", "started", "suspended"]);
    let (last, suspended) = before.last().expect("it has events").clone();
    let turn = suspended["turn"].as_u64().expect("a number");
    assert!((3..120).contains(&turn), "{suspended}");
    drop((a, b));
    first.ended().await.expect("it served to the end");

    let second = leader("suspend").await;
    run_with_good_workers(&second).await;
    let (after, ended) = events(&second, "long", last).await;
    ended.expect("the job is over");
    assert_eq!(kinds(&after), ["recovered", "started", "finished"]);
    let (number, recovered) = &after[0];
    assert_eq!((*number, recovered["turn"].as_u64()), (SECOND, Some(turn)));
    assert_eq!(recovered["checkpoint"], suspended["checkpoint"]);
    let steps = |events: &[(u64, Value)]| {
        let steps = events.iter().filter(|(_, event)| event["event"] == "step");
        steps.map(|(_, step)| step["turn"].as_u64().expect("a number")).collect::<Vec<u64>>()
    };
    assert!(steps(&before).into_iter().chain(steps(&after)).eq(0..120), "each turn is taken once");
    let finished = after.last().expect("it has events").1.clone();
    assert_eq!(finished["digest"], undisturbed("suspend-not", &specification).await["digest"]);
    let (all, _) = events(&second, "long", 0).await;
    assert_eq!(all, [before, after].concat(), "events of both terms, in order");
    second.stop().await;

    let third = leader("suspend").await;
    let status = third.status("long").await;
    assert_eq!((status.state(), status.turn, status.term), (JobState::Succeeded, 120, 2));
    assert_eq!(status.checkpoint, text(&finished["checkpoint"]));
    assert_eq!(status.last_event, all.last().expect("it has events").0);
    let (again, ended) = events(&third, "long", 0).await;
    ended.expect("the job is over");
    assert_eq!(again, all, "they can be watched after the job and its coordinator are over");
    let taken = third.submit(TINY, "long").await.expect_err("its id is taken");
    assert_eq!(told(&taken), "ALREADY_EXISTS: there is a job `long` already; choose another id");
    let stop = v1::StopJobRequest { job: "long".to_owned(), now: false };
    let stopped = third.jobs().await.stop_job(stop).await.expect("it changes nothing").into_inner().status;
    assert_eq!(stopped.expect("a status").state(), JobState::Succeeded);
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_resume_in_order_and_one_that_cannot_fails_alone() {
    let first = leader("order").await;
    let first_job = first.submit(TINY, "first").await.expect("it is taken");
    run_with_good_workers(&first).await;
    let checkpoint = text(&first.finished(&first_job).await["checkpoint"]).to_owned();
    let longer = TINY.replace("epochs: 2", "epochs: 3");
    first.submit_from(&longer, "lost", Some(checkpoint.clone())).await.expect("it is taken");
    for job in ["z", "a"] {
        first.submit(TINY, job).await.expect("it is taken");
    }
    let place = Store::open(&checkpoint).expect("it is a place");
    place.objects().delete(&place.object(MANIFEST)).await.expect("it is removed");

    let second = leader("order").await;
    fenced(first, "order", 2).await;
    let reason = format!("there is no complete checkpoint in `{checkpoint}`: no folder in it holds a manifest.json");
    assert_eq!(second.waits_for("lost", &reason).await.state(), JobState::Failed);
    let (told_of, ended) = events(&second, "lost", 0).await;
    ended.expect("the job is over");
    assert_eq!(kinds(&told_of), ["submitted", "finished"]);
    let mut a = FakeWorker::start(&second, "a").await;
    second.waits_for("z", "waiting for 1 `b` worker: 0 registered; `a` worker `w-a` is opening its data").await;
    let assigned = a.hear().await;
    a.answer(assigned).await;
    let waits = "waiting for 1 `a` worker: 1 registered, none free; waiting for 1 `b` worker: 0 registered";
    second.waits_for("a", waits).await;
    second.submit(TINY, "next").await.expect("it is taken");
    let third = leader("order").await;
    fenced(second, "order", 3).await;
    assert_eq!(third.status("lost").await.state(), JobState::Failed, "it failed for good");
    assert_eq!(third.status("next").await.state(), JobState::Waiting);
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_stop_survives_the_coordinator() {
    let first = leader("stopped").await;
    let job = first.submit(TINY, "stopped").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&first, "a").await, FakeWorker::start(&first, "b").await);
    let hold = async {
        let _unanswered = a.work_until_granted().await;
        let stop = v1::StopJobRequest { job: job.clone(), now: false };
        first.jobs().await.stop_job(stop).await.expect("it is acknowledged");
    };
    let assigned = b.hear().await;
    tokio::join!(hold, b.answer(assigned));
    let second = leader("stopped").await;
    drop((a, b));
    fenced(first, "stopped", 2).await;
    let (told_of, ended) = events(&second, "stopped", 0).await;
    ended.expect("the job is over");
    let last = &told_of.last().expect("it has events").1;
    assert_eq!((text(&last["event"]), text(&last["state"])), ("finished", "stopped"));
    second.stop().await;
}

/// Ends a coordinator under `name` while its job `long` is unfinished. Returns the folder of that job's checkpoints.
async fn with_a_job_to_resume(name: &str) -> Store {
    let first = leader(name).await;
    first.submit(&TINY.replace("epochs: 2", "epochs: 30"), "long").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&first, "a").await, FakeWorker::start(&first, "b").await);
    let turns = async {
        for _ in 0..3 {
            let grant = a.work_until_granted().await;
            a.answer(granted(grant)).await;
        }
        first.shutdown.cancel();
        a.work().await
    };
    tokio::join!(turns, b.work());
    first.stop().await;
    Store::open(&format!("memory://{name}/runs")).expect("memory opens").child("long").child("checkpoints")
}

/// Removes the objects of this name in the folder, or all objects.
async fn remove(folder: &Store, called: Option<&str>) {
    let objects = folder.objects().list(Some(folder.prefix()));
    let objects: Vec<_> = objects.try_collect().await.expect("they are listed");
    let mut removed = 0;
    for object in objects {
        if called.is_none_or(|called| object.location.filename() == Some(called)) {
            folder.objects().delete(&object.location).await.expect("it is removed");
            removed += 1;
        }
    }
    assert!(removed > 0, "there is something to remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_does_not_restart_if_its_checkpoints_are_missing() {
    let checkpoints = with_a_job_to_resume("unmounted").await;
    remove(&checkpoints, None).await;
    let second = leader("unmounted").await;
    let _workers = (FakeWorker::start(&second, "a").await, FakeWorker::start(&second, "b").await);
    let missing = format!("`{}` holds no checkpoint, but the job has written one of turn ", checkpoints.url());
    second.begins_to_say("long", &format!("recovering: {missing}")).await;
    let stop = v1::StopJobRequest { job: "long".to_owned(), now: false };
    second.jobs().await.stop_job(stop).await.expect("it stops");
    let finished = events(&second, "long", 0).await.0.pop().expect("it has events").1;
    let reason = text(&finished["reason"]);
    let unknown = format!("stopped on request; its newest checkpoint is not known: {missing}");
    assert!(reason.starts_with(&unknown) && reason.ends_with("check that the folder is mounted"), "{reason}");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_an_incomplete_checkpoint_says_what_is_missing() {
    let checkpoints = with_a_job_to_resume("holed").await;
    remove(&checkpoints, Some("projector.safetensors")).await;
    let second = leader("holed").await;
    let finished = events(&second, "long", 0).await.0.pop().expect("it has events").1;
    let (state, reason) = (text(&finished["state"]), text(&finished["reason"]));
    assert!(state == "failed" && reason.contains("projector.safetensors`: there is no such object"), "{reason}");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_job_has_a_later_term_each_time() {
    let first = leader("terms").await;
    let first_job = first.submit(TINY, "first").await.expect("it is taken");
    run_with_good_workers(&first).await;
    let checkpoint = text(&first.finished(&first_job).await["checkpoint"]).to_owned();
    assert_eq!(Checkpoint::open_url(&checkpoint).await.expect("it opens").manifest().term.0, 1);
    let longer = TINY.replace("epochs: 2", "epochs: 3");
    first.submit_from(&longer, "longer", Some(checkpoint)).await.expect("it is taken");
    assert_eq!(first.status("longer").await.term, 2);
    let second = leader("terms").await;
    assert_eq!(second.status("longer").await.term, 3);
    fenced(first, "terms", 2).await;
    run_with_good_workers(&second).await;
    let finished = events(&second, "longer", 0).await.0.pop().expect("it has events").1;
    assert_eq!((text(&finished["state"]), finished["turn"].as_u64()), ("succeeded", Some(12)));
    second.stop().await;
}

/// Like [`leader`], but retains only the last two ended jobs.
async fn forgetful(name: &str) -> Server {
    let config = Config { keep: Keep::Jobs, keep_jobs: 2, ..config(name) };
    Server::start_with(Coordinator::open(config).await.expect("it opens")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_jobs_are_forgotten_and_their_checkpoints_stay() {
    let first = forgetful("forgets").await;
    let open = TINY.replace("{a: {}, b: {}}", "{a: {}, never: {}}");
    let mut checkpoint = String::new();
    for job in ["z", "y", "x"] {
        first.submit(TINY, job).await.expect("it is taken");
        run_with_good_workers(&first).await;
        let finished = first.finished(job).await;
        if job == "z" {
            checkpoint = text(&finished["checkpoint"]).to_owned();
        }
    }
    first.submit(&open, "open").await.expect("it is taken");
    let known = async |server: &Server| {
        let listed = server.jobs().await.list_jobs(v1::ListJobsRequest {}).await.expect("they are listed");
        listed.into_inner().jobs.into_iter().map(|job| job.job).collect::<Vec<_>>()
    };
    let forgotten = async |server: &Server, expected: &[&str]| {
        let poll = async {
            while known(server).await != expected {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.expect("they are forgotten");
    };
    forgotten(&first, &["y", "x", "open"]).await;
    let request = v1::GetJobRequest { job: "z".to_owned() };
    let unknown = first.jobs().await.get_job(request).await.expect_err("it is not known");
    assert_eq!(told(&unknown), "NOT_FOUND: this coordinator has no job `z`");
    Checkpoint::open_url(&checkpoint).await.expect("its checkpoint is there");
    first.stop().await;

    let second = forgetful("forgets").await;
    assert_eq!(known(&second).await, ["y", "x", "open"], "for good");
    second.submit(TINY, "w").await.expect("it is taken");
    // While the job exists it gets the first worker, which then would not work for another job.
    let stop = v1::StopJobRequest { job: "open".to_owned(), now: false };
    second.jobs().await.stop_job(stop).await.expect("it stops");
    events(&second, "open", 0).await.1.expect("the job is over");
    run_with_good_workers(&second).await;
    forgotten(&second, &["open", "w"]).await;
    let beyond = second.submit(TINY, "z").await.expect_err("its folder is not empty");
    assert!(told(&beyond).contains("which is later than the start of this job"), "its id is free: {beyond}");
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_submission_makes_one_job_across_coordinators() {
    let sent = |request: &str, job: Option<&str>| v1::SubmitJobRequest {
        specification: TINY.to_owned(),
        job: job.map(str::to_owned),
        request: Some(request.to_owned()),
        ..Default::default()
    };
    let submit = async |server: &Server, request| {
        let answer = server.jobs().await.submit_job(request).await;
        answer.map(|answer| answer.into_inner().job).map_err(|status| told(&status))
    };
    let first = leader("twice").await;
    let unnamed = submit(&first, sent("a", None)).await.expect("it is taken");
    assert_eq!(submit(&first, sent("b", Some("named"))).await.as_deref(), Ok("named"));
    let second = leader("twice").await;
    fenced(first, "twice", 2).await;
    for _ in 0..2 {
        assert_eq!(submit(&second, sent("a", None)).await.as_ref(), Ok(&unnamed));
        assert_eq!(submit(&second, sent("b", Some("named"))).await.as_deref(), Ok("named"));
    }
    let taken = "ALREADY_EXISTS: there is a job `named` already; choose another id".to_owned();
    assert_eq!(submit(&second, sent("c", Some("named"))).await, Err(taken), "it is another one's");
    assert_ne!(submit(&second, sent("d", None)).await.expect("it is taken"), unnamed);
    let listed = second.jobs().await.list_jobs(v1::ListJobsRequest {}).await.expect("they are listed");
    assert_eq!(listed.into_inner().jobs.len(), 3);
    second.stop().await;
}
