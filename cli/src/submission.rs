//! Submitting a job to a coordinator that may be away: it is waited for, and the same submission is sent again, which makes one job
//! however often it comes.

use std::time::Duration;

use antiphon_core::digest::sha256;
use antiphon_core::spec::JobSpec;
use antiphon_proto::v1::SubmitJobRequest;
use anyhow::anyhow;
use chrono::Utc;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::exit::{self, Exit, OrExit as _};
use crate::outage::Outage;
use crate::output::Format;
use crate::remarks::Remarks;

/// A submission like no other: sent again, it is the same one.
pub(crate) fn request(spec: &JobSpec, job: Option<String>, resume: Option<String>) -> SubmitJobRequest {
    let specification = spec.to_json();
    let made = format!("{:?} {} {job:?} {resume:?} {specification}", Utc::now(), std::process::id());
    let digest = sha256(made.as_bytes()).to_string();
    let request = Some(format!("r{}", &digest[..40]));
    SubmitJobRequest { specification, job, resume, request }
}

/// A job on its way to its coordinator.
pub(crate) struct Submission {
    client: Client,
    request: SubmitJobRequest,
    remarks: Remarks,
    patience: Duration,
    waits_for: String,
    /// It was sent, and no answer came.
    may_be_taken: bool,
}

impl Submission {
    /// A coordinator that is away is waited for, `patience` long; whoever submits gives up after `limit` seconds, if there is one.
    pub(crate) fn new(
        client: Client,
        request: SubmitJobRequest,
        format: Format,
        patience: Duration,
        limit: Option<u64>,
    ) -> Self {
        let waits_for = format!("the coordinator at {} has not answered", client.url());
        let up_to = limit.unwrap_or(u64::MAX).min(patience.as_secs());
        let remarks = Remarks { format, job: request.job.clone(), up_to };
        Self { client, request, remarks, patience, waits_for, may_be_taken: false }
    }

    /// What the job is not submitted for, in words.
    pub(crate) fn waits_for(&self) -> &str {
        &self.waits_for
    }

    /// The job's id, once the coordinator holds it.
    ///
    /// # Errors
    /// The job is refused, or nobody is there for as long as there is patience.
    pub(crate) async fn taken(&mut self) -> anyhow::Result<String> {
        let mut outage = Outage::new(Instant::now(), self.patience);
        loop {
            sleep_until(outage.try_again()).await;
            let error = match self.client.reach(outage.within(Instant::now())).await {
                Ok(()) => {
                    if outage.has_failed() {
                        self.remarks.reached(outage.seconds(Instant::now()))?;
                    }
                    match self.sent().await {
                        Ok(job) => return Ok(job),
                        Err(error) if exit::of(&error) != Exit::Unreachable => return Err(error),
                        Err(error) => {
                            self.may_be_taken = true;
                            error.to_string()
                        }
                    }
                }
                Err(reason) => format!("no coordinator at {}: {reason}", self.client.url()),
            };
            let now = Instant::now();
            let Some(()) = outage.failed(now, error.clone(), "submission") else {
                let other = match self.may_be_taken {
                    true => {
                        "the job was sent and may have been taken: `antiphon jobs` tells, once a coordinator is there"
                    }
                    false => "start one with `antiphon coordinator`, or name another with --coordinator",
                };
                let waited = match self.patience.is_zero() {
                    true => String::new(),
                    false => format!("; gave up after {} s", outage.seconds(now)),
                };
                return Err(anyhow!("{error}{waited}; {other}")).or_exit(Exit::Unreachable);
            };
            if outage.say_at() <= now {
                outage.said(now);
                self.remarks.unreachable(outage.seconds(now), &error)?;
            }
            self.waits_for = error;
        }
    }

    /// Sends it to a coordinator that is there, which takes its time where its store does.
    async fn sent(&mut self) -> anyhow::Result<String> {
        self.waits_for =
            format!("the coordinator at {} has not written it down, and may still take it", self.client.url());
        let mut client = self.client.clone();
        self.remarks.until(&self.waits_for, client.submit(self.request.clone())).await
    }
}
