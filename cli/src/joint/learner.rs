//! One modality: its data, its encoder, its optimizer.

use std::sync::Arc;

use antiphon_core::head::Head;
use antiphon_core::ids::{MicroShard, Split};
use antiphon_core::learning_rate::factor;
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{JobSpec, ModalitySpec};
use antiphon_core::turn::Progress;
use antiphon_data::{BatchInput, DataError, Dataset, OpenOptions};
use antiphon_model::custom::Encoders;
use antiphon_model::device::Device;
use antiphon_model::encoder::{self, DropoutKey, Forward, Frozen, Mode};
use antiphon_model::optimizer::Optimizer;
use antiphon_worker::trainer::{Machine, Model};
use anyhow::Context as _;

/// The data of one modality, which several trainings may share.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) spec: ModalitySpec,
    pub(crate) train: Arc<Dataset>,
    validation: Option<Arc<Dataset>>,
    test: Option<Arc<Dataset>>,
}

impl Opened {
    /// Opens every split that the job has.
    ///
    /// # Errors
    /// The data cannot be read.
    pub(crate) async fn new(job: &JobSpec, spec: &ModalitySpec, options: &OpenOptions) -> Result<Self, DataError> {
        let open = async |split| {
            if !Dataset::is_declared(spec, split) {
                return Ok(None);
            }
            Dataset::open(spec, &job.labels, split, job.seed, options).await.map(|data| Some(Arc::new(data)))
        };
        let train = Arc::new(Dataset::open(spec, &job.labels, Split::Train, job.seed, options).await?);
        Ok(Self {
            spec: spec.clone(),
            train,
            validation: open(Split::Validation).await?,
            test: open(Split::Test).await?,
        })
    }

    /// A split; None if it has no samples.
    pub(crate) fn split(&self, split: Split) -> Option<&Arc<Dataset>> {
        let data = match split {
            Split::Train => Some(&self.train),
            Split::Validation => self.validation.as_ref(),
            Split::Test => self.test.as_ref(),
        };
        data.filter(|data| !data.is_empty())
    }
}

/// A trained modality.
pub(crate) struct Member<'a> {
    pub(crate) data: &'a Opened,
    pub(crate) model: &'a Model,
    /// The head that reads the modality's features: W (C, s) and b (C).
    pub(crate) head: Head<f32>,
}

/// The part of a training that belongs to one modality.
pub(super) struct Learner {
    data: Opened,
    seed: u64,
    model: Model,
    optimizer: Optimizer,
    steps: u64,
    /// The forward pass that awaits its gradient.
    open: Option<Forward>,
}

impl Learner {
    pub(super) async fn new(job: &JobSpec, data: &Opened, encoders: &Encoders) -> anyhow::Result<Self> {
        let machine = Machine { device: Device::Cpu, encoders: encoders.clone() };
        let model = Model::fit(job, &data.spec, &data.train, &machine).await?;
        let optimizer = Optimizer::new(&data.spec.optimizer, model.encoder.parameters())?;
        Ok(Self { data: data.clone(), seed: job.seed, model, optimizer, steps: 0, open: None })
    }

    /// Computes H (samples, s) of these samples of the training split; None without samples.
    pub(super) fn forward(&mut self, samples: &[u32]) -> anyhow::Result<Option<Matrix<f32>>> {
        if samples.is_empty() {
            return Ok(None);
        }
        let (train, preprocessor) = (&self.data.train, &self.model.preprocessor);
        let decode = |sample: &u32| {
            preprocessor.decode(&train.value(*sample)?).map_err(|error| train.sample_error(*sample, error))
        };
        let decoded = samples.iter().map(decode).collect::<Result<_, DataError>>()?;
        let input = BatchInput::stack(preprocessor.shape(), decoded);
        let modality = self.data.spec.name.clone();
        let key = DropoutKey { seed: self.seed, modality, step: self.steps, shard: MicroShard::WHOLE };
        let forward = self.model.encoder.forward(&input, &Mode::Train(key, Frozen::none()))?;
        let features = forward.matrix()?;
        self.open = Some(forward);
        Ok(Some(features))
    }

    /// Propagates dH (samples, s) through the encoder and takes one step of its optimizer. Does nothing if the forward
    /// pass had no samples.
    pub(super) fn learn(&mut self, gradient: &Matrix<f32>, at: Progress) -> anyhow::Result<()> {
        let Some(forward) = self.open.take() else { return Ok(()) };
        let spec = &self.data.spec.optimizer;
        let gradients = encoder::backward(self.model.encoder.as_ref(), &forward, gradient)?;
        let lr = spec.lr * factor(&spec.schedule, at.epoch, at.epochs);
        let stepped = self.optimizer.step(self.model.encoder.parameters(), &gradients, lr);
        stepped.with_context(|| format!("step {} of `{}`", self.steps, self.data.spec.name))?;
        self.model.encoder.commit(forward.pending.in_memory()?);
        self.steps += 1;
        Ok(())
    }

    pub(super) fn member(&self, head: Head<f32>) -> Member<'_> {
        Member { data: &self.data, model: &self.model, head }
    }
}
