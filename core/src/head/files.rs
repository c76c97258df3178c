//! The shared head as the files of a checkpoint, and back. Between turns only.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::local::Head;
use super::shared::SharedHead;
use crate::ids::{HeadVersion, ModalityName};
use crate::linalg::{Matrix, Real};
use crate::optimizer::Moments;
use crate::projector::{Projector, WindowTurn};
use crate::spec::{HeadSpec, OptimizerRule};

/// A tensor with the name that it has in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor<T> {
    /// Unique within its file.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The elements in row-major order.
    pub data: Vec<T>,
}

/// The contents of one file of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorFile<T> {
    /// The tensors, in the order in which they are written.
    pub tensors: Vec<NamedTensor<T>>,
    /// Everything that is not a tensor, as JSON. Empty if there is nothing else.
    pub note: String,
}

/// The shared head's files.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadFiles<T> {
    /// `weight` (C, s) and `bias` (C).
    pub head: TensorFile<T>,
    /// The optimizer's moments: `weight.momentum` and `bias.momentum`, or `.mean` and `.square` of both. Also its count
    /// of steps and the head's version.
    pub state: TensorFile<T>,
    /// `projector` (s, s). For a window that is not empty, also `window` (rows, s) and the modality of each row.
    pub projector: TensorFile<T>,
}

/// A copy of everything in the shared head that the next step changes. [`Self::into_files`] does the rest of the work,
/// and no longer needs the shared head.
#[derive(Debug, Clone)]
pub struct HeadSnapshot<T> {
    /// Shared, because a head is never changed in place.
    head: Arc<Head<T>>,
    state: TensorFile<T>,
    projector: TensorFile<T>,
}

impl<T: Real> HeadSnapshot<T> {
    /// The head's files.
    #[must_use]
    pub fn into_files(self) -> HeadFiles<T> {
        HeadFiles { head: head_file(&self.head), state: self.state, projector: self.projector }
    }
}

/// Why files could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadFilesError {
    /// A turn is open.
    #[error("a turn of `{modality}` is open; end it before the head is saved")]
    TurnOpen {
        /// The modality that has the turn.
        modality: ModalityName,
    },
    /// A tensor is missing.
    #[error("there is no tensor `{name}`; use a checkpoint of a job with the same `head` section")]
    Missing {
        /// The name of the tensor.
        name: String,
    },
    /// A tensor does not have the shape that the job requires.
    #[error(
        "tensor `{name}` has shape {given:?} but this job needs {needed:?}; use a checkpoint of a job with the same head and labels"
    )]
    Shape {
        /// The name of the tensor.
        name: String,
        /// Its shape.
        given: Vec<usize>,
        /// The shape it should have.
        needed: Vec<usize>,
    },
    /// A tensor holds an infinity or NaN.
    #[error("tensor `{name}` is infinite or NaN at element {position}; the file is damaged: use another checkpoint")]
    NotFinite {
        /// The name of the tensor.
        name: String,
        /// The position of the first such element.
        position: usize,
    },
    /// The JSON of a file cannot be read.
    #[error("the JSON note of the {file} cannot be read: {reason}; the file is damaged: use another checkpoint")]
    Note {
        /// The file.
        file: &'static str,
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
    /// Everything that [`Self::from_files`] needs to resume with the same bits.
    ///
    /// # Errors
    /// If a turn is open.
    pub fn to_files(&self) -> Result<HeadFiles<T>, HeadFilesError> {
        self.snapshot().map(HeadSnapshot::into_files)
    }

    /// As [`Self::to_files`], but copies only the optimizer's moments and P, so it is fast.
    ///
    /// # Errors
    /// If a turn is open.
    pub fn snapshot(&self) -> Result<HeadSnapshot<T>, HeadFilesError> {
        if let Some(modality) = self.open_turn() {
            return Err(HeadFilesError::TurnOpen { modality: modality.clone() });
        }
        Ok(HeadSnapshot { head: self.share(), state: self.state_file()?, projector: self.projector_file()? })
    }

    /// The shared head that these files were made of, for a job with this specification and C = `classes`.
    ///
    /// # Errors
    /// If a tensor is missing, does not have the shape that the job requires, or is not finite, or if a note cannot be
    /// read.
    pub fn from_files(spec: &HeadSpec, classes: usize, files: &HeadFiles<T>) -> Result<Self, HeadFilesError> {
        let width = spec.width as usize;
        let weight = matrix(&files.head, "weight", classes, width)?;
        let bias = take(&files.head, "bias", &[classes])?.to_vec();
        let head = Head::new(weight, bias).map_err(|_| HeadFilesError::Missing { name: "weight".into() })?;
        let mut shared = Self::with_head(spec, head);

        let note: StateNote = read_note("head state", &files.state)?;
        shared.version = note.version;
        let mut moments = Vec::new();
        for (name, size) in [("weight", [classes, width].as_slice()), ("bias", &[classes])] {
            moments.push(of_tensor(&files.state, &spec.optimizer.rule, name, size)?);
        }
        shared.optimizer = shared
            .optimizer
            .restored(note.steps, moments)
            .ok_or_else(|| HeadFilesError::Missing { name: "weight.momentum".into() })?;
        shared.projector = Projector::resumed(
            &spec.projection,
            matrix(&files.projector, "projector", width, width)?,
            window(&files.projector, width)?,
        );
        Ok(shared)
    }

    fn state_file(&self) -> Result<TensorFile<T>, HeadFilesError> {
        let (classes, width) = self.head.weight().shape();
        let mut tensors = Vec::new();
        for (name, shape, of_tensor) in [
            ("weight", vec![classes, width], &self.optimizer.moments()[0]),
            ("bias", vec![classes], &self.optimizer.moments()[1]),
        ] {
            if of_tensor.second.is_empty() {
                tensors.push(tensor(format!("{name}.momentum"), &shape, &of_tensor.first));
            } else {
                tensors.push(tensor(format!("{name}.mean"), &shape, &of_tensor.first));
                tensors.push(tensor(format!("{name}.square"), &shape, &of_tensor.second));
            }
        }
        let note = StateNote { version: self.version, steps: self.optimizer.steps() };
        Ok(TensorFile { tensors, note: write_note("head state", &note)? })
    }

    fn projector_file(&self) -> Result<TensorFile<T>, HeadFilesError> {
        let (turns, width) = (self.projector.window(), self.head.width());
        let mut tensors = vec![tensor("projector".into(), &[width, width], self.projector.matrix().as_slice())];
        let rows: Vec<T> = turns.iter().flat_map(|turn| turn.rows.iter().flatten().copied()).collect();
        if rows.is_empty() {
            return Ok(TensorFile { tensors, note: String::new() });
        }
        tensors.push(tensor("window".into(), &[rows.len() / width, width], &rows));
        let window =
            turns.iter().map(|turn| TurnNote { modality: turn.modality.clone(), steps: turn.rows.len() }).collect();
        Ok(TensorFile { tensors, note: write_note("projector", &ProjectorNote { window })? })
    }
}

fn head_file<T: Real>(head: &Head<T>) -> TensorFile<T> {
    let (classes, width) = head.weight().shape();
    let tensors = vec![
        tensor("weight".into(), &[classes, width], head.weight().as_slice()),
        tensor("bias".into(), &[classes], head.bias()),
    ];
    TensorFile { tensors, note: String::new() }
}

fn tensor<T: Real>(name: String, shape: &[usize], data: &[T]) -> NamedTensor<T> {
    NamedTensor { name, shape: shape.to_vec(), data: data.to_vec() }
}

/// The elements of the tensor with this name, if it has this shape and all are finite.
fn take<'a, T: Real>(file: &'a TensorFile<T>, name: &str, needed: &[usize]) -> Result<&'a [T], HeadFilesError> {
    let found = find(file, name)?;
    if found.shape != needed || found.data.len() != needed.iter().product::<usize>() {
        return Err(HeadFilesError::Shape { name: name.into(), given: found.shape.clone(), needed: needed.to_vec() });
    }
    match found.data.iter().position(|v| !v.is_finite()) {
        Some(position) => Err(HeadFilesError::NotFinite { name: name.into(), position }),
        None => Ok(&found.data),
    }
}

fn find<'a, T>(file: &'a TensorFile<T>, name: &str) -> Result<&'a NamedTensor<T>, HeadFilesError> {
    file.tensors.iter().find(|t| t.name == name).ok_or_else(|| HeadFilesError::Missing { name: name.into() })
}

fn matrix<T: Real>(file: &TensorFile<T>, name: &str, rows: usize, cols: usize) -> Result<Matrix<T>, HeadFilesError> {
    let data = take(file, name, &[rows, cols])?.to_vec();
    Ok(Matrix::from_vec(rows, cols, data).expect("its length was checked against its shape"))
}

fn of_tensor<T: Real>(
    file: &TensorFile<T>,
    rule: &OptimizerRule,
    name: &str,
    size: &[usize],
) -> Result<Moments<T>, HeadFilesError> {
    Ok(match rule {
        OptimizerRule::Sgd { .. } => {
            Moments { first: take(file, &format!("{name}.momentum"), size)?.to_vec(), second: Vec::new() }
        }
        OptimizerRule::Adamw { .. } => Moments {
            first: take(file, &format!("{name}.mean"), size)?.to_vec(),
            second: take(file, &format!("{name}.square"), size)?.to_vec(),
        },
    })
}

fn window<T: Real>(file: &TensorFile<T>, width: usize) -> Result<Vec<WindowTurn<T>>, HeadFilesError> {
    if file.note.is_empty() {
        return Ok(Vec::new());
    }
    let note: ProjectorNote = read_note("projector", file)?;
    let total = note.window.iter().map(|turn| turn.steps).sum();
    let mut rows = take(file, "window", &[total, width])?.chunks(width.max(1)).map(<[T]>::to_vec);
    Ok(note
        .window
        .into_iter()
        .map(|turn| WindowTurn { modality: turn.modality, rows: rows.by_ref().take(turn.steps).collect() })
        .collect())
}

fn write_note(file: &'static str, note: &impl Serialize) -> Result<String, HeadFilesError> {
    serde_json::to_string(note).map_err(|error| HeadFilesError::Note { file, reason: error.to_string() })
}

fn read_note<T, N: for<'de> Deserialize<'de>>(file: &'static str, from: &TensorFile<T>) -> Result<N, HeadFilesError> {
    serde_json::from_str(&from.note).map_err(|error| HeadFilesError::Note { file, reason: error.to_string() })
}
