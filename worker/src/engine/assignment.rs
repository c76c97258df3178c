//! The assigned job: its trainer, and the worker's computations and answers for it.

use antiphon_core::ids::{EvaluationId, JobId, MicroShard, Term, Turn};
use antiphon_core::turn::Progress;
use antiphon_process::full_message;
use antiphon_proto::assignment::{Grant, HeadShape};
use antiphon_proto::chunks::Followed;
use antiphon_proto::evaluation::{Evaluate, LogitsChunk};
use antiphon_proto::files::FilesSaved;
use antiphon_proto::times::Learned;
use antiphon_proto::v1::{self, worker_message::Message as Answer};
use antiphon_proto::{contribution, stream};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Span, debug};

use super::status::StoreError;
use crate::checkpoint;
use crate::failure::Failure;
use crate::trainer::Trainer;

/// The assigned job.
pub(super) struct Assignment {
    pub(super) job: JobId,
    pub(super) term: Term,
    pub(super) specification: String,
    pub(super) head: HeadShape,
    /// Samples per chunk of logits.
    pub(super) chunk: usize,
    /// Whether the next forward pass runs before its grant arrives.
    pub(super) ahead: bool,
    /// Whether the last order was a grant. Otherwise the worker does not wait for the head, but for other workers,
    /// evaluations or checkpoints.
    pub(super) trains: bool,
    pub(super) trainer: Trainer,
    /// The tracing span of log messages about the job.
    pub(super) span: Span,
    /// The upload of a checkpoint's files, which is cancelled with the job.
    pub(super) upload: Option<AbortOnDropHandle<()>>,
}

/// The target of an upload of a checkpoint's files.
pub(super) struct Upload {
    pub(super) answers: mpsc::Sender<v1::WorkerMessage>,
    pub(super) stores: StoreOptions,
    pub(super) retry: RetryPolicy,
    /// The store error of the upload, which heartbeats report.
    pub(super) store_error: StoreError,
}

impl Assignment {
    pub(super) fn compute_ahead(&mut self) -> Result<(), Failure> {
        self.trainer.watch.lap(|times| &mut times.other);
        if self.ahead { Ok(self.trainer.compute_ahead()?) } else { Ok(()) }
    }

    /// Whether a message is about this job in this term. Others are late and are ignored.
    pub(super) fn is(&self, job: &str, term: u64) -> bool {
        self.job.as_str() == job && self.term.0 == term
    }

    /// Computes a granted step. The contribution is sent at once, unless the grant is a replay. Then the encoder learns
    /// from dH, and the answer reports it. There is no answer if the grant is for another job or there is no
    /// connection.
    pub(super) fn grant(
        &mut self,
        message: &v1::Grant,
        followed: Followed,
        send: impl FnOnce(Answer) -> bool,
    ) -> Result<Option<Answer>, Failure> {
        // Before decoding: the head of another job may have another shape.
        if message.turn.as_ref().is_some_and(|turn| !self.is(&turn.job, turn.term)) {
            return Ok(None);
        }
        let grant = Grant::decode(message, self.head, followed)?;
        self.trainer.watch.lap(|times| &mut times.exchange);
        let contribution = self.trainer.contribute(&grant.head)?;
        if !grant.replay {
            let answer = Answer::Contribution(contribution::encode(&grant.turn, MicroShard::WHOLE, contribution));
            if !send(answer) {
                return Ok(None);
            }
            self.trainer.watch.lap(|times| &mut times.exchange);
        }
        self.trainer.learn(&grant.head, Progress { epoch: grant.progress, epochs: grant.epochs })?;
        let times = self.trainer.watch.take();
        Ok(Some(Answer::Learned(Learned { turn: grant.turn, times }.into())))
    }

    /// Starts an evaluation.
    pub(super) fn evaluate(&mut self, message: &v1::Evaluate, followed: Followed) -> Result<(), Failure> {
        let evaluate = Evaluate::decode(message, self.head, followed)?;
        self.trainer.begin_evaluation(evaluate.evaluation, evaluate.split, evaluate.head, self.chunk);
        Ok(())
    }

    /// The next chunk of logits of the evaluation.
    pub(super) fn next_logits(&mut self, next: &v1::NextLogits) -> Result<Answer, Failure> {
        let chunk = self.trainer.next_logits(EvaluationId(next.evaluation))?;
        let rows: usize = chunk.labels.len();
        debug!(rows, last = chunk.last, "the worker has computed logits");
        self.trainer.watch.lap(|times| &mut times.other);
        let times = chunk.last.then(|| self.trainer.watch.take());
        let chunk = LogitsChunk {
            job: self.job.clone(),
            term: self.term,
            evaluation: EvaluationId(next.evaluation),
            sequence: next.sequence,
            ids: chunk.ids,
            labels: chunk.labels,
            logits: chunk.logits,
            last: chunk.last,
            times,
        };
        Ok(Answer::Logits(chunk.encode()))
    }

    /// Snapshots the files. The upload runs during the next steps.
    pub(super) fn save(
        &mut self,
        runtime: &tokio::runtime::Handle,
        save: v1::SaveFiles,
        Upload { answers, stores, retry, store_error }: Upload,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let files = self.trainer.files()?;
        let snapshot = started.elapsed();
        let (job, term) = (self.job.clone(), self.term);
        let upload = runtime.spawn(async move {
            let written = tokio::select! {
                written = checkpoint::save(&save.checkpoint, files, &stores, &retry) => written,
                // The worker that takes over the slot writes these files too. Only one worker may write them.
                () = answers.closed() => return,
            };
            // Before the answer, because later heartbeats must not report the error.
            store_error.clear();
            let answer = match written {
                Ok(files) => {
                    Answer::FilesSaved(FilesSaved { job, term, turn: Turn(save.turn), files, snapshot }.into())
                }
                Err(error) => {
                    let error = Failure::from(error);
                    let (reason, transient) = (stream::reason(&full_message(&error)), error.is_transient());
                    Answer::Failed(v1::Failed { job: save.job, term: save.term, reason, transient })
                }
            };
            // If the connection is lost, the coordinator does not wait for the answer.
            let _disconnected = answers.send(answer.into()).await;
        });
        self.upload = Some(AbortOnDropHandle::new(upload));
        Ok(())
    }
}
