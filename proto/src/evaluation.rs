//! Evaluating a split: the head to use, and logits in chunks.

use std::sync::Arc;

use antiphon_core::head::Head;
use antiphon_core::ids::{EvaluationId, JobId, SAMPLE_ID_LIMIT, Split, Term};
use antiphon_core::linalg::Matrix;
use antiphon_core::times::WorkerTimes;

use crate::assignment::{HeadShape, decode_head};
use crate::elements::{F32_BYTES, Followed};
use crate::error::{WireError, out_of_range};
use crate::tensor::{Dimension, decode_matrix, encode_head, encode_matrix};
use crate::{ids, times, v1};

/// The start of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluate {
    /// The job.
    pub job: JobId,
    /// The coordinator's term.
    pub term: Term,
    /// Which evaluation.
    pub evaluation: EvaluationId,
    /// The split to evaluate.
    pub split: Split,
    /// W and b.
    pub head: Arc<Head<f32>>,
}

impl Evaluate {
    /// Checks the message against the shape of the job's head.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn decode(message: &v1::Evaluate, of: HeadShape, followed: Followed) -> Result<Self, WireError> {
        let head = decode_head("evaluate", message.weight.as_ref(), message.bias.as_ref(), of, followed)?;
        Ok(Self {
            job: ids::name("evaluate.job", &message.job)?,
            term: Term(message.term),
            evaluation: EvaluationId(message.evaluation),
            split: ids::split("evaluate.split", message.split)?,
            head: Arc::new(head),
        })
    }

    /// The message. No number is copied.
    #[must_use]
    pub fn encode(&self) -> v1::Evaluate {
        let (weight, bias) = encode_head(&self.head);
        v1::Evaluate {
            job: self.job.to_string(),
            term: self.term.0,
            evaluation: self.evaluation.0,
            split: v1::Split::from(self.split).into(),
            weight: Some(weight),
            bias: Some(bias),
        }
    }
}

/// Logits of consecutive samples of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct LogitsChunk {
    /// The job.
    pub job: JobId,
    /// The coordinator's term.
    pub term: Term,
    /// Which evaluation.
    pub evaluation: EvaluationId,
    /// The number of the chunk within the split, from 0.
    pub sequence: u64,
    /// The ids of the samples, strictly ascending in byte order.
    pub ids: Vec<String>,
    /// The class of each sample, below C.
    pub labels: Vec<u32>,
    /// Z, (ids, C). None in a chunk without samples.
    pub logits: Option<Matrix<f32>>,
    /// Whether it is the last of the split.
    pub last: bool,
    /// How the worker spent its time since its last report. Only in the last chunk.
    pub times: Option<WorkerTimes>,
}

impl LogitsChunk {
    /// Checks a chunk of at most `at_most` samples against the job's C = `classes`. The caller checks that it follows
    /// the previous chunk.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn decode(
        message: v1::LogitsChunk,
        classes: usize,
        at_most: usize,
        followed: Followed,
    ) -> Result<Self, WireError> {
        check_ids(&message.ids, at_most)?;
        check_labels(&message.labels, message.ids.len(), classes)?;
        if message.ids.is_empty() && !message.last {
            return Err(out_of_range("logits.ids", "empty", "at least one sample before the last chunk"));
        }
        Ok(Self {
            job: ids::name("logits.job", &message.job)?,
            term: Term(message.term),
            evaluation: EvaluationId(message.evaluation),
            sequence: message.sequence,
            logits: decode_logits(&message, classes, followed)?,
            ids: message.ids,
            labels: message.labels,
            last: message.last,
            times: message.times.as_ref().map(times::decode),
        })
    }

    /// The message.
    #[must_use]
    pub fn encode(self) -> v1::LogitsChunk {
        v1::LogitsChunk {
            job: self.job.to_string(),
            term: self.term.0,
            evaluation: self.evaluation.0,
            sequence: self.sequence,
            logits: self.logits.map(encode_matrix),
            ids: self.ids,
            labels: self.labels,
            last: self.last,
            times: self.times.as_ref().map(times::encode),
        }
    }
}

fn decode_logits(
    message: &v1::LogitsChunk,
    classes: usize,
    mut followed: Followed,
) -> Result<Option<Matrix<f32>>, WireError> {
    if message.ids.is_empty() {
        return Ok(None);
    }
    let (rows, columns) = (Dimension::Exactly(message.ids.len()), Dimension::Exactly(classes));
    let limit = message.ids.len().saturating_mul(classes).saturating_mul(F32_BYTES);
    decode_matrix("logits.logits", message.logits.as_ref(), rows, columns, limit, &mut followed).map(Some)
}

fn check_ids(given: &[String], at_most: usize) -> Result<(), WireError> {
    if given.len() > at_most {
        return Err(out_of_range(
            "logits.ids",
            format!("{} long", given.len()),
            format!("at most {at_most}, the number that was requested"),
        ));
    }
    if let Some(at) = given.iter().position(|id| id.len() > SAMPLE_ID_LIMIT) {
        let value = format!("{} bytes long", given[at].len());
        return Err(out_of_range(&format!("logits.ids[{at}]"), value, format!("at most {SAMPLE_ID_LIMIT} bytes")));
    }
    match given.windows(2).position(|pair| pair[0].as_bytes() >= pair[1].as_bytes()) {
        None => Ok(()),
        Some(at) => Err(out_of_range(
            &format!("logits.ids[{}]", at + 1),
            format!("`{}`", given[at + 1]),
            format!("an id after the previous one, `{}`", given[at]),
        )),
    }
}

fn check_labels(labels: &[u32], samples: usize, classes: usize) -> Result<(), WireError> {
    if labels.len() != samples {
        return Err(out_of_range(
            "logits.labels",
            format!("{} long", labels.len()),
            format!("{samples}, one label per id"),
        ));
    }
    match labels.iter().position(|label| *label as usize >= classes) {
        None => Ok(()),
        Some(at) => Err(out_of_range(&format!("logits.labels[{at}]"), labels[at], format!("a class below {classes}"))),
    }
}
