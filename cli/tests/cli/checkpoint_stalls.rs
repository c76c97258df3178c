//! The stall time in the event of a checkpoint: training stalls while the next checkpoint is due and the last one is
//! not persisted, but not during an upload.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::antiphon;
use crate::support::process::{Process, TEST_TIMEOUT, listening, read_to_its_end};
use antiphon_proto::v1::job_service_client::JobServiceClient;
use antiphon_proto::v1::{GetJobRequest, JobEvent, SubmitJobRequest, WatchJobRequest};
use antiphon_testing_s3::{Held, Operation, Server, When};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;
use tonic::transport::Channel;

const JOB: &str = "name: t\ndata: {source: synth, kind: features, samples: {train: 20, validation: 0, test: 0}}\n\
                   modalities: [a, b]\nlabels: 10\nhead: {width: 8}\n";

/// A job with checkpoints in a bucket.
struct Stage {
    folder: tempfile::TempDir,
    store: Server,
    jobs: JobServiceClient<Channel>,
    events: Streaming<JobEvent>,
    /// The coordinator and the workers of `a` and `b`.
    processes: Vec<Process>,
}

impl Stage {
    /// Starts the job. The upload of the head at this turn will be held.
    async fn set(schedule: &str, held_turn: u64) -> (Self, Held) {
        let (folder, store) = (tempfile::tempdir().expect("a folder"), Server::start().await);
        let head = format!("/{held_turn:08}/head.safetensors");
        let held = store.hold(When::Before, move |request| {
            request.operation == Operation::Put && request.paths.iter().any(|path| path.ends_with(&head))
        });
        let arguments = ["coordinator", "--listen", "127.0.0.1:0", "--format", "json"];
        let mut program = antiphon(folder.path(), &arguments);
        program.envs(store.environment());
        let (coordinator, url, log) = listening(program);
        read_to_its_end(log);
        let mut jobs = JobServiceClient::connect(url.clone()).await.expect("it listens");
        let (specification, job) = (format!("{JOB}{schedule}"), Some("t".to_owned()));
        jobs.submit_job(SubmitJobRequest { specification, job, ..Default::default() }).await.expect("it is taken");
        let watch = WatchJobRequest { job: "t".to_owned(), after: 0 };
        let events = jobs.watch_job(watch).await.expect("the job is known").into_inner();
        let mut stage = Self { folder, store, jobs, events, processes: vec![coordinator] };
        for modality in ["a", "b"] {
            let worker = worker(stage.folder.path(), &stage.store, &url, modality);
            stage.processes.push(worker);
        }
        (stage, held)
    }

    async fn reason(&mut self) -> String {
        let answer = self.jobs.get_job(GetJobRequest { job: "t".to_owned() }).await.expect("the job is known");
        answer.into_inner().status.expect("an answer has a status").reason
    }

    /// The events up to the first that matches.
    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen: Vec<Value> = Vec::new();
        let watch = async {
            while let Some(event) = self.events.message().await.expect("the stream is sound") {
                seen.push(serde_json::from_str(&event.json).expect("JSON"));
                if seen.last().is_some_and(&wanted) {
                    return;
                }
            }
            panic!("the job is over: {seen:?}");
        };
        timeout(TEST_TIMEOUT, watch).await.expect("it comes");
        seen
    }
}

fn worker(folder: &Path, store: &Server, url: &str, modality: &str) -> Process {
    let mut program = antiphon(folder, &["worker", "--modality", modality, "--coordinator", url]);
    program.envs(store.environment()).stdout(Stdio::null()).stderr(Stdio::null());
    Process(program.spawn().expect("the worker starts"))
}

/// The stall time of each checkpoint, by turn.
fn stalls(events: &[Value]) -> Vec<(u64, f64)> {
    let checkpoints = events.iter().filter(|event| event["event"] == "checkpoint");
    let stall = |event: &Value| Some((event["turn"].as_u64()?, event["stall_seconds"].as_f64()?));
    checkpoints.map(|event| stall(event).expect("a checkpoint says so")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_that_wait_for_the_last_checkpoint_count_as_a_stall() {
    let schedule = "schedule: {turns: 12, batch: 5}\ncheckpoints: {to: s3://runs, every: 4 turns}\n";
    let (mut stage, mut held) = Stage::set(schedule, 4).await;
    timeout(TEST_TIMEOUT, held.wait()).await.expect("it is written");
    let waits = async {
        while !stage.reason().await.starts_with("turn 8: a checkpoint is due; ") {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TEST_TIMEOUT, waits).await.expect("the next one is due");
    let started = Instant::now();
    sleep(Duration::from_millis(300)).await;
    let stalled = started.elapsed().as_secs_f64();
    held.release();
    let events = stage.until(|event| event["event"] == "finished").await;
    let told: f64 = stalls(&events).into_iter().map(|(_, seconds)| seconds).sum();
    assert!(told >= stalled, "{told} s of {stalled} s: {:?}", stalls(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_during_an_upload_do_not_count_as_a_stall() {
    let schedule = "schedule: {turns: 100000, batch: 5}\ncheckpoints: {to: s3://runs, every: 500 turns}\n";
    let (mut stage, mut held) = Stage::set(schedule, 500).await;
    timeout(TEST_TIMEOUT, held.wait()).await.expect("it is written");
    let started = Instant::now();
    stage.until(|event| event["event"] == "step" && event["turn"] == 600).await;
    // The workers must not reach the turn of the next checkpoint before this one is persisted.
    stage.processes[1].stop();
    let uploaded = started.elapsed().as_secs_f64();
    held.release();
    let events = stage.until(|event| event["event"] == "checkpoint").await;
    let [(500, stall)] = stalls(&events)[..] else { panic!("there is one: {events:?}") };
    assert!(stall < uploaded, "{stall} s of {uploaded} s");
}
