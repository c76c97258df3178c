//! Start and end of a coordinator: addresses, shutdown, silent workers, and tasks that panic.

use std::sync::Arc;
use std::time::Duration;

use antiphon_coordinator::config::Config;
use antiphon_coordinator::edge::server::{ServeError, serve};
use antiphon_coordinator::events::EventWatcher;
use antiphon_coordinator::job::config::JobConfig;
use antiphon_coordinator::job::contract::{INBOX, JobHandle, JobStatus};
use antiphon_coordinator::registry::Coordinator;
use antiphon_proto::v1::JobState;
use antiphon_transport::ListenError;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::fake_worker::{FakeWorker, granted};
use super::jobs::text;
use super::server::{Server, TIMEOUT, TINY, config, told};

#[tokio::test]
async fn other_machines_are_let_in_on_request_only() {
    let bind = async || TcpListener::bind("0.0.0.0:0").await.expect("there is a free port");
    let listener = bind().await;
    let address = listener.local_addr().expect("it is bound");
    let refused = serve(config("remote"), listener, CancellationToken::new()).await;
    let Err(error @ ServeError::Listen(ListenError::Remote { .. })) = refused else { panic!("{refused:?}") };
    let expected = format!(
        "{address} can be reached from other machines, and nothing is encrypted or authenticated yet: \
         listen on 127.0.0.1, or pass --insecure-allow-remote"
    );
    assert_eq!(error.to_string(), expected);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let open = Config { insecure_allow_remote: true, ..config("remote") };
    serve(open, bind().await, shutdown).await.expect("it serves, and stops");
}

/// Reads events to the end in this process, without a connection that the shutdown would wait for.
async fn last_event(mut watched: EventWatcher) -> Value {
    let mut last = None;
    while let Some(event) = watched.next().await.expect("the coordinator is there") {
        last = Some(event.json);
    }
    serde_json::from_str(&last.expect("it has events")).expect("it is JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_stops_jobs_at_a_turn_with_a_checkpoint() {
    let server = Server::start("shutdown").await;
    let job = server.submit(&TINY.replace("epochs: 2", "epochs: 100000"), "long").await.expect("it is taken");
    let mut watched = server.coordinator.watch(&job.as_str().try_into().expect("an id"), 0).expect("it is known");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let idle = FakeWorker::start(&server, "c").await;
    let stop = async {
        while let Some(event) = watched.next().await.expect("the coordinator is there") {
            if event.json.contains("\"step\"") {
                server.shutdown.cancel();
                break;
            }
        }
    };
    let (_, why, _) = tokio::join!(stop, a.work(), b.work());
    assert_eq!(why, "job `long` is over");
    let last = last_event(watched).await;
    assert_eq!((text(&last["event"]), text(&last["state"])), ("finished", "stopped"));
    assert_eq!(super::jobs::files(text(&last["checkpoint"])).await.len(), 4);
    for mut worker in [a, b, idle] {
        let Err(Some(status)) = worker.next().await else { panic!("its stream ends with a reason") };
        assert_eq!(told(&status), "UNAVAILABLE: the coordinator is shutting down");
    }
    server.ended().await.expect("it served to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_stop_in_time_is_ended_and_says_so() {
    let config = Config { stop_within: Duration::from_millis(100), ..config("stuck") };
    let server = Server::start_with(Coordinator::new(config)).await;
    let job = server.submit(TINY, "stuck").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    b.answer(assigned).await;
    let grant = a.work_until_granted().await;
    a.answer(granted(grant)).await;
    let _unanswered = b.work_until_granted().await;
    let watched = server.coordinator.watch(&job.as_str().try_into().expect("an id"), 0).expect("it is known");
    server.shutdown.cancel();
    let last = last_event(watched).await;
    assert_eq!((text(&last["event"]), text(&last["state"])), ("finished", "failed"));
    assert_eq!(text(&last["reason"]), "the coordinator shut down before the job reached a turn boundary");
    assert_eq!(last["turn"], 1);
    server.ended().await.expect("it served to the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_falls_silent_is_gone() {
    let config = Config { heartbeat: Duration::from_millis(50), ..config("silent") };
    let server = Server::start_with(Coordinator::new(config)).await;
    let mut silent = FakeWorker::start(&server, "c").await;
    silent.stop_heartbeats();
    let Err(Some(status)) = silent.next().await else { panic!("its stream ends with a reason") };
    assert_eq!(told(&status), "DEADLINE_EXCEEDED: it sent nothing for 0.1 s");
    FakeWorker::start(&server, "c").await;
    server.stop().await;
}

/// A job whose task calls `ends` once it is asked to stop.
fn job_that(ends: fn()) -> Arc<antiphon_coordinator::registry::coordinator::SpawnJob> {
    Arc::new(move |config: JobConfig| {
        let (inbox, mut inputs) = mpsc::channel(INBOX);
        let (status, watched) = watch::channel(JobStatus::waiting("it is a test"));
        let task = tokio::spawn(async move {
            let _held = (config, status);
            inputs.recv().await;
            ends();
        });
        JobHandle { inbox, status: watched, task }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_of_a_task_that_panics_are_told() {
    let broken = "this is a bug in the coordinator, see its log";
    for (ends, expected) in [
        ((|| panic!("meant")) as fn(), format!("the job's task panicked; {broken}")),
        (|| {}, format!("the job's task ended without a reason; {broken}")),
    ] {
        let server = Server::start_with(Coordinator::with_jobs(config("panics"), job_that(ends))).await;
        let job = server.submit(TINY, "panics").await.expect("it is taken");
        let stop = antiphon_proto::v1::StopJobRequest { job: job.clone(), now: false };
        server.jobs().await.stop_job(stop).await.expect("the job is known");
        let finished = server.finished(&job).await;
        assert_eq!((text(&finished["state"]), text(&finished["reason"])), ("failed", expected.as_str()));
        let status = server.status(&job).await;
        assert_eq!((status.state(), status.reason), (JobState::Failed, expected));
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_served_after_shutdown() {
    let server = Server::start("late").await;
    let coordinator = server.coordinator.clone();
    let mut jobs = server.jobs().await;
    server.stop().await;
    let request = antiphon_proto::v1::ListJobsRequest {};
    let late = tokio::time::timeout(TIMEOUT, jobs.list_jobs(request)).await.expect("it is told at once");
    let code = late.expect_err("it does not serve").code();
    // The last message occurs if the connection is still being closed.
    assert!(matches!(code, Code::Unavailable | Code::Cancelled), "{code:?}");
    let submission = antiphon_coordinator::registry::Submission {
        specification: TINY.to_owned(),
        job: None,
        resume: None,
        request: None,
    };
    let refused = coordinator.submit(submission).await.expect_err("it takes no jobs");
    assert_eq!(refused.to_string(), "the coordinator is shutting down and accepts no jobs");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_submission_frees_its_id() {
    use futures::FutureExt as _;
    let folder = tempfile::tempdir().expect("a scratch folder");
    let server = Server::start("abandoned").await;
    let specification = format!("{TINY}checkpoints: {{to: \"{}\"}}\n", folder.path().display());
    let submission = |number: u32| antiphon_coordinator::registry::Submission {
        specification: specification.clone(),
        job: Some(format!("again-{number}").as_str().try_into().expect("an id")),
        resume: None,
        request: Some(format!("request-{number}").as_str().try_into().expect("an id")),
    };
    // The client hangs up during the request to the store. If the store answers before that, the test retries with
    // another id.
    let mut asked = None;
    for number in 0..1000 {
        let mut first = Box::pin(server.coordinator.submit(submission(number)));
        if first.as_mut().now_or_never().is_none() {
            asked = Some((number, first));
            break;
        }
    }
    let (number, first) = asked.expect("a disk takes its time now and then");
    let again = server.coordinator.submit(submission(number)).await.expect_err("one of them is enough");
    let underway =
        format!("this submission was sent before, as job `again-{number}`, and is still being checked; retry it later");
    assert_eq!(again.to_string(), underway);
    drop(first);
    server.coordinator.submit(submission(number)).await.expect("the id is free again");
    server.stop().await;
}
