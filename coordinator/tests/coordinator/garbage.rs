//! Streams that are invalid before or below the protocol: no registration, invalid names, bytes that are not a message.

use std::time::Duration;

use antiphon_coordinator::config::Config;
use antiphon_coordinator::registry::Coordinator;
use antiphon_core::rng;
use antiphon_proto::stream::REASON_LIMIT;
use antiphon_proto::v1;
use antiphon_proto::v1::coordinator_message::Message as Told;
use antiphon_proto::v1::worker_message::Message;
use bytes::{Buf as _, BufMut as _, Bytes};
use tokio_stream::StreamExt as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use super::fake_worker::{FakeWorker, open_stream, register};
use super::jobs::{run_with_good_workers, text};
use super::server::{Server, TINY, config, golden, told};

/// The status that ends a stream which starts with `first`.
async fn refused(server: &Server, first: Option<v1::WorkerMessage>) -> String {
    let ended = match open_stream(server, first).await {
        Err(status) => status,
        Ok((_outbound, mut inbound)) => {
            let answer = inbound.message().await;
            answer.expect_err("it is refused")
        }
    };
    told(&ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_a_good_registration() {
    let server = Server::start("first").await;
    let named = |worker: &str, modality: &str| Some(Message::Register(register(worker, modality)).into());
    let long = v1::Register { device: "x".repeat(257), ..register("w", "a") };
    let firsts: Vec<(&str, Option<v1::WorkerMessage>)> = vec![
        (
            "heartbeat-first",
            Some(Message::Heartbeat(v1::Heartbeat { job: String::new(), steps_done: 0, ..Default::default() }).into()),
        ),
        ("empty-envelope", Some(v1::WorkerMessage { message: None })),
        ("empty-worker", named("", "a")),
        ("capital-worker", named("Worker", "a")),
        ("modality-with-a-slash", named("w", "../a")),
        ("worker-of-a-million", named(&"w".repeat(1_000_000), "a")),
        ("device-too-long", Some(Message::Register(long).into())),
    ];
    let mut answers = Vec::new();
    for (name, first) in firsts {
        answers.push((name, refused(&server, first).await));
    }
    let mut first = FakeWorker::named(&server, "w", "a").await;
    answers.push(("worker-twice", refused(&server, named("w", "b")).await));
    first.send(Message::Heartbeat(v1::Heartbeat { job: String::new(), steps_done: 0, ..Default::default() })).await;
    first.send(Message::Released(v1::Released { job: "unheard-of".to_owned() })).await;
    let unheard = v1::Prepared { job: "unheard-of".to_owned(), term: 1, ..v1::Prepared::default() };
    first.send(Message::Prepared(unheard)).await;
    let Told::Rejected(rejected) = first.hear().await else { panic!("it has no job") };
    answers.push(("without-a-job", format!("{} {}", rejected.reason().as_str_name(), rejected.message)));
    golden("registration.txt", &answers);
    server.stop().await;
}

/// A codec that sends and receives raw bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// The status that ends a stream of a valid registration followed by these bytes.
async fn ends_by(server: &Server, worker: &str, bytes: Vec<Bytes>) -> Option<Status> {
    use prost::Message as _;
    let registration = v1::WorkerMessage::from(Message::Register(register(worker, "a"))).encode_to_vec();
    let mut client = tonic::client::Grpc::new(server.channel().await);
    client.ready().await.expect("it listens");
    let path = "/antiphon.v1.TrainingService/Train".parse().expect("a path");
    let messages = [Bytes::from(registration)].into_iter().chain(bytes);
    let open = tokio_stream::iter(messages).chain(tokio_stream::pending());
    let mut answers = match client.streaming(Request::new(open), path, Raw).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Some(status),
    };
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_end_their_own_stream_only() {
    use prost::Message as _;
    let server = Server::start("garbage").await;
    let job = server.submit(TINY, "tiny").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let mut answers = Vec::new();
    let reason = "x".repeat(REASON_LIMIT + 1);
    let failed = Message::Failed(v1::Failed { job: job.clone(), term: 1, reason, transient: true });
    for (name, bytes) in [
        ("oversize", Bytes::from(vec![0; (1 << 20) + 1])),
        ("failed-at-length", Bytes::from(v1::WorkerMessage::from(failed).encode_to_vec())),
        ("no-protobuf", Bytes::from_static(b"\xff\xff\xff\xff\xff")),
        ("truncated-contribution", Bytes::from_static(b"\x1a\x7f\x0a\x05")),
    ] {
        let status = ends_by(&server, name, vec![bytes]).await.expect("it is told why");
        answers.push((name, told(&status)));
    }
    let mut random = rng::stream(3, &["garbage".into()]);
    for at in 0..50 {
        let bytes = random_bytes(&mut random);
        // Some random bytes are valid messages and are answered. Nothing is sent after them, so an invalid one ends the
        // stream.
        let ended =
            ends_by(&server, &format!("random-{at}"), vec![Bytes::from(bytes), Bytes::from_static(b"\xff")]).await;
        assert!(ended.is_some(), "garbage {at} was taken");
    }
    tokio::join!(a.work(), b.work());
    assert_eq!(text(&server.finished(&job).await["state"]), "succeeded");
    golden("garbage.txt", &answers);
    server.stop().await;
}

/// Streams of corrupted messages by unassigned workers, and by workers that have a slot.
const STRANGERS: u64 = 600;
const MEMBERS: u64 = 60;

/// One valid message of each kind for this job.
fn messages(job: &str) -> Vec<Message> {
    let job = || job.to_owned();
    let turn = Some(v1::TurnRef { job: job(), term: 1, turn: 0, step: 0, attempt: 0, head_version: 0 });
    let tensor = |shape: &[u64]| {
        let elements = shape.iter().product::<u64>() as usize;
        let (shape, data) = (shape.to_vec(), Bytes::from(vec![0; 4 * elements]));
        Some(v1::Tensor { dtype: v1::DataType::F32.into(), shape, data })
    };
    let samples = Some(v1::SplitSizes { train: 6, validation: 5, test: 7 });
    let file = |name: &str| v1::CheckpointFile { name: name.to_owned(), size: 1, sha256: vec![0; 32] };
    vec![
        Message::Prepared(v1::Prepared { job: job(), term: 1, samples, parameters: vec![], ..v1::Prepared::default() }),
        Message::Contribution(v1::Contribution {
            turn: turn.clone(),
            micro_shard: Some(v1::MicroShard { index: 0, count: 1 }),
            gradient: Some(v1::contribution::Gradient::Dense(tensor(&[3, 4]).expect("a tensor"))),
            bias_gradient: tensor(&[3]),
            mean_features: tensor(&[4]),
            loss: 1.0,
            correct: 1,
            samples: 4,
        }),
        Message::Learned(v1::Learned { turn, times: Some(v1::WorkerTimes::default()) }),
        Message::Logits(v1::LogitsChunk {
            job: job(),
            term: 1,
            ids: vec!["0000".to_owned()],
            labels: vec![1],
            logits: tensor(&[1, 3]),
            last: true,
            ..v1::LogitsChunk::default()
        }),
        Message::FilesSaved(v1::FilesSaved {
            job: job(),
            term: 1,
            turn: 4,
            files: vec![file("encoder-a.safetensors"), file("encoder-a.state.safetensors")],
            snapshot: 0,
        }),
        Message::Heartbeat(v1::Heartbeat { job: job(), progress: 1, busy: true, ..v1::Heartbeat::default() }),
        Message::Failed(v1::Failed { job: job(), term: 1, reason: "it says so".to_owned(), transient: true }),
        Message::Leaving(v1::Leaving { job: job(), term: 1 }),
        Message::Released(v1::Released { job: job() }),
        Message::Chunk(v1::TensorChunk { data: Bytes::from_static(&[0; 64]) }),
    ]
}

/// Corrupts a message: changes or inserts bytes, or truncates it, up to three times.
pub(crate) fn spoilt(mut bytes: Vec<u8>, random: &mut rng::Stream) -> Vec<u8> {
    for _ in 0..rng::below(random, 4) {
        let (at, byte) = (rng::below(random, bytes.len().max(1) as u64) as usize, rng::below(random, 256) as u8);
        match rng::below(random, 3) {
            0 if !bytes.is_empty() => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Random bytes.
pub(crate) fn random_bytes(random: &mut rng::Stream) -> Vec<u8> {
    let length = rng::below(random, 200);
    (0..length).map(|_| rng::below(random, 256) as u8).collect()
}

/// A few of the job's messages, each corrupted.
fn changed(job: &str, random: &mut rng::Stream) -> Vec<Bytes> {
    use prost::Message as _;
    let messages = messages(job);
    let count = 1 + rng::below(random, 6);
    let change = |_| {
        let message = &messages[rng::below(random, messages.len() as u64) as usize];
        Bytes::from(spoilt(v1::WorkerMessage::from(message.clone()).encode_to_vec(), random))
    };
    (0..count).map(change).collect::<Vec<_>>().into_iter().chain([Bytes::from_static(b"\xff")]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbled_messages_of_strangers_do_not_change_a_job() {
    let server = Server::start("fuzz").await;
    let peaceful = server.submit(TINY, "undisturbed").await.expect("it is taken");
    run_with_good_workers(&server).await;
    server.no_worker_is_registered().await;
    let job = server.submit(TINY, "attacked").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = (a.hear().await, b.hear().await);
    let mut random = rng::stream(7, &["changed".into()]);
    for at in 0..STRANGERS {
        let ended = ends_by(&server, &format!("stranger-{at}"), changed(&job, &mut random)).await;
        assert!(ended.is_some(), "stream {at} ends with what is no message");
    }
    a.answer(assigned.0).await;
    b.answer(assigned.1).await;
    tokio::join!(a.work(), b.work());
    let (attacked, peaceful) = (server.finished(&job).await, server.finished(&peaceful).await);
    assert_eq!((&attacked["state"], &attacked["digest"]), (&peaceful["state"], &peaceful["digest"]), "{attacked}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbled_messages_of_a_jobs_worker_end_at_most_the_job() {
    let server = Server::start("fuzzed-members").await;
    let mut random = rng::stream(8, &["changed".into()]);
    for at in 0..MEMBERS {
        let job = server.submit(TINY, &format!("attacked-{at}")).await.expect("it is taken");
        // The first worker that registers gets the slot.
        ends_by(&server, &format!("member-{at}"), changed(&job, &mut random)).await;
        let stop = v1::StopJobRequest { job: job.clone(), now: false };
        server.jobs().await.stop_job(stop).await.expect("the job is known");
        let finished = server.finished(&job).await;
        assert!(["stopped", "failed"].contains(&text(&finished["state"])), "{finished}");
    }
    server.no_worker_is_registered().await;
    let job = server.submit(TINY, "undisturbed").await.expect("it is taken");
    run_with_good_workers(&server).await;
    assert_eq!(text(&server.finished(&job).await["state"]), "succeeded");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_delays_no_other() {
    let config = Config { stop_within: Duration::from_millis(100), ..config("deaf") };
    let server = Server::start_with(Coordinator::new(config)).await;
    // A job whose worker falls silent in its turn, a follower that does not read, a worker that sends without reading,
    // and a silent connection.
    server.submit(TINY, "stuck").await.expect("it is taken");
    let (mut deaf, mut idle) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = (deaf.hear().await, idle.hear().await);
    deaf.answer(assigned.0).await;
    idle.answer(assigned.1).await;
    let job = server.submit(TINY, "continues").await.expect("it is taken");
    let watch = v1::WatchJobRequest { job: job.clone(), after: 0 };
    let unwatched = server.jobs().await.watch_job(watch).await.expect("the job is known");
    let talker = FakeWorker::named(&server, "talker", "c").await;
    let talk = async {
        for _ in 0..2000 {
            let ids = vec!["x".repeat(1000)];
            let unheard = v1::LogitsChunk { job: "unheard-of".to_owned(), term: 1, ids, ..v1::LogitsChunk::default() };
            talker.send(Message::Logits(unheard)).await;
        }
        std::future::pending::<()>().await;
    };
    let silent = server.channel().await;
    let (mut a, mut b) = (FakeWorker::named(&server, "a2", "a").await, FakeWorker::named(&server, "b2", "b").await);
    let work = async { tokio::join!(a.work(), b.work()) };
    tokio::select! {
        _ = work => {}
        () = talk => {}
    }
    assert_eq!(text(&server.finished(&job).await["state"]), "succeeded");
    drop((unwatched, silent));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_frees_its_id() {
    let server = Server::start("after").await;
    drop(FakeWorker::start(&server, "a").await);
    server.no_worker_is_registered().await;
    server.submit(TINY, "tiny").await.expect("it is taken");
    run_with_good_workers(&server).await;
    server.stop().await;
}
