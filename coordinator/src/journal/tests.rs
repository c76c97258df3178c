//! Laws of a journal, over a local folder and in memory.

use std::time::Duration;

use antiphon_core::event::FinalState;
use antiphon_core::ids::Turn;

use super::durable::{LISTS_RETAINED, garbage};
use super::*;

/// A place for a journal in each kind of store. It is removed with the folder.
fn places(name: &str) -> (tempfile::TempDir, [Store; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let local = Store::open(&folder.path().display().to_string()).expect("a path opens");
    (folder, [local, Store::open(&format!("memory://journal-{name}/state")).expect("memory opens")])
}

async fn open(state: &Store) -> Journal {
    Journal::open(state).await.expect("it opens")
}

fn id(job: &str) -> JobId {
    job.try_into().expect("an id")
}

fn record(job: &str, order: u64) -> JobRecord {
    JobRecord {
        job: id(job),
        name: "tiny".try_into().expect("a name"),
        order,
        submitted: 1_700_000_000,
        after: Some(Term(3)),
        resume: Some("memory://elsewhere/checkpoints/00000004".to_owned()),
        request: Some("r0123".try_into().expect("an id")),
        specification: "{}".to_owned(),
    }
}

fn events(numbers: std::ops::RangeInclusive<u64>) -> Vec<Event> {
    numbers.map(|number| Event { number, json: format!("{{\"event\":{number}}}").into() }).collect()
}

fn finished(job: &str) -> Finished {
    Finished {
        job: id(job),
        state: FinalState::Succeeded,
        reason: None,
        turn: Turn(8),
        turns: Some(8),
        checkpoint: None,
        digest: None,
        best: None,
        evaluation: None,
    }
}

#[test]
fn no_job_can_have_the_journals_folder() {
    JobId::try_from(FOLDER).expect_err("it is no job id");
}

#[tokio::test]
async fn one_that_keeps_nothing_takes_everything() {
    let journal = Journal::ephemeral();
    journal.add_job(&record("a", 0), &events(1..=1)[0]).await.expect("it takes it");
    journal.append(&id("a"), &events(2..=3), Some(&finished("a"))).await.expect("it takes them");
    journal.confirm_leadership().await.expect("no coordinator can fence it");
    assert_eq!((journal.term(), journal.jobs().await.expect("it has none")), (Term(1), Vec::new()));
}

#[tokio::test]
async fn every_opening_begins_a_later_term() {
    let (_folder, places) = places("terms");
    for state in places {
        for term in 1..=3 {
            let journal = open(&state).await;
            assert_eq!(journal.term(), Term(term), "{}", state.url());
            journal.close().await.expect("it closes");
        }
        // A coordinator that ends without closing the journal uses up a term too.
        drop(open(&state).await);
        assert_eq!(open(&state).await.term(), Term(5), "{}", state.url());
    }
}

#[tokio::test]
async fn acknowledged_jobs_survive_a_crash_in_order() {
    let (_folder, places) = places("jobs");
    for state in places {
        let journal = open(&state).await;
        for (order, job) in ["z", "a", "m"].into_iter().enumerate() {
            journal.add_job(&record(job, order as u64), &events(1..=1)[0]).await.expect("it is taken");
        }
        journal.request_stop(&id("a")).await.expect("it is noted");
        journal.append(&id("m"), &events(2..=4), Some(&finished("m"))).await.expect("it is told");
        // The journal is not closed: the next one finds what is in the store.
        let found = open(&state).await.jobs().await.expect("they can be read");
        let ended = found.iter().find_map(|job| job.end.as_ref()).map(|end| end.ended).expect("one is over");
        let end = EndRecord { term: Term(1), last_event: 4, finished: finished("m"), ended };
        let expected = [("z", 0, false, None), ("a", 1, true, None), ("m", 2, false, Some(end))];
        let expected: Vec<Recorded> = expected
            .into_iter()
            .map(|(job, order, stop, end)| Recorded { record: record(job, order), stop, end })
            .collect();
        assert_eq!(found, expected, "{}", state.url());
    }
}

#[tokio::test]
async fn events_of_one_job_are_read_in_pages_across_terms() {
    let (_folder, places) = places("events");
    let later = 1 << 32;
    for state in places {
        let journal = open(&state).await;
        // The ids of other jobs have the same prefix.
        for job in ["j", "j-1", "j1"] {
            journal.append(&id(job), &events(1..=10), None).await.expect("they are taken");
        }
        journal.close().await.expect("it closes");
        let journal = open(&state).await;
        journal.append(&id("j"), &events(later + 1..=later + 300), None).await.expect("they are taken");
        let read = async |after: u64, before: u64, at_most: usize| {
            let read = journal.events(&id("j"), after.saturating_add(1)..before, at_most).await.expect("they are read");
            read.iter().for_each(|event| assert_eq!(*event, events(event.number..=event.number)[0]));
            read.into_iter().map(|event| event.number).collect::<Vec<u64>>()
        };
        assert_eq!(read(0, 4, 100).await, [1, 2, 3]);
        assert_eq!(read(8, u64::MAX, 4).await, [9, 10, later + 1, later + 2]);
        assert_eq!(read(later + 298, u64::MAX, 4).await, [later + 299, later + 300]);
        for (after, before) in [(10, later + 1), (7, 8), (7, 3), (later + 300, u64::MAX), (u64::MAX, u64::MAX)] {
            assert_eq!(read(after, before, 4).await, [0; 0], "{after} to {before}");
        }
    }
}

#[tokio::test]
async fn an_older_one_is_refused_whatever_it_does_and_says_by_whom() {
    let (_folder, places) = places("fenced");
    for state in places {
        let older = open(&state).await;
        older.confirm_leadership().await.expect("no other coordinator is there");
        let newer = open(&state).await;
        let url = state.url();
        let expected = format!("another coordinator (term 2) has taken over {url}; this one stops");
        let refused = [
            older.confirm_leadership().await,
            older.add_job(&record("late", 0), &events(1..=1)[0]).await,
            older.request_stop(&id("late")).await,
            older.append(&id("late"), &events(1..=2), Some(&finished("late"))).await,
        ];
        for answer in refused {
            assert_eq!(answer.expect_err("another one is the leader").to_string(), expected);
        }
        assert_eq!(older.closed().await.expect("it was not closed").to_string(), expected);
        newer.confirm_leadership().await.expect("it is the leader");
        assert_eq!(newer.jobs().await.expect("they are read"), [], "{url}");
        assert_eq!(newer.events(&id("late"), 1..u64::MAX, 9).await.expect("they are read"), [], "{url}");
    }
}

#[tokio::test]
async fn an_older_one_notices_although_it_does_nothing() {
    let (_folder, places) = places("idle");
    for state in places {
        let older = open(&state).await;
        let _newer = open(&state).await;
        let closed = timeout(TIMEOUT, older.closed()).await.expect("it looks now and then");
        assert!(matches!(closed, Some(JournalError::Fenced { by: Term(2), .. })), "{closed:?}");
    }
}

#[tokio::test]
async fn a_journal_that_is_closed_reports_no_error() {
    let (_folder, [state, _]) = places("closed");
    let journal = open(&state).await;
    let watched = tokio::spawn({
        let journal = journal.clone();
        async move { journal.closed().await.map(|error| error.to_string()) }
    });
    journal.close().await.expect("it closes");
    assert_eq!(watched.await.expect("it does not panic"), None);
}

#[tokio::test]
async fn what_another_version_wrote_is_named_and_left_alone() {
    let (_folder, [state, _]) = places("foreign");
    let journal = open(&state).await;
    let durable = journal.durable.as_ref().expect("it is durable");
    for (job, value, reason) in [
        ("later", r#"{"version":3}"#, "its version is 3, but this program reads 2"),
        ("broken", "{", "EOF while parsing an object at line 1 column 1"),
        ("other", r#"{"version":2}"#, "missing field `job`"),
    ] {
        durable.db.put(key("job", &id(job)), value).await.expect("it is written");
        let error = journal.jobs().await.expect_err("it is not ours").to_string();
        let expected = format!(
            "`job/{job}` in the coordinator's journal in `{}/_coordinator` has another format than this version of \
             Antiphon writes ({reason}); start the version that wrote it, or give this coordinator another --state",
            state.url()
        );
        assert_eq!(error, expected);
        durable.db.delete(key("job", &id(job))).await.expect("it is removed");
    }
}

#[tokio::test]
async fn a_removed_job_leaves_nothing_and_takes_no_other_with_it() {
    let (_folder, places) = places("removed");
    for state in places {
        let journal = open(&state).await;
        for (order, job) in ["j", "j-1", "j1"].into_iter().enumerate() {
            journal.add_job(&record(job, order as u64), &events(1..=1)[0]).await.expect("it is taken");
            journal.request_stop(&id(job)).await.expect("it is noted");
            journal.append(&id(job), &events(2..=3000), Some(&finished(job))).await.expect("they are taken");
        }
        journal.remove_job(&id("j")).await.expect("it is removed");
        journal.close().await.expect("it closes");
        let journal = open(&state).await;
        let count = async |job| journal.events(&id(job), 1..u64::MAX, 5000).await.expect("they are read").len();
        assert_eq!([count("j").await, count("j-1").await, count("j1").await], [0, 3000, 3000], "{}", state.url());
        let found: Vec<String> =
            journal.jobs().await.expect("they can be read").iter().map(|job| job.record.job.to_string()).collect();
        assert_eq!(found, ["j-1", "j1"], "{}", state.url());
        journal.add_job(&record("j", 3), &events(1..=1)[0]).await.expect("its id is free");
        let found = journal.jobs().await.expect("they can be read").pop().expect("it is there");
        assert_eq!((found.stop, found.end), (false, None), "it is another job");
    }
}

#[tokio::test]
async fn in_a_folder_the_database_removes_old_lists() {
    let (_folder, [state, _]) = places("lists");
    let place = state.child(FOLDER);
    let lists = || std::fs::read_dir(place.child("manifest").url()).expect("they are there").count();
    let collect = async |durable| {
        let admin = slatedb::admin::AdminBuilder::new(place.prefix().clone(), Arc::clone(place.objects())).build();
        admin.run_gc_once(garbage(&place, durable)).await.expect("it looks");
    };
    // The guard file of lists can also be written only once in a folder.
    for round in 0..2 {
        for _ in 0..5 {
            open(&state).await.close().await.expect("it closes");
        }
        let before = lists();
        collect(LISTS_RETAINED).await;
        assert_eq!(lists(), before, "all are new");
        collect(Duration::ZERO).await;
        assert!(lists() < before, "round {round}: {before} are still there");
    }
    assert_eq!(open(&state).await.term(), Term(11), "nothing that counts is gone");
}
