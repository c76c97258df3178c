//! The worker's half of the head's step for features that are on a GPU, in f32.
//!
//! W, b and the B labels are copied to the GPU. One transfer copies the contribution back: G, or D and H if those are
//! smaller, then the sums of D, h̄ and two numbers per sample. D and W stay on the GPU for dH, so nothing is copied
//! for it.

use antiphon_core::head::{Contribution, Head, HeadError, HeadGradient};
use antiphon_core::linalg::Matrix as Numbers;
use candle_core::{Error, Result, Tensor};

use super::launch::{Card, arguments};
use super::product::{Matrix, multiply};

/// D (B, C) of a batch and W (C, s) of its head, on the GPU.
#[derive(Debug)]
pub(crate) struct Errors {
    card: Card,
    errors: Tensor,
    weight: Tensor,
}

/// Why a contribution failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(transparent)]
    Card(#[from] Error),
}

/// The positions of a contribution's numbers in the transfer.
struct Layout {
    samples: usize,
    classes: usize,
    width: usize,
    /// Whether G is sent rather than D and H.
    dense: bool,
}

impl Layout {
    /// Numbers of G, or of D and H.
    fn gradient(&self) -> usize {
        if self.dense { self.classes * self.width } else { self.samples * (self.classes + self.width) }
    }

    fn all(&self) -> usize {
        self.gradient() + self.classes + self.width + 2 * self.samples
    }
}

/// See [`Head::contribution`]; `features` (B, s) are on a GPU.
///
/// # Errors
/// As there, and if the GPU fails.
pub(crate) fn contribution(
    head: &Head<f32>,
    features: &Tensor,
    labels: &[u32],
) -> std::result::Result<(Contribution<f32>, Errors), Failure> {
    let (samples, width) = features.dims2()?;
    head.check_shapes((samples, width), labels)?;
    let layout = Layout { samples, classes: head.classes(), width, dense: head.sends_gradient(samples) };
    let (numbers, errors) = enqueue(&layout, head, features, labels)?;
    let error = match layout.contribution(numbers.to_vec1::<f32>()?) {
        Ok(contribution) => return Ok((contribution, errors)),
        Err(error) => error,
    };
    // If a feature is not finite, no logit of its row is finite. Only the features show which one it was.
    let features = features.flatten_all()?.to_vec1::<f32>()?;
    let features = Numbers::from_vec(samples, width, features).expect("as many as the shape has");
    Err(match features.first_not_finite() {
        Some(at) => HeadError::Features { row: at / width, column: at % width },
        None => error,
    }
    .into())
}

/// Enqueues the computation of a contribution and its single transfer.
fn enqueue(layout: &Layout, head: &Head<f32>, features: &Tensor, labels: &[u32]) -> Result<(Tensor, Errors)> {
    let &Layout { samples, classes, width, dense } = layout;
    let (h, card) = (features.contiguous()?, Card::of(features)?);
    let weight = card.upload_as(head.weight().as_slice(), (classes, width))?;
    let (bias, labels) = (card.upload_as(head.bias(), classes)?, card.upload_as(labels, samples)?);
    let out = card.empty(layout.all())?;
    let (gradient, rest) = (out.narrow(0, 0, layout.gradient())?, layout.gradient());
    let (bias_gradient, means) = (out.narrow(0, rest, classes)?, out.narrow(0, rest + classes, width)?);
    let scores = out.narrow(0, rest + classes + width, 2 * samples)?;

    let logits = card.empty((samples, classes))?;
    let (left, right) = (Matrix::of(&card, &h, width)?, Matrix::of(&card, &weight, width)?);
    let into = Matrix::of(&card, &logits, classes)?;
    multiply(&card, (samples, classes, width), left, right.transposed(), into, false)?;
    let errors = if dense {
        card.empty((samples, classes))?
    } else {
        gradient.narrow(0, 0, samples * classes)?.reshape((samples, classes))?
    };
    let own = arguments![&logits, &bias, &labels, classes, samples as f64, &errors, &scores];
    card.blocks("head_errors", samples, &own)?;
    card.each("column_shares", classes, &arguments![&errors, samples, classes, 1.0, &bias_gradient])?;
    card.each("column_shares", width, &arguments![&h, samples, width, samples as f64, &means])?;
    if dense {
        let (d, into) = (Matrix::of(&card, &errors, classes)?, Matrix::of(&card, &gradient, width)?);
        multiply(&card, (classes, width, samples), d.transposed(), Matrix::of(&card, &h, width)?, into, false)?;
    } else {
        let (to, n) = (gradient.narrow(0, samples * classes, samples * width)?, samples * width);
        card.each("copy", n, &arguments![&h, &to, n])?;
    }
    Ok((out, Errors { card, errors, weight }))
}

impl Layout {
    /// The contribution from all transferred numbers, in order.
    fn contribution(&self, mut numbers: Vec<f32>) -> std::result::Result<Contribution<f32>, HeadError> {
        let &Self { samples, classes, width, dense } = self;
        let rest = numbers.split_off(self.gradient());
        let (bias_gradient, rest) = rest.split_at(classes);
        let (mean_features, scores) = rest.split_at(width);
        let scored = || scores.chunks_exact(2);
        let (mut loss, mut correct) = (0.0, 0);
        for (row, score) in scored().enumerate() {
            if !score[0].is_finite() {
                return Err(HeadError::Logits { row });
            }
            loss += f64::from(score[0]) / samples as f64;
            correct += u32::from(score[1] > 0.0);
        }
        let matrix = |rows, columns, numbers| Numbers::from_vec(rows, columns, numbers).expect("as many as there are");
        let gradient = if dense {
            HeadGradient::Dense(matrix(classes, width, numbers))
        } else {
            let features = matrix(samples, width, numbers.split_off(samples * classes));
            HeadGradient::Factors { errors: matrix(samples, classes, numbers), features }
        };
        let (bias_gradient, mean_features) = (bias_gradient.to_vec(), mean_features.to_vec());
        Ok(Contribution { gradient, bias_gradient, mean_features, loss, correct, samples: samples as u32 })
    }
}

impl Errors {
    /// dH = D W (B, s), on the GPU.
    ///
    /// # Errors
    /// If the GPU fails.
    pub(crate) fn feature_gradient(&self) -> Result<Tensor> {
        let Self { card, errors, weight } = self;
        let ((samples, classes), width) = (errors.dims2()?, weight.dim(1)?);
        let out = card.empty((samples, width))?;
        let (d, w) = (Matrix::of(card, errors, classes)?, Matrix::of(card, weight, width)?);
        multiply(card, (samples, width, classes), d, w, Matrix::of(card, &out, width)?, false)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
