//! Dropout with reproducible masks.

use std::sync::{Arc, Mutex, PoisonError};

use antiphon_core::rng;
use candle_core::{ModuleT, Result, Tensor};

use crate::nn::layer::DropoutKey;

/// The current step of a network, which its dropout layers share.
#[derive(Debug, Clone, Default)]
pub(super) struct CurrentStep(Arc<Mutex<Option<DropoutKey>>>);

impl CurrentStep {
    pub(super) fn set(&self, key: Option<DropoutKey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    fn key(&self) -> Option<DropoutKey> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sets values to 0 with a probability and scales up the others, in training only.
#[derive(Debug, Clone)]
pub struct Dropout {
    step: CurrentStep,
    name: String,
    probability: f64,
}

impl Dropout {
    pub(super) fn new(step: CurrentStep, name: &str, probability: f64) -> Self {
        Self { step, name: name.to_owned(), probability }
    }

    /// 1 / (1 − p) with probability 1 − p, else 0, from the stream `[dropout, modality, step, shard, name]`.
    fn mask(&self, key: &DropoutKey, x: &Tensor) -> Result<Tensor> {
        let path = [
            "dropout".into(),
            (&key.modality).into(),
            key.step.into(),
            key.shard.index.into(),
            self.name.as_str().into(),
        ];
        let mut stream = rng::stream(key.seed, &path);
        let scale = (1.0 / (1.0 - self.probability)) as f32;
        let keep = |_| if rng::uniform(&mut stream) < self.probability { 0.0 } else { scale };
        let mask: Vec<f32> = (0..x.elem_count()).map(keep).collect();
        Tensor::from_vec(mask, x.shape(), &candle_core::Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())
    }
}

impl ModuleT for Dropout {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match self.step.key() {
            Some(key) if train && self.probability > 0.0 => x.mul(&self.mask(&key, x)?),
            _ => Ok(x.clone()),
        }
    }
}
