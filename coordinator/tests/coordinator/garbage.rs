//! Streams that go wrong before or below the protocol: no registration, bad names, bytes that are no message.

use std::time::Duration;

use antiphon_coordinator::config::Config;
use antiphon_coordinator::coordinator::Coordinator;
use antiphon_core::rng;
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

/// How a stream that begins with `first` ends.
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

/// Sends bytes as they are and hears bytes as they come.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

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

/// How a stream of a good registration and then these bytes ends.
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
    let server = Server::start("garbage").await;
    let job = server.submit(TINY, "tiny").await.expect("it is taken");
    let (mut a, mut b) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let mut answers = Vec::new();
    for (name, bytes) in [
        ("oversize", Bytes::from(vec![0; (1 << 20) + 1])),
        ("no-protobuf", Bytes::from_static(b"\xff\xff\xff\xff\xff")),
        ("truncated-contribution", Bytes::from_static(b"\x1a\x7f\x0a\x05")),
    ] {
        let status = ends_by(&server, name, vec![bytes]).await.expect("it is told why");
        answers.push((name, told(&status)));
    }
    let mut random = rng::stream(3, &["garbage".into()]);
    for at in 0..50 {
        let length = rng::below(&mut random, 200) as usize;
        let bytes: Vec<u8> = (0..length).map(|_| rng::below(&mut random, 256) as u8).collect();
        // Some are messages by chance, and are answered; nothing is sent after them, so a broken one ends the stream.
        let ended =
            ends_by(&server, &format!("random-{at}"), vec![Bytes::from(bytes), Bytes::from_static(b"\xff")]).await;
        assert!(ended.is_some(), "garbage {at} was taken");
    }
    tokio::join!(a.work(), b.work());
    assert_eq!(text(&server.finished(&job).await["state"]), "succeeded");
    golden("garbage.txt", &answers);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_holds_nobody_else_up() {
    let config = Config { stop_within: Duration::from_millis(100), ..config("deaf") };
    let server = Server::of(Coordinator::new(config)).await;
    // A job whose worker takes its turn and is never heard of again, a watcher that does not read, a worker that talks
    // without listening, a connection that says nothing.
    server.submit(TINY, "stuck").await.expect("it is taken");
    let (mut deaf, mut idle) = (FakeWorker::start(&server, "a").await, FakeWorker::start(&server, "b").await);
    let assigned = (deaf.hear().await, idle.hear().await);
    deaf.answer(assigned.0).await;
    idle.answer(assigned.1).await;
    let job = server.submit(TINY, "goes-on").await.expect("it is taken");
    let watch = v1::WatchJobRequest { job: job.clone(), after: 0 };
    let unread = server.jobs().await.watch_job(watch).await.expect("the job is known");
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
    drop((unread, silent));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_makes_room() {
    let server = Server::start("after").await;
    drop(FakeWorker::start(&server, "a").await);
    server.nobody_is_registered().await;
    server.submit(TINY, "tiny").await.expect("it is taken");
    run_with_good_workers(&server).await;
    server.stop().await;
}
