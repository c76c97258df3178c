//! One step of the head: the gradient is projected, clipped and given to the optimizer, which writes to a second
//! buffer.

use std::ops::Range;
use std::sync::Arc;

use super::contribution::{Contribution, ContributionError, HeadGradient};
use super::gradient::{Gradient, blocks_of_rows};
use super::local::Head;
use super::workspace::Workspace;
use crate::linalg::blocks::{each, each_with, split_rows};
use crate::linalg::{Matrix, Real, all_finite, norm, vectorised};
use crate::optimizer::{After, Before, Moments, Moved, Optimizer, Rates, clip_factor};
use crate::projector::Form;
use crate::spec::ApplyTo;

/// Everything that a step reads.
pub(super) struct Step<'a, T> {
    pub(super) head: &'a Head<T>,
    pub(super) optimizer: &'a Optimizer<T>,
    pub(super) projector: &'a Form<T>,
    pub(super) applies_to: Option<ApplyTo>,
    pub(super) lr: f64,
    pub(super) clip: Option<f64>,
}

/// The result of a step.
pub(super) struct Stepped<T> {
    pub(super) head: Arc<Head<T>>,
    pub(super) optimizer: Optimizer<T>,
    pub(super) norms: Norms,
}

/// The norms that a [`super::StepReport`] reports.
pub(super) struct Norms {
    pub(super) gradient: f64,
    pub(super) projected_ratio: f64,
    pub(super) update: f64,
}

impl<T: Real> Step<'_, T> {
    /// The head and its optimizer after this step.
    pub(super) fn take(
        &self,
        contribution: &Contribution<T>,
        workspace: &mut Workspace<T>,
        projected: &mut dyn FnMut(),
    ) -> Result<Stepped<T>, ContributionError> {
        let (mut head, mut optimizer) = workspace.take(self.head, self.optimizer);
        let new = Arc::get_mut(&mut head).expect("a workspace gives heads without other references");
        match self.write(contribution, workspace, (new, &mut optimizer), projected) {
            Ok(norms) => Ok(Stepped { head, optimizer, norms }),
            Err(error) => {
                workspace.keep(head, optimizer);
                Err(error)
            }
        }
    }

    fn write(
        &self,
        contribution: &Contribution<T>,
        workspace: &mut Workspace<T>,
        (new, memory): (&mut Head<T>, &mut Optimizer<T>),
        is_projected: &mut dyn FnMut(),
    ) -> Result<Norms, ContributionError> {
        let Workspace { features, gradient: dense, projected, update, .. } = workspace;
        let raw = match &contribution.gradient {
            HeadGradient::Dense(gradient) => Gradient::Dense(gradient),
            HeadGradient::Factors { errors, features } => Gradient::Product { errors, features },
        };
        let projects = self.applies_to == Some(ApplyTo::Gradient);
        let gradient = if projects { self.project(raw, features, dense, projected) } else { raw };
        is_projected();
        let before_clipping = self.clip.map(|_| gradient.norm());
        let bias_gradient = &contribution.bias_gradient;
        let factor = before_clipping.map_or(1.0, |weight| clip_factor(weight.hypot(norm(bias_gradient)), self.clip));

        let rates = self.optimizer.next_rates(self.lr);
        memory.count_after(self.optimizer);
        let (old_weight, old_bias) = moments(self.optimizer.moments());
        let (new_weight, new_bias) = moments_mut(memory.moments_mut());
        let factor = T::from_f64(factor);
        let weight = self.step_weight(&rates, old_weight, &gradient, factor, &mut new.weight, new_weight);
        let bias = rates.step(
            &Before { parameters: &self.head.bias, first: &old_bias.first, second: &old_bias.second },
            bias_gradient,
            factor,
            After { parameters: &mut new.bias, first: &mut new_bias.first, second: &mut new_bias.second },
        );
        let mut norms = Norms {
            gradient: if projects { raw.norm() } else { weight.gradient.sqrt() },
            projected_ratio: 1.0,
            update: weight.update.sqrt(),
        };
        let mut weight_finite = weight.parameters_finite;
        match self.applies_to {
            None => {}
            Some(ApplyTo::Gradient) => {
                let projected = before_clipping.unwrap_or(weight.gradient.sqrt());
                norms.projected_ratio = ratio_of(projected, norms.gradient);
            }
            Some(ApplyTo::Update) => {
                let projected = self.project_update(&mut new.weight, update);
                norms.projected_ratio = ratio_of(projected.step, norms.update);
                norms.update = projected.update;
                weight_finite = projected.finite;
            }
        }
        check(weight_finite, "weight")?;
        check(bias.parameters_finite, "bias")?;
        check(weight.memory_finite && bias.memory_finite, "optimizer memory")?;
        Ok(norms)
    }

    /// G P, computed as (Dᵀ)(H P) where that is cheaper: B s (s + C) multiplications instead of C s (s + B), so where B
    /// < C.
    fn project<'b>(
        &self,
        gradient: Gradient<'b, T>,
        features_memory: &'b mut Matrix<T>,
        dense_memory: &mut Matrix<T>,
        projected: &'b mut Matrix<T>,
    ) -> Gradient<'b, T> {
        match gradient {
            Gradient::Product { errors, features } => {
                if errors.rows() < errors.cols() {
                    self.projector.project(features, features_memory);
                    return Gradient::Product { errors, features: features_memory };
                }
                errors.transposed_times_into(features, dense_memory);
                self.projector.project(dense_memory, projected);
            }
            Gradient::Dense(gradient) => self.projector.project(gradient, projected),
        }
        Gradient::Dense(projected)
    }

    /// Steps W, some rows at a time. Each row is read once, its gradient is computed where it is needed, and the result
    /// is written once.
    fn step_weight(
        &self,
        rates: &Rates<T>,
        old: &Moments<T>,
        gradient: &Gradient<'_, T>,
        factor: T,
        weight: &mut Matrix<T>,
        new: &mut Moments<T>,
    ) -> Moved {
        let (classes, width) = weight.shape();
        let rows = blocks_of_rows((classes, width));
        let second = if old.second.is_empty() { 0 } else { width };
        let weights = split_rows(weight.as_mut_slice(), width, &rows);
        let firsts = split_rows(&mut new.first, width, &rows);
        let seconds = split_rows(&mut new.second, second, &rows);
        let blocks = rows.into_iter().zip(weights).zip(firsts.into_iter().zip(seconds)).collect();
        let step = |scratch: &mut Vec<T>, ((rows, parameters), (first, this_second)): RowBlock<'_, T>| {
            let before = Before {
                parameters: &self.head.weight.as_slice()[rows.start * width..rows.end * width],
                first: &old.first[rows.start * width..rows.end * width],
                second: &old.second[rows.start * second..rows.end * second],
            };
            let after = After { parameters, first, second: this_second };
            rates.step(&before, gradient.rows(rows, scratch), factor, after)
        };
        each_with(blocks, gradient.cost(), Vec::new, step).into_iter().fold(Moved::NONE, Moved::and)
    }

    /// W ← W_old + (W − W_old) P.
    fn project_update(&self, weight: &mut Matrix<T>, [update, projected]: &mut [Matrix<T>; 2]) -> Projected {
        let old = &self.head.weight;
        update.reshape(old.rows(), old.cols());
        combine(update, weight, old, |new, old| new - old);
        self.projector.project(update, projected);
        combine(weight, old, projected, |old, step| old + step);
        combine(update, weight, old, |new, old| new - old);
        Projected { step: projected.norm(), update: update.norm(), finite: all_finite(weight.as_slice()) }
    }
}

/// The norms of a projected step of W.
struct Projected {
    /// |(W − W_old) P|.
    step: f64,
    /// |W_new − W_old|, which differs from `step` by rounding only.
    update: f64,
    finite: bool,
}

/// Rows of W: their range, their output, and the outputs of their two moments.
type RowBlock<'a, T> = ((Range<usize>, &'a mut [T]), (&'a mut [T], &'a mut [T]));

/// The moments of W and of b.
fn moments<T>(moments: &[Moments<T>]) -> (&Moments<T>, &Moments<T>) {
    (&moments[0], &moments[1])
}

fn moments_mut<T>(moments: &mut [Moments<T>]) -> (&mut Moments<T>, &mut Moments<T>) {
    let (weight, bias) = moments.split_at_mut(1);
    (&mut weight[0], &mut bias[0])
}

/// to ← of(a, b), element by element; all have the same shape.
fn combine<T: Real>(to: &mut Matrix<T>, a: &Matrix<T>, b: &Matrix<T>, of: impl Fn(T, T) -> T + Sync + Send) {
    let (shape, width) = (to.shape(), to.cols());
    let rows = blocks_of_rows(shape);
    let blocks = rows.iter().cloned().zip(split_rows(to.as_mut_slice(), width, &rows)).collect();
    each(blocks, shape.0 * width, |(rows, to): (Range<usize>, &mut [T])| {
        let (a, b) = (&a.as_slice()[rows.start * width..], &b.as_slice()[rows.start * width..]);
        vectorised(
            #[inline(always)]
            || to.iter_mut().zip(a).zip(b).for_each(|((to, a), b)| *to = of(*a, *b)),
        );
    });
}

fn ratio_of(after: f64, before: f64) -> f64 {
    if before > 0.0 { after / before } else { 1.0 }
}

fn check(finite: bool, tensor: &'static str) -> Result<(), ContributionError> {
    if finite { Ok(()) } else { Err(ContributionError::Diverged { tensor }) }
}
