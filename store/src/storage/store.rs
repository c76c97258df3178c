//! A folder in an object store.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;

use crate::faults::{Faults, Faulty, FaultyUploads};
use crate::multipart::Uploads;
use crate::retry::{RetryPolicy, Retrying};

/// The prefix of the URL of a local folder.
pub(super) const LOCAL: &str = "/";

/// A folder of an object store: everything below a prefix. Clones share the store.
#[derive(Debug, Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The uploads by id, in stores where an incomplete upload has to be aborted.
    uploads: Option<Uploads>,
    prefix: Path,
    /// The URL of the store without the prefix, ending in `/`: `s3://bucket/`, `memory://name/`, `/`.
    base: String,
}

impl Store {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, uploads: Option<Uploads>, prefix: Path, base: String) -> Self {
        Self { objects, uploads, prefix, base }
    }

    /// The same folder, with injected faults.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        let has_attributes = self.local_folder().is_none();
        let uploads = self.uploads.map(|uploads| Uploads(Arc::new(FaultyUploads::new(uploads, faults))));
        Self { objects: Arc::new(Faulty::new(self.objects, faults, has_attributes)), uploads, ..self }
    }

    /// The same folder, with other uploads by id.
    #[cfg(test)]
    pub(crate) fn with_uploads(self, uploads: Uploads) -> Self {
        Self { uploads: Some(uploads), ..self }
    }

    /// The same folder, with requests that are retried after a transient error, as in [`Retrying`]. Uploads by id are
    /// not retried.
    #[must_use]
    pub fn retrying(&self, policy: &RetryPolicy) -> Self {
        let objects = Retrying::new(Arc::clone(&self.objects), policy.clone(), self.base.clone());
        Self { objects: Arc::new(objects), ..self.clone() }
    }

    /// The store itself.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The store's uploads by id. None if no upload has to be aborted: in local folders, garbage collection removes
    /// temporary files, and Azure deletes incomplete uploads after a week.
    pub(crate) fn uploads(&self) -> Option<&Uploads> {
        self.uploads.as_ref()
    }

    /// The prefix of this folder in the store.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The folder called `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self { prefix: self.prefix.clone().join(name), ..self.clone() }
    }

    /// The path of the object called `name` in this folder.
    #[must_use]
    pub fn object(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    /// The URL of an object of this store.
    pub(crate) fn url_of(&self, path: &Path) -> String {
        format!("{}{path}", self.base)
    }

    /// The path of this folder, if it is in the file system.
    #[must_use]
    pub fn local_folder(&self) -> Option<PathBuf> {
        (self.base == LOCAL).then(|| PathBuf::from(self.url()))
    }

    /// The last name of the prefix.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.prefix.filename()
    }

    /// The URL of this folder, which [`Store::open`] accepts. For a local folder, its absolute path.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(&self.prefix)
    }
}
