//! The client of a coordinator's job service.

use std::time::Duration;

use antiphon_core::event::JobEvent;
use antiphon_proto::MESSAGE_LIMIT;
use antiphon_proto::v1::job_service_client::JobServiceClient;
use antiphon_proto::v1::{self, GetJobRequest, StopJobRequest, SubmitJobRequest, WatchJobRequest};
use anyhow::{Context as _, anyhow};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::exit::{Exit, OrExit as _};

/// How often a coordinator is asked whether it is still there.
const ALIVE: Duration = Duration::from_secs(20);

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

/// Talks to one coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    url: String,
    jobs: JobServiceClient<Channel>,
}

impl Client {
    /// Connects within `timeout`.
    pub(crate) async fn connect(url: &str, timeout: Duration) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .with_context(|| format!("`{url}` is not an address; give it as http://host:port"))
            .or_exit(Exit::Usage)?;
        if endpoint.uri().scheme_str() != Some("http") {
            // There is no TLS yet, and what asks for it must not be sent in the clear.
            return Err(anyhow!("`{url}` is not an address that is spoken to; give it as http://host:port"))
                .or_exit(Exit::Usage);
        }
        // A coordinator whose machine is gone says nothing; one that is there answers to this although no event comes.
        let endpoint = endpoint.http2_keep_alive_interval(ALIVE).keep_alive_while_idle(true);
        let channel = endpoint.connect_timeout(timeout).tcp_nodelay(true).connect().await;
        let channel = channel.map_err(|error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            anyhow!("no coordinator at {url}: {reason}; start one with `antiphon coordinator`, or name another with --coordinator")
        });
        // Reports carry confusion matrices, which may be large.
        let jobs = JobServiceClient::new(channel.or_exit(Exit::Unreachable)?).max_decoding_message_size(MESSAGE_LIMIT);
        Ok(Self { url: url.to_owned(), jobs })
    }

    /// Submits a job and returns its id once the coordinator holds it.
    pub(crate) async fn submit(&mut self, request: SubmitJobRequest) -> anyhow::Result<String> {
        match self.jobs.submit_job(request).await {
            Ok(response) => Ok(response.into_inner().job),
            Err(status) => Err(self.explain(&status)),
        }
    }

    /// What a job waits for or why it ended; empty while it runs.
    pub(crate) async fn reason(&mut self, job: &str) -> anyhow::Result<String> {
        let request = GetJobRequest { job: job.to_owned() };
        let response = self.jobs.get_job(request).await.map_err(|status| self.explain(&status))?;
        Ok(response.into_inner().status.map(|status| status.reason).unwrap_or_default())
    }

    /// Asks a job to stop at its next turn boundary.
    pub(crate) async fn stop(&mut self, job: &str) -> anyhow::Result<()> {
        let request = StopJobRequest { job: job.to_owned() };
        self.jobs.stop_job(request).await.map(|_| ()).map_err(|status| self.explain(&status))
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

    fn explain(&self, status: &tonic::Status) -> anyhow::Error {
        let exit = match status.code() {
            Code::Unavailable => Exit::Unreachable,
            Code::DeadlineExceeded => Exit::TimedOut,
            // The connection broke, or whoever answered does not speak gRPC.
            _ if std::error::Error::source(status).is_some() => Exit::Unreachable,
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => Exit::Usage,
            _ => Exit::Failed,
        };
        let error = match exit {
            Exit::Unreachable => anyhow!("lost the coordinator at {}, or it is none: {}", self.url, status.message()),
            _ => anyhow!("{}", status.message()),
        };
        Err::<(), _>(error).or_exit(exit).expect_err("it is an error")
    }
}
