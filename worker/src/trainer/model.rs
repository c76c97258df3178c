//! What a modality's checkpoint makes: an encoder and the preprocessor that feeds it.

use std::sync::Arc;

use antiphon_core::ids::ModalityName;
use antiphon_core::spec::{JobSpec, ModalitySpec};
use candle_core::Device;

use crate::data::{Dataset, PrefetchOptions, Prefetcher, Preprocessor, Sampler};
use crate::encoder::{self, Encoder};

/// An encoder with its preprocessor.
pub struct Model {
    /// f_m.
    pub encoder: Box<dyn Encoder>,
    /// Raw values to inputs.
    pub preprocessor: Arc<Preprocessor>,
}

impl Model {
    /// A new model: the preprocessor fitted on the training split, the encoder at its first values.
    ///
    /// # Errors
    /// Samples that cannot be decoded, or an encoder that does not fit them.
    pub async fn fit(job: &JobSpec, modality: &ModalitySpec, train: &Arc<Dataset>) -> anyhow::Result<Self> {
        let preprocessor = Preprocessor::fit(modality, train).await?;
        Self::build(job, modality, preprocessor)
    }

    /// A model with this preprocessor, the encoder at its first values.
    ///
    /// # Errors
    /// An encoder that does not fit the preprocessor's output.
    pub fn build(job: &JobSpec, modality: &ModalitySpec, preprocessor: Preprocessor) -> anyhow::Result<Self> {
        let name: &ModalityName = &modality.name;
        let encoder = encoder::build(
            &modality.encoder,
            preprocessor.shape(),
            job.head.width as usize,
            job.seed,
            name,
            &Device::Cpu,
        )?;
        Ok(Self { encoder, preprocessor: Arc::new(preprocessor) })
    }

    /// Training batches from a step on, decoded ahead.
    pub(super) fn batches(
        &self,
        data: &Arc<Dataset>,
        sampler: Sampler,
        from_step: u64,
        prefetch: PrefetchOptions,
    ) -> Prefetcher {
        Prefetcher::train(Arc::clone(data), Arc::clone(&self.preprocessor), sampler, from_step, prefetch)
    }
}
