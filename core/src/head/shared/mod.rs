//! The coordinator's half of a step: the only place where the head changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::contribution::{CheckedContribution, Contribution, ContributionError};
use super::local::Head;
use super::step::Step;
use super::workspace::Workspace;
use crate::ids::{HeadVersion, ModalityName};
use crate::linalg::Real;
use crate::optimizer::Optimizer;
use crate::projector::{Fold, Form, Projector};
use crate::spec::{ApplyTo, HeadSpec, OptimizerRule, ProjectionSpec};

/// The shared head with everything that decides its next step: projector, optimizer, the open turn.
///
/// A step writes the new W, b and moments beside the old ones; two sets of buffers alternate. So a step that fails
/// changes nothing, and a head that was [shared](Self::share) never changes. The memory, in numbers of type `T` for W
/// of C · s, is 4 C s for SGD and 6 C s for AdamW. P adds s² (for `off` and `window` only once P itself is needed, as
/// for a checkpoint). A `window` over K steps adds up to 3 K s, `apply_to: update` adds 2 C s, and each step of a turn
/// adds s. See [`Self::memory_bytes`]. During a step, H P (B · s) is added where D and H are sent, or G P (C · s) where
/// G is. Each thread adds at most 32 rows of W (32 K numbers if the rows are short), and each head that is still
/// referenced adds a head.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(bound = "T: Real + Serialize")]
pub struct SharedHead<T: Real> {
    #[serde(serialize_with = "itself")]
    pub(super) head: Arc<Head<T>>,
    pub(super) projector: Projector<T>,
    pub(super) optimizer: Optimizer<T>,
    pub(super) version: HeadVersion,
    pub(super) open: Option<OpenTurn<T>>,
    lr: f64,
    clip: Option<f64>,
    #[serde(skip)]
    workspace: Workspace<T>,
}

fn itself<T: Serialize, S: Serializer>(shared: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    shared.as_ref().serialize(serializer)
}

/// The open turn. The mean features of its steps wait to be folded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct OpenTurn<T> {
    modality: ModalityName,
    steps: Vec<Fold<T>>,
}

/// What a step needs to know about the job's progress.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepContext {
    /// The factor of the head's learning rate ([`crate::learning_rate::factor`]).
    pub lr_factor: f64,
    /// α, with which this step's mean features are folded ([`crate::learning_rate::alpha`]). `window` uses its own α.
    pub alpha: f64,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The version of the head after the step.
    pub version: HeadVersion,
    /// |G|, the Frobenius norm of the gradient of W before projection and clipping.
    pub gradient_norm: f64,
    /// |X P| / |X|, where X is what P multiplies: G, or the step W_new − W_old. 1 where P is I or X is 0. Near 0, the
    /// head is frozen.
    pub projected_ratio: f64,
    /// |W_new − W_old|.
    pub update_norm: f64,
}

impl<T: Real> SharedHead<T> {
    /// The initial shared head of a job with this seed.
    #[must_use]
    pub fn new(spec: &HeadSpec, classes: usize, seed: u64) -> Self {
        Self::with_head(spec, Head::initial(seed, classes, spec.width as usize))
    }

    /// A shared head that starts with this head, P = I and a new optimizer.
    #[must_use]
    pub fn with_head(spec: &HeadSpec, head: Head<T>) -> Self {
        Self {
            projector: Projector::new(&spec.projection, head.width()),
            optimizer: Optimizer::new(&spec.optimizer.rule, &[head.weight.as_slice().len(), head.bias.len()]),
            head: Arc::new(head),
            version: HeadVersion(0),
            open: None,
            lr: spec.optimizer.lr,
            clip: spec.optimizer.clip,
            workspace: Workspace::default(),
        }
    }

    /// W and b.
    #[must_use]
    pub fn head(&self) -> &Head<T> {
        &self.head
    }

    /// W and b as they are now. They can be read while later steps run, because those write to other memory.
    #[must_use]
    pub fn share(&self) -> Arc<Head<T>> {
        Arc::clone(&self.head)
    }

    /// Bytes that a shared head of `classes` (C) holds permanently after its first steps. [`SharedHead`] lists what a
    /// step adds. `steps` is the number of steps per turn.
    #[must_use]
    pub fn memory_bytes(spec: &HeadSpec, classes: usize, steps: u32) -> u64 {
        let (width, steps) = (u64::from(spec.width), u64::from(steps));
        let weight = (classes as u64).saturating_mul(width.saturating_add(1));
        let copies = match spec.optimizer.rule {
            OptimizerRule::Sgd { .. } => 4,
            OptimizerRule::Adamw { .. } => 6,
        };
        let (projector, applies_to) = match &spec.projection {
            ProjectionSpec::Off => (0, None),
            ProjectionSpec::Rls { apply_to, .. } => (0, Some(*apply_to)),
            ProjectionSpec::Window { turns, apply_to, .. } => {
                let rows = u64::from(*turns).saturating_mul(steps);
                (rows.saturating_add(rows.min(width).saturating_mul(2)), Some(*apply_to))
            }
        };
        // P itself exists after the first checkpoint, whatever the projection; the open turn's h̄ are remembered
        // until it ends.
        let projector = projector.saturating_add(width).saturating_add(steps).saturating_mul(width);
        let updates = if applies_to == Some(ApplyTo::Update) { 2 } else { 0 };
        let numbers = weight.saturating_mul(copies + updates).saturating_add(projector);
        numbers.saturating_mul(size_of::<T>() as u64)
    }

    /// The number of steps that it has taken.
    #[must_use]
    pub fn version(&self) -> HeadVersion {
        self.version
    }

    /// P, and the window that it was computed from.
    #[must_use]
    pub fn projector(&self) -> &Projector<T> {
        &self.projector
    }

    /// trace(P): s while nothing is protected, near 0 when the head is frozen.
    #[must_use]
    pub fn projector_trace(&self) -> f64 {
        self.projector.trace()
    }

    /// The modality whose turn is open, if there is one.
    #[must_use]
    pub fn open_turn(&self) -> Option<&ModalityName> {
        self.open.as_ref().map(|turn| &turn.modality)
    }

    /// One step of the head by a batch of this modality; the first one begins a turn, [`Self::end_turn`] ends it.
    ///
    /// `apply_to: gradient`: (G P, g_b) is clipped and goes through the optimizer. `apply_to: update`: (G, g_b) does,
    /// and the step of W is multiplied by P. b is never projected.
    ///
    /// # Errors
    /// If the contribution fails its [check](Contribution::check), belongs to another modality than the open turn, or
    /// would make the head infinite or NaN. Nothing changes in these cases.
    pub fn apply(
        &mut self,
        modality: &ModalityName,
        contribution: &Contribution<T>,
        at: StepContext,
    ) -> Result<StepReport, ContributionError> {
        contribution.check(self.head.classes(), self.head.width())?;
        self.step(modality, contribution, at, &mut || {})
    }

    /// As [`Self::apply`], for a contribution that was checked. `projected` is called between the projection and the
    /// optimizer, so that the caller can measure both.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_checked(
        &mut self,
        modality: &ModalityName,
        contribution: &CheckedContribution<T>,
        at: StepContext,
        projected: &mut dyn FnMut(),
    ) -> Result<StepReport, ContributionError> {
        if contribution.shape() != self.head.weight.shape() {
            contribution.check(self.head.classes(), self.head.width())?;
        }
        self.step(modality, contribution, at, projected)
    }

    fn step(
        &mut self,
        modality: &ModalityName,
        contribution: &Contribution<T>,
        at: StepContext,
        projected: &mut dyn FnMut(),
    ) -> Result<StepReport, ContributionError> {
        let opened = self.turn_projector(modality)?;
        let step = Step {
            head: &self.head,
            optimizer: &self.optimizer,
            projector: opened.as_ref().unwrap_or(self.projector.form()),
            applies_to: self.projector.applies_to(),
            lr: self.lr * at.lr_factor,
            clip: self.clip,
        };
        let stepped = step.take(contribution, &mut self.workspace, projected)?;

        if let Some(form) = opened {
            self.projector.take_over(form);
        }
        let head = std::mem::replace(&mut self.head, stepped.head);
        let optimizer = std::mem::replace(&mut self.optimizer, stepped.optimizer);
        self.workspace.keep(head, optimizer);
        self.version = self.version.next();
        let turn = self.open.get_or_insert_with(|| OpenTurn { modality: modality.clone(), steps: Vec::new() });
        turn.steps.push(Fold { mean_features: contribution.mean_features.clone(), alpha: at.alpha });
        Ok(StepReport {
            version: self.version,
            gradient_norm: stepped.norms.gradient,
            projected_ratio: stepped.norms.projected_ratio,
            update_norm: stepped.norms.update,
        })
    }

    /// Ends the open turn: folds the mean features of its steps into P, in order. Does nothing if no turn is open.
    pub fn end_turn(&mut self) {
        if let Some(turn) = self.open.take() {
            self.workspace.ready = None;
            self.projector.end_turn(&turn.modality, turn.steps);
        }
    }

    /// Computes P for the next turn, of this modality, if the projection is a `window`. Without this call, the first
    /// step of the turn computes it.
    pub fn prepare_for(&mut self, modality: &ModalityName) {
        if self.open.is_none() {
            let form = self.projector.form_for_turn_of(modality);
            self.workspace.ready = form.map(|form| (modality.clone(), form));
        }
    }

    /// Resets P to I (`reset: epoch`). Only between turns, because P is constant within a turn.
    pub fn reset_projector(&mut self) {
        self.workspace.ready = None;
        self.projector.reset();
    }

    /// P for this step where it differs from the current one: at the beginning of a `window` turn.
    fn turn_projector(&mut self, modality: &ModalityName) -> Result<Option<Form<T>>, ContributionError> {
        match &self.open {
            Some(turn) if turn.modality == *modality => Ok(None),
            Some(turn) => Err(ContributionError::OtherTurn { open: turn.modality.clone(), given: modality.clone() }),
            None => match self.workspace.ready.take() {
                Some((ready, form)) if ready == *modality => Ok(Some(form)),
                _ => Ok(self.projector.form_for_turn_of(modality)),
            },
        }
    }
}

#[cfg(test)]
mod tests;
