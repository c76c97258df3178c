//! Multipart uploads of large objects, and the markers that identify abandoned uploads.
//!
//! A server retains the chunks of an upload that was neither completed nor aborted, and no list of objects shows them.
//! A process may be killed at any time. So a *marker* is written beside the object before its first chunk is sent: a
//! small object with the id of the upload. It is removed when the upload is completed or aborted. Garbage collection
//! reads the marker of a process that was killed, aborts the upload, and then removes the marker.
//!
//! If a process is killed after it created an upload and before it wrote the marker, nothing identifies this upload. It
//! has no chunks, so it takes no storage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use antiphon_core::digest::sha256;
use antiphon_core::files::is_name;
use async_trait::async_trait;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{
    Error, MultipartId, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload, PutResult, Result, UploadPart,
};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::multipart::Uploads;
use crate::retry::{RetryPolicy, UploadForgotten};
use crate::storage::Store;

/// The prefix of the names of markers. No file of a checkpoint has such a name, because it begins with a dot.
const MARKER: &str = ".upload-";
/// The largest marker, in bytes. Ids of uploads have at most a few hundred.
pub(crate) const LARGEST_MARKER: u64 = 16 << 10;
/// How long a single chunk is retried. After that, the whole upload is retried.
const CHUNK_RETRY: Duration = Duration::from_secs(60);

/// The content of a marker.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// The name of the object in the marker's folder. It is not a path, so a copy of the folder names no upload of the
    /// original.
    object: String,
    /// The id of its upload.
    upload: MultipartId,
}

impl Marker {
    /// Whether an object of this name is a marker.
    pub(crate) fn is_named(name: &str) -> bool {
        name.starts_with(MARKER)
    }

    /// A name that is unique per upload, so that two writers of an object do not remove each other's markers.
    fn name(&self) -> String {
        let hash = sha256(format!("{}/{}", self.object, self.upload).as_bytes()).to_string();
        format!("{MARKER}{}", &hash[..32])
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a marker's fields are text")
    }

    /// The marker in `bytes`, or what is wrong with it.
    ///
    /// # Errors
    /// If the text is not JSON, lacks a field, or has a bad file name.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let marker: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if is_name(&marker.object) { Ok(marker) } else { Err(format!("{:?} is not a file name", marker.object)) }
    }

    /// Aborts the upload of the marker at `path`. Also succeeds if the upload was already completed or aborted.
    ///
    /// # Errors
    /// If the store refuses.
    pub(crate) async fn abort(&self, uploads: &Uploads, path: &Path) -> Result<()> {
        known(uploads.0.abort_multipart(&self.object_beside(path), &self.upload).await)
    }

    /// The path of the object of the marker at `path`.
    fn object_beside(&self, path: &Path) -> Path {
        let mut folder: Vec<_> = path.parts().collect();
        folder.pop();
        Path::from_iter(folder).join(self.object.as_str())
    }

    /// Whether the upload accepts another chunk. It cannot be completed afterwards.
    #[cfg(test)]
    pub(crate) async fn is_open(&self, uploads: &Uploads, path: &Path) -> bool {
        uploads.0.put_part(&self.object_beside(path), &self.upload, 7, PutPayload::new()).await.is_ok()
    }
}

/// Treats an upload that the store does not know as aborted.
fn known(aborted: Result<()>) -> Result<()> {
    match aborted {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// An upload that is aborted if it is dropped before it is completed.
pub(crate) struct Upload(Option<Box<dyn MultipartUpload>>);

impl Upload {
    /// Starts an upload of the object `name` in `folder`. In stores with uploads by id, a failed chunk is retried on
    /// its own, because over a slow connection the other chunks are worth keeping.
    pub(crate) async fn begin(folder: &Store, name: &str, retry: &RetryPolicy) -> Result<Self> {
        let path = folder.object(name);
        let Some(uploads) = folder.uploads() else {
            return Ok(Self(Some(folder.objects().put_multipart(&path).await?)));
        };
        let id = uploads.0.create_multipart(&path).await?;
        let marker = Marker { object: name.to_owned(), upload: id.clone() };
        let at = folder.object(&marker.name());
        let mut upload = Self(Some(Box::new(Marked {
            objects: Arc::clone(folder.objects()),
            uploads: uploads.clone(),
            path,
            id,
            marker: at.clone(),
            retry: retry.clone().at_most(CHUNK_RETRY),
            chunks: 0,
            sent: Arc::default(),
        })));
        if let Err(error) = folder.objects().put(&at, marker.to_json().into()).await {
            upload.abort().await;
            return Err(error);
        }
        Ok(upload)
    }

    /// Sends the next chunk. Chunks may be sent concurrently, and in any order.
    pub(crate) fn put_chunk(&mut self, chunk: PutPayload) -> UploadPart {
        match &mut self.0 {
            Some(upload) => {
                let sent = upload.put_part(chunk);
                Box::pin(async { remembered(sent.await) })
            }
            None => Box::pin(std::future::ready(Err(forgotten()))),
        }
    }

    /// Joins the chunks, all of which must have arrived.
    pub(crate) async fn complete(&mut self) -> Result<()> {
        let upload = self.0.as_mut().ok_or_else(forgotten)?;
        remembered(upload.complete().await)?;
        self.0 = None;
        Ok(())
    }

    pub(crate) async fn abort(&mut self) {
        if let Some(mut upload) = self.0.take() {
            // The caller reports its own error; garbage collection retries the abort.
            let _ = upload.abort().await;
        }
    }
}

/// Turns the error for an unknown upload into [`UploadForgotten`]: the response to our own request was lost, or another
/// process aborted the upload. The stored object may be an older one, so the upload must be repeated.
fn remembered<T>(answer: Result<T>) -> Result<T> {
    match answer {
        Err(Error::NotFound { .. }) => Err(forgotten()),
        other => other,
    }
}

fn forgotten() -> Error {
    Error::Generic { store: "upload", source: Box::new(UploadForgotten) }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let unfinished = self.0.take();
        // Without a runtime no request can be made.
        if let (Some(mut upload), Ok(runtime)) = (unfinished, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { upload.abort().await });
        }
    }
}

/// An upload with a marker.
#[derive(Debug)]
struct Marked {
    objects: Arc<dyn ObjectStore>,
    uploads: Uploads,
    path: Path,
    id: MultipartId,
    marker: Path,
    retry: RetryPolicy,
    /// The number of chunks so far.
    chunks: usize,
    /// The store's ids of the chunks that have arrived.
    sent: Arc<Mutex<BTreeMap<usize, PartId>>>,
}

impl Marked {
    async fn remove_marker(&self) {
        if let Err(error) = self.objects.delete(&self.marker).await {
            // It names an upload that no longer exists, and garbage collection removes it later.
            debug!(
                marker = %self.marker,
                %error,
                "the marker of an upload cannot be removed now; garbage collection removes it later"
            );
        }
    }
}

#[async_trait]
impl MultipartUpload for Marked {
    fn put_part(&mut self, chunk: PutPayload) -> UploadPart {
        let (uploads, path, id, sent) =
            (self.uploads.clone(), self.path.clone(), self.id.clone(), Arc::clone(&self.sent));
        let (number, retry) = (self.chunks, self.retry.clone());
        self.chunks += 1;
        Box::pin(async move {
            let put = || uploads.0.put_part(&path, &id, number, chunk.clone());
            let chunk_id = retry.run(format!("{path} {number}"), put).await?;
            sent.lock().unwrap_or_else(PoisonError::into_inner).insert(number, chunk_id);
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let sent = std::mem::take(&mut *self.sent.lock().unwrap_or_else(PoisonError::into_inner));
        let done = self.uploads.0.complete_multipart(&self.path, &self.id, sent.into_values().collect()).await?;
        self.remove_marker().await;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        known(self.uploads.0.abort_multipart(&self.path, &self.id).await)?;
        self.remove_marker().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::TryStreamExt as _;

    use super::*;

    const FILE: &str = "projector.safetensors";

    /// The names of all objects in a folder.
    async fn names(folder: &Store) -> Vec<String> {
        let listed = folder.objects().list(Some(folder.prefix())).try_collect::<Vec<_>>().await.expect("it lists");
        let names = listed.iter().map(|object| object.location.filename().expect("it has a name").to_owned());
        names.collect()
    }

    async fn marker(folder: &Store, name: &str) -> Marker {
        let found = folder.objects().get(&folder.object(name)).await.expect("it is there");
        Marker::from_json(&found.bytes().await.expect("it is read")).expect("it is a marker")
    }

    async fn is_open(folder: &Store, marker: &Marker) -> bool {
        marker.is_open(folder.uploads().expect("memory has uploads"), &folder.object(&marker.name())).await
    }

    #[tokio::test]
    async fn a_marker_names_an_upload_until_it_is_complete() {
        let folder = Store::open("memory://uploads/complete").expect("it opens");
        let mut upload = Upload::begin(&folder, FILE, &RetryPolicy::none()).await.expect("it begins");
        let [name] = <[String; 1]>::try_from(names(&folder).await).expect("the marker and nothing else");
        assert!(Marker::is_named(&name) && !is_name(&name), "{name}");
        assert_eq!(marker(&folder, &name).await.object, FILE);
        // In another order than in the object.
        let (first, second) = (upload.put_chunk("ab".into()), upload.put_chunk("cd".into()));
        second.await.expect("it is sent");
        first.await.expect("it is sent");
        upload.complete().await.expect("it is complete");
        assert_eq!(names(&folder).await, [FILE]);
        let found = folder.objects().get(&folder.object(FILE)).await.expect("it is there");
        assert_eq!(found.bytes().await.expect("it is read"), Bytes::from("abcd"));
    }

    #[tokio::test]
    async fn an_aborted_or_dropped_upload_removes_its_own_marker() {
        let folder = Store::open("memory://uploads/aborted").expect("it opens");
        let (mut one, other) = (
            Upload::begin(&folder, FILE, &RetryPolicy::none()).await.expect("it begins"),
            Upload::begin(&folder, FILE, &RetryPolicy::none()).await,
        );
        let first = names(&folder).await;
        assert_eq!(first.len(), 2, "each has one: {first:?}");
        one.abort().await;
        let [name] = <[String; 1]>::try_from(names(&folder).await).expect("the other's");
        let marker = marker(&folder, &name).await;
        assert!(is_open(&folder, &marker).await);
        drop(other);
        while !names(&folder).await.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!is_open(&folder, &marker).await);
    }

    #[tokio::test]
    async fn an_upload_that_another_process_aborted_is_retried() {
        use crate::retry::Transient as _;
        let folder = Store::open("memory://uploads/forgotten").expect("it opens");
        let mut upload = Upload::begin(&folder, FILE, &RetryPolicy::none()).await.expect("it begins");
        let name = names(&folder).await.pop().expect("a marker");
        let uploads = folder.uploads().expect("memory has uploads");
        let (marker, path) = (marker(&folder, &name).await, folder.object(&name));
        marker.abort(uploads, &path).await.expect("it is aborted");
        marker.abort(uploads, &path).await.expect("twice is as good as once");
        let error = upload.put_chunk("ab".into()).await.expect_err("there is none");
        assert!(error.is_transient(), "{error}");
        let error = upload.complete().await.expect_err("there is none");
        assert!(error.is_transient(), "{error}");
        upload.abort().await;
        assert!(names(&folder).await.is_empty());
    }

    #[tokio::test]
    async fn a_chunk_that_fails_is_retried_alone() {
        let sound = Store::open("memory://uploads/chunks").expect("it opens");
        let folder = sound.with_faults("errors=0.2".parse().expect("faults"));
        let retry = RetryPolicy::new(Duration::from_secs(60), 1);
        let upload = retry.run("begin", || Upload::begin(&folder, FILE, &retry)).await;
        let mut upload = upload.expect("it begins");
        let chunks: Vec<UploadPart> = (0..30).map(|_| upload.put_chunk("ab".into())).collect();
        futures::future::try_join_all(chunks).await.expect("each arrives");
    }

    #[test]
    fn a_marker_names_files_of_its_folder_only() {
        let marker = |object: &str| Marker { object: object.to_owned(), upload: "7".to_owned() };
        assert_eq!(Marker::from_json(&marker(FILE).to_json()), Ok(marker(FILE)));
        let error = Marker::from_json(&marker("../job.json").to_json()).expect_err("it leads elsewhere");
        assert_eq!(error, "\"../job.json\" is not a file name");
        assert_ne!(marker(FILE).name(), marker("head.safetensors").name());
    }
}
