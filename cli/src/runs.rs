//! Runs on this machine: their ids, their folders, and their checkpoints.

use std::path::Path;

use antiphon_core::ids::{JobId, JobName};
use antiphon_core::spec::JobSpec;
use antiphon_core::turn::Position;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, CheckpointStore, Manifest};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use anyhow::{Context as _, anyhow, bail};
use chrono::Utc;
use object_store::ObjectStore as _;

/// Returns `<name>-<date>-<time>` in UTC, with a number if that id is taken. If `state` is a folder, the folder of the
/// job is created in it, so that another run that starts in the same second gets another id. `option` is the
/// command-line option that sets `state`.
pub(crate) fn fresh_id(name: &JobName, state: &Path, option: &str) -> anyhow::Result<JobId> {
    let stamp = Utc::now().format("%Y%m%d-%H%M%S").to_string();
    let stem = format!("{}-{stamp}", stem(name));
    let candidates = std::iter::once(stem.clone()).chain((2..1000).map(|n| format!("{stem}-{n}")));
    let is_url = state.to_str().is_some_and(|state| state.contains("://"));
    let refused = |folder: &Path, error: std::io::Error| {
        let folder = folder.display();
        anyhow!("cannot create the folder `{folder}`: {error}; name a writable folder with {option}")
    };
    if !is_url {
        std::fs::create_dir_all(state).map_err(|error| refused(state, error))?;
    }
    for id in candidates {
        if is_url {
            return Ok(JobId::try_from(id)?);
        }
        let folder = state.join(&id);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused(&folder, error)),
            Ok(()) => return Ok(JobId::try_from(id)?),
        }
    }
    bail!("cannot find a free id: a thousand runs of {name} started in this second; retry")
}

/// The start of a job's name, short enough that a date, a time and a number fit into the id.
fn stem(name: &JobName) -> &str {
    // Names are ASCII.
    let text = name.as_str();
    text[..text.len().min(42)].trim_end_matches('-')
}

/// The id under which a job resumes from a checkpoint. A job that resumes from its newest checkpoint keeps its id. From
/// an older one, or in another folder, it becomes a new job.
pub(crate) async fn resumed_id(
    checkpoint: &Checkpoint,
    spec: &JobSpec,
    state: &Path,
    stores: &StoreOptions,
) -> anyhow::Result<JobId> {
    let job = checkpoint.manifest().job.clone();
    match open(&folder_of(job.as_str(), spec, state), stores).await {
        Ok(newest) if newest.url() == checkpoint.url() => Ok(job),
        _ => fresh_id(&spec.name, state, "--state"),
    }
}

/// Opens the checkpoint at a folder or URL. If that is a run, opens its newest checkpoint.
pub(crate) async fn open(url: &str, stores: &StoreOptions) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open_with(url, stores, &RetryPolicy::none()).await
}

/// Adds to the error of a checkpoint that cannot be opened what to do if it does not exist.
pub(crate) fn advised(error: CheckpointError) -> anyhow::Error {
    let CheckpointError::NoCheckpoint { url } = &error else { return error.into() };
    let remedy = "name the folder of a run, as `antiphon-runs/JOB`, or of one of its checkpoints";
    match url.contains("://") || Path::new(url).exists() {
        true => anyhow!("{error}; {remedy}"),
        false => anyhow!("there is no complete checkpoint in `{url}`: the folder does not exist; {remedy}"),
    }
}

/// Number of complete epochs in a checkpoint. The manifest counts epochs from 0, and stays in an epoch after its last
/// turn.
pub(crate) fn complete_epochs(manifest: &Manifest) -> u64 {
    let position: Option<Position> = serde_json::from_value(manifest.state.clone()).ok();
    let at_end = position.is_some_and(|at| at.turn_in_epoch > 0 && at.turn_in_epoch == at.plan.turns());
    manifest.epoch + u64::from(at_end)
}

/// The folder or URL of a job's state: `<state>/<id>`, or `<to>/jobs/<id>` in the store that the job names.
pub(crate) fn folder_of(job: &str, spec: &JobSpec, state: &Path) -> String {
    match &spec.checkpoints.to {
        None => state.join(job).display().to_string(),
        Some(to) => format!("{}/jobs/{job}", to.trim_end_matches('/')),
    }
}

/// The newest checkpoint of the latest run of this name that has one.
pub(crate) async fn newest_run(spec: &JobSpec, state: &Path, stores: &StoreOptions) -> anyhow::Result<String> {
    let none = || {
        let (name, place) = (&spec.name, folder_of("", spec, state));
        anyhow!("no run of `{name}` in {place} has a checkpoint; leave out --resume to start one, or name a checkpoint")
    };
    if spec.checkpoints.to.is_none() && !state.exists() {
        return Err(none());
    }
    let runs = stores.open(folder_of("", spec, state).trim_end_matches('/'))?;
    let listed = runs.objects().list_with_delimiter(Some(runs.prefix())).await;
    let listed = listed.with_context(|| format!("cannot list {}", runs.url()))?;
    let mut names: Vec<String> =
        listed.common_prefixes.iter().filter_map(|run| Some(run.filename()?.to_owned())).collect();
    names.retain(|name| name.starts_with(stem(&spec.name)));
    names.sort();
    for name in names.iter().rev() {
        let newest = CheckpointStore::new(&runs.child(name)).newest().await?;
        // The name of another job may start with this job's name.
        if let Some(checkpoint) = newest.filter(|c| c.manifest().specification["name"] == spec.name.as_str()) {
            return Ok(checkpoint.url());
        }
    }
    Err(none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_new_and_valid_folder_names() {
        let state = tempfile::tempdir().expect("a folder");
        let name = JobName::try_from("x".repeat(63)).expect("a name");
        let first = fresh_id(&name, state.path(), "--state").expect("an id");
        assert!(first.as_str().len() <= 63);
        assert!(state.path().join(first.as_str()).is_dir(), "it is taken");
        assert_ne!(fresh_id(&name, state.path(), "--state").expect("another"), first);
        let file = state.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let error = fresh_id(&name, &file, "--state").expect_err("it is no folder").to_string();
        assert!(error.ends_with("; name a writable folder with --state"), "{error}");
    }
}
