//! Workers that round differently from the workers before them: the job reports and persists it.

use antiphon_store::checkpoints::Checkpoint;
use serde_json::{Value, json};

use super::fake_worker::{FINGERPRINT, FakeWorker, granted};
use super::jobs::of_kind;
use super::server::{Server, TINY};

const OTHER: u64 = FINGERPRINT + 1;
const THIRD: u64 = FINGERPRINT + 2;

fn told(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_tells_of_workers_that_round_otherwise_and_remembers() {
    let server = Server::start("numerics").await;
    let job = server.submit(TINY, "mixed").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    b.answer(assigned).await;
    let first = a.work_until_granted().await;
    a.answer(granted(first)).await;
    let second = b.work_until_granted().await;
    b.answer(granted(second)).await;
    a.work_until_granted().await;
    drop(a);
    server.waits_for(&job, "turn 2 is blocked: waiting for 1 `a` worker: 0 registered").await;
    let mut a = FakeWorker::named(&server, "other-a", "a").await.with_fingerprint(OTHER);
    tokio::join!(a.work(), b.work());
    let finished = server.finished(&job).await;
    drop((a, b));
    server.no_worker_is_registered().await;
    let events = server.events(&job, 0).await;
    let [started] = of_kind(&events, "started")[..] else { panic!("it starts once: {events:?}") };
    for modality in ["a", "b"] {
        assert_eq!(started["modalities"][modality]["fingerprint"], told(FINGERPRINT), "{started}");
    }
    let [mixed] = of_kind(&events, "mixed_numerics")[..] else { panic!("it says so: {events:?}") };
    let expected = json!({
        "event": "mixed_numerics", "job": "mixed", "turn": 2, "modality": "a", "worker": "other-a",
        "fingerprint": told(OTHER), "before": [told(FINGERPRINT)],
    });
    assert_eq!(*mixed, expected);

    let checkpoint = finished["checkpoint"].as_str().expect("there is one");
    let manifest = Checkpoint::open_url(checkpoint).await.expect("it opens").manifest().clone();
    let numerics: Value = serde_json::to_value(manifest.numerics).expect("JSON");
    assert_eq!(numerics, json!({"a": [told(FINGERPRINT), told(OTHER)], "b": [told(FINGERPRINT)]}));

    // After a resume, fingerprints from before are not reported; new ones are.
    let longer = TINY.replace("epochs: 2", "epochs: 3");
    let job = server.submit_from(&longer, "longer", Some(checkpoint.to_owned())).await.expect("it is taken");
    let mut a = FakeWorker::named(&server, "a-again", "a").await.with_fingerprint(OTHER);
    let mut b = FakeWorker::named(&server, "third-b", "b").await.with_fingerprint(THIRD);
    tokio::join!(a.work(), b.work());
    let events = server.events(&job, 0).await;
    let [mixed] = of_kind(&events, "mixed_numerics")[..] else { panic!("one is new: {events:?}") };
    assert_eq!((&mixed["worker"], &mixed["before"]), (&json!("third-b"), &json!([told(FINGERPRINT), told(OTHER)])));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_round_alike_are_not_mentioned() {
    let server = Server::start("alike").await;
    let job = server.submit(TINY, "alike").await.expect("it is taken");
    super::jobs::run_with_good_workers(&server).await;
    server.finished(&job).await;
    let events = server.events(&job, 0).await;
    assert_eq!(of_kind(&events, "mixed_numerics").len(), 0, "{events:?}");
    server.stop().await;
}
