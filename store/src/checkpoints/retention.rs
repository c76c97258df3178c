//! Which checkpoints are kept, and what is cleared away.

use std::collections::BTreeSet;

use antiphon_core::ids::Turn;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;

use super::{CheckpointError, CheckpointStore, MANIFEST};

impl CheckpointStore {
    /// Keeps the newest `keep` complete checkpoints and `best`, and removes the other complete ones; returns which.
    ///
    /// # Errors
    /// The store does not answer. What was removed stays removed; calling it again goes on.
    pub async fn retain(&self, keep: usize, best: Option<Turn>) -> Result<Vec<Turn>, CheckpointError> {
        let complete = self.list().await?;
        let old = &complete[..complete.len().saturating_sub(keep.max(1))];
        let removed: Vec<Turn> = old.iter().copied().filter(|turn| Some(*turn) != best).collect();
        let objects = self.objects().await?;
        for turn in &removed {
            // The manifest first: half a checkpoint must not look like a whole one.
            let manifest = self.place(*turn).object(MANIFEST);
            self.delete(vec![manifest.clone()]).await?;
            let parts = objects.iter().filter(|(path, of, _)| of == turn && *path != manifest);
            self.delete(parts.map(|(path, _, _)| path.clone()).collect()).await?;
        }
        Ok(removed)
    }

    /// Removes what no manifest names: parts of checkpoints that were never completed and are older than the newest
    /// complete one, and strangers inside complete ones. `in_progress` is left alone. Returns how many objects went.
    ///
    /// # Errors
    /// The store does not answer, or a manifest is not one: then nothing is removed.
    pub async fn collect_garbage(&self, in_progress: Option<Turn>) -> Result<usize, CheckpointError> {
        let objects = self.objects().await?;
        let complete: BTreeSet<Turn> =
            objects.iter().filter(|(_, _, name)| name == MANIFEST).map(|(_, turn, _)| *turn).collect();
        let Some(newest) = complete.last() else { return Ok(0) };
        let mut named = BTreeSet::new();
        for turn in &complete {
            let manifest = self.open(*turn).await?.manifest;
            named.extend(manifest.parts.into_keys().map(|part| (*turn, part)));
        }
        let garbage = objects.into_iter().filter(|(_, turn, name)| {
            turn <= newest && Some(*turn) != in_progress && name != MANIFEST && !named.contains(&(*turn, name.clone()))
        });
        let garbage: Vec<Path> = garbage.map(|(path, _, _)| path).collect();
        let count = garbage.len();
        self.delete(garbage).await?;
        Ok(count)
    }

    async fn delete(&self, paths: Vec<Path>) -> Result<(), CheckpointError> {
        for path in paths {
            match self.folder.objects().delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => {
                    return Err(CheckpointError::Request { doing: "remove", url: path.to_string(), source });
                }
            }
        }
        Ok(())
    }
}
