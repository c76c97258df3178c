//! Averages over the cells of a grid of fixed size, so that what follows does not grow with the input.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::number::{Number, Reading, by_number, dtype, values};
use super::parallel::each_chunk;

const NAME: &str = "grid_mean";

/// `y[b, c, i, j] = mean of x[b, c, ⌊i·H/R⌋ .. ⌈(i+1)·H/R⌉, ⌊j·W/S⌋ .. ⌈(j+1)·W/S⌉]`: `input` is (B, C, H, W), the result (B, C, R, S).
/// PyTorch calls it adaptive average pooling.
///
/// # Errors
/// When the grid has no cells or more than the input has places.
pub(crate) fn grid_mean(input: &Tensor, (rows, columns): (usize, usize)) -> Result<Tensor> {
    let (_, _, height, width) = input.dims4()?;
    if rows == 0 || columns == 0 || rows > height || columns > width {
        candle_core::bail!("{NAME}: {rows} × {columns} cells of {height} × {width} places");
    }
    input.contiguous()?.apply_op1(GridMean { height, width, rows, columns })
}

struct GridMean {
    height: usize,
    width: usize,
    rows: usize,
    columns: usize,
}

/// Places `⌊i·length/cells⌋ .. ⌈(i+1)·length/cells⌉`.
fn cell(i: usize, length: usize, cells: usize) -> Range<usize> {
    i * length / cells..((i + 1) * length).div_ceil(cells)
}

impl GridMean {
    /// Calls `visit(cell, places of one row of the cell, share of each place)`.
    fn runs(&self, mut visit: impl FnMut(usize, Range<usize>, f64)) {
        for (i, j) in (0..self.rows).flat_map(|i| (0..self.columns).map(move |j| (i, j))) {
            let (down, across) = (cell(i, self.height, self.rows), cell(j, self.width, self.columns));
            let share = 1.0 / (down.len() * across.len()) as f64;
            for y in down {
                visit(i * self.columns + j, y * self.width + across.start..y * self.width + across.end, share);
            }
        }
    }

    fn run<T: Number>(&self, storage: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
        let (input, plane, cells) =
            (values::<T>(storage, layout, NAME)?, self.height * self.width, self.rows * self.columns);
        let mut out = vec![T::ZERO; input.len() / plane * cells];
        each_chunk(
            &mut out,
            cells,
            || (),
            |(), n, out| {
                let plane = &input[n * plane..][..plane];
                self.runs(|cell, places, share| {
                    let share = T::from_f64(share);
                    plane[places].iter().for_each(|x| out[cell] += *x * share);
                });
            },
        );
        Ok(T::to_cpu_storage_owned(out))
    }

    fn gradient<T: Number>(&self, input: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let (plane, cells) = (self.height * self.width, self.rows * self.columns);
        let reading = Reading::of(gradient);
        let gradient = reading.values::<T>(NAME)?;
        let mut out = vec![T::ZERO; input.elem_count()];
        each_chunk(
            &mut out,
            plane,
            || (),
            |(), n, out| {
                let gradient = &gradient[n * cells..][..cells];
                self.runs(|cell, places, share| {
                    let g = gradient[cell] * T::from_f64(share);
                    out[places].iter_mut().for_each(|x| *x += g);
                });
            },
        );
        Tensor::from_vec(out, input.shape(), input.device())
    }
}

impl CustomOp1 for GridMean {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = by_number!(dtype(storage), NAME, self.run(storage, layout))?;
        Ok((out, (layout.dims()[0], layout.dims()[1], self.rows, self.columns).into()))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        by_number!(x.dtype(), NAME, self.gradient(x, &g.contiguous()?)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{assert_close, check_gradients, noise};
    use super::*;

    #[test]
    fn one_cell_is_the_mean_and_as_many_cells_as_places_change_nothing() {
        let x = noise((2, 3, 5, 4), 1);
        let mean = x.mean_keepdim((2, 3)).expect("candle's");
        assert_close(&grid_mean(&x, (1, 1)).expect("ours"), &mean, 1e-14);
        assert_close(&grid_mean(&x, (5, 4)).expect("ours"), &x, 0.0);
    }

    #[test]
    fn cells_may_share_places_where_they_do_not_divide_the_input() {
        let x = noise((1, 1, 3, 1), 2);
        let pair = |first| x.narrow(2, first, 2).and_then(|p| p.mean_keepdim((2, 3))).expect("a mean");
        let expected = Tensor::cat(&[pair(0), pair(1)], 2).expect("two cells");
        assert_close(&grid_mean(&x, (2, 1)).expect("ours"), &expected, 1e-14);
    }

    #[test]
    fn its_gradient_is_that_of_finite_differences() {
        check_gradients(&[noise((2, 2, 5, 4), 3)], |v| grid_mean(&v[0], (2, 3)));
    }
}
