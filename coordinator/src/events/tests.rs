//! Laws of a log in memory and of one that a journal keeps.

use antiphon_core::event::FinalState;
use antiphon_core::ids::Turn;

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
