//! Batch normalisation, ReLU (or not) and max pooling in one pass over memory.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::linear::Activation;
use super::number::{Number, Reading, by_number, dtype, values};
use super::parallel::{each_chunk, each_chunk_sum, sum_of_groups};

const NAME: &str = "norm_relu_pool";

/// Added to variances (Ioffe & Szegedy 2015; PyTorch's default).
const EPSILON: f64 = 1e-5;

/// Mean and variance of each channel: what a batch normalisation subtracts and divides by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChannelStatistics {
    /// C means.
    pub(crate) mean: Vec<f64>,
    /// C variances, divided by n (not n − 1).
    pub(crate) variance: Vec<f64>,
    /// How many numbers each was taken over.
    pub(crate) count: usize,
}

impl ChannelStatistics {
    /// Over samples, rows and columns of a (B, C, H, W) tensor, accumulated in f64 in a fixed order.
    pub(crate) fn of(input: &Tensor) -> Result<Self> {
        let (samples, channels, height, width) = input.dims4()?;
        let moments = by_number!(input.dtype(), NAME, moments(input, channels, height * width))?;
        let count = samples * height * width;
        let (sums, squares) = moments.split_at(channels);
        let mean: Vec<f64> = sums.iter().map(|s| s / count as f64).collect();
        let variance = squares.iter().zip(&mean).map(|(q, m)| (q / count as f64 - m * m).max(0.0)).collect();
        Ok(Self { mean, variance, count })
    }
}

/// C sums, then C sums of squares.
fn moments<T: Number>(input: &Tensor, channels: usize, plane: usize) -> Result<Vec<f64>> {
    let reading = Reading::of(input);
    let all = reading.values::<T>(NAME)?;
    Ok(sum_of_groups(all.len() / (channels * plane), 2 * channels, |sample, sums| {
        let planes = all[sample * channels * plane..][..channels * plane].chunks_exact(plane);
        for (channel, plane) in planes.enumerate() {
            (sums[channel], sums[channels + channel]) = plane_moments(plane);
        }
    }))
}

/// Sum and sum of squares, in eight lanes so that the processor may take them at once.
fn plane_moments<T: Number>(plane: &[T]) -> (f64, f64) {
    let (mut sums, mut squares) = ([0.0f64; 8], [0.0f64; 8]);
    for eight in plane.chunks(8) {
        for (lane, value) in eight.iter().enumerate() {
            let value = value.to_f64();
            sums[lane] += value;
            squares[lane] += value * value;
        }
    }
    (sums.iter().sum(), squares.iter().sum())
}

/// `y = max over P × P windows of activation((x − mean) / √(variance + ε) · scale + shift)`, windows not overlapping, rows and
/// columns that do not fill a window left out.
///
/// `input` is (B, C, H, W), `scale` and `shift` (C), the result (B, C, ⌊H/P⌋, ⌊W/P⌋). With [`Origin::Batch`] the statistics are
/// those of `input` itself and the gradient goes through them; else they are constants.
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn norm_relu_pool<const P: usize>(
    input: &Tensor,
    (scale, shift): (&Tensor, &Tensor),
    (statistics, origin): (&ChannelStatistics, Origin),
    activation: Activation,
) -> Result<Tensor> {
    let (_, channels, height, width) = input.dims4()?;
    if scale.dims1()? != channels || shift.dims1()? != channels || height < P || width < P {
        candle_core::bail!("{NAME}: {:?} with scale {:?} and shift {:?}", input.dims(), scale.dims(), shift.dims());
    }
    let inverse = statistics.variance.iter().map(|v| 1.0 / (v + EPSILON).sqrt()).collect();
    let operator = NormReluPool::<P> { mean: statistics.mean.clone(), inverse, origin, activation, height, width };
    input.contiguous()?.apply_op3(scale, shift, operator)
}

/// Where statistics come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From the input itself: the gradient goes through them.
    Batch,
    /// From earlier batches.
    Running,
}

struct NormReluPool<const P: usize> {
    mean: Vec<f64>,
    /// 1 / √(variance + ε)
    inverse: Vec<f64>,
    origin: Origin,
    activation: Activation,
    height: usize,
    width: usize,
}

/// One channel's `x · factor + offset`, and what is needed to get back.
struct Affine<T> {
    factor: T,
    offset: T,
    mean: T,
    inverse: T,
}

impl<const P: usize> NormReluPool<P> {
    fn channels(&self) -> usize {
        self.mean.len()
    }

    fn plane(&self) -> usize {
        self.height * self.width
    }

    fn pooled(&self) -> usize {
        (self.height / P) * (self.width / P)
    }

    /// What the largest value of a window must exceed to come through.
    fn floor<T: Number>(&self) -> T {
        match self.activation {
            Activation::Relu => T::ZERO,
            Activation::Identity => T::NEGATIVE_INFINITY,
        }
    }

    fn affine<T: Number>(&self, channel: usize, scale: &[T], shift: &[T]) -> Affine<T> {
        let (mean, inverse) = (self.mean[channel], self.inverse[channel]);
        let factor = scale[channel].to_f64() * inverse;
        let offset = shift[channel].to_f64() - mean * factor;
        let number = T::from_f64;
        Affine { factor: number(factor), offset: number(offset), mean: number(mean), inverse: number(inverse) }
    }

    fn forward<T: Number>(&self, input: &[T], scale: &[T], shift: &[T]) -> Vec<T> {
        let samples = input.len() / (self.channels() * self.plane());
        let mut out = vec![T::ZERO; samples * self.channels() * self.pooled()];
        each_chunk(
            &mut out,
            self.channels() * self.pooled(),
            || (),
            |(), sample, out| {
                let input = &input[sample * self.channels() * self.plane()..];
                for (channel, out) in out.chunks_exact_mut(self.pooled()).enumerate() {
                    let affine = self.affine(channel, scale, shift);
                    self.pool_plane(&input[channel * self.plane()..][..self.plane()], &affine, out);
                }
            },
        );
        out
    }

    fn pool_plane<T: Number>(&self, plane: &[T], affine: &Affine<T>, out: &mut [T]) {
        let wide = self.width / P;
        for (i, out) in out.chunks_exact_mut(wide).enumerate() {
            out.fill(self.floor());
            for u in 0..P {
                let row = &plane[(i * P + u) * self.width..][..wide * P];
                for (out, window) in out.iter_mut().zip(row.chunks_exact(P)) {
                    for x in window {
                        let z = *x * affine.factor + affine.offset;
                        *out = if z > *out { z } else { *out };
                    }
                }
            }
        }
    }

    /// Puts each window's gradient at its first largest value, if that came through; returns Σ g and Σ g·x̂ of the plane.
    fn unpool_plane<T: Number>(&self, plane: &[T], affine: &Affine<T>, gradient: &[T], into: &mut [T]) -> (f64, f64) {
        let wide = self.width / P;
        let (mut sum, mut product) = (0.0, 0.0);
        for (i, gradient) in gradient.chunks_exact(wide).enumerate() {
            for (j, g) in gradient.iter().enumerate() {
                let (mut best, mut place) = (self.floor(), None);
                for u in 0..P {
                    let start = (i * P + u) * self.width + j * P;
                    for (v, x) in plane[start..start + P].iter().enumerate() {
                        let z = *x * affine.factor + affine.offset;
                        if z > best {
                            (best, place) = (z, Some(start + v));
                        }
                    }
                }
                if let Some(place) = place {
                    into[place] = *g;
                    sum += g.to_f64();
                    product += (*g * (plane[place] - affine.mean) * affine.inverse).to_f64();
                }
            }
        }
        (sum, product)
    }

    /// The gradient before normalisation, and Σ g then Σ g·x̂ of each channel.
    fn unpool<T: Number>(&self, input: &[T], scale: &[T], shift: &[T], gradient: &[T]) -> (Vec<T>, Vec<f64>) {
        let channels = self.channels();
        let length = channels * self.plane();
        let mut out = vec![T::ZERO; input.len()];
        let sums = each_chunk_sum(&mut out, length, 2 * channels, |sample, out, sums| {
            for channel in 0..channels {
                let affine = self.affine(channel, scale, shift);
                let plane = &input[sample * length + channel * self.plane()..][..self.plane()];
                let gradient = &gradient[(sample * channels + channel) * self.pooled()..][..self.pooled()];
                let into = &mut out[channel * self.plane()..][..self.plane()];
                (sums[channel], sums[channels + channel]) = self.unpool_plane(plane, &affine, gradient, into);
            }
        });
        (out, sums)
    }

    /// Turns the gradient before normalisation into that of the input:
    /// `dx = factor · (g − mean(g) − x̂ · mean(g·x̂))`, without the means when the statistics are constants.
    fn denormalise<T: Number>(&self, input: &[T], scale: &[T], shift: &[T], sums: &[f64], gradient: &mut [T]) {
        let channels = self.channels();
        let length = channels * self.plane();
        let count = (input.len() / channels) as f64;
        each_chunk(
            gradient,
            length,
            || (),
            |(), sample, gradient| {
                for (channel, gradient) in gradient.chunks_exact_mut(self.plane()).enumerate() {
                    let affine = self.affine(channel, scale, shift);
                    let (g, gx) = match self.origin {
                        Origin::Batch => {
                            (T::from_f64(sums[channel] / count), T::from_f64(sums[channels + channel] / count))
                        }
                        Origin::Running => (T::ZERO, T::ZERO),
                    };
                    let plane = &input[sample * length + channel * self.plane()..][..self.plane()];
                    for (d, x) in gradient.iter_mut().zip(plane) {
                        *d = affine.factor * (*d - g - (*x - affine.mean) * affine.inverse * gx);
                    }
                }
            },
        );
    }

    fn run<T: Number>(&self, [x, scale, shift]: [(&CpuStorage, &Layout); 3]) -> Result<CpuStorage> {
        let read = |(storage, layout)| values::<T>(storage, layout, NAME);
        Ok(T::to_cpu_storage_owned(self.forward(read(x)?, read(scale)?, read(shift)?)))
    }

    fn gradients<T: Number>(&self, [x, scale, shift, g]: [&Tensor; 4]) -> Result<[Tensor; 3]> {
        let (x_read, scale_read, shift_read, g_read) =
            (Reading::of(x), Reading::of(scale), Reading::of(shift), Reading::of(g));
        let (input, scales, shifts) = (x_read.values::<T>(NAME)?, scale_read.values(NAME)?, shift_read.values(NAME)?);
        let (mut gradient, sums) = self.unpool(input, scales, shifts, g_read.values(NAME)?);
        self.denormalise(input, scales, shifts, &sums, &mut gradient);
        let vector = |sums: &[f64]| Tensor::from_slice(sums, sums.len(), x.device())?.to_dtype(x.dtype());
        let (for_shift, for_scale) = sums.split_at(self.channels());
        Ok([Tensor::from_vec(gradient, x.shape(), x.device())?, vector(for_scale)?, vector(for_shift)?])
    }
}

impl<const P: usize> CustomOp3 for NormReluPool<P> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = by_number!(dtype(s1), NAME, self.run([(s1, l1), (s2, l2), (s3, l3)]))?;
        Ok((out, (l1.dims()[0], self.channels(), self.height / P, self.width / P).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, scale, shift] = by_number!(x.dtype(), NAME, self.gradients([x, scale, shift, &g.contiguous()?]))?;
        Ok((Some(x), Some(scale), Some(shift)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    /// The same from candle's own operators.
    fn composed(x: &Tensor, scale: &Tensor, shift: &Tensor, pool: usize) -> Result<Tensor> {
        let channels = x.dim(1)?;
        let mean = x.mean_keepdim((0, 2, 3))?;
        let centred = x.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim((0, 2, 3))?;
        let normal = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
        let scaled = normal.broadcast_mul(&scale.reshape((1, channels, 1, 1))?)?;
        scaled.broadcast_add(&shift.reshape((1, channels, 1, 1))?)?.relu()?.max_pool2d(pool)
    }

    fn inputs(shape: (usize, usize, usize, usize)) -> [Tensor; 3] {
        [noise(shape, 1), noise(shape.1, 2), noise(shape.1, 3)]
    }

    #[test]
    fn it_is_the_composition_of_its_parts() {
        let [x, scale, shift] = inputs((3, 4, 7, 6));
        let statistics = ChannelStatistics::of(&x).expect("statistics");
        let two =
            norm_relu_pool::<2>(&x, (&scale, &shift), (&statistics, Origin::Batch), Activation::Relu).expect("ours");
        assert_close(&two, &composed(&x, &scale, &shift, 2).expect("composed"), 1e-12);
        let one =
            norm_relu_pool::<1>(&x, (&scale, &shift), (&statistics, Origin::Batch), Activation::Relu).expect("ours");
        assert_close(&one, &composed(&x, &scale, &shift, 1).expect("composed"), 1e-12);
    }

    #[test]
    fn its_gradients_go_through_the_statistics_of_the_batch() {
        check_gradients(&inputs((3, 2, 5, 4)), |v| {
            norm_relu_pool::<2>(
                &v[0],
                (&v[1], &v[2]),
                (&ChannelStatistics::of(&v[0])?, Origin::Batch),
                Activation::Relu,
            )
        });
        check_gradients(&inputs((2, 3, 3, 2)), |v| {
            norm_relu_pool::<1>(
                &v[0],
                (&v[1], &v[2]),
                (&ChannelStatistics::of(&v[0])?, Origin::Batch),
                Activation::Relu,
            )
        });
    }

    #[test]
    fn without_relu_what_is_below_0_comes_through() {
        let [x, scale, shift] = inputs((6, 3, 1, 1));
        let statistics = ChannelStatistics::of(&x).expect("statistics");
        let y = norm_relu_pool::<1>(&x, (&scale, &shift), (&statistics, Origin::Batch), Activation::Identity);
        let y = y.expect("ours").flatten_from(1).expect("flat");
        assert_close(&y.mean(0).expect("means"), &shift, 1e-12);
        check_gradients(&[x, scale, shift], |v| {
            let statistics = ChannelStatistics::of(&v[0])?;
            norm_relu_pool::<1>(&v[0], (&v[1], &v[2]), (&statistics, Origin::Batch), Activation::Identity)
        });
    }

    #[test]
    fn running_statistics_are_constants() {
        let statistics = ChannelStatistics { mean: vec![0.1, -0.2], variance: vec![0.5, 1.5], count: 1 };
        check_gradients(&inputs((2, 2, 5, 5)), |v| {
            norm_relu_pool::<2>(&v[0], (&v[1], &v[2]), (&statistics, Origin::Running), Activation::Relu)
        });
    }

    #[test]
    fn statistics_are_those_of_two_passes() {
        let x = (noise((4, 3, 5, 7), 8) + 2.0).expect("shifted");
        let statistics = ChannelStatistics::of(&x).expect("statistics");
        let mean = x.mean_keepdim((0, 2, 3)).expect("mean");
        let variance = x.broadcast_sub(&mean).and_then(|c| c.sqr()?.mean((0, 2, 3))).expect("variance");
        let vector = |v: &[f64]| Tensor::new(v, x.device()).expect("a vector");
        assert_close(&vector(&statistics.mean), &mean.flatten_all().expect("flat"), 1e-13);
        assert_close(&vector(&statistics.variance), &variance, 1e-12);
        assert_eq!(statistics.count, 4 * 5 * 7);
    }
}
