//! ReLU, which operators apply to their results, and its gradient.

use candle_core::{Result, Tensor};

use super::buffer::unwritten;
use super::number::{Number, Reading, tensor};
use super::parallel::each_chunk;
use super::vector::vectorised;

const NAME: &str = "activation";

/// Numbers that one thread processes at a time. No bit depends on it.
const CHUNK: usize = 1 << 14;

/// The activation after a product or a normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Identity,
    Relu,
}

/// The larger one. NaN if `x` is NaN, so that divergence stays visible.
#[inline(always)]
pub(crate) fn at_least<T: Number>(floor: T, x: T) -> T {
    if x < floor { floor } else { x }
}

/// The gradient through ReLU: zero where `output` is zero.
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
