//! A store that fails on purpose, to see what becomes of a job then.
//!
//! Switched on for every store that is opened to be written to, by the variable `ANTIPHON_STORE_FAULTS`, as in
//! `seed=7,errors=0.1,lost=0.05,slow=0.2,slow_ms=300,cut=0.05`. What happens to a request is a function of the seed and of
//! the number of requests that this process has made before.

use std::fmt;
use std::io::{self, ErrorKind};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use antiphon_core::rng;
use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use tracing::info;

use crate::uploads::Uploads;

/// The variable of the environment that switches faults on.
pub const VARIABLE: &str = "ANTIPHON_STORE_FAULTS";

/// What the log says of every fault, at level `info`.
pub const MESSAGE: &str = "the store fails on purpose";

/// How often a store fails, and how. Shares are of requests, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Faults {
    /// Which requests it happens to.
    pub seed: u64,
    /// Share that is answered by an error, and nothing was done.
    pub errors: f64,
    /// Share that is carried out, and then answered by an error.
    pub lost: f64,
    /// Share that is carried out late.
    pub slow: f64,
    /// How late: evenly from nothing to twice as many milliseconds.
    pub slow_ms: u64,
    /// Share of the objects and lists read whose second half does not arrive.
    pub cut: f64,
}

/// A text that does not say how a store is to fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{entry}` is not a fault; write seed=NUMBER, slow_ms=MILLISECONDS, or errors=SHARE, lost=SHARE, slow=SHARE and cut=SHARE \
     with shares from 0 to 1, as in seed=7,errors=0.1,slow=0.2"
)]
pub struct BadFaults {
    /// What was not understood.
    pub entry: String,
}

impl FromStr for Faults {
    type Err = BadFaults;

    fn from_str(text: &str) -> std::result::Result<Self, BadFaults> {
        let mut faults = Self { seed: 0, errors: 0.0, lost: 0.0, slow: 0.0, slow_ms: 100, cut: 0.0 };
        for entry in text.split(',') {
            let bad = || BadFaults { entry: entry.to_owned() };
            let (key, value) = entry.trim().split_once('=').ok_or_else(bad)?;
            let number = || value.parse::<u64>().map_err(|_| bad());
            let share = || value.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(bad);
            match key {
                "seed" => faults.seed = number()?,
                "errors" => faults.errors = share()?,
                "lost" => faults.lost = share()?,
                "slow" => faults.slow = share()?,
                "slow_ms" => faults.slow_ms = number()?,
                "cut" => faults.cut = share()?,
                _ => return Err(bad()),
            }
        }
        Ok(faults)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, errors, lost, slow, slow_ms, cut } = self;
        write!(f, "seed={seed},errors={errors},lost={lost},slow={slow},slow_ms={slow_ms},cut={cut}")
    }
}

/// The faults that the environment asks for; None if it asks for none.
///
/// # Errors
/// What it asks for is not understood.
pub(crate) fn of_environment() -> std::result::Result<Option<Faults>, BadFaults> {
    match std::env::var_os(VARIABLE) {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => text.to_string_lossy().parse().map(Some),
    }
}

/// A store with faults.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Faults,
    requests: Requests,
    /// Whether an object carries what its writer can tell it by: without that nobody could know whether it was he who
    /// put an object that there was none of before, and so no answer to such a put is lost. Folders lose none either.
    has_attributes: bool,
}

/// Requests made so far.
#[derive(Debug, Clone, Copy)]
struct Requests(&'static AtomicU64);

/// Of this process.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, faults: Faults, has_attributes: bool) -> Self {
        Self { inner, faults, requests: Requests(&REQUESTS), has_attributes }
    }

    fn next(&self) -> Fate {
        Fate::of(&self.faults, self.requests.next())
    }
}

impl Requests {
    fn next(self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fate {
    request: u64,
    late: Option<Duration>,
    refused: bool,
    lost: bool,
    cut: bool,
}

impl Fate {
    fn of(faults: &Faults, request: u64) -> Self {
        let mut stream = rng::stream(faults.seed, &["store-faults".into(), request.into()]);
        let mut happens = |share| rng::uniform(&mut stream) < share;
        let (slow, refused, lost, cut) =
            (happens(faults.slow), happens(faults.errors), happens(faults.lost), happens(faults.cut));
        let late = Duration::from_millis(faults.slow_ms).mul_f64(2.0 * rng::uniform(&mut stream));
        Self { request, late: slow.then_some(late), refused, lost, cut }
    }

    async fn before(&self) -> Result<()> {
        if let Some(late) = self.late {
            self.tell("slow");
            tokio::time::sleep(late).await;
        }
        if self.refused { Err(self.error("refused")) } else { Ok(()) }
    }

    fn after<T>(&self, done: T) -> Result<T> {
        if self.lost { Err(self.error("lost")) } else { Ok(done) }
    }

    /// As the client would call a server that is in trouble.
    fn error(&self, fault: &'static str) -> object_store::Error {
        self.tell(fault);
        let source = io::Error::new(ErrorKind::ConnectionReset, format!("a fault on purpose: {fault}"));
        object_store::Error::Generic { store: "with faults", source: Box::new(source) }
    }

    fn tell(&self, fault: &'static str) {
        info!(request = self.request, fault, "{MESSAGE}");
    }

    fn body(self, found: GetResult) -> GetResult {
        if !self.cut {
            return found;
        }
        let GetResult { ref meta, ref range, ref attributes, ref extensions, .. } = found;
        let (meta, range, attributes, extensions) =
            (meta.clone(), range.clone(), attributes.clone(), extensions.clone());
        let mut left = (range.end - range.start) / 2;
        let half = found.into_stream().try_take_while(move |piece| {
            let fits = left >= piece.len() as u64;
            left = left.saturating_sub(piece.len() as u64);
            futures::future::ready(Ok(fits))
        });
        let end = stream::once(async move { Err(self.error("cut")) });
        GetResult { payload: GetResultPayload::Stream(half.chain(end).boxed()), meta, range, attributes, extensions }
    }

    fn listed(self, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let begun = stream::once(async move { self.before().await }).try_filter_map(async |()| Ok(None));
        let end = async move { if self.cut || self.lost { Some(Err(self.error("cut"))) } else { None } };
        let whole = if self.cut { list.take(1).boxed() } else { list };
        // A list ends with its first error.
        let all = begun.chain(whole).chain(stream::once(end).filter_map(futures::future::ready));
        all.scan(false, |failed, item| {
            let ended = *failed;
            *failed = item.is_err();
            futures::future::ready((!ended).then_some(item))
        })
        .boxed()
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

/// An upload each of whose requests may fail, of a store that does not tell of uploads by their ids. An abort always takes effect,
/// because there is nobody who would try again.
#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    faults: Faults,
    requests: Requests,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, piece: PutPayload) -> UploadPart {
        let fate = Fate::of(&self.faults, self.requests.next());
        let sent = self.upload.put_part(piece);
        Box::pin(async move {
            fate.before().await?;
            sent.await?;
            fate.after(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fate = Fate::of(&self.faults, self.requests.next());
        fate.before().await?;
        fate.after(self.upload.complete().await?)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

/// The uploads of a store with faults.
pub(crate) struct FaultyUploads {
    inner: Uploads,
    faults: Faults,
    requests: Requests,
}

impl FaultyUploads {
    pub(crate) fn new(inner: Uploads, faults: Faults) -> Self {
        Self { inner, faults, requests: Requests(&REQUESTS) }
    }

    async fn carried_out<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let fate = Fate::of(&self.faults, self.requests.next());
        fate.before().await?;
        fate.after(request.await?)
    }
}

#[async_trait]
impl MultipartStore for FaultyUploads {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.carried_out(self.inner.0.create_multipart(path)).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, number: usize, piece: PutPayload) -> Result<PartId> {
        self.carried_out(self.inner.0.put_part(path, id, number, piece)).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        self.carried_out(self.inner.0.complete_multipart(path, id, parts)).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.carried_out(self.inner.0.abort_multipart(path, id)).await
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn faults_are_read_and_written() {
        let text = "seed=7,errors=0.1,lost=0.05,slow=0.2,slow_ms=300,cut=0.05";
        let expected = Faults { seed: 7, errors: 0.1, lost: 0.05, slow: 0.2, slow_ms: 300, cut: 0.05 };
        assert_eq!((faults(text), faults(text).to_string().as_str()), (expected, text));
        for bad in ["", "errors", "errors=1.5", "errors=-0", "seed=x", "slow=NaN", "seed=1,,errors=0.1", "losst=0.1"] {
            let error = Faults::from_str(bad).map(|faults| faults.to_string());
            assert!(error.is_err() || bad == "errors=-0", "{bad}: {error:?}");
        }
        let error = Faults::from_str("seed=1,losst=0.1").expect_err("a misprint").to_string();
        assert!(error.starts_with("`losst=0.1` is not a fault; write seed=NUMBER"), "{error}");
    }

    #[test]
    fn fates_are_a_function_of_seed_and_number_and_as_frequent_as_asked_for() {
        let faults = faults("seed=3,errors=0.1,lost=0.2,slow=0.3,cut=0.4");
        let fates: Vec<Fate> = (0..10_000).map(|request| Fate::of(&faults, request)).collect();
        assert_eq!(fates, (0..10_000).map(|request| Fate::of(&faults, request)).collect::<Vec<_>>());
        let share = |happens: fn(&Fate) -> bool| fates.iter().filter(|fate| happens(fate)).count() as f64 / 10_000.0;
        let shares = [share(|f| f.refused), share(|f| f.lost), share(|f| f.late.is_some()), share(|f| f.cut)];
        for (share, expected) in shares.into_iter().zip([0.1, 0.2, 0.3, 0.4]) {
            assert!((share - expected).abs() < 0.02, "{shares:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_request_does_nothing_and_a_lost_one_everything_but_answer() {
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
        let (_, faulty, path) = holding("cut=1").await;
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
