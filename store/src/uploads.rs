//! Uploads of large objects, and what finds those that nobody finishes.
//!
//! A store that is a server keeps the pieces of an upload that was neither completed nor aborted, and no list of objects shows
//! them. So that a process may be killed at any time, a *marker* is written beside the object before its first piece is sent: a
//! small object that holds the upload's id. It goes when the upload is complete or aborted. Whoever clears up after a process
//! that is gone reads it, aborts the upload, and removes it then.
//!
//! A process that is killed after an upload was created, and before its marker is there, leaves one that nobody finds. It holds
//! no piece, so it takes no room.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use antiphon_core::digest::sha256;
use antiphon_core::parts::is_name;
use async_trait::async_trait;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, MultipartId, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload, PutResult, Result, UploadPart,
};
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::patience::UploadForgotten;
use crate::storage::Store;

/// What the name of a marker begins with. No part of a checkpoint can be called so, because it begins with a dot.
const MARKER: &str = ".upload-";
/// Bytes of a marker at the most: ids of uploads are below a few hundred.
pub(crate) const LARGEST_MARKER: u64 = 16 << 10;

/// The part of a store that knows uploads by their ids.
#[derive(Clone)]
pub(crate) struct Uploads(pub(crate) Arc<dyn MultipartStore>);

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").finish_non_exhaustive()
    }
}

/// What a marker says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// Name of the object, in the marker's own folder: the copy of a folder names no upload of the original's.
    object: String,
    /// Id of its upload.
    upload: MultipartId,
}

impl Marker {
    /// Whether an object that is called so is a marker.
    pub(crate) fn is_called(name: &str) -> bool {
        name.starts_with(MARKER)
    }

    /// Every upload's is its own, so that of two writers of an object neither takes the other's away.
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
    /// In words: not JSON, a field missing, an object that is not called like a part.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let marker: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if is_name(&marker.object) { Ok(marker) } else { Err(format!("{:?} is not the name of a part", marker.object)) }
    }

    /// Aborts the upload, whose marker is at `path`. One that is complete or aborted already is fine.
    ///
    /// # Errors
    /// The store refuses it.
    pub(crate) async fn abort(&self, uploads: &Uploads, path: &Path) -> Result<()> {
        let mut folder: Vec<_> = path.parts().collect();
        folder.pop();
        let object = Path::from_iter(folder).join(self.object.as_str());
        known(uploads.0.abort_multipart(&object, &self.upload).await)
    }
}

/// What the store does not know needs no abortion.
fn known(aborted: Result<()>) -> Result<()> {
    match aborted {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// An upload that is aborted when it is dropped unfinished.
pub(crate) struct Upload(Option<Box<dyn MultipartUpload>>);

impl Upload {
    /// Begins one of the object `name` in `folder`.
    pub(crate) async fn begin(folder: &Store, name: &str) -> Result<Self> {
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
            pieces: 0,
            sent: Arc::default(),
        })));
        if let Err(error) = folder.objects().put(&at, marker.to_json().into()).await {
            upload.abort().await;
            return Err(error);
        }
        Ok(upload)
    }

    /// The next piece. They may be sent at the same time, and in any order.
    pub(crate) fn put_piece(&mut self, piece: PutPayload) -> UploadPart {
        match &mut self.0 {
            Some(upload) => {
                let sent = upload.put_part(piece);
                Box::pin(async { remembered(sent.await) })
            }
            None => Box::pin(std::future::ready(Err(forgotten()))),
        }
    }

    /// Puts the pieces together, all of which must be there.
    pub(crate) async fn complete(&mut self) -> Result<()> {
        let upload = self.0.as_mut().ok_or_else(forgotten)?;
        remembered(upload.complete().await)?;
        self.0 = None;
        Ok(())
    }

    pub(crate) async fn abort(&mut self) {
        if let Some(mut upload) = self.0.take() {
            // It is given up already; that the store does not hear of it is no news.
            let _ = upload.abort().await;
        }
    }
}

/// What the store does not know any more: the answer to our own request was lost, or somebody aborted it. What lies there now may
/// be an older object, so that this one has to be sent again.
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
        // Without a runtime nobody is left to tell the store.
        if let (Some(mut upload), Ok(runtime)) = (unfinished, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { upload.abort().await });
        }
    }
}

/// An upload that a marker tells of.
#[derive(Debug)]
struct Marked {
    objects: Arc<dyn ObjectStore>,
    uploads: Uploads,
    path: Path,
    id: MultipartId,
    marker: Path,
    /// So many were begun.
    pieces: usize,
    /// What the store calls those that are there.
    sent: Arc<Mutex<BTreeMap<usize, PartId>>>,
}

impl Marked {
    async fn remove_marker(&self) {
        if let Err(error) = self.objects.delete(&self.marker).await {
            // It names an upload that is no more, and goes with the garbage.
            debug!(marker = %self.marker, %error, "a marker is left");
        }
    }
}

#[async_trait]
impl MultipartUpload for Marked {
    fn put_part(&mut self, piece: PutPayload) -> UploadPart {
        let (uploads, path, id, sent) =
            (self.uploads.clone(), self.path.clone(), self.id.clone(), Arc::clone(&self.sent));
        let number = self.pieces;
        self.pieces += 1;
        Box::pin(async move {
            let part = uploads.0.put_part(&path, &id, number, piece).await?;
            sent.lock().unwrap_or_else(PoisonError::into_inner).insert(number, part);
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
