//! Optimizers of encoders: from a gradient to a step, in place, parameter by parameter in a fixed order.
//!
//! A step either happens as a whole or, when the gradient is not finite, not at all. Learning rate schedules are the
//! caller's (`antiphon_core::learning_rate`).

use std::collections::BTreeMap;

use antiphon_core::spec::{OptimizerRule, OptimizerSpec};
use candle_core::{CpuStorage, InplaceOp3, Layout, Result as TensorResult, Tensor, Var};

use crate::encoder::{EncoderError, Gradients, check_saved};
use crate::nn::number::{Number, Reading, by_number, dtype, values, values_mut};
use crate::weights::Rates;

/// An optimizer with its memory of earlier gradients.
#[derive(Debug)]
pub struct Optimizer {
    rule: OptimizerRule,
    clip: Option<f64>,
    steps: u64,
    slots: Vec<Slot>,
}

/// What is remembered of one parameter that is trained.
#[derive(Debug)]
struct Slot {
    name: String,
    /// Its place among all parameters.
    position: usize,
    /// What the learning rate is multiplied by.
    factor: f64,
    /// SGD: the velocity v. AdamW: the running mean of gradients m.
    first: Tensor,
    /// AdamW: the running mean of squared gradients.
    second: Option<Tensor>,
}

impl Optimizer {
    /// An optimizer that has seen nothing. `parameters` are those of every later step.
    ///
    /// # Errors
    /// When candle fails.
    pub fn new(spec: &OptimizerSpec, parameters: &[(String, Var)]) -> Result<Self, EncoderError> {
        Self::with_rates(spec, parameters, &Rates::same(parameters.len()))
    }

    /// As [`Self::new`], with parameters that are not trained and others that have learning rates of their own.
    ///
    /// # Errors
    /// When candle fails.
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

    /// How many steps it has taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step with learning rate `lr`; returns the norm of the whole gradient g of what is trained, before clipping.
    ///
    /// With clipping at c, `g ← g · min(1, c / |g|)`. SGD: `v ← μ v + (g + λ p); p ← p − lr v`. AdamW (Loshchilov & Hutter 2019):
    /// `m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; p ← p − lr λ p − lr m̂ / (√v̂ + ε)`, `m̂ = m / (1 − β₁ᵗ)`, `v̂ = v / (1 − β₂ᵗ)`.
    ///
    /// # Errors
    /// [`EncoderError::NotFinite`] names the first parameter whose gradient is not finite; nothing is changed then.
    pub fn step(&mut self, parameters: &[(String, Var)], gradients: &Gradients, lr: f64) -> Result<f64, EncoderError> {
        let norm = self.norm(gradients)?;
        let share = self.clip.map_or(1.0, |clip| if norm > clip { clip / norm } else { 1.0 });
        self.steps += 1;
        for slot in &self.slots {
            let (variable, gradient) = (&parameters[slot.position].1, &gradients.tensors()[slot.position]);
            self.update(slot, variable, &gradient.contiguous()?, share, lr * slot.factor)?;
        }
        Ok(norm)
    }

    fn norm(&self, gradients: &Gradients) -> Result<f64, EncoderError> {
        let mut total = 0.0;
        for slot in &self.slots {
            let gradient = &gradients.tensors()[slot.position];
            let squares = by_number!(gradient.dtype(), "norm", sum_of_squares(&gradient.contiguous()?))?;
            if !squares.is_finite() {
                return Err(EncoderError::NotFinite { name: slot.name.clone() });
            }
            total += squares;
        }
        Ok(total.sqrt())
    }

    fn update(&self, slot: &Slot, variable: &Var, gradient: &Tensor, share: f64, lr: f64) -> TensorResult<()> {
        let Slot { first, second, .. } = slot;
        match (&self.rule, second) {
            (&OptimizerRule::Sgd { momentum, weight_decay: decay }, _) => {
                Update::Velocity { share, momentum, decay }.to(first, variable, gradient)?;
                Update::Descent { lr }.to(variable, first, first)
            }
            (&OptimizerRule::Adamw { beta1, beta2, eps, weight_decay }, Some(second)) => {
                Update::Mean { share, beta: beta1 }.to(first, gradient, gradient)?;
                Update::Square { share, beta: beta2 }.to(second, gradient, gradient)?;
                let corrections = [beta1, beta2].map(|beta| 1.0 - beta.powf(self.steps as f64));
                let (decay, rate) = (1.0 - lr * weight_decay, lr / corrections[0]);
                Update::AdamDescent { decay, rate, correction: corrections[1].sqrt(), eps }.to(variable, first, second)
            }
            (OptimizerRule::Adamw { .. }, None) => unreachable!("AdamW makes every slot with a second moment"),
        }
    }

    /// What a checkpoint keeps beside [`Self::steps`]: `momentum.<parameter>`, or `mean.<parameter>` and `square.<parameter>`. Copies.
    ///
    /// # Errors
    /// When candle fails.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>, EncoderError> {
        let tensors = self.named().into_iter();
        Ok(tensors.map(|(name, tensor)| Ok((name, tensor.copy()?))).collect::<TensorResult<_>>()?)
    }

    /// Sets it to what [`Self::state`] and [`Self::steps`] gave. All tensors are checked before the first is taken over; others'
    /// names are left alone.
    ///
    /// # Errors
    /// [`EncoderError::WrongTensor`] when one is missing or has another shape or type.
    pub fn restore(&mut self, tensors: &BTreeMap<String, Tensor>, steps: u64) -> Result<(), EncoderError> {
        let named = self.named();
        let saved = named.iter().map(|(name, own)| check_saved(name, own, tensors.get(name)));
        let saved = saved.collect::<Result<Vec<_>, _>>()?;
        for ((_, own), saved) in named.iter().zip(saved) {
            let saved = saved.contiguous()?;
            Update::Copy.to(own, &saved, &saved)?;
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

/// In f64, in eight lanes that are added up at the end: a fixed order that a processor may take eight at a time.
fn sum_of_squares<T: Number>(tensor: &Tensor) -> TensorResult<f64> {
    let reading = Reading::of(tensor);
    let mut lanes = [0.0; 8];
    for eight in reading.values::<T>("norm")?.chunks(8) {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane += value.to_f64() * value.to_f64();
        }
    }
    Ok(lanes.iter().sum())
}

/// What is done in place to one tensor x while reading two others, a and b, of its shape.
#[derive(Debug)]
enum Update {
    /// SGD's velocity from parameter a and gradient b: `x ← μ x + (share · b + λ a)`.
    Velocity { share: f64, momentum: f64, decay: f64 },
    /// A parameter along velocity a: `x ← x − lr a`.
    Descent { lr: f64 },
    /// The running mean of gradient a: `x ← β x + (1 − β) share · a`.
    Mean { share: f64, beta: f64 },
    /// The running mean of its square: `x ← β x + (1 − β) (share · a)²`.
    Square { share: f64, beta: f64 },
    /// A parameter along AdamW's direction from the means a and b: `x ← decay · x − rate · a / (√b / correction + ε)`.
    AdamDescent { decay: f64, rate: f64, correction: f64, eps: f64 },
    /// `x ← a`
    Copy,
}

impl Update {
    fn to(&self, tensor: &Tensor, a: &Tensor, b: &Tensor) -> TensorResult<()> {
        tensor.inplace_op3(a, b, self)
    }

    fn run<T: Number>(&self, x: &mut [T], a: &[T], b: &[T]) {
        let pairs = x.iter_mut().zip(a);
        match *self {
            Self::Velocity { share, momentum, decay } => {
                let [share, momentum, decay] = [share, momentum, decay].map(T::from_f64);
                pairs.zip(b).for_each(|((x, a), b)| *x = momentum * *x + (share * *b + decay * *a));
            }
            Self::Descent { lr } => {
                let lr = T::from_f64(lr);
                pairs.for_each(|(x, a)| *x -= lr * *a);
            }
            Self::Mean { share, beta } => {
                let [old, new] = [beta, (1.0 - beta) * share].map(T::from_f64);
                pairs.for_each(|(x, a)| *x = old * *x + new * *a);
            }
            Self::Square { share, beta } => {
                let [old, new] = [beta, (1.0 - beta) * share * share].map(T::from_f64);
                pairs.for_each(|(x, a)| *x = old * *x + new * *a * *a);
            }
            Self::AdamDescent { decay, rate, correction, eps } => {
                let [decay, rate, correction, eps] = [decay, rate, correction, eps].map(T::from_f64);
                let step = |a: &T, b: &T| rate * *a / (b.square_root() / correction + eps);
                pairs.zip(b).for_each(|((x, a), b)| *x = decay * *x - step(a, b));
            }
            Self::Copy => x.copy_from_slice(a),
        }
    }

    fn read_and_run<T: Number>(
        &self,
        (s1, l1): (&mut CpuStorage, &Layout),
        (s2, l2): (&CpuStorage, &Layout),
        (s3, l3): (&CpuStorage, &Layout),
    ) -> TensorResult<()> {
        let name = InplaceOp3::name(self);
        self.run(values_mut::<T>(s1, l1, name)?, values(s2, l2, name)?, values(s3, l3, name)?);
        Ok(())
    }
}

impl InplaceOp3 for Update {
    fn name(&self) -> &'static str {
        "optimizer"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> TensorResult<()> {
        by_number!(dtype(s1), InplaceOp3::name(self), self.read_and_run((s1, l1), (s2, l2), (s3, l3)))
    }
}

#[cfg(test)]
mod tests;
