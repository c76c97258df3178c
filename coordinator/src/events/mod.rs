//! The events of one job. They are numbered, its task appends them, and any number of watchers read them.
//!
//! Invariants: an event is never changed or removed; a watcher sees every event after its start, in order and exactly
//! once, at any speed (it reads from the log, and nothing is queued for it); only the last event of a finished log says
//! how the job ended; watchers of such a log end after they have read all of it.
//!
//! Numbers count from 1. If a journal persists the events, those of a later term begin at the next multiple of 2³². So
//! they are larger than all numbers that a watcher has seen, even if a crash loses the last events. Memory then holds
//! only events that are not persisted yet, and the newest [`TAIL`] persisted ones. A task persists events in order, and
//! [`EventLog::wait_for_capacity`] slows down a job that appends them faster than the store writes them. Watchers see
//! the end of a job only after it is durable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use antiphon_core::event::{Finished, JobEvent};
use antiphon_core::ids::{JobId, Term};
use tokio::sync::watch;

use crate::journal::{Event, Journal, JournalError};

/// The number of persisted events that stay in memory.
pub const TAIL: usize = 1024;
/// The pause before a failed write to the journal is retried.
const PAUSE: Duration = Duration::from_millis(500);
/// The number of events that may wait for the journal before the job waits.
const QUEUE: u64 = 4096;
/// The number of events that are written to or read from the journal at once.
const BATCH: usize = 256;

/// A job's log. Clones share it.
#[derive(Debug, Clone)]
pub struct EventLog {
    tail: Arc<Mutex<Tail>>,
    progress: Arc<watch::Sender<Progress>>,
    persisted: Option<Arc<Persisted>>,
}

#[derive(Debug)]
struct Persisted {
    journal: Journal,
    job: JobId,
}

/// The events in memory.
#[derive(Debug)]
struct Tail {
    /// The number of the first event in memory.
    first: u64,
    events: VecDeque<Arc<str>>,
    /// How the job ended, after its last event was appended.
    finished: Option<Finished>,
    /// Whether no further event is appended.
    closed: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The number of the last event.
    appended: u64,
    /// The number of the last event that watchers may see.
    last: u64,
    /// The number of the last persisted event.
    written: u64,
    end: Option<End>,
    /// Whether the journal is closed for events.
    failed: bool,
}

/// Why no event follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The job is over.
    Finished,
    /// The coordinator ends before the job does.
    Suspended,
}

/// Why an event was not appended.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The job is over.
    #[error("the job is over and accepts no further events")]
    Closed,
    /// The event cannot be serialised.
    #[error("the event cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Why a watcher receives no further events although the job is not over.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The coordinator ends.
    #[error("the coordinator shuts down, and the next one resumes the job")]
    Suspended,
    /// Older events cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The number before the first event of a term.
#[must_use]
pub fn before_term(term: Term) -> u64 {
    term.0.saturating_sub(1) << 32
}

impl Default for EventLog {
    /// A log in memory.
    fn default() -> Self {
        Self::beginning(0, None)
    }
}

impl EventLog {
    /// A log whose events `journal` persists, after those of earlier terms. The log is in memory only if the journal
    /// persists nothing.
    #[must_use]
    pub fn open(journal: &Journal, job: &JobId) -> Self {
        if !journal.is_durable() {
            return Self::default();
        }
        let persisted = Arc::new(Persisted { journal: journal.clone(), job: job.clone() });
        let log = Self::beginning(before_term(journal.term()), Some(persisted));
        tokio::spawn(log.clone().persist());
        log
    }

    /// The log of a job that ended in an earlier term. `last` is the number of its last event.
    #[must_use]
    pub fn finished(journal: &Journal, job: &JobId, last: u64) -> Self {
        let log = Self::beginning(last, Some(Arc::new(Persisted { journal: journal.clone(), job: job.clone() })));
        log.tail().closed = true;
        log.progress.send_modify(|progress| progress.end = Some(End::Finished));
        log
    }

    fn beginning(after: u64, persisted: Option<Arc<Persisted>>) -> Self {
        let tail = Tail { first: after + 1, events: VecDeque::new(), finished: None, closed: false };
        let progress = Progress { appended: after, last: after, written: after, ..Progress::default() };
        Self { tail: Arc::new(Mutex::new(tail)), progress: Arc::new(watch::Sender::new(progress)), persisted }
    }

    /// Appends an event and returns its number. [`JobEvent::Finished`] closes the log.
    ///
    /// # Errors
    /// If the log is closed, or the event cannot be serialised.
    pub fn append(&self, event: &JobEvent) -> Result<u64, EventError> {
        let json: Arc<str> = serde_json::to_string(event)?.into();
        let mut tail = self.tail();
        if tail.closed {
            return Err(EventError::Closed);
        }
        let number = tail.first + tail.events.len() as u64;
        tail.events.push_back(json);
        if let JobEvent::Finished(finished) = event {
            tail.closed = true;
            tail.finished = Some(finished.clone());
        }
        let (finished, persisted) = (tail.closed, self.persisted.is_some());
        self.progress.send_modify(|progress| {
            progress.appended = number;
            // Watchers see the end of a job only after it is persisted.
            if !(finished && persisted) {
                progress.last = number;
                progress.end = finished.then_some(End::Finished);
            }
        });
        Ok(number)
    }

    /// As [`EventLog::append`], for an event that is already persisted.
    pub(crate) fn append_persisted(&self, event: &Event) {
        let mut tail = self.tail();
        tail.events.push_back(Arc::clone(&event.json));
        self.progress.send_modify(|progress| {
            (progress.appended, progress.last, progress.written) = (event.number, event.number, event.number);
        });
    }

    /// Closes the log. If it does not say how the job ended, appends an event that does, for the watchers.
    ///
    /// # Errors
    /// If the event cannot be serialised. The log is closed anyway.
    pub fn close(&self, finished: impl FnOnce() -> Finished) -> Result<(), EventError> {
        if self.tail().closed {
            return Ok(());
        }
        match self.append(&JobEvent::Finished(finished())) {
            // It was closed in the meantime.
            Ok(_) | Err(EventError::Closed) => Ok(()),
            Err(error) => {
                self.end(End::Finished);
                Err(error)
            }
        }
    }

    /// Closes the log of a job that the next coordinator resumes, and reports this to watchers.
    pub fn suspend(&self) {
        if !self.tail().closed {
            self.end(End::Suspended);
        }
    }

    fn end(&self, end: End) {
        self.tail().closed = true;
        self.progress.send_modify(|progress| progress.end = Some(end));
    }

    /// Waits until all appended events are persisted, or the journal is closed.
    pub async fn wait_until_persisted(&self) {
        if self.persisted.is_some() {
            self.until(|progress| progress.failed || progress.written == progress.appended).await;
        }
    }

    /// Waits for the journal if too many events are not persisted yet.
    pub async fn wait_for_capacity(&self) {
        if self.is_full() {
            self.until(|progress| !progress.is_full()).await;
        }
    }

    async fn until(&self, reached: impl FnMut(&Progress) -> bool) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as this does.
        let _progress = progress.wait_for(reached).await;
    }

    /// Whether watchers can see the end of the job. With a durable journal, they can only after the end is persisted.
    #[must_use]
    pub fn has_published_end(&self) -> bool {
        let progress = self.progress.borrow();
        progress.end == Some(End::Finished) && progress.last == progress.appended
    }

    /// Whether the job has to wait for the journal.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.persisted.is_some() && self.progress.borrow().is_full()
    }

    /// The number of the last event, 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.progress.borrow().last
    }

    /// Reads the events with numbers above `after`, then future events.
    #[must_use]
    pub fn watch(&self, after: u64) -> EventWatcher {
        EventWatcher {
            tail: Arc::clone(&self.tail),
            progress: self.progress.subscribe(),
            persisted: self.persisted.clone(),
            page: VecDeque::new(),
            seen: after,
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes events to the journal until the log is closed and all events are written, or until the journal is closed.
    async fn persist(self) {
        let Some(persisted) = &self.persisted else { return };
        let mut progress = self.progress.subscribe();
        loop {
            let to_do = progress.wait_for(|p| p.appended > p.written || p.end.is_some()).await.map(|p| *p);
            let Ok(Progress { appended, written, .. }) = to_do else { return };
            if appended == written {
                return;
            }
            let (batch, finished) = self.tail().batch(written, appended);
            match persisted.journal.append(&persisted.job, &batch, finished.as_ref()).await {
                Ok(()) => self.written(written + batch.len() as u64, finished.is_some()),
                Err(error @ (JournalError::Slow { .. } | JournalError::Store { .. }))
                    if !persisted.journal.is_closed() =>
                {
                    tracing::warn!(
                        job = %persisted.job,
                        %error,
                        "the events of a job cannot be written now; the coordinator retries"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(
                        job = %persisted.job,
                        %error,
                        "the last events of a job cannot be written and are lost"
                    );
                    self.progress.send_modify(|progress| {
                        progress.failed = true;
                        progress.end.get_or_insert(End::Suspended);
                    });
                    return;
                }
            }
        }
    }

    fn written(&self, number: u64, finished: bool) {
        let mut tail = self.tail();
        while tail.events.len() > TAIL && tail.first <= number {
            tail.events.pop_front();
            tail.first += 1;
        }
        self.progress.send_modify(|progress| {
            progress.written = number;
            if finished {
                progress.last = number;
                progress.end = Some(End::Finished);
            }
        });
    }
}

impl Tail {
    /// The next events after number `written`, up to `appended`, and how the job ended, if they include the last event.
    fn batch(&self, written: u64, appended: u64) -> (Vec<Event>, Option<Finished>) {
        let until = appended.min(written + BATCH as u64);
        let event = |number: u64| Some(Event { number, json: self.event(number)? });
        let batch = (written + 1..=until).filter_map(event).collect();
        // The last event may have been appended since `appended` was read. Then the next batch contains it.
        let last = self.first + self.events.len() as u64 - 1;
        (batch, self.finished.clone().filter(|_| until == last))
    }

    fn event(&self, number: u64) -> Option<Arc<str>> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.events.get(at).cloned()
    }
}

impl Progress {
    fn is_full(&self) -> bool {
        self.appended - self.written >= QUEUE && !self.failed
    }
}

/// Reads a log from a number, at its own pace.
#[derive(Debug)]
pub struct EventWatcher {
    tail: Arc<Mutex<Tail>>,
    progress: watch::Receiver<Progress>,
    persisted: Option<Arc<Persisted>>,
    /// Events that were read from the journal and not returned yet.
    page: VecDeque<Event>,
    seen: u64,
}

impl EventWatcher {
    /// The next event; None after the last event of a finished job. Cancelling this loses no event.
    ///
    /// # Errors
    /// If the coordinator ends before the job, or the journal cannot be read.
    pub async fn next(&mut self) -> Result<Option<Event>, WatchError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.seen = event.number;
                return Ok(Some(event));
            }
            let seen = self.seen;
            let progress = self.progress.wait_for(|p| p.last > seen || p.end.is_some()).await.ok().map(|p| *p);
            // A log without a writer is closed.
            let progress = progress.unwrap_or_else(|| *self.progress.borrow());
            if progress.last <= seen {
                return if progress.end == Some(End::Suspended) { Err(WatchError::Suspended) } else { Ok(None) };
            }
            let (first, next) = {
                let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
                (tail.first, tail.event(seen + 1))
            };
            if let Some(json) = next {
                self.seen += 1;
                return Ok(Some(Event { number: self.seen, json }));
            }
            let persisted = self.persisted.as_ref().filter(|_| seen + 1 < first);
            let page = match persisted {
                Some(persisted) => persisted.journal.events(&persisted.job, seen + 1..first, BATCH).await?,
                None => Vec::new(),
            };
            if page.is_empty() {
                // No event has a number between two terms.
                self.seen = first - 1;
            }
            self.page = page.into();
        }
    }
}

#[cfg(test)]
mod tests;
