//! The projector P (`s × s`, symmetric). It keeps a modality's head steps orthogonal to the mean features of the other
//! modalities, of all their turns (Zeng et al. 2019) or of their last ones.
//!
//! Owns: P, and the rows of a window. Invariants: P is symmetric to the last bit; P changes only between turns; 0 ≤ xᵀ
//! P x ≤ xᵀ x. It does not decide what P multiplies; the shared head does.
//!
//! `rls` stores P (s² numbers). While K < s, `window` stores X (K s numbers) with P = I − Xᵀ X. `off` stores nothing.
//! Both compute P only when it is needed.

mod form;
mod rls;
mod window;

use serde::{Deserialize, Serialize};

use crate::ids::ModalityName;
use crate::linalg::{Matrix, Real};
use crate::spec::{ApplyTo, ProjectionSpec};

pub(crate) use form::Form;
pub use rls::Fold;

/// The projector of a job.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(bound = "T: Real + Serialize")]
pub struct Projector<T: Real> {
    spec: ProjectionSpec,
    #[serde(rename = "matrix")]
    form: Form<T>,
    window: Vec<WindowTurn<T>>,
}

/// The mean features of the steps of one turn, as a window stores them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowTurn<T> {
    /// The modality that had the turn.
    pub modality: ModalityName,
    /// h̄ of each of its steps, `s` each.
    pub rows: Vec<Vec<T>>,
}

impl<T: Real> Projector<T> {
    /// P = I, before the first turn.
    #[must_use]
    pub fn new(spec: &ProjectionSpec, width: usize) -> Self {
        Self { spec: spec.clone(), form: identity(spec, width), window: Vec::new() }
    }

    /// A projector that resumes from P (`s × s`) and the turns of its window (none unless it is `window`).
    #[must_use]
    pub(crate) fn resumed(spec: &ProjectionSpec, matrix: Matrix<T>, window: Vec<WindowTurn<T>>) -> Self {
        Self { spec: spec.clone(), form: Form::Dense(matrix), window }
    }

    /// P of the last turn (`window`), or of the next one (`rls`, `off`). If it is not stored, it is computed at its
    /// first use and retained until it changes.
    #[must_use]
    pub fn matrix(&self) -> &Matrix<T> {
        self.form.matrix()
    }

    /// The trace of [`Self::matrix`], without computing the matrix.
    #[must_use]
    pub fn trace(&self) -> f64 {
        self.form.trace()
    }

    /// [`Self::matrix`] as it is held.
    pub(crate) fn form(&self) -> &Form<T> {
        &self.form
    }

    /// The turns in the window, from the oldest to the newest.
    #[must_use]
    pub fn window(&self) -> &[WindowTurn<T>] {
        &self.window
    }

    /// What P multiplies; None if P is always I.
    #[must_use]
    pub fn applies_to(&self) -> Option<ApplyTo> {
        match &self.spec {
            ProjectionSpec::Off => None,
            ProjectionSpec::Rls { apply_to, .. } | ProjectionSpec::Window { apply_to, .. } => Some(*apply_to),
        }
    }

    /// P for a turn of this modality, where it differs from the current one. That is the closed form of `window`: P =
    /// (I + (1/α) Σ h̄ h̄ᵀ)⁻¹ over the window's turns of the other modalities.
    #[must_use]
    pub fn matrix_for_turn_of(&self, modality: &ModalityName) -> Option<Matrix<T>> {
        self.form_for_turn_of(modality).map(Form::into_matrix)
    }

    /// [`Self::matrix_for_turn_of`] as it is held.
    pub(crate) fn form_for_turn_of(&self, modality: &ModalityName) -> Option<Form<T>> {
        let ProjectionSpec::Window { alpha, .. } = &self.spec else {
            return None;
        };
        let rows: Vec<&[T]> = self
            .window
            .iter()
            .filter(|turn| turn.modality != *modality)
            .flat_map(|turn| turn.rows.iter().map(Vec::as_slice))
            .collect();
        Some(window::closed_form(&rows, *alpha, self.form.width()))
    }

    /// Sets P for the next turn.
    pub(crate) fn take_over(&mut self, form: Form<T>) {
        self.form = form;
    }

    /// Folds the steps of an ended turn of this modality into P, in order. `rls`: k = P h̄; P ← P − k kᵀ / (α + h̄ᵀ k)
    /// for each step. `window`: adds the turn and drops the oldest turns beyond K.
    ///
    /// # Panics
    /// If a step's h̄ is not `s` wide.
    pub fn end_turn(&mut self, modality: &ModalityName, steps: Vec<Fold<T>>) {
        match &self.spec {
            ProjectionSpec::Off => {}
            ProjectionSpec::Rls { .. } => {
                let mut matrix = std::mem::replace(&mut self.form, Form::identity(0)).into_matrix();
                rls::fold(&mut matrix, &steps);
                self.form = Form::Dense(matrix);
            }
            ProjectionSpec::Window { turns, .. } => {
                let rows = steps.into_iter().map(|step| step.mean_features).collect();
                self.window.push(WindowTurn { modality: modality.clone(), rows });
                let forgotten = self.window.len().saturating_sub(*turns as usize);
                self.window.drain(..forgotten);
            }
        }
    }

    /// Sets P = I and empties the window.
    pub fn reset(&mut self) {
        self.form = identity(&self.spec, self.form.width());
        self.window.clear();
    }
}

/// P = I in the form that this projection starts from.
fn identity<T: Real>(spec: &ProjectionSpec, width: usize) -> Form<T> {
    match spec {
        ProjectionSpec::Rls { .. } => Form::Dense(Matrix::identity(width)),
        ProjectionSpec::Off | ProjectionSpec::Window { .. } => Form::identity(width),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modality(name: &str) -> ModalityName {
        ModalityName::try_from(name).expect("a name")
    }

    fn window(turns: u32) -> Projector<f64> {
        Projector::new(&ProjectionSpec::Window { alpha: 0.1, turns, apply_to: ApplyTo::Update }, 3)
    }

    fn turn(row: [f64; 3]) -> Vec<Fold<f64>> {
        vec![Fold { mean_features: row.to_vec(), alpha: 0.1 }]
    }

    #[test]
    fn off_is_always_the_identity() {
        let mut projector = Projector::<f64>::new(&ProjectionSpec::Off, 3);
        projector.end_turn(&modality("a"), turn([1.0, 2.0, 3.0]));
        assert_eq!(projector.matrix(), &Matrix::identity(3));
        assert_eq!(projector.matrix_for_turn_of(&modality("b")), None);
        assert_eq!(projector.applies_to(), None);
    }

    #[test]
    fn a_window_leaves_a_modality_its_own_directions() {
        let mut projector = window(8);
        projector.end_turn(&modality("a"), turn([1.0, 0.0, 0.0]));
        assert_eq!(projector.matrix_for_turn_of(&modality("a")), Some(Matrix::identity(3)));
        let for_other = projector.matrix_for_turn_of(&modality("b")).expect("a window has one for every turn");
        assert!((for_other.row(0)[0] - 1.0 / 11.0).abs() < 1e-15);
        assert_eq!(for_other.row(1), [0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_window_forgets_turns_and_not_steps() {
        let mut projector = window(2);
        for first in [1.0, 2.0, 3.0] {
            let mut steps = turn([first, 0.0, 0.0]);
            steps.extend(turn([first, 1.0, 0.0]));
            projector.end_turn(&modality("a"), steps);
        }
        let kept: Vec<f64> = projector.window().iter().flat_map(|turn| turn.rows.iter().map(|row| row[0])).collect();
        assert_eq!(kept, [2.0, 2.0, 3.0, 3.0]);
    }

    #[test]
    fn a_reset_forgets_everything() {
        let mut projector = window(2);
        projector.end_turn(&modality("a"), turn([1.0, 0.0, 0.0]));
        projector.reset();
        assert_eq!(projector, window(2));
    }
}
