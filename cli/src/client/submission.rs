//! Submits a job and retries during outages of the coordinator. However often a submission arrives, it creates one job.

use antiphon_core::digest::sha256;
use antiphon_core::spec::JobSpec;
use antiphon_proto::v1::SubmitJobRequest;
use antiphon_transport::ReconnectPolicy;
use chrono::Utc;

use super::api::Client;
use super::error::ClientError;
use super::notice::{Notify, while_waiting};
use super::reconnect::Reconnect;

/// A submission with a unique id, by which the coordinator recognises retries.
pub(crate) fn request(spec: &JobSpec, job: Option<String>, resume: Option<String>) -> SubmitJobRequest {
    let specification = spec.to_json();
    let made = format!("{:?} {} {job:?} {resume:?} {specification}", Utc::now(), std::process::id());
    let digest = sha256(made.as_bytes()).to_string();
    let request = Some(format!("r{}", &digest[..40]));
    SubmitJobRequest { specification, job, resume, request }
}

/// A job that is being submitted.
pub(crate) struct Submission {
    client: Client,
    request: SubmitJobRequest,
    reconnect: Reconnect,
    /// Whether a request is sent and its answer is awaited.
    sending: bool,
    /// Whether a request was sent and not answered, so that the coordinator may have accepted the job.
    may_be_accepted: bool,
}

impl Submission {
    pub(crate) fn new(client: Client, request: SubmitJobRequest, policy: ReconnectPolicy) -> Self {
        let reconnect = Reconnect::new(policy, "submission");
        Self { client, request, reconnect, sending: false, may_be_accepted: false }
    }

    /// What the submission waits for.
    pub(crate) fn waits_for(&self) -> String {
        let url = self.client.url();
        match self.reconnect.error() {
            _ if self.sending => self.unwritten(),
            Some(error) => error.to_owned(),
            None => format!("the coordinator at {url} has not answered"),
        }
    }

    fn unwritten(&self) -> String {
        format!("the coordinator at {} has not persisted the job, and may still accept it", self.client.url())
    }

    /// Waits until the coordinator has accepted the job, and returns the job's id.
    ///
    /// # Errors
    /// The coordinator refuses the job, or is unreachable for longer than the policy allows.
    pub(crate) async fn accepted(&mut self, notify: &mut impl Notify) -> Result<String, ClientError> {
        loop {
            let client = self.client.clone();
            let reach = |within| {
                let client = client.clone();
                async move { client.reach(within).await }
            };
            let reached = self.reconnect.until(reach, notify).await;
            reached.map_err(|error| self.advise(error))?;
            self.reconnect.reconnected(notify)?;
            self.sending = true;
            let sent = while_waiting(&self.unwritten(), client.submit(self.request.clone()), notify).await;
            self.sending = false;
            match sent {
                Err(error) if error.is_transient() => {
                    self.may_be_accepted = true;
                    self.reconnect.failed(error, notify).map_err(|error| self.advise(error))?;
                }
                sent => return sent,
            }
        }
    }

    /// Adds to the error what to do about it.
    fn advise(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Unreachable(error) if self.may_be_accepted => ClientError::Unreachable(format!(
                "{error}; the job was sent and may have been accepted: check with `antiphon jobs` once the coordinator \
                 is reachable"
            )),
            error => error.advised(),
        }
    }
}
