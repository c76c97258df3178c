//! Multipart uploads by id, so that another process can abort them.

use std::fmt;
use std::sync::Arc;

use object_store::multipart::MultipartStore;

/// A store's interface to uploads by id.
#[derive(Clone)]
pub(crate) struct Uploads(pub(crate) Arc<dyn MultipartStore>);

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uploads").finish_non_exhaustive()
    }
}
