//! Head contributions: what a worker sends for one step.

use antiphon_core::head::{Contribution, HeadGradient};
use antiphon_core::ids::{MicroShard, TurnRef};

use crate::elements::{F32_BYTES, Followed};
use crate::error::{WireError, out_of_range, required};
use crate::tensor::{Dimension, decode_matrix, decode_vector, encode_f32, encode_matrix, not_finite};
use crate::{ids, v1};

/// What a contribution of a job may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContributionLimits {
    /// C.
    pub classes: usize,
    /// s.
    pub width: usize,
    /// B, the largest batch.
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

/// The step a contribution answers, the piece of the batch it covers, and the contribution: shapes as the job's, all
/// numbers finite, counts within the batch.
///
/// # Errors
/// Whatever is wrong first; the job's state is not touched.
pub fn decode(
    message: &v1::Contribution,
    limits: &ContributionLimits,
    mut followed: Followed,
) -> Result<(TurnRef, MicroShard, Contribution<f32>), WireError> {
    let turn = ids::turn_ref("contribution.turn", message.turn.as_ref())?;
    let shard = ids::micro_shard("contribution.micro_shard", message.micro_shard.as_ref())?;
    let samples = message.samples;
    if samples == 0 || samples as usize > limits.batch {
        return Err(out_of_range("contribution.samples", samples, format!("1 to {}", limits.batch)));
    }
    if message.correct > samples {
        return Err(out_of_range("contribution.correct", message.correct, format!("at most samples, {samples}")));
    }
    if !message.loss.is_finite() {
        return Err(not_finite("contribution.loss", 0, message.loss));
    }
    let limit = limits.tensor_bytes();
    let contribution = Contribution {
        gradient: gradient(message.gradient.as_ref(), samples as usize, limits, &mut followed)?,
        bias_gradient: decode_vector(
            "contribution.bias_gradient",
            message.bias_gradient.as_ref(),
            limits.classes,
            limit,
            &mut followed,
        )?,
        mean_features: decode_vector(
            "contribution.mean_features",
            message.mean_features.as_ref(),
            limits.width,
            limit,
            &mut followed,
        )?,
        loss: message.loss,
        correct: message.correct,
        samples,
    };
    Ok((turn, shard, contribution))
}

/// The message that [`decode`] takes. No number is copied.
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
    let exactly = Dimension::Exactly;
    let limit = limits.tensor_bytes();
    match required("contribution.gradient", message)? {
        v1::contribution::Gradient::Dense(dense) => Ok(HeadGradient::Dense(decode_matrix(
            "contribution.dense",
            Some(dense),
            exactly(limits.classes),
            exactly(limits.width),
            limit,
            followed,
        )?)),
        v1::contribution::Gradient::Factors(factors) => Ok(HeadGradient::Factors {
            errors: decode_matrix(
                "contribution.factors.errors",
                factors.errors.as_ref(),
                exactly(samples),
                exactly(limits.classes),
                limit,
                followed,
            )?,
            features: decode_matrix(
                "contribution.factors.features",
                factors.features.as_ref(),
                exactly(samples),
                exactly(limits.width),
                limit,
                followed,
            )?,
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
