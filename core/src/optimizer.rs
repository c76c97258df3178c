//! Rules that turn a gradient into a step, on plain slices. The head uses them; encoders have their own on devices.

use serde::Serialize;

use crate::linalg::Real;
use crate::spec::OptimizerRule;

/// An optimizer with its memory of earlier gradients: one slot per parameter, in the order they were named.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Optimizer<T> {
    rule: OptimizerRule,
    steps: u64,
    slots: Vec<Slot<T>>,
}

/// What an optimizer remembers of one parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Slot<T> {
    /// SGD: the velocity v. AdamW: the running mean of gradients m.
    pub first: Vec<T>,
    /// AdamW: the running mean of squared gradients. SGD: empty.
    pub second: Vec<T>,
}

impl<T: Real> Optimizer<T> {
    /// An optimizer that has seen nothing, for parameters of these sizes.
    #[must_use]
    pub fn new(rule: &OptimizerRule, sizes: &[usize]) -> Self {
        let second = |size: usize| match rule {
            OptimizerRule::Sgd { .. } => Vec::new(),
            OptimizerRule::Adamw { .. } => vec![T::ZERO; size],
        };
        let slots = sizes.iter().map(|size| Slot { first: vec![T::ZERO; *size], second: second(*size) }).collect();
        Self { rule: rule.clone(), steps: 0, slots }
    }

    /// How many steps it has taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What it remembers of each parameter.
    #[must_use]
    pub fn slots(&self) -> &[Slot<T>] {
        &self.slots
    }

    /// Takes over a memory; None, and no change, if it is not of this optimizer's sizes.
    #[must_use]
    pub fn restored(&self, steps: u64, slots: Vec<Slot<T>>) -> Option<Self> {
        let sizes = |slots: &[Slot<T>]| -> Vec<(usize, usize)> {
            slots.iter().map(|slot| (slot.first.len(), slot.second.len())).collect()
        };
        (sizes(&slots) == sizes(&self.slots)).then(|| Self { rule: self.rule.clone(), steps, slots })
    }

    /// One step with learning rate `lr`, of each parameter p with its gradient g.
    ///
    /// SGD: v ← μ v + (g + λ p); p ← p − lr v. AdamW (Loshchilov & Hutter 2019): p ← p − lr λ p; m ← β₁ m + (1 − β₁) g;
    /// v ← β₂ v + (1 − β₂) g²; p ← p − lr m̂ / (√v̂ + ε), with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ).
    ///
    /// # Panics
    /// If parameters and gradients are not of the sizes that the optimizer was made for.
    pub fn step(&mut self, lr: f64, parameters: &mut [&mut [T]], gradients: &[&[T]]) {
        assert!(parameters.len() == self.slots.len() && gradients.len() == self.slots.len(), "one slot per parameter");
        self.steps += 1;
        for ((slot, p), g) in self.slots.iter_mut().zip(parameters).zip(gradients) {
            assert!(p.len() == slot.first.len() && g.len() == slot.first.len(), "one element of memory per parameter");
            match &self.rule {
                OptimizerRule::Sgd { momentum, weight_decay } => {
                    step_sgd(slot, p, g, Sgd { lr, momentum: *momentum, weight_decay: *weight_decay });
                }
                OptimizerRule::Adamw { beta1, beta2, eps, weight_decay } => {
                    let adam = Adam {
                        shrink: 1.0 - lr * weight_decay,
                        beta1: *beta1,
                        beta2: *beta2,
                        eps: *eps,
                        rate: lr / (1.0 - beta_power(*beta1, self.steps)),
                        correction: 1.0 - beta_power(*beta2, self.steps),
                    };
                    step_adamw(slot, p, g, &adam);
                }
            }
        }
    }
}

struct Sgd {
    lr: f64,
    momentum: f64,
    weight_decay: f64,
}

fn step_sgd<T: Real>(slot: &mut Slot<T>, parameters: &mut [T], gradients: &[T], sgd: Sgd) {
    let (lr, momentum, decay) = (T::from_f64(sgd.lr), T::from_f64(sgd.momentum), T::from_f64(sgd.weight_decay));
    for ((v, p), g) in slot.first.iter_mut().zip(parameters).zip(gradients) {
        *v = momentum * *v + (*g + decay * *p);
        *p = *p - lr * *v;
    }
}

struct Adam {
    shrink: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    rate: f64,
    correction: f64,
}

fn step_adamw<T: Real>(slot: &mut Slot<T>, parameters: &mut [T], gradients: &[T], adam: &Adam) {
    let (shrink, rate, eps) = (T::from_f64(adam.shrink), T::from_f64(adam.rate), T::from_f64(adam.eps));
    let (keep1, take1) = (T::from_f64(adam.beta1), T::from_f64(1.0 - adam.beta1));
    let (keep2, take2) = (T::from_f64(adam.beta2), T::from_f64(1.0 - adam.beta2));
    let correction = T::from_f64(adam.correction);
    let moments = slot.first.iter_mut().zip(&mut slot.second);
    for (((m, v), p), g) in moments.zip(parameters).zip(gradients) {
        *m = keep1 * *m + take1 * *g;
        *v = keep2 * *v + take2 * *g * *g;
        *p = shrink * *p - rate * *m / ((*v / correction).sqrt() + eps);
    }
}

fn beta_power(beta: f64, steps: u64) -> f64 {
    beta.powi(i32::try_from(steps).unwrap_or(i32::MAX))
}

/// What gradients of the norm `norm` are multiplied by so that it is no larger than `limit`; 1 without a limit.
#[must_use]
pub fn clip_factor(norm: f64, limit: Option<f64>) -> f64 {
    match limit {
        Some(limit) if norm > limit => limit / norm,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SGD: OptimizerRule = OptimizerRule::Sgd { momentum: 0.9, weight_decay: 0.1 };
    const ADAMW: OptimizerRule = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };

    fn walk(rule: &OptimizerRule, gradients: &[f64], lr: f64) -> Vec<f64> {
        let mut optimizer = Optimizer::new(rule, &[1]);
        let mut p = [1.0];
        let mut path = Vec::new();
        for g in gradients {
            optimizer.step(lr, &mut [&mut p], &[&[*g]]);
            path.push(p[0]);
        }
        path
    }

    #[test]
    fn without_a_learning_rate_nothing_moves() {
        for rule in [SGD, ADAMW] {
            assert_eq!(walk(&rule, &[1.0, -2.0], 0.0), [1.0, 1.0]);
        }
    }

    #[test]
    fn sgd_without_decay_is_linear_in_its_gradients() {
        let rule = OptimizerRule::Sgd { momentum: 0.9, weight_decay: 0.0 };
        let one = walk(&rule, &[1.0, -2.0, 0.5], 0.1);
        let twice = walk(&rule, &[2.0, -4.0, 1.0], 0.1);
        for (a, b) in one.iter().zip(twice) {
            assert!((2.0 * (a - 1.0) - (b - 1.0)).abs() < 1e-15);
        }
    }

    #[test]
    fn adamw_does_not_depend_on_the_scale_of_its_gradients() {
        let rule = OptimizerRule::Adamw { beta1: 0.9, beta2: 0.99, eps: 0.0, weight_decay: 0.0 };
        let (one, large) = (walk(&rule, &[1.0, -2.0], 0.1), walk(&rule, &[1000.0, -2000.0], 0.1));
        for (a, b) in one.iter().zip(large) {
            assert!((a - b).abs() < 1e-12);
        }
    }

    #[test]
    fn the_rules_give_what_is_worked_out_by_hand() {
        // v = 0.5 + 0.1 · 1 = 0.6, p = 1 − 0.06; v = 0.54 + 0.5 + 0.094 = 1.134, p = 0.94 − 0.1134.
        let sgd = walk(&SGD, &[0.5, 0.5], 0.1);
        assert!((sgd[0] - 0.94).abs() < 1e-15 && (sgd[1] - 0.8266).abs() < 1e-15, "{sgd:?}");
        // m̂ = g and v̂ = g² at the first step: p = 1 − lr λ − lr.
        let adamw = walk(&ADAMW, &[0.5], 0.1);
        assert!((adamw[0] - (1.0 - 0.001 - 0.1)).abs() < 1e-8, "{adamw:?}");
    }

    #[test]
    fn a_memory_goes_on_where_it_was() {
        let gradients = [0.3, -0.2, 0.9, 0.1];
        for rule in [SGD, ADAMW] {
            let whole = walk(&rule, &gradients, 0.1);
            let mut before = Optimizer::new(&rule, &[1]);
            let mut p = [1.0];
            before.step(0.1, &mut [&mut p], &[&gradients[..1]]);
            let mut after = Optimizer::new(&rule, &[1])
                .restored(before.steps(), before.slots().to_vec())
                .expect("a memory of the same sizes");
            for (g, expected) in gradients[1..].iter().zip(&whole[1..]) {
                after.step(0.1, &mut [&mut p], &[&[*g]]);
                assert_eq!(p[0], *expected);
            }
            assert!(Optimizer::<f64>::new(&rule, &[2]).restored(1, before.slots().to_vec()).is_none());
        }
    }

    #[test]
    fn clipping_scales_down_and_never_up() {
        assert_eq!(clip_factor(4.0, Some(2.0)), 0.5);
        assert_eq!(clip_factor(1.0, Some(2.0)), 1.0);
        assert_eq!(clip_factor(1e9, None), 1.0);
    }
}
