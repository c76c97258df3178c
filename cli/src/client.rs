//! The client of a coordinator's job service.

use std::error::Error as _;
use std::time::Duration;

use antiphon_core::event::JobEvent;
use antiphon_process::innermost;
use antiphon_proto::MESSAGE_LIMIT;
use antiphon_proto::v1::job_service_client::JobServiceClient;
use antiphon_proto::v1::{
    self, GetJobRequest, GetJobResponse, JobStatus, ListJobsRequest, StopJobRequest, SubmitJobRequest, WatchJobRequest,
};
use anyhow::{Context as _, anyhow};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::exit::{Exit, OrExit as _};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// A coordinator that has said nothing for so long is asked whether it is there, and gone if it does not answer for as long again.
const ALIVE: Duration = Duration::from_secs(5);

/// An event as the coordinator told of it.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// Later ones have higher numbers.
    pub(crate) number: u64,
    /// What happened.
    pub(crate) event: JobEvent,
    /// The same, as one line of JSON.
    pub(crate) json: String,
}

/// Talks to one coordinator. It connects when something is asked, and anew when a connection is lost.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    url: String,
    channel: Channel,
    jobs: JobServiceClient<Channel>,
}

impl Client {
    /// Of a coordinator anywhere. One that is stopped, or whose machine is gone, says nothing; one that is there answers to being
    /// asked so although no event comes.
    ///
    /// # Errors
    /// `url` is not an address that is spoken to. Nobody need be there yet.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let endpoint = endpoint(url)?.http2_keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE);
        Ok(Self::of(url, endpoint.keep_alive_while_idle(true).connect_lazy()))
    }

    /// Of a coordinator that this process has started, and holds or watches: it may be as busy as it likes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn of_own(url: &str) -> anyhow::Result<Self> {
        Ok(Self::of(url, endpoint(url)?.connect_lazy()))
    }

    fn of(url: &str, channel: Channel) -> Self {
        // Reports carry confusion matrices, which may be large.
        let jobs = JobServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT);
        Self { url: url.to_owned(), channel, jobs }
    }

    /// Where the coordinator is, or should be.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether a coordinator is there and takes jobs; if it does not say so within this time, or says anything else, what is wrong.
    pub(crate) async fn reach(&self, within: Duration) -> Result<(), String> {
        let mut health = HealthClient::new(self.channel.clone());
        let answer = tokio::time::timeout(within, health.check(HealthCheckRequest::default())).await;
        match answer.map_err(|_| "it does not answer".to_owned())? {
            Ok(health) if health.get_ref().status == ServingStatus::Serving as i32 => Ok(()),
            Ok(_) => Err("it is shutting down".to_owned()),
            // Somebody in between who passes on the job service alone.
            Err(status) if status.code() == Code::Unimplemented && !speaks_no_grpc(&status) => Ok(()),
            Err(status) => Err(reason(&status)),
        }
    }

    /// Submits a job and returns its id once the coordinator holds it.
    pub(crate) async fn submit(&mut self, request: SubmitJobRequest) -> anyhow::Result<String> {
        match self.jobs.submit_job(request).await {
            Ok(response) => Ok(response.into_inner().job),
            Err(status) => Err(self.explain(&status)),
        }
    }

    /// How a job is doing, and its specification.
    pub(crate) async fn job(&mut self, job: &str) -> anyhow::Result<(JobStatus, String)> {
        let request = GetJobRequest { job: job.to_owned() };
        let response = self.jobs.get_job(request).await.map_err(|status| self.explain(&status))?;
        let GetJobResponse { status, specification } = response.into_inner();
        Ok((status.context("the coordinator says nothing of the job")?, specification))
    }

    /// How every job is doing, in the order of their submission.
    pub(crate) async fn jobs(&mut self) -> anyhow::Result<Vec<JobStatus>> {
        let response = self.jobs.list_jobs(ListJobsRequest {}).await.map_err(|status| self.explain(&status))?;
        Ok(response.into_inner().jobs)
    }

    /// Asks a job to stop at its next turn boundary; `now`, without waiting for workers that are not there. How it is doing then.
    pub(crate) async fn stop(&mut self, job: &str, now: bool) -> anyhow::Result<JobStatus> {
        let request = StopJobRequest { job: job.to_owned(), now };
        let response = self.jobs.stop_job(request).await.map_err(|status| self.explain(&status))?;
        response.into_inner().status.context("the coordinator says nothing of the job")
    }

    /// The job's events numbered above `after`, and those to come.
    pub(crate) async fn watch(
        &mut self,
        job: &str,
        after: u64,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<Watched>> + use<>> {
        let request = WatchJobRequest { job: job.to_owned(), after };
        let stream = self.jobs.watch_job(request).await.map_err(|status| self.explain(&status))?.into_inner();
        let client = self.clone();
        Ok(stream.map(move |event| {
            let v1::JobEvent { number, json } = event.map_err(|status| client.explain(&status))?;
            let event = serde_json::from_str(&json)
                .with_context(|| format!("event {number} is not understood; is the coordinator newer?"))?;
            Ok(Watched { number, event, json })
        }))
    }

    fn explain(&self, status: &Status) -> anyhow::Error {
        let exit = match status.code() {
            Code::Unavailable => Exit::Unreachable,
            Code::DeadlineExceeded => Exit::TimedOut,
            // The connection broke, or whoever answered does not speak gRPC.
            _ if status.source().is_some() || speaks_no_grpc(status) => Exit::Unreachable,
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => Exit::Usage,
            _ => Exit::Failed,
        };
        let error = match exit {
            Exit::Unreachable if status.source().is_some() || speaks_no_grpc(status) => {
                anyhow!("no answer from the coordinator at {}: {}", self.url, reason(status))
            }
            _ if status.code() == Code::NotFound => {
                anyhow!("{}; `antiphon jobs` lists those that are", status.message())
            }
            _ => anyhow!("{}", status.message()),
        };
        Err::<(), _>(error).or_exit(exit).expect_err("it is an error")
    }
}

fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("`{url}` is not an address; give it as http://host:port"))
        .or_exit(Exit::Usage)?;
    if endpoint.uri().scheme_str() != Some("http") {
        // There is no TLS yet, and what asks for it must not be sent in the clear.
        return Err(anyhow!("`{url}` is not an address that is spoken to; give it as http://host:port"))
            .or_exit(Exit::Usage);
    }
    Ok(endpoint.connect_timeout(CONNECT).tcp_nodelay(true))
}

/// Whether the answer is one of HTTP alone, such as 404: tonic makes a status of it.
fn speaks_no_grpc(status: &Status) -> bool {
    status.message().starts_with("grpc-status header missing")
}

/// What is wrong with a connection, or with whoever is at its other end.
fn reason(status: &Status) -> String {
    status.source().map_or_else(|| status.message().to_owned(), innermost)
}
