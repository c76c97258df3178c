//! Uploads that are known by their ids, so that another process can abort them.

use std::fmt;
use std::sync::Arc;

use object_store::multipart::MultipartStore;

/// The part of a store that knows uploads by their ids.
#[derive(Clone)]
pub(crate) struct Uploads(pub(crate) Arc<dyn MultipartStore>);

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").finish_non_exhaustive()
    }
}
