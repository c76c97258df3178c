//! Contributions in a trace file. Numbers that JSON cannot express are written as their bits.

use antiphon_core::head::{Contribution, HeadGradient};
use antiphon_core::linalg::Matrix;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
struct Recorded {
    /// G, or D and H.
    gradient: Vec<Matrix<f32>>,
    bias_gradient: Vec<f32>,
    mean_features: Vec<f32>,
    loss: u64,
    correct: u32,
    samples: u32,
}

pub(crate) fn serialize<S: Serializer>(of: &Contribution<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    let recorded = Recorded {
        gradient: match &of.gradient {
            HeadGradient::Dense(gradient) => vec![gradient.clone()],
            HeadGradient::Factors { errors, features } => vec![errors.clone(), features.clone()],
        },
        bias_gradient: of.bias_gradient.clone(),
        mean_features: of.mean_features.clone(),
        loss: of.loss.to_bits(),
        correct: of.correct,
        samples: of.samples,
    };
    recorded.serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Contribution<f32>, D::Error> {
    let mut recorded = Recorded::deserialize(deserializer)?;
    let gradient = match (recorded.gradient.pop(), recorded.gradient.pop()) {
        (Some(gradient), None) => HeadGradient::Dense(gradient),
        (Some(features), Some(errors)) => HeadGradient::Factors { errors, features },
        (None, _) => return Err(serde::de::Error::custom("a contribution without a gradient")),
    };
    Ok(Contribution {
        gradient,
        bias_gradient: recorded.bias_gradient,
        mean_features: recorded.mean_features,
        loss: f64::from_bits(recorded.loss),
        correct: recorded.correct,
        samples: recorded.samples,
    })
}
