//! Which checkpoints are kept, and what is cleared away.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path as FilePath, PathBuf};

use antiphon_core::ids::Turn;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _};
use tracing::warn;

use super::{CheckpointError, CheckpointStore, MANIFEST, turn_of};
use crate::uploads::{LARGEST_MARKER, Marker};

impl CheckpointStore {
    /// Keeps the newest `keep` complete checkpoints (one at least), `best`, and those of `in_use`, which somebody is loading
    /// from, and removes the other complete ones; returns which.
    ///
    /// # Errors
    /// The store does not answer. What was removed stays removed; calling it again goes on, and what is left of a
    /// checkpoint that was being removed is for [`Self::collect_garbage`].
    pub async fn retain(
        &self,
        keep: usize,
        best: Option<Turn>,
        in_use: &BTreeSet<Turn>,
    ) -> Result<Vec<Turn>, CheckpointError> {
        let complete = self.list().await?;
        let old = &complete[..complete.len().saturating_sub(keep.max(1))];
        let wanted = |turn: &Turn| Some(*turn) == best || in_use.contains(turn);
        let removed: Vec<Turn> = old.iter().copied().filter(|turn| !wanted(turn)).collect();
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
    /// complete one, strangers inside complete ones, uploads that a killed process began, and in a local folder files that it
    /// was writing. The checkpoints of `in_progress` are left alone, complete or not. Returns how many objects and files went.
    ///
    /// # Errors
    /// The store does not answer, or a manifest is not one: then nothing is removed.
    pub async fn collect_garbage(&self, in_progress: &BTreeSet<Turn>) -> Result<usize, CheckpointError> {
        self.collect(in_progress, |turn, newest| newest.is_some_and(|newest| turn <= newest)).await
    }

    /// As [`Self::collect_garbage`], and parts of checkpoints beyond the newest complete one too: for whoever is alone here and
    /// writes nothing.
    ///
    /// # Errors
    /// As [`Self::collect_garbage`].
    pub async fn collect_all_garbage(&self) -> Result<usize, CheckpointError> {
        self.collect(&BTreeSet::new(), |_, _| true).await
    }

    async fn collect(
        &self,
        in_progress: &BTreeSet<Turn>,
        is_old: impl Fn(Turn, Option<Turn>) -> bool,
    ) -> Result<usize, CheckpointError> {
        let objects = self.objects().await?;
        let complete: BTreeSet<Turn> =
            objects.iter().filter(|(_, _, name)| name == MANIFEST).map(|(_, turn, _)| *turn).collect();
        let newest = complete.last().copied();
        let mut named = BTreeSet::new();
        for turn in complete.difference(in_progress) {
            let manifest = self.open(*turn).await?.manifest;
            named.extend(manifest.parts.into_keys().map(|part| (*turn, part)));
        }
        let forsaken = |turn: &Turn| is_old(*turn, newest) && !in_progress.contains(turn);
        let garbage = objects
            .into_iter()
            .filter(|(_, turn, name)| forsaken(turn) && name != MANIFEST && !named.contains(&(*turn, name.clone())));
        let garbage: Vec<Path> = garbage.map(|(path, _, _)| path).collect();
        let count = self.delete(garbage).await?;
        Ok(count + self.remove_half_written(forsaken).await?)
    }

    /// A local folder's objects are written beside their place and then moved there; those that never were are no objects.
    async fn remove_half_written(&self, forsaken: impl Fn(&Turn) -> bool) -> Result<usize, CheckpointError> {
        let Some(folder) = self.folder.local_folder() else { return Ok(0) };
        let failed = |source: io::Error| {
            let source = object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(source) };
            CheckpointError::Request { doing: "remove what was half written in", url: self.url(), source }
        };
        let found = tokio::task::spawn_blocking(move || half_written(&folder)).await;
        let found = found.map_err(io::Error::other).and_then(|found| found).map_err(failed)?;
        let mut count = 0;
        for (_, file) in found.into_iter().filter(|(turn, _)| forsaken(turn)) {
            match tokio::fs::remove_file(&file).await {
                Ok(()) => count += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
            if let Some(folder) = file.parent() {
                // It goes with its last file; while there is another, that is an error.
                let _ = tokio::fs::remove_dir(folder).await;
            }
        }
        Ok(count)
    }

    /// Removes objects, and with a marker the upload that it names; returns how many.
    async fn delete(&self, paths: Vec<Path>) -> Result<usize, CheckpointError> {
        // An upload that must not be aborted by these credentials is no reason to keep the rest.
        let (markers, others): (Vec<Path>, Vec<Path>) =
            paths.into_iter().partition(|path| path.filename().is_some_and(Marker::is_called));
        let mut count = others.len();
        for path in &others {
            self.delete_object(path).await?;
        }
        for path in &markers {
            if let Some(marker) = self.marker(path).await? {
                self.abort(&marker, path).await?;
                self.delete_object(path).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn delete_object(&self, path: &Path) -> Result<(), CheckpointError> {
        let deleted = self.patience.keep_trying(path.as_ref(), || async move {
            match self.folder.objects().delete(path).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(source) => Err(self.failed("remove", path, source)),
            }
        });
        deleted.await
    }

    async fn abort(&self, marker: &Marker, path: &Path) -> Result<(), CheckpointError> {
        // Where nothing has to be aborted, a folder was copied from where something had.
        let Some(uploads) = self.folder.uploads() else { return Ok(()) };
        let aborted = self.patience.keep_trying(path.as_ref(), || async move {
            marker.abort(uploads, path).await.map_err(|source| self.failed("abort the upload named by", path, source))
        });
        aborted.await
    }

    /// None where it has gone meanwhile, and where it is not one: then it stays where it is, because an upload may be lost with it.
    async fn marker(&self, path: &Path) -> Result<Option<Marker>, CheckpointError> {
        let read = self.patience.keep_trying(path.as_ref(), || async move {
            let read = async {
                let found = self.folder.objects().get(path).await?;
                let size = found.meta.size;
                if size > LARGEST_MARKER {
                    Ok(Err(format!("it has {size} bytes")))
                } else {
                    found.bytes().await.map(Ok)
                }
            };
            match read.await {
                Err(Error::NotFound { .. }) => Ok(None),
                read => read.map(Some).map_err(|source| self.failed("read", path, source)),
            }
        });
        let Some(read) = read.await? else { return Ok(None) };
        let marker = read.and_then(|bytes| Marker::from_json(&bytes));
        let told =
            |reason: &String| warn!(%path, reason, "this is called like the marker of an upload, but it is none");
        Ok(marker.inspect_err(told).ok())
    }

    fn failed(&self, doing: &'static str, path: &Path, source: Error) -> CheckpointError {
        CheckpointError::Request { doing, url: self.folder.url_of(path), source }
    }
}

/// The files `<name>#<number>` in the folders of checkpoints: so the local store calls what it has not finished.
fn half_written(folder: &FilePath) -> io::Result<Vec<(Turn, PathBuf)>> {
    let mut found = Vec::new();
    for checkpoint in entries(folder)? {
        let turn = checkpoint.file_name().and_then(|name| turn_of(name.to_str()?));
        let Some(turn) = turn.filter(|_| checkpoint.is_dir()) else { continue };
        found.extend(entries(&checkpoint)?.into_iter().filter(|file| is_half_written(file)).map(|file| (turn, file)));
    }
    Ok(found)
}

fn is_half_written(file: &FilePath) -> bool {
    let name = file.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| Some(name.split_once('#')?.1));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// What lies in a folder; nothing where there is none.
fn entries(folder: &FilePath) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
