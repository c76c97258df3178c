//! Optimizer steps and gradient norms, for all parameters together.

use candle_core::{DType, Result, Tensor};

use super::launch::{Card, arguments};
use crate::nn::update::{Adam, Change};

/// Numbers per block. `optimizer.cu` has the same constant. Bits of norms depend on it.
const PER_BLOCK: usize = 4096;

/// The list of tensors for the blocks (`Change` of `optimizer.cu`), and the total number of blocks.
struct Listed {
    changes: Tensor,
    count: usize,
    blocks: usize,
}

impl Listed {
    /// The list for tensors in groups of two to four: parameter, moments, gradient.
    fn of<'a>(
        card: &Card,
        changes: impl Iterator<Item = ([Option<&'a Tensor>; 3], &'a Tensor, [f64; 2])>,
    ) -> Result<Self> {
        let (mut numbers, mut count, mut blocks) = (Vec::new(), 0, 0);
        for (changed, gradient, rates) in changes {
            let address = |tensor: Option<&Tensor>| tensor.map_or(Ok(0), |tensor| card.address(tensor));
            for tensor in changed {
                numbers.push(address(tensor)?);
            }
            let size = gradient.elem_count();
            numbers.extend([
                address(Some(gradient))?,
                size as u64,
                rates[0].to_bits(),
                rates[1].to_bits(),
                blocks as u64,
            ]);
            count += 1;
            blocks += size.div_ceil(PER_BLOCK);
        }
        let changes = card.upload(numbers.into_iter().map(u64::cast_signed).collect())?;
        Ok(Self { changes, count, blocks })
    }

    fn of_changes(card: &Card, changes: &[Change<'_>]) -> Result<Self> {
        Self::of(
            card,
            changes.iter().map(|change| {
                let changed = [Some(change.parameter), Some(change.first), change.second];
                (changed, &change.gradient, [change.rate, change.decay])
            }),
        )
    }
}

/// The sum of squares of each tensor, in double precision, copied to main memory in one transfer.
pub(crate) fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let card = Card::of(first)?;
    let tensors = tensors.iter().map(|tensor| tensor.contiguous()).collect::<Result<Vec<_>>>()?;
    let Listed { changes, count, blocks } =
        Listed::of(&card, tensors.iter().map(|tensor| ([None; 3], tensor, [0.0; 2])))?;
    let (out, partial) = (card.empty_of(DType::F64, count)?, card.empty_of(DType::F64, blocks)?);
    card.blocks("squares", blocks, &arguments![&changes, count, &partial])?;
    card.blocks("squares_total", count, &arguments![&changes, &partial, &out])?;
    out.to_vec1()
}

/// See [`crate::nn::update::sgd`].
pub(crate) fn sgd(changes: &[Change<'_>], share: f64, momentum: f64) -> Result<()> {
    let card = Card::of(changes[0].parameter)?;
    let Listed { changes, count, blocks } = Listed::of_changes(&card, changes)?;
    card.blocks("sgd", blocks, &arguments![&changes, count, share, momentum])
}

/// `to ← from`
pub(crate) fn copy(from: &Tensor, to: &Tensor) -> Result<()> {
    let n = to.elem_count();
    Card::of(to)?.each("copy", n, &arguments![from, to, n])
}

/// See [`crate::nn::update::adamw`].
pub(crate) fn adamw(changes: &[Change<'_>], adam: Adam) -> Result<()> {
    let Adam { share, betas: [beta1, beta2], correction, epsilon } = adam;
    let (new1, new2) = (1.0 - beta1, 1.0 - beta2);
    let card = Card::of(changes[0].parameter)?;
    let Listed { changes, count, blocks } = Listed::of_changes(&card, changes)?;
    card.blocks("adamw", blocks, &arguments![&changes, count, share, beta1, new1, beta2, new2, correction, epsilon])
}
