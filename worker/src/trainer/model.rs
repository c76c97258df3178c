//! A modality's model: an encoder and the preprocessor of its input.

use std::sync::Arc;

use antiphon_core::spec::{EncoderSpec, InputSpec, JobSpec, ModalitySpec};
use antiphon_data::{Dataset, Images, PrefetchOptions, Prefetcher, Preprocessor, Sampler};
use antiphon_model::custom::{Encoders, Setting};
use antiphon_model::device::Device;
use antiphon_model::encoder::{Encoder, EncoderError};
use tracing::warn;

use super::TrainError;
use super::error::Within as _;

/// What models need from the machine and the program.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The device that encoders compute on.
    pub device: Device,
    /// Encoders that the program registers besides the built-in ones.
    pub encoders: Encoders,
}

/// An encoder with its preprocessor.
pub struct Model {
    /// The encoder f_m.
    pub encoder: Box<dyn Encoder>,
    /// Turns raw values into the encoder's input.
    pub preprocessor: Arc<Preprocessor>,
}

impl Model {
    /// A new model: a preprocessor that is fitted on the training split, and an encoder with initial parameters.
    ///
    /// # Errors
    /// If samples cannot be decoded, or the encoder does not fit them. If the encoder ignores the end of every
    /// spectrogram, a warning is logged.
    pub async fn fit(
        job: &JobSpec,
        modality: &ModalitySpec,
        train: &Arc<Dataset>,
        machine: &Machine,
    ) -> Result<Self, TrainError> {
        let preprocessor = Preprocessor::fit(modality, train).await?;
        let left_out = check_patches(&modality.encoder, &preprocessor);
        if let Some(left_out) = left_out.within(|| format!("the encoder of `{}`", modality.name))? {
            warn!(modality = %modality.name, "{left_out}");
        }
        Self::build(job, modality, preprocessor, machine)
    }

    /// A model with this preprocessor and an encoder with initial parameters.
    ///
    /// # Errors
    /// If the encoder does not fit the preprocessor's output.
    pub fn build(
        job: &JobSpec,
        modality: &ModalitySpec,
        preprocessor: Preprocessor,
        machine: &Machine,
    ) -> Result<Self, TrainError> {
        let setting = Setting {
            precision: modality.precision,
            shape: preprocessor.shape(),
            width: job.head.width as usize,
            seed: job.seed,
            modality: &modality.name,
            device: &machine.device,
        };
        let encoder = machine.encoders.build(&modality.encoder, &setting)?;
        Ok(Self { encoder, preprocessor: Arc::new(preprocessor) })
    }

    /// Training batches starting at a step, decoded ahead.
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

/// Checks that patches fill the input. Users choose the size of images, so patches must divide it. The number of frames
/// of a spectrogram follows from lengths in seconds, so its last frames may be ignored; the result is then a warning.
fn check_patches(encoder: &EncoderSpec, preprocessor: &Preprocessor) -> Result<Option<String>, EncoderError> {
    let (EncoderSpec::Vit { patch, .. }, Some(images)) = (encoder, preprocessor.shape().images()) else {
        return Ok(None);
    };
    let (patch, Images { height, width, .. }) = (*patch as usize, images);
    let (rows, columns) = (height - height % patch, width - width % patch);
    // A patch that is larger than the input is refused when the encoder is built.
    if (rows, columns) == (height, width) || rows == 0 || columns == 0 {
        return Ok(None);
    }
    if let InputSpec::Image { .. } = preprocessor.input() {
        let fills = |smaller: &usize| height.is_multiple_of(*smaller) && width.is_multiple_of(*smaller);
        let divides = (1..patch).rev().find(fills).unwrap_or(1);
        return Err(EncoderError::UnevenPatches { patch, height, width, divides });
    }
    Ok(Some(format!(
        "encoder `vit` with patches of {patch} reads {rows} of {height} mel bands and {columns} of {width} frames of every \
         spectrogram and ignores the rest, which fills no patch; change `patch`, or `mels`, `seconds` and `hop` of the \
         input, to use everything"
    )))
}

#[cfg(test)]
mod tests {
    use antiphon_core::ids::Split;
    use antiphon_core::spec::parse;

    use super::*;
    use antiphon_data::OpenOptions;

    const JOB: &str = "
name: patches
data: {source: synth, kind: spoken-digits, samples: {train: 4, validation: 0, test: 0}}
modalities:
  image: {encoder: {kind: vit, size: tiny, patch: 16}}
  audio:
    input: {kind: audio, sample_rate: 8000, seconds: 1 s, mels: 32, window: 256, hop: 256}
    encoder: {kind: vit, size: tiny, patch: 16}
labels: 10
";

    #[tokio::test]
    async fn patches_fill_images_and_may_leave_out_some_of_spectrograms() {
        let job = parse(JOB, "job", &[], &|_| None).expect("a job");
        let mut answers = Vec::new();
        for modality in &job.modalities {
            let options = OpenOptions::new(crate::stores::stores());
            let train = Dataset::open(modality, &job.labels, Split::Train, job.seed, &options).await.expect("data");
            let preprocessor = Preprocessor::fit(modality, &train).await.expect("data that decode");
            answers.push(check_patches(&modality.encoder, &preprocessor).map_err(|error| error.to_string()));
        }
        let refused = "encoder `vit` cannot divide images of 28 × 28 into patches of 16 × 16 without a remainder; \
                       use `input: {kind: image, height: 32, width: 32}`, or `patch: 14`";
        let told = "encoder `vit` with patches of 16 reads 32 of 32 mel bands and 16 of 31 frames of every spectrogram and \
                    ignores the rest, which fills no patch; change `patch`, or `mels`, `seconds` and `hop` of the input, to \
                    use everything";
        assert_eq!(answers, [Err(refused.to_owned()), Ok(Some(told.to_owned()))]);
    }
}
