//! Messages from the wire are checked: laws of the conversions, and for each kind of damage the exact error, in
//! `tests/golden/rejected.txt` (`UPDATE=1 cargo test -p antiphon-proto --test proto conversions` writes it).

use std::path::Path;
use std::sync::Arc;

use antiphon_core::head::{Contribution, Head, HeadGradient};
use antiphon_core::ids::{
    Attempt, EvaluationId, HeadVersion, JobId, Lease, MicroShard, Split, Step, Term, Turn, TurnRef,
};
use antiphon_core::linalg::Matrix;
use antiphon_core::times::WorkerTimes;
use antiphon_proto::assignment::{Grant, HeadShape, Prepared, Register};
use antiphon_proto::chunks::Followed;
use antiphon_proto::contribution::{self, ContributionLimits};
use antiphon_proto::evaluation::{Evaluate, LogitsChunk};
use antiphon_proto::files::{CheckpointFile, FilesSaved};
use antiphon_proto::stream::Subject;
use antiphon_proto::tensor::{Dimension, decode_f32, encode_f32};
use antiphon_proto::v1::worker_message::Message;
use antiphon_proto::{WireError, ids, stream, v1};

const CLASSES: usize = 3;
const WIDTH: usize = 4;
const BATCH: usize = 2;
const LIMITS: ContributionLimits = ContributionLimits { classes: CLASSES, width: WIDTH, batch: BATCH };
const HEAD: HeadShape = HeadShape { classes: CLASSES, width: WIDTH };

fn job() -> JobId {
    "digits-1".try_into().expect("a job id")
}

fn turn() -> TurnRef {
    TurnRef {
        job: job(),
        term: Term(2),
        turn: Turn(7),
        step: Step(1),
        attempt: Attempt(3),
        head_version: HeadVersion(15),
    }
}

fn matrix(rows: usize, columns: usize) -> Matrix<f32> {
    let numbers = (0..rows * columns).map(|i| i as f32 * 0.25 - 1.0).collect();
    Matrix::from_vec(rows, columns, numbers).expect("the shape fits")
}

fn head() -> Arc<Head<f32>> {
    Arc::new(Head::new(matrix(CLASSES, WIDTH), vec![0.0; CLASSES]).expect("of one shape"))
}

/// No element came after its message.
fn whole() -> Followed {
    Followed::nothing()
}

fn with(gradient: HeadGradient<f32>) -> Contribution<f32> {
    Contribution {
        gradient,
        bias_gradient: vec![0.5, -0.25, -0.25],
        mean_features: vec![1.0, -0.0, f32::MIN_POSITIVE, 1e19],
        loss: 1.25,
        correct: 1,
        samples: 2,
    }
}

fn dense() -> v1::Contribution {
    contribution::encode(&turn(), MicroShard::WHOLE, with(HeadGradient::Dense(matrix(CLASSES, WIDTH))))
}

fn factors() -> v1::Contribution {
    let gradient = HeadGradient::Factors { errors: matrix(BATCH, CLASSES), features: matrix(BATCH, WIDTH) };
    contribution::encode(&turn(), MicroShard::WHOLE, with(gradient))
}

fn chunk() -> LogitsChunk {
    LogitsChunk {
        job: job(),
        term: Term(2),
        evaluation: EvaluationId(4),
        sequence: 0,
        ids: vec!["a".to_owned(), "b".to_owned()],
        labels: vec![0, 2],
        logits: Some(matrix(2, CLASSES)),
        last: false,
        times: Some(WorkerTimes { forward: 0.5, ..WorkerTimes::default() }),
    }
}

fn prepared() -> v1::Prepared {
    v1::Prepared {
        job: "digits-1".to_owned(),
        term: 2,
        samples: Some(v1::SplitSizes { train: 10, validation: 2, test: 0 }),
        parameters: vec![v1::TensorSummary { name: "0.weight".to_owned(), shape: vec![4, 2] }],
        steps_done: 0,
        numeric_fingerprint: 0x0123_4567_89ab_cdef,
    }
}

fn saved() -> FilesSaved {
    let file = CheckpointFile { name: "encoder-audio.safetensors".to_owned(), size: 12, sha256: [7; 32] };
    FilesSaved {
        job: job(),
        term: Term(2),
        turn: Turn(8),
        files: vec![file],
        snapshot: std::time::Duration::from_millis(3),
    }
}

#[test]
fn what_is_encoded_decodes_to_the_same_bits() {
    for (message, gradient) in [
        (dense(), HeadGradient::Dense(matrix(CLASSES, WIDTH))),
        (factors(), HeadGradient::Factors { errors: matrix(BATCH, CLASSES), features: matrix(BATCH, WIDTH) }),
    ] {
        let decoded = contribution::decode(&message, &LIMITS, whole()).expect("it is sound");
        let checked = with(gradient).into_checked(CLASSES, WIDTH).expect("it is sound");
        assert_eq!(decoded, (turn(), MicroShard::WHOLE, checked));
    }
    let grant = Grant { turn: turn(), lease: Lease(9), head: head(), progress: 0.5, epochs: 3.0, replay: true };
    assert_eq!(Grant::decode(&grant.encode(), HEAD, whole()), Ok(grant));
    let evaluate =
        Evaluate { job: job(), term: Term(2), evaluation: EvaluationId(4), split: Split::Validation, head: head() };
    assert_eq!(Evaluate::decode(&evaluate.encode(), HEAD, whole()), Ok(evaluate));
    assert_eq!(LogitsChunk::decode(chunk().encode(), CLASSES, 2, whole()), Ok(chunk()));
    let empty = LogitsChunk { ids: vec![], labels: vec![], logits: None, last: true, ..chunk() };
    assert_eq!(LogitsChunk::decode(empty.clone().encode(), CLASSES, 2, whole()), Ok(empty));
    assert_eq!(FilesSaved::try_from(v1::FilesSaved::from(saved())), Ok(saved()));
}

#[test]
fn floats_survive_bit_for_bit() {
    let numbers: Vec<f32> = (0..4096_u32).map(|i| f32::from_bits(i.wrapping_mul(0x9E37_79B9))).collect();
    let finite: Vec<f32> = numbers.into_iter().filter(|x| x.is_finite()).collect();
    let tensor = encode_f32(&[finite.len()], finite.clone());
    let (_, back) =
        decode_f32("t", &tensor, &[Dimension::Exactly(finite.len())], usize::MAX, &mut whole()).expect("it is sound");
    let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&back), bits(&finite));
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    let sound = encode_f32(&[2, 3], vec![1.0; 6]);
    let expected = [Dimension::Exactly(2), Dimension::AtMost(3)];
    for length in (0..24).chain(25..40) {
        let mut bytes = sound.data.to_vec();
        bytes.resize(length, 0);
        let tensor = v1::Tensor { data: bytes.into(), ..sound.clone() };
        let error = decode_f32("t", &tensor, &expected, 4096, &mut whole()).expect_err("the length is wrong");
        assert!(matches!(error, WireError::ByteLength { expected: 24, given, .. } if given == length), "{error}");
    }
}

#[test]
fn enums_go_both_ways() {
    for split in [Split::Train, Split::Validation, Split::Test] {
        assert_eq!(ids::split("split", v1::Split::from(split).into()), Ok(split));
    }
    for value in [0, 4, -1] {
        assert!(ids::split("split", value).is_err(), "{value}");
    }
}

#[test]
fn a_rejection_names_its_subject_and_a_failure_is_not_rejected() {
    let reject = |message: Message| Subject::of(&message).rejected(v1::RejectedReason::Unexpected, "no".to_owned());
    let job = || "digits-1".to_owned();
    let saved = v1::FilesSaved { job: job(), term: 3, ..v1::FilesSaved::default() };
    let rejected = reject(Message::FilesSaved(saved)).expect("it is answered");
    assert_eq!((rejected.job.as_str(), rejected.term, rejected.turn), ("digits-1", 3, None));
    let turn = v1::TurnRef { job: job(), term: 2, turn: 9, ..v1::TurnRef::default() };
    let contribution = v1::Contribution { turn: Some(turn.clone()), ..v1::Contribution::default() };
    let rejected = reject(Message::Contribution(contribution)).expect("it is answered");
    assert_eq!((rejected.job.as_str(), rejected.term, rejected.turn), ("digits-1", 2, Some(turn)));
    let unnamed = v1::Heartbeat { job: "../..".repeat(1000), steps_done: 0, ..Default::default() };
    assert_eq!(reject(Message::Heartbeat(unnamed)).expect("it is answered").job, "", "a bad name is not sent back");
    for job in ["", "digits-1", "No Job"] {
        let failed = v1::Failed { job: job.to_owned(), term: 1, ..Default::default() };
        assert_eq!(reject(Message::Failed(failed)), None, "{job:?}");
    }
}

#[test]
fn every_message_names_its_job() {
    let open = |message: Message| stream::open(message.into()).map(|(job, _)| job.map(|job| job.to_string()));
    let whose = Ok(Some("digits-1".to_owned()));
    assert_eq!(open(Message::Contribution(dense())), whose);
    assert_eq!(open(Message::Prepared(prepared())), whose);
    assert_eq!(open(Message::Logits(chunk().encode())), whose);
    assert_eq!(open(Message::FilesSaved(saved().into())), whose);
    assert_eq!(open(Message::Heartbeat(v1::Heartbeat::default())), Ok(None));
}

#[test]
fn a_store_error_is_short_and_one_line() {
    let told = |store_error: String| {
        let beat = v1::Heartbeat { job: "digits-1".to_owned(), store_error, ..Default::default() };
        stream::open(Message::Heartbeat(beat).into()).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(told("é".repeat(512)), Ok(()));
    let long = "`heartbeat.store_error` is 1025 bytes long, expected a text of at most 1024 bytes";
    assert_eq!(told("x".repeat(1025)), Err(long.to_owned()));
    let lines = "`heartbeat.store_error` is a text with '\\n', expected no control characters";
    assert_eq!(told("a\nb".to_owned()), Err(lines.to_owned()));
    assert_eq!(told(stream::store_error(&"a\n\u{e9}".repeat(1000))), Ok(()));
}

#[test]
fn a_reason_is_short() {
    let told = |reason: String| {
        let failed = v1::Failed { job: "digits-1".to_owned(), reason, ..Default::default() };
        stream::open(Message::Failed(failed).into()).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(told("a\nb".to_owned() + &"x".repeat(8189)), Ok(()));
    let long = "`failed.reason` is 8193 bytes long, expected a text of at most 8192 bytes";
    assert_eq!(told("x".repeat(8193)), Err(long.to_owned()));
    let control = "`failed.reason` is a text with '\\u{1b}', expected no control characters";
    assert_eq!(told("\u{1b}[31m".to_owned()), Err(control.to_owned()));
    assert_eq!(told(stream::reason(&"a\n\u{1b}\u{e9}".repeat(3000))), Ok(()));
    assert_eq!(stream::reason("a\n\tb"), "a\n b");
}

#[test]
fn oversize_has_its_own_status_code() {
    let code = |error: WireError| tonic::Status::from(error).code();
    let too_large = decode_f32("t", &encode_f32(&[9], vec![0.0; 9]), &[Dimension::AtMost(9)], 35, &mut whole());
    assert_eq!(code(too_large.expect_err("36 bytes")), tonic::Code::ResourceExhausted);
    let missing = stream::open(v1::WorkerMessage { message: None }).expect_err("nothing is in it");
    assert_eq!(code(missing), tonic::Code::InvalidArgument);
}

#[test]
fn rejections_name_the_field_and_the_reason() {
    let found: String = rejections().into_iter().map(|(case, error)| format!("{case}\n    {error}\n")).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/rejected.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &found).expect("the golden file is written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(found, golden, "run with UPDATE=1 if this is meant");
}

/// Every case with its error; panics if a damaged message is accepted.
fn rejections() -> Vec<(&'static str, WireError)> {
    let mut cases = rejected_contributions();
    cases.extend(rejected_chunks());
    cases.extend(rejected_others());
    cases
}

type Damage = fn(&mut v1::Contribution);

/// A name, and what is done to a good contribution with a dense gradient.
const DAMAGES: [(&str, Damage); 18] = [
    ("contribution without its turn", |c| c.turn = None),
    ("contribution to a job with a bad name", |c| c.turn.as_mut().expect("turn").job = "../etc".to_owned()),
    ("contribution without a gradient", |c| c.gradient = None),
    ("contribution without bias gradient", |c| c.bias_gradient = None),
    ("micro-shard beyond its count", |c| c.micro_shard = Some(v1::MicroShard { index: 1, count: 1 })),
    ("no samples", |c| c.samples = 0),
    ("more samples than a batch", |c| c.samples = 3),
    ("more correct than samples", |c| c.correct = 3),
    ("loss that is not a number", |c| c.loss = f64::NAN),
    ("truncated bytes", |c| tensor(c, |t| t.data.truncate(47))),
    ("extra bytes", |c| tensor(c, |t| t.data = [t.data.as_ref(), b"x"].concat().into())),
    ("f64 elements", |c| tensor(c, |t| t.dtype = v1::DataType::F64.into())),
    ("unknown element type", |c| tensor(c, |t| t.dtype = 77)),
    ("head gradient of the wrong shape", |c| tensor(c, |t| *t = encode_f32(&[4, 3], vec![0.0; 12]))),
    ("head gradient of the wrong rank", |c| tensor(c, |t| t.shape = vec![1; 1000])),
    ("shape that overflows", |c| tensor(c, |t| t.shape = vec![u64::MAX, u64::MAX])),
    ("NaN in the head gradient", |c| tensor(c, |t| *t = number_at(5, f32::NAN))),
    ("infinity in the head gradient", |c| tensor(c, |t| *t = number_at(11, f32::NEG_INFINITY))),
];

fn rejected_contributions() -> Vec<(&'static str, WireError)> {
    let reject =
        |message: &v1::Contribution| contribution::decode(message, &LIMITS, whole()).expect_err("it is damaged");
    let mut cases: Vec<_> = DAMAGES
        .into_iter()
        .map(|(case, damage)| {
            let mut message = dense();
            damage(&mut message);
            (case, reject(&message))
        })
        .collect();
    let huge = v1::Tensor { shape: vec![1 << 40, 1 << 40], ..number_at(0, 0.0) };
    let any = Dimension::AtMost(usize::MAX);
    cases.push((
        "product beyond a machine word",
        decode_f32("t", &huge, &[any, any], usize::MAX, &mut whole()).expect_err("2^82"),
    ));
    let mut half = factors();
    half.gradient = Some(v1::contribution::Gradient::Factors(v1::Factors { errors: None, features: None }));
    cases.push(("factors without errors", reject(&half)));
    let mut uneven = factors();
    uneven.samples = 1;
    uneven.correct = 0;
    cases.push(("factors of more rows than samples", reject(&uneven)));
    let large = decode_f32("t", &number_at(0, 0.0), &[any, any], 47, &mut whole());
    cases.push(("oversize tensor", large.expect_err("48 bytes")));
    cases
}

fn tensor(message: &mut v1::Contribution, damage: impl FnOnce(&mut v1::Tensor)) {
    match &mut message.gradient {
        Some(v1::contribution::Gradient::Dense(tensor)) => damage(tensor),
        _ => panic!("the case begins with a dense gradient"),
    }
}

fn number_at(index: usize, number: f32) -> v1::Tensor {
    let mut numbers = vec![0.0; CLASSES * WIDTH];
    numbers[index] = number;
    encode_f32(&[CLASSES, WIDTH], numbers)
}

fn rejected_chunks() -> Vec<(&'static str, WireError)> {
    let reject = |chunk: LogitsChunk| {
        LogitsChunk::decode(chunk.encode(), CLASSES, 2, whole()).expect_err("the chunk is damaged")
    };
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    vec![
        ("ids out of order", reject(LogitsChunk { ids: ids(&["b", "a"]), ..chunk() })),
        ("an id twice", reject(LogitsChunk { ids: ids(&["a", "a"]), ..chunk() })),
        ("more samples than asked for", reject(LogitsChunk { ids: ids(&["a", "b", "c"]), ..chunk() })),
        ("labels for half the ids", reject(LogitsChunk { labels: vec![0], ..chunk() })),
        ("label out of range", reject(LogitsChunk { labels: vec![0, 3], ..chunk() })),
        ("logits missing", reject(LogitsChunk { logits: None, ..chunk() })),
        ("empty chunk before the last", reject(LogitsChunk { ids: vec![], labels: vec![], ..chunk() })),
        ("endless id", reject(LogitsChunk { ids: vec!["a".to_owned(), "x".repeat(2000)], ..chunk() })),
    ]
}

fn rejected_others() -> Vec<(&'static str, WireError)> {
    let register = |worker: &str, device: String| v1::Register {
        worker: worker.to_owned(),
        modality: "audio".to_owned(),
        version: "0.1.0".to_owned(),
        device,
    };
    let reject = |register| Register::try_from(register).expect_err("it is damaged");
    let empty = v1::Prepared { samples: Some(v1::SplitSizes::default()), ..prepared() };
    let mut path = v1::FilesSaved::from(saved());
    path.files[0].name = "../head.safetensors".to_owned();
    let mut hash = v1::FilesSaved::from(saved());
    hash.files[0].sha256.pop();
    let grant = v1::Grant { turn: Some((&turn()).into()), progress: -1.0, ..v1::Grant::default() };
    vec![
        ("envelope with nothing in it", stream::open(v1::WorkerMessage { message: None }).expect_err("empty")),
        ("worker without a name", reject(register("", "cpu".to_owned()))),
        ("worker with an endless name", reject(register(&"w".repeat(100_000), "cpu".to_owned()))),
        ("endless device", reject(register("w", "x".repeat(100_000)))),
        ("nothing to train on", Prepared::try_from(empty).expect_err("0 samples")),
        ("file outside the checkpoint", FilesSaved::try_from(path).expect_err("a path")),
        ("hash of 31 bytes", FilesSaved::try_from(hash).expect_err("short")),
        ("grant without a head", Grant::decode(&grant, HEAD, whole()).expect_err("no weight")),
        ("unknown split", ids::split("evaluate.split", 9).expect_err("9")),
    ]
}
