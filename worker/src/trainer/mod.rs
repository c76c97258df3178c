//! One modality's training, without any wire: batches, the encoder and its optimizer.
//!
//! A step has three parts: [`Trainer::compute_ahead`] (H, which needs only the encoder), [`Trainer::contribute`] (the
//! contribution, which needs the granted head) and [`Trainer::learn`] (the encoder's step, which needs only dH). The
//! forward pass changes nothing, so computing ahead never affects a checkpoint or an evaluation.

mod error;
mod evaluation;
mod files;
mod model;

use std::sync::Arc;

use antiphon_core::head::{Contribution, Head};
use antiphon_core::ids::{MicroShard, ModalityName, Split};
use antiphon_core::learning_rate;
use antiphon_core::spec::{JobSpec, ModalitySpec, Precision};
use antiphon_core::turn::{Progress, SplitSizes};
use antiphon_data::{Dataset, OpenOptions, PrefetchOptions, Prefetcher, Sampler};
use antiphon_model::encoder::{self, DropoutKey, Forward, Mode};
use antiphon_model::head::{self, Errors};
use antiphon_model::optimizer::Optimizer;
use antiphon_model::weights::{Cache, Rates};

pub use error::TrainError;
pub use evaluation::{Chunk, Pass};
pub use files::{check_state, encoder_file, state_file};
pub use model::{Machine, Model};

use self::error::Within as _;
use crate::watch::Watch;

/// How a trainer uses the machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// The options of decoding ahead.
    pub prefetch: PrefetchOptions,
    /// The stores of the data, and the storage of undecoded samples.
    pub data: OpenOptions,
    /// The device, and the registered encoders.
    pub machine: Machine,
}

/// The training of one modality.
pub struct Trainer {
    spec: ModalitySpec,
    seed: u64,
    batch: u32,
    model: Model,
    optimizer: Optimizer,
    /// The learning-rate factors of the encoder's parameters.
    rates: Rates,
    data: Splits,
    batches: Prefetcher,
    options: Options,
    steps_done: u64,
    ahead: Option<Ahead>,
    evaluation: Option<Pass>,
    pub(crate) watch: Watch,
}

#[derive(Debug)]
struct Splits {
    train: Arc<Dataset>,
    validation: Option<Arc<Dataset>>,
    test: Option<Arc<Dataset>>,
}

/// A forward pass whose batch waits for the head.
#[derive(Debug)]
struct Ahead {
    labels: Vec<u32>,
    forward: Forward,
    /// D, after the contribution.
    errors: Option<Errors>,
}

impl Trainer {
    /// Opens the data, fits the preprocessor on the training split and builds the encoder.
    ///
    /// # Errors
    /// If the data are invalid, or the encoder does not fit them or the device.
    pub async fn open(job: &JobSpec, modality: &ModalityName, options: Options) -> Result<Self, TrainError> {
        let spec = job.modalities.iter().find(|m| m.name == *modality);
        let spec = spec.ok_or_else(|| TrainError::NoModality(modality.clone()))?.clone();
        // Checked before anything is fetched.
        encoder::check_numbers(spec.precision.into(), &options.machine.device)
            .within(|| format!("the encoder of `{modality}`"))?;
        let open = async |split| {
            if !Dataset::is_declared(&spec, split) {
                return Ok(None);
            }
            let dataset = Dataset::open(&spec, &job.labels, split, job.seed, &options.data).await?;
            Ok::<_, antiphon_data::DataError>((!dataset.is_empty()).then(|| Arc::new(dataset)))
        };
        let Some(train) = open(Split::Train).await? else { return Err(TrainError::NoSamples(modality.clone())) };
        let data = Splits { train, validation: open(Split::Validation).await?, test: open(Split::Test).await? };
        let model = Model::fit(job, &spec, &data.train, &options.machine).await?;
        let parameters = model.encoder.parameters();
        let rates = Rates::new(&spec.transfer, parameters).within(|| format!("the encoder of `{modality}`"))?;
        let optimizer = Optimizer::with_rates(&spec.optimizer, parameters, &rates)?;
        let sampler = Sampler::new(job.seed, modality.clone(), data.train.len(), job.schedule.batch);
        let batches = model.batches(&data.train, sampler, 0, options.prefetch);
        Ok(Self {
            seed: job.seed,
            batch: job.schedule.batch,
            spec,
            model,
            optimizer,
            rates,
            data,
            batches,
            options,
            steps_done: 0,
            ahead: None,
            evaluation: None,
            watch: Watch::start(),
        })
    }

    /// Resets the encoder to its state before the first step. The data stay open.
    ///
    /// # Errors
    /// As [`Trainer::open`].
    pub async fn restart(&mut self, job: &JobSpec) -> Result<(), TrainError> {
        self.model = Model::fit(job, &self.spec, &self.data.train, &self.options.machine).await?;
        self.optimizer = Optimizer::with_rates(&self.spec.optimizer, self.model.encoder.parameters(), &self.rates)?;
        self.rewind_to(0);
        Ok(())
    }

    /// Loads the pretrained weights that the job names, if it names any. A checkpoint already has its values, so a
    /// restored encoder does not need this.
    ///
    /// # Errors
    /// If the weights cannot be fetched or do not fit.
    pub async fn begin_from_weights(&mut self, cache: &Cache) -> Result<(), TrainError> {
        if let Some(weights) = &self.spec.transfer.weights {
            let shape = self.model.preprocessor.shape();
            let kind = encoder::resolve(&self.spec.encoder, shape);
            antiphon_model::weights::begin(self.model.encoder.as_mut(), &kind, weights, cache)
                .await
                .within(|| format!("the encoder of `{}`", self.spec.name))?;
            self.ahead = None;
        }
        Ok(())
    }

    /// Samples of each split.
    #[must_use]
    pub fn samples(&self) -> SplitSizes {
        let len = |data: &Option<Arc<Dataset>>| data.as_ref().map_or(0, |data| data.len() as u64);
        SplitSizes {
            train: self.data.train.len() as u64,
            validation: len(&self.data.validation),
            test: len(&self.data.test),
        }
    }

    /// Steps that the encoder has taken.
    #[must_use]
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// Names and shapes of the encoder's parameters.
    pub fn parameter_shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.model.encoder.parameters().iter().map(|(name, var)| (name.as_str(), var.dims()))
    }

    /// Computes H of the next batch, unless it is computed already.
    ///
    /// # Errors
    /// If a sample cannot be decoded, or the device fails.
    pub fn compute_ahead(&mut self) -> Result<(), TrainError> {
        if self.ahead.is_none() {
            let batch = self.batches.next().ok_or(TrainError::SplitEnded)??;
            self.watch.lap(|times| &mut times.data);
            let key = DropoutKey {
                seed: self.seed,
                modality: self.spec.name.clone(),
                step: self.steps_done,
                shard: MicroShard::WHOLE,
            };
            let encoder = &self.model.encoder;
            let mode = Mode::Train(key, self.rates.frozen(encoder.parameters()));
            let forward = encoder.forward(&batch.input, &mode)?;
            self.watch.lap(|times| &mut times.forward);
            self.ahead = Some(Ahead { labels: batch.labels, forward, errors: None });
        }
        Ok(())
    }

    /// The modality.
    pub(crate) fn modality(&self) -> &ModalityName {
        &self.spec.name
    }

    /// The number format that the encoder computes in.
    pub(crate) fn precision(&self) -> Precision {
        self.spec.precision
    }

    /// Computes the contribution under the granted head (Z, L, D and G), for the coordinator. [`Trainer::learn`]
    /// follows.
    ///
    /// # Errors
    /// As [`Trainer::compute_ahead`], and if features or logits are not finite.
    pub fn contribute(&mut self, head: &Head<f32>) -> Result<Contribution<f32>, TrainError> {
        self.compute_ahead()?;
        let ahead = self.ahead.as_mut().ok_or(TrainError::OutOfOrder("batch"))?;
        let (contribution, errors) = head::contribution(head, &ahead.forward, &ahead.labels)
            .within(|| format!("step {} of `{}`", self.steps_done, self.spec.name))?;
        ahead.errors = Some(errors);
        self.watch.lap(|times| &mut times.head);
        Ok(contribution)
    }

    /// Propagates dH (B × s) through the encoder and takes one step of its optimizer. `head` must be the one that
    /// [`Trainer::contribute`] used.
    ///
    /// # Errors
    /// If the device fails, or gradients are not finite.
    pub fn learn(&mut self, head: &Head<f32>, at: Progress) -> Result<(), TrainError> {
        let Ahead { mut forward, errors, .. } = self.ahead.take().ok_or(TrainError::OutOfOrder("batch"))?;
        // Copied before the optimizer's step is enqueued, because afterwards the copy would have to wait for that step
        // on the GPU.
        let statistics = std::mem::take(&mut forward.pending).in_memory()?;
        let feature_gradient = errors.ok_or(TrainError::OutOfOrder("contribution"))?.feature_gradient(head)?;
        self.watch.lap(|times| &mut times.head);
        let gradients = encoder::backward_tensor(self.model.encoder.parameters(), &forward, &feature_gradient)?;
        let lr = self.spec.optimizer.lr * learning_rate::factor(&self.spec.optimizer.schedule, at.epoch, at.epochs);
        self.optimizer.step(self.model.encoder.parameters(), &gradients, lr)?;
        self.model.encoder.commit(statistics);
        self.steps_done += 1;
        self.watch.lap(|times| &mut times.backward);
        Ok(())
    }

    fn rewind_to(&mut self, steps_done: u64) {
        self.steps_done = steps_done;
        self.ahead = None;
        self.evaluation = None;
        let sampler = Sampler::new(self.seed, self.spec.name.clone(), self.data.train.len(), self.batch);
        self.batches = self.model.batches(&self.data.train, sampler, steps_done, self.options.prefetch);
    }
}
