//! A fake worker that speaks the protocol. Its encoder is a table of seeded random numbers.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use antiphon_core::head::Head;
use antiphon_core::ids::MicroShard;
use antiphon_core::linalg::Matrix;
use antiphon_core::rng;
use antiphon_core::turn::epoch::batch_size;
use antiphon_proto::assignment::{Grant, HeadShape};
use antiphon_proto::chunks::Followed;
use antiphon_proto::evaluation::Evaluate;
use antiphon_proto::v1::coordinator_message::Message as Told;
use antiphon_proto::v1::worker_message::Message;
use antiphon_proto::v1::{self, training_service_client::TrainingServiceClient};
use antiphon_proto::{contribution, tensor};
use antiphon_store::checkpoints::Checkpoint;
use antiphon_store::storage::Store;
use object_store::{ObjectStoreExt as _, PutPayload};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::sync::mpsc::WeakSender;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::server::{Server, TIMEOUT};

pub(crate) const CLASSES: usize = 3;
pub(crate) const WIDTH: usize = 4;
const BATCH: u32 = 4;
const TRAIN: u64 = 6;
const VALIDATION: u64 = 5;
const TEST: u64 = 7;
/// The default numeric fingerprint.
pub(crate) const FINGERPRINT: u64 = 0x1234;
const HEAD: HeadShape = HeadShape { classes: CLASSES, width: WIDTH };

/// The interval of heartbeats: a fraction of the shortest lease in these tests.
const HEARTBEAT: Duration = Duration::from_millis(40);

pub(crate) struct FakeWorker {
    modality: String,
    /// The content of its heartbeats. A separate task sends them, so that a test can be slow.
    pulse: Arc<Mutex<Pulse>>,
    _beating: AbortOnDropHandle<()>,
    outbound: mpsc::Sender<v1::WorkerMessage>,
    inbound: Streaming<v1::CoordinatorMessage>,
    steps: u64,
    fingerprint: u64,
    head: Option<(Arc<Head<f32>>, i32)>,
    next_sample: u64,
}

/// The content of a worker's heartbeats.
#[derive(Default)]
struct Pulse {
    job: String,
    progress: u64,
    store_error: String,
    stopped: bool,
}

/// Sends heartbeats until the stream ends.
async fn beat(outbound: WeakSender<v1::WorkerMessage>, pulse: Arc<Mutex<Pulse>>) {
    let mut interval = tokio::time::interval(HEARTBEAT);
    loop {
        interval.tick().await;
        let heartbeat = {
            let mut pulse = pulse.lock().expect("no test panics here");
            pulse.progress += 1;
            let Pulse { job, progress, store_error, stopped } = &*pulse;
            let (job, progress, store_error) = (job.clone(), *progress, store_error.clone());
            (!stopped).then(|| v1::Heartbeat { job, progress, busy: true, store_error, ..Default::default() })
        };
        let Some(outbound) = outbound.upgrade() else { return };
        if let Some(heartbeat) = heartbeat {
            // A full channel is ignored: the pending messages renew the lease.
            let _full = outbound.try_send(Message::Heartbeat(heartbeat).into());
        }
    }
}

/// A bare stream of worker messages and their answers.
pub(crate) async fn open_stream(
    server: &Server,
    first: Option<v1::WorkerMessage>,
) -> Result<(mpsc::Sender<v1::WorkerMessage>, Streaming<v1::CoordinatorMessage>), Status> {
    let (outbound, queued) = mpsc::channel(64);
    if let Some(first) = first {
        outbound.try_send(first).expect("a new channel has room");
    }
    let mut client = TrainingServiceClient::new(server.channel().await);
    let inbound = client.train(ReceiverStream::new(queued)).await?.into_inner();
    Ok((outbound, inbound))
}

pub(crate) fn register(worker: &str, modality: &str) -> v1::Register {
    v1::Register {
        worker: worker.to_owned(),
        modality: modality.to_owned(),
        version: "0".to_owned(),
        device: "cpu".to_owned(),
    }
}

impl FakeWorker {
    /// Registers as `w-<modality>`.
    pub(crate) async fn start(server: &Server, modality: &str) -> Self {
        Self::named(server, &format!("w-{modality}"), modality).await
    }

    pub(crate) async fn named(server: &Server, worker: &str, modality: &str) -> Self {
        let first = Message::Register(register(worker, modality)).into();
        let (outbound, inbound) = open_stream(server, Some(first)).await.expect("it is registered");
        let pulse = Arc::<Mutex<Pulse>>::default();
        let beating = tokio::spawn(beat(outbound.downgrade(), Arc::clone(&pulse)));
        let mut new = Self {
            modality: modality.to_owned(),
            pulse,
            _beating: AbortOnDropHandle::new(beating),
            outbound,
            inbound,
            steps: 0,
            fingerprint: FINGERPRINT,
            head: None,
            next_sample: 0,
        };
        assert!(matches!(new.hear().await, Told::Registered(_)), "the first answer");
        new
    }

    /// Stops sending heartbeats.
    pub(crate) fn stop_heartbeats(&self) {
        self.pulse().stopped = true;
    }

    /// Resumes sending heartbeats.
    pub(crate) fn resume_heartbeats(&self) {
        self.pulse().stopped = false;
    }

    /// Reports this store error in heartbeats; an empty text means no error.
    pub(crate) fn report_store_error(&self, error: &str) {
        self.pulse().store_error = error.to_owned();
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().expect("no test panics here")
    }

    /// Sets the numeric fingerprint.
    pub(crate) fn with_fingerprint(self, fingerprint: u64) -> Self {
        Self { fingerprint, ..self }
    }

    /// Resets its encoder.
    pub(crate) fn forget(&mut self) {
        self.steps = 0;
    }

    pub(crate) async fn send(&self, message: Message) {
        self.outbound.send(message.into()).await.expect("the stream is open");
    }

    /// The next message, or the status that ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Told, Option<Status>> {
        let next = tokio::time::timeout(TIMEOUT, self.inbound.message()).await.expect("something comes or ends");
        match next {
            Ok(Some(message)) => {
                let told = message.message.expect("an envelope is not empty");
                if let Told::Assign(assign) = &told {
                    self.pulse().job.clone_from(&assign.job);
                }
                Ok(told)
            }
            Ok(None) => Err(None),
            Err(status) => Err(Some(status)),
        }
    }

    pub(crate) async fn hear(&mut self) -> Told {
        self.next().await.expect("the stream is open")
    }

    /// Works until it receives a grant, which it does not answer.
    pub(crate) async fn work_until_granted(&mut self) -> v1::Grant {
        loop {
            match self.hear().await {
                Told::Grant(grant) => return grant,
                told => self.answer(told).await,
            }
        }
    }

    /// Works until it is released, and returns the reason.
    pub(crate) async fn work(&mut self) -> String {
        loop {
            match self.hear().await {
                Told::Release(release) => {
                    // The stream may already be closed if the coordinator shuts down.
                    let _closed = self.outbound.send(Message::Released(v1::Released { job: release.job }).into()).await;
                    return release.reason;
                }
                told => self.answer(told).await,
            }
        }
    }

    /// Answers a message as a valid worker does.
    pub(crate) async fn answer(&mut self, told: Told) {
        match told {
            Told::Assign(assign) => self.prepare(assign).await,
            Told::Grant(grant) => {
                let turn = grant.turn.clone();
                let contribution = self.step(&grant);
                if !grant.replay {
                    self.send(Message::Contribution(contribution)).await;
                }
                self.send(Message::Learned(v1::Learned { turn, times: Some(v1::WorkerTimes::default()) })).await;
            }
            Told::Evaluate(evaluate) => {
                let head = Evaluate::decode(&evaluate, HEAD, Followed::nothing()).expect("a good head").head;
                self.head = Some((head, evaluate.split));
                self.next_sample = 0;
            }
            Told::NextLogits(asked) => self.logits(&asked).await,
            Told::SaveFiles(save) => self.save(&save).await,
            Told::Registered(_) | Told::Release(_) | Told::Chunk(_) => panic!("{told:?} is not expected here"),
            Told::Rejected(rejected) => panic!("a good worker was rejected: {}", rejected.message),
        }
    }

    async fn prepare(&mut self, assign: v1::Assign) {
        assert_eq!(assign.modality, self.modality);
        if let Some(url) = &assign.restore {
            let checkpoint = Checkpoint::open_url(url).await.expect("it resumes from a checkpoint");
            let state = checkpoint.file(&format!("encoder-{}.state.safetensors", self.modality)).await;
            let text = String::from_utf8(state.expect("its file is there").to_vec()).expect("the file is text");
            self.steps = text.parse().expect("the file holds a number");
        }
        self.send(Message::Prepared(self.prepared(&assign.job, assign.term))).await;
    }

    pub(crate) fn prepared(&self, job: &str, term: u64) -> v1::Prepared {
        v1::Prepared {
            job: job.to_owned(),
            term,
            samples: Some(v1::SplitSizes { train: TRAIN, validation: VALIDATION, test: TEST }),
            parameters: vec![v1::TensorSummary { name: "weight".to_owned(), shape: vec![2, 3] }],
            steps_done: self.steps,
            numeric_fingerprint: self.fingerprint,
        }
    }

    /// The contribution that answers a grant.
    pub(crate) fn step(&mut self, grant: &v1::Grant) -> v1::Contribution {
        let grant = Grant::decode(grant, HEAD, Followed::nothing()).expect("a good grant");
        let samples = batch_size(TRAIN, BATCH, self.steps);
        let (features, labels) = self.features("train", self.steps, samples as usize);
        self.steps += 1;
        let local = grant.head.local_step(features, &labels).expect("good features");
        contribution::encode(&grant.turn, MicroShard::WHOLE, local.contribution)
    }

    fn features(&self, what: &str, at: u64, rows: usize) -> (Matrix<f32>, Vec<u32>) {
        let path = ["fake".into(), what.into(), self.modality.as_str().into(), at.into()];
        let mut stream = rng::stream(11, &path);
        let numbers = (0..rows * WIDTH).map(|_| rng::normal(&mut stream) as f32).collect();
        // Labels are the same in both modalities, because the samples are the same.
        let mut labels = rng::stream(11, &["labels".into(), what.into(), at.into()]);
        let labels = (0..rows).map(|_| rng::below(&mut labels, CLASSES as u64) as u32).collect();
        (Matrix::from_vec(rows, WIDTH, numbers).expect("they fill it"), labels)
    }

    async fn logits(&mut self, asked: &v1::NextLogits) {
        let (head, split) = self.head.as_ref().expect("an evaluation is open");
        let samples = if *split == v1::Split::Test as i32 { TEST } else { VALIDATION };
        let until = samples.min(self.next_sample + u64::from(asked.at_most));
        let (mut ids, mut labels, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for sample in self.next_sample..until {
            let (features, label) = self.features("evaluate", sample, 1);
            ids.push(format!("{sample:04}"));
            labels.extend(label);
            rows.extend(head.logits(&features).into_vec());
        }
        let logits = (!ids.is_empty()).then(|| tensor::encode_f32(&[ids.len(), CLASSES], rows));
        let v1::NextLogits { job, term, evaluation, sequence, .. } = asked.clone();
        self.next_sample = until;
        let last = until == samples;
        self.send(Message::Logits(v1::LogitsChunk {
            job,
            term,
            evaluation,
            sequence,
            ids,
            labels,
            logits,
            last,
            times: None,
        }))
        .await;
    }

    async fn save(&mut self, save: &v1::SaveFiles) {
        let place = Store::open(&save.checkpoint).expect("the place of the checkpoint opens");
        let mut files = Vec::new();
        for (name, text) in [
            (format!("encoder-{}.safetensors", self.modality), format!("{} after {}", self.modality, self.steps)),
            (format!("encoder-{}.state.safetensors", self.modality), self.steps.to_string()),
        ] {
            let file = v1::CheckpointFile {
                name: name.clone(),
                size: text.len() as u64,
                sha256: Sha256::digest(text.as_bytes()).to_vec(),
            };
            place.objects().put(&place.object(&name), PutPayload::from(text)).await.expect("the file is written");
            files.push(file);
        }
        let (job, term, turn) = (save.job.clone(), save.term, save.turn);
        self.send(Message::FilesSaved(v1::FilesSaved { job, term, turn, files, snapshot: 0 })).await;
    }
}

/// The turn reference of a contribution, mutable.
pub(crate) fn turn_of(contribution: &mut v1::Contribution) -> &mut v1::TurnRef {
    contribution.turn.as_mut().expect("it names its turn")
}

/// Turns a grant back into a message that can be answered.
pub(crate) fn granted(grant: v1::Grant) -> Told {
    Told::Grant(grant)
}
