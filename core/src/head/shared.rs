//! The coordinator's half of a step: the one place where the head changes.

use serde::{Deserialize, Serialize};

use super::contribution::{Contribution, ContributionError, HeadGradient};
use super::local::Head;
use crate::ids::{HeadVersion, ModalityName};
use crate::linalg::{Matrix, Real, norm};
use crate::optimizer::{Optimizer, clip_factor};
use crate::projector::{Fold, Projector};
use crate::spec::{ApplyTo, HeadSpec};

/// The shared head with everything that decides its next step: projector, optimizer, the open turn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SharedHead<T> {
    pub(super) head: Head<T>,
    pub(super) projector: Projector<T>,
    pub(super) optimizer: Optimizer<T>,
    pub(super) version: HeadVersion,
    pub(super) open: Option<OpenTurn<T>>,
    lr: f64,
    clip: Option<f64>,
}

/// The turn that has begun and not ended: its steps' mean features wait to be folded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct OpenTurn<T> {
    modality: ModalityName,
    steps: Vec<Fold<T>>,
}

/// What a step needs to know about where in the job it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepContext {
    /// What the head's learning rate is multiplied by ([`crate::learning_rate::factor`]).
    pub lr_factor: f64,
    /// α, with which this step's mean features are folded ([`crate::learning_rate::alpha`]). `window` has its own.
    pub alpha: f64,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The head after the step.
    pub version: HeadVersion,
    /// |G|, the Frobenius norm of the gradient of W before projection and clipping.
    pub gradient_norm: f64,
    /// |X P| / |X| of what P multiplies: X is G, or the step W_new − W_old. 1 where P is I or X is 0. Near 0 the head is
    /// frozen.
    pub projected_ratio: f64,
    /// |W_new − W_old|.
    pub update_norm: f64,
}

impl<T: Real> SharedHead<T> {
    /// The shared head that a job with this seed begins with.
    #[must_use]
    pub fn new(spec: &HeadSpec, classes: usize, seed: u64) -> Self {
        Self::with_head(spec, Head::initial(seed, classes, spec.width as usize))
    }

    /// A shared head that begins with this head, P = I and an optimizer that has seen nothing.
    #[must_use]
    pub fn with_head(spec: &HeadSpec, head: Head<T>) -> Self {
        Self {
            projector: Projector::new(&spec.projection, head.width()),
            optimizer: Optimizer::new(&spec.optimizer.rule, &[head.weight.as_slice().len(), head.bias.len()]),
            head,
            version: HeadVersion(0),
            open: None,
            lr: spec.optimizer.lr,
            clip: spec.optimizer.clip,
        }
    }

    /// W and b.
    #[must_use]
    pub fn head(&self) -> &Head<T> {
        &self.head
    }

    /// How many steps it has taken.
    #[must_use]
    pub fn version(&self) -> HeadVersion {
        self.version
    }

    /// P and what it remembers.
    #[must_use]
    pub fn projector(&self) -> &Projector<T> {
        &self.projector
    }

    /// trace(P): s while nothing is protected, near 0 when the head is frozen.
    #[must_use]
    pub fn projector_trace(&self) -> f64 {
        self.projector.matrix().trace()
    }

    /// The modality whose turn has begun and not ended.
    #[must_use]
    pub fn open_turn(&self) -> Option<&ModalityName> {
        self.open.as_ref().map(|turn| &turn.modality)
    }

    /// One step of the head by a batch of this modality; the first one begins a turn, [`Self::end_turn`] ends it.
    ///
    /// `apply_to: gradient`: (G P, g_b) is clipped and goes through the optimizer. `apply_to: update`: (G, g_b) does, and
    /// the step of W is multiplied by P. b is never projected.
    ///
    /// # Errors
    /// If the contribution fails its [check](Contribution::check), belongs to another modality than the open turn, or
    /// would make the head infinite or NaN. Nothing is changed then.
    pub fn apply(
        &mut self,
        modality: &ModalityName,
        contribution: &Contribution<T>,
        at: StepContext,
    ) -> Result<StepReport, ContributionError> {
        contribution.check(self.head.classes(), self.head.width())?;
        let begun = self.turn_projector(modality)?;
        let stepped = self.stepped(contribution, begun.as_ref().unwrap_or(self.projector.matrix()), at.lr_factor)?;

        if let Some(matrix) = begun {
            self.projector.take_over(matrix);
        }
        self.head = stepped.head;
        self.optimizer = stepped.optimizer;
        self.version = self.version.next();
        let turn = self.open.get_or_insert_with(|| OpenTurn { modality: modality.clone(), steps: Vec::new() });
        turn.steps.push(Fold { mean_features: contribution.mean_features.clone(), alpha: at.alpha });
        Ok(StepReport { version: self.version, ..stepped.report })
    }

    /// Ends the open turn: the mean features of its steps are folded into P in order, for the turns that follow. Does
    /// nothing where no turn is open.
    pub fn end_turn(&mut self) {
        if let Some(turn) = self.open.take() {
            self.projector.end_turn(&turn.modality, turn.steps);
        }
    }

    /// P = I again (`reset: epoch`). Between turns; within one it would break that turn's promise of a constant P.
    pub fn reset_projector(&mut self) {
        self.projector.reset();
    }

    /// P for this step where it differs from the one that is there: at the beginning of a `window` turn.
    fn turn_projector(&self, modality: &ModalityName) -> Result<Option<Matrix<T>>, ContributionError> {
        match &self.open {
            Some(turn) if turn.modality == *modality => Ok(None),
            Some(turn) => Err(ContributionError::OtherTurn { open: turn.modality.clone(), given: modality.clone() }),
            None => Ok(self.projector.matrix_for_turn_of(modality)),
        }
    }

    /// The head and its optimizer as they would be after this step.
    fn stepped(
        &self,
        contribution: &Contribution<T>,
        projector: &Matrix<T>,
        lr_factor: f64,
    ) -> Result<Stepped<T>, ContributionError> {
        let applies_to = self.projector.applies_to();
        let raw = contribution.dense();
        let gradient_norm = raw.norm();
        let mut ratio = 1.0;
        let mut gradient = raw;
        if applies_to == Some(ApplyTo::Gradient) {
            gradient = project_gradient(contribution, &gradient, projector);
            ratio = ratio_of(gradient.norm(), gradient_norm);
        }
        let mut bias_gradient = contribution.bias_gradient.clone();
        clip(&mut gradient, &mut bias_gradient, self.clip);

        let (mut head, mut optimizer) = (self.head.clone(), self.optimizer.clone());
        optimizer.step(
            self.lr * lr_factor,
            &mut [head.weight.as_mut_slice(), &mut head.bias],
            &[gradient.as_slice(), &bias_gradient],
        );
        let mut update = difference(&head.weight, &self.head.weight);
        if applies_to == Some(ApplyTo::Update) {
            let projected = update.times(projector);
            ratio = ratio_of(projected.norm(), update.norm());
            head.weight = sum(&self.head.weight, &projected);
            update = difference(&head.weight, &self.head.weight);
        }
        check_finite(&head, &optimizer)?;
        let report =
            StepReport { version: self.version, gradient_norm, projected_ratio: ratio, update_norm: update.norm() };
        Ok(Stepped { head, optimizer, report })
    }
}

struct Stepped<T> {
    head: Head<T>,
    optimizer: Optimizer<T>,
    report: StepReport,
}

/// G P, as (Dᵀ)(H P) where that is cheaper: B s (s + C) against C s s multiplications.
fn project_gradient<T: Real>(contribution: &Contribution<T>, dense: &Matrix<T>, projector: &Matrix<T>) -> Matrix<T> {
    match &contribution.gradient {
        HeadGradient::Factors { errors, features }
            if features.rows() * (features.cols() + errors.cols()) < dense.as_slice().len() =>
        {
            errors.transposed_times(&features.times(projector))
        }
        _ => dense.times(projector),
    }
}

fn clip<T: Real>(gradient: &mut Matrix<T>, bias_gradient: &mut [T], limit: Option<f64>) {
    let factor = clip_factor(gradient.norm().hypot(norm(bias_gradient)), limit);
    if factor < 1.0 {
        let factor = T::from_f64(factor);
        for g in gradient.as_mut_slice().iter_mut().chain(bias_gradient) {
            *g = *g * factor;
        }
    }
}

fn ratio_of(after: f64, before: f64) -> f64 {
    if before > 0.0 { after / before } else { 1.0 }
}

fn zip_with<T: Real>(a: &Matrix<T>, b: &Matrix<T>, f: impl Fn(T, T) -> T) -> Matrix<T> {
    let mut others = b.as_slice().iter();
    a.map(|x| f(x, *others.next().expect("both matrices are of the head's shape")))
}

fn difference<T: Real>(a: &Matrix<T>, b: &Matrix<T>) -> Matrix<T> {
    zip_with(a, b, |x, y| x - y)
}

fn sum<T: Real>(a: &Matrix<T>, b: &Matrix<T>) -> Matrix<T> {
    zip_with(a, b, |x, y| x + y)
}

fn check_finite<T: Real>(head: &Head<T>, optimizer: &Optimizer<T>) -> Result<(), ContributionError> {
    let finite = |values: &[T]| values.iter().all(|v| v.is_finite());
    if !finite(head.weight.as_slice()) {
        return Err(ContributionError::Diverged { tensor: "weight" });
    }
    if !finite(&head.bias) {
        return Err(ContributionError::Diverged { tensor: "bias" });
    }
    if optimizer.slots().iter().any(|slot| !finite(&slot.first) || !finite(&slot.second)) {
        return Err(ContributionError::Diverged { tensor: "optimizer memory" });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
