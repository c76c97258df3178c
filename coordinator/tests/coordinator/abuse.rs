//! A worker of a job sends invalid messages: each gets a typed answer and changes nothing.

use antiphon_proto::v1::contribution::Gradient;
use antiphon_proto::v1::coordinator_message::Message as Told;
use antiphon_proto::v1::worker_message::Message;
use antiphon_proto::v1::{self, RejectedReason};
use bytes::Bytes;

use super::fake_worker::{CLASSES, FakeWorker, WIDTH, granted, turn_of};
use super::jobs::{files, text};
use super::server::{Server, TINY, golden};

/// A case: its name, and the change that makes a valid contribution invalid.
type Abuse = (&'static str, fn(&mut v1::Contribution));

const CONTRIBUTIONS: &[Abuse] = &[
    ("turn-missing", |c| c.turn = None),
    ("turn-of-another-job", |c| turn_of(c).job = "other".to_owned()),
    ("turn-with-a-bad-job", |c| turn_of(c).job = "No Job".to_owned()),
    ("stale-term", |c| turn_of(c).term = 0),
    ("future-term", |c| turn_of(c).term = 9),
    ("future-turn", |c| turn_of(c).turn += 1),
    ("future-step", |c| turn_of(c).step += 1),
    ("another-attempt", |c| turn_of(c).attempt += 1),
    ("stale-head", |c| turn_of(c).head_version = u64::MAX),
    ("micro-shard-missing", |c| c.micro_shard = None),
    ("micro-shard-beyond", |c| c.micro_shard = Some(v1::MicroShard { index: 1, count: 1 })),
    ("micro-shard-of-none", |c| c.micro_shard = Some(v1::MicroShard { index: 0, count: 0 })),
    ("half-a-batch", |c| c.micro_shard = Some(v1::MicroShard { index: 0, count: 2 })),
    ("gradient-missing", |c| c.gradient = None),
    ("gradient-of-another-shape", |c| dense(c, &[WIDTH as u64, CLASSES as u64], CLASSES * WIDTH)),
    ("gradient-of-one-dimension", |c| dense(c, &[(WIDTH * CLASSES) as u64], CLASSES * WIDTH)),
    ("gradient-without-end", |c| dense(c, &[u64::MAX, u64::MAX], 1)),
    ("gradient-truncated", |c| dense(c, &[CLASSES as u64, WIDTH as u64], CLASSES * WIDTH - 1)),
    ("gradient-to-follow-without-end", |c| dense(c, &[1 << 20, 1 << 20], 0)),
    ("gradient-too-long", |c| dense(c, &[CLASSES as u64, WIDTH as u64], CLASSES * WIDTH + 1)),
    ("factors-of-another-batch", |c| {
        let one = |columns: usize| Some(zeros(&[1, columns as u64], columns));
        c.gradient = Some(Gradient::Factors(v1::Factors { errors: one(CLASSES), features: one(WIDTH) }));
    }),
    ("factors-without-features", |c| {
        let errors = Some(zeros(&[u64::from(c.samples), CLASSES as u64], c.samples as usize * CLASSES));
        c.gradient = Some(Gradient::Factors(v1::Factors { errors, features: None }));
    }),
    ("bias-gradient-nan", |c| spoil(c.bias_gradient.as_mut(), f32::NAN)),
    ("bias-gradient-missing", |c| c.bias_gradient = None),
    ("mean-features-infinite", |c| spoil(c.mean_features.as_mut(), f32::NEG_INFINITY)),
    ("mean-features-f64", |c| retype(c.mean_features.as_mut(), v1::DataType::F64.into())),
    ("mean-features-of-no-type", |c| retype(c.mean_features.as_mut(), 77)),
    ("loss-nan", |c| c.loss = f64::NAN),
    ("loss-infinite", |c| c.loss = f64::INFINITY),
    ("correct-beyond-samples", |c| c.correct = c.samples + 1),
    ("no-samples", |c| c.samples = 0),
    ("samples-beyond-batch", |c| c.samples = u32::MAX),
];

fn zeros(shape: &[u64], elements: usize) -> v1::Tensor {
    v1::Tensor { dtype: v1::DataType::F32.into(), shape: shape.to_vec(), data: Bytes::from(vec![0; elements * 4]) }
}

fn dense(contribution: &mut v1::Contribution, shape: &[u64], elements: usize) {
    contribution.gradient = Some(Gradient::Dense(zeros(shape, elements)));
}

fn spoil(tensor: Option<&mut v1::Tensor>, number: f32) {
    let tensor = tensor.expect("a good contribution has it");
    let mut bytes = tensor.data.to_vec();
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    tensor.data = Bytes::from(bytes);
}

fn retype(tensor: Option<&mut v1::Tensor>, dtype: i32) {
    tensor.expect("a good contribution has it").dtype = dtype;
}

/// Sends a message that must be rejected, and returns the answer. The answer to a contribution names its turn.
async fn rejected(worker: &mut FakeWorker, message: Message) -> String {
    let turn = match &message {
        Message::Contribution(contribution) => contribution.turn.clone(),
        Message::Learned(learned) => learned.turn.clone(),
        _ => None,
    };
    let told = format!("{message:?}");
    worker.send(message).await;
    match worker.hear().await {
        Told::Rejected(rejected) => {
            assert!(rejected.turn.is_none() || rejected.turn == turn, "{told}: {rejected:?}");
            assert!(!rejected.job.is_empty(), "a member is told of which job: {told}: {rejected:?}");
            format!("{} {}", rejected.reason().as_str_name().trim_start_matches("REJECTED_REASON_"), rejected.message)
        }
        other => panic!("{told} was answered by {other:?}"),
    }
}

fn other_messages(job: &str) -> Vec<(&'static str, Message)> {
    let job = || job.to_owned();
    let file = |name: &str| v1::CheckpointFile { name: name.to_owned(), size: 1, sha256: vec![0; 32] };
    let saved = |files| Message::FilesSaved(v1::FilesSaved { job: job(), term: 1, turn: 0, files, snapshot: 0 });
    let turn = |turn| Some(v1::TurnRef { job: job(), term: 1, turn, step: 0, attempt: 0, head_version: 0 });
    let times = Some(v1::WorkerTimes::default());
    let learned = |turn, times| Message::Learned(v1::Learned { turn, times });
    let logits = v1::LogitsChunk { job: job(), term: 1, last: true, ..v1::LogitsChunk::default() };
    vec![
        ("register-again", Message::Register(super::fake_worker::register("w-a", "a"))),
        ("prepared-again", Message::Prepared(v1::Prepared { steps_done: 7, ..prepared(job()) })),
        ("prepared-without-samples", Message::Prepared(v1::Prepared { samples: None, ..prepared(job()) })),
        ("prepared-in-another-term", Message::Prepared(v1::Prepared { term: 3, ..prepared(job()) })),
        ("prepared-for-a-bad-job", Message::Prepared(prepared("../..".to_owned()))),
        (
            "heartbeat-of-a-bad-job",
            Message::Heartbeat(v1::Heartbeat { job: "A".repeat(500), steps_done: 0, ..Default::default() }),
        ),
        ("saved-in-another-job", Message::FilesSaved(v1::FilesSaved { job: "other".to_owned(), ..Default::default() })),
        ("learned-nothing", learned(turn(0), times)),
        ("learned-another-turn", learned(turn(7), times)),
        ("learned-in-another-term", learned(turn(0).map(|turn| v1::TurnRef { term: 9, ..turn }), times)),
        ("learned-without-its-turn", learned(None, times)),
        ("learned-without-times", learned(turn(0), None)),
        ("logits-unasked", Message::Logits(logits.clone())),
        ("logits-without-labels", Message::Logits(v1::LogitsChunk { ids: vec!["x".to_owned()], ..logits })),
        ("files-unasked", saved(vec![file("encoder-a.safetensors"), file("encoder-a.state.safetensors")])),
        ("files-of-another", saved(vec![file("encoder-b.safetensors"), file("encoder-b.state.safetensors")])),
        ("files-of-the-head", saved(vec![file("head.safetensors")])),
        ("files-elsewhere", saved(vec![file("../manifest.json")])),
        ("files-none", saved(vec![])),
    ]
}

fn bad_preparations(job: &str) -> Vec<(&'static str, Message)> {
    let prepared = || prepared(job.to_owned());
    let sizes = |train| Some(v1::SplitSizes { train, validation: 0, test: 0 });
    let shapes = |shapes: &[[u64; 2]]| {
        shapes.iter().map(|shape| v1::TensorSummary { name: "w".to_owned(), shape: shape.to_vec() }).collect()
    };
    vec![
        ("prepared-without-training", Message::Prepared(v1::Prepared { samples: sizes(0), ..prepared() })),
        ("prepared-with-all-samples", Message::Prepared(v1::Prepared { samples: sizes(u64::MAX), ..prepared() })),
        ("prepared-by-another", Message::Prepared(v1::Prepared { steps_done: 7, ..prepared() })),
        (
            "prepared-beyond-counting",
            Message::Prepared(v1::Prepared { parameters: shapes(&[[1 << 33, 1 << 33]]), ..prepared() }),
        ),
        (
            "prepared-beyond-adding",
            Message::Prepared(v1::Prepared { parameters: shapes(&[[1, u64::MAX], [1, 1]]), ..prepared() }),
        ),
    ]
}

fn prepared(job: String) -> v1::Prepared {
    let samples = Some(v1::SplitSizes { train: 6, validation: 5, test: 7 });
    v1::Prepared { job, term: 1, samples, parameters: vec![], ..v1::Prepared::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_is_answered_and_changes_nothing() {
    let server = Server::start("abuse").await;
    let clean = server.submit(TINY, "clean").await.expect("it is taken");
    super::jobs::run_with_good_workers(&server).await;
    let clean = server.finished(&clean).await;

    let job = server.submit(TINY, "abused").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    let mut answers = Vec::new();
    for (name, message) in bad_preparations(&job) {
        answers.push((name, rejected(&mut b, message).await));
    }
    b.answer(assigned).await;
    let grant = a.work_until_granted().await;
    let mut good = a.step(&grant);
    for (name, abuse) in CONTRIBUTIONS {
        let mut bad = good.clone();
        abuse(&mut bad);
        answers.push((*name, rejected(&mut a, Message::Contribution(bad)).await));
    }
    for (name, message) in other_messages(&job) {
        answers.push((name, rejected(&mut a, message).await));
    }
    answers.push(("not-your-turn", rejected(&mut b, Message::Contribution(good.clone())).await));
    a.send(Message::Contribution(good.clone())).await;
    answers.push(("doubled", rejected(&mut a, Message::Contribution(good.clone())).await));
    let grant = b.work_until_granted().await;
    answers.push(("applied-before", rejected(&mut b, Message::Contribution(good.clone())).await));
    turn_of(&mut good).turn = 1;
    answers.push(("in-anothers-turn", rejected(&mut a, Message::Contribution(good)).await));
    b.answer(granted(grant)).await;
    tokio::join!(a.work(), b.work());
    golden("abuse.txt", &answers);

    let abused = server.finished(&job).await;
    assert_eq!(text(&abused["state"]), "succeeded", "{abused}");
    assert_eq!(files(text(&abused["checkpoint"])).await, files(text(&clean["checkpoint"])).await);
    assert_eq!(steps(&server.events("abused", 0).await), steps(&server.events("clean", 0).await));
    server.stop().await;
}

/// Works until it receives a message of this kind, which it does not answer.
pub(crate) async fn work_until(worker: &mut FakeWorker, kind: impl Fn(&Told) -> bool) -> Told {
    loop {
        match worker.hear().await {
            told if kind(&told) => return told,
            told => worker.answer(told).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_between_two_turns_changes_nothing_either() {
    let server = Server::start("boundary").await;
    let clean = server.submit(TINY, "clean").await.expect("it is taken");
    super::jobs::run_with_good_workers(&server).await;
    let clean = server.finished(&clean).await;

    let job = server.submit(TINY, "abused").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let mut answers = Vec::new();
    let logits = |sequence| {
        let chunk = v1::LogitsChunk { job: "abused".to_owned(), term: 1, last: true, ..v1::LogitsChunk::default() };
        Message::Logits(v1::LogitsChunk { sequence, ..chunk })
    };
    let abuse = async {
        let asked = work_until(&mut a, |told| matches!(told, Told::NextLogits(_))).await;
        for (name, sequence) in [("logits-without-end", u64::MAX), ("logits-ahead", 1)] {
            answers.push((name, rejected(&mut a, logits(sequence)).await));
        }
        a.answer(asked).await;
        let save = work_until(&mut a, |told| matches!(told, Told::SaveFiles(_))).await;
        let Told::SaveFiles(v1::SaveFiles { job, term, turn, .. }) = save.clone() else { panic!("it is one") };
        a.answer(save).await;
        let file = |name: &str| v1::CheckpointFile { name: name.to_owned(), size: 1, sha256: vec![0; 32] };
        let files = vec![file("encoder-a.safetensors"), file("encoder-a.state.safetensors")];
        // The other worker's files are still missing, and the next turn is granted meanwhile.
        let again = Message::FilesSaved(v1::FilesSaved { job, term, turn, files, snapshot: 0 });
        let granted = a.work_until_granted().await;
        answers.push(("files-doubled", rejected(&mut a, again).await));
        a.answer(Told::Grant(granted)).await;
    };
    let saving = async {
        let kind = |told: &Told| matches!(told, Told::SaveFiles(_));
        work_until(&mut b, kind).await
    };
    let (save, ()) = tokio::join!(saving, abuse);
    b.answer(save).await;
    tokio::join!(a.work(), b.work());
    golden("boundary.txt", &answers);

    let abused = server.finished(&job).await;
    assert_eq!(text(&abused["state"]), "succeeded", "{abused}");
    assert_eq!(abused["digest"], clean["digest"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_fails_after_a_rejection_is_not_rejected_again() {
    let server = Server::start("ping-pong").await;
    let mut worker = FakeWorker::named(&server, "w", "a").await;
    for round in 0..10 {
        let job = format!("round-{round}");
        worker.send(Message::Prepared(prepared(job.clone()))).await;
        // An unexpected second answer would arrive before the rejection of the next round.
        let Told::Rejected(rejected) = worker.hear().await else { panic!("it has no job") };
        assert_eq!((rejected.job, rejected.term), (job.clone(), 1));
        for job in [String::new(), job, "No Job".to_owned()] {
            worker
                .send(Message::Failed(v1::Failed {
                    job,
                    term: 0,
                    reason: "it was rejected".to_owned(),
                    transient: false,
                }))
                .await;
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_the_head_cannot_take_is_not_counted() {
    let server = Server::start("diverged").await;
    let job = server.submit(&TINY.replace("lr: 0.1", "lr: 1e30"), "diverged").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = b.hear().await;
    b.answer(assigned).await;
    let grant = a.work_until_granted().await;
    let mut huge = a.step(&grant);
    dense(&mut huge, &[CLASSES as u64, WIDTH as u64], 0);
    if let Some(Gradient::Dense(tensor)) = &mut huge.gradient {
        tensor.data = Bytes::from(1e18_f32.to_le_bytes().repeat(CLASSES * WIDTH));
    }
    a.send(Message::Contribution(huge)).await;
    let Told::Release(_) = a.hear().await else { panic!("the job is over") };
    let finished = server.finished(&job).await;
    assert_eq!((text(&finished["state"]), finished["turn"].as_u64()), ("failed", Some(0)), "{finished}");
    assert!(text(&finished["reason"]).starts_with("turn 0 of `a`: "), "{finished}");
    assert_eq!(server.status(&job).await.turn, 0);
    server.stop().await;
}

/// The `step` events, without the job's id.
fn steps(events: &[serde_json::Value]) -> Vec<serde_json::Value> {
    let mut steps: Vec<_> = events.iter().filter(|event| event["event"] == "step").cloned().collect();
    steps.iter_mut().for_each(|step| step["job"].take().as_str().map_or((), |_| ()));
    steps
}

#[test]
fn every_reason_has_its_abuse() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/abuse.txt");
    let golden = std::fs::read_to_string(path).expect("the golden file is there");
    let reasons = (1..).map_while(|number| RejectedReason::try_from(number).ok());
    for reason in reasons {
        let name = reason.as_str_name().trim_start_matches("REJECTED_REASON_");
        assert!(golden.contains(&format!(": {name} ")), "nothing is answered by {name}");
    }
}
