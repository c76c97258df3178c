//! Two-dimensional convolution over grids with channels last, (B, H, W, C).
//!
//! A patch of such a grid consists of a few runs of memory, one per row of the kernel. So the product of patches and
//! kernel is computed directly from the padded input ([`tile::rows`]), and no patch is copied. The gradient of the
//! input is the same walk over the gradient of the output with a reversed kernel, once for each remainder modulo the
//! stride.

use candle_core::{Result, Tensor};

use super::buffer::unwritten;
use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::parallel::each_chunk;
use super::product::Panels;
use super::tile::PANEL;
use super::value::Value;
use super::walk::{Axis, Walk};

const NAME: &str = "convolution";

/// Outputs whose kernel weights are packed together.
const OUTPUTS_AT_A_TIME: usize = 16;

/// `y[b, i, j, o] = Σ_{u, v, c} x[b, i·stride + u − padding, j·stride + v − padding, c] · w[o, c, u, v]`, zero outside
/// x.
///
/// `input` is (B, H, W, C), `kernel` (O, C, U, V) as in PyTorch, the result (B, ⌊(H + 2·padding − U)/stride⌋ + 1, …,
/// O).
///
/// # Errors
/// If the shapes do not fit, or the kernel is larger than the padded input.
pub(crate) fn convolution(input: &Value, kernel: &Value, stride: usize, padding: usize) -> Result<Value> {
    let (x, w) = (input.tensor().contiguous()?, kernel.tensor().contiguous()?);
    let geometry = Geometry::of(x.dims4()?, w.dims4()?, stride, padding)?;
    on_cuda!(x, convolution::convolution(input, kernel, stride, padding));
    let output = by_number!(x.dtype(), NAME, geometry.forward(&x, &w))?;
    // The first convolution of an encoder reads data, which needs no gradient. A frozen kernel needs none either.
    let (x, w) = (kernel.wanted().then_some(x), input.wanted().then_some(w));
    Ok(Value::of(output, [input, kernel], move |g| {
        let for_input = w.map(|w| by_number!(g.dtype(), NAME, geometry.input_gradient(&w, g))).transpose()?;
        let for_kernel = x.map(|x| by_number!(g.dtype(), NAME, geometry.kernel_gradient(&x, g))).transpose()?;
        Ok([for_input, for_kernel])
    }))
}

#[derive(Debug, Clone, Copy)]
struct Geometry {
    samples: usize,
    channels: usize,
    outputs: usize,
    vertical: Axis,
    horizontal: Axis,
}

type Four = (usize, usize, usize, usize);

impl Geometry {
    fn of((samples, height, width, channels): Four, kernel: Four, stride: usize, padding: usize) -> Result<Self> {
        let (outputs, kernel_channels, tall, wide) = kernel;
        if kernel_channels != channels || tall > height + 2 * padding || wide > width + 2 * padding || stride == 0 {
            candle_core::bail!(
                "a {tall} × {wide} kernel over {kernel_channels} channels does not fit an input of {channels} channels, \
                 {height} × {width}, padding {padding}, stride {stride}"
            );
        }
        let axis = |length, taps| Axis { length, taps, stride, padding };
        Ok(Self { samples, channels, outputs, vertical: axis(height, tall), horizontal: axis(width, wide) })
    }

    /// U · V.
    fn area(&self) -> usize {
        self.vertical.taps * self.horizontal.taps
    }

    /// Weights of one output: C · U · V.
    fn patch(&self) -> usize {
        self.channels * self.area()
    }

    /// Numbers of one sample of the input.
    fn sample(&self) -> usize {
        self.vertical.length * self.horizontal.length * self.channels
    }

    /// Positions of one sample of the output.
    fn positions(&self) -> usize {
        self.vertical.positions() * self.horizontal.positions()
    }

    fn forward<T: Number>(&self, input: &Tensor, kernel: &Tensor) -> Result<Tensor> {
        let (x, w) = (Reading::of(input), Reading::of(kernel));
        let (x, w) = (x.values::<T>(NAME)?, w.values::<T>(NAME)?);
        let (area, patch) = (self.area(), self.patch());
        let panels = Panels::filled(patch, self.outputs, |outputs, panel| {
            for (n, weights) in w[outputs.start * patch..outputs.end * patch].chunks_exact(patch).enumerate() {
                for (channel, weights) in weights.chunks_exact(area).enumerate() {
                    for (tap, weight) in weights.iter().enumerate() {
                        panel[(tap * self.channels + channel) * PANEL + n] = *weight;
                    }
                }
            }
        });
        let walk = Walk::new(self.vertical.forward(), self.horizontal.forward(), self.channels);
        let mut out = unwritten(self.samples * self.positions() * self.outputs);
        let group = walk.samples_per_task(self.samples);
        each_chunk(&mut out, group * self.positions() * self.outputs, Vec::new, |scratch, number, out| {
            let samples = out.len() / (self.positions() * self.outputs);
            let x = &x[number * group * self.sample()..][..samples * self.sample()];
            walk.product(x, &panels, scratch, out);
        });
        tensor(out, (self.samples, self.vertical.positions(), self.horizontal.positions(), self.outputs), input)
    }

    fn input_gradient<T: Number>(&self, kernel: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let (w, g) = (Reading::of(kernel), Reading::of(gradient));
        let (w, g) = (w.values::<T>(NAME)?, g.values::<T>(NAME)?);
        let length = self.samples * self.sample();
        // If the stride exceeds the kernel, no tap reaches some positions.
        let all_met = [self.vertical, self.horizontal].iter().all(|axis| axis.stride <= axis.taps);
        let mut out = if all_met { unwritten(length) } else { vec![T::ZERO; length] };
        for (down, across) in self.vertical.phases().flat_map(|down| self.horizontal.phases().map(move |a| (down, a))) {
            let depth = down.taps() * across.taps() * self.outputs;
            let panels = Panels::filled(depth, self.channels, |channels, panel| {
                let rows = panel.chunks_exact_mut(PANEL).enumerate();
                for (row, into) in rows {
                    let (tap, output) = (row / self.outputs, row % self.outputs);
                    let (u, v) = (down.tap(tap / across.taps()), across.tap(tap % across.taps()));
                    let weights = &w[output * self.patch() + u * self.horizontal.taps + v..];
                    let weights = weights.iter().step_by(self.area()).skip(channels.start).take(channels.len());
                    for (into, weight) in into.iter_mut().zip(weights) {
                        *into = *weight;
                    }
                }
            });
            let walk = Walk::new(down.backward(), across.backward(), self.outputs);
            let group = walk.samples_per_task(self.samples);
            each_chunk(
                &mut out,
                group * self.sample(),
                <(Vec<T>, Vec<T>)>::default,
                |(scratch, products), number, out| {
                    let samples = out.len() / self.sample();
                    let g = &g[number * group * self.positions() * self.outputs..]
                        [..samples * self.positions() * self.outputs];
                    if self.vertical.stride == 1 {
                        return walk.product(g, &panels, scratch, out);
                    }
                    products.resize(samples * walk.positions() * self.channels, T::ZERO);
                    walk.product(g, &panels, scratch, products);
                    let pixels = products.chunks_exact(self.channels).enumerate();
                    for (n, pixel) in pixels {
                        let (sample, position) = (n / walk.positions(), n % walk.positions());
                        let y = down.position(position / across.positions());
                        let x = across.position(position % across.positions());
                        let at = (sample * self.vertical.length + y) * self.horizontal.length + x;
                        out[at * self.channels..][..self.channels].copy_from_slice(pixel);
                    }
                },
            );
        }
        tensor(out, (self.samples, self.vertical.length, self.horizontal.length, self.channels), gradient)
    }

    fn kernel_gradient<T: Number>(&self, input: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let (x, g) = (Reading::of(input), Reading::of(gradient));
        let (x, g) = (x.values::<T>(NAME)?, g.values::<T>(NAME)?);
        let walk = Walk::new(self.vertical.forward(), self.horizontal.forward(), self.channels);
        // (U, V, C, O)
        let sums = walk.kernel_sums(x, g, self.outputs);
        let (area, patch) = (self.area(), self.patch());
        let mut out = unwritten(sums.len());
        // A few outputs at a time, whose sums are adjacent.
        each_chunk(
            &mut out,
            OUTPUTS_AT_A_TIME * patch,
            || (),
            |(), number, out| {
                let first = number * OUTPUTS_AT_A_TIME;
                for (row, sums) in sums.chunks_exact(self.outputs).enumerate() {
                    let (tap, channel) = (row / self.channels, row % self.channels);
                    let positions = out[channel * area + tap..].iter_mut().step_by(patch);
                    for (out, sum) in positions.zip(&sums[first..]) {
                        *out = *sum;
                    }
                }
            },
        );
        tensor(out, (self.outputs, self.channels, self.vertical.taps, self.horizontal.taps), gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    /// (input, kernel, stride, padding)
    const SHAPES: [(Four, Four, usize, usize); 8] = [
        ((2, 7, 5, 3), (4, 3, 3, 3), 1, 1),
        ((1, 8, 8, 1), (2, 1, 3, 3), 2, 1),
        ((3, 9, 6, 2), (5, 2, 1, 1), 2, 0),
        ((2, 12, 11, 1), (2, 1, 7, 7), 2, 3),
        ((2, 6, 6, 33), (35, 33, 3, 3), 2, 1),
        ((2, 9, 8, 2), (3, 2, 3, 3), 3, 0),
        ((1, 8, 8, 3), (2, 3, 4, 4), 4, 0),
        ((20, 4, 4, 5), (7, 5, 3, 2), 1, 1),
    ];

    fn channels_first(x: &Tensor) -> Tensor {
        x.permute((0, 3, 1, 2)).and_then(|x| x.contiguous()).expect("(B, C, H, W)")
    }

    #[test]
    fn it_is_the_convolution_of_candle() {
        for (input, kernel, stride, padding) in SHAPES {
            let (x, w) = (noise(input, 1), noise(kernel, 2));
            let expected = channels_first(&x).conv2d(&w, padding, stride, 1, 1).expect("candle's");
            let y = convolution(&Value::constant(x), &Value::constant(w), stride, padding).expect("ours");
            assert_close(&channels_first(y.tensor()), &expected, 1e-12);
        }
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        for (input, kernel, stride, padding) in SHAPES.into_iter().filter(|(x, ..)| x.0 * x.3 < 30) {
            check_gradients(&[noise(input, 3), noise(kernel, 4)], |v| convolution(&v[0], &v[1], stride, padding));
        }
    }

    #[test]
    fn a_kernel_for_other_channels_is_refused() {
        let [x, w] = [noise((1, 4, 4, 2), 1), noise((1, 3, 3, 3), 2)].map(Value::constant);
        let error = convolution(&x, &w, 1, 1).expect_err("2 is not 3");
        assert!(error.to_string().contains("over 3 channels does not fit an input of 2 channels"), "{error}");
    }
}
