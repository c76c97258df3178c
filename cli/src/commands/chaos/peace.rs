//! The job left in peace: what it should come to.

use antiphon_core::event::{FinalState, JobEvent};
use antiphon_core::spec::JobSpec;
use antiphon_model::device::DeviceChoice;
use antiphon_proto::v1::SubmitJobRequest;
use antiphon_store::storage::StoreOptions;
use anyhow::{Context as _, anyhow, bail};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::report::{Line, Report};
use crate::client::Client;
use crate::cluster::{Cluster, ClusterConfig, STORE_PATIENCE};
use crate::exit::{Exit, OrExit as _};
use crate::predictor::Progress;
use crate::submission;

/// Runs the job in this process, in a folder that is gone afterwards. Its digest.
pub(super) async fn digest(spec: &JobSpec, device: DeviceChoice, report: &mut Report) -> anyhow::Result<String> {
    let begun = Instant::now();
    let state = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut spec = spec.clone();
    spec.checkpoints.to = None;
    let mut cluster = Cluster::start(ClusterConfig {
        state: state.path().display().to_string(),
        modalities: spec.modalities.iter().map(|modality| modality.name.clone()).collect(),
        decode_threads: 1,
        data_memory: 256 << 20,
        head_memory: 4096 << 20,
        head_threads: 0,
        stores: StoreOptions::default(),
        store_patience: STORE_PATIENCE,
        device,
    })
    .await?;
    let mut client = Client::of_own(&cluster.url())?;
    let request = submission::request(&spec, None, None);
    let progress = Progress::new();
    let digest = tokio::select! {
        digest = follow(&mut client, request, &progress) => digest,
        failed = cluster.failed() => Err(failed.err().unwrap_or_else(|| anyhow!("a part ended before the job did"))),
    };
    progress.clear();
    let digest = digest.context("the job fails without any fault")?;
    cluster.stop().await;
    report.tell(&Line::Peace { digest: &digest, seconds: begun.elapsed().as_secs_f64() })?;
    Ok(digest)
}

async fn follow(client: &mut Client, request: SubmitJobRequest, progress: &Progress) -> anyhow::Result<String> {
    let job = client.submit(request).await?;
    let mut events = client.watch(&job, 0).await?;
    while let Some(event) = events.next().await {
        match event?.event {
            JobEvent::Started { turns, .. } => progress.begin_counting("in peace", turns, "turns"),
            JobEvent::Step(step) => progress.at(step.turn.0),
            JobEvent::Finished(finished) if finished.state == FinalState::Succeeded => {
                return finished.digest.context("it ended without a checkpoint");
            }
            JobEvent::Finished(finished) => bail!("{}", finished.reason.unwrap_or_else(|| "it was stopped".to_owned())),
            _ => {}
        }
    }
    Err(anyhow!("the coordinator ended the events of {job}")).or_exit(Exit::Unreachable)
}
