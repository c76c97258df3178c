//! What happens to one request.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use antiphon_core::rng;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{GetResult, GetResultPayload, ObjectMeta, Result};
use tracing::info;

use super::config::Faults;

/// The log message of every fault, at level `info`.
pub const MESSAGE: &str = "the store injects a fault into a request";

/// The number of requests so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requests(&'static AtomicU64);

/// Of this process.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

impl Requests {
    /// Of this process.
    pub(super) fn of_process() -> Self {
        Self(&REQUESTS)
    }

    pub(super) fn next(self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fate {
    request: u64,
    late: Option<Duration>,
    refused: bool,
    pub(super) lost: bool,
    truncated: bool,
}

impl Fate {
    pub(super) fn of(faults: &Faults, request: u64) -> Self {
        let mut stream = rng::stream(faults.seed, &["store-faults".into(), request.into()]);
        let mut happens = |share| rng::uniform(&mut stream) < share;
        let (slow, refused, lost, truncated) =
            (happens(faults.slow), happens(faults.errors), happens(faults.lost), happens(faults.truncated));
        let late = Duration::from_millis(faults.slow_ms).mul_f64(2.0 * rng::uniform(&mut stream));
        Self { request, late: slow.then_some(late), refused, lost, truncated }
    }

    pub(super) async fn before(&self) -> Result<()> {
        if let Some(late) = self.late {
            self.tell("slow");
            tokio::time::sleep(late).await;
        }
        if self.refused { Err(self.error("refused")) } else { Ok(()) }
    }

    pub(super) fn after<T>(&self, done: T) -> Result<T> {
        if self.lost { Err(self.error("lost")) } else { Ok(done) }
    }

    /// The error that a client would report for a failing server.
    fn error(&self, fault: &'static str) -> object_store::Error {
        self.tell(fault);
        let source = io::Error::new(ErrorKind::ConnectionReset, format!("an injected fault: {fault}"));
        object_store::Error::Generic { store: "with faults", source: Box::new(source) }
    }

    fn tell(&self, fault: &'static str) {
        info!(request = self.request, fault, "{MESSAGE}");
    }

    pub(super) fn body(self, found: GetResult) -> GetResult {
        if !self.truncated {
            return found;
        }
        let GetResult { ref meta, ref range, ref attributes, ref extensions, .. } = found;
        let (meta, range, attributes, extensions) =
            (meta.clone(), range.clone(), attributes.clone(), extensions.clone());
        let mut left = (range.end - range.start) / 2;
        let half = found.into_stream().try_take_while(move |chunk| {
            let fits = left >= chunk.len() as u64;
            left = left.saturating_sub(chunk.len() as u64);
            futures::future::ready(Ok(fits))
        });
        let end = stream::once(async move { Err(self.error("truncated")) });
        GetResult { payload: GetResultPayload::Stream(half.chain(end).boxed()), meta, range, attributes, extensions }
    }

    pub(super) fn listed(self, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let first = stream::once(async move { self.before().await }).try_filter_map(async |()| Ok(None));
        let end = async move { if self.truncated || self.lost { Some(Err(self.error("truncated"))) } else { None } };
        let whole = if self.truncated { list.take(1).boxed() } else { list };
        // A list ends with its first error.
        let all = first.chain(whole).chain(stream::once(end).filter_map(futures::future::ready));
        all.scan(false, |failed, item| {
            let ended = *failed;
            *failed = item.is_err();
            futures::future::ready((!ended).then_some(item))
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Faults {
        text.parse().expect(text)
    }

    #[test]
    fn fates_are_a_function_of_seed_and_number_with_these_shares() {
        let faults = faults("seed=3,errors=0.1,lost=0.2,slow=0.3,truncated=0.4");
        let fates: Vec<Fate> = (0..10_000).map(|request| Fate::of(&faults, request)).collect();
        assert_eq!(fates, (0..10_000).map(|request| Fate::of(&faults, request)).collect::<Vec<_>>());
        let share = |happens: fn(&Fate) -> bool| fates.iter().filter(|fate| happens(fate)).count() as f64 / 10_000.0;
        let shares = [share(|f| f.refused), share(|f| f.lost), share(|f| f.late.is_some()), share(|f| f.truncated)];
        for (share, expected) in shares.into_iter().zip([0.1, 0.2, 0.3, 0.4]) {
            assert!((share - expected).abs() < 0.02, "{shares:?}");
        }
    }
}
