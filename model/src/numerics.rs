//! This worker's numeric fingerprint; see [`antiphon_core::numerics`].

use antiphon_core::digest::Hasher;
use antiphon_core::head::{Contribution, Head, HeadGradient};
use antiphon_core::ids::{MicroShard, ModalityName};
use antiphon_core::linalg::Matrix;
use antiphon_core::numerics::NumericFingerprint;
use antiphon_core::rng;
use antiphon_core::spec::{EncoderSpec, LearningRateSchedule, OptimizerRule, OptimizerSpec, Precision};
use antiphon_data::{BatchInput, Decoded, InputShape, SampleError, noise_spectrogram};
use candle_core::{DType, Tensor};

use crate::device::Device;
use crate::encoder::{self, DropoutKey, EncoderError, Frozen, Mode};
use crate::head::{HeadStepError, contribution};
use crate::optimizer::Optimizer;

const SEED: u64 = 0;
const CLASSES: usize = 5;
const WIDTH: usize = 24;
const SAMPLES: usize = 8;
const STEPS: u64 = 2;

/// Why there is no fingerprint.
#[derive(Debug, thiserror::Error)]
pub enum FingerprintError {
    /// The spectrogram cannot be computed.
    #[error(transparent)]
    Spectrogram(#[from] SampleError),
    /// The training steps fail.
    #[error(transparent)]
    Step(#[from] HeadStepError),
}

impl FingerprintError {
    /// Whether a retry may succeed. It may only if a device failed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Step(error) if error.is_transient())
    }
}

/// Takes the same two small training steps on every machine, in some milliseconds: spectra, then convolutions, then a
/// transformer, each with the head's half and an optimizer.
///
/// # Errors
/// If the device fails, or does not compute in this precision.
pub fn fingerprint(precision: Precision, device: &Device) -> Result<NumericFingerprint, FingerprintError> {
    let mut seen = Seen(Hasher::default());
    seen.floats(&noise_spectrogram()?);
    let grid = InputShape::Grid { channels: 1, height: 12, width: 12 };
    let tokens = InputShape::Tokens { vocabulary: 11, max_tokens: 7, padding: 10 };
    let convolutions = EncoderSpec::Cnn { channels: vec![4, 8], dropout: 0.2 };
    let transformer = EncoderSpec::Text { width: 24, layers: 1, heads: 2, dropout: 0.2 };
    for (spec, shape) in [(convolutions, grid), (transformer, tokens)] {
        train(precision, &spec, &shape, device, &mut seen)?;
    }
    Ok(seen.0.finish().into())
}

fn train(
    precision: Precision,
    spec: &EncoderSpec,
    shape: &InputShape,
    device: &Device,
    seen: &mut Seen,
) -> Result<(), HeadStepError> {
    let modality = ModalityName::try_from("fingerprint").expect("it is a name");
    let mut encoder = encoder::build(precision, spec, shape, WIDTH, SEED, &modality, device)?;
    let rule = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
    let schedule = LearningRateSchedule::Constant { warmup: 0.0 };
    let optimizer = OptimizerSpec { rule, lr: 0.01, schedule, clip: Some(1.0) };
    let mut optimizer = Optimizer::new(&optimizer, encoder.parameters())?;
    let head = Head::initial(SEED, CLASSES, WIDTH);
    let labels: Vec<u32> = (0..SAMPLES).map(|sample| (sample % CLASSES) as u32).collect();
    for step in 0..STEPS {
        let key = DropoutKey { seed: SEED, modality: modality.clone(), step, shard: MicroShard::WHOLE };
        let mut forward = encoder.forward(&batch(shape, step), &Mode::Train(key, Frozen::none()))?;
        let statistics = std::mem::take(&mut forward.pending).in_memory()?;
        let (contribution, errors) = contribution(&head, &forward, &labels)?;
        seen.contribution(&contribution);
        let gradients = encoder::backward_tensor(encoder.parameters(), &forward, &errors.feature_gradient(&head)?)?;
        optimizer.step(encoder.parameters(), &gradients, 0.01)?;
        encoder.commit(statistics);
    }
    for (_, parameter) in encoder.parameters() {
        seen.tensor(parameter)?;
    }
    for (_, buffer) in encoder.buffers()? {
        seen.tensor(&buffer)?;
    }
    Ok(())
}

fn batch(shape: &InputShape, step: u64) -> BatchInput {
    let mut stream = rng::stream(SEED, &["fingerprint".into(), step.into()]);
    let samples = (0..SAMPLES).map(|_| match *shape {
        InputShape::Tokens { vocabulary, max_tokens, .. } => {
            let length = 1 + rng::below(&mut stream, max_tokens as u64);
            Decoded::Tokens((0..length).map(|_| rng::below(&mut stream, vocabulary as u64 - 1) as u32).collect())
        }
        _ => Decoded::Dense((0..shape.size()).map(|_| rng::normal(&mut stream) as f32).collect()),
    });
    let samples = samples.collect();
    BatchInput::stack(shape, samples)
}

/// A hash of all results, in order.
struct Seen(Hasher);

impl Seen {
    fn floats(&mut self, values: &[f32]) {
        for value in values {
            self.0.update(&value.to_le_bytes());
        }
    }

    fn matrix(&mut self, matrix: &Matrix<f32>) {
        self.floats(matrix.as_slice());
    }

    fn contribution(&mut self, contribution: &Contribution<f32>) {
        match &contribution.gradient {
            HeadGradient::Dense(gradient) => self.matrix(gradient),
            HeadGradient::Factors { errors, features } => {
                self.matrix(errors);
                self.matrix(features);
            }
        }
        self.floats(&contribution.bias_gradient);
        self.floats(&contribution.mean_features);
        self.0.update(&contribution.loss.to_le_bytes());
    }

    fn tensor(&mut self, tensor: &Tensor) -> Result<(), EncoderError> {
        let values = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        self.floats(&values);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::check::{bf16_cards, devices};

    #[test]
    fn a_fingerprint_is_repeatable_and_depends_on_the_precision() {
        for device in devices() {
            let whole = fingerprint(Precision::F32, &device).expect("it computes");
            assert_eq!(fingerprint(Precision::F32, &device).expect("it computes"), whole, "{device:?}");
        }
        for card in bf16_cards() {
            let [whole, half] = [Precision::F32, Precision::Bf16].map(|precision| fingerprint(precision, &card));
            assert_ne!(whole.expect("it computes"), half.expect("it computes"));
        }
    }

    #[test]
    fn it_is_the_same_on_any_number_of_threads() {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| fingerprint(Precision::F32, &Device::Cpu)).expect("it computes")
        };
        assert_eq!(on(1), on(3));
    }
}
