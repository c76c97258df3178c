//! Optimizer steps, in place and in one pass over parameter, moments and gradient.

use std::cell::Cell;
use std::marker::PhantomData;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, values_mut};
use super::vector::vectorised;

const NAME: &str = "optimizer";

/// Numbers that a thread processes at a time. The bits of [`sum_of_squares`] depend on it.
const BLOCK: usize = 1 << 14;

/// A parameter, its moments and its gradient: contiguous, with the same shape, type and device.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) parameter: &'a Tensor,
    /// SGD: v. AdamW: m.
    pub(crate) first: &'a Tensor,
    /// AdamW: v.
    pub(crate) second: Option<&'a Tensor>,
    pub(crate) gradient: Tensor,
    /// SGD: lr. AdamW: `lr / (1 − β₁ᵗ)`.
    pub(crate) rate: f64,
    /// SGD: λ. AdamW: `1 − lr λ`.
    pub(crate) decay: f64,
}

impl Change<'_> {
    fn check(&self) -> Result<()> {
        let both = [Some(self.first), self.second].into_iter().flatten();
        same_size(&both.chain([self.parameter, &self.gradient]).collect::<Vec<_>>())
    }
}

/// For each change: `v ← μ v + (share · g + λ p); p ← p − lr v`
///
/// # Errors
/// If the tensors of a change have different sizes.
pub(crate) fn sgd(changes: &[Change<'_>], share: f64, momentum: f64) -> Result<()> {
    fn run<T: Number>([p, v, g]: [&Tensor; 3], numbers: [f64; 4]) -> Result<()> {
        let [share, momentum, decay, lr] = numbers.map(T::from_f64);
        let g = Reading::of(g);
        let g = g.values::<T>(NAME)?;
        in_place(p, |p: &mut [T]| {
            in_place(v, |v: &mut [T]| {
                let blocks = p.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK)).zip(g.par_chunks(BLOCK));
                blocks.for_each(|((p, v), g)| {
                    vectorised(
                        #[inline(always)]
                        || {
                            for ((p, v), g) in p.iter_mut().zip(v).zip(g) {
                                *v = momentum * *v + (share * *g + decay * *p);
                                *p -= lr * *v;
                            }
                        },
                    );
                });
            })
        })?
    }
    changes.iter().try_for_each(Change::check)?;
    let Some(one) = changes.first() else { return Ok(()) };
    on_cuda!(one.parameter, optimizer::sgd(changes, share, momentum));
    for Change { parameter, first, gradient, rate, decay, .. } in changes {
        let numbers = [share, momentum, *decay, *rate];
        by_number!(parameter.dtype(), NAME, run([parameter, first, gradient], numbers))?;
    }
    Ok(())
}

/// The coefficients of an AdamW step that all changes share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adam {
    pub(crate) share: f64,
    pub(crate) betas: [f64; 2],
    /// `√(1 − β₂ᵗ)`
    pub(crate) correction: f64,
    pub(crate) epsilon: f64,
}

/// For each change: `m ← β₁ m + (1 − β₁) g; v ← β₂ v + (1 − β₂) g²; p ← decay · p − rate · m / (√v / correction + ε)`,
/// of `share · g`.
///
/// # Errors
/// As [`sgd`], and if a change has no second moment.
pub(crate) fn adamw(changes: &[Change<'_>], adam: Adam) -> Result<()> {
    fn run<T: Number>([p, m, v, g]: [&Tensor; 4], adam: Adam, rates: [f64; 2]) -> Result<()> {
        let Adam { share, betas: [beta1, beta2], .. } = adam;
        let [share, old1, new1, old2, new2] = [share, beta1, 1.0 - beta1, beta2, 1.0 - beta2].map(T::from_f64);
        let [decay, rate, correction, epsilon] = [rates[0], rates[1], adam.correction, adam.epsilon].map(T::from_f64);
        let g = Reading::of(g);
        let g = g.values::<T>(NAME)?;
        in_place(p, |p: &mut [T]| {
            in_place(m, |m: &mut [T]| {
                in_place(v, |v: &mut [T]| {
                    let parameters = p.par_chunks_mut(BLOCK).zip(g.par_chunks(BLOCK));
                    let moments = m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK));
                    parameters.zip(moments).for_each(|((p, g), (m, v))| {
                        vectorised(
                            #[inline(always)]
                            || {
                                for ((p, g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
                                    // Clipped before squaring, because the square of a large gradient may overflow.
                                    let g = share * *g;
                                    *m = old1 * *m + new1 * g;
                                    *v = old2 * *v + new2 * g * g;
                                    *p = decay * *p - rate * *m / (v.square_root() / correction + epsilon);
                                }
                            },
                        );
                    });
                })
            })?
        })?
    }
    changes.iter().try_for_each(Change::check)?;
    let Some(one) = changes.first() else { return Ok(()) };
    on_cuda!(one.parameter, optimizer::adamw(changes, adam));
    for Change { parameter, first, second, gradient, rate, decay } in changes {
        let Some(second) = second else { candle_core::bail!("{NAME}: AdamW without a second moment") };
        by_number!(parameter.dtype(), NAME, run([parameter, first, second, gradient], adam, [*decay, *rate]))?;
    }
    Ok(())
}

/// `to ← from`
///
/// # Errors
/// As [`sgd`].
pub(crate) fn copy(from: &Tensor, to: &Tensor) -> Result<()> {
    fn run<T: Number>(from: &Tensor, to: &Tensor) -> Result<()> {
        let from = Reading::of(from);
        let from = from.values::<T>(NAME)?;
        in_place(to, |to: &mut [T]| to.copy_from_slice(from))
    }
    same_size(&[from, to])?;
    on_cuda!(to, optimizer::copy(from, to));
    by_number!(to.dtype(), NAME, run(from, to))
}

/// The sum of squares of each tensor, in f64 and in a fixed order.
///
/// # Errors
/// As [`sgd`].
pub(crate) fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    on_cuda!(first, optimizer::sums_of_squares(tensors));
    tensors.iter().map(|tensor| by_number!(tensor.dtype(), NAME, sum_of_squares(&tensor.contiguous()?))).collect()
}

fn sum_of_squares<T: Number>(tensor: &Tensor) -> Result<f64> {
    let reading = Reading::of(tensor);
    let of_block = |block: &[T]| {
        vectorised(
            #[inline(always)]
            || {
                // Eight lanes that are added up at the end: an order that suits vector units.
                let mut lanes = [0.0; 8];
                for eight in block.chunks(8) {
                    for (lane, value) in lanes.iter_mut().zip(eight) {
                        *lane += value.to_f64() * value.to_f64();
                    }
                }
                lanes.iter().sum::<f64>()
            },
        )
    };
    let blocks: Vec<f64> = reading.values::<T>(NAME)?.par_chunks(BLOCK).map(of_block).collect();
    Ok(blocks.into_iter().sum())
}

fn same_size(tensors: &[&Tensor]) -> Result<()> {
    if tensors.iter().any(|tensor| tensor.dims() != tensors[0].dims() || tensor.dtype() != tensors[0].dtype()) {
        candle_core::bail!("{NAME}: tensors of different shapes: {tensors:?}");
    }
    Ok(())
}

/// Gives the numbers of a contiguous tensor in main memory to `work`, which changes them in place.
fn in_place<T: Number, R>(tensor: &Tensor, work: impl FnOnce(&mut [T]) -> R) -> Result<R> {
    // candle gives write access to a tensor's storage only to operators. This operator runs once.
    struct Once<T, W, R> {
        work: Cell<Option<W>>,
        result: Cell<Option<R>>,
        numbers: PhantomData<T>,
    }
    impl<T: Number, R, W: FnOnce(&mut [T]) -> R> InplaceOp1 for Once<T, W, R> {
        fn name(&self) -> &'static str {
            NAME
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
            let values = values_mut::<T>(storage, layout, NAME)?;
            self.result.set(self.work.take().map(|work| work(values)));
            Ok(())
        }
    }
    let once = Once { work: Cell::new(Some(work)), result: Cell::new(None), numbers: PhantomData::<T> };
    tensor.inplace_op1(&once)?;
    once.result.take().ok_or_else(|| candle_core::Error::Msg(format!("{NAME}: candle ran no operator")))
}
