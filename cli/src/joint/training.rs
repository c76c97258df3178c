//! Joint training of several encoders with one linear head.

use antiphon_core::head::{Head, SharedHead, StepContext};
use antiphon_core::ids::ModalityName;
use antiphon_core::learning_rate::factor;
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{HeadSpec, JobSpec, LearningRateSchedule, Length, ProjectionSpec};
use antiphon_core::turn::{Progress, epoch};
use antiphon_data::Sampler;
use antiphon_model::custom::Encoders;
use anyhow::{Context as _, anyhow};

use super::learner::{Learner, Member, Opened};
use super::pairs::Pairs;

/// A training of one or several modalities with one head.
pub(crate) struct Training {
    /// Name of the random stream that orders the samples.
    name: ModalityName,
    learners: Vec<Learner>,
    head: SharedHead<f32>,
    schedule: LearningRateSchedule,
    pairs: Pairs,
    sampler: Sampler,
    steps: u64,
    done: u64,
}

impl Training {
    /// Prepares a training of `epochs` epochs ([`epochs`]). A single modality visits its samples in the same order as
    /// in turns. Several modalities visit every sample that has any of them.
    ///
    /// # Errors
    /// A sample cannot be decoded, an encoder does not fit the samples, or modalities disagree on a label.
    pub(crate) async fn new(
        job: &JobSpec,
        modalities: &[Opened],
        epochs: f64,
        encoders: &Encoders,
    ) -> anyhow::Result<Self> {
        let name = match modalities {
            [only] => only.spec.name.clone(),
            _ => ModalityName::try_from("joint")?,
        };
        let mut learners = Vec::with_capacity(modalities.len());
        for modality in modalities {
            learners.push(Learner::new(job, modality, encoders).await?);
        }
        let pairs = Pairs::of(modalities)?;
        let width = job.head.width as usize * learners.len();
        let spec = HeadSpec { projection: ProjectionSpec::Off, ..job.head.clone() };
        let head = Head::initial(job.seed, job.labels.classes.count(), width);
        let sampler = Sampler::new(job.seed, name.clone(), pairs.len(), job.schedule.batch);
        let steps = (epochs * sampler.batches_per_epoch() as f64).round() as u64;
        let schedule = job.head.optimizer.schedule.clone();
        let head = SharedHead::with_head(&spec, head);
        Ok(Self { name, learners, head, schedule, pairs, sampler, steps, done: 0 })
    }

    /// Total number of samples to visit in all epochs.
    pub(crate) fn rows(&self) -> u64 {
        self.rows_of(self.steps)
    }

    /// Number of samples visited so far.
    pub(crate) fn rows_done(&self) -> u64 {
        self.rows_of(self.done)
    }

    fn rows_of(&self, steps: u64) -> u64 {
        (self.pairs.len() as f64 * steps as f64 / self.sampler.batches_per_epoch() as f64).round() as u64
    }

    /// Whether the last step was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.done >= self.steps
    }

    /// One step of the head and of every encoder that the batch has samples for.
    ///
    /// # Errors
    /// A sample that cannot be decoded, a training that has diverged, or a failure of the device.
    pub(crate) fn step(&mut self) -> anyhow::Result<()> {
        let (_, batch) = self.sampler.batch_indices(self.done);
        let per_epoch = self.sampler.batches_per_epoch() as f64;
        let at = Progress { epoch: self.done as f64 / per_epoch, epochs: self.steps as f64 / per_epoch };
        let (pairs, modalities) = (&self.pairs, self.learners.len());
        let width = self.head.head().width() / modalities;
        let rows: Vec<Vec<usize>> = (0..modalities).map(|m| pairs.rows_with(m, &batch)).collect();

        let own = |m: usize| -> Vec<u32> { rows[m].iter().filter_map(|row| pairs.index(m, batch[*row])).collect() };
        let outputs = side_by_side(self.learners.iter_mut().enumerate(), |(m, learner)| learner.forward(&own(m)))?;
        let mut features = Matrix::zeros(batch.len(), modalities * width);
        for (m, output) in outputs.iter().enumerate() {
            for (row, values) in rows[m].iter().zip(output.iter().flat_map(Matrix::iter_rows)) {
                features.row_mut(*row)[m * width..][..width].copy_from_slice(values);
            }
        }
        let labels: Vec<u32> = batch.iter().map(|sample| pairs.label(*sample)).collect();
        let local = self.head.head().local_step(features, &labels);
        let local = local.with_context(|| format!("step {} of `{}`", self.done, self.name))?;
        // Without a projector, α has no effect.
        let context = StepContext { lr_factor: factor(&self.schedule, at.epoch, at.epochs), alpha: 1.0 };
        self.head.apply(&self.name, &local.contribution, context)?;
        self.head.end_turn();

        let gradient = |m: usize| {
            let mut own = Matrix::zeros(rows[m].len(), width);
            for (i, row) in rows[m].iter().enumerate() {
                own.row_mut(i).copy_from_slice(&local.feature_gradient.row(*row)[m * width..][..width]);
            }
            own
        };
        side_by_side(self.learners.iter_mut().enumerate(), |(m, learner)| learner.learn(&gradient(m), at))?;
        self.done += 1;
        Ok(())
    }

    /// Each modality with its slice (C, s) of the head, and the bias that all slices share.
    pub(crate) fn members(&self) -> anyhow::Result<Vec<Member<'_>>> {
        let head = self.head.head();
        let width = head.width() / self.learners.len();
        let slice = |m: usize| {
            let rows = head.weight().iter_rows().flat_map(|row| row[m * width..][..width].iter().copied()).collect();
            anyhow::Ok(Head::new(Matrix::from_vec(head.classes(), width, rows)?, head.bias().to_vec())?)
        };
        self.learners.iter().enumerate().map(|(m, learner)| Ok(learner.member(slice(m)?))).collect()
    }
}

/// The job's length in epochs of the samples that these modalities train on.
pub(crate) fn epochs(job: &JobSpec, modalities: &[Opened]) -> f64 {
    match job.schedule.length {
        Length::Epochs(epochs) => epochs as f64,
        Length::Turns(turns) => {
            let names: Vec<ModalityName> = modalities.iter().map(|modality| modality.spec.name.clone()).collect();
            let samples = modalities.iter().map(|m| (m.spec.name.clone(), m.train.len() as u64)).collect();
            turns as f64 / epoch::plan(&job.schedule, &names, &samples, &[].into()).turns().max(1) as f64
        }
    }
}

/// Runs the work of each item on a separate thread. The results are in the order of the items.
fn side_by_side<T: Send, R: Send>(
    items: impl Iterator<Item = T>,
    work: impl Fn(T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        let done = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("training panicked"))?);
        done.collect()
    })
}
