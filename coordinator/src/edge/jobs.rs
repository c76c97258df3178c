//! `antiphon.v1.JobService`: for clients that submit and follow jobs.

use std::pin::Pin;

use antiphon_core::ids::JobId;
use antiphon_proto::service_error::status;
use antiphon_proto::v1::{self, job_service_server::JobService};
use antiphon_proto::{WireError, ids};
use futures::{Stream, stream};
use tonic::{Request, Response, Status};

use crate::events::EventWatcher;
use crate::job::contract::JobState;
use crate::registry::entry::JobView;
use crate::registry::{Coordinator, Submission};

/// The service over a coordinator.
#[derive(Clone)]
pub struct Jobs {
    /// The coordinator of the jobs.
    pub coordinator: Coordinator,
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::JobEvent, Status>> + Send>>;

#[tonic::async_trait]
impl JobService for Jobs {
    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        let submission = submission(request.into_inner())?;
        let job = self.coordinator.submit(submission).await.map_err(status)?;
        Ok(Response::new(v1::SubmitJobResponse { job: job.to_string() }))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::GetJobResponse>, Status> {
        let job = job_id(&request.get_ref().job)?;
        let view = self.coordinator.job(&job).map_err(status)?;
        let specification = self.coordinator.specification(&job).map_err(status)?.to_string();
        Ok(Response::new(v1::GetJobResponse { status: Some(view.into()), specification }))
    }

    async fn list_jobs(
        &self,
        _request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let jobs = self.coordinator.list().into_iter().map(v1::JobStatus::from).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    type WatchJobStream = Events;

    async fn watch_job(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<Events>, Status> {
        let v1::WatchJobRequest { job, after } = request.into_inner();
        let watcher = self.coordinator.watch(&job_id(&job)?, after).map_err(status)?;
        Ok(Response::new(Box::pin(stream::unfold(watcher, next_event))))
    }

    async fn stop_job(&self, request: Request<v1::StopJobRequest>) -> Result<Response<v1::StopJobResponse>, Status> {
        let v1::StopJobRequest { job, now } = request.into_inner();
        let view = self.coordinator.stop(&job_id(&job)?, now).await.map_err(status)?;
        Ok(Response::new(v1::StopJobResponse { status: Some(view.into()) }))
    }
}

async fn next_event(mut watcher: EventWatcher) -> Option<(Result<v1::JobEvent, Status>, EventWatcher)> {
    let event = watcher.next().await.map_err(status).transpose()?;
    Some((event.map(|event| v1::JobEvent { number: event.number, json: event.json.to_string() }), watcher))
}

fn job_id(text: &str) -> Result<JobId, WireError> {
    ids::name("job", text)
}

fn submission(request: v1::SubmitJobRequest) -> Result<Submission, WireError> {
    let job = request.job.as_deref().map(job_id).transpose()?;
    let id = request.request.as_deref().map(|id| ids::name("request", id)).transpose()?;
    Ok(Submission { specification: request.specification, job, resume: request.resume, request: id })
}

impl From<JobView> for v1::JobStatus {
    fn from(view: JobView) -> Self {
        Self {
            job: view.job.to_string(),
            name: view.name.to_string(),
            state: v1::JobState::from(view.status.state).into(),
            reason: view.status.reason,
            term: view.term.0,
            turn: view.status.turn.0,
            turns: view.status.turns.unwrap_or(0),
            last_event: view.last_event,
            checkpoint: view.status.checkpoint.unwrap_or_default(),
            submitted: view.submitted,
        }
    }
}

impl From<JobState> for v1::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Waiting => Self::Waiting,
            JobState::Running => Self::Running,
            JobState::Succeeded => Self::Succeeded,
            JobState::Failed => Self::Failed,
            JobState::Stopped => Self::Stopped,
        }
    }
}
