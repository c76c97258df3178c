//! A modality: its samples, a small encoder and its optimizer. These plain functions know no order of events, so
//! simulated workers and the naive model share them.

use std::rc::Rc;

use antiphon_core::ids::{ModalityName, Split};
use antiphon_core::learning_rate;
use antiphon_core::linalg::Matrix;
use antiphon_core::optimizer::Optimizer;
use antiphon_core::rng::{self, Stream};
use antiphon_core::spec::{JobSpec, ModalitySpec};
use antiphon_core::turn::{Progress, SplitSizes};
use serde::{Deserialize, Serialize};

use crate::report::{Digest, digest};

/// Numbers in a sample.
const INPUTS: usize = 3;

/// Samples of each split of a whole data set, before any of their modalities is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableSizes {
    pub(crate) train: u64,
    pub(crate) validation: u64,
    pub(crate) test: u64,
    /// Per cent of the samples that lack a modality.
    pub(crate) missing: u64,
}

/// The samples of one split that have a modality.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    pub(crate) ids: Vec<u64>,
    pub(crate) labels: Vec<u32>,
    values: Vec<[f32; INPUTS]>,
}

impl Samples {
    /// Labels depend on the sample only. Values, and whether they are missing, depend on the modality too.
    fn draw(job: &JobSpec, modality: &ModalityName, split: Split, count: u64, missing: u64) -> Self {
        let classes = job.labels.classes.count() as u64;
        let split_name = split.to_string();
        let mut labels = rng::stream(job.seed, &["label".into(), split_name.as_str().into()]);
        let mut own = rng::stream(job.seed, &["value".into(), modality.into(), split_name.as_str().into()]);
        let mut samples = Self::default();
        for id in 0..count {
            let label = rng::below(&mut labels, classes) as u32;
            let is_missing = rng::below(&mut own, 100) < missing;
            let value = value(&mut own, label);
            // At least one sample must remain for training.
            let is_last_hope = split == Split::Train && id + 1 == count && samples.ids.is_empty();
            if !is_missing || is_last_hope {
                samples.ids.push(id);
                samples.labels.push(label);
                samples.values.push(value);
            }
        }
        samples
    }

    fn len(&self) -> u64 {
        self.ids.len() as u64
    }
}

fn value(own: &mut Stream, label: u32) -> [f32; INPUTS] {
    std::array::from_fn(|i| ((f64::from(label) * 2.1 + i as f64).sin() + 0.5 * rng::normal(own)) as f32)
}

/// A batch with the features that an encoder makes of it.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    rows: Vec<usize>,
    pub(crate) labels: Vec<u32>,
    /// H, `B × s`.
    pub(crate) features: Matrix<f32>,
}

/// One sample's logits, for an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Logits {
    pub(crate) id: u64,
    pub(crate) label: u32,
    pub(crate) values: Vec<f32>,
}

/// A modality's data, its encoder H = tanh(X Aᵀ + a) and the encoder's optimizer.
#[derive(Debug, Clone)]
pub(crate) struct Learner {
    spec: ModalitySpec,
    seed: u64,
    batch: usize,
    width: usize,
    train: Rc<Samples>,
    validation: Rc<Samples>,
    test: Rc<Samples>,
    /// A and a together: a row of `INPUTS + 1` numbers per feature.
    parameters: Vec<f32>,
    optimizer: Optimizer<f32>,
    /// Steps taken.
    pub(crate) steps: u64,
}

impl Learner {
    pub(crate) fn new(job: &JobSpec, spec: &ModalitySpec, sizes: TableSizes) -> Self {
        let width = job.head.width as usize;
        let mut stream = rng::stream(job.seed, &["init".into(), (&spec.name).into()]);
        let parameters: Vec<f32> = (0..width * (INPUTS + 1)).map(|_| 0.5 * rng::normal(&mut stream) as f32).collect();
        let draw = |split, count| Rc::new(Samples::draw(job, &spec.name, split, count, sizes.missing));
        Self {
            spec: spec.clone(),
            seed: job.seed,
            batch: job.schedule.batch as usize,
            width,
            train: draw(Split::Train, sizes.train),
            validation: draw(Split::Validation, sizes.validation),
            test: draw(Split::Test, sizes.test),
            optimizer: Optimizer::new(&spec.optimizer.rule, &[parameters.len()]),
            parameters,
            steps: 0,
        }
    }

    pub(crate) fn name(&self) -> &ModalityName {
        &self.spec.name
    }

    pub(crate) fn sizes(&self) -> SplitSizes {
        SplitSizes { train: self.train.len(), validation: self.validation.len(), test: self.test.len() }
    }

    /// Batches in one pass through its data.
    pub(crate) fn batches(&self) -> u64 {
        self.train.len().div_ceil(self.batch as u64)
    }

    /// The features of a step's batch by the current encoder. Changes nothing.
    pub(crate) fn forward(&self, step: u64) -> Forward {
        let rows = self.rows(step);
        let labels = rows.iter().map(|row| self.train.labels[*row]).collect();
        let features = self.features(&self.train, &rows);
        Forward { rows, labels, features }
    }

    /// The encoder's step from dH (`B × s`).
    pub(crate) fn learn(&mut self, forward: &Forward, feature_gradient: &Matrix<f32>, progress: Progress) {
        let mut gradient = vec![0.0_f32; self.parameters.len()];
        for ((row, features), from) in
            forward.rows.iter().zip(forward.features.iter_rows()).zip(feature_gradient.iter_rows())
        {
            let value = &self.train.values[*row];
            for ((g, h), dh) in gradient.chunks_exact_mut(INPUTS + 1).zip(features).zip(from) {
                let slope = dh * (1.0 - h * h);
                for (g, x) in g.iter_mut().zip(value.iter().chain([&1.0])) {
                    *g += slope * x;
                }
            }
        }
        let optimizer = &self.spec.optimizer;
        let lr = optimizer.lr * learning_rate::factor(&optimizer.schedule, progress.epoch, progress.epochs);
        self.optimizer.step(lr, &mut [&mut self.parameters], &[&gradient]);
        self.steps += 1;
    }

    /// Logits of a whole split.
    pub(crate) fn evaluate(&self, split: Split, head: &antiphon_core::head::Head<f32>) -> Vec<Logits> {
        let samples = match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
            Split::Test => &self.test,
        };
        let rows: Vec<usize> = (0..samples.ids.len()).collect();
        let logits = head.logits(&self.features(samples, &rows));
        let one =
            |row: usize| Logits { id: samples.ids[row], label: samples.labels[row], values: logits.row(row).to_vec() };
        rows.into_iter().map(one).collect()
    }

    /// A digest of every bit that its next step depends on.
    pub(crate) fn digest(&self) -> Digest {
        let moments = self.optimizer.moments().iter().flat_map(|moments| moments.first.iter().chain(&moments.second));
        digest(self.parameters.iter().chain(moments).copied(), &format!("{} {}", self.steps, self.optimizer.steps()))
    }

    /// The samples of a step's batch. Each pass through the data has another permutation, and its last batch may be
    /// smaller.
    fn rows(&self, step: u64) -> Vec<usize> {
        let (pass, position) = (step / self.batches(), (step % self.batches()) as usize);
        let mut stream = rng::stream(self.seed, &["shuffle".into(), self.name().into(), pass.into()]);
        let order = rng::permutation(&mut stream, self.train.len() as u32);
        order.chunks(self.batch).nth(position).into_iter().flatten().map(|row| *row as usize).collect()
    }

    fn features(&self, samples: &Samples, rows: &[usize]) -> Matrix<f32> {
        let feature = |value: &[f32; INPUTS], weights: &[f32]| {
            let sum = value.iter().chain([&1.0]).zip(weights).fold(0.0_f32, |sum, (x, w)| sum + x * w);
            sum.tanh()
        };
        let values = rows.iter().flat_map(|row| {
            self.parameters.chunks_exact(INPUTS + 1).map(move |weights| feature(&samples.values[*row], weights))
        });
        Matrix::from_vec(rows.len(), self.width, values.collect()).expect("one feature for each row of weights")
    }
}
