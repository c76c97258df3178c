//! The memory of a coordinator that receives more than its limits allow.

use crate::support::process::{Process, TEST_TIMEOUT, coordinator};
use crate::support::{SMALL_JOB, folder_with_job};
use antiphon_proto::MESSAGE_LIMIT;
use antiphon_proto::v1::job_service_client::JobServiceClient;
use antiphon_proto::v1::training_service_client::TrainingServiceClient;
use antiphon_proto::v1::worker_message::Message;
use antiphon_proto::v1::{
    Contribution, DataType, LogitsChunk, MicroShard, Register, SubmitJobRequest, Tensor, TensorChunk, TurnRef,
    WorkerMessage, contribution,
};
use bytes::Bytes;
use tokio::time::timeout;
use tonic::{Code, Status};

/// Limit of memory growth, a tenth of the bytes that are sent. It covers a received message in a buffer that doubles as
/// it grows, the decoded message, and as much freed memory that the allocator retains.
const BOUND: usize = 6 * MESSAGE_LIMIT;

/// Size of a chunk of a tensor, in bytes.
const CHUNK: usize = 1 << 20;

/// The peak memory of a process in bytes; None if the system does not report it.
fn peak(process: &Process) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

fn register(worker: &str) -> Message {
    let text = str::to_owned;
    Message::Register(Register {
        worker: text(worker),
        modality: text("text"),
        version: text("0"),
        device: text("cpu"),
    })
}

/// Names of samples, of this total size in bytes.
fn logits(bytes: usize) -> Message {
    let ids = vec!["x".repeat(bytes)];
    Message::Logits(LogitsChunk { job: "small".to_owned(), term: 1, ids, ..LogitsChunk::default() })
}

/// A gradient that claims to be a terabyte.
fn endless_contribution() -> Message {
    let tensor = Tensor { dtype: DataType::F32.into(), shape: vec![1 << 20, 1 << 18], data: Bytes::new() };
    Message::Contribution(Contribution {
        turn: Some(TurnRef { job: "small".to_owned(), term: 1, ..TurnRef::default() }),
        micro_shard: Some(MicroShard { index: 0, count: 1 }),
        gradient: Some(contribution::Gradient::Dense(tensor)),
        ..Contribution::default()
    })
}

/// Sends all messages, reads until the coordinator ends the stream, and returns its status.
async fn ends_by(url: &str, worker: &str, messages: impl Iterator<Item = Message> + Send + 'static) -> Option<Status> {
    let client = TrainingServiceClient::connect(url.to_owned()).await.expect("it listens");
    let mut client = client.max_encoding_message_size(usize::MAX);
    let messages = std::iter::once(register(worker)).chain(messages).map(WorkerMessage::from);
    let told = async {
        let mut answers = client.train(tokio_stream::iter(messages)).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    };
    timeout(TEST_TIMEOUT, told).await.expect("it ends").err()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the output of the tests says that this one was skipped")]
async fn memory_is_bounded_whatever_is_sent() {
    let folder = folder_with_job();
    let (coordinator, url) = coordinator(folder.path());
    let mut jobs = JobServiceClient::connect(url.clone()).await.expect("it listens");
    let submit = |specification, job: &str| SubmitJobRequest {
        specification,
        job: Some(job.to_owned()),
        ..SubmitJobRequest::default()
    };
    jobs.submit_job(submit(SMALL_JOB.to_owned(), "small")).await.expect("it is taken");
    let Some(before) = peak(&coordinator) else {
        eprintln!("skipped: /proc does not tell how much memory a process has had");
        return;
    };
    for round in 0..4 {
        let too_large = ends_by(&url, &format!("large-{round}"), std::iter::once(logits(MESSAGE_LIMIT + 1))).await;
        assert_eq!(too_large.map(|status| status.code()), Some(Code::OutOfRange));
        // A valid message of the largest size, for an unknown job.
        let largest = (0..4).map(|_| logits(MESSAGE_LIMIT - 1000));
        assert!(ends_by(&url, &format!("largest-{round}"), largest).await.is_none(), "it is no error to go");
        let chunk = |_| Message::Chunk(TensorChunk { data: vec![0; CHUNK].into() });
        let endless = std::iter::once(endless_contribution()).chain((0..256).map(chunk));
        assert!(ends_by(&url, &format!("endless-{round}"), endless).await.is_none(), "it is no error to go");
        let specification = "#".repeat(MESSAGE_LIMIT);
        let refused = jobs.submit_job(submit(specification, "large")).await.expect_err("it is too large");
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    }
    let taken = peak(&coordinator).expect("it told before") - before;
    assert!(taken <= BOUND, "{} MiB, of at most {} MiB", taken >> 20, BOUND >> 20);
}
