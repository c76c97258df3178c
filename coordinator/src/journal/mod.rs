//! The coordinator's own state: who reigns, which jobs there are, what happened in them and how they finished. It is kept in
//! SlateDB, in a folder of the same object store that holds the checkpoints, and outlives the process.
//!
//! Invariants: one coordinator writes at a time. Opening the journal takes a term above all earlier ones, durably, and from then on
//! the store refuses what an earlier coordinator writes ([`JournalError::Deposed`]). Whatever is acknowledged to somebody (a
//! submission, a request to stop, the end of a job) is durable before. Events are handed over in their order and become durable
//! in that order, within a second: a crash may cost the last ones, never one in the middle, and an end is durable
//! together with the event that tells of it.
//!
//! [`Journal::passing`] keeps nothing: for a coordinator that lives no longer than its job.

mod error;
mod record;

use std::collections::BTreeMap;
use std::fmt;
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

/// The folder of the journal beside the folders of jobs, none of which can be called so: it is no job id.
pub const FOLDER: &str = "_coordinator";

/// How long a request may take before whoever waits for it is told.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events become durable this long after they happened, at most, if the store takes them at once.
const FLUSH: Duration = Duration::from_secs(1);
/// How often an idle coordinator looks whether it still reigns.
const LOOK: Duration = Duration::from_secs(2);
/// How long a coordinator that was deposed looks for the term of the other one.
const WHO: Duration = Duration::from_secs(5);
/// What has been written and is not yet in order on the store is replayed when a coordinator starts, so it is kept small.
const REPLAYED: usize = 8 << 20;
/// Events that are read or removed together.
const AT_ONCE: usize = 1024;
/// Bytes of an object of what is in order. The database uploads objects above 10 MiB in pieces, and what a killed process leaves of
/// such an upload nobody finds.
const OBJECT: usize = 8 << 20;
/// In a folder: how old the database's lists of its own files are when they are removed. Nothing there refuses what a process writes
/// that stood still for longer, so this is longer than any does.
const LISTS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes that may wait for the store before events do.
const WAITING: usize = 64 << 20;

/// A coordinator's state. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    term: Term,
    kept: Option<Arc<Kept>>,
}

struct Kept {
    db: Db,
    term: Term,
    /// The folder that holds the journal's and the jobs'.
    state: Store,
    place: Store,
}

impl Journal {
    /// One that keeps nothing. Its term is the first.
    #[must_use]
    pub fn passing() -> Self {
        Self { term: Term(1), kept: None }
    }

    /// Opens the journal in the folder `state`, and takes the next term: whoever had it open before writes no more.
    ///
    /// # Errors
    /// The store fails, what is there was written by another version, or yet another coordinator has opened it meanwhile.
    pub async fn open(state: &Store) -> Result<Self, JournalError> {
        let place = state.child(FOLDER);
        // The database tries for ever; this says within a minute what is wrong with an address or with credentials.
        let failed = |reason: String| JournalError::Store { doing: "open", url: place.url(), reason };
        let patience = RetryPolicy::new(PATIENCE, 0).on_retry(|retry| tracing::warn!("{retry}"));
        let list = || place.objects().list_with_delimiter(Some(place.prefix()));
        patience.run(place.url(), list).await.map_err(|error| failed(storage::reason(&error)))?;
        let settings = Settings {
            flush_interval: Some(FLUSH),
            manifest_poll_interval: LOOK,
            l0_sst_size_bytes: REPLAYED,
            max_unflushed_bytes: WAITING,
            compactor_options: Some(CompactorOptions {
                worker: Some(CompactionWorkerOptions { max_sst_size: OBJECT, ..CompactionWorkerOptions::default() }),
                ..CompactorOptions::default()
            }),
            garbage_collector_options: Some(garbage(&place, LISTS_KEPT)),
            ..Settings::default()
        };
        let open = || async {
            let db = Db::builder(place.prefix().clone(), Arc::clone(place.objects())).with_settings(settings.clone());
            db.build().await.map_err(Opening)
        };
        let opened = timeout(PATIENCE, patience.run(place.url(), open)).await.map_err(|_| slow("open", &place))?;
        let db = opened.map_err(|error| failed(error.to_string()))?;
        let mut kept = Kept { db, term: Term(0), state: state.clone(), place };
        let before = kept.read::<TermRecord>(TERM).await?.map_or(Term(0), |before| before.term);
        kept.term = before.next();
        let journal = Self { term: kept.term, kept: Some(Arc::new(kept)) };
        journal.reign().await?;
        Ok(journal)
    }

    /// The reign that opening it began.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether what it is told outlives this process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.kept.is_some()
    }

    /// Every job that was ever submitted, in order of submission.
    ///
    /// # Errors
    /// The store fails, or what is there was written by another version.
    pub async fn jobs(&self) -> Result<Vec<Recorded>, JournalError> {
        let Some(kept) = &self.kept else { return Ok(Vec::new()) };
        // Three passes, whatever the number of jobs: nobody is served until they are through.
        let stops = kept.scan::<StopRecord>("stop/").await?;
        let mut ends = kept.scan::<EndRecord>("end/").await?;
        let recorded = |(name, record): (String, JobRecord)| {
            let (stop, end) = (stops.contains_key(&name), ends.remove(&name));
            Recorded { record, stop, end }
        };
        let mut jobs: Vec<Recorded> = kept.scan::<JobRecord>("job/").await?.into_iter().map(recorded).collect();
        jobs.sort_by_key(|job| job.record.order);
        Ok(jobs)
    }

    /// Notes a job with its first event. When this returns it is durable.
    ///
    /// # Errors
    /// The store fails; then the job is not there, or will be gone by the next write that the store takes.
    pub async fn add_job(&self, record: &JobRecord, submitted: &Event) -> Result<(), JournalError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut batch = WriteBatch::new();
        batch.put(key("job", &record.job), encode(record));
        batch.put(event_key(&record.job, submitted.number), submitted.json.as_bytes());
        let written = kept.write_durably(batch).await;
        if written.is_err() {
            let mut batch = WriteBatch::new();
            batch.delete(key("job", &record.job));
            batch.delete(event_key(&record.job, submitted.number));
            // It comes after the other in any case; the error is that neither will come.
            let _neither = timeout(PATIENCE, kept.db.write(batch)).await;
        }
        written
    }

    /// Notes that somebody asked a job to stop. When this returns it is durable.
    ///
    /// # Errors
    /// The store fails.
    pub async fn ask_to_stop(&self, job: &JobId) -> Result<(), JournalError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut batch = WriteBatch::new();
        batch.put(key("stop", job), encode(&StopRecord {}));
        kept.write_durably(batch).await
    }

    /// Appends events of a job, which must come in order. They can be read when this returns, and are durable soon. With the last
    /// one comes how the job finished, and then they are durable when this returns.
    ///
    /// # Errors
    /// The store fails.
    pub async fn append(&self, job: &JobId, events: &[Event], finished: Option<&Finished>) -> Result<(), JournalError> {
        let (Some(kept), Some(last)) = (&self.kept, events.last()) else { return Ok(()) };
        let mut batch = WriteBatch::new();
        for event in events {
            batch.put(event_key(job, event.number), event.json.as_bytes());
        }
        let Some(finished) = finished else {
            return match kept.db.write(batch).await {
                Ok(_) => Ok(()),
                Err(error) => Err(kept.explain("write to", &error).await),
            };
        };
        let ended = clock::milliseconds();
        let end = EndRecord { reign: self.term, last_event: last.number, finished: finished.clone(), ended };
        batch.put(key("end", job), encode(&end));
        kept.write_durably(batch).await
    }

    /// The first events of a job, `at_most` so many, with numbers above `after` and below `before`.
    ///
    /// # Errors
    /// The store fails, or what is there was written by another version.
    pub async fn events(
        &self,
        job: &JobId,
        (after, before): (u64, u64),
        at_most: usize,
    ) -> Result<Vec<Event>, JournalError> {
        let Some(kept) = &self.kept else { return Ok(Vec::new()) };
        let first = after.saturating_add(1);
        if first >= before {
            return Ok(Vec::new());
        }
        let range = event_key(job, first)..event_key(job, before);
        let read = async {
            let mut rows = kept.db.scan(range).await?;
            let mut events = Vec::new();
            while events.len() < at_most {
                let Some(row) = rows.next().await? else { break };
                events.push((row.key, row.value));
            }
            Ok(events)
        };
        let rows = kept.in_time("read", read).await?;
        let event = |(at, json): (bytes::Bytes, bytes::Bytes)| {
            let text = std::str::from_utf8(&json).map_err(|error| error.to_string());
            match (event_number(&at), text) {
                (Some(number), Ok(json)) => Ok(Event { number, json: json.into() }),
                (_, Err(reason)) => Err(kept.foreign(&at, reason)),
                (None, Ok(_)) => Err(kept.foreign(&at, "its key has no number".to_owned())),
            }
        };
        rows.into_iter().map(event).collect()
    }

    /// The turn of the newest checkpoint that a job's events tell of. Reads all of them.
    ///
    /// # Errors
    /// The store fails, or what is there was written by another version.
    pub async fn newest_checkpoint(&self, job: &JobId) -> Result<Option<Turn>, JournalError> {
        let (mut newest, mut read) = (None, 0);
        loop {
            let events = self.events(job, (read, u64::MAX), AT_ONCE).await?;
            let Some(last) = events.last() else { return Ok(newest) };
            read = last.number;
            for event in &events {
                // What another version wrote tells of none.
                if let Ok(JobEvent::Checkpoint { turn, .. }) = serde_json::from_str(&event.json) {
                    newest = newest.max(Some(turn));
                }
            }
        }
    }

    /// Forgets a job that is over: its events first, so that what a crash leaves of it is found by the next coordinator.
    ///
    /// # Errors
    /// The store fails; a part may be gone.
    pub async fn remove_job(&self, job: &JobId) -> Result<(), JournalError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut removed = 0;
        loop {
            // Not from the beginning each time: what was removed is passed over there until the database has tidied up.
            let events = self.events(job, (removed, u64::MAX), AT_ONCE).await?;
            removed = events.last().map_or(removed, |last| last.number);
            let mut batch = WriteBatch::new();
            events.iter().for_each(|event| batch.delete(event_key(job, event.number)));
            if events.is_empty() {
                ["job", "stop", "end"].iter().for_each(|kind| batch.delete(key(kind, job)));
            }
            kept.in_time("write to", async { kept.db.write(batch).await.map(drop) }).await?;
            if events.is_empty() {
                return Ok(());
            }
        }
    }

    /// Makes sure that no later coordinator has taken over: a write, which the store refuses if one has. What is
    /// done at once after this returns was done by the one that reigns.
    ///
    /// # Errors
    /// Another one reigns, or the store fails.
    pub async fn still_reigns(&self) -> Result<(), JournalError> {
        match &self.kept {
            Some(_) => self.reign().await,
            None => Ok(()),
        }
    }

    /// Waits until nothing can be written any more: another coordinator reigns, or the database has given up. None once
    /// the journal was closed; one that keeps nothing waits for ever.
    pub async fn fallen(&self) -> Option<JournalError> {
        let Some(kept) = &self.kept else { return std::future::pending().await };
        let mut status = kept.db.subscribe();
        // The database lives as long as this does.
        let reason = status.wait_for(|status| status.close_reason.is_some()).await.ok()?.close_reason?;
        match reason {
            CloseReason::Clean => None,
            CloseReason::Fenced => Some(kept.deposed().await),
            _ => Some(JournalError::Store {
                doing: "write to",
                url: kept.place.url(),
                reason: "the database has stopped, see the log for why; start the coordinator again".to_owned(),
            }),
        }
    }

    /// Whether it takes nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.db.subscribe().borrow().close_reason.is_some())
    }

    /// Makes everything durable and ends.
    ///
    /// # Errors
    /// The store fails.
    pub async fn close(&self) -> Result<(), JournalError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        kept.in_time("write to", kept.db.close()).await
    }

    async fn reign(&self) -> Result<(), JournalError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut batch = WriteBatch::new();
        batch.put(TERM, encode(&TermRecord { term: self.term }));
        kept.write_durably(batch).await
    }
}

impl Kept {
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
        match timeout(PATIENCE, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.explain(doing, &error).await),
            Err(_) => Err(slow(doing, &self.place)),
        }
    }

    async fn explain(&self, doing: &'static str, error: &slatedb::Error) -> JournalError {
        match error.kind() {
            ErrorKind::Closed(CloseReason::Fenced) => self.deposed().await,
            _ => JournalError::Store { doing, url: self.place.url(), reason: error.to_string() },
        }
    }

    fn foreign(&self, key: &[u8], reason: String) -> JournalError {
        JournalError::Foreign { key: String::from_utf8_lossy(key).into_owned(), url: self.place.url(), reason }
    }

    /// Another coordinator reigns; which, it writes down soon after it has taken over. Where none has, the store is at fault.
    async fn deposed(&self) -> JournalError {
        let look = async {
            loop {
                match self.newest_term().await {
                    Some(term) if term > self.term => return term,
                    _ => sleep(Duration::from_millis(100)).await,
                }
            }
        };
        match timeout(WHO, look).await {
            Ok(by) => JournalError::Deposed { state: self.state.url(), by },
            Err(_) => JournalError::Store {
                doing: "write to",
                url: self.place.url(),
                reason: "the store says that another coordinator has opened it, but none has written its term; start this one \
                         again if there is no other"
                    .to_owned(),
            },
        }
    }

    /// The term on the store, whoever wrote it: what this coordinator has open ends where another one began.
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
struct Opening(slatedb::Error);

impl Transient for Opening {
    /// An answer of the store that was cut short looks like anything, but for those who came at the same time.
    fn is_transient(&self) -> bool {
        !matches!(self.0.kind(), ErrorKind::Closed(_) | ErrorKind::Invalid)
    }
}

/// What the database removes of its own. A folder cannot write over a file only if it is as it was, which guards a server's lists
/// against whoever stood still; its lists are kept for so long instead.
fn garbage(place: &Store, lists_kept: Duration) -> GarbageCollectorOptions {
    let default = GarbageCollectorOptions::default();
    if place.local_folder().is_none() {
        return default;
    }
    let lists = GarbageCollectorDirectoryOptions { min_age: lists_kept, ..GarbageCollectorDirectoryOptions::default() };
    GarbageCollectorOptions {
        manifest_options: Some(lists),
        compactions_options: Some(lists),
        boundary_files_enabled: false,
        ..default
    }
}

fn slow(doing: &'static str, place: &Store) -> JournalError {
    JournalError::Slow { doing, url: place.url(), seconds: PATIENCE.as_secs() }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("place", &self.place.url()).field("term", &self.term).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
