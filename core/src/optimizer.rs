//! Rules that turn a gradient into a step, on plain slices. The head uses them; encoders have their own on devices.

use serde::Serialize;

use crate::linalg::{Real, in_halves, vectorised};
use crate::spec::OptimizerRule;

/// An optimizer with its memory of earlier gradients: one entry per parameter, in the order they were named.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Optimizer<T> {
    rule: OptimizerRule,
    steps: u64,
    moments: Vec<Moments<T>>,
}

/// What an optimizer remembers of one parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moments<T> {
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
        let moments = sizes.iter().map(|size| Moments { first: vec![T::ZERO; *size], second: second(*size) }).collect();
        Self { rule: rule.clone(), steps: 0, moments }
    }

    /// The number of steps that it has taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The moments of each parameter, in the order of the sizes given to [`Self::new`].
    #[must_use]
    pub fn moments(&self) -> &[Moments<T>] {
        &self.moments
    }

    /// An optimizer with these moments. None if they are not of this optimizer's sizes.
    #[must_use]
    pub fn restored(&self, steps: u64, moments: Vec<Moments<T>>) -> Option<Self> {
        let sizes = |moments: &[Moments<T>]| -> Vec<(usize, usize)> {
            moments.iter().map(|of_tensor| (of_tensor.first.len(), of_tensor.second.len())).collect()
        };
        (sizes(&moments) == sizes(&self.moments)).then(|| Self { rule: self.rule.clone(), steps, moments })
    }

    /// One step with learning rate `lr`, of each parameter p with its gradient g.
    ///
    /// SGD: v ← μ v + (g + λ p); p ← p − lr v. AdamW (Loshchilov & Hutter 2019): p ← p − lr λ p; m ← β₁ m + (1 − β₁) g;
    /// v ← β₂ v + (1 − β₂) g²; p ← p − lr m̂ / (√v̂ + ε), with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ).
    ///
    /// # Panics
    /// If parameters and gradients are not of the sizes that the optimizer was made for.
    pub fn step(&mut self, lr: f64, parameters: &mut [&mut [T]], gradients: &[&[T]]) {
        assert!(
            parameters.len() == self.moments.len() && gradients.len() == self.moments.len(),
            "one entry per parameter"
        );
        let rates = self.next_rates(lr);
        self.steps += 1;
        for ((of_tensor, p), g) in self.moments.iter_mut().zip(parameters).zip(gradients) {
            assert!(
                p.len() == of_tensor.first.len() && g.len() == of_tensor.first.len(),
                "one element of memory per parameter"
            );
            vectorised(
                #[inline(always)]
                || match &rates {
                    Rates::Sgd(sgd) => {
                        for ((v, p), g) in of_tensor.first.iter_mut().zip(p.iter_mut()).zip(*g) {
                            (*p, *v) = sgd.of(*p, *v, *g);
                        }
                    }
                    Rates::Adamw(adamw) => {
                        let moments = of_tensor.first.iter_mut().zip(&mut of_tensor.second);
                        for (((m, v), p), g) in moments.zip(p.iter_mut()).zip(*g) {
                            (*p, *m, *v) = adamw.of(*p, *m, *v, *g);
                        }
                    }
                },
            );
        }
    }

    /// The coefficients of the next step.
    pub(crate) fn next_rates(&self, lr: f64) -> Rates<T> {
        match &self.rule {
            OptimizerRule::Sgd { momentum, weight_decay } => Rates::Sgd(Sgd {
                lr: T::from_f64(lr),
                momentum: T::from_f64(*momentum),
                decay: T::from_f64(*weight_decay),
            }),
            OptimizerRule::Adamw { beta1, beta2, eps, weight_decay } => {
                let steps = self.steps + 1;
                Rates::Adamw(Adamw {
                    shrink: T::from_f64(1.0 - lr * weight_decay),
                    rate: T::from_f64(lr / (1.0 - beta_power(*beta1, steps))),
                    eps: T::from_f64(*eps),
                    keep1: T::from_f64(*beta1),
                    take1: T::from_f64(1.0 - beta1),
                    keep2: T::from_f64(*beta2),
                    take2: T::from_f64(1.0 - beta2),
                    correction: T::from_f64(1.0 - beta_power(*beta2, steps)),
                })
            }
        }
    }

    /// An optimizer as large as this one that has seen nothing.
    pub(crate) fn blank(&self) -> Self {
        let zeros = |values: &Vec<T>| vec![T::ZERO; values.len()];
        let moments = self
            .moments
            .iter()
            .map(|of_tensor| Moments { first: zeros(&of_tensor.first), second: zeros(&of_tensor.second) });
        Self { rule: self.rule.clone(), steps: 0, moments: moments.collect() }
    }

    /// Memory for what the optimizer remembers after the next step, written by [`Rates::step`] for each parameter.
    pub(crate) fn moments_mut(&mut self) -> &mut [Moments<T>] {
        &mut self.moments
    }

    /// Sets the count of steps to one more than another's.
    pub(crate) fn count_after(&mut self, other: &Self) {
        self.steps = other.steps + 1;
    }
}

/// The coefficients of one step, in the number type that it computes with.
pub(crate) enum Rates<T> {
    Sgd(Sgd<T>),
    Adamw(Adamw<T>),
}

pub(crate) struct Sgd<T> {
    lr: T,
    momentum: T,
    decay: T,
}

pub(crate) struct Adamw<T> {
    shrink: T,
    rate: T,
    eps: T,
    keep1: T,
    take1: T,
    keep2: T,
    take2: T,
    correction: T,
}

impl<T: Real> Sgd<T> {
    /// p and v after the step.
    #[inline(always)]
    fn of(&self, p: T, v: T, g: T) -> (T, T) {
        let v = self.momentum * v + (g + self.decay * p);
        (p - self.lr * v, v)
    }
}

impl<T: Real> Adamw<T> {
    /// p, m and v after the step.
    #[inline(always)]
    fn of(&self, p: T, m: T, v: T, g: T) -> (T, T, T) {
        let m = self.keep1 * m + self.take1 * g;
        let v = self.keep2 * v + self.take2 * g * g;
        (self.shrink * p - self.rate * m / ((v / self.correction).sqrt() + self.eps), m, v)
    }
}

/// Some elements of a parameter and of its moments. `second` is empty for SGD.
pub(crate) struct Before<'a, T> {
    pub(crate) parameters: &'a [T],
    pub(crate) first: &'a [T],
    pub(crate) second: &'a [T],
}

/// [`Before`], to be written.
pub(crate) struct After<'a, T> {
    pub(crate) parameters: &'a mut [T],
    pub(crate) first: &'a mut [T],
    pub(crate) second: &'a mut [T],
}

/// What a step of some elements did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Moved {
    /// Σ g², as the gradient was given.
    pub(crate) gradient: f64,
    /// Σ (p_new − p_old)².
    pub(crate) update: f64,
    /// Whether no parameter is infinite or NaN now.
    pub(crate) parameters_finite: bool,
    /// Whether no moment is infinite or NaN now.
    pub(crate) memory_finite: bool,
}

impl Moved {
    /// The result for no elements.
    pub(crate) const NONE: Self = Self { gradient: 0.0, update: 0.0, parameters_finite: true, memory_finite: true };

    /// The result for these elements, then those.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            gradient: self.gradient + other.gradient,
            update: self.update + other.update,
            parameters_finite: self.parameters_finite && other.parameters_finite,
            memory_finite: self.memory_finite && other.memory_finite,
        }
    }
}

impl<T: Real> Rates<T> {
    /// [`Optimizer::step`] of some elements with `factor · gradient`, in one pass from one buffer to another.
    ///
    /// # Panics
    /// If the slices are not of one length (`second` is empty for SGD).
    pub(crate) fn step(&self, before: &Before<'_, T>, gradient: &[T], factor: T, after: After<'_, T>) -> Moved {
        let length = before.parameters.len();
        assert!(before.first.len() == length && gradient.len() == length, "a number of each kind for each parameter");
        assert!(after.parameters.len() == length && after.first.len() == length, "and an output for each");
        let second = if matches!(self, Self::Sgd(_)) { 0 } else { length };
        assert!(before.second.len() == second && after.second.len() == second, "a second moment for AdamW alone");
        vectorised(
            #[inline(always)]
            || match self {
                Self::Sgd(sgd) => sgd.pass(before, gradient, factor, after),
                Self::Adamw(adamw) => adamw.pass(before, gradient, factor, after),
            },
        )
    }
}

impl<T: Real> Sgd<T> {
    #[inline(always)]
    fn pass(&self, before: &Before<'_, T>, gradient: &[T], factor: T, after: After<'_, T>) -> Moved {
        let mut tally = Tally::new();
        let mut chunk = |(p, v, g): (&Lanes<T>, &Lanes<T>, &Lanes<T>), new_p: &mut Lanes<T>, new_v: &mut Lanes<T>| {
            for i in 0..LANES {
                (new_p[i], new_v[i]) = self.of(p[i], v[i], factor * g[i]);
            }
            tally.add(g, p, new_p, [new_v]);
        };
        let (p, p_rest) = before.parameters.as_chunks();
        let (v, v_rest) = before.first.as_chunks();
        let (g, g_rest) = gradient.as_chunks();
        let (new_p, new_p_rest) = after.parameters.as_chunks_mut();
        let (new_v, new_v_rest) = after.first.as_chunks_mut();
        for (((p, v), g), (new_p, new_v)) in p.iter().zip(v).zip(g).zip(new_p.iter_mut().zip(new_v)) {
            chunk((p, v, g), new_p, new_v);
        }
        if !p_rest.is_empty() {
            let (mut new_p, mut new_v) = ([T::ZERO; LANES], [T::ZERO; LANES]);
            let zeros = |rest| filled_up(rest, T::ZERO);
            chunk((&zeros(p_rest), &zeros(v_rest), &zeros(g_rest)), &mut new_p, &mut new_v);
            new_p_rest.copy_from_slice(&new_p[..p_rest.len()]);
            new_v_rest.copy_from_slice(&new_v[..p_rest.len()]);
        }
        tally.total()
    }
}

impl<T: Real> Adamw<T> {
    #[inline(always)]
    fn pass(&self, before: &Before<'_, T>, gradient: &[T], factor: T, after: After<'_, T>) -> Moved {
        let mut tally = Tally::new();
        let mut chunk = |(p, g): (&Lanes<T>, &Lanes<T>),
                         (m, v): (&Lanes<T>, &Lanes<T>),
                         new_p: &mut Lanes<T>,
                         (new_m, new_v): (&mut Lanes<T>, &mut Lanes<T>)| {
            for i in 0..LANES {
                (new_p[i], new_m[i], new_v[i]) = self.of(p[i], m[i], v[i], factor * g[i]);
            }
            tally.add(g, p, new_p, [new_m, new_v]);
        };
        let (p, p_rest) = before.parameters.as_chunks();
        let (m, m_rest) = before.first.as_chunks();
        let (v, v_rest) = before.second.as_chunks();
        let (g, g_rest) = gradient.as_chunks();
        let (new_p, new_p_rest) = after.parameters.as_chunks_mut();
        let (new_m, new_m_rest) = after.first.as_chunks_mut();
        let (new_v, new_v_rest) = after.second.as_chunks_mut();
        let news = new_p.iter_mut().zip(new_m.iter_mut().zip(new_v));
        for (((p, g), (m, v)), (new_p, (new_m, new_v))) in p.iter().zip(g).zip(m.iter().zip(v)).zip(news) {
            chunk((p, g), (m, v), new_p, (new_m, new_v));
        }
        if !p_rest.is_empty() {
            let [mut new_p, mut new_m, mut new_v] = [[T::ZERO; LANES]; 3];
            let zeros = |rest| filled_up(rest, T::ZERO);
            // With 1, so that nothing is divided by 0.
            let moments = (&zeros(m_rest), &filled_up(v_rest, T::ONE));
            chunk((&zeros(p_rest), &zeros(g_rest)), moments, &mut new_p, (&mut new_m, &mut new_v));
            new_p_rest.copy_from_slice(&new_p[..p_rest.len()]);
            new_m_rest.copy_from_slice(&new_m[..p_rest.len()]);
            new_v_rest.copy_from_slice(&new_v[..p_rest.len()]);
        }
        tally.total()
    }
}

/// Elements that are processed side by side. The bits of the sums of [`Moved`] depend on it.
const LANES: usize = 8;
type Lanes<T> = [T; LANES];

#[inline(always)]
fn filled_up<T: Real>(rest: &[T], with: T) -> Lanes<T> {
    std::array::from_fn(|i| rest.get(i).copied().unwrap_or(with))
}

/// [`Moved`] in the making.
struct Tally<T> {
    gradient: [f64; LANES],
    update: [f64; LANES],
    /// 0 · x is 0, or NaN if x is infinite or NaN, and a NaN stays.
    parameters: Lanes<T>,
    memory: Lanes<T>,
}

impl<T: Real> Tally<T> {
    #[inline(always)]
    fn new() -> Self {
        let (sums, spoilt) = ([0.0; LANES], [T::ZERO; LANES]);
        Self { gradient: sums, update: sums, parameters: spoilt, memory: spoilt }
    }

    /// Separate loops, which a compiler turns into one operation each.
    #[inline(always)]
    fn add<const N: usize>(&mut self, g: &Lanes<T>, p: &Lanes<T>, new_p: &Lanes<T>, memory: [&mut Lanes<T>; N]) {
        for (sum, g) in self.gradient.iter_mut().zip(g) {
            *sum += g.to_f64() * g.to_f64();
        }
        for (sum, (new_p, p)) in self.update.iter_mut().zip(new_p.iter().zip(p)) {
            let update = (*new_p - *p).to_f64();
            *sum += update * update;
        }
        for (spoilt, new_p) in self.parameters.iter_mut().zip(new_p) {
            *spoilt = *spoilt + *new_p * T::ZERO;
        }
        for memory in memory {
            for (spoilt, memory) in self.memory.iter_mut().zip(memory) {
                *spoilt = *spoilt + *memory * T::ZERO;
            }
        }
    }

    #[inline(always)]
    fn total(self) -> Moved {
        Moved {
            gradient: in_halves(self.gradient),
            update: in_halves(self.update),
            parameters_finite: in_halves(self.parameters) == T::ZERO,
            memory_finite: in_halves(self.memory) == T::ZERO,
        }
    }
}

fn beta_power(beta: f64, steps: u64) -> f64 {
    beta.powi(i32::try_from(steps).unwrap_or(i32::MAX))
}

/// The factor that shrinks gradients of norm `norm` to a norm of at most `limit`. 1 without a limit.
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
    fn a_memory_resumes_where_it_was() {
        let gradients = [0.3, -0.2, 0.9, 0.1];
        for rule in [SGD, ADAMW] {
            let whole = walk(&rule, &gradients, 0.1);
            let mut before = Optimizer::new(&rule, &[1]);
            let mut p = [1.0];
            before.step(0.1, &mut [&mut p], &[&gradients[..1]]);
            let mut after = Optimizer::new(&rule, &[1])
                .restored(before.steps(), before.moments().to_vec())
                .expect("a memory of the same sizes");
            for (g, expected) in gradients[1..].iter().zip(&whole[1..]) {
                after.step(0.1, &mut [&mut p], &[&[*g]]);
                assert_eq!(p[0], *expected);
            }
            assert!(Optimizer::<f64>::new(&rule, &[2]).restored(1, before.moments().to_vec()).is_none());
        }
    }

    #[test]
    fn clipping_scales_down_and_never_up() {
        assert_eq!(clip_factor(4.0, Some(2.0)), 0.5);
        assert_eq!(clip_factor(1.0, Some(2.0)), 1.0);
        assert_eq!(clip_factor(1e9, None), 1.0);
    }
}
