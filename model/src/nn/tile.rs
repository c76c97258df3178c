//! The innermost loops: a few rows of a product at a time, in registers.
//!
//! ```text
//! out (m, n) = Σ_k left[m][k] · panel[k][n]        m ≤ 8 rows, n ≤ 32 columns
//! ```
//!
//! Invariant: every sum runs over k in ascending order, one fused multiply-add after the other, in every tile and on
//! every vector unit. So bits depend only on the operands, not on batch, threads or processor.

use super::lanes::Lanes;
use super::number::Number;

/// Columns of a panel, the packed form of the right operand: `panel[k · PANEL + n]`, padded with zeros.
pub(crate) const PANEL: usize = 32;

/// The memory layout of a row of the left operand: runs, as in the patch of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs {
    /// The number of runs per row.
    pub(crate) count: usize,
    /// The number of consecutive numbers in a run.
    pub(crate) length: usize,
    /// The distance between the starts of two runs.
    pub(crate) step: usize,
}

impl Runs {
    /// Rows without gaps: one run.
    pub(crate) fn whole(length: usize) -> Self {
        Self { count: 1, length, step: 0 }
    }

    fn reach(&self) -> usize {
        if self.count == 0 || self.length == 0 { 0 } else { (self.count - 1) * self.step + self.length }
    }
}

/// The output of a tile. Row r starts at `stride · r`.
#[derive(Debug)]
pub(crate) struct Into<'a, T> {
    pub(crate) values: &'a mut [T],
    pub(crate) stride: usize,
    /// The number of columns, at most [`PANEL`].
    pub(crate) columns: usize,
    /// Whether the product is added to the output instead of replacing it.
    pub(crate) accumulate: bool,
}

impl<T: Number> Into<'_, T> {
    fn check(&self, rows: usize) {
        let end = if rows == 0 { 0 } else { (rows - 1) * self.stride + self.columns };
        assert!(end <= self.values.len() && self.columns <= PANEL, "{rows} rows do not fit their destination");
    }

    fn destination(self) -> Destination<T> {
        let Self { values, stride, columns, accumulate } = self;
        Destination { values: values.as_mut_ptr(), stride, columns, accumulate }
    }
}

/// `into (+)= left · panel`, where row r of `left` consists of the runs that start at `starts[r]`.
///
/// # Panics
/// If a run, the panel or the destination exceeds its slice.
pub(crate) fn rows<T: Number>(left: &[T], starts: &[usize], runs: Runs, panel: &[T], into: Into<'_, T>) {
    into.check(starts.len());
    let reach = runs.reach();
    assert!(starts.iter().all(|start| start + reach <= left.len()), "a run reaches past its slice");
    assert!(runs.count * runs.length * PANEL <= panel.len(), "the panel is too short");
    let left = Left::Rows { values: left.as_ptr(), starts, runs };
    // SAFETY: the processor has the vector unit that `kernel` chose, and everything that the kernel reads and writes
    // was checked above.
    unsafe {
        T::kernel()(&left, panel.as_ptr(), into.destination());
    }
}

/// `into (+)= left · panel`, where column k of `left` consists of the `rows` numbers that start at `starts[k]`.
///
/// # Panics
/// If a column, the panel or the destination exceeds its slice.
pub(crate) fn columns<T: Number>(left: &[T], starts: &[usize], rows: usize, panel: &[T], into: Into<'_, T>) {
    into.check(rows);
    assert!(starts.iter().all(|start| start + rows <= left.len()), "a column reaches past its slice");
    assert!(starts.len() * PANEL <= panel.len(), "the panel is too short");
    let left = Left::Columns { values: left.as_ptr(), starts, rows };
    // SAFETY: as above.
    unsafe {
        T::kernel()(&left, panel.as_ptr(), into.destination());
    }
}

/// A function for one vector unit.
pub(crate) type Kernel<T> = unsafe fn(&Left<'_, T>, *const T, Destination<T>);

/// The checked left operand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Left<'a, T> {
    Rows { values: *const T, starts: &'a [usize], runs: Runs },
    Columns { values: *const T, starts: &'a [usize], rows: usize },
}

/// [`Into`], checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Destination<T> {
    values: *mut T,
    stride: usize,
    columns: usize,
    accumulate: bool,
}

impl<T: Number> Left<'_, T> {
    fn rows(&self) -> usize {
        match self {
            Left::Rows { starts, .. } => starts.len(),
            Left::Columns { rows, .. } => *rows,
        }
    }

    /// # Safety
    /// There are rows `first .. first + count`.
    unsafe fn block(&self, first: usize, count: usize) -> Self {
        match *self {
            Left::Rows { values, starts, runs } => Left::Rows { values, starts: &starts[first..first + count], runs },
            Left::Columns { values, starts, .. } => {
                Left::Columns { values: values.wrapping_add(first), starts, rows: count }
            }
        }
    }
}

/// Divides the product into tiles of at most `MOST` rows and two registers of columns.
#[inline(always)]
unsafe fn product<V: Lanes, const MOST: usize>(
    left: &Left<'_, V::Number>,
    panel: *const V::Number,
    to: Destination<V::Number>,
) {
    let rows = left.rows();
    let wide = 2 * V::COUNT;
    let blocks = rows.div_ceil(MOST);
    let mut row = 0;
    for block in 0..blocks {
        // Of about the same height, so that no tile has only a row or two.
        let height = (rows - row).div_ceil(blocks - block);
        unsafe {
            let left = left.block(row, height);
            for column in (0..to.columns).step_by(wide) {
                let (panel, values) = (panel.add(column), to.values.wrapping_add(row * to.stride + column));
                if column + wide <= to.columns {
                    tile_of::<V>(height, &left, panel, Destination { values, ..to });
                } else {
                    let mut edge = [V::Number::ZERO; 8 * PANEL];
                    let whole =
                        Destination { values: edge.as_mut_ptr(), stride: wide, columns: wide, accumulate: false };
                    tile_of::<V>(height, &left, panel, whole);
                    copy_edge(&edge, (height, to.columns - column, wide), Destination { values, ..to });
                }
            }
        }
        row += height;
    }
}

unsafe fn copy_edge<T: Number>(edge: &[T], (rows, columns, wide): (usize, usize, usize), to: Destination<T>) {
    for (r, row) in edge.chunks_exact(wide).take(rows).enumerate() {
        for (c, value) in row[..columns].iter().enumerate() {
            unsafe {
                let position = to.values.add(r * to.stride + c);
                *position = if to.accumulate { *position + *value } else { *value };
            }
        }
    }
}

#[inline(always)]
unsafe fn tile_of<V: Lanes>(
    height: usize,
    left: &Left<'_, V::Number>,
    panel: *const V::Number,
    to: Destination<V::Number>,
) {
    unsafe {
        match height {
            1 => tile::<V, 1>(left, panel, to),
            2 => tile::<V, 2>(left, panel, to),
            3 => tile::<V, 3>(left, panel, to),
            4 => tile::<V, 4>(left, panel, to),
            5 => tile::<V, 5>(left, panel, to),
            6 => tile::<V, 6>(left, panel, to),
            7 => tile::<V, 7>(left, panel, to),
            8 => tile::<V, 8>(left, panel, to),
            _ => unreachable!("a tile has at most 8 rows"),
        }
    }
}

/// `M` rows, two registers of columns.
#[inline(always)]
unsafe fn tile<V: Lanes, const M: usize>(
    left: &Left<'_, V::Number>,
    panel: *const V::Number,
    to: Destination<V::Number>,
) {
    unsafe {
        let mut sums = [[V::zero(); 2]; M];
        let mut right = panel;
        match *left {
            Left::Rows { values, starts, runs } => {
                let mut rows: [*const V::Number; M] = std::array::from_fn(|r| values.add(starts[r]));
                for _ in 0..runs.count {
                    for k in 0..runs.length {
                        step::<V, M>(&mut sums, right, |m| rows[m].add(k));
                        right = right.add(PANEL);
                    }
                    for row in &mut rows {
                        *row = row.wrapping_add(runs.step);
                    }
                }
            }
            Left::Columns { values, starts, .. } => {
                for start in starts {
                    let column = values.add(*start);
                    step::<V, M>(&mut sums, right, |m| column.add(m));
                    right = right.add(PANEL);
                }
            }
        }
        for (m, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                let position = to.values.add(m * to.stride + n * V::COUNT);
                let sum = if to.accumulate { V::load(position).add(sum) } else { sum };
                sum.store(position);
            }
        }
    }
}

#[inline(always)]
unsafe fn step<V: Lanes, const M: usize>(
    sums: &mut [[V; 2]; M],
    right: *const V::Number,
    left: impl Fn(usize) -> *const V::Number,
) {
    unsafe {
        let right = [V::load(right), V::load(right.add(V::COUNT))];
        for (m, sums) in sums.iter_mut().enumerate() {
            let left = V::splat(left(m));
            sums[0] = left.multiply_add(right[0], sums[0]);
            sums[1] = left.multiply_add(right[1], sums[1]);
        }
    }
}

macro_rules! kernels {
    ($($name:ident $(with $feature:literal)?: $register:ty, $most:literal rows;)*) => {
        $(
            $(#[target_feature(enable = $feature)])?
            pub(super) unsafe fn $name(left: &Left<'_, <$register as Lanes>::Number>, panel: *const <$register as Lanes>::Number, to: Destination<<$register as Lanes>::Number>) {
                unsafe { product::<$register, $most>(left, panel, to) }
            }
        )*
    };
}

kernels! {
    plain_f32: [f32; 4], 6 rows;
    plain_f64: [f64; 4], 6 rows;
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn kernel_f32() -> Kernel<f32> {
    plain_f32
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn kernel_f64() -> Kernel<f64> {
    plain_f64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::{__m256, __m256d, __m512, __m512d};
    kernels! {
        avx512_f32 with "avx512f": __m512, 8 rows;
        avx512_f64 with "avx512f": __m512d, 8 rows;
        avx2_f32 with "avx2,fma": __m256, 6 rows;
        avx2_f64 with "avx2,fma": __m256d, 6 rows;
    }
    macro_rules! chosen {
        ($name:ident: $number:ty, $wide:ident, $narrow:ident, $plain:ident) => {
            pub(crate) fn $name() -> Kernel<$number> {
                if is_x86_feature_detected!("avx512f") {
                    $wide
                } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    $narrow
                } else {
                    $plain
                }
            }
        };
    }
    chosen!(kernel_f32: f32, avx512_f32, avx2_f32, plain_f32);
    chosen!(kernel_f64: f64, avx512_f64, avx2_f64, plain_f64);
}
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{kernel_f32, kernel_f64};

#[cfg(test)]
mod tests {
    use super::*;

    /// Shapes with whole tiles, and with partial tiles at the bottom and at the right.
    const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 1), (8, 40, 32), (13, 147, 21), (23, 700, 32)];

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// The bits of a kernel's result, accumulated, with the left operand by rows and by columns.
    fn bits(kernel: Kernel<f32>, (rows, depth, columns): (usize, usize, usize)) -> Vec<u32> {
        let (left, panel) = (numbers(rows * depth, 1), numbers(depth * PANEL, 2));
        let starts: Vec<usize> = (0..rows).map(|row| row * depth).collect();
        let column_starts: Vec<usize> = (0..depth).map(|column| column * rows).collect();
        let operands = [
            Left::Rows { values: left.as_ptr(), starts: &starts, runs: Runs::whole(depth) },
            Left::Columns { values: left.as_ptr(), starts: &column_starts, rows },
        ];
        let mut all = Vec::new();
        for operand in operands {
            let mut out = numbers(rows * columns, 3);
            let into = Into { values: &mut out, stride: columns, columns, accumulate: true };
            // SAFETY: operands, panel and destination have exactly these sizes, and callers check for the vector unit.
            unsafe { kernel(&operand, panel.as_ptr(), into.destination()) };
            all.extend(out.into_iter().map(f32::to_bits));
        }
        all
    }

    /// The bits of the same sums, computed one after the other.
    fn plain_sums((rows, depth, columns): (usize, usize, usize)) -> Vec<u32> {
        let (left, panel, before) = (numbers(rows * depth, 1), numbers(depth * PANEL, 2), numbers(rows * columns, 3));
        let sum = |left: &dyn Fn(usize) -> f32, n: usize| {
            (0..depth).fold(0.0f32, |sum, k| left(k).mul_add(panel[k * PANEL + n], sum))
        };
        let mut all = Vec::new();
        for by_rows in [true, false] {
            for (m, n) in (0..rows).flat_map(|m| (0..columns).map(move |n| (m, n))) {
                let at = |k: usize| if by_rows { left[m * depth + k] } else { left[k * rows + m] };
                all.push((before[m * columns + n] + sum(&at, n)).to_bits());
            }
        }
        all
    }

    #[test]
    fn every_vector_unit_gives_the_bits_of_one_sum_after_the_other() {
        let mut kernels: Vec<Kernel<f32>> = vec![plain_f32, kernel_f32()];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kernels.push(x86::avx2_f32);
            }
            if is_x86_feature_detected!("avx512f") {
                kernels.push(x86::avx512_f32);
            }
        }
        for shape in SHAPES {
            for kernel in &kernels {
                assert_eq!(bits(*kernel, shape), plain_sums(shape), "{shape:?}");
            }
        }
    }
}
