//! Memory that steps write into, so that none asks for any of the size of W or P.

use std::sync::Arc;

use super::local::Head;
use crate::ids::ModalityName;
use crate::linalg::{Matrix, Real};
use crate::optimizer::Optimizer;
use crate::projector::Form;

/// What one step leaves to the next but its result. It is no part of a shared head's state: all are equal, and a clone
/// is empty.
#[derive(Debug)]
pub(super) struct Workspace<T> {
    /// The head and the optimizer before the last step, to be written over.
    before: Option<(Arc<Head<T>>, Optimizer<T>)>,
    /// H P.
    pub(super) features: Matrix<T>,
    /// G, where D and H are sent but G P costs less.
    pub(super) gradient: Matrix<T>,
    /// G P, where G is sent.
    pub(super) projected: Matrix<T>,
    /// W_new − W_old, and (W_new − W_old) P.
    pub(super) update: [Matrix<T>; 2],
    /// What the next turn multiplies by, if it is this modality's.
    pub(super) ready: Option<(ModalityName, Form<T>)>,
}

impl<T: Real> Workspace<T> {
    /// Keeps a head and an optimizer that are done with.
    pub(super) fn keep(&mut self, head: Arc<Head<T>>, optimizer: Optimizer<T>) {
        self.before = Some((head, optimizer));
    }

    /// A head and an optimizer of these sizes to write to, without other references.
    pub(super) fn take(&mut self, head: &Head<T>, optimizer: &Optimizer<T>) -> (Arc<Head<T>>, Optimizer<T>) {
        let (mut old, memory) = self.before.take().unwrap_or_else(|| (Arc::new(head.blank()), optimizer.blank()));
        if Arc::get_mut(&mut old).is_none() {
            // It is still being read.
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
