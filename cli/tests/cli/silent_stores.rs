//! Stores that do not answer for a time. If the store of one job is silent while its coordinator starts, the other
//! jobs run, and that job resumes when the store answers. If the store of the coordinator is silent, its jobs wait,
//! report the reason, and resume.

use std::path::Path;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::antiphon;
use crate::support::process::{Process, TEST_TIMEOUT, address};
use antiphon_proto::v1::job_service_client::JobServiceClient;
use antiphon_proto::v1::{GetJobRequest, JobState, JobStatus, ListJobsRequest, StopJobRequest, SubmitJobRequest};
use antiphon_testing_s3::{Held, Operation, Request, Server, When};
use bytes::Bytes;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

const JOB: &str = "name: t\ndata: {source: synth, kind: features, samples: {train: 20, validation: 0, test: 0}}\n\
                   modalities: [a, b]\nlabels: 10\nhead: {width: 8}\nschedule: {turns: 4, batch: 5}\n";

/// The coordinator's own state, in the folder of its test.
const STATE: &str = "antiphon-runs";

fn started(mut program: Command) -> Process {
    Process(program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts"))
}

fn coordinator(folder: &Path, address: &str, state: &str, store: &Server, endpoint: &str) -> Process {
    let mut program = antiphon(folder, &["coordinator", "--listen", address, "--state", state]);
    program.envs(store.environment()).env("AWS_ENDPOINT_URL", endpoint);
    started(program)
}

fn workers(folder: &Path, address: &str, store: &Server) -> [Process; 2] {
    ["a", "b"].map(|modality| {
        let coordinator = format!("http://{address}");
        let mut program = antiphon(folder, &["worker", "--modality", modality, "--coordinator", &coordinator]);
        program.envs(store.environment());
        started(program)
    })
}

struct Client(JobServiceClient<Channel>);

impl Client {
    /// A client of a coordinator that may not listen yet.
    async fn connect(address: &str) -> Self {
        let dial = async {
            loop {
                match JobServiceClient::connect(format!("http://{address}")).await {
                    Ok(client) => return Self(client),
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        timeout(TEST_TIMEOUT, dial).await.expect("it listens")
    }

    async fn submit(&mut self, job: &str, specification: String) {
        let request = SubmitJobRequest { specification, job: Some(job.to_owned()), ..Default::default() };
        self.0.submit_job(request).await.expect("it is taken");
    }

    async fn status(&mut self, job: &str) -> JobStatus {
        let answer = self.0.get_job(GetJobRequest { job: job.to_owned() }).await.expect("the job is known");
        answer.into_inner().status.expect("an answer has a status")
    }

    async fn until(&mut self, job: &str, state: JobState) {
        self.until_seen(job, |status| status.state() == state).await;
    }

    async fn until_seen(&mut self, job: &str, wanted: impl Fn(&JobStatus) -> bool) {
        let mut seen = None;
        let poll = async {
            loop {
                let status = self.status(job).await;
                if wanted(&status) {
                    return;
                }
                seen = Some(status);
                sleep(Duration::from_millis(20)).await;
            }
        };
        let reached = timeout(TEST_TIMEOUT, poll).await;
        reached.unwrap_or_else(|_| panic!("it did not come to it: {seen:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_a_silent_store_delays_no_other_and_resumes() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Server::start().await;
    let address = address().to_string();
    {
        let _first = coordinator(folder.path(), &address, STATE, &store, &store.endpoint());
        let mut client = Client::connect(&address).await;
        for job in ["away", "stopped"] {
            client.submit(job, format!("{JOB}checkpoints: {{to: s3://runs}}\n")).await;
        }
        client.submit("fine", JOB.to_owned()).await;
    }
    // Connections are accepted, and no request is answered.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let endpoint = format!("http://{}", silent.local_addr().expect("it is bound"));
    let _second = coordinator(folder.path(), &address, STATE, &store, &endpoint);
    let mut client = Client::connect(&address).await;
    let status = client.status("away").await;
    assert_eq!(status.state(), JobState::Waiting);
    assert!(status.reason.starts_with("recovering: "), "{}", status.reason);
    let listed = client.0.list_jobs(ListJobsRequest {}).await.expect("they are listed").into_inner().jobs;
    assert_eq!(listed.len(), 3, "{listed:?}");
    let again = SubmitJobRequest { specification: JOB.to_owned(), job: Some("away".to_owned()), ..Default::default() };
    assert_eq!(client.0.submit_job(again).await.expect_err("its id is taken").code(), Code::AlreadyExists);
    client.0.stop_job(StopJobRequest { job: "stopped".to_owned(), now: false }).await.expect("it is told");
    client.until("stopped", JobState::Stopped).await;

    let _workers = workers(folder.path(), &address, &store);
    client.until("fine", JobState::Succeeded).await;
    let status = client.status("away").await;
    assert_eq!(status.state(), JobState::Waiting);
    assert!(status.reason.starts_with("recovering: "), "{}", status.reason);

    // Now the server answers, including the requests that have waited.
    let behind = store.endpoint().trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = silent.accept().await {
            let behind = behind.clone();
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(behind).await {
                    // Either side may have closed its connection.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    client.until("away", JobState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_its_head_has_no_workers_and_can_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Server::start().await;
    let address = address().to_string();
    let _workers = {
        let _first = coordinator(folder.path(), &address, STATE, &store, &store.endpoint());
        let mut client = Client::connect(&address).await;
        let endless = JOB.replace("{turns: 4, batch: 5}", "{turns: 1000000, batch: 5}");
        client.submit("away", format!("{endless}checkpoints: {{to: s3://runs, every: 4 turns}}\n")).await;
        let workers = workers(folder.path(), &address, &store);
        client.until_seen("away", |status| !status.checkpoint.is_empty()).await;
        workers
    };
    let reads_head = |request: &Request| {
        request.operation == Operation::Get && request.paths.iter().any(|path| path.ends_with("/head.safetensors"))
    };
    let _held: Vec<Held> = (0..100).map(|_| store.hold(When::Before, reads_head)).collect();
    let _second = coordinator(folder.path(), &address, STATE, &store, &store.endpoint());
    let mut client = Client::connect(&address).await;
    client.until_seen("away", |status| status.reason.starts_with("recovering: loading `s3://runs/")).await;
    client.submit("fine", JOB.to_owned()).await;
    client.until("fine", JobState::Succeeded).await;
    client.0.stop_job(StopJobRequest { job: "away".to_owned(), now: false }).await.expect("it is told");
    client.until("away", JobState::Stopped).await;
    let status = client.status("away").await;
    assert!(status.checkpoint.starts_with("s3://runs/") && status.reason == "stopped on request", "{status:?}");
}

/// Holds the next write of the coordinator's journal and its retries. No later write follows until this one is
/// persisted.
fn held_journal(store: &Server) -> Vec<Held> {
    let hold = |_| {
        store.hold(When::Before, |request| {
            request.operation == Operation::Put && request.paths.iter().any(|path| path.contains("/_coordinator/wal/"))
        })
    };
    (0..100).map(hold).collect()
}

/// The journal record that a released request has written.
async fn carried_out(store: &Server, request: &Request) -> Bytes {
    let poll = async {
        loop {
            if let Some(object) = store.object(&request.paths[0]) {
                return object;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TEST_TIMEOUT, poll).await.expect("it is carried out")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_waits_until_the_journal_confirms_the_leader() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Server::start().await;
    let address = address().to_string();
    let _coordinator = coordinator(folder.path(), &address, "s3://bucket/runs", &store, &store.endpoint());
    let mut client = Client::connect(&address).await;
    let checkpoints = folder.path().join("checkpoints");
    let often = format!("{{turns: 40, batch: 5}}\ncheckpoints: {{to: {}, every: 4 turns}}", checkpoints.display());
    client.submit("kept", JOB.replace("{turns: 4, batch: 5}", &often)).await;
    let mut held = held_journal(&store);
    let _workers = workers(folder.path(), &address, &store);
    timeout(TEST_TIMEOUT, held[0].wait()).await.expect("it writes");
    let wanted = "; the coordinator's journal has accepted no writes for ";
    client.until_seen("kept", |status| status.reason.contains(wanted)).await;
    held.into_iter().for_each(Held::release);
    client.until("kept", JobState::Succeeded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stopped_before_a_restart_does_not_wait_for_stores() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Server::start().await;
    let address = address().to_string();
    let first = coordinator(folder.path(), &address, "s3://bucket/runs", &store, &store.endpoint());
    let mut client = Client::connect(&address).await;
    client.submit("asked", format!("{JOB}checkpoints: {{to: s3://elsewhere}}\n")).await;
    // The journal accepts writes until it has persisted the stop request. The end of the job, which follows, is held.
    let mut held = held_journal(&store).into_iter();
    let mut asking = client.0.clone();
    let mut asked = pin!(asking.stop_job(StopJobRequest { job: "asked".to_owned(), now: false }));
    loop {
        let mut next = held.next().expect("the request is among the next writes");
        let write = tokio::select! {
            write = timeout(TEST_TIMEOUT, next.wait()) => write.expect("it writes"),
            early = &mut asked => panic!("the journal has not written it: {early:?}"),
        };
        next.release();
        let written = carried_out(&store, &write).await;
        if written.windows(b"stop/asked".len()).any(|bytes| bytes == b"stop/asked") {
            break;
        }
    }
    timeout(TEST_TIMEOUT, asked).await.expect("it is answered").expect("it is told");
    drop(first);
    // The pending write of the dead coordinator is never executed.
    drop(held);

    let silent = |_| store.hold(When::Before, |request| request.paths.iter().any(|path| path.contains("elsewhere")));
    let _silent: Vec<Held> = (0..100).map(silent).collect();
    let _second = coordinator(folder.path(), &address, "s3://bucket/runs", &store, &store.endpoint());
    let mut client = Client::connect(&address).await;
    client.until("asked", JobState::Stopped).await;
    let reason = client.status("asked").await.reason;
    assert!(reason.starts_with("stopped on request; its newest checkpoint is not known: "), "{reason}");
}
