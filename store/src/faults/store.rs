//! A store with faults.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::config::Faults;
use super::fate::{Fate, Requests};
use super::uploads::FaultyUpload;

/// A store with faults.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Faults,
    requests: Requests,
    /// Whether objects have attributes by which a writer recognises its own. In stores without attributes, the response
    /// to a conditional put is never lost, because the writer could not find out whether the object is its own.
    has_attributes: bool,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, faults: Faults, has_attributes: bool) -> Self {
        Self { inner, faults, requests: Requests::of_process(), has_attributes }
    }

    fn next(&self) -> Fate {
        Fate::of(&self.faults, self.requests.next())
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with faults ({})", self.inner, self.faults)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let conditional = !matches!(options.mode, PutMode::Overwrite);
        let mut fate = self.next();
        fate.lost &= self.has_attributes || !conditional;
        fate.before().await?;
        fate.after(self.inner.put_opts(location, payload, options).await?)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fate = self.next();
        fate.before().await?;
        let upload = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultyUpload { upload, faults: self.faults, requests: self.requests }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fate = self.next();
        fate.before().await?;
        let found = fate.after(self.inner.get_opts(location, options).await?)?;
        Ok(fate.body(found))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, faults, requests) = (Arc::clone(&self.inner), self.faults, self.requests);
        let delete = move |location: Result<Path>| {
            let (inner, fate) = (Arc::clone(&inner), Fate::of(&faults, requests.next()));
            async move {
                let location = location?;
                fate.before().await?;
                inner.delete(&location).await?;
                fate.after(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.next().listed(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.next().listed(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fate = self.next();
        fate.before().await?;
        fate.after(self.inner.list_with_delimiter(prefix).await?)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fate = self.next();
        fate.before().await?;
        self.inner.copy_opts(from, to, options).await?;
        fate.after(())
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;
    use object_store::memory::InMemory;

    use super::*;

    fn faults(text: &str) -> Faults {
        text.parse().expect(text)
    }

    async fn holding(text: &str) -> (Arc<InMemory>, Faulty, Path) {
        let (inner, path) = (Arc::new(InMemory::new()), Path::from("a"));
        inner.put(&path, PutPayload::from_static(b"first half, second half")).await.expect("it is written");
        let faulty = Faulty::new(Arc::clone(&inner) as Arc<dyn ObjectStore>, faults(text), true);
        (inner, faulty, path)
    }

    #[tokio::test]
    async fn a_refused_request_does_nothing_and_a_lost_one_only_no_answer() {
        for (text, done) in [("errors=1", false), ("lost=1", true)] {
            let (inner, faulty, path) = holding(text).await;
            faulty.put(&Path::from("b"), PutPayload::from_static(b"b")).await.expect_err(text);
            assert_eq!(inner.head(&Path::from("b")).await.is_ok(), done, "{text}");
            faulty.delete(&path).await.expect_err(text);
            assert_eq!(inner.head(&path).await.is_err(), done, "{text}");
            faulty.get(&Path::from("b")).await.expect_err(text);
            assert!(faulty.list(None).try_collect::<Vec<_>>().await.is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn half_a_body_is_an_error() {
        let (_, faulty, path) = holding("truncated=1").await;
        faulty.get(&path).await.expect("it begins").bytes().await.expect_err("it does not end");
        faulty.get_range(&path, 3..9).await.expect_err("nor does a range");
        assert!(faulty.list(None).try_collect::<Vec<_>>().await.is_err(), "nor does a list");
    }

    #[tokio::test]
    async fn a_store_without_faults_is_like_any_other() {
        let (_, faulty, path) = holding("slow=1,slow_ms=1").await;
        let found = faulty.get(&path).await.expect("it is there").bytes().await.expect("all of it");
        assert_eq!(found, "first half, second half");
        assert_eq!(faulty.list(None).try_collect::<Vec<_>>().await.expect("it lists").len(), 1);
    }
}
