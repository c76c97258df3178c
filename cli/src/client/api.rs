//! Requests to a coordinator's job service, without retries.

use std::time::Duration;

use antiphon_core::event::JobEvent;
use antiphon_proto::MESSAGE_LIMIT;
use antiphon_proto::v1::job_service_client::JobServiceClient;
use antiphon_proto::v1::{
    self, GetJobRequest, GetJobResponse, JobStatus, ListJobsRequest, StopJobRequest, SubmitJobRequest, WatchJobRequest,
};
use antiphon_transport::{Dial, KeepAlive, status};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::error::ClientError;

/// An event of a job.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// Number of the event; later events have larger numbers.
    pub(crate) number: u64,
    /// The event, decoded.
    pub(crate) event: JobEvent,
    /// The event as one line of JSON, as the coordinator sent it.
    pub(crate) json: String,
}

/// A client of one coordinator. It connects with the first request, and reconnects after a connection is lost.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    url: String,
    channel: Channel,
    jobs: JobServiceClient<Channel>,
}

impl Client {
    /// A client of a coordinator, local or remote. Keep-alive pings detect a stopped coordinator or a dead machine.
    ///
    /// # Errors
    /// `url` is not an address. The coordinator need not be running yet.
    pub(crate) fn new(url: &str) -> Result<Self, ClientError> {
        Ok(Self::dial(&Dial::new(url, KeepAlive::Always)?))
    }

    /// A client of a coordinator in this process. It sends no keep-alive pings, because a busy machine may answer them
    /// late.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn to_own_process(url: &str) -> Result<Self, ClientError> {
        Ok(Self::dial(&Dial::new(url, KeepAlive::Off)?))
    }

    fn dial(dial: &Dial) -> Self {
        let channel = dial.lazy();
        // Reports carry confusion matrices, which may be large.
        let jobs = JobServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT);
        Self { url: dial.url().to_owned(), channel, jobs }
    }

    /// The URL of the coordinator.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the answer to a request, up to this time.
    pub(crate) async fn within<T>(
        &self,
        time: Duration,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let silent = || Err(ClientError::Unreachable(format!("no coordinator answers at {}", self.url)));
        tokio::time::timeout(time, request).await.unwrap_or_else(|_| silent())
    }

    /// Checks that a coordinator answers and accepts jobs.
    ///
    /// # Errors
    /// The coordinator does not answer within this time, or is shutting down.
    pub(crate) async fn reach(&self, within: Duration) -> Result<(), ClientError> {
        let unreachable = |reason: &str| ClientError::Unreachable(format!("no coordinator at {}: {reason}", self.url));
        let mut health = HealthClient::new(self.channel.clone());
        let answer = tokio::time::timeout(within, health.check(HealthCheckRequest::default())).await;
        match answer.map_err(|_| unreachable("it does not answer"))? {
            Ok(health) if health.get_ref().status == ServingStatus::Serving as i32 => Ok(()),
            Ok(_) => Err(unreachable("it is shutting down")),
            // A proxy may forward the job service only.
            Err(status) if status.code() == Code::Unimplemented && !status::speaks_no_grpc(&status) => Ok(()),
            Err(status) => Err(unreachable(&status::message(&status))),
        }
    }

    /// Submits a job and returns its id once the coordinator has persisted it.
    pub(crate) async fn submit(&self, request: SubmitJobRequest) -> Result<String, ClientError> {
        let response = self.jobs.clone().submit_job(request).await;
        Ok(self.checked(response)?.job)
    }

    /// The status of a job, and its specification as JSON.
    pub(crate) async fn job(&self, job: &str) -> Result<(JobStatus, String), ClientError> {
        let request = GetJobRequest { job: job.to_owned() };
        let response = self.jobs.clone().get_job(request).await;
        let GetJobResponse { status, specification } = self.checked(response)?;
        Ok((status.ok_or_else(no_status)?, specification))
    }

    /// The status of every job, in the order of submission.
    pub(crate) async fn jobs(&self) -> Result<Vec<JobStatus>, ClientError> {
        let response = self.jobs.clone().list_jobs(ListJobsRequest {}).await;
        Ok(self.checked(response)?.jobs)
    }

    /// Asks a job to stop at its next turn boundary and returns its status. With `now`, the job does not wait for
    /// missing workers.
    pub(crate) async fn stop(&self, job: &str, now: bool) -> Result<JobStatus, ClientError> {
        let request = StopJobRequest { job: job.to_owned(), now };
        let response = self.jobs.clone().stop_job(request).await;
        self.checked(response)?.status.ok_or_else(no_status)
    }

    /// Streams the job's events with numbers above `after`, including future ones.
    pub(super) async fn watch(
        &self,
        job: &str,
        after: u64,
    ) -> Result<impl Stream<Item = Result<Watched, ClientError>> + use<>, ClientError> {
        let request = WatchJobRequest { job: job.to_owned(), after };
        let response = self.jobs.clone().watch_job(request).await;
        let (stream, url) = (self.checked(response)?, self.url.clone());
        Ok(stream.map(move |event| {
            let v1::JobEvent { number, json } = event.map_err(|status| ClientError::from_status(&url, &status))?;
            let event = serde_json::from_str(&json).map_err(|error| {
                ClientError::Failed(format!(
                    "cannot read event {number}: {error}; check that client and coordinator \
                     have the same version"
                ))
            })?;
            Ok(Watched { number, event, json })
        }))
    }

    fn checked<T>(&self, response: Result<Response<T>, Status>) -> Result<T, ClientError> {
        response.map(Response::into_inner).map_err(|status| ClientError::from_status(&self.url, &status))
    }
}

fn no_status() -> ClientError {
    ClientError::Failed("the coordinator sent no status of the job".to_owned())
}
