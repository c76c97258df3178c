//! The prediction for one sample, and its JSON form.

use std::collections::BTreeMap;

use antiphon_core::fusion::{FusionRule, fuse};
use antiphon_core::ids::ModalityName;
use antiphon_core::linalg::{argmax, softmax};
use antiphon_core::spec::Classes;
use serde::{Deserialize, Deserializer, Serialize};

use super::samples::Sample;

/// The prediction for one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Id of the sample.
    pub id: String,
    /// Class of the sample, if it is known.
    pub label: Option<u32>,
    /// Name of the class in `label`, if the job names its classes.
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Named::is_none")]
    pub label_class: Named,
    /// The class with the highest probability.
    pub prediction: u32,
    /// Name of the class in `prediction`, if the job names its classes.
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Named::is_none")]
    pub prediction_class: Named,
    /// softmax(Σ λ_m Z_m), one per class.
    pub probabilities: Vec<f64>,
    /// What each modality contributed.
    pub modalities: BTreeMap<ModalityName, Weighed>,
}

/// The name of a class. None if the job does not name its classes; Some(None) if the class is unknown.
pub type Named = Option<Option<String>>;

/// Reads a field that exists, even if it is null.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Named, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The contribution of a modality to a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Weighed {
    /// Fusion weight λ; 0 if the modality is missing or dropped.
    pub lambda: f64,
    /// Entropy e in nats; None if the modality is missing or dropped.
    pub entropy: Option<f64>,
}

impl Prediction {
    /// Fuses the logits of one sample.
    ///
    /// # Panics
    /// If weights, names and logits are not one per modality.
    #[must_use]
    pub fn of(sample: &Sample, rule: &FusionRule, modalities: &[ModalityName], classes: &Classes) -> Self {
        let logits: Vec<Option<&[f32]>> = sample.logits.iter().map(Option::as_deref).collect();
        let fused = fuse(rule, &logits);
        let (probabilities, _) = softmax(&fused.logits);
        let answer = argmax(&fused.logits) as u32;
        let name = |class: Option<u32>| -> Named {
            let Classes::Names(names) = classes else { return None };
            Some(class.and_then(|class| names.get(class as usize).cloned()))
        };
        let weighed = fused.weights.iter().zip(fused.entropies);
        let weighed = weighed.map(|(lambda, entropy)| Weighed { lambda: *lambda, entropy });
        Self {
            id: sample.id.clone(),
            label: sample.label,
            label_class: name(sample.label),
            prediction: answer,
            prediction_class: name(Some(answer)),
            probabilities,
            modalities: modalities.iter().cloned().zip(weighed).collect(),
        }
    }
}
