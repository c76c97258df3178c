//! A job in turns, as `antiphon run` runs it, and its last evaluation.

use antiphon_core::event::{FinalState, JobEvent};
use antiphon_core::ids::Split;
use antiphon_core::metrics::EvaluationReport;
use antiphon_core::spec::{Every, JobSpec};
use antiphon_model::custom::Encoders;
use antiphon_process::Interrupts;
use anyhow::{Context as _, bail};

use crate::lab::local_job::{LocalJob, reason};
use crate::progress::Progress;

/// Runs a job to its end in this process, in a temporary folder, and returns the last report on a split. The validation
/// split is evaluated once. None after Ctrl-C.
///
/// # Errors
/// The job, the coordinator or a worker fails.
pub(super) async fn run(
    spec: &JobSpec,
    split: Split,
    (data_memory, encoders): (u64, &Encoders),
    progress: &Progress,
) -> anyhow::Result<Option<EvaluationReport>> {
    let mut spec = spec.clone();
    (spec.checkpoints.every, spec.checkpoints.keep) = (Every::End, 1);
    spec.evaluation.every = Every::End;
    let mut interrupts = Interrupts::listen()?;
    let starting = LocalJob::start(spec.clone(), None, |config| {
        (config.data_memory, config.head_memory) = (data_memory, u64::MAX);
        config.encoders = encoders.clone();
    });
    let mut job = starting.await?;
    let report = tokio::select! {
        report = last_report(&mut job, &spec, split, progress) => report?,
        () = interrupts.next() => return Ok(None),
    };
    job.end().await;
    Ok(Some(report))
}

async fn last_report(
    job: &mut LocalJob,
    spec: &JobSpec,
    split: Split,
    progress: &Progress,
) -> anyhow::Result<EvaluationReport> {
    let mut last = None;
    let mut rows = 0;
    loop {
        match job.next().await? {
            JobEvent::Started { turns, .. } => {
                let per_turn = u64::from(spec.schedule.turn_batches) * u64::from(spec.schedule.batch);
                progress.begin("training in turns", turns * per_turn);
            }
            JobEvent::Step(_) => {
                rows += u64::from(spec.schedule.batch);
                progress.at(rows);
            }
            JobEvent::Evaluated { report, .. } if report.split == split => last = Some(report),
            JobEvent::Finished(finished) if finished.state == FinalState::Succeeded => {
                return last.with_context(|| format!("the job ended without a report on the {split} split"));
            }
            JobEvent::Finished(finished) => bail!("training in turns failed: {}", reason(finished)),
            _ => {}
        }
    }
}
