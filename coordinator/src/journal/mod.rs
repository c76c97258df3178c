//! The coordinator's own state: the term, the jobs, their events and how they ended. It is a SlateDB database in a
//! folder of the object store, and outlives the process.
//!
//! Invariants: one coordinator writes at a time. Opening the journal takes a term above all earlier ones, durably. From
//! then on the store rejects the writes of earlier coordinators ([`JournalError::Fenced`]). A submission, a request to
//! stop and the end of a job are durable before the client sees an acknowledgement. Events become durable in order,
//! within a second: a crash may lose the last ones, but none in the middle. The end of a job becomes durable together
//! with its event.
//!
//! [`Journal::ephemeral`] persists nothing, for a coordinator that ends with its only job.

mod durable;
mod error;
mod record;

use std::ops::Range;
use std::sync::Arc;

use antiphon_core::event::{Finished, JobEvent};
use antiphon_core::ids::{JobId, Term, Turn};
use antiphon_store::storage::Store;
use slatedb::WriteBatch;
use tokio::time::timeout;

pub use durable::FOLDER;
pub use error::JournalError;
pub use record::{EndRecord, Event, JobRecord, Recorded};

use crate::clock;
use durable::{Durable, TIMEOUT};
use record::{StopRecord, TERM, TermRecord, encode, event_key, event_number, key};

/// The number of events that are read or removed at once.
const AT_ONCE: usize = 1024;

/// A coordinator's state. Clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    term: Term,
    durable: Option<Arc<Durable>>,
}

impl Journal {
    /// A journal that persists nothing. Its term is the first one.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self { term: Term(1), durable: None }
    }

    /// Opens the journal in the folder `state` and takes the next term, which fences the coordinator that had it open
    /// before.
    ///
    /// # Errors
    /// If the store fails, another version wrote the journal, or another coordinator has opened it in the meantime.
    pub async fn open(state: &Store) -> Result<Self, JournalError> {
        let durable = Durable::open(state).await?;
        let journal = Self { term: durable.term, durable: Some(Arc::new(durable)) };
        journal.write_term().await?;
        Ok(journal)
    }

    /// The term that opening the journal started.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether its contents outlive this process.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// All retained jobs, in order of submission.
    ///
    /// # Errors
    /// If the store fails, or another version wrote the journal.
    pub async fn jobs(&self) -> Result<Vec<Recorded>, JournalError> {
        let Some(durable) = &self.durable else { return Ok(Vec::new()) };
        // Three scans for any number of jobs, because no request is served before they are done.
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

    /// Adds a job with its first event. Both are durable when this returns.
    ///
    /// # Errors
    /// If the store fails. The job is then not added, or the next successful write removes it.
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
            // It is ordered after the first write. The error means that neither is written.
            let _neither = timeout(TIMEOUT, durable.db.write(batch)).await;
        }
        written
    }

    /// Records that a job was asked to stop. The record is durable when this returns.
    ///
    /// # Errors
    /// The store fails.
    pub async fn request_stop(&self, job: &JobId) -> Result<(), JournalError> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let mut batch = WriteBatch::new();
        batch.put(key("stop", job), encode(&StopRecord {}));
        durable.write_durably(batch).await
    }

    /// Appends events of a job, which must come in order. They can be read when this returns, and become durable soon.
    /// The last event comes with how the job ended (`finished`) and is durable when this returns.
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

    /// The first events of a job in this range of numbers, `at_most` of them.
    ///
    /// # Errors
    /// If the store fails, or another version wrote the journal.
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

    /// The turn of the newest checkpoint in a job's events. Reads all events.
    ///
    /// # Errors
    /// If the store fails, or another version wrote the journal.
    pub async fn newest_checkpoint(&self, job: &JobId) -> Result<Option<Turn>, JournalError> {
        let (mut newest, mut read) = (None, 0);
        loop {
            let events = self.events(job, read + 1..u64::MAX, AT_ONCE).await?;
            let Some(last) = events.last() else { return Ok(newest) };
            read = last.number;
            for event in &events {
                // An event that another version wrote is skipped.
                if let Ok(JobEvent::Checkpoint { turn, .. }) = serde_json::from_str(&event.json) {
                    newest = newest.max(Some(turn));
                }
            }
        }
    }

    /// Removes a finished job. Its events are removed first, so that after a crash the next coordinator finds the rest.
    ///
    /// # Errors
    /// If the store fails. Part of the job may then be removed already.
    pub async fn remove_job(&self, job: &JobId) -> Result<(), JournalError> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let mut removed = 0;
        loop {
            // It continues after the removed events, because the database scans removed rows until it has compacted
            // them.
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

    /// Confirms that no newer coordinator has taken over: the store would reject this write. An action right after it
    /// is the leader's.
    ///
    /// # Errors
    /// If another coordinator is the leader, or the store fails.
    pub async fn confirm_leadership(&self) -> Result<(), JournalError> {
        match &self.durable {
            Some(_) => self.write_term().await,
            None => Ok(()),
        }
    }

    /// Waits until the journal is closed for writes, because another coordinator is the leader or the database has
    /// failed. None if the journal was closed on purpose. For a journal that persists nothing, this never returns.
    pub async fn closed(&self) -> Option<JournalError> {
        let Some(durable) = &self.durable else { return std::future::pending().await };
        durable.closed().await
    }

    /// Whether it is closed for writes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.durable.as_ref().is_some_and(|durable| durable.is_closed())
    }

    /// Makes all writes durable, and closes the journal.
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

#[cfg(test)]
mod tests;
