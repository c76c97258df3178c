//! A coordinator on a free loopback port that serves until its test ends, and clients of it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use antiphon_coordinator::config::Config;
use antiphon_coordinator::edge::server::{ServeError, serve_coordinator};
use antiphon_coordinator::registry::Coordinator;
use antiphon_proto::v1;
use antiphon_proto::v1::job_service_client::JobServiceClient;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// A test that waits longer fails instead of hanging.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(600);

/// A job with two modalities and two epochs of four turns, with a checkpoint and an evaluation after each epoch.
pub(crate) const TINY: &str = "
name: tiny
seed: 5
data: {train: never-opened.parquet, validation: never-opened.parquet, test: never-opened.parquet}
modalities: {a: {}, b: {}}
labels: 3
head: {width: 4, optimizer: {kind: sgd, lr: 0.1, momentum: 0.9}}
schedule: {epochs: 2, batch: 4}
";

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) coordinator: Coordinator,
    pub(crate) shutdown: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
}

/// Settings that store jobs in memory under `name`, which must be unique to the test.
pub(crate) fn config(name: &str) -> Config {
    Config { state: format!("memory://{name}/runs"), message_limit: 1 << 20, ..Config::default() }
}

impl Server {
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(Coordinator::new(config(name))).await
    }

    pub(crate) async fn start_with(coordinator: Coordinator) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve_coordinator(coordinator.clone(), listener, shutdown.clone()));
        Self { address, coordinator, shutdown, serving }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).expect("an address makes a URL");
        endpoint.connect().await.expect("it listens")
    }

    pub(crate) async fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel().await)
    }

    /// Submits a specification under an id.
    pub(crate) async fn submit(&self, specification: &str, job: &str) -> Result<String, Status> {
        self.submit_from(specification, job, None).await
    }

    pub(crate) async fn submit_from(
        &self,
        specification: &str,
        job: &str,
        resume: Option<String>,
    ) -> Result<String, Status> {
        let request = v1::SubmitJobRequest {
            specification: specification.to_owned(),
            job: Some(job.to_owned()),
            resume,
            ..Default::default()
        };
        Ok(self.jobs().await.submit_job(request).await?.into_inner().job)
    }

    pub(crate) async fn status(&self, job: &str) -> v1::JobStatus {
        let request = v1::GetJobRequest { job: job.to_owned() };
        let answer = self.jobs().await.get_job(request).await.expect("the job is known");
        answer.into_inner().status.expect("an answer has a status")
    }

    /// Waits until the status has this reason, and returns the status.
    pub(crate) async fn waits_for(&self, job: &str, reason: &str) -> v1::JobStatus {
        self.says(job, reason, |said| said == reason).await
    }

    /// Waits until the reason in the status starts with this text.
    pub(crate) async fn begins_to_say(&self, job: &str, reason: &str) -> v1::JobStatus {
        self.says(job, reason, |said| said.starts_with(reason)).await
    }

    async fn says(&self, job: &str, reason: &str, wanted: impl Fn(&str) -> bool) -> v1::JobStatus {
        let mut seen = String::new();
        let poll = async {
            loop {
                let status = self.status(job).await;
                if wanted(&status.reason) {
                    return status;
                }
                seen = status.reason;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let status = tokio::time::timeout(TIMEOUT, poll).await;
        status.unwrap_or_else(|_| panic!("the reason is still `{seen}`, not `{reason}`"))
    }

    /// Waits until the coordinator has noticed that all workers are gone. Before that, a new job could be assigned one
    /// of them.
    pub(crate) async fn no_worker_is_registered(&self) {
        let registered =
            || ["a", "b"].map(|name| self.coordinator.pool().counts(&name.try_into().expect("a name")).registered);
        let poll = async {
            while registered() != [0, 0] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(TIMEOUT, poll).await.expect("it notices");
    }

    /// All events after number `after` until the job's end. Checks that their numbers have no gap.
    pub(crate) async fn events(&self, job: &str, after: u64) -> Vec<Value> {
        let request = v1::WatchJobRequest { job: job.to_owned(), after };
        let mut stream = self.jobs().await.watch_job(request).await.expect("the job is known").into_inner();
        let mut events = Vec::new();
        loop {
            let next = tokio::time::timeout(TIMEOUT, stream.message()).await.expect("events come or end");
            let Some(event) = next.expect("the stream is sound") else { return events };
            events.push(serde_json::from_str(&event.json).expect("an event is JSON"));
            assert_eq!(event.number, after + events.len() as u64, "events are numbered without gaps");
        }
    }

    /// Waits for the last event of a job, and returns it.
    pub(crate) async fn finished(&self, job: &str) -> Value {
        let events = self.events(job, 0).await;
        let finished = events.iter().filter(|event| event["event"] == "finished").count();
        assert_eq!(finished, 1, "a job finishes once: {events:?}");
        let last = events.last().expect("a job has events").clone();
        assert_eq!(last["event"], "finished", "and that is its last event");
        last
    }

    /// Shuts down, and checks that serving ended without an error.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.ended().await.expect("it served to the end");
    }

    /// Waits until the server has ended.
    pub(crate) async fn ended(self) -> Result<(), ServeError> {
        let ended = tokio::time::timeout(TIMEOUT, self.serving).await.expect("it shuts down in time");
        ended.expect("the server did not panic")
    }
}

/// The error as text, as in `NOT_FOUND: this coordinator has no job …`.
pub(crate) fn told(status: &Status) -> String {
    let code = match status.code() {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Internal => "INTERNAL",
        other => return format!("{other:?}: {}", status.message()),
    };
    format!("{code}: {}", status.message())
}

/// Compares lines of `name: message` with the golden file of that name; `UPDATE=1` rewrites it.
pub(crate) fn golden(file: &str, lines: &[(&str, String)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let text: String = lines.iter().map(|(name, line)| format!("{name}: {line}\n")).collect();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).expect("the golden file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{file}: run with UPDATE=1 and look at the difference if this is meant");
}
