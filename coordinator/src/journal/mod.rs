//! The coordinator's own state: the term, which jobs there are, their events and how they ended. It is a SlateDB
//! database in a folder of the object store that holds the checkpoints, and outlives the process.
//!
//! Invariants: one coordinator writes at a time. Opening the journal takes a term above all earlier ones, durably. From
//! then on the store rejects the writes of earlier coordinators ([`JournalError::Fenced`]). What is acknowledged to a
//! client (a submission, a request to stop, the end of a job) is durable before. Events become durable in their order,
//! within a second: a crash may lose the last ones, but none in the middle. The end of a job is durable together with
//! the event that tells of it.
//!
//! [`Journal::ephemeral`] persists nothing, for a coordinator that lives as long as its one job.

mod error;
mod record;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use antiphon_core::event::{Finished, JobEvent};
use antiphon_core::ids::{JobId, Term, Turn};
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

pub use error::JournalError;
pub use record::{EndRecord, Event, JobRecord, Recorded};

use crate::clock;
use record::{StopRecord, TERM, TermRecord, decode, encode, event_key, event_number, key};

/// The folder of the journal, beside the folders of jobs. It is not a job id, so no job can have it.
pub const FOLDER: &str = "_coordinator";

/// How long a request may take before it fails.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Events become durable within this time, if the store takes them at once.
const FLUSH: Duration = Duration::from_secs(1);
/// How often an idle coordinator checks whether it is still the leader.
const POLL: Duration = Duration::from_secs(2);
/// How long a fenced coordinator searches for the term of its successor.
const FIND_SUCCESSOR: Duration = Duration::from_secs(5);
/// Bytes that a coordinator may have to replay when it starts: writes that are not sorted on the store yet.
const REPLAY_BYTES: usize = 8 << 20;
/// Events that are read or removed together.
const AT_ONCE: usize = 1024;
/// Bytes of an object of sorted rows. The database uploads objects above 10 MiB in several requests; if the process is
/// killed, no garbage collection finds what such an upload leaves.
const OBJECT_BYTES: usize = 8 << 20;
/// In a local folder: how old lists of the database's files are when they are removed. A folder does not reject the
/// writes of a process that stalled for longer, so this is longer than any process stalls.
const LISTS_RETAINED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes that may wait for the store before events have to wait.
const UNFLUSHED_BYTES: usize = 64 << 20;

/// A coordinator's state. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    term: Term,
    durable: Option<Arc<Durable>>,
}

struct Durable {
    db: Db,
    term: Term,
    /// The folder that holds the journal's and the jobs'.
    state: Store,
    place: Store,
}

impl Journal {
    /// A journal that persists nothing. Its term is the first.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self { term: Term(1), durable: None }
    }

    /// Opens the journal in the folder `state` and takes the next term, which fences the coordinator that had it open
    /// before.
    ///
    /// # Errors
    /// The store fails, the journal was written by another version, or another coordinator has opened it meanwhile.
    pub async fn open(state: &Store) -> Result<Self, JournalError> {
        let place = state.child(FOLDER);
        // The database retries without end; this says within a minute what is wrong with an address or with
        // credentials.
        let failed = |reason: String| JournalError::Store { doing: "open", url: place.url(), reason };
        let retry = RetryPolicy::new(TIMEOUT, 0)
            .on_retry(|retry| tracing::warn!(%retry, "opening the journal failed and is retried"));
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
        let mut durable = Durable { db, term: Term(0), state: state.clone(), place };
        let before = durable.read::<TermRecord>(TERM).await?.map_or(Term(0), |before| before.term);
        durable.term = before.next();
        let journal = Self { term: durable.term, durable: Some(Arc::new(durable)) };
        journal.write_term().await?;
        Ok(journal)
    }

    /// The term that opening it began.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether its contents outlive this process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// Every job that was ever submitted, in order of submission.
    ///
    /// # Errors
    /// The store fails, or the journal was written by another version.
    pub async fn jobs(&self) -> Result<Vec<Recorded>, JournalError> {
        let Some(durable) = &self.durable else { return Ok(Vec::new()) };
        // Three scans, whatever the number of jobs: no request is served before they are done.
        let stops = durable.scan::<StopRecord>("stop/").await?;
        let mut ends = durable.scan::<EndRecord>("end/").await?;
        let recorded = |(name, record): (String, JobRecord)| {
            let (stop, end) = (stops.contains_key(&name), ends.remove(&name));
            Recorded { record, stop, end }
        };
        let mut jobs: Vec<Recorded> = durable.scan::<JobRecord>("job/").await?.into_iter().map(recorded).collect();
        jobs.sort_by_key(|job| job.record.order);
        Ok(jobs)
    }

    /// Adds a job with its first event. When this returns it is durable.
    ///
    /// # Errors
    /// The store fails; then the job is not there, or will be gone by the next write that the store takes.
    pub async fn add_job(&self, record: &JobRecord, submitted: &Event) -> Result<(), JournalError> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let mut batch = WriteBatch::new();
        batch.put(key("job", &record.job), encode(record));
        batch.put(event_key(&record.job, submitted.number), submitted.json.as_bytes());
        let written = durable.write_durably(batch).await;
        if written.is_err() {
            let mut batch = WriteBatch::new();
            batch.delete(key("job", &record.job));
            batch.delete(event_key(&record.job, submitted.number));
            // It is ordered after the first write; the error is that neither of them is written.
            let _neither = timeout(TIMEOUT, durable.db.write(batch)).await;
        }
        written
    }

    /// Notes that a job was asked to stop. When this returns it is durable.
    ///
    /// # Errors
    /// The store fails.
    pub async fn request_stop(&self, job: &JobId) -> Result<(), JournalError> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let mut batch = WriteBatch::new();
        batch.put(key("stop", job), encode(&StopRecord {}));
        durable.write_durably(batch).await
    }

    /// Appends events of a job, which must come in order. They can be read when this returns, and are durable soon. The
    /// last event comes with how the job ended, and is durable when this returns.
    ///
    /// # Errors
    /// The store fails.
    pub async fn append(&self, job: &JobId, events: &[Event], finished: Option<&Finished>) -> Result<(), JournalError> {
        let (Some(durable), Some(last)) = (&self.durable, events.last()) else { return Ok(()) };
        let mut batch = WriteBatch::new();
        for event in events {
            batch.put(event_key(job, event.number), event.json.as_bytes());
        }
        let Some(finished) = finished else {
            return match durable.db.write(batch).await {
                Ok(_) => Ok(()),
                Err(error) => Err(durable.explain("write to", &error).await),
            };
        };
        let ended = clock::milliseconds();
        let end = EndRecord { term: self.term, last_event: last.number, finished: finished.clone(), ended };
        batch.put(key("end", job), encode(&end));
        durable.write_durably(batch).await
    }

    /// The first events of a job with these numbers, `at_most` so many.
    ///
    /// # Errors
    /// The store fails, or the journal was written by another version.
    pub async fn events(&self, job: &JobId, numbers: Range<u64>, at_most: usize) -> Result<Vec<Event>, JournalError> {
        let Some(durable) = &self.durable else { return Ok(Vec::new()) };
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let range = event_key(job, numbers.start)..event_key(job, numbers.end);
        let read = async {
            let mut rows = durable.db.scan(range).await?;
            let mut events = Vec::new();
            while events.len() < at_most {
                let Some(row) = rows.next().await? else { break };
                events.push((row.key, row.value));
            }
            Ok(events)
        };
        let rows = durable.in_time("read", read).await?;
        let event = |(at, json): (bytes::Bytes, bytes::Bytes)| {
            let text = std::str::from_utf8(&json).map_err(|error| error.to_string());
            match (event_number(&at), text) {
                (Some(number), Ok(json)) => Ok(Event { number, json: json.into() }),
                (_, Err(reason)) => Err(durable.foreign(&at, reason)),
                (None, Ok(_)) => Err(durable.foreign(&at, "its key has no number".to_owned())),
            }
        };
        rows.into_iter().map(event).collect()
    }

    /// The turn of the newest checkpoint that a job's events tell of. Reads all of them.
    ///
    /// # Errors
    /// The store fails, or the journal was written by another version.
    pub async fn newest_checkpoint(&self, job: &JobId) -> Result<Option<Turn>, JournalError> {
        let (mut newest, mut read) = (None, 0);
        loop {
            let events = self.events(job, read + 1..u64::MAX, AT_ONCE).await?;
            let Some(last) = events.last() else { return Ok(newest) };
            read = last.number;
            for event in &events {
                // An event that another version wrote tells of none.
                if let Ok(JobEvent::Checkpoint { turn, .. }) = serde_json::from_str(&event.json) {
                    newest = newest.max(Some(turn));
                }
            }
        }
    }

    /// Removes a job that is over: its events first, so that the next coordinator finds what a crash leaves.
    ///
    /// # Errors
    /// The store fails; some of it may be removed.
    pub async fn remove_job(&self, job: &JobId) -> Result<(), JournalError> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let mut removed = 0;
        loop {
            // Not from the beginning each time: the database scans removed rows until it has compacted them.
            let events = self.events(job, removed + 1..u64::MAX, AT_ONCE).await?;
            removed = events.last().map_or(removed, |last| last.number);
            let mut batch = WriteBatch::new();
            events.iter().for_each(|event| batch.delete(event_key(job, event.number)));
            if events.is_empty() {
                ["job", "stop", "end"].iter().for_each(|kind| batch.delete(key(kind, job)));
            }
            durable.in_time("write to", async { durable.db.write(batch).await.map(drop) }).await?;
            if events.is_empty() {
                return Ok(());
            }
        }
    }

    /// Makes sure that no later coordinator has taken over: it writes, and the store rejects the write if one has. An
    /// action that follows this at once is the leader's.
    ///
    /// # Errors
    /// Another coordinator is the leader, or the store fails.
    pub async fn confirm_leadership(&self) -> Result<(), JournalError> {
        match &self.durable {
            Some(_) => self.write_term().await,
            None => Ok(()),
        }
    }

    /// Waits until the journal is closed for writes, because another coordinator is the leader or the database has
    /// failed. None once the journal was closed. A journal that persists nothing never returns.
    pub async fn closed(&self) -> Option<JournalError> {
        let Some(durable) = &self.durable else { return std::future::pending().await };
        let mut status = durable.db.subscribe();
        // The database lives as long as this does.
        let reason = status.wait_for(|status| status.close_reason.is_some()).await.ok()?.close_reason?;
        match reason {
            CloseReason::Clean => None,
            CloseReason::Fenced => Some(durable.fenced().await),
            _ => Some(JournalError::Store {
                doing: "write to",
                url: durable.place.url(),
                reason: "the database has stopped, see the log for why; restart the coordinator".to_owned(),
            }),
        }
    }

    /// Whether it is closed for writes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.durable.as_ref().is_some_and(|durable| durable.db.subscribe().borrow().close_reason.is_some())
    }

    /// Makes everything durable, and closes the journal.
    ///
    /// # Errors
    /// The store fails.
    pub async fn close(&self) -> Result<(), JournalError> {
        let Some(durable) = &self.durable else { return Ok(()) };
        durable.in_time("write to", durable.db.close()).await
    }

    async fn write_term(&self) -> Result<(), JournalError> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let mut batch = WriteBatch::new();
        batch.put(TERM, encode(&TermRecord { term: self.term }));
        durable.write_durably(batch).await
    }
}

impl Durable {
    /// Writes, and waits until it is durable.
    async fn write_durably(&self, batch: WriteBatch) -> Result<(), JournalError> {
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

    /// What keys with this prefix hold, by the rest of each key.
    async fn scan<T: DeserializeOwned>(&self, prefix: &str) -> Result<BTreeMap<String, T>, JournalError> {
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

    async fn in_time<T>(
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

    async fn explain(&self, doing: &'static str, error: &slatedb::Error) -> JournalError {
        match error.kind() {
            ErrorKind::Closed(CloseReason::Fenced) => self.fenced().await,
            _ => JournalError::Store { doing, url: self.place.url(), reason: error.to_string() },
        }
    }

    fn foreign(&self, key: &[u8], reason: String) -> JournalError {
        JournalError::Foreign { key: String::from_utf8_lossy(key).into_owned(), url: self.place.url(), reason }
    }

    /// Another coordinator is the leader, and writes its term soon after it has taken over. If there is no such term,
    /// the store is at fault.
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
                reason: "the store says that another coordinator has opened it, but none has written its term; if there is no \
                         other, restart this one"
                    .to_owned(),
            },
        }
    }

    /// The newest term on the store. This coordinator's database does not see the writes of its successor.
    async fn newest_term(&self) -> Option<Term> {
        let (path, objects) = (self.place.prefix().clone(), Arc::clone(self.place.objects()));
        let reader =
            DbReader::open(path, objects, DbReaderMode::FollowLatest, DbReaderOptions::default()).await.ok()?;
        let value = reader.get(TERM).await.ok()??;
        Some(decode::<TermRecord>(&value).ok()?.term)
    }
}

/// Why the database does not open.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct OpenError(slatedb::Error);

impl Transient for OpenError {
    /// A truncated answer of the store may look like any error, except those that another coordinator causes.
    fn is_transient(&self) -> bool {
        !matches!(self.0.kind(), ErrorKind::Closed(_) | ErrorKind::Invalid)
    }
}

/// Which files the database removes. A local folder has no conditional writes, which protect the lists on a server from
/// a process that stalled; so a folder retains its lists for longer.
fn garbage(place: &Store, lists_retained: Duration) -> GarbageCollectorOptions {
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

#[cfg(test)]
mod tests;
