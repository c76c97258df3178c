//! Which checkpoints are retained, and which objects are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path as FilePath, PathBuf};

use antiphon_core::ids::Turn;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _};
use tracing::warn;

use super::checkpoint::Checkpoint;
use super::error::CheckpointError;
use super::manifest::MANIFEST;
use super::store::{CheckpointStore, turn_of};
use crate::retry::Transient as _;
use crate::uploads::{LARGEST_MARKER, Marker};

impl CheckpointStore {
    /// Removes complete checkpoints, except the newest `keep` (at least one), `best`, and those in `in_use`, from which
    /// workers load. Returns the removed turns.
    ///
    /// # Errors
    /// If the store does not answer. Another call continues. [`Self::collect_garbage`] removes remaining files of a
    /// checkpoint.
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
            // The manifest first, so that half a checkpoint does not look complete.
            let manifest = self.checkpoint_folder(*turn).object(MANIFEST);
            self.delete(vec![manifest.clone()]).await?;
            let files = objects.iter().filter(|(path, of, _)| of == turn && *path != manifest);
            self.delete(files.map(|(path, _, _)| path.clone()).collect()).await?;
        }
        Ok(removed)
    }

    /// Removes objects that no manifest names: files of incomplete checkpoints older than the newest complete one,
    /// extra files in complete ones, uploads of killed processes, and their temporary files in a local folder.
    /// Checkpoints in `in_progress` are not touched, complete or not. Returns the number of removed objects and files.
    ///
    /// # Errors
    /// If the store does not answer, or a manifest cannot be read. In the latter case nothing is removed.
    pub async fn collect_garbage(&self, in_progress: &BTreeSet<Turn>) -> Result<usize, CheckpointError> {
        self.collect(in_progress, |turn, newest| newest.is_some_and(|newest| turn <= newest)).await
    }

    /// As [`Self::collect_garbage`], but also removes files of incomplete checkpoints that are newer than the newest
    /// complete one. The caller must be the only user of the folder, and must not be writing.
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
            named.extend(manifest.files.into_keys().map(|file| (*turn, file)));
        }
        let abandoned = |turn: &Turn| is_old(*turn, newest) && !in_progress.contains(turn);
        let mut garbage: BTreeMap<Turn, Vec<(Path, String)>> = BTreeMap::new();
        for (path, turn, name) in objects {
            if abandoned(&turn) && name != MANIFEST && !named.contains(&(turn, name.clone())) {
                garbage.entry(turn).or_default().push((path, name));
            }
        }
        let (mut count, mut failed) = (0, None);
        for (turn, mut objects) in garbage {
            if !complete.contains(&turn) {
                self.retain_completed_meanwhile(turn, &mut objects).await?;
            }
            match self.delete(objects.into_iter().map(|(path, _)| path).collect()).await {
                Ok(removed) => count += removed,
                Err(error) if error.is_transient() => return Err(error),
                // An upload that cannot be aborted does not prevent other removals.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let half_written = self.remove_half_written(abandoned).await?;
        failed.map_or(Ok(count + half_written), Err)
    }

    /// Retains objects of a manifest that another coordinator has written since they were listed.
    async fn retain_completed_meanwhile(
        &self,
        turn: Turn,
        objects: &mut Vec<(Path, String)>,
    ) -> Result<(), CheckpointError> {
        match self.open(turn).await {
            Ok(Checkpoint { manifest, .. }) => objects.retain(|(_, name)| !manifest.files.contains_key(name)),
            Err(CheckpointError::NoCheckpoint { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes temporary files. A local store writes an object to a temporary file beside it and then renames that
    /// file.
    async fn remove_half_written(&self, abandoned: impl Fn(&Turn) -> bool) -> Result<usize, CheckpointError> {
        let Some(folder) = self.folder.local_folder() else { return Ok(0) };
        let failed = |source: io::Error| {
            let source = object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(source) };
            CheckpointError::Request { doing: "remove temporary files in", url: self.url(), source }
        };
        let found = tokio::task::spawn_blocking(move || half_written(&folder)).await;
        let found = found.map_err(io::Error::other).and_then(|found| found).map_err(failed)?;
        let mut count = 0;
        for (_, file) in found.into_iter().filter(|(turn, _)| abandoned(turn)) {
            match tokio::fs::remove_file(&file).await {
                Ok(()) => count += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
            if let Some(folder) = file.parent() {
                // This fails while the folder has other files.
                let _ = tokio::fs::remove_dir(folder).await;
            }
        }
        Ok(count)
    }

    /// Removes objects, and for a marker also its upload. Returns their number.
    async fn delete(&self, paths: Vec<Path>) -> Result<usize, CheckpointError> {
        // An upload that these credentials may not abort does not prevent the removal of other objects and uploads.
        let (markers, others): (Vec<Path>, Vec<Path>) =
            paths.into_iter().partition(|path| path.filename().is_some_and(Marker::is_named));
        let mut count = others.len();
        for path in &others {
            self.delete_object(path).await?;
        }
        let mut failed = None;
        for path in &markers {
            match self.delete_marker(path).await {
                Ok(removed) => count += usize::from(removed),
                // The store does not answer, so the next request would fail too.
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(count), Err)
    }

    /// Removes a marker and its upload. Returns whether it existed and is a marker.
    async fn delete_marker(&self, path: &Path) -> Result<bool, CheckpointError> {
        let Some(marker) = self.marker(path).await? else { return Ok(false) };
        self.abort(&marker, path).await?;
        self.delete_object(path).await?;
        Ok(true)
    }

    async fn delete_object(&self, path: &Path) -> Result<(), CheckpointError> {
        match self.folder.objects().delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed("remove", path, source)),
        }
    }

    async fn abort(&self, marker: &Marker, path: &Path) -> Result<(), CheckpointError> {
        // The store has no uploads by id: the folder was copied from a store that has them.
        let Some(uploads) = self.folder.uploads() else { return Ok(()) };
        let aborted = self.retry.run(path.as_ref(), || async move {
            marker.abort(uploads, path).await.map_err(|source| self.failed("abort the upload named by", path, source))
        });
        aborted.await
    }

    /// The marker at `path`. None if it was removed in the meantime, or is not a marker. An invalid marker stays,
    /// because a person may need it to abort an upload.
    async fn marker(&self, path: &Path) -> Result<Option<Marker>, CheckpointError> {
        let read = async {
            let size = self.folder.objects().head(path).await?.size;
            if size > LARGEST_MARKER {
                return Ok(Err(format!("it has {size} bytes")));
            }
            self.folder.objects().get(path).await?.bytes().await.map(Ok)
        };
        let read = match read.await {
            Err(Error::NotFound { .. }) => return Ok(None),
            read => read.map_err(|source| self.failed("read", path, source))?,
        };
        let marker = read.and_then(|bytes| Marker::from_json(&bytes));
        let told = |reason: &String| {
            warn!(%path, reason, "an object has the name of an upload marker but is not a valid \
                                  marker; it is not removed")
        };
        Ok(marker.inspect_err(told).ok())
    }

    fn failed(&self, doing: &'static str, path: &Path, source: Error) -> CheckpointError {
        CheckpointError::Request { doing, url: self.folder.url_of(path), source }
    }
}

/// The files `<name>#<number>` in the folders of checkpoints, which are the local store's temporary files.
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

/// The entries of a folder; none if it does not exist.
fn entries(folder: &FilePath) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use std::sync::Arc;

    use antiphon_core::ids::{JobId, Term};
    use async_trait::async_trait;
    use bytes::Bytes;
    use futures::TryStreamExt as _;
    use object_store::multipart::{MultipartStore, PartId};
    use object_store::{MultipartId, ObjectStore as _, PutPayload, PutResult};

    use super::super::manifest::{FORMAT, Manifest};
    use super::*;
    use crate::multipart::Uploads;
    use crate::retry::RetryPolicy;
    use crate::storage::Store;
    use crate::uploads::Upload;

    const FILE: &str = "head.safetensors";

    async fn complete(store: &CheckpointStore, turn: u64) {
        let turn = Turn(turn);
        let entry = store.write_file(turn, FILE, Bytes::from_static(b"head")).await.expect("it is written");
        let manifest = Manifest {
            format: FORMAT,
            job: JobId::try_from("digits-1").expect("a job id"),
            term: Term(1),
            turn,
            epoch: 0,
            specification: serde_json::Value::Null,
            numerics: Default::default(),
            files: BTreeMap::from([(FILE.to_owned(), entry)]),
            score: None,
            fusion_weights: None,
            samples: None,
            state: serde_json::Value::Null,
        };
        store.complete(&manifest).await.expect("it is complete");
    }

    /// Starts an upload and abandons it, like a killed process.
    async fn abandon(store: &CheckpointStore, turn: u64) {
        let policy = RetryPolicy::new(Duration::from_secs(60), 1);
        let folder = store.checkpoint_folder(Turn(turn));
        let upload = policy.run("begin", || Upload::begin(&folder, FILE, &store.retry)).await;
        let mut upload = upload.expect("it begins");
        // Whether it arrives or not.
        let _ = upload.put_chunk(PutPayload::from_static(b"chunk")).await;
        std::mem::forget(upload);
    }

    /// The markers, with their turns.
    async fn markers(store: &CheckpointStore) -> Vec<(Turn, Path, Marker)> {
        let mut found = Vec::new();
        for (path, turn, name) in store.objects().await.expect("it lists") {
            if Marker::is_named(&name)
                && let Some(marker) = store.marker(&path).await.expect("it is read")
            {
                found.push((turn, path, marker));
            }
        }
        found.sort_by_key(|(turn, ..)| *turn);
        found
    }

    /// The turns that have markers.
    async fn marked(store: &CheckpointStore) -> Vec<u64> {
        markers(store).await.iter().map(|(turn, ..)| turn.0).collect()
    }

    /// Whether the upload can still be completed.
    async fn is_open(store: &CheckpointStore, marker: &(Turn, Path, Marker)) -> bool {
        marker.2.is_open(store.folder.uploads().expect("memory has uploads"), &marker.1).await
    }

    #[tokio::test]
    async fn abandoned_uploads_are_aborted_and_those_in_progress_are_not() {
        for (root, faults) in
            [("memory://abandoned", None), ("memory://failing", Some("errors=0.2,lost=0.2,truncated=0.1"))]
        {
            let job = Store::open(root).expect("it opens");
            let sound = CheckpointStore::new(&job);
            let store = match faults {
                None => sound.clone(),
                Some(faults) => CheckpointStore::new(&job.with_faults(faults.parse().expect("faults")))
                    .with_retry(RetryPolicy::new(Duration::from_secs(60), 1)),
            };
            complete(&store, 5).await;
            for turn in [2, 2, 3, 5, 9] {
                abandon(&store, turn).await;
            }
            // With faults there may be more markers, from lost responses.
            let before = markers(&sound).await;
            assert!(before.len() >= 5, "{root}: {before:?}");
            store.collect_garbage(&BTreeSet::from([Turn(3)])).await.expect("it clears up");
            let mut left = marked(&sound).await;
            left.dedup();
            assert_eq!(left, [3, 9], "{root}");
            for marker in &before {
                assert_eq!(is_open(&sound, marker).await, [3, 9].contains(&marker.0.0), "{root}: {marker:?}");
            }
            store.collect_all_garbage().await.expect("it clears up");
            assert_eq!(marked(&sound).await, [0; 0], "{root}");
            for marker in &before {
                assert!(!is_open(&sound, marker).await, "{root}: {marker:?}");
            }
            assert_eq!(sound.list().await.expect("it lists"), [Turn(5)], "{root}");
        }
    }

    #[tokio::test]
    async fn an_old_checkpoint_goes_with_the_uploads_in_its_folder() {
        let store = CheckpointStore::new(&Store::open("memory://old/uploads").expect("it opens"));
        complete(&store, 1).await;
        complete(&store, 2).await;
        abandon(&store, 1).await;
        let marker = markers(&store).await.pop().expect("there is one");
        assert_eq!(store.retain(1, None, &BTreeSet::new()).await.expect("it clears up"), [Turn(1)]);
        assert!(markers(&store).await.is_empty() && !is_open(&store, &marker).await);
    }

    /// Uploads that refuse to abort those of the first turn.
    struct Refusing(Uploads);

    #[async_trait]
    impl MultipartStore for Refusing {
        async fn create_multipart(&self, path: &Path) -> object_store::Result<MultipartId> {
            self.0.0.create_multipart(path).await
        }

        async fn put_part(
            &self,
            path: &Path,
            id: &MultipartId,
            number: usize,
            chunk: PutPayload,
        ) -> object_store::Result<PartId> {
            self.0.0.put_part(path, id, number, chunk).await
        }

        async fn complete_multipart(
            &self,
            path: &Path,
            id: &MultipartId,
            chunks: Vec<PartId>,
        ) -> object_store::Result<PutResult> {
            self.0.0.complete_multipart(path, id, chunks).await
        }

        async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> object_store::Result<()> {
            if path.as_ref().contains("00000001") {
                return Err(Error::PermissionDenied { path: path.to_string(), source: "meant".into() });
            }
            self.0.0.abort_multipart(path, id).await
        }
    }

    #[tokio::test]
    async fn an_upload_that_may_not_be_aborted_keeps_its_own_marker_only() {
        let job = Store::open("memory://refused/uploads").expect("it opens");
        let refusing = Refusing(job.uploads().expect("memory has uploads").clone());
        let store = CheckpointStore::new(&job.with_uploads(Uploads(Arc::new(refusing))));
        complete(&store, 5).await;
        for turn in [1, 2, 1, 3] {
            abandon(&store, turn).await;
        }
        let error = store.collect_garbage(&BTreeSet::new()).await.expect_err("two are refused");
        assert!(error.to_string().contains("cannot abort the upload named by"), "{error}");
        assert_eq!(marked(&store).await, [1, 1]);
    }

    #[tokio::test]
    async fn an_object_named_like_a_marker_stays_and_the_rest_goes() {
        let store = CheckpointStore::new(&Store::open("memory://strangers/a").expect("it opens"));
        complete(&store, 5).await;
        let (objects, folder) = (store.folder.objects(), store.checkpoint_folder(Turn(5)));
        let long = "x".repeat(usize::try_from(LARGEST_MARKER).expect("it is small") + 1);
        let strangers = ["{", r#"{"object": "a"}"#, r#"{"object": "../b", "upload": "1"}"#, &format!("\"{long}\"")]
            .map(str::to_owned);
        for (number, text) in strangers.into_iter().enumerate() {
            objects.put(&folder.object(&format!(".upload-{number}")), text.into()).await.expect("it is written");
        }
        abandon(&store, 5).await;
        objects.put(&folder.object("stranger"), PutPayload::new()).await.expect("it is written");
        assert_eq!(store.collect_garbage(&BTreeSet::new()).await.expect("it clears up"), 2);
        let listed = objects.list(Some(folder.prefix())).try_collect::<Vec<_>>().await.expect("it lists");
        assert_eq!(listed.len(), 6, "{listed:?}");
    }

    #[tokio::test]
    async fn markers_in_a_folder_copied_from_a_bucket_are_removed() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let store = CheckpointStore::new(&Store::open(folder.path().to_str().expect("text")).expect("it opens"));
        complete(&store, 5).await;
        let (folder, text) = (store.checkpoint_folder(Turn(5)), r#"{"object": "head.safetensors", "upload": "1"}"#);
        folder.objects().put(&folder.object(".upload-1"), text.into()).await.expect("it is written");
        assert_eq!(store.collect_garbage(&BTreeSet::new()).await.expect("it clears up"), 1);
    }
}
