//! The baseline run: the job without faults, whose digest every run should give.

use antiphon_core::event::{FinalState, JobEvent};
use antiphon_core::spec::JobSpec;
use antiphon_model::custom::Encoders;
use antiphon_model::device::DeviceChoice;
use anyhow::{Context as _, bail};
use tokio::time::Instant;

use super::report::{Line, Report};
use crate::lab::cluster::ClusterConfig;
use crate::lab::local_job::{LocalJob, reason};
use crate::progress::Progress;

/// Runs the job in this process, in a temporary folder, and returns its digest.
pub(super) async fn digest(
    spec: &JobSpec,
    (device, encoders): (DeviceChoice, &Encoders),
    report: &mut Report,
) -> anyhow::Result<String> {
    let started = Instant::now();
    let configure = |config: &mut ClusterConfig| (config.device, config.encoders) = (device, encoders.clone());
    let mut job = LocalJob::start(spec.clone(), None, configure).await?;
    let progress = Progress::new();
    let digest = until_finished(&mut job, &progress).await;
    progress.clear();
    let digest = digest.context("the job fails without faults")?;
    job.end().await;
    report.tell(&Line::Baseline { digest: &digest, seconds: started.elapsed().as_secs_f64() })?;
    Ok(digest)
}

async fn until_finished(job: &mut LocalJob, progress: &Progress) -> anyhow::Result<String> {
    loop {
        match job.next().await? {
            JobEvent::Started { turns, .. } => progress.begin_counting("baseline run", turns, "turns"),
            JobEvent::Step(step) => progress.at(step.turn.0),
            JobEvent::Finished(finished) if finished.state == FinalState::Succeeded => {
                return finished.digest.context("the job ended without a checkpoint");
            }
            JobEvent::Finished(finished) => bail!("{}", reason(finished)),
            _ => {}
        }
    }
}
