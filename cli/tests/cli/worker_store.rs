//! Workers whose store fails: the status of the job reports it, and a worker gives up after its retry timeout.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::process::{Process, TEST_TIMEOUT, listening, read_to_its_end};
use crate::support::{antiphon, folder_with};
use antiphon_proto::v1::job_service_client::JobServiceClient;
use antiphon_proto::v1::{GetJobRequest, JobState, JobStatus, StopJobRequest, SubmitJobRequest};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

/// A job that trains nothing and only writes the initial state, with the files of every worker.
const JOB: &str = "name: t\ndata: {source: synth, kind: features, samples: {train: 20, validation: 0, test: 0}}\n\
                   modalities: [a, b]\nlabels: 10\nhead: {width: 8}\nschedule: {turns: 0, batch: 5}\n";

/// A coordinator that listens, and its URL.
fn coordinator(folder: &Path) -> (Process, String) {
    let arguments = ["coordinator", "--listen", "127.0.0.1:0", "--heartbeat-seconds", "1", "--format", "json"];
    let (process, url, log) = listening(antiphon(folder, &arguments));
    read_to_its_end(log);
    (process, url)
}

fn worker(folder: &Path, url: &str, modality: &str, faults: &str, more: &[&str]) -> Process {
    let arguments = ["worker", "--modality", modality, "--name", modality, "--coordinator", url];
    let mut program = antiphon(folder, &[&arguments, more].concat());
    program.env("ANTIPHON_STORE_FAULTS", faults).stderr(Stdio::null());
    Process(program.spawn().expect("the worker starts"))
}

async fn submitted(url: &str) -> (JobServiceClient<Channel>, GetJobRequest) {
    let mut jobs = JobServiceClient::connect(url.to_owned()).await.expect("it listens");
    let request = SubmitJobRequest { specification: JOB.to_owned(), ..Default::default() };
    let job = jobs.submit_job(request).await.expect("it is taken").into_inner().job;
    (jobs, GetJobRequest { job })
}

/// Waits until the job's status matches, and returns the status.
async fn until(
    (jobs, request): &mut (JobServiceClient<Channel>, GetJobRequest),
    reached: impl Fn(&JobStatus) -> bool,
) -> JobStatus {
    let mut seen = None;
    let poll = async {
        loop {
            let answer = jobs.get_job(request.clone()).await.expect("the job is known");
            let status = answer.into_inner().status.expect("an answer has a status");
            if reached(&status) {
                return status;
            }
            seen = Some(status);
            sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = timeout(TEST_TIMEOUT, poll).await;
    reached.unwrap_or_else(|_| panic!("the status is still {seen:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_names_the_worker_whose_store_fails_and_resumes() {
    let folder = folder_with(JOB);
    let (_coordinator, url) = coordinator(folder.path());
    let _a = worker(folder.path(), &url, "a", "", &[]);
    let suffers = worker(folder.path(), &url, "b", "errors=1", &[]);
    let mut job = submitted(&url).await;
    let status = until(&mut job, |status| status.reason.contains("; retrying for ")).await;
    let waits = "turn 0: finishing; checkpoint 0 waits for files of `b` worker `b`; `b` worker `b`: cannot write";
    assert!(status.reason.starts_with(waits), "{}", status.reason);
    drop(suffers);
    let _b = worker(folder.path(), &url, "b", "", &[]);
    until(&mut job, |status| status.state() == JobState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stopped_with_now_does_not_wait_for_its_store() {
    let folder = folder_with(JOB);
    let (_coordinator, url) = coordinator(folder.path());
    let _workers = [worker(folder.path(), &url, "a", "", &[]), worker(folder.path(), &url, "b", "errors=1", &[])];
    let mut job = submitted(&url).await;
    until(&mut job, |status| status.reason.contains("; retrying for ")).await;
    for now in [false, true] {
        let request = StopJobRequest { job: job.1.job.clone(), now };
        job.0.stop_job(request).await.expect("it is told");
        until(&mut job, |status| status.reason.starts_with("asked to stop; ")).await;
    }
    let status = until(&mut job, |status| status.state() == JobState::Stopped).await;
    assert_eq!((status.reason.as_str(), status.checkpoint.as_str()), ("stopped on request", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gives_up_after_its_store_retry_timeout() {
    let folder = folder_with(JOB);
    let (_coordinator, url) = coordinator(folder.path());
    let _workers =
        ["a", "b"].map(|name| worker(folder.path(), &url, name, "errors=1", &["--store-retry-timeout", "0"]));
    let mut job = submitted(&url).await;
    let status = until(&mut job, |status| status.state() == JobState::Failed).await;
    assert!(status.reason.contains("cannot write"), "{}", status.reason);
    assert!(status.reason.ends_with("(3 times in a row)"), "{}", status.reason);
}
