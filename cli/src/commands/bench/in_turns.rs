//! A job in turns, as `antiphon run` runs it, for what it comes to.

use antiphon_core::event::{FinalState, JobEvent};
use antiphon_core::ids::Split;
use antiphon_core::metrics::EvaluationReport;
use antiphon_core::spec::{CheckpointSpec, Every, JobSpec};
use antiphon_model::device::DeviceChoice;
use antiphon_process::Interrupts;
use antiphon_proto::v1::SubmitJobRequest;
use antiphon_store::storage::StoreOptions;
use anyhow::{Context as _, anyhow, bail};
use tokio_stream::StreamExt as _;

use crate::client::Client;
use crate::cluster::{Cluster, ClusterConfig, STORE_PATIENCE};
use crate::exit::{Exit, OrExit as _};
use crate::predictor::Progress;

/// Runs a job to its end, with a coordinator and its workers in this process, and gives the last report on a split. Its state
/// is kept in a temporary folder, and it is gone through its validation split once. None if it was interrupted.
///
/// # Errors
/// The job fails, or a part of the system does.
pub(super) async fn run(
    spec: &JobSpec,
    split: Split,
    data_memory: u64,
    progress: &Progress,
) -> anyhow::Result<Option<EvaluationReport>> {
    let state = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut spec = spec.clone();
    spec.checkpoints = CheckpointSpec { to: None, every: Every::End, keep: 1 };
    spec.evaluation.every = Every::End;
    let mut interrupts = Interrupts::listen()?;
    let mut cluster = Cluster::start(ClusterConfig {
        state: state.path().display().to_string(),
        modalities: spec.modalities.iter().map(|modality| modality.name.clone()).collect(),
        decode_threads: 1,
        data_memory,
        head_memory: u64::MAX,
        head_threads: 0,
        stores: StoreOptions::default(),
        store_patience: STORE_PATIENCE,
        device: DeviceChoice::Cpu,
    })
    .await?;
    let mut client = Client::of_own(&cluster.url())?;
    let report = tokio::select! {
        report = follow(&mut client, &spec, split, progress) => report.map(Some)?,
        () = interrupts.next() => None,
        failed = cluster.failed() => {
            return Err(failed.err().unwrap_or_else(|| anyhow!("a part of the run ended before the job did")));
        }
    };
    if report.is_some() {
        cluster.stop().await;
    }
    Ok(report)
}

async fn follow(
    client: &mut Client,
    spec: &JobSpec,
    split: Split,
    progress: &Progress,
) -> anyhow::Result<EvaluationReport> {
    let request = SubmitJobRequest { specification: spec.to_json(), ..Default::default() };
    let job = client.submit(request).await?;
    let mut events = client.watch(&job, 0).await?;
    let mut last = None;
    let mut rows = 0;
    while let Some(event) = events.next().await {
        match event?.event {
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
            JobEvent::Finished(finished) => {
                bail!("training in turns failed: {}", finished.reason.as_deref().unwrap_or("it was stopped"));
            }
            _ => {}
        }
    }
    Err(anyhow!("the coordinator ended the events of {job}")).or_exit(Exit::Unreachable)
}
