//! A store that retries.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::policy::RetryPolicy;
use super::transient::Transient;
use crate::reason::reason;

/// A store that retries each of its requests after a transient error.
///
/// It returns a read or a list only when all of it has arrived, so large objects are read in ranges. If the response to
/// a conditional put is lost, the retry fails because the object exists, and the caller compares it. Multipart uploads
/// are not retried here; their caller retries them as a whole.
#[derive(Clone)]
pub struct Retrying {
    inner: Arc<dyn ObjectStore>,
    policy: RetryPolicy,
    /// The URL of the store, ending in `/`.
    base: String,
}

/// A failed request.
struct Failed {
    doing: &'static str,
    url: String,
    source: object_store::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} `{}`: {}", self.doing, self.url, reason(&self.source))
    }
}

impl Transient for Failed {
    fn is_transient(&self) -> bool {
        self.source.is_transient()
    }
}

impl Retrying {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, policy: RetryPolicy, base: String) -> Self {
        Self { inner, policy, base }
    }

    async fn retry<T, F>(&self, doing: &'static str, path: &Path, mut request: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let url = format!("{}{path}", self.base);
        let attempt = || {
            let (url, request) = (url.clone(), request());
            async move { request.await.map_err(|source| Failed { doing, url, source }) }
        };
        self.policy.run(&url, attempt).await.map_err(|failed| failed.source)
    }

    /// The whole list.
    async fn listed(&self, prefix: Option<Path>, offset: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let place = prefix.clone().unwrap_or_default();
        let list = || match &offset {
            None => self.inner.list(prefix.as_ref()).try_collect::<Vec<_>>(),
            Some(offset) => self.inner.list_with_offset(prefix.as_ref(), offset).try_collect(),
        };
        self.retry("list", &place, list).await
    }

    fn list_stream(&self, prefix: Option<&Path>, offset: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix, offset) = (self.clone(), prefix.cloned(), offset.cloned());
        let listed = async move { store.listed(prefix, offset).await.map(|all| stream::iter(all.into_iter().map(Ok))) };
        stream::once(listed).try_flatten().boxed()
    }
}

/// The same response with its whole body.
async fn with_body(found: GetResult) -> Result<GetResult> {
    let (meta, range) = (found.meta.clone(), found.range.clone());
    let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
    let body = found.bytes().await?;
    let payload = GetResultPayload::Stream(stream::once(async move { Ok(body) }).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

impl fmt::Debug for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying").field("inner", &self.inner).field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl fmt::Display for Retrying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with retries", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Retrying {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.retry("write", location, || self.inner.put_opts(location, payload.clone(), options.clone())).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let get = || async {
            let found = self.inner.get_opts(location, options.clone()).await?;
            if options.head { Ok(found) } else { with_body(found).await }
        };
        self.retry("read", location, get).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                store.retry("remove", &location, || store.inner.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_stream(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_stream(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let place = prefix.cloned().unwrap_or_default();
        self.retry("list", &place, || self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.retry("write", to, || self.inner.copy_opts(from, to, options.clone())).await
    }
}
