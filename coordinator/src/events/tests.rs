//! Laws of logs in memory and of persisted logs.

use antiphon_core::event::FinalState;
use antiphon_core::ids::Turn;
use antiphon_store::storage::Store;

use super::*;

async fn read_all(mut watcher: EventWatcher) -> Vec<(u64, String)> {
    let mut events = Vec::new();
    while let Some(event) = watcher.next().await.expect("the log is in memory") {
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
        turns: None,
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

#[test]
fn the_journal_gets_the_end_of_a_job_with_its_last_event() {
    let log = EventLog::default();
    log.append(&waiting(1.0)).expect("the log is open");
    log.close(|| finished("over")).expect("it closes");
    let tail = log.tail();
    let told = |written, appended| {
        let (batch, finished) = tail.batch(written, appended);
        (batch.len(), finished.is_some())
    };
    // The persisting task had read the counters before the last event was appended.
    assert_eq!(told(0, 1), (1, false));
    assert_eq!((told(1, 2), told(0, 2)), ((1, true), (2, true)));
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

/// A log in a journal in memory, under a name that is unique to the test.
async fn persisted(name: &str) -> (Store, Journal, EventLog) {
    let state = Store::open(&format!("memory://events-{name}/state")).expect("memory opens");
    let journal = Journal::open(&state).await.expect("it opens");
    let log = EventLog::open(&journal, &job());
    (state, journal, log)
}

fn job() -> JobId {
    "j".try_into().expect("an id")
}

#[tokio::test]
async fn memory_holds_the_newest_events_and_watchers_see_all() {
    let (_state, _journal, log) = persisted("tail").await;
    let early = tokio::spawn(read_all(log.watch(0)));
    let all = QUEUE + 500;
    for n in 1..=all {
        assert_eq!(log.append(&waiting(n as f64)).expect("the log is open"), n);
        log.wait_for_capacity().await;
    }
    log.close(|| finished("done")).expect("it closes");
    log.wait_until_persisted().await;
    assert_eq!(log.tail().events.len(), TAIL);
    let late = read_all(log.watch(0)).await;
    assert!(late.iter().map(|(number, _)| *number).eq(1..=all + 1));
    assert!(late[41].1.contains("42.0"), "{}", late[41].1);
    assert_eq!(early.await.expect("the watcher ends"), late);
}

#[tokio::test]
async fn a_job_waits_for_a_journal_that_is_slower() {
    let (_state, _journal, log) = persisted("room").await;
    for n in 0..QUEUE {
        assert!(!log.is_full(), "after {n} events");
        log.append(&waiting(n as f64)).expect("the log is open");
    }
    assert!(log.is_full(), "the task that hands them over had no turn yet");
    log.wait_for_capacity().await;
    assert!(!log.is_full());
}

#[tokio::test]
async fn a_later_term_numbers_above_everything_and_misses_nothing() {
    let (state, journal, log) = persisted("terms").await;
    for seconds in [1.0, 2.0, 3.0] {
        log.append(&waiting(seconds)).expect("the log is open");
    }
    log.suspend();
    assert!(matches!(log.append(&waiting(4.0)), Err(EventError::Closed)));
    log.wait_until_persisted().await;
    let mut watcher = log.watch(2);
    assert_eq!(watcher.next().await.expect("it was told").map(|event| event.number), Some(3));
    let left = watcher.next().await.expect_err("the job is not over").to_string();
    assert_eq!(left, "the coordinator shuts down, and the next one resumes the job");
    journal.close().await.expect("it closes");

    let journal = Journal::open(&state).await.expect("it opens");
    let log = EventLog::open(&journal, &job());
    let first = before_term(Term(2)) + 1;
    assert_eq!(first, (1 << 32) + 1);
    let early = tokio::spawn(read_all(log.watch(0)));
    tokio::task::yield_now().await;
    assert_eq!(log.append(&waiting(5.0)).expect("the log is open"), first);
    log.close(|| finished("over")).expect("it closes");
    let numbers = |events: &[(u64, String)]| events.iter().map(|(number, _)| *number).collect::<Vec<u64>>();
    let all = read_all(log.watch(0)).await;
    assert_eq!(numbers(&all), [1, 2, 3, first, first + 1]);
    assert_eq!(early.await.expect("the watcher ends"), all);
    // A watcher saw more events of the previous term than were persisted.
    assert_eq!(numbers(&read_all(log.watch(7)).await), [first, first + 1]);
    journal.close().await.expect("it closes");

    let journal = Journal::open(&state).await.expect("it opens");
    let over = EventLog::finished(&journal, &job(), first + 1);
    assert_eq!((over.last(), read_all(over.watch(0)).await), (first + 1, all));
    assert_eq!(read_all(over.watch(first + 1)).await, []);
}

#[tokio::test]
async fn only_the_leader_tells_how_a_job_ended() {
    let (state, journal, log) = persisted("told").await;
    log.append(&waiting(1.0)).expect("the log is open");
    log.wait_until_persisted().await;
    journal.confirm_leadership().await.expect("no other coordinator is there");
    let newer = Journal::open(&state).await.expect("it opens");
    log.close(|| finished("too late")).expect("it closes");
    log.wait_until_persisted().await;
    let mut watcher = log.watch(1);
    watcher.next().await.expect_err("no watcher is told");
    assert_eq!(log.last(), 1);
    let persisted = newer.events(&job(), 1..u64::MAX, 9).await.expect("they are read");
    assert_eq!(persisted.len(), 1, "only what was durable before is there: {persisted:?}");
}
