//! A worker without an encoder, to measure the rest of the system. Its features are the same random numbers in every
//! step. It runs on a separate thread, as a real worker runs on a separate machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use antiphon_core::head::Head;
use antiphon_core::ids::{MicroShard, ModalityName, Term, Turn};
use antiphon_core::linalg::Matrix;
use antiphon_core::{files, rng};
use antiphon_proto::assignment::{Grant, HeadShape};
use antiphon_proto::chunks::{Assembled, Assembler, chunked};
use antiphon_proto::files::FilesSaved;
use antiphon_proto::v1::coordinator_message::Message as Told;
use antiphon_proto::v1::training_service_client::TrainingServiceClient;
use antiphon_proto::v1::worker_message::Message;
use antiphon_proto::{MESSAGE_LIMIT, contribution, v1};
use antiphon_store::retry::RetryPolicy;
use antiphon_store::storage::StoreOptions;
use antiphon_transport::{Dial, KeepAlive};
use antiphon_worker::checkpoint;
use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Number of batches per epoch in the data that the worker claims to have.
const BATCHES: u64 = 1000;

/// A batch of features and labels for a head.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) features: Matrix<f32>,
    pub(super) labels: Vec<u32>,
}

impl Batch {
    /// `samples` rows for a head of this shape, drawn for `modality`.
    pub(super) fn random(of: HeadShape, samples: u32, modality: &str) -> Self {
        let mut stream = rng::stream(1, &["bench".into(), modality.into()]);
        let rows = samples as usize;
        let numbers = (0..rows * of.width).map(|_| rng::normal(&mut stream) as f32).collect();
        let features = Matrix::from_vec(rows, of.width, numbers).expect("as many numbers as fill it");
        let labels = (0..rows).map(|_| rng::below(&mut stream, of.classes as u64) as u32).collect();
        Self { features, labels }
    }
}

/// The settings of a head worker.
#[derive(Debug, Clone)]
pub(super) struct HeadWorker {
    pub(super) name: String,
    pub(super) modality: String,
    pub(super) coordinator: String,
    pub(super) of: HeadShape,
    pub(super) samples: u32,
    /// Counts the steps of all workers that share it.
    pub(super) steps: Arc<AtomicU64>,
}

/// The result of a head worker.
#[derive(Debug)]
pub(super) struct Worked {
    /// The job that it worked for.
    pub(super) job: String,
    pub(super) sent: Vec<Sent>,
}

/// A step, and the time at which its contribution was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    pub(super) turn: u64,
    pub(super) at: Instant,
}

struct Stream {
    outbound: mpsc::Sender<v1::WorkerMessage>,
    inbound: Streaming<v1::CoordinatorMessage>,
    assembler: Assembler<v1::CoordinatorMessage>,
}

impl HeadWorker {
    /// Works for one job until the coordinator releases the worker or the stream ends.
    pub(super) async fn work(self) -> anyhow::Result<Worked> {
        let (outbound, queued) = mpsc::channel(8);
        let register = v1::Register {
            worker: self.name.clone(),
            modality: self.modality.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: "none".to_owned(),
        };
        outbound.send(Message::Register(register).into()).await.context("a new stream takes a message")?;
        let channel = Dial::new(&self.coordinator, KeepAlive::Streams)?.lazy();
        let mut client = TrainingServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let messages = ReceiverStream::new(queued).flat_map(|message| futures::stream::iter(chunked(message)));
        let inbound = client.train(messages).await?.into_inner();
        let mut stream = Stream { outbound, inbound, assembler: Assembler::default() };
        self.serve(&mut stream).await
    }

    async fn serve(&self, stream: &mut Stream) -> anyhow::Result<Worked> {
        let batch = Batch::random(self.of, self.samples, &self.modality);
        let (mut sent, mut job) = (Vec::new(), String::new());
        while let Some(envelope) = stream.inbound.message().await? {
            let Assembled::Whole(envelope, followed) = stream.assembler.take(envelope, self.of.bytes())? else {
                continue;
            };
            match envelope.message {
                Some(Told::Assign(assign)) => {
                    job.clone_from(&assign.job);
                    stream.say(Message::Prepared(self.prepared(assign))).await?;
                }
                Some(Told::Grant(message)) => {
                    let grant = Grant::decode(&message, self.of, followed)?;
                    let contribution = contribute(&grant.head, &batch)?;
                    let message = contribution::encode(&grant.turn, MicroShard::WHOLE, contribution);
                    stream.say(Message::Contribution(message)).await?;
                    sent.push(Sent { turn: grant.turn.turn.0, at: Instant::now() });
                    self.steps.fetch_add(1, Ordering::Relaxed);
                    let times = Some(v1::WorkerTimes::default());
                    stream.say(Message::Learned(v1::Learned { turn: Some((&grant.turn).into()), times })).await?;
                }
                Some(Told::SaveFiles(save)) => {
                    stream.say(self.save(&save).await?).await?;
                }
                Some(Told::Release(_)) => break,
                Some(Told::Rejected(rejected)) => bail!("the coordinator rejected a message: {}", rejected.message),
                _ => {}
            }
        }
        Ok(Worked { job, sent })
    }

    /// Writes the worker's files of a checkpoint, without an encoder.
    async fn save(&self, save: &v1::SaveFiles) -> anyhow::Result<Message> {
        let modality = ModalityName::try_from(self.modality.as_str())?;
        let files = [files::encoder(&modality), files::encoder_state(&modality)];
        let files = files.into_iter().map(|name| (name, b"nothing".as_slice().into())).collect();
        let saved = checkpoint::save(&save.checkpoint, files, &StoreOptions::default(), &RetryPolicy::none()).await?;
        let (job, term, turn) = (save.job.as_str().try_into()?, Term(save.term), Turn(save.turn));
        Ok(Message::FilesSaved(FilesSaved { job, term, turn, files: saved, snapshot: Duration::ZERO }.into()))
    }

    fn prepared(&self, assign: v1::Assign) -> v1::Prepared {
        let train = u64::from(self.samples) * BATCHES;
        v1::Prepared {
            job: assign.job,
            term: assign.term,
            samples: Some(v1::SplitSizes { train, validation: 0, test: 0 }),
            parameters: Vec::new(),
            ..v1::Prepared::default()
        }
    }

    /// Runs [`Self::work`] on a separate thread.
    pub(super) fn spawn_thread(self) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<Worked>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(self.name.clone());
        Ok(thread.spawn(move || runtime.block_on(self.work()))?)
    }
}

impl Stream {
    async fn say(&self, message: Message) -> anyhow::Result<()> {
        self.outbound.send(message.into()).await.context("the stream is closed")
    }
}

/// Computes the contribution of a step, as a worker does.
pub(super) fn contribute(head: &Head<f32>, batch: &Batch) -> anyhow::Result<antiphon_core::head::Contribution<f32>> {
    Ok(head.contribution(batch.features.clone(), &batch.labels)?.0)
}

/// A job for head workers, with this many turns. Its data are never opened.
pub(super) fn job(of: HeadShape, samples: u32, modalities: &[&str], turns: u64) -> String {
    format!(
        "name: bench\n\
         data: {{train: nothing.parquet}}\n\
         modalities: [{modalities}]\n\
         labels: {classes}\n\
         head: {{width: {width}}}\n\
         schedule: {{turns: {turns}, batch: {samples}, lease_ttl: 3600 s}}\n\
         evaluation: {{every: end}}\n\
         checkpoints: {{every: end}}\n",
        modalities = modalities.join(", "),
        classes = of.classes,
        width = of.width,
    )
}
