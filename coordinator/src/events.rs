//! The events of one job: numbered 1, 2, 3 …, appended by its task, read by any number of watchers.
//!
//! Invariants: an event is never changed or taken back; a watcher sees every event after the number it began at, in order,
//! exactly once, however slow it is (it reads from the log, nothing is queued for it); the last event of a closed log, and no
//! other, says how the job finished; watchers of a closed log end once they have read it through.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use antiphon_core::event::{Finished, JobEvent};
use tokio::sync::watch;

/// One event as it is kept and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// From 1.
    pub number: u64,
    /// One JSON object on one line.
    pub json: Arc<str>,
}

/// A job's log. Clones share it.
#[derive(Debug, Clone)]
pub struct EventLog {
    entries: Arc<Mutex<Vec<Arc<str>>>>,
    progress: Arc<watch::Sender<Progress>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    last: u64,
    closed: bool,
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

impl Default for EventLog {
    fn default() -> Self {
        Self { entries: Arc::default(), progress: Arc::new(watch::Sender::new(Progress::default())) }
    }
}

impl EventLog {
    /// Appends an event and returns its number. [`JobEvent::Finished`] closes the log.
    ///
    /// # Errors
    /// The log is closed, or the event does not serialise.
    pub fn append(&self, event: &JobEvent) -> Result<u64, EventError> {
        let json: Arc<str> = serde_json::to_string(event)?.into();
        let mut entries = self.entries();
        if self.progress.borrow().closed {
            return Err(EventError::Closed);
        }
        entries.push(json);
        let progress = Progress { last: entries.len() as u64, closed: matches!(event, JobEvent::Finished(_)) };
        self.progress.send_replace(progress);
        Ok(progress.last)
    }

    /// Closes the log. One that does not say how the job finished is made to, so that every watcher is told.
    ///
    /// # Errors
    /// The event does not serialise; the log is closed all the same.
    pub fn close(&self, finished: impl FnOnce() -> Finished) -> Result<(), EventError> {
        if self.progress.borrow().closed {
            return Ok(());
        }
        match self.append(&JobEvent::Finished(finished())) {
            // Somebody else closed it meanwhile.
            Ok(_) | Err(EventError::Closed) => Ok(()),
            Err(error) => {
                let _entries = self.entries();
                self.progress.send_modify(|progress| progress.closed = true);
                Err(error)
            }
        }
    }

    /// The number of the last event, 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.progress.borrow().last
    }

    /// Reads the events numbered above `after`, then those to come.
    #[must_use]
    pub fn watch(&self, after: u64) -> EventWatcher {
        EventWatcher { entries: Arc::clone(&self.entries), progress: self.progress.subscribe(), seen: after }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<str>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a log from a place on, at its own pace.
#[derive(Debug)]
pub struct EventWatcher {
    entries: Arc<Mutex<Vec<Arc<str>>>>,
    progress: watch::Receiver<Progress>,
    seen: u64,
}

impl EventWatcher {
    /// The next event; None once the log is closed and read through. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        let seen = self.seen;
        let progress = self.progress.wait_for(|p| p.last > seen || p.closed).await.ok().map(|p| *p);
        // A log whose every writer is gone is as good as closed.
        let last = progress.map_or_else(|| self.progress.borrow().last, |p| p.last);
        if last <= seen {
            return None;
        }
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let json = Arc::clone(entries.get(usize::try_from(seen).ok()?)?);
        drop(entries);
        self.seen += 1;
        Some(Event { number: self.seen, json })
    }
}

#[cfg(test)]
mod tests {
    use antiphon_core::event::FinalState;
    use antiphon_core::ids::Turn;

    use super::*;

    async fn read_all(mut watcher: EventWatcher) -> Vec<(u64, String)> {
        let mut events = Vec::new();
        while let Some(event) = watcher.next().await {
            events.push((event.number, event.json.to_string()));
        }
        events
    }

    fn waiting(seconds: f64) -> JobEvent {
        JobEvent::Waiting { job: "j".try_into().expect("an id"), reason: "for a test".to_owned(), seconds }
    }

    fn finished(reason: &str) -> Finished {
        Finished {
            job: "j".try_into().expect("an id"),
            state: FinalState::Failed,
            reason: Some(reason.to_owned()),
            turn: Turn(0),
            checkpoint: None,
            digest: None,
            best: None,
            evaluation: None,
        }
    }

    #[tokio::test]
    async fn early_and_late_watchers_see_the_same() {
        let log = EventLog::default();
        let early = tokio::spawn(read_all(log.watch(0)));
        for n in 0..999_u32 {
            assert_eq!(log.append(&waiting(n.into())).expect("the log is open"), u64::from(n) + 1);
            if n % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        log.append(&JobEvent::Finished(finished("done"))).expect("the log is open");
        let late = read_all(log.watch(0)).await;
        assert_eq!(late.len(), 1000);
        assert_eq!(late[998].0, 999);
        assert!(late[998].1.contains("998"), "{}", late[998].1);
        assert_eq!(early.await.expect("the watcher ends"), late);
    }

    #[tokio::test]
    async fn a_watcher_begins_after_the_number_it_names() {
        let log = EventLog::default();
        for seconds in [1.0, 2.0] {
            log.append(&waiting(seconds)).expect("the log is open");
        }
        log.close(|| finished("over")).expect("it closes");
        let last = read_all(log.watch(2)).await;
        assert_eq!(last.len(), 1);
        assert!(last[0].0 == 3 && last[0].1.contains("over"), "{last:?}");
        assert_eq!(read_all(log.watch(3)).await, []);
        assert_eq!(read_all(log.watch(u64::MAX)).await, []);
    }

    #[tokio::test]
    async fn a_job_finishes_once() {
        let log = EventLog::default();
        log.append(&JobEvent::Finished(finished("first"))).expect("the log is open");
        assert!(matches!(log.append(&waiting(1.0)), Err(EventError::Closed)));
        log.close(|| finished("second")).expect("closing twice is as good as once");
        let events = read_all(log.watch(0)).await;
        assert_eq!(events.len(), 1);
        assert!(events[0].1.contains("first"), "{events:?}");
    }
}
