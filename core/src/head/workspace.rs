//! Memory that steps write into, so that no step allocates memory of the size of W or P.

use std::sync::Arc;

use super::local::Head;
use crate::ids::ModalityName;
use crate::linalg::{Matrix, Real};
use crate::optimizer::Optimizer;
use crate::projector::Form;

/// Buffers that one step leaves to the next. They are not part of a shared head's state: all workspaces are equal, and
/// a clone is empty.
#[derive(Debug)]
pub(super) struct Workspace<T> {
    /// The head and the optimizer before the last step, which the next step overwrites.
    before: Option<(Arc<Head<T>>, Optimizer<T>)>,
    /// H P.
    pub(super) features: Matrix<T>,
    /// G, where D and H are sent but G P costs less.
    pub(super) gradient: Matrix<T>,
    /// G P, where G is sent.
    pub(super) projected: Matrix<T>,
    /// W_new − W_old, and (W_new − W_old) P.
    pub(super) update: [Matrix<T>; 2],
    /// P for the next turn, if the turn is this modality's.
    pub(super) ready: Option<(ModalityName, Form<T>)>,
}

impl<T: Real> Workspace<T> {
    /// Keeps a head and an optimizer that are no longer needed.
    pub(super) fn keep(&mut self, head: Arc<Head<T>>, optimizer: Optimizer<T>) {
        self.before = Some((head, optimizer));
    }

    /// A head and an optimizer of these sizes to write to. Nothing else references them.
    pub(super) fn take(&mut self, head: &Head<T>, optimizer: &Optimizer<T>) -> (Arc<Head<T>>, Optimizer<T>) {
        let (mut old, memory) = self.before.take().unwrap_or_else(|| (Arc::new(head.blank()), optimizer.blank()));
        if Arc::get_mut(&mut old).is_none() {
            // Another thread still reads it.
            old = Arc::new(head.blank());
        }
        (old, memory)
    }
}

impl<T> Default for Workspace<T> {
    fn default() -> Self {
        Self {
            before: None,
            features: Matrix::default(),
            gradient: Matrix::default(),
            projected: Matrix::default(),
            update: Default::default(),
            ready: None,
        }
    }
}

impl<T> Clone for Workspace<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> PartialEq for Workspace<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
