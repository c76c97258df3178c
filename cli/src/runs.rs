//! Runs on this machine: their ids, their folders, and their newest checkpoints.

use std::path::Path;

use antiphon_core::ids::{JobId, JobName};
use antiphon_core::spec::JobSpec;
use antiphon_store::checkpoints::{Checkpoint, CheckpointError, CheckpointStore};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use anyhow::{Context as _, anyhow};
use chrono::Utc;
use object_store::ObjectStore as _;

/// `<name>-<date>-<time>` in UTC, with a number if that is taken. If `state` is a folder, the folder of the job is created in it,
/// so that another run which starts in the same second gets another id.
pub(crate) fn fresh_id(name: &JobName, state: &Path) -> anyhow::Result<JobId> {
    let stamp = Utc::now().format("%Y%m%d-%H%M%S").to_string();
    let stem = format!("{}-{stamp}", stem(name));
    let candidates = std::iter::once(stem.clone()).chain((2..1000).map(|n| format!("{stem}-{n}")));
    let is_url = state.to_str().is_some_and(|state| state.contains("://"));
    for id in candidates {
        if is_url {
            return Ok(JobId::try_from(id)?);
        }
        let folder = state.join(&id);
        let made = std::fs::create_dir_all(state).and_then(|()| std::fs::create_dir(&folder));
        match made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => {
                made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
                return Ok(JobId::try_from(id)?);
            }
        }
    }
    anyhow::bail!("a thousand runs of {name} started in this second; start this one again")
}

/// As much of a job's name as leaves space for a date, a time and a number.
fn stem(name: &JobName) -> &str {
    // Names are ASCII.
    let text = name.as_str();
    text[..text.len().min(42)].trim_end_matches('-')
}

/// From its newest checkpoint, a job resumes under its id. From an older one, or in another folder, it becomes a new job.
pub(crate) async fn resumed_id(
    checkpoint: &Checkpoint,
    spec: &JobSpec,
    state: &Path,
    stores: &StoreOptions,
) -> anyhow::Result<JobId> {
    let job = checkpoint.manifest().job.clone();
    match open(&folder_of(job.as_str(), spec, state), stores).await {
        Ok(newest) if newest.url() == checkpoint.url() => Ok(job),
        _ => fresh_id(&spec.name, state),
    }
}

/// The checkpoint at a folder or URL, or the newest of a run.
pub(crate) async fn open(url: &str, stores: &StoreOptions) -> Result<Checkpoint, CheckpointError> {
    Checkpoint::open_with(url, stores, &RetryPolicy::none()).await
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
        // The name of another job may begin like this one's.
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
        let first = fresh_id(&name, state.path()).expect("an id");
        assert!(first.as_str().len() <= 63);
        assert!(state.path().join(first.as_str()).is_dir(), "it is taken");
        assert_ne!(fresh_id(&name, state.path()).expect("another"), first);
    }
}
