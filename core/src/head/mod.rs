//! The shared head, in two halves.
//!
//! ```text
//! worker       Head::contribution(H, y)  Z = H Wᵀ + b,  D = (softmax Z − onehot y) / B,  G = Dᵀ H
//!                    │                   Head::feature_gradient  dH = D W, once that is sent
//!                    │ Contribution: G (or D and H), Σ rows of D, h̄, loss, counts
//!                    ▼
//! coordinator  Contribution::check       shapes, finiteness, counts: all of it is checked
//!              SharedHead::apply         G ← G P, optimizer step on (W, b), h̄ stored
//!              SharedHead::end_turn      folds the turn's h̄ into P, in order
//! ```
//!
//! Invariants:
//! 1. A rejected contribution changes nothing.
//! 2. P is constant within a turn: the steps of a turn change P for the next turn.
//! 3. All numbers of a [`SharedHead`] are finite.
//! 4. The same calls give the same bits, for any number of threads. Work is divided into blocks of fixed size, which
//!    the threads of the caller's rayon pool share.

mod contribution;
mod files;
mod gradient;
mod local;
mod shared;
mod step;
mod workspace;

pub use contribution::{CheckedContribution, Contribution, ContributionError, HeadGradient};
pub use files::{HeadFiles, HeadFilesError, HeadSnapshot, NamedTensor, TensorFile};
pub use local::{BatchErrors, Head, HeadError, LocalStep};
pub use shared::{SharedHead, StepContext, StepReport};
