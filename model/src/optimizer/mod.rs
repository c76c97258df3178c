//! Optimizers of encoders: from a gradient to a step, in place, parameter by parameter in a fixed order.
//!
//! If the gradient is not finite, a step changes nothing. The caller applies learning-rate schedules
//! (`antiphon_core::learning_rate`).

use std::collections::BTreeMap;

use antiphon_core::spec::{OptimizerRule, OptimizerSpec};
use candle_core::{Result as TensorResult, Tensor, Var};

use crate::encoder::{EncoderError, Gradients, check_saved};
use crate::nn::update::{self, Adam, Change};
use crate::weights::Rates;

/// An optimizer with its moments.
#[derive(Debug)]
pub struct Optimizer {
    rule: OptimizerRule,
    clip: Option<f64>,
    steps: u64,
    slots: Vec<Slot>,
}

/// The state of one trained parameter.
#[derive(Debug)]
struct Slot {
    name: String,
    /// Its position among all parameters.
    position: usize,
    /// The factor of the learning rate.
    factor: f64,
    /// SGD: the velocity v. AdamW: the running mean of gradients m.
    first: Tensor,
    /// AdamW: the running mean of squared gradients.
    second: Option<Tensor>,
}

impl Slot {
    /// The parameter's gradient, which exists unless the pass treated the parameter as frozen.
    fn gradient<'a>(&self, gradients: &'a Gradients) -> Result<&'a Tensor, EncoderError> {
        let gradient = gradients.tensors()[self.position].as_ref();
        gradient.ok_or_else(|| EncoderError::NoGradient { name: self.name.clone() })
    }

    /// The tensors that a step changes, and their coefficients.
    fn change<'a>(
        &'a self,
        parameters: &'a [(String, Var)],
        gradients: &Gradients,
        (rate, decay): (f64, f64),
    ) -> Result<Change<'a>, EncoderError> {
        let Self { position, first, second, .. } = self;
        let (parameter, gradient) = (parameters[*position].1.as_tensor(), self.gradient(gradients)?.contiguous()?);
        Ok(Change { parameter, first, second: second.as_ref(), gradient, rate, decay })
    }
}

impl Optimizer {
    /// A new optimizer. Every later step must have the same `parameters`.
    ///
    /// # Errors
    /// If candle fails.
    pub fn new(spec: &OptimizerSpec, parameters: &[(String, Var)]) -> Result<Self, EncoderError> {
        Self::with_rates(spec, parameters, &Rates::same(parameters.len()))
    }

    /// As [`Self::new`], with parameters that are not trained and others that have separate learning rates.
    ///
    /// # Errors
    /// If candle fails.
    pub fn with_rates(spec: &OptimizerSpec, parameters: &[(String, Var)], rates: &Rates) -> Result<Self, EncoderError> {
        let adaptive = matches!(spec.rule, OptimizerRule::Adamw { .. });
        let slot = |(position, factor): (usize, f64)| -> TensorResult<Slot> {
            let (name, variable) = &parameters[position];
            let second = if adaptive { Some(variable.zeros_like()?) } else { None };
            Ok(Slot { name: name.clone(), position, factor, first: variable.zeros_like()?, second })
        };
        let slots = rates.trained().map(slot).collect::<TensorResult<_>>()?;
        Ok(Self { rule: spec.rule.clone(), clip: spec.clip, steps: 0, slots })
    }

    /// The number of steps that it has taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step with learning rate `lr`; returns the norm of the gradient g of all trained parameters, before clipping.
    ///
    /// With clipping at c, `g ← g · min(1, c / |g|)`. SGD: `v ← μ v + (g + λ p); p ← p − lr v`. AdamW (Loshchilov &
    /// Hutter 2019): `m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; p ← p − lr λ p − lr m̂ / (√v̂ + ε)`,
    /// `m̂ = m / (1 − β₁ᵗ)`, `v̂ = v / (1 − β₂ᵗ)`.
    ///
    /// # Errors
    /// [`EncoderError::NotFinite`] names the first parameter whose gradient is not finite. [`EncoderError::NoGradient`]
    /// names a trained parameter without a gradient. Nothing changes in these cases.
    pub fn step(&mut self, parameters: &[(String, Var)], gradients: &Gradients, lr: f64) -> Result<f64, EncoderError> {
        let norm = self.norm(gradients)?;
        let share = self.clip.map_or(1.0, |clip| if norm > clip { clip / norm } else { 1.0 });
        self.update(parameters, gradients, share, lr)?;
        self.steps += 1;
        Ok(norm)
    }

    fn norm(&self, gradients: &Gradients) -> Result<f64, EncoderError> {
        let trained = self.slots.iter().map(|slot| slot.gradient(gradients)).collect::<Result<Vec<_>, _>>()?;
        let mut total = 0.0;
        for (slot, squares) in self.slots.iter().zip(update::sums_of_squares(&trained)?) {
            if !squares.is_finite() {
                return Err(EncoderError::NotFinite { name: slot.name.clone() });
            }
            total += squares;
        }
        Ok(total.sqrt())
    }

    fn update(
        &self,
        parameters: &[(String, Var)],
        gradients: &Gradients,
        share: f64,
        lr: f64,
    ) -> Result<(), EncoderError> {
        // `rates` computes rate and decay from a learning rate.
        let changes = |rates: &dyn Fn(f64) -> (f64, f64)| {
            let slots = self.slots.iter();
            let change = slots.map(|slot| slot.change(parameters, gradients, rates(lr * slot.factor)));
            change.collect::<Result<Vec<_>, _>>()
        };
        match self.rule {
            OptimizerRule::Sgd { momentum, weight_decay } => {
                update::sgd(&changes(&|lr| (lr, weight_decay))?, share, momentum)?;
            }
            OptimizerRule::Adamw { beta1, beta2, eps: epsilon, weight_decay } => {
                let corrections = [beta1, beta2].map(|beta| 1.0 - beta.powf((self.steps + 1) as f64));
                let adam = Adam { share, betas: [beta1, beta2], correction: corrections[1].sqrt(), epsilon };
                update::adamw(&changes(&|lr| (lr / corrections[0], 1.0 - lr * weight_decay))?, adam)?;
            }
        }
        Ok(())
    }

    /// The state for a checkpoint, besides [`Self::steps`]: copies named `momentum.<parameter>`, or `mean.<parameter>`
    /// and `square.<parameter>`.
    ///
    /// # Errors
    /// If candle fails.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>, EncoderError> {
        let tensors = self.named().into_iter();
        Ok(tensors.map(|(name, tensor)| Ok((name, tensor.copy()?))).collect::<TensorResult<_>>()?)
    }

    /// Restores the results of [`Self::state`] and [`Self::steps`]. All tensors are checked before the first one is
    /// loaded. Other names are ignored.
    ///
    /// # Errors
    /// [`EncoderError::WrongTensor`] if a tensor is missing or has another shape or type.
    pub fn restore(&mut self, tensors: &BTreeMap<String, Tensor>, steps: u64) -> Result<(), EncoderError> {
        let named = self.named();
        let saved = named.iter().map(|(name, own)| check_saved(name, own, tensors.get(name)));
        let saved = saved.collect::<Result<Vec<_>, _>>()?;
        for ((_, own), saved) in named.iter().zip(saved) {
            update::copy(&saved.to_device(own.device())?.contiguous()?, own)?;
        }
        self.steps = steps;
        Ok(())
    }

    fn named(&self) -> Vec<(String, &Tensor)> {
        let slots = self.slots.iter();
        slots
            .flat_map(|Slot { name, first, second, .. }| match second {
                None => vec![(format!("momentum.{name}"), first)],
                Some(second) => vec![(format!("mean.{name}"), first), (format!("square.{name}"), second)],
            })
            .collect()
    }
}

#[cfg(test)]
mod device_tests;
#[cfg(test)]
mod tests;
