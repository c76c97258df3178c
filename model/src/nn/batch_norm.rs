//! Batch normalisation (Ioffe & Szegedy 2015) with channels last, and the residual and ReLU that follow it.

use candle_core::{Result, Tensor};

use super::activation::{Activation, at_least, through};
use super::buffer::unwritten;
use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::parallel::{each_chunk, sum_of_groups};
use super::value::Value;
use super::vector::vectorised;

const NAME: &str = "batch_norm";

/// Added to variances (PyTorch's default).
const EPSILON: f64 = 1e-5;

/// The number of rows per group, whose sums are then added up. Bits depend on it.
const ROWS_PER_GROUP: usize = 1024;

/// Mean and variance of each channel, by which a batch normalisation standardises.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChannelStatistics {
    /// C means.
    pub(crate) mean: Vec<f64>,
    /// C variances, divided by n (not n − 1).
    pub(crate) variance: Vec<f64>,
    /// How many numbers each covers.
    pub(crate) count: usize,
    /// The statistics on the GPU, if they were computed there and not copied yet. Means and variances are then empty.
    #[cfg(feature = "cuda")]
    pub(crate) device: Option<super::cuda::batch_norm::DeviceStatistics>,
}

impl ChannelStatistics {
    /// Statistics with these values.
    pub(crate) fn known(mean: Vec<f64>, variance: Vec<f64>, count: usize) -> Self {
        Self {
            mean,
            variance,
            count,
            #[cfg(feature = "cuda")]
            device: None,
        }
    }

    /// The statistics over all but the last dimension of a tensor (…, C), accumulated in f64 in a fixed order.
    pub(crate) fn of(input: &Tensor) -> Result<Self> {
        on_cuda!(input, batch_norm::statistics(input));
        let channels = input.dims().last().copied().unwrap_or(1);
        let count = input.elem_count() / channels;
        let moments = by_number!(input.dtype(), NAME, moments(input, channels))?;
        let (sums, squares) = moments.split_at(channels);
        let mean: Vec<f64> = sums.iter().map(|s| s / count as f64).collect();
        let variance = squares.iter().zip(&mean).map(|(q, m)| (q / count as f64 - m * m).max(0.0)).collect();
        Ok(Self::known(mean, variance, count))
    }
}

/// C sums, then C sums of squares.
fn moments<T: Number>(input: &Tensor, channels: usize) -> Result<Vec<f64>> {
    let reading = Reading::of(input);
    let all = reading.values::<T>(NAME)?;
    Ok(grouped(all.len(), channels, |range, sums| {
        let (sums, squares) = sums.split_at_mut(channels);
        for row in all[range].chunks_exact(channels) {
            for ((sum, square), x) in sums.iter_mut().zip(squares.iter_mut()).zip(row) {
                let x = x.to_f64();
                *sum += x;
                *square += x * x;
            }
        }
    }))
}

/// Two sums per channel over rows of `channels` numbers, group by group.
fn grouped(
    length: usize,
    channels: usize,
    work: impl Fn(std::ops::Range<usize>, &mut [f64]) + Sync + Send,
) -> Vec<f64> {
    let group = ROWS_PER_GROUP * channels;
    sum_of_groups(length.div_ceil(group), 2 * channels, |number, sums| {
        vectorised(
            #[inline(always)]
            || work(number * group..length.min((number + 1) * group), sums),
        );
    })
}

/// The origin of statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From the input itself. The gradient flows through them.
    Batch,
    /// From earlier batches.
    Running,
}

/// `y = activation((x − mean) / √(variance + ε) · scale + shift + residual)`.
///
/// `input`, `residual` and the result are (…, C), `scale` and `shift` (C). With [`Origin::Batch`] the statistics are
/// those of `input` itself, and the gradient flows through them. Otherwise they are constants.
///
/// # Errors
/// If the shapes do not fit.
pub(crate) fn batch_norm(
    input: &Value,
    (scale, shift): (&Value, &Value),
    (statistics, origin): (&ChannelStatistics, Origin),
    residual: Option<&Value>,
    activation: Activation,
) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let channels = x.dims().last().copied().unwrap_or(0);
    let fits = |value: &Value| value.tensor().dims() == [channels];
    if !fits(scale) || !fits(shift) || residual.is_some_and(|r| r.tensor().dims() != x.dims()) {
        candle_core::bail!("{NAME}: {:?} with scale {:?} and shift {:?}", x.dims(), scale.tensor(), shift.tensor());
    }
    on_cuda!(x, batch_norm::batch_norm(input, (scale, shift), (statistics, origin), residual, activation));
    if statistics.mean.len() != channels || statistics.variance.len() != channels {
        candle_core::bail!("{NAME}: statistics of {} channels for {channels}", statistics.mean.len());
    }
    let operator = BatchNorm::new(statistics, origin, activation, scale.tensor(), shift.tensor())?;
    let residual_tensor = residual.map(|r| r.tensor().contiguous()).transpose()?;
    let y = by_number!(x.dtype(), NAME, operator.forward(&x, residual_tensor.as_ref()))?;
    let wanted = [input.wanted(), scale.wanted(), shift.wanted(), residual.is_some_and(Value::wanted)];
    let Some(residual) = residual else {
        return Ok(Value::of(y, [input, scale, shift], move |g| {
            let [x, scale, shift, _] = by_number!(x.dtype(), NAME, operator.gradients(&x, None, g, wanted))?;
            Ok([x, scale, shift])
        }));
    };
    let output = y.clone();
    Ok(Value::of(output, [input, scale, shift, residual], move |g| {
        by_number!(x.dtype(), NAME, operator.gradients(&x, Some(&y), g, wanted))
    }))
}

/// The operator's coefficients in f64, which each pass converts to the tensors' type.
struct BatchNorm {
    mean: Vec<f64>,
    /// 1 / √(variance + ε)
    inverse: Vec<f64>,
    /// scale / √(variance + ε)
    factor: Vec<f64>,
    /// shift − mean · factor
    offset: Vec<f64>,
    origin: Origin,
    activation: Activation,
}

impl BatchNorm {
    fn new(
        statistics: &ChannelStatistics,
        origin: Origin,
        activation: Activation,
        scale: &Tensor,
        shift: &Tensor,
    ) -> Result<Self> {
        let wide = |tensor: &Tensor| tensor.to_dtype(candle_core::DType::F64)?.to_vec1::<f64>();
        let mean = statistics.mean.clone();
        let inverse: Vec<f64> = statistics.variance.iter().map(|v| 1.0 / (v + EPSILON).sqrt()).collect();
        let factor: Vec<f64> = wide(scale)?.iter().zip(&inverse).map(|(s, i)| s * i).collect();
        let offset = wide(shift)?.iter().zip(mean.iter().zip(&factor)).map(|(s, (m, f))| s - m * f).collect();
        Ok(Self { mean, inverse, factor, offset, origin, activation })
    }

    fn channels(&self) -> usize {
        self.mean.len()
    }

    /// The threshold that a result must exceed to pass.
    fn floor<T: Number>(&self) -> T {
        match self.activation {
            Activation::Relu => T::ZERO,
            Activation::Identity => T::NEGATIVE_INFINITY,
        }
    }

    fn forward<T: Number>(&self, input: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let (x, added) = (Reading::of(input), residual.map(Reading::of));
        let (x, added) = (x.values::<T>(NAME)?, added.as_ref().map(|r| r.values::<T>(NAME)).transpose()?);
        let (factor, offset) = (narrow::<T>(&self.factor), narrow::<T>(&self.offset));
        let (channels, floor) = (self.channels(), self.floor::<T>());
        let length = ROWS_PER_GROUP * channels;
        let mut out = unwritten(x.len());
        each_chunk(
            &mut out,
            length,
            || (),
            |(), number, out| {
                let at = number * length;
                let rows = out.chunks_exact_mut(channels).zip(x[at..].chunks_exact(channels));
                vectorised(
                    #[inline(always)]
                    || match added {
                        None => {
                            for (y, x) in rows {
                                for c in 0..channels {
                                    y[c] = at_least(floor, x[c] * factor[c] + offset[c]);
                                }
                            }
                        }
                        Some(added) => {
                            for ((y, x), added) in rows.zip(added[at..].chunks_exact(channels)) {
                                for c in 0..channels {
                                    y[c] = at_least(floor, x[c] * factor[c] + offset[c] + added[c]);
                                }
                            }
                        }
                    },
                );
            },
        );
        tensor(out, input.shape(), input)
    }

    /// The gradients of input, scale, shift and, if there is one, residual. With g the gradient through the activation
    /// and x̂ the normalised input: `dx = factor · (g − mean(g) − x̂ · mean(g·x̂))`, without the means if the
    /// statistics are constants. Only wanted gradients are computed.
    fn gradients<T: Number>(
        &self,
        input: &Tensor,
        residual_output: Option<&Tensor>,
        gradient: &Tensor,
        wanted: [bool; 4],
    ) -> Result<[Option<Tensor>; 4]> {
        let (passed, gated) = match (self.activation, residual_output) {
            (Activation::Identity, _) => (gradient.clone(), false),
            (Activation::Relu, None) => (gradient.clone(), true),
            (Activation::Relu, Some(output)) => (through::<T>(output, gradient)?, false),
        };
        let for_residual = wanted[3].then(|| passed.clone());
        if !wanted[..3].contains(&true) {
            return Ok([None, None, None, for_residual]);
        }
        let (x, g) = (Reading::of(input), Reading::of(&passed));
        let (x, g) = (x.values::<T>(NAME)?, g.values::<T>(NAME)?);
        let (sums, for_input) = if gated {
            let (factor, offset) = (narrow::<T>(&self.factor), narrow::<T>(&self.offset));
            self.behind(&Gate::<T, true> { factor: &factor, offset: &offset }, x, g, wanted[0])
        } else {
            self.behind(&Gate::OPEN, x, g, wanted[0])
        };
        let vector = |sums: &[f64]| Tensor::from_slice(sums, sums.len(), input.device())?.to_dtype(input.dtype());
        let (for_shift, for_scale) = sums.split_at(self.channels());
        let for_input = for_input.map(|values| tensor(values, input.shape(), input)).transpose()?;
        let for_scale = wanted[1].then(|| vector(for_scale)).transpose()?;
        let for_shift = wanted[2].then(|| vector(for_shift)).transpose()?;
        Ok([for_input, for_scale, for_shift, for_residual])
    }

    /// The sums, and the gradient of the input if it is wanted.
    fn behind<T: Number, const GATED: bool>(
        &self,
        gate: &Gate<'_, T, GATED>,
        x: &[T],
        g: &[T],
        input_wanted: bool,
    ) -> (Vec<f64>, Option<Vec<T>>) {
        let sums = self.sums(x, g, gate);
        let for_input = input_wanted.then(|| self.input_gradient(x, g, &sums, gate));
        (sums, for_input)
    }

    /// Σ g, then Σ g·x̂, of each channel.
    fn sums<T: Number, const GATED: bool>(&self, x: &[T], g: &[T], gate: &Gate<'_, T, GATED>) -> Vec<f64> {
        let channels = self.channels();
        let (mean, inverse) = (narrow::<T>(&self.mean), narrow::<T>(&self.inverse));
        grouped(x.len(), channels, |range, sums| {
            let (sums, products) = sums.split_at_mut(channels);
            for (x, g) in x[range.clone()].chunks_exact(channels).zip(g[range].chunks_exact(channels)) {
                for c in 0..channels {
                    let g = gate.through(c, x[c], g[c]);
                    sums[c] += g.to_f64();
                    products[c] += (g * (x[c] - mean[c]) * inverse[c]).to_f64();
                }
            }
        })
    }

    fn input_gradient<T: Number, const GATED: bool>(
        &self,
        x: &[T],
        g: &[T],
        sums: &[f64],
        gate: &Gate<'_, T, GATED>,
    ) -> Vec<T> {
        let channels = self.channels();
        // dx = factor · g + slope · x + level, the two means and x̂ multiplied out.
        let count = (x.len() / channels) as f64;
        let (mut slope, mut level) = (vec![0.0; channels], vec![0.0; channels]);
        if self.origin == Origin::Batch {
            for c in 0..channels {
                slope[c] = -self.factor[c] * self.inverse[c] * sums[channels + c] / count;
                level[c] = -self.factor[c] * sums[c] / count - slope[c] * self.mean[c];
            }
        }
        let (factor, slope, level) = (narrow::<T>(&self.factor), narrow::<T>(&slope), narrow::<T>(&level));
        let mut out = unwritten(x.len());
        let length = ROWS_PER_GROUP * channels;
        each_chunk(
            &mut out,
            length,
            || (),
            |(), number, out| {
                let rows = x[number * length..].chunks_exact(channels).zip(g[number * length..].chunks_exact(channels));
                vectorised(
                    #[inline(always)]
                    || {
                        for (out, (x, g)) in out.chunks_exact_mut(channels).zip(rows) {
                            for c in 0..channels {
                                let g = gate.through(c, x[c], g[c]);
                                out[c] = factor[c] * g + (slope[c] * x[c] + level[c]);
                            }
                        }
                    },
                );
            },
        );
        out
    }
}

/// The gradient through ReLU. It recomputes the sign from the input, because reading the output would cost more.
/// Without `GATED` everything passes.
struct Gate<'a, T, const GATED: bool> {
    factor: &'a [T],
    offset: &'a [T],
}

impl<T> Gate<'_, T, false> {
    const OPEN: Self = Self { factor: &[], offset: &[] };
}

impl<T: Number, const GATED: bool> Gate<'_, T, GATED> {
    #[inline(always)]
    fn through(&self, channel: usize, x: T, gradient: T) -> T {
        // Exactly as in the forward pass, so that no sign differs.
        let passed = !GATED || x * self.factor[channel] + self.offset[channel] > T::ZERO;
        if passed { gradient } else { T::ZERO }
    }
}

fn narrow<T: Number>(values: &[f64]) -> Vec<T> {
    values.iter().map(|value| T::from_f64(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    /// The same operator, composed of candle's operators.
    fn composed(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        let mean = x.mean_keepdim((0, 1, 2))?;
        let centred = x.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim((0, 1, 2))?;
        let normal = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
        normal.broadcast_mul(scale)?.broadcast_add(shift)
    }

    fn inputs(shape: (usize, usize, usize, usize)) -> [Tensor; 4] {
        [noise(shape, 1), noise(shape.3, 2), noise(shape.3, 3), noise(shape, 4)]
    }

    /// Normalises by the batch's own statistics.
    fn normed(v: &[Value], residual: bool, activation: Activation) -> Result<Value> {
        let statistics = ChannelStatistics::of(v[0].tensor())?;
        batch_norm(&v[0], (&v[1], &v[2]), (&statistics, Origin::Batch), v.get(3).filter(|_| residual), activation)
    }

    #[test]
    fn it_is_the_composition_of_its_parts() {
        let [x, scale, shift, residual] = inputs((3, 7, 6, 4));
        let plain = composed(&x, &scale, &shift).expect("composed");
        let added = (&plain + &residual).expect("a sum");
        let values = [x, scale, shift, residual].map(Value::constant);
        let ours = |residual, activation| normed(&values, residual, activation).expect("ours").tensor().clone();
        assert_close(&ours(false, Activation::Identity), &plain, 1e-12);
        assert_close(&ours(false, Activation::Relu), &plain.relu().expect("relu"), 1e-12);
        assert_close(&ours(true, Activation::Relu), &added.relu().expect("relu"), 1e-12);
    }

    #[test]
    fn its_gradients_go_through_the_statistics_of_the_batch() {
        let all = inputs((2, 3, 2, 3));
        check_gradients(&all, |v| normed(v, true, Activation::Relu));
        check_gradients(&all[..3], |v| normed(v, false, Activation::Relu));
        check_gradients(&all[..3], |v| normed(v, false, Activation::Identity));
    }

    #[test]
    fn running_statistics_are_constants() {
        let statistics = ChannelStatistics::known(vec![0.1, -0.2], vec![0.5, 1.5], 1);
        check_gradients(&inputs((2, 5, 5, 2))[..3], |v| {
            batch_norm(&v[0], (&v[1], &v[2]), (&statistics, Origin::Running), None, Activation::Relu)
        });
    }

    #[test]
    fn statistics_are_those_of_two_passes() {
        let x = (noise((4, 5, 70, 3), 8) + 2.0).expect("shifted");
        let statistics = ChannelStatistics::of(&x).expect("statistics");
        let mean = x.mean_keepdim((0, 1, 2)).expect("mean");
        let variance = x.broadcast_sub(&mean).and_then(|c| c.sqr()?.mean((0, 1, 2))).expect("variance");
        let vector = |v: &[f64]| Tensor::new(v, x.device()).expect("a vector");
        assert_close(&vector(&statistics.mean), &mean.flatten_all().expect("flat"), 1e-13);
        assert_close(&vector(&statistics.variance), &variance, 1e-12);
        assert_eq!(statistics.count, 4 * 5 * 70);
    }
}
