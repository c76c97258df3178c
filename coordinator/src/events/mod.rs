//! The events of one job: numbered, appended by its task, read by any number of watchers.
//!
//! Invariants: an event is never changed or taken back; a watcher sees every event after the number it began at, in order,
//! exactly once, however slow it is (it reads from the log, nothing is queued for it); the last event of a log that is over, and
//! no other, says how the job finished; watchers of such a log end once they have read it through.
//!
//! Numbers count from 1. Where a journal keeps the events, those of a later reign begin at the next multiple of 2³², so that they
//! are above all that anybody has seen, even if the last ones before a crash are lost. Memory then holds only what the journal
//! has not taken yet and the newest [`TAIL`] of the others: a task hands them over in order, and [`EventLog::room`] holds back
//! whoever makes them faster than the store takes them. How a job finished is told once it is durable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use antiphon_core::event::{Finished, JobEvent};
use antiphon_core::ids::{JobId, Term};
use tokio::sync::watch;

use crate::journal::{Event, Journal, JournalError};

/// Events that stay in memory although the journal has them.
pub const TAIL: usize = 1024;
/// Before events are offered again to a journal that did not take them.
const PAUSE: Duration = Duration::from_millis(500);
/// Events that may wait for the journal before whoever makes them has to.
const QUEUE: u64 = 4096;
/// Events that the journal takes, or a watcher reads from it, at once.
const BATCH: usize = 256;

/// A job's log. Clones share it.
#[derive(Debug, Clone)]
pub struct EventLog {
    tail: Arc<Mutex<Tail>>,
    progress: Arc<watch::Sender<Progress>>,
    kept: Option<Arc<KeptIn>>,
}

#[derive(Debug)]
struct KeptIn {
    journal: Journal,
    job: JobId,
}

/// The events in memory.
#[derive(Debug)]
struct Tail {
    /// The number of the first of them.
    first: u64,
    events: VecDeque<Arc<str>>,
    /// How the job finished, once its last event is here.
    finished: Option<Finished>,
    /// Nothing is appended any more.
    closed: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The number of the last event there is.
    appended: u64,
    /// The number of the last one that may be told of.
    last: u64,
    /// The number of the last one that the journal has.
    written: u64,
    end: Option<End>,
    /// The journal takes nothing any more.
    lost: bool,
}

/// Why nothing follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The job is over.
    Finished,
    /// The coordinator ends before the job does.
    Left,
}

/// An event that was not appended.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The job is over.
    #[error("the job's events are closed")]
    Closed,
    /// The event does not serialise.
    #[error("the event is not fit for JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Why a watcher is told nothing more although the job is not over.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The coordinator ends.
    #[error("the coordinator ends, and the job goes on with the next one")]
    Left,
    /// Older events cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The number before the first event of a reign.
#[must_use]
pub fn before_reign(term: Term) -> u64 {
    term.0.saturating_sub(1) << 32
}

impl Default for EventLog {
    /// A log in memory.
    fn default() -> Self {
        Self::beginning(0, None)
    }
}

impl EventLog {
    /// A log whose events `journal` keeps; those of earlier reigns are there. In memory, if it keeps nothing.
    #[must_use]
    pub fn of(journal: &Journal, job: &JobId) -> Self {
        if !journal.is_durable() {
            return Self::default();
        }
        let kept = Arc::new(KeptIn { journal: journal.clone(), job: job.clone() });
        let log = Self::beginning(before_reign(journal.term()), Some(kept));
        tokio::spawn(log.clone().hand_over());
        log
    }

    /// The log of a job that finished in an earlier reign with the event numbered `last`.
    #[must_use]
    pub fn finished(journal: &Journal, job: &JobId, last: u64) -> Self {
        let log = Self::beginning(last, Some(Arc::new(KeptIn { journal: journal.clone(), job: job.clone() })));
        log.tail().closed = true;
        log.progress.send_modify(|progress| progress.end = Some(End::Finished));
        log
    }

    fn beginning(after: u64, kept: Option<Arc<KeptIn>>) -> Self {
        let tail = Tail { first: after + 1, events: VecDeque::new(), finished: None, closed: false };
        let progress = Progress { appended: after, last: after, written: after, ..Progress::default() };
        Self { tail: Arc::new(Mutex::new(tail)), progress: Arc::new(watch::Sender::new(progress)), kept }
    }

    /// Appends an event and returns its number. [`JobEvent::Finished`] closes the log.
    ///
    /// # Errors
    /// The log is closed, or the event does not serialise.
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
        let (finished, kept) = (tail.closed, self.kept.is_some());
        self.progress.send_modify(|progress| {
            progress.appended = number;
            // How a job finished is told once the journal has it.
            if !(finished && kept) {
                progress.last = number;
                progress.end = finished.then_some(End::Finished);
            }
        });
        Ok(number)
    }

    /// As [`EventLog::append`] of an event that the journal has already.
    pub(crate) fn append_written(&self, event: &Event) {
        let mut tail = self.tail();
        tail.events.push_back(Arc::clone(&event.json));
        self.progress.send_modify(|progress| {
            (progress.appended, progress.last, progress.written) = (event.number, event.number, event.number);
        });
    }

    /// Closes the log. One that does not say how the job finished is made to, so that every watcher is told.
    ///
    /// # Errors
    /// The event does not serialise; the log is closed all the same.
    pub fn close(&self, finished: impl FnOnce() -> Finished) -> Result<(), EventError> {
        if self.tail().closed {
            return Ok(());
        }
        match self.append(&JobEvent::Finished(finished())) {
            // Somebody else closed it meanwhile.
            Ok(_) | Err(EventError::Closed) => Ok(()),
            Err(error) => {
                self.end(End::Finished);
                Err(error)
            }
        }
    }

    /// Closes the log of a job that is not over: the next coordinator goes on with it. Watchers are told so.
    pub fn leave(&self) {
        if !self.tail().closed {
            self.end(End::Left);
        }
    }

    fn end(&self, end: End) {
        self.tail().closed = true;
        self.progress.send_modify(|progress| progress.end = Some(end));
    }

    /// Waits until the journal has everything that was appended, or takes nothing any more.
    pub async fn handed_over(&self) {
        if self.kept.is_some() {
            self.until(|progress| progress.lost || progress.written == progress.appended).await;
        }
    }

    /// Waits until there is room for more events.
    pub async fn room(&self) {
        if self.is_full() {
            self.until(|progress| !progress.is_full()).await;
        }
    }

    async fn until(&self, reached: impl FnMut(&Progress) -> bool) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as this does.
        let _progress = progress.wait_for(reached).await;
    }

    /// Whether it is told how the job finished: where a journal is kept, only when that has it.
    #[must_use]
    pub fn tells_of_the_end(&self) -> bool {
        let progress = self.progress.borrow();
        progress.end == Some(End::Finished) && progress.last == progress.appended
    }

    /// Whether whoever makes events has to wait for the journal.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kept.is_some() && self.progress.borrow().is_full()
    }

    /// The number of the last event, 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.progress.borrow().last
    }

    /// Reads the events numbered above `after`, then those to come.
    #[must_use]
    pub fn watch(&self, after: u64) -> EventWatcher {
        EventWatcher {
            tail: Arc::clone(&self.tail),
            progress: self.progress.subscribe(),
            kept: self.kept.clone(),
            page: VecDeque::new(),
            seen: after,
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands events over to the journal until the log is closed and read through, or the journal takes nothing any more.
    async fn hand_over(self) {
        let Some(kept) = &self.kept else { return };
        let mut progress = self.progress.subscribe();
        loop {
            let to_do = progress.wait_for(|p| p.appended > p.written || p.end.is_some()).await.map(|p| *p);
            let Ok(Progress { appended, written, .. }) = to_do else { return };
            if appended == written {
                return;
            }
            let (batch, finished) = self.tail().batch(written, appended);
            match kept.journal.append(&kept.job, &batch, finished.as_ref()).await {
                Ok(()) => self.written(written + batch.len() as u64, finished.is_some()),
                Err(error @ (JournalError::Slow { .. } | JournalError::Store { .. })) if !kept.journal.is_closed() => {
                    tracing::warn!(job = %kept.job, %error, "events wait for the store");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(job = %kept.job, %error, "events are lost");
                    self.progress.send_modify(|progress| {
                        progress.lost = true;
                        progress.end.get_or_insert(End::Left);
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
    /// The next events after number `written`, up to `appended`, and how the job finished if they say so.
    fn batch(&self, written: u64, appended: u64) -> (Vec<Event>, Option<Finished>) {
        let until = appended.min(written + BATCH as u64);
        let event = |number: u64| Some(Event { number, json: self.event(number)? });
        let batch = (written + 1..=until).filter_map(event).collect();
        // It may have been appended since `appended` was read: then it comes with the next batch.
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
        self.appended - self.written >= QUEUE && !self.lost
    }
}

/// Reads a log from a place on, at its own pace.
#[derive(Debug)]
pub struct EventWatcher {
    tail: Arc<Mutex<Tail>>,
    progress: watch::Receiver<Progress>,
    kept: Option<Arc<KeptIn>>,
    /// Read from the journal, and not told of yet.
    page: VecDeque<Event>,
    seen: u64,
}

impl EventWatcher {
    /// The next event; None once the job is over and its log read through. Cancelling it loses nothing.
    ///
    /// # Errors
    /// The coordinator ends before the job does, or the journal cannot be read.
    pub async fn next(&mut self) -> Result<Option<Event>, WatchError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.seen = event.number;
                return Ok(Some(event));
            }
            let seen = self.seen;
            let progress = self.progress.wait_for(|p| p.last > seen || p.end.is_some()).await.ok().map(|p| *p);
            // A log whose every writer is gone is as good as closed.
            let progress = progress.unwrap_or_else(|| *self.progress.borrow());
            if progress.last <= seen {
                return if progress.end == Some(End::Left) { Err(WatchError::Left) } else { Ok(None) };
            }
            let (first, next) = {
                let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
                (tail.first, tail.event(seen + 1))
            };
            if let Some(json) = next {
                self.seen += 1;
                return Ok(Some(Event { number: self.seen, json }));
            }
            let kept = self.kept.as_ref().filter(|_| seen + 1 < first);
            let page = match kept {
                Some(kept) => kept.journal.events(&kept.job, (seen, first), BATCH).await?,
                None => Vec::new(),
            };
            if page.is_empty() {
                // Numbers between two reigns that nothing has.
                self.seen = first - 1;
            }
            self.page = page.into();
        }
    }
}

#[cfg(test)]
mod tests;
