//! ReLU, as operators apply it to what they computed, and its gradient.

use candle_core::{Result, Tensor};

use super::buffer::unwritten;
use super::number::{Number, Reading, tensor};
use super::parallel::each_chunk;
use super::vector::vectorised;

const NAME: &str = "activation";

/// Numbers that one thread takes at a time. No bit depends on it.
const CHUNK: usize = 1 << 14;

/// What follows a product or a normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Identity,
    Relu,
}

/// The larger one; NaN if `x` is, so that a training that diverged is seen.
#[inline(always)]
pub(crate) fn at_least<T: Number>(floor: T, x: T) -> T {
    if x < floor { floor } else { x }
}

/// The gradient of what came through ReLU: zero where `output` is.
pub(crate) fn through<T: Number>(output: &Tensor, gradient: &Tensor) -> Result<Tensor> {
    let (y, g) = (Reading::of(output), Reading::of(gradient));
    let (y, g) = (y.values::<T>(NAME)?, g.values::<T>(NAME)?);
    let mut out = unwritten(g.len());
    each_chunk(
        &mut out,
        CHUNK,
        || (),
        |(), number, out| {
            let pairs = y[number * CHUNK..].iter().zip(&g[number * CHUNK..]);
            vectorised(
                #[inline(always)]
                || {
                    for (out, (y, g)) in out.iter_mut().zip(pairs) {
                        *out = if *y > T::ZERO { *g } else { T::ZERO };
                    }
                },
            );
        },
    );
    tensor(out, gradient.shape(), gradient)
}
