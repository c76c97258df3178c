//! Two-dimensional convolution as products of patches and kernel, some samples at a time. In bf16, by cuDNN if the
//! build has it.

use candle_core::{DType, Result, Tensor};

use super::convolution_shape::Convolution;
use super::launch::{Card, arguments};
use super::product::{Matrix, multiply};
use crate::nn::value::Value;

/// The largest size of patches in memory at a time, in numbers, unless a single sample has more. Bits depend on it.
const PATCHES: usize = 1 << 26;

/// See [`crate::nn::convolution::convolution`].
pub(crate) fn convolution(input: &Value, kernel: &Value, stride: usize, padding: usize) -> Result<Value> {
    let (x, w) = (input.tensor().contiguous()?, kernel.tensor().contiguous()?);
    let operator = Convolution::of(&x, &w, stride, padding)?;
    let weights = channels_last(&w, operator.card.dtype)?;
    let y = operator.forward(&x, &weights)?;
    let (x, weights) = (kernel.wanted().then_some(x), input.wanted().then_some(weights));
    Ok(Value::of(y, [input, kernel], move |g| {
        let for_input = weights.map(|weights| operator.input_gradient(&weights, g)).transpose()?;
        let for_kernel = x.map(|x| operator.kernel_gradient(&x, g)).transpose()?;
        Ok([for_input, for_kernel])
    }))
}

/// Converts grids or kernels (N, C, H, W), in the type of parameters, to (N, H, W, C), in the type of activations.
pub(crate) fn channels_last(x: &Tensor, flowing: DType) -> Result<Tensor> {
    let card = Card { dtype: flowing, ..Card::of(x)? };
    let (first, channels, height, width) = x.dims4()?;
    let (out, n) = (card.empty((first, height, width, channels))?, x.elem_count());
    card.each("channels_last", n, &arguments![x, channels, height * width, &out, n])?;
    Ok(out)
}

impl Convolution {
    fn area(&self) -> usize {
        self.tall * self.wide
    }

    /// The number of weights of one output.
    fn patch(&self) -> usize {
        self.area() * self.channels
    }

    /// The number of positions of one sample of the output.
    fn positions(&self) -> usize {
        self.down * self.across
    }

    /// Whether the input already is the matrix of patches.
    fn direct(&self) -> bool {
        self.area() == 1 && self.stride == 1 && self.padding == 0
    }

    /// The first sample and the number of samples of each block.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let at_once = (PATCHES / (self.positions() * self.patch()).max(1)).max(1);
        let samples = self.samples;
        (0..samples).step_by(at_once).map(move |first| (first, at_once.min(samples - first)))
    }

    /// Converts the gradient (O, U, V, C) to (O, C, U, V), both in the type of parameters.
    fn channels_first(&self, gradient: &Tensor) -> Result<Tensor> {
        let out = self.card.empty_of(self.card.computed(), (self.outputs, self.channels, self.tall, self.wide))?;
        let n = gradient.elem_count();
        self.card.each("channels_first", n, &arguments![gradient, self.area(), self.channels, &out, n])?;
        Ok(out)
    }

    /// The patches of some samples (n, H, W, C), as rows of (U, V, C).
    fn patches(&self, x: &Tensor) -> Result<Tensor> {
        if self.direct() {
            return Ok(x.clone());
        }
        let out = self.card.empty((x.dim(0)? * self.positions(), self.patch()))?;
        self.lay(x, &out, "patches", out.elem_count() / self.tall)?;
        Ok(out)
    }

    fn lay(&self, from: &Tensor, to: &Tensor, kernel: &'static str, n: usize) -> Result<()> {
        let Self { height, width, channels, tall, wide, stride, padding, down, across, .. } = *self;
        let own = arguments![from, height, width, channels, tall, wide, stride, padding, down, across, to, n];
        self.card.packs(kernel, channels, n, &own)
    }

    fn forward(&self, x: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let (card, outputs, patch) = (&self.card, self.outputs, self.patch());
        let y = card.empty((self.samples, self.down, self.across, outputs))?;
        #[cfg(feature = "cudnn")]
        if super::dnn::forward(self, x, weights, &y)? {
            return Ok(y);
        }
        let w = Matrix::of(card, weights, patch)?.transposed();
        for (first, count) in self.blocks() {
            let patches = self.patches(&x.narrow(0, first, count)?)?;
            let into = Matrix::of(card, &y.narrow(0, first, count)?, outputs)?;
            let size = (count * self.positions(), outputs, patch);
            multiply(card, size, Matrix::of(card, &patches, patch)?, w, into, false)?;
        }
        Ok(y)
    }

    fn input_gradient(&self, weights: &Tensor, g: &Tensor) -> Result<Tensor> {
        let (card, outputs, patch) = (&self.card, self.outputs, self.patch());
        let out = card.empty((self.samples, self.height, self.width, self.channels))?;
        #[cfg(feature = "cudnn")]
        if super::dnn::input_gradient(self, weights, g, &out)? {
            return Ok(out);
        }
        let w = Matrix::of(card, weights, patch)?;
        for (first, count) in self.blocks() {
            let (g, into) = (g.narrow(0, first, count)?, out.narrow(0, first, count)?);
            let size = (count * self.positions(), patch, outputs);
            let patches = if self.direct() { into.clone() } else { card.empty((size.0, patch))? };
            let g = Matrix::of(card, &g, outputs)?;
            multiply(card, size, g, w, Matrix::of(card, &patches, patch)?, false)?;
            if !self.direct() {
                self.lay(&patches, &into, "patches_gradient", into.elem_count())?;
            }
        }
        Ok(out)
    }

    fn kernel_gradient(&self, x: &Tensor, g: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cudnn")]
        if let Some(gradient) = super::dnn::kernel_gradient(self, x, g)? {
            return self.channels_first(&gradient);
        }
        let (card, outputs, patch) = (&self.card, self.outputs, self.patch());
        let out = card.zeros_of(card.computed(), (outputs, patch))?;
        let into = Matrix::of(card, &out, patch)?;
        for (first, count) in self.blocks() {
            let patches = self.patches(&x.narrow(0, first, count)?)?;
            let g = Matrix::of(card, &g.narrow(0, first, count)?, outputs)?.transposed();
            let size = (outputs, patch, count * self.positions());
            multiply(card, size, g, Matrix::of(card, &patches, patch)?, into, first > 0)?;
        }
        self.channels_first(&out)
    }
}
