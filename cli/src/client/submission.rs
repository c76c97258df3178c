//! Submitting a job to a coordinator that may be away. The same submission is retried; it makes one job, however often it
//! arrives.

use antiphon_core::digest::sha256;
use antiphon_core::spec::JobSpec;
use antiphon_proto::v1::SubmitJobRequest;
use antiphon_transport::ReconnectPolicy;
use chrono::Utc;

use super::api::Client;
use super::error::ClientError;
use super::notice::{Notify, while_waiting};
use super::reconnect::Reconnect;

/// A submission with its own id, by which the coordinator recognises a retry.
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
    reconnect: Reconnect,
    /// It is sent, and the answer is awaited.
    sending: bool,
    /// It was sent, and no answer came.
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

    /// The job's id, once the coordinator has it.
    ///
    /// # Errors
    /// The job is refused, or the coordinator is away for longer than the policy allows.
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

    /// The error with what to do about it.
    fn advise(&self, error: ClientError) -> ClientError {
        let ClientError::Unreachable(error) = error else { return error };
        ClientError::Unreachable(match self.may_be_accepted {
            true => format!(
                "{error}; the job was sent and may have been accepted: check with `antiphon jobs` once the coordinator is back"
            ),
            false => format!("{error}; start one with `antiphon coordinator`, or name another with --coordinator"),
        })
    }
}
