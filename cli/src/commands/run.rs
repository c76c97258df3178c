//! `antiphon run JOB.yaml`: a coordinator and one worker per modality in this process, over real loopback gRPC.

use std::path::{Path, PathBuf};
use std::time::Duration;

use antiphon_core::ids::{JobId, JobName};
use antiphon_core::spec::{JobSpec, Override};
use antiphon_proto::v1::SubmitJobRequest;
use antiphon_store::checkpoints::Checkpoint;
use anyhow::{Context as _, anyhow};
use chrono::Utc;

use super::check;
use crate::client::Client;
use crate::cluster::{Cluster, ClusterConfig};
use crate::exit::{Exit, OrExit as _};
use crate::follow::{self, OnInterrupt};
use crate::output::Format;

/// Train a job here: a coordinator and one worker per modality in this process
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  antiphon run examples/spoken-digits.yaml
  antiphon run job.yaml --set head.projection=off --set schedule.epochs=5
  antiphon run job.yaml --resume                  go on where the last run of this job stopped
  antiphon run job.yaml --resume antiphon-runs/JOB/checkpoints/00000300

Ctrl-C stops at the next turn boundary, writes a checkpoint and says how to go on; a second Ctrl-C ends at once.")]
pub struct RunArgs {
    /// The job file, YAML or JSON; `-` is standard input
    pub job: PathBuf,

    /// Set one field, as in `--set schedule.epochs=3`; may be given again
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<Override>,

    /// Go on from a checkpoint: its folder or URL, the folder of a run, or nothing for the newest run of this job
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1, default_missing_value = "")]
    pub resume: Option<String>,

    /// Folder of the runs' state, unless the job names a store
    #[arg(long, env = "ANTIPHON_STATE", default_value = "./antiphon-runs", value_name = "DIR")]
    pub state: PathBuf,

    /// Threads that decode samples ahead, per modality
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub decode_threads: usize,

    /// Mebibytes of undecoded samples kept in memory per modality and split; what is beyond goes to a temporary file
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    pub data_memory: u64,
}

/// Runs a job to its end.
///
/// # Errors
/// A bad job file or checkpoint, or a part of the system that fails.
pub async fn run(args: RunArgs, format: Format) -> anyhow::Result<Exit> {
    let (spec, _) = check::load(&args.job, &args.set).or_exit(Exit::Usage)?;
    let resume = match args.resume.as_deref() {
        None => None,
        Some("") => Some(newest_run(&args.state, &spec.name).or_exit(Exit::Usage)?),
        Some(given) => Some(given.to_owned()),
    };
    let (job, resume) = match resume {
        None => (fresh_id(&spec.name, &args.state)?, None),
        Some(url) => {
            let checkpoint = Checkpoint::open_url(&url).await.or_exit(Exit::Usage)?;
            (resumed_id(&checkpoint, &spec, &args.state).await?, Some(checkpoint.url()))
        }
    };
    let mut cluster = Cluster::start(ClusterConfig {
        state: args.state.display().to_string(),
        modalities: spec.modalities.iter().map(|m| m.name.clone()).collect(),
        decode_threads: args.decode_threads.max(1),
        data_memory: args.data_memory << 20,
    })
    .await?;
    let mut client = Client::connect(&cluster.url(), Duration::from_secs(10)).await?;
    let request = SubmitJobRequest { specification: spec.to_json(), job: Some(job.to_string()), resume };
    let job = client.submit(request).await?;
    let how_to_go_on = || {
        let file = args.job.display();
        let set: String = args.set.iter().map(|change| format!(" --set '{change}'")).collect();
        format!("antiphon run {file}{set} --resume {}", args.state.join(&job).display())
    };
    let following = follow::follow(&mut client, &job, &spec, format, OnInterrupt::Stop(how_to_go_on()));
    let exit = tokio::select! {
        exit = following => exit?,
        failed = cluster.failed() => {
            return Err(failed.err().unwrap_or_else(|| anyhow!("a part of the run ended before the job did")));
        }
    };
    if exit != Exit::Interrupted {
        cluster.stop().await;
    }
    Ok(exit)
}

/// `<name>-<date>-<time>` in UTC, with a number where that is taken.
fn fresh_id(name: &JobName, state: &Path) -> anyhow::Result<JobId> {
    let stamp = Utc::now().format("%Y%m%d-%H%M%S").to_string();
    let stem: String = name.as_str().chars().take(63 - stamp.len() - 5).collect();
    let stem = format!("{}-{stamp}", stem.trim_end_matches('-'));
    let candidates = std::iter::once(stem.clone()).chain((2..1000).map(|n| format!("{stem}-{n}")));
    let free = candidates.into_iter().find(|id| !state.join(id).exists());
    Ok(JobId::try_from(free.context("a thousand runs began in this very second")?)?)
}

/// The job that a checkpoint belongs to goes on under its own id, from its newest checkpoint; from an older one, or into
/// another folder, it becomes a job of its own.
async fn resumed_id(checkpoint: &Checkpoint, spec: &JobSpec, state: &Path) -> anyhow::Result<JobId> {
    let job = checkpoint.manifest().job.clone();
    let folder = match &spec.checkpoints.to {
        None => state.join(job.as_str()).display().to_string(),
        Some(to) => format!("{}/jobs/{job}", to.trim_end_matches('/')),
    };
    match Checkpoint::open_url(&folder).await {
        Ok(newest) if newest.url() == checkpoint.url() => Ok(job),
        _ => fresh_id(&spec.name, state),
    }
}

/// The folder of the run of this name that was started last and has a checkpoint.
fn newest_run(state: &Path, name: &JobName) -> anyhow::Result<String> {
    let prefix = format!("{name}-");
    let entries = std::fs::read_dir(state)
        .with_context(|| format!("there are no runs in {}; leave out --resume to start one", state.display()))?;
    let mut runs: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|f| f.to_string_lossy().starts_with(&prefix)))
        .filter(|path| has_checkpoint(path))
        .collect();
    runs.sort();
    let newest = runs.pop().with_context(|| {
        let state = state.display();
        format!("no run of `{name}` in {state} has a checkpoint; leave out --resume to start one, or name a checkpoint")
    })?;
    Ok(newest.display().to_string())
}

fn has_checkpoint(run: &Path) -> bool {
    let folders = std::fs::read_dir(run.join("checkpoints"));
    folders.is_ok_and(|mut folders| {
        folders.any(|folder| folder.is_ok_and(|folder| folder.path().join("manifest.json").exists()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_new_and_fit_for_folders() {
        let state = tempfile::tempdir().expect("a folder");
        let name = JobName::try_from("x".repeat(63)).expect("a name");
        let first = fresh_id(&name, state.path()).expect("an id");
        assert!(first.as_str().len() <= 63);
        std::fs::create_dir(state.path().join(first.as_str())).expect("a run");
        assert_ne!(fresh_id(&name, state.path()).expect("another"), first);
    }
}
