//! The shared head as named tensors, for a checkpoint, and back. Between turns only.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::local::Head;
use super::shared::SharedHead;
use crate::ids::{HeadVersion, ModalityName};
use crate::linalg::{Matrix, Real};
use crate::optimizer::Slot;
use crate::projector::{Projector, WindowTurn};
use crate::spec::{HeadSpec, OptimizerRule};

/// A tensor with the name that it has in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor<T> {
    /// Unique within its part.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements in row-major order.
    pub data: Vec<T>,
}

/// What one file of a checkpoint holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Part<T> {
    /// The tensors, in a fixed order.
    pub tensors: Vec<NamedTensor<T>>,
    /// What is no tensor, as JSON; empty where there is nothing.
    pub note: String,
}

/// The shared head's files.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadParts<T> {
    /// `weight` (C, s) and `bias` (C).
    pub head: Part<T>,
    /// The optimizer's memory: `weight.momentum` and `bias.momentum`, or `.mean` and `.square` of both; its count of
    /// steps and the head's version.
    pub state: Part<T>,
    /// `projector` (s, s); for a window that remembers anything `window` (rows, s), and whose rows they are.
    pub projector: Part<T>,
}

/// The shared head at a turn boundary, as far as it would change afterwards: [`Self::into_parts`] has the rest of the work, and
/// needs the shared head no more.
#[derive(Debug, Clone)]
pub struct HeadSnapshot<T> {
    /// It is never changed.
    head: Arc<Head<T>>,
    state: Part<T>,
    projector: Part<T>,
}

impl<T: Real> HeadSnapshot<T> {
    /// The head's files.
    #[must_use]
    pub fn into_parts(self) -> HeadParts<T> {
        HeadParts { head: head_part(&self.head), state: self.state, projector: self.projector }
    }
}

/// Why parts could not be made or taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartsError {
    /// A turn is open.
    #[error("a turn of `{modality}` is open; end it before the head is saved")]
    TurnOpen {
        /// Whose.
        modality: ModalityName,
    },
    /// A tensor is not there.
    #[error("there is no tensor `{name}`; the file is not of this kind of job")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A tensor is of another shape than the job asks for.
    #[error("tensor `{name}` has shape {given:?} but this job needs {needed:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        given: Vec<usize>,
        /// The shape it should have.
        needed: Vec<usize>,
    },
    /// A tensor holds an infinity or NaN.
    #[error("tensor `{name}` is infinite or NaN at element {position}; the file is damaged")]
    NotFinite {
        /// Its name.
        name: String,
        /// The first such element.
        position: usize,
    },
    /// What is no tensor cannot be read.
    #[error("the note of the {part} cannot be read: {reason}; the file is damaged")]
    Note {
        /// Which part.
        part: &'static str,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
struct StateNote {
    version: HeadVersion,
    steps: u64,
}

#[derive(Serialize, Deserialize)]
struct ProjectorNote {
    window: Vec<TurnNote>,
}

#[derive(Serialize, Deserialize)]
struct TurnNote {
    modality: ModalityName,
    steps: usize,
}

impl<T: Real> SharedHead<T> {
    /// Everything that [`Self::from_parts`] needs to go on to the last bit.
    ///
    /// # Errors
    /// If a turn is open.
    pub fn to_parts(&self) -> Result<HeadParts<T>, PartsError> {
        self.snapshot().map(HeadSnapshot::into_parts)
    }

    /// As [`Self::to_parts`], with as little done at once as can be: the optimizer's memory and P are copied.
    ///
    /// # Errors
    /// If a turn is open.
    pub fn snapshot(&self) -> Result<HeadSnapshot<T>, PartsError> {
        if let Some(modality) = self.open_turn() {
            return Err(PartsError::TurnOpen { modality: modality.clone() });
        }
        Ok(HeadSnapshot { head: self.share(), state: self.state_part()?, projector: self.projector_part()? })
    }

    /// The shared head that these parts were made of, for a job with this specification and C = `classes`.
    ///
    /// # Errors
    /// If a tensor is missing, of another shape than the job asks for, or not finite, or a note cannot be read.
    pub fn from_parts(spec: &HeadSpec, classes: usize, parts: &HeadParts<T>) -> Result<Self, PartsError> {
        let width = spec.width as usize;
        let weight = matrix(&parts.head, "weight", classes, width)?;
        let bias = take(&parts.head, "bias", &[classes])?.to_vec();
        let head = Head::new(weight, bias).map_err(|_| PartsError::Missing { name: "weight".into() })?;
        let mut shared = Self::with_head(spec, head);

        let note: StateNote = read_note("head state", &parts.state)?;
        shared.version = note.version;
        let mut slots = Vec::new();
        for (name, size) in [("weight", [classes, width].as_slice()), ("bias", &[classes])] {
            slots.push(slot(&parts.state, &spec.optimizer.rule, name, size)?);
        }
        shared.optimizer = shared
            .optimizer
            .restored(note.steps, slots)
            .ok_or_else(|| PartsError::Missing { name: "weight.momentum".into() })?;
        shared.projector = Projector::resumed(
            &spec.projection,
            matrix(&parts.projector, "projector", width, width)?,
            window(&parts.projector, width)?,
        );
        Ok(shared)
    }

    fn state_part(&self) -> Result<Part<T>, PartsError> {
        let (classes, width) = self.head.weight().shape();
        let mut tensors = Vec::new();
        for (name, shape, slot) in [
            ("weight", vec![classes, width], &self.optimizer.slots()[0]),
            ("bias", vec![classes], &self.optimizer.slots()[1]),
        ] {
            if slot.second.is_empty() {
                tensors.push(tensor(format!("{name}.momentum"), &shape, &slot.first));
            } else {
                tensors.push(tensor(format!("{name}.mean"), &shape, &slot.first));
                tensors.push(tensor(format!("{name}.square"), &shape, &slot.second));
            }
        }
        let note = StateNote { version: self.version, steps: self.optimizer.steps() };
        Ok(Part { tensors, note: write_note("head state", &note)? })
    }

    fn projector_part(&self) -> Result<Part<T>, PartsError> {
        let (turns, width) = (self.projector.window(), self.head.width());
        let mut tensors = vec![tensor("projector".into(), &[width, width], self.projector.matrix().as_slice())];
        let rows: Vec<T> = turns.iter().flat_map(|turn| turn.rows.iter().flatten().copied()).collect();
        if rows.is_empty() {
            return Ok(Part { tensors, note: String::new() });
        }
        tensors.push(tensor("window".into(), &[rows.len() / width, width], &rows));
        let window =
            turns.iter().map(|turn| TurnNote { modality: turn.modality.clone(), steps: turn.rows.len() }).collect();
        Ok(Part { tensors, note: write_note("projector", &ProjectorNote { window })? })
    }
}

fn head_part<T: Real>(head: &Head<T>) -> Part<T> {
    let (classes, width) = head.weight().shape();
    let tensors = vec![
        tensor("weight".into(), &[classes, width], head.weight().as_slice()),
        tensor("bias".into(), &[classes], head.bias()),
    ];
    Part { tensors, note: String::new() }
}

fn tensor<T: Real>(name: String, shape: &[usize], data: &[T]) -> NamedTensor<T> {
    NamedTensor { name, shape: shape.to_vec(), data: data.to_vec() }
}

/// The elements of the tensor with this name, if it has this shape and all are finite.
fn take<'a, T: Real>(part: &'a Part<T>, name: &str, needed: &[usize]) -> Result<&'a [T], PartsError> {
    let found = find(part, name)?;
    if found.shape != needed || found.data.len() != needed.iter().product::<usize>() {
        return Err(PartsError::Shape { name: name.into(), given: found.shape.clone(), needed: needed.to_vec() });
    }
    match found.data.iter().position(|v| !v.is_finite()) {
        Some(position) => Err(PartsError::NotFinite { name: name.into(), position }),
        None => Ok(&found.data),
    }
}

fn find<'a, T>(part: &'a Part<T>, name: &str) -> Result<&'a NamedTensor<T>, PartsError> {
    part.tensors.iter().find(|t| t.name == name).ok_or_else(|| PartsError::Missing { name: name.into() })
}

fn matrix<T: Real>(part: &Part<T>, name: &str, rows: usize, cols: usize) -> Result<Matrix<T>, PartsError> {
    let data = take(part, name, &[rows, cols])?.to_vec();
    Ok(Matrix::from_vec(rows, cols, data).expect("its length was checked against its shape"))
}

fn slot<T: Real>(part: &Part<T>, rule: &OptimizerRule, name: &str, size: &[usize]) -> Result<Slot<T>, PartsError> {
    Ok(match rule {
        OptimizerRule::Sgd { .. } => {
            Slot { first: take(part, &format!("{name}.momentum"), size)?.to_vec(), second: Vec::new() }
        }
        OptimizerRule::Adamw { .. } => Slot {
            first: take(part, &format!("{name}.mean"), size)?.to_vec(),
            second: take(part, &format!("{name}.square"), size)?.to_vec(),
        },
    })
}

fn window<T: Real>(part: &Part<T>, width: usize) -> Result<Vec<WindowTurn<T>>, PartsError> {
    if part.note.is_empty() {
        return Ok(Vec::new());
    }
    let note: ProjectorNote = read_note("projector", part)?;
    let total = note.window.iter().map(|turn| turn.steps).sum();
    let mut rows = take(part, "window", &[total, width])?.chunks(width.max(1)).map(<[T]>::to_vec);
    Ok(note
        .window
        .into_iter()
        .map(|turn| WindowTurn { modality: turn.modality, rows: rows.by_ref().take(turn.steps).collect() })
        .collect())
}

fn write_note(part: &'static str, note: &impl Serialize) -> Result<String, PartsError> {
    serde_json::to_string(note).map_err(|error| PartsError::Note { part, reason: error.to_string() })
}

fn read_note<T, N: for<'de> Deserialize<'de>>(part: &'static str, from: &Part<T>) -> Result<N, PartsError> {
    serde_json::from_str(&from.note).map_err(|error| PartsError::Note { part, reason: error.to_string() })
}
