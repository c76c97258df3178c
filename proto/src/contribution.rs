//! Head contributions: the messages of workers for one step.

use antiphon_core::head::{CheckedContribution, Contribution, ContributionError, HeadGradient};
use antiphon_core::ids::{MicroShard, TurnRef};

use crate::elements::{F32_BYTES, Followed};
use crate::error::{WireError, out_of_range, required};
use crate::tensor::{Dimension, Rules, Scan, encode_f32, encode_matrix, not_finite, read, read_matrix};
use crate::{ids, v1};

const DENSE: &str = "contribution.dense";
const ERRORS: &str = "contribution.factors.errors";
const FEATURES: &str = "contribution.factors.features";
const BIAS_GRADIENT: &str = "contribution.bias_gradient";
const MEAN_FEATURES: &str = "contribution.mean_features";

/// The shapes of a job's contributions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContributionLimits {
    /// C.
    pub classes: usize,
    /// s.
    pub width: usize,
    /// B, the largest number of samples in a batch.
    pub batch: usize,
}

impl ContributionLimits {
    /// Bytes of the largest tensor that a contribution may have.
    #[must_use]
    pub fn tensor_bytes(&self) -> usize {
        let (small, large) = (self.classes.min(self.width), self.classes.max(self.width));
        large.saturating_mul(small.max(self.batch)).saturating_mul(F32_BYTES)
    }

    /// Bytes that all tensors of a contribution may have together.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        let vectors = self.classes.saturating_add(self.width);
        let gradient = self.classes.saturating_mul(self.width).max(self.batch.saturating_mul(vectors));
        gradient.saturating_add(vectors).saturating_mul(F32_BYTES)
    }
}

/// The step of a contribution, its micro-shard, and the contribution itself, checked in full: its shapes are the job's,
/// all numbers are finite and small enough to compute with, and counts fit the batch. One pass over the numbers checks
/// them all.
///
/// # Errors
/// The first error. Numbers are checked only if all shapes are right.
pub fn decode(
    message: &v1::Contribution,
    limits: &ContributionLimits,
    mut followed: Followed,
) -> Result<(TurnRef, MicroShard, CheckedContribution<f32>), WireError> {
    let turn = ids::turn_ref("contribution.turn", message.turn.as_ref())?;
    let shard = ids::micro_shard("contribution.micro_shard", message.micro_shard.as_ref())?;
    let samples = message.samples;
    // Only this crate knows the largest batch, and `samples` determines the shapes of factors. Core checks the loss and
    // the other counts with the numbers.
    if samples == 0 || samples as usize > limits.batch {
        return Err(out_of_range("contribution.samples", samples, format!("1 to {}", limits.batch)));
    }
    let (classes, width) = (limits.classes, limits.width);
    let gradient = gradient(message.gradient.as_ref(), samples as usize, limits, &mut followed)?;
    let mut vector = |field, tensor, length| {
        let expected = [Dimension::Exactly(length)];
        Ok::<_, WireError>(read(field, required(field, tensor)?, rules(&expected, limits), &mut followed)?.1)
    };
    let contribution = Contribution {
        gradient,
        bias_gradient: vector(BIAS_GRADIENT, message.bias_gradient.as_ref(), classes)?,
        mean_features: vector(MEAN_FEATURES, message.mean_features.as_ref(), width)?,
        loss: message.loss,
        correct: message.correct,
        samples,
    };
    let checked = contribution.into_checked(classes, width).map_err(named)?;
    Ok((turn, shard, checked))
}

fn rules<'a>(expected: &'a [Dimension], limits: &ContributionLimits) -> Rules<'a> {
    Rules { expected, limit: limits.tensor_bytes(), scan: Scan::Caller }
}

/// The error of core's check, with the path of the wrong field.
fn named(error: ContributionError) -> WireError {
    match error {
        ContributionError::NotFinite { tensor, position, value } => {
            let field = match tensor {
                "gradient" => DENSE,
                "errors" => ERRORS,
                "features" => FEATURES,
                "bias gradient" => BIAS_GRADIENT,
                _ => MEAN_FEATURES,
            };
            not_finite(field, position, value)
        }
        ContributionError::Loss { value } if !value.is_finite() => not_finite("contribution.loss", 0, value),
        ContributionError::Counts { correct, samples } => {
            out_of_range("contribution.correct", correct, format!("at most samples, {samples}"))
        }
        other => other.into(),
    }
}

/// The message that [`decode`] reads. No number is copied.
#[must_use]
pub fn encode(turn: &TurnRef, shard: MicroShard, contribution: Contribution<f32>) -> v1::Contribution {
    v1::Contribution {
        turn: Some(turn.into()),
        micro_shard: Some(shard.into()),
        gradient: Some(encode_gradient(contribution.gradient)),
        bias_gradient: Some(vector(contribution.bias_gradient)),
        mean_features: Some(vector(contribution.mean_features)),
        loss: contribution.loss,
        correct: contribution.correct,
        samples: contribution.samples,
    }
}

fn gradient(
    message: Option<&v1::contribution::Gradient>,
    samples: usize,
    limits: &ContributionLimits,
    followed: &mut Followed,
) -> Result<HeadGradient<f32>, WireError> {
    let mut matrix = |field, tensor, rows, columns| {
        let expected = [Dimension::Exactly(rows), Dimension::Exactly(columns)];
        read_matrix(field, tensor, rules(&expected, limits), followed)
    };
    match required("contribution.gradient", message)? {
        v1::contribution::Gradient::Dense(dense) => {
            Ok(HeadGradient::Dense(matrix(DENSE, Some(dense), limits.classes, limits.width)?))
        }
        v1::contribution::Gradient::Factors(factors) => Ok(HeadGradient::Factors {
            errors: matrix(ERRORS, factors.errors.as_ref(), samples, limits.classes)?,
            features: matrix(FEATURES, factors.features.as_ref(), samples, limits.width)?,
        }),
    }
}

fn encode_gradient(gradient: HeadGradient<f32>) -> v1::contribution::Gradient {
    match gradient {
        HeadGradient::Dense(dense) => v1::contribution::Gradient::Dense(encode_matrix(dense)),
        HeadGradient::Factors { errors, features } => v1::contribution::Gradient::Factors(v1::Factors {
            errors: Some(encode_matrix(errors)),
            features: Some(encode_matrix(features)),
        }),
    }
}

fn vector(numbers: Vec<f32>) -> v1::Tensor {
    encode_f32(&[numbers.len()], numbers)
}
