//! Two-dimensional convolution: each sample's patches are laid out as columns, then multiplied by the kernel.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::number::{Number, Reading, by_number, dtype, values};
use super::parallel::{each_chunk, sum_of_groups};
use super::product::{View, multiply};

const NAME: &str = "convolution";

/// Samples whose kernel gradients are summed before the sums are added up. Bits depend on it.
const SAMPLES_PER_GROUP: usize = 8;

/// `y[b, o, i, j] = Σ_{c, u, v} x[b, c, i·stride + u − padding, j·stride + v − padding] · w[o, c, u, v]`, zero outside x.
///
/// `input` is (B, C, H, W), `kernel` (O, C, U, V), the result (B, O, ⌊(H + 2·padding − U)/stride⌋ + 1, …).
///
/// # Errors
/// When the shapes do not fit or the kernel is larger than the padded input.
pub(crate) fn convolution(input: &Tensor, kernel: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let geometry = Geometry::of(input.dims4()?, kernel.dims4()?, stride, padding)?;
    input.contiguous()?.apply_op2(&kernel.contiguous()?, Convolution(geometry))
}

#[derive(Debug, Clone, Copy)]
struct Geometry {
    samples: usize,
    channels: usize,
    height: usize,
    width: usize,
    outputs: usize,
    kernel: (usize, usize),
    stride: usize,
    padding: usize,
    out_height: usize,
    out_width: usize,
}

type Four = (usize, usize, usize, usize);

impl Geometry {
    fn of((samples, channels, height, width): Four, kernel: Four, stride: usize, padding: usize) -> Result<Self> {
        let (outputs, kernel_channels, tall, wide) = kernel;
        if kernel_channels != channels || tall > height + 2 * padding || wide > width + 2 * padding || stride == 0 {
            candle_core::bail!(
                "a {tall} × {wide} kernel over {kernel_channels} channels does not fit an input of {channels} channels, \
                 {height} × {width}, padding {padding}, stride {stride}"
            );
        }
        let out_height = (height + 2 * padding - tall) / stride + 1;
        let out_width = (width + 2 * padding - wide) / stride + 1;
        let kernel = (tall, wide);
        Ok(Self { samples, channels, height, width, outputs, kernel, stride, padding, out_height, out_width })
    }

    /// Rows of the column matrix: C · U · V.
    fn patch(&self) -> usize {
        self.channels * self.kernel.0 * self.kernel.1
    }

    /// Columns of the column matrix.
    fn places(&self) -> usize {
        self.out_height * self.out_width
    }

    fn sample(&self) -> usize {
        self.channels * self.height * self.width
    }

    fn out_sample(&self) -> usize {
        self.outputs * self.places()
    }

    /// The output columns whose input column `j·stride + v − padding` exists, and the first of those input columns.
    fn columns_inside(&self, v: usize) -> (std::ops::Range<usize>, usize) {
        let first = self.padding.saturating_sub(v).div_ceil(self.stride).min(self.out_width);
        let last = match (self.width + self.padding).checked_sub(v + 1) {
            Some(reach) => (reach / self.stride + 1).min(self.out_width),
            None => 0,
        };
        (first..last.max(first), (first * self.stride + v).saturating_sub(self.padding))
    }

    /// Calls `visit(range of the column matrix, first place in the sample)` for each run of places that one kernel
    /// position meets within one row; what is not visited lies outside the sample.
    fn runs(&self, mut visit: impl FnMut(std::ops::Range<usize>, usize)) {
        let (tall, wide) = self.kernel;
        let mut row = 0;
        for channel in 0..self.channels {
            for (u, v) in (0..tall).flat_map(|u| (0..wide).map(move |v| (u, v))) {
                let (inside, x) = self.columns_inside(v);
                for i in 0..self.out_height {
                    let y = i * self.stride + u;
                    if y >= self.padding && y - self.padding < self.height && !inside.is_empty() {
                        let start = row * self.places() + i * self.out_width;
                        let from = (channel * self.height + y - self.padding) * self.width + x;
                        visit(start + inside.start..start + inside.end, from);
                    }
                }
                row += 1;
            }
        }
    }

    /// Lays out one sample's patches as columns. `columns` must be zero where [`Self::runs`] does not reach.
    fn gather<T: Number>(&self, sample: &[T], columns: &mut [T]) {
        self.runs(|to, from| {
            if self.stride == 1 {
                let length = to.len();
                columns[to].copy_from_slice(&sample[from..from + length]);
            } else {
                let source = sample[from..].iter().step_by(self.stride);
                columns[to].iter_mut().zip(source).for_each(|(c, s)| *c = *s);
            }
        });
    }

    /// The transpose of [`Self::gather`]: adds columns back to where they came from.
    fn scatter<T: Number>(&self, columns: &[T], sample: &mut [T]) {
        self.runs(|from, to| {
            let places = sample[to..].iter_mut().step_by(self.stride);
            places.zip(&columns[from]).for_each(|(s, c)| *s += *c);
        });
    }

    fn columns<T: Number>(&self) -> Vec<T> {
        vec![T::ZERO; self.patch() * self.places()]
    }

    fn forward<T: Number>(&self, input: &[T], kernel: &[T]) -> Vec<T> {
        let mut out = vec![T::ZERO; self.samples * self.out_sample()];
        let kernel = View::new(kernel, self.outputs, self.patch());
        each_chunk(
            &mut out,
            self.out_sample(),
            || self.columns(),
            |columns: &mut Vec<T>, b, out| {
                self.gather(&input[b * self.sample()..][..self.sample()], columns);
                multiply(out, false, kernel, View::new(columns, self.patch(), self.places()));
            },
        );
        out
    }

    fn input_gradient<T: Number>(&self, kernel: &[T], gradient: &[T]) -> Vec<T> {
        let mut out = vec![T::ZERO; self.samples * self.sample()];
        let kernel = View::new(kernel, self.outputs, self.patch()).transposed();
        each_chunk(
            &mut out,
            self.sample(),
            || self.columns(),
            |columns: &mut Vec<T>, b, out| {
                let gradient =
                    View::new(&gradient[b * self.out_sample()..][..self.out_sample()], self.outputs, self.places());
                multiply(columns, false, kernel, gradient);
                self.scatter(columns, out);
            },
        );
        out
    }

    fn kernel_gradient<T: Number>(&self, input: &[T], gradient: &[T]) -> Vec<T> {
        let groups = self.samples.div_ceil(SAMPLES_PER_GROUP);
        sum_of_groups(groups, self.outputs * self.patch(), |group, sum| {
            let mut columns = self.columns();
            for b in group * SAMPLES_PER_GROUP..((group + 1) * SAMPLES_PER_GROUP).min(self.samples) {
                self.gather(&input[b * self.sample()..][..self.sample()], &mut columns);
                let gradient = &gradient[b * self.out_sample()..][..self.out_sample()];
                let columns = View::new(&columns, self.patch(), self.places()).transposed();
                multiply(sum, true, View::new(gradient, self.outputs, self.places()), columns);
            }
        })
    }
}

#[derive(Debug)]
struct Convolution(Geometry);

impl Convolution {
    fn run<T: Number>(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<CpuStorage> {
        Ok(T::to_cpu_storage_owned(self.0.forward::<T>(values(s1, l1, NAME)?, values(s2, l2, NAME)?)))
    }

    fn gradients<T: Number>(
        &self,
        input: &Tensor,
        kernel: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, w, g) = (Reading::of(input), Reading::of(kernel), Reading::of(gradient));
        let (x, w, g) = (x.values::<T>(NAME)?, w.values::<T>(NAME)?, g.values::<T>(NAME)?);
        // The first convolution of an encoder reads data, whose gradient nobody wants.
        let for_input = match input.track_op() {
            true => Some(Tensor::from_vec(self.0.input_gradient(w, g), input.shape(), input.device())?),
            false => None,
        };
        let for_kernel = Tensor::from_vec(self.0.kernel_gradient(x, g), kernel.shape(), kernel.device())?;
        Ok((for_input, Some(for_kernel)))
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = by_number!(dtype(s1), NAME, self.run(s1, l1, s2, l2))?;
        Ok((out, (self.0.samples, self.0.outputs, self.0.out_height, self.0.out_width).into()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        by_number!(x.dtype(), NAME, self.gradients(x, w, &g.contiguous()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    #[test]
    fn it_is_the_convolution_of_candle() {
        let shapes = [
            ((2, 3, 7, 5), (4, 3, 3, 3), 1, 1),
            ((1, 1, 8, 8), (2, 1, 3, 3), 2, 1),
            ((3, 2, 9, 6), (5, 2, 1, 1), 2, 0),
        ];
        for (input, kernel, stride, padding) in shapes.into_iter().chain([((2, 1, 12, 11), (2, 1, 7, 7), 2, 3)]) {
            let (x, w) = (noise(input, 1), noise(kernel, 2));
            let expected = x.conv2d(&w, padding, stride, 1, 1).expect("candle's");
            assert_close(&convolution(&x, &w, stride, padding).expect("ours"), &expected, 1e-12);
        }
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        for (input, kernel, stride, padding) in [((2, 2, 5, 4), (3, 2, 3, 3), 1, 1), ((9, 1, 6, 5), (2, 1, 3, 3), 2, 1)]
        {
            check_gradients(&[noise(input, 3), noise(kernel, 4)], |v| convolution(&v[0], &v[1], stride, padding));
        }
    }

    #[test]
    fn a_kernel_for_other_channels_is_refused() {
        let error = convolution(&noise((1, 2, 4, 4), 1), &noise((1, 3, 3, 3), 2), 1, 1).expect_err("2 is not 3");
        assert!(error.to_string().contains("over 3 channels does not fit an input of 2 channels"), "{error}");
    }
}
