//! Pooling over grids with channels last, (B, H, W, C).

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::buffer::unwritten;
use super::dispatch::on_cuda;
use super::number::{Number, Reading, by_number, tensor};
use super::parallel::each_chunk;
use super::value::Value;
use super::vector::vectorised;

const NAME: &str = "pooling";

/// A square window that moves over a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) size: usize,
    pub(crate) stride: usize,
    /// Positions added on each side of the grid. They do not count in a window.
    pub(crate) padding: usize,
}

impl Window {
    /// Adjacent windows that do not overlap.
    pub(crate) fn tiles(size: usize) -> Self {
        Self { size, stride: size, padding: 0 }
    }

    fn positions(self, length: usize) -> usize {
        (length + 2 * self.padding - self.size) / self.stride + 1
    }

    fn inside(self, position: usize, length: usize) -> Range<usize> {
        let start = position * self.stride;
        start.saturating_sub(self.padding)..(start + self.size - self.padding).min(length)
    }
}

/// `y[b, i, j, c] = max of x[b, ·, ·, c] over the window at (i, j)`; rows and columns that do not fill a window are
/// ignored.
///
/// # Errors
/// If the window is empty, larger than the padded input, or only padding.
pub(crate) fn max_pool(input: &Value, window: Window) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (_, height, width, _) = x.dims4()?;
    let Window { size, stride, padding } = window;
    let short = height.min(width) + 2 * padding < size;
    if size == 0 || stride == 0 || short || 2 * padding > size || size > 15 {
        candle_core::bail!("{NAME}: {window:?} over {height} × {width}");
    }
    on_cuda!(x, pooling::max_pool(input, window));
    let (y, chosen) = by_number!(x.dtype(), NAME, max_forward(&x, window))?;
    let shape = x.dims4()?;
    Ok(Value::of(y, [input], move |g| {
        Ok([Some(by_number!(g.dtype(), NAME, max_backward(g, &chosen, shape, window))?)])
    }))
}

/// The largest values, and the position of each in its window: u · size + v of the first one.
fn max_forward<T: Number>(input: &Tensor, window: Window) -> Result<(Tensor, Vec<u8>)> {
    let (samples, height, width, channels) = input.dims4()?;
    let reading = Reading::of(input);
    let x = reading.values::<T>(NAME)?;
    let (tall, wide) = (window.positions(height), window.positions(width));
    let length = tall * wide * channels;
    let mut out = unwritten(samples * length);
    let mut chosen = vec![0u8; out.len()];
    let row = |at: usize, out: &mut [T], chosen: &mut [u8]| {
        let (sample, i) = (at / tall, at % tall);
        let down = window.inside(i, height);
        let positions = out.chunks_exact_mut(channels).zip(chosen.chunks_exact_mut(channels)).enumerate();
        for (j, (best, chosen)) in positions {
            let across = window.inside(j, width);
            for y in down.clone() {
                for column in across.clone() {
                    let x = &x[((sample * height + y) * width + column) * channels..][..channels];
                    let tap = ((y + window.padding - i * window.stride) * window.size + column + window.padding
                        - j * window.stride) as u8;
                    let first = y == down.start && column == across.start;
                    for ((best, chosen), x) in best.iter_mut().zip(chosen.iter_mut()).zip(x) {
                        // A NaN stays, so that divergence remains visible.
                        let larger = first | (*x > *best) | x.is_no_number();
                        *best = if larger { *x } else { *best };
                        *chosen = if larger { tap } else { *chosen };
                    }
                }
            }
        }
    };
    super::parallel::each_pair(&mut out, &mut chosen, wide * channels, |at, out, chosen| {
        vectorised(
            #[inline(always)]
            || row(at, out, chosen),
        );
    });
    Ok((tensor(out, (samples, tall, wide, channels), input)?, chosen))
}

fn max_backward<T: Number>(
    gradient: &Tensor,
    chosen: &[u8],
    shape: (usize, usize, usize, usize),
    window: Window,
) -> Result<Tensor> {
    let (samples, height, width, channels) = shape;
    let reading = Reading::of(gradient);
    let g = reading.values::<T>(NAME)?;
    let wide = window.positions(width);
    let length = window.positions(height) * wide * channels;
    let mut out = vec![T::ZERO; samples * height * width * channels];
    each_chunk(
        &mut out,
        height * width * channels,
        || (),
        |(), sample, out| {
            let positions = g[sample * length..][..length].chunks_exact(channels);
            let chosen = chosen[sample * length..][..length].chunks_exact(channels);
            for (position, (g, chosen)) in positions.zip(chosen).enumerate() {
                let (i, j) = (position / wide, position % wide);
                for (channel, (g, tap)) in g.iter().zip(chosen).enumerate() {
                    let (u, v) = (usize::from(*tap) / window.size, usize::from(*tap) % window.size);
                    let (y, x) = (i * window.stride + u - window.padding, j * window.stride + v - window.padding);
                    out[(y * width + x) * channels + channel] += *g;
                }
            }
        },
    );
    tensor(out, shape, gradient)
}

/// `y[b, i, j, c] = mean of x[b, ⌊i·H/R⌋ .. ⌈(i+1)·H/R⌉, ⌊j·W/S⌋ .. ⌈(j+1)·W/S⌉, c]`: `input` is (B, H, W, C), the
/// result (B, R, S, C). PyTorch calls it adaptive average pooling.
///
/// # Errors
/// If the grid has no cells, or more cells than the input has positions.
pub(crate) fn grid_mean(input: &Value, (rows, columns): (usize, usize)) -> Result<Value> {
    let x = input.tensor().contiguous()?;
    let (samples, height, width, channels) = x.dims4()?;
    if rows == 0 || columns == 0 || rows > height || columns > width {
        candle_core::bail!("{NAME}: {rows} × {columns} cells of {height} × {width} positions");
    }
    on_cuda!(x, pooling::grid_mean(input, (rows, columns)));
    let operator = GridMean { samples, height, width, channels, rows, columns };
    let y = by_number!(x.dtype(), NAME, operator.forward(&x))?;
    Ok(Value::of(y, [input], move |g| Ok([Some(by_number!(g.dtype(), NAME, operator.gradient(g))?)])))
}

#[derive(Clone, Copy)]
struct GridMean {
    samples: usize,
    height: usize,
    width: usize,
    channels: usize,
    rows: usize,
    columns: usize,
}

/// Positions `⌊i·length/cells⌋ .. ⌈(i+1)·length/cells⌉`.
fn cell(i: usize, length: usize, cells: usize) -> Range<usize> {
    i * length / cells..((i + 1) * length).div_ceil(cells)
}

impl GridMean {
    /// Calls `visit(cell, position, share of the position)`.
    fn pairs(&self, mut visit: impl FnMut(usize, usize, f64)) {
        for (i, j) in (0..self.rows).flat_map(|i| (0..self.columns).map(move |j| (i, j))) {
            let (down, across) = (cell(i, self.height, self.rows), cell(j, self.width, self.columns));
            let share = 1.0 / (down.len() * across.len()) as f64;
            for (y, x) in down.flat_map(|y| across.clone().map(move |x| (y, x))) {
                visit(i * self.columns + j, y * self.width + x, share);
            }
        }
    }

    fn forward<T: Number>(&self, input: &Tensor) -> Result<Tensor> {
        self.spread(input, self.height * self.width, self.rows * self.columns, |cell, position| (position, cell))
            .and_then(|out: Vec<T>| tensor(out, (self.samples, self.rows, self.columns, self.channels), input))
    }

    fn gradient<T: Number>(&self, gradient: &Tensor) -> Result<Tensor> {
        self.spread(gradient, self.rows * self.columns, self.height * self.width, |cell, position| (cell, position))
            .and_then(|out: Vec<T>| tensor(out, (self.samples, self.height, self.width, self.channels), gradient))
    }

    /// Adds each position's share from one grid to another.
    fn spread<T: Number>(
        &self,
        from: &Tensor,
        source: usize,
        target: usize,
        ends: impl Fn(usize, usize) -> (usize, usize) + Sync + Send,
    ) -> Result<Vec<T>> {
        let channels = self.channels;
        let reading = Reading::of(from);
        let all = reading.values::<T>(NAME)?;
        let mut out = vec![T::ZERO; self.samples * target * channels];
        each_chunk(
            &mut out,
            target * channels,
            || (),
            |(), sample, out| {
                let all = &all[sample * source * channels..][..source * channels];
                self.pairs(|cell, position, share| {
                    let (from, to) = ends(cell, position);
                    let share = T::from_f64(share);
                    let to = &mut out[to * channels..][..channels];
                    to.iter_mut().zip(&all[from * channels..]).for_each(|(to, from)| *to += *from * share);
                });
            },
        );
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, flat, noise};
    use super::*;

    fn channels_first(x: &Tensor) -> Tensor {
        x.permute((0, 3, 1, 2)).and_then(|x| x.contiguous()).expect("(B, C, H, W)")
    }

    fn pooled(x: &Tensor, window: Window) -> Tensor {
        max_pool(&Value::constant(x.clone()), window).expect("ours").tensor().clone()
    }

    const STEM: Window = Window { size: 3, stride: 2, padding: 1 };

    #[test]
    fn tiles_are_those_of_candle() {
        let x = noise((2, 7, 6, 3), 1);
        let expected = channels_first(&x).max_pool2d(2).expect("candle's");
        assert_close(&channels_first(&pooled(&x, Window::tiles(2))), &expected, 0.0);
    }

    #[test]
    fn padding_is_never_the_largest() {
        let x = (noise((2, 9, 6, 3), 2) - 5.0).expect("negative");
        let padded = channels_first(&x).pad_with_same(2, 1, 1).and_then(|x| x.pad_with_same(3, 1, 1)).expect("padded");
        let expected = padded.max_pool2d_with_stride(3, 2).expect("candle's");
        assert_close(&channels_first(&pooled(&x, STEM)), &expected, 0.0);
    }

    #[test]
    fn not_a_number_is_the_largest_and_its_gradient_finds_it() {
        let x = noise((1, 4, 4, 1), 1);
        for (numbers, found) in [(vec![f64::NAN; 16], 4), (vec![f64::NEG_INFINITY; 16], 0)] {
            let x = Tensor::from_vec(numbers, x.shape(), x.device()).expect("as many");
            let tape = std::sync::Arc::new(crate::nn::value::Tape::default());
            let input = tape.variable(x);
            let y = max_pool(&input, STEM).expect("it fits");
            assert_eq!(flat(y.tensor()).into_iter().filter(|y| y.is_nan()).count(), found);
            let upstream = y.tensor().ones_like().expect("ones");
            let numbers = [input.node().map(crate::nn::value::Node::number)];
            let gradients = crate::nn::value::backward(y.node().expect("a node"), upstream, &numbers);
            let total: f64 = flat(gradients.expect("a way back")[0].as_ref().expect("x's")).iter().sum();
            assert_eq!(total, 4.0);
        }
        let mut one = flat(&x);
        one[5] = f64::NAN;
        let one = Tensor::from_vec(one, x.shape(), x.device()).expect("as many");
        assert_eq!(
            flat(&pooled(&one, Window::tiles(2))).into_iter().map(f64::is_nan).collect::<Vec<_>>(),
            [true, false, false, false]
        );
    }

    #[test]
    fn its_gradient_is_that_of_finite_differences() {
        for window in [STEM, Window::tiles(2), Window { size: 2, stride: 1, padding: 0 }] {
            check_gradients(&[noise((2, 5, 4, 3), 3)], |v| max_pool(&v[0], window));
        }
    }

    #[test]
    fn a_window_that_does_not_fit_is_refused() {
        let x = Value::constant(noise((1, 2, 2, 1), 1));
        assert!(max_pool(&x, Window::tiles(3)).is_err());
        assert!(max_pool(&x, Window { size: 3, stride: 1, padding: 2 }).is_err());
    }

    #[test]
    fn one_cell_is_the_mean_and_full_cells_change_nothing() {
        let x = noise((2, 5, 4, 3), 1);
        let ours = |cells| grid_mean(&Value::constant(x.clone()), cells).expect("ours").tensor().clone();
        assert_close(&ours((1, 1)), &x.mean_keepdim((1, 2)).expect("candle's"), 1e-14);
        assert_close(&ours((5, 4)), &x, 0.0);
    }

    #[test]
    fn cells_may_share_places_where_they_do_not_divide_the_input() {
        let x = noise((1, 3, 1, 1), 2);
        let pair = |first| x.narrow(1, first, 2).and_then(|p| p.mean_keepdim((1, 2))).expect("a mean");
        let expected = Tensor::cat(&[pair(0), pair(1)], 1).expect("two cells");
        assert_close(grid_mean(&Value::constant(x), (2, 1)).expect("ours").tensor(), &expected, 1e-14);
    }

    #[test]
    fn the_gradient_of_a_mean_is_that_of_finite_differences() {
        check_gradients(&[noise((2, 5, 4, 2), 3)], |v| grid_mean(&v[0], (2, 3)));
    }
}
