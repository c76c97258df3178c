//! Measures training steps of one encoder in this process.

use std::time::{Duration, Instant};

use antiphon_core::ids::{MicroShard, ModalityName};
use antiphon_core::linalg::Matrix;
use antiphon_core::spec::{LearningRateSchedule, OptimizerRule, OptimizerSpec, Precision};
use antiphon_model::device::{self, Device};
use antiphon_model::encoder::{self, DropoutKey, Encoder, Frozen, Mode};
use antiphon_model::optimizer::Optimizer;
use serde::{Deserialize, Serialize};

use super::case::{Case, noise};
use super::memory;
use crate::exit::{Exit, OrExit as _};

/// The optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Rule {
    /// SGD with momentum and weight decay
    #[default]
    Sgd,
    /// AdamW
    Adamw,
}

impl Rule {
    /// A learning rate so small that the parameters hardly change.
    fn spec(self) -> OptimizerSpec {
        let rule = match self {
            Self::Sgd => OptimizerRule::Sgd { momentum: 0.9, weight_decay: 1e-4 },
            Self::Adamw => OptimizerRule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 },
        };
        OptimizerSpec { rule, lr: 1e-5, schedule: LearningRateSchedule::Constant { warmup: 0.0 }, clip: None }
    }
}

/// The cost of the steps of an encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Number of trained parameters.
    pub parameters: u64,
    /// Times of each step after the warm-up.
    pub steps: Vec<StepTimes>,
    /// Peak memory in bytes minus that of the process without an encoder, on the encoder's device. None if the system
    /// does not report it.
    pub peak_bytes: Option<u64>,
}

/// Seconds of one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct StepTimes {
    /// From the batch to H.
    pub forward: f64,
    /// From dH to the gradients of the parameters.
    pub backward: f64,
    /// From the gradients to the new parameters.
    pub optimizer: f64,
}

impl StepTimes {
    /// Seconds of the whole step.
    pub(super) fn total(&self) -> f64 {
        self.forward + self.backward + self.optimizer
    }
}

/// Takes `warmup` steps, then measures `steps`.
///
/// # Errors
/// The encoder does not accept this input, the device does not support this precision, or the training diverges.
pub(super) fn measure(
    case: &Case,
    samples: usize,
    (warmup, steps): (usize, usize),
    rule: Rule,
    (precision, device): (Precision, &Device),
) -> anyhow::Result<Measured> {
    memory::forget_peak();
    device::forget_peak(device);
    let before = memory::resident();
    let batch = case.batch(samples);
    let modality = ModalityName::try_from("bench")?;
    let built = encoder::build(precision, case.spec(), &case.shape(), case.width(), 1, &modality, device);
    let mut encoder = built.or_exit(Exit::Usage)?;
    let spec = rule.spec();
    let mut optimizer = Optimizer::new(&spec, encoder.parameters())?;
    let parameters = encoder.parameters().iter().map(|(_, parameter)| parameter.elem_count() as u64).sum();
    let scale = 1.0 / samples as f32;
    let upstream = noise().take(samples * case.width()).map(|x| x * scale).collect();
    let upstream = Matrix::from_vec(samples, case.width(), upstream)?;

    let mut one = |encoder: &mut dyn Encoder, step: usize| -> anyhow::Result<StepTimes> {
        let key = DropoutKey { seed: 1, modality: modality.clone(), step: step as u64, shard: MicroShard::WHOLE };
        let mut watch = Watch::new();
        let forward = encoder.forward(&batch, &Mode::Train(key, Frozen::none()))?;
        forward.matrix()?;
        let seconds_forward = watch.lap(device)?;
        let gradients = encoder::backward(encoder, &forward, &upstream)?;
        let seconds_backward = watch.lap(device)?;
        optimizer.step(encoder.parameters(), &gradients, spec.lr)?;
        encoder.commit(forward.pending.in_memory()?);
        Ok(StepTimes { forward: seconds_forward, backward: seconds_backward, optimizer: watch.lap(device)? })
    };
    for step in 0..warmup {
        one(encoder.as_mut(), step)?;
    }
    let steps = (warmup..warmup + steps).map(|step| one(encoder.as_mut(), step)).collect::<Result<_, _>>()?;
    let in_memory = || memory::peak().zip(before).map(|(peak, before)| peak.saturating_sub(before));
    let peak_bytes = if device.is_cuda() { device::peak(device) } else { in_memory() };
    Ok(Measured { parameters, steps, peak_bytes })
}

struct Watch(Instant);

impl Watch {
    #[expect(
        clippy::disallowed_methods,
        reason = "measuring time is what a benchmark is for; nothing else depends on it"
    )]
    fn new() -> Self {
        Self(Instant::now())
    }

    /// Waits until the device has finished its work, and returns the seconds since the last call.
    fn lap(&mut self, device: &Device) -> anyhow::Result<f64> {
        device.synchronize()?;
        let elapsed: Duration = self.0.elapsed();
        self.0 += elapsed;
        Ok(elapsed.as_secs_f64())
    }
}
