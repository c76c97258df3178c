//! The SlateDB database of a durable journal: how it is opened, the timeouts of its requests, and how a coordinator
//! detects that another one has taken over.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use antiphon_core::ids::Term;
use antiphon_store::retry::{RetryPolicy, Transient};
use antiphon_store::storage::{self, Store};
use object_store::ObjectStore as _;
use serde::de::DeserializeOwned;
use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, DbReaderOptions, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions, Settings,
};
use slatedb::{CloseReason, Db, DbReader, DbReaderMode, ErrorKind, WriteBatch};
use tokio::time::{sleep, timeout};

use super::error::JournalError;
use super::record::{TERM, TermRecord, decode};

/// The folder of the journal, beside the folders of jobs. It is not a valid job id, so no job can have this folder.
pub const FOLDER: &str = "_coordinator";

/// The timeout of a request.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// Events become durable within this time if the store does not delay them.
const FLUSH: Duration = Duration::from_secs(1);
/// How often an idle coordinator checks whether it is still the leader.
const POLL: Duration = Duration::from_secs(2);
/// How long a fenced coordinator searches for the term of its successor.
const FIND_SUCCESSOR: Duration = Duration::from_secs(5);
/// The largest write-ahead log that a starting coordinator has to replay, in bytes.
const REPLAY_BYTES: usize = 8 << 20;
/// The size of an object of sorted rows, in bytes. The database uploads objects above 10 MiB in several requests, and
/// after a kill no garbage collection would find such an upload.
const OBJECT_BYTES: usize = 8 << 20;
/// In a local folder: how long lists of the database's files are retained. A folder cannot reject writes of a process
/// that stalled for longer, so this exceeds any stall.
pub(super) const LISTS_RETAINED: Duration = Duration::from_secs(7 * 24 * 3600);
/// The number of bytes that may wait for the store before events wait.
const UNFLUSHED_BYTES: usize = 64 << 20;

/// An open database.
pub(super) struct Durable {
    pub(super) db: Db,
    /// The term of this coordinator, which opening the journal started.
    pub(super) term: Term,
    /// The folder of the state, which holds the folders of the journal and of jobs.
    state: Store,
    place: Store,
}

impl Durable {
    /// Opens the database below the folder `state` and reads the newest term. This coordinator's term is the next one,
    /// which the caller writes.
    pub(super) async fn open(state: &Store) -> Result<Self, JournalError> {
        let place = state.child(FOLDER);
        // The database retries without limit. This request reports a wrong address or wrong credentials within a
        // minute.
        let failed = |reason: String| JournalError::Store { doing: "open", url: place.url(), reason };
        let retry = RetryPolicy::new(TIMEOUT, 0)
            .on_retry(|retry| tracing::warn!(%retry, "the coordinator cannot open its journal now and retries"));
        let list = || place.objects().list_with_delimiter(Some(place.prefix()));
        retry.run(place.url(), list).await.map_err(|error| failed(storage::reason(&error)))?;
        let settings = Settings {
            flush_interval: Some(FLUSH),
            manifest_poll_interval: POLL,
            l0_sst_size_bytes: REPLAY_BYTES,
            max_unflushed_bytes: UNFLUSHED_BYTES,
            compactor_options: Some(CompactorOptions {
                worker: Some(CompactionWorkerOptions {
                    max_sst_size: OBJECT_BYTES,
                    ..CompactionWorkerOptions::default()
                }),
                ..CompactorOptions::default()
            }),
            garbage_collector_options: Some(garbage(&place, LISTS_RETAINED)),
            ..Settings::default()
        };
        let open = || async {
            let db = Db::builder(place.prefix().clone(), Arc::clone(place.objects())).with_settings(settings.clone());
            db.build().await.map_err(OpenError)
        };
        let opened = timeout(TIMEOUT, retry.run(place.url(), open)).await.map_err(|_| slow("open", &place))?;
        let db = opened.map_err(|error| failed(error.to_string()))?;
        let mut durable = Self { db, term: Term(0), state: state.clone(), place };
        let before = durable.read::<TermRecord>(TERM).await?.map_or(Term(0), |before| before.term);
        durable.term = before.next();
        Ok(durable)
    }

    /// Waits until it is closed for writes, and returns why. None if it was closed on purpose.
    pub(super) async fn closed(&self) -> Option<JournalError> {
        let mut status = self.db.subscribe();
        // The database lives as long as `self`.
        let reason = status.wait_for(|status| status.close_reason.is_some()).await.ok()?.close_reason?;
        match reason {
            CloseReason::Clean => None,
            CloseReason::Fenced => Some(self.fenced().await),
            _ => Some(JournalError::Store {
                doing: "write to",
                url: self.place.url(),
                reason: "the database has stopped; see the log for the reason, then restart the coordinator".to_owned(),
            }),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.db.subscribe().borrow().close_reason.is_some()
    }

    /// Writes a batch, and waits until it is durable.
    pub(super) async fn write_durably(&self, batch: WriteBatch) -> Result<(), JournalError> {
        let write = async {
            let written = self.db.write(batch).await?;
            self.db.flush().await?;
            written.await_durable().await
        };
        self.in_time("write to", write).await
    }

    async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, JournalError> {
        let value = self.in_time("read", self.db.get(key)).await?;
        value.map(|value| decode(&value).map_err(|reason| self.foreign(key.as_bytes(), reason))).transpose()
    }

    /// The values of all keys with this prefix, by the rest of the key.
    pub(super) async fn scan<T: DeserializeOwned>(&self, prefix: &str) -> Result<BTreeMap<String, T>, JournalError> {
        let read = async {
            let mut rows = self.db.scan_prefix(prefix, ..).await?;
            let mut values = Vec::new();
            while let Some(row) = rows.next().await? {
                values.push((row.key, row.value));
            }
            Ok(values)
        };
        let values = self.in_time("read", read).await?;
        let decoded = |(key, value): (bytes::Bytes, bytes::Bytes)| {
            let name = key.strip_prefix(prefix.as_bytes()).unwrap_or_default();
            let value = decode(&value).map_err(|reason| self.foreign(&key, reason))?;
            Ok((String::from_utf8_lossy(name).into_owned(), value))
        };
        values.into_iter().map(decoded).collect()
    }

    pub(super) async fn in_time<T>(
        &self,
        doing: &'static str,
        request: impl Future<Output = Result<T, slatedb::Error>>,
    ) -> Result<T, JournalError> {
        match timeout(TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(doing, &error).await),
            Err(_) => Err(slow(doing, &self.place)),
        }
    }

    pub(super) async fn explain(&self, doing: &'static str, error: &slatedb::Error) -> JournalError {
        match error.kind() {
            ErrorKind::Closed(CloseReason::Fenced) => self.fenced().await,
            _ => JournalError::Store { doing, url: self.place.url(), reason: error.to_string() },
        }
    }

    pub(super) fn foreign(&self, key: &[u8], reason: String) -> JournalError {
        JournalError::Foreign { key: String::from_utf8_lossy(key).into_owned(), url: self.place.url(), reason }
    }

    /// The error after another coordinator has taken over. That coordinator writes its term soon afterwards. If there
    /// is no such term, the store is at fault.
    async fn fenced(&self) -> JournalError {
        let look = async {
            loop {
                match self.newest_term().await {
                    Some(term) if term > self.term => return term,
                    _ => sleep(Duration::from_millis(100)).await,
                }
            }
        };
        match timeout(FIND_SUCCESSOR, look).await {
            Ok(by) => JournalError::Fenced { state: self.state.url(), by },
            Err(_) => JournalError::Store {
                doing: "write to",
                url: self.place.url(),
                reason: "the store reports that another coordinator has opened it, but no other has written its term; \
                         if there is no other coordinator, restart this one"
                    .to_owned(),
            },
        }
    }

    /// The newest term in the store. This coordinator's own database does not see the writes of its successor.
    async fn newest_term(&self) -> Option<Term> {
        let (path, objects) = (self.place.prefix().clone(), Arc::clone(self.place.objects()));
        let reader =
            DbReader::open(path, objects, DbReaderMode::FollowLatest, DbReaderOptions::default()).await.ok()?;
        let value = reader.get(TERM).await.ok()??;
        Some(decode::<TermRecord>(&value).ok()?.term)
    }
}

/// Why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct OpenError(slatedb::Error);

impl Transient for OpenError {
    /// A truncated response of the store may look like any error, except those that another coordinator causes.
    fn is_transient(&self) -> bool {
        !matches!(self.0.kind(), ErrorKind::Closed(_) | ErrorKind::Invalid)
    }
}

/// The database's garbage collection. On a server, conditional writes protect the lists of files from a stalled
/// process. A local folder has none, so it retains its lists for longer.
pub(super) fn garbage(place: &Store, lists_retained: Duration) -> GarbageCollectorOptions {
    let default = GarbageCollectorOptions::default();
    if place.local_folder().is_none() {
        return default;
    }
    let lists =
        GarbageCollectorDirectoryOptions { min_age: lists_retained, ..GarbageCollectorDirectoryOptions::default() };
    GarbageCollectorOptions {
        manifest_options: Some(lists),
        compactions_options: Some(lists),
        boundary_files_enabled: false,
        ..default
    }
}

fn slow(doing: &'static str, place: &Store) -> JournalError {
    JournalError::Slow { doing, url: place.url(), seconds: TIMEOUT.as_secs() }
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable").field("place", &self.place.url()).field("term", &self.term).finish_non_exhaustive()
    }
}
