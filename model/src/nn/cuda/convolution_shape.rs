//! The sizes of a convolution, for our own kernels and for cuDNN.

use candle_core::{Result, Tensor};

use super::launch::Card;

/// A convolution on a GPU: sizes of its input, its kernel and its output.
pub(super) struct Convolution {
    pub(super) card: Card,
    pub(super) samples: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    pub(super) tall: usize,
    pub(super) wide: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) down: usize,
    pub(super) across: usize,
}

impl Convolution {
    /// The sizes for an input (N, H, W, C) and a kernel (O, C, U, V).
    pub(super) fn of(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Self> {
        let ((samples, height, width, channels), (outputs, _, tall, wide)) = (x.dims4()?, w.dims4()?);
        let positions = |length: usize, taps: usize| (length + 2 * padding - taps) / stride + 1;
        let (down, across, card) = (positions(height, tall), positions(width, wide), Card::of(x)?);
        Ok(Self { card, samples, height, width, channels, outputs, tall, wide, stride, padding, down, across })
    }
}
