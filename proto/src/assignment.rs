//! Registration, assignment, readiness and grants.

use std::sync::Arc;

use antiphon_core::head::Head;
use antiphon_core::ids::{JobId, Lease, ModalityName, Term, TurnRef, WorkerId};
use antiphon_core::numerics::NumericFingerprint;

use crate::elements::{F32_BYTES, Followed};
use crate::error::{WireError, out_of_range, required};
use crate::tensor::{Dimension, decode_matrix, decode_vector, encode_head, not_finite};
use crate::{ids, v1};

/// The longest free text of a registration, in bytes.
const TEXT_LIMIT: usize = 256;

/// The largest number of samples in a split: an index of 32 bits must suffice.
const SAMPLES_LIMIT: u64 = u32::MAX as u64;

/// A worker joins the pool of a modality with one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Unique among registered workers.
    pub worker: WorkerId,
    /// The modality whose pool it joins.
    pub modality: ModalityName,
    /// The version of the worker's software.
    pub version: String,
    /// The device that it computes on, such as `cpu` or `cuda:0`.
    pub device: String,
}

impl TryFrom<v1::Register> for Register {
    type Error = WireError;
    fn try_from(message: v1::Register) -> Result<Self, WireError> {
        Ok(Self {
            worker: ids::name("register.worker", &message.worker)?,
            modality: ids::name("register.modality", &message.modality)?,
            version: short_text("register.version", message.version)?,
            device: short_text("register.device", message.device)?,
        })
    }
}

/// A worker has opened its data and built or restored its encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The job.
    pub job: JobId,
    /// The term in which it was assigned.
    pub term: Term,
    /// Samples of the training split that have this modality. At least 1.
    pub train: u64,
    /// Samples of the validation split that have this modality. May be 0.
    pub validation: u64,
    /// Samples of the test split that have this modality. May be 0.
    pub test: u64,
    /// The number of the encoder's parameters, counted as single numbers.
    pub parameters: u64,
    /// Steps that the encoder has taken: 0 for a new one.
    pub steps_done: u64,
    /// The numeric fingerprint of the worker.
    pub fingerprint: NumericFingerprint,
}

impl TryFrom<v1::Prepared> for Prepared {
    type Error = WireError;
    fn try_from(message: v1::Prepared) -> Result<Self, WireError> {
        let samples = required("prepared.samples", message.samples)?;
        if samples.train == 0 {
            return Err(out_of_range("prepared.samples.train", 0, "at least 1 sample to train on"));
        }
        for (split, given) in [("train", samples.train), ("validation", samples.validation), ("test", samples.test)] {
            if given > SAMPLES_LIMIT {
                return Err(out_of_range(
                    &format!("prepared.samples.{split}"),
                    given,
                    format!("at most {SAMPLES_LIMIT}"),
                ));
            }
        }
        Ok(Self {
            job: ids::name("prepared.job", &message.job)?,
            term: Term(message.term),
            train: samples.train,
            validation: samples.validation,
            test: samples.test,
            parameters: count_parameters(&message.parameters)?,
            steps_done: message.steps_done,
            fingerprint: NumericFingerprint(message.numeric_fingerprint),
        })
    }
}

/// The number of elements of all tensors together.
fn count_parameters(tensors: &[v1::TensorSummary]) -> Result<u64, WireError> {
    let count = |shape: &[u64]| shape.iter().try_fold(1_u64, |product, d| product.checked_mul(*d));
    tensors.iter().enumerate().try_fold(0_u64, |sum, (at, tensor)| {
        let sum = count(&tensor.shape).and_then(|count| sum.checked_add(count));
        sum.ok_or_else(|| {
            let field = format!("prepared.parameters[{at}].shape");
            out_of_range(&field, "too large to count", "dimensions whose products add up to less than 2⁶⁴")
        })
    })
}

/// The head for one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The step, its attempt and its head version.
    pub turn: TurnRef,
    /// The lease of the worker's slot.
    pub lease: Lease,
    /// W and b.
    pub head: Arc<Head<f32>>,
    /// Epochs of the job done before this step, as a real number.
    pub progress: f64,
    /// Epochs of the whole job, as a real number.
    pub epochs: f64,
    /// Whether this is a replay: the head has taken this step before, and only the encoder takes it.
    pub replay: bool,
}

impl Grant {
    /// Checks a grant against the shape of the job's head.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn decode(message: &v1::Grant, of: HeadShape, followed: Followed) -> Result<Self, WireError> {
        let turn = ids::turn_ref("grant.turn", message.turn.as_ref())?;
        let head = decode_head("grant", message.weight.as_ref(), message.bias.as_ref(), of, followed)?;
        let progress = epochs("grant.progress", message.progress)?;
        let epochs = epochs("grant.epochs", message.epochs)?;
        Ok(Self { turn, lease: Lease(message.lease), head: Arc::new(head), progress, epochs, replay: message.replay })
    }

    /// The message. No number is copied.
    #[must_use]
    pub fn encode(&self) -> v1::Grant {
        let (weight, bias) = encode_head(&self.head);
        v1::Grant {
            turn: Some((&self.turn).into()),
            lease: self.lease.0,
            weight: Some(weight),
            bias: Some(bias),
            progress: self.progress,
            epochs: self.epochs,
            replay: self.replay,
        }
    }
}

/// The shape of a job's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadShape {
    /// C.
    pub classes: usize,
    /// s.
    pub width: usize,
}

impl HeadShape {
    /// Bytes of W.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.classes.saturating_mul(self.width).saturating_mul(F32_BYTES)
    }
}

/// W (C, s) and b (C) of the message at the path `parent`.
pub(crate) fn decode_head(
    parent: &str,
    weight: Option<&v1::Tensor>,
    bias: Option<&v1::Tensor>,
    of: HeadShape,
    mut followed: Followed,
) -> Result<Head<f32>, WireError> {
    let (rows, columns) = (Dimension::Exactly(of.classes), Dimension::Exactly(of.width));
    let weight = decode_matrix(&format!("{parent}.weight"), weight, rows, columns, of.bytes(), &mut followed)?;
    let bias = decode_vector(&format!("{parent}.bias"), bias, of.classes, of.bytes(), &mut followed)?;
    Head::new(weight, bias).map_err(|error| out_of_range(&format!("{parent}.bias"), error, "one bias for each class"))
}

fn epochs(field: &str, value: f64) -> Result<f64, WireError> {
    match value {
        value if !value.is_finite() => Err(not_finite(field, 0, value)),
        value if value < 0.0 => Err(out_of_range(field, value, "0 or more epochs")),
        value => Ok(value),
    }
}

fn short_text(field: &str, text: String) -> Result<String, WireError> {
    if text.len() <= TEXT_LIMIT {
        return Ok(text);
    }
    Err(out_of_range(field, format!("{} bytes long", text.len()), format!("at most {TEXT_LIMIT} bytes")))
}
