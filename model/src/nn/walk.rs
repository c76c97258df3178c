//! The walk of a kernel over a grid (H, W, C): the positions that it covers, and their products.

use std::ops::Range;

use super::buffer::unwritten;
use super::number::Number;
use super::parallel::{block_for_threads, each_block, each_chunk};
use super::product::{Panels, ROWS_PER_SUM, View};
use super::tile::{self, Into, Runs};

/// One dimension of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    /// The length of the input.
    pub(crate) length: usize,
    /// The length of the kernel.
    pub(crate) taps: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Axis {
    /// The length of the output.
    pub(crate) fn positions(&self) -> usize {
        (self.length + 2 * self.padding - self.taps) / self.stride + 1
    }

    /// The walk from input to output.
    pub(crate) fn forward(&self) -> Line {
        let &Self { length, taps, stride, padding } = self;
        Line { length, before: signed(padding), taps, stride, positions: self.positions() }
    }

    /// The phases of the input, as many as the stride. Positions of a phase meet the same taps of the kernel. Phases
    /// that meet no taps are omitted.
    pub(crate) fn phases(&self) -> impl Iterator<Item = Phase> + Clone {
        let axis = *self;
        let phase = (0..self.stride.min(self.taps)).map(move |remainder| Phase { axis, remainder });
        phase.filter(|phase| phase.positions() > 0)
    }
}

/// The positions y of the input with `y + padding ≡ remainder` modulo the stride. They meet the taps with that
/// remainder, the last one first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    axis: Axis,
    remainder: usize,
}

impl Phase {
    pub(crate) fn taps(&self) -> usize {
        (self.axis.taps - self.remainder).div_ceil(self.axis.stride)
    }

    /// The n-th tap of the kernel in this phase.
    pub(crate) fn tap(&self, n: usize) -> usize {
        self.remainder + self.axis.stride * (self.taps() - 1 - n)
    }

    fn first(&self) -> usize {
        let Axis { stride, padding, .. } = self.axis;
        (self.remainder + stride * padding - padding) % stride
    }

    pub(crate) fn positions(&self) -> usize {
        self.axis.length.saturating_sub(self.first()).div_ceil(self.axis.stride)
    }

    /// The n-th position of this phase.
    pub(crate) fn position(&self, n: usize) -> usize {
        self.first() + n * self.axis.stride
    }

    /// The walk from the gradient of the output to the gradient of this phase.
    pub(crate) fn backward(&self) -> Line {
        let Axis { stride, padding, .. } = self.axis;
        let before = signed(self.taps()) - 1 - signed((self.first() + padding) / stride);
        Line { length: self.axis.positions(), before, taps: self.taps(), stride: 1, positions: self.positions() }
    }
}

fn signed(n: usize) -> isize {
    isize::try_from(n).expect("no length is longer than isize::MAX")
}

/// A walk along one dimension: the n-th of `positions` covers `taps` positions of the source, starting at `n · stride −
/// before`. Positions outside `0 .. length` are zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    length: usize,
    before: isize,
    taps: usize,
    stride: usize,
    positions: usize,
}

impl Line {
    /// The number of covered positions of the source, including padding.
    fn window(&self) -> usize {
        (self.positions - 1) * self.stride + self.taps
    }

    fn stays_inside(&self) -> bool {
        self.before == 0 && self.window() <= self.length
    }
}

/// A walk over samples (H, W, C).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    down: Line,
    across: Line,
    channels: usize,
}

/// The smallest number of rows of a product per task.
const ROWS_PER_TASK: usize = 256;

/// Bytes of a source that are multiplied by one panel after the other, so that they stay in the cache.
const NEAR: usize = 1 << 17;

impl Walk {
    pub(crate) fn new(down: Line, across: Line, channels: usize) -> Self {
        Self { down, across, channels }
    }

    /// Of one sample.
    pub(crate) fn positions(&self) -> usize {
        self.down.positions * self.across.positions
    }

    /// How many of `samples` a task processes.
    pub(crate) fn samples_per_task(&self, samples: usize) -> usize {
        ROWS_PER_TASK.div_ceil(self.positions()).clamp(1, samples.max(1))
    }

    /// Numbers of one sample of the source.
    fn sample(&self) -> usize {
        self.down.length * self.across.length * self.channels
    }

    /// `out[position] = Σ over the patch at the position · panels`, sample by sample. `scratch` holds padded samples.
    pub(crate) fn product<T: Number>(&self, samples: &[T], panels: &Panels<T>, scratch: &mut Vec<T>, out: &mut [T]) {
        let count = samples.len() / self.sample();
        let whole = self.down.stays_inside() && self.across.stays_inside();
        let (source, height, width) = if whole {
            (samples, self.down.length, self.across.length)
        } else {
            let (height, width) = (self.down.window(), self.across.window());
            let window = height * width * self.channels;
            scratch.resize(count * window, T::ZERO);
            for (sample, window) in samples.chunks_exact(self.sample()).zip(scratch.chunks_exact_mut(window)) {
                self.copy_window(sample, window);
            }
            (&scratch[..count * window], height, width)
        };
        let row = width * self.channels;
        let starts: Vec<usize> =
            (0..count * self.positions()).map(|position| self.start(position, height, row)).collect();
        let runs = Runs { count: self.down.taps, length: self.across.taps * self.channels, step: row };
        let rows = (NEAR / (row * self.down.stride * size_of::<T>())).clamp(1, 8) * self.across.positions.max(16);
        for (number, starts) in starts.chunks(rows).enumerate() {
            for (first, columns, panel) in panels.iter() {
                let values = &mut out[number * rows * panels.columns() + first..];
                let into = Into { values, stride: panels.columns(), columns, accumulate: false };
                tile::rows(source, starts, runs, panel, into);
            }
        }
    }

    /// Copies the covered window of a sample, with zeros for positions outside.
    fn copy_window<T: Number>(&self, sample: &[T], window: &mut [T]) {
        let inside = inside(self.across.window(), self.across.before, self.across.length);
        let from = (signed(inside.start) - self.across.before).unsigned_abs();
        let numbers = inside.start * self.channels..inside.end * self.channels;
        for (i, row) in window.chunks_exact_mut(self.across.window() * self.channels).enumerate() {
            match usize::try_from(signed(i) - self.down.before).ok().filter(|y| *y < self.down.length) {
                Some(y) if !inside.is_empty() => {
                    let source = &sample[(y * self.across.length + from) * self.channels..][..numbers.len()];
                    row[..numbers.start].fill(T::ZERO);
                    row[numbers.end..].fill(T::ZERO);
                    row[numbers.clone()].copy_from_slice(source);
                }
                _ => row.fill(T::ZERO),
            }
        }
    }

    /// `out[u, (v, c), o] = Σ over samples and positions · source[position, tap (u, v), c] · gradient[position, o]`,
    /// for `gradient` (samples, positions, `outputs`): the gradient of a kernel. The sums of [`ROWS_PER_SUM`] positions
    /// are added up in their order.
    pub(crate) fn kernel_sums<T: Number>(&self, samples: &[T], gradient: &[T], outputs: usize) -> Vec<T> {
        let whole = self.down.stays_inside() && self.across.stays_inside();
        let padded = if whole { Vec::new() } else { self.windows(samples) };
        let (source, height, width) = if whole {
            (samples, self.down.length, self.across.length)
        } else {
            (padded.as_slice(), self.down.window(), self.across.window())
        };
        let (row, run) = (width * self.channels, self.across.taps * self.channels);
        let positions = samples.len() / self.sample() * self.positions();
        let mut out = vec![T::ZERO; self.down.taps * run * outputs];
        let at_once = block_for_threads(self.down.taps * run, 1, 8).min(run);
        for first in (0..positions).step_by(ROWS_PER_SUM) {
            let summed = first..positions.min(first + ROWS_PER_SUM);
            let starts: Vec<usize> = summed.clone().map(|position| self.start(position, height, row)).collect();
            let panels = Panels::of(View::new(&gradient[summed.start * outputs..], summed.len(), outputs));
            // Blocks within a row of the kernel.
            let taps = out.chunks_mut(run * outputs).enumerate();
            let blocks = taps.flat_map(|(tap, out)| {
                let partials = out.chunks_mut(at_once * outputs).enumerate();
                partials.map(move |(number, out)| (tap * row + number * at_once, out))
            });
            each_block(blocks.collect(), |_, (from, out): (usize, &mut [T])| {
                let rows = out.len() / outputs;
                for (column, columns, panel) in panels.iter() {
                    let into = Into { values: &mut out[column..], stride: outputs, columns, accumulate: first > 0 };
                    tile::columns(&source[from..], &starts, rows, panel, into);
                }
            });
        }
        out
    }

    /// The start of a patch in padded samples with rows of `row` numbers, by the position among all samples.
    fn start(&self, position: usize, height: usize, row: usize) -> usize {
        let (sample, position) = (position / self.positions(), position % self.positions());
        let (i, j) = (position / self.across.positions, position % self.across.positions);
        (sample * height + i * self.down.stride) * row + j * self.across.stride * self.channels
    }

    /// The covered window of each sample, one after the other.
    fn windows<T: Number>(&self, samples: &[T]) -> Vec<T> {
        let window = self.down.window() * self.across.window() * self.channels;
        let mut out = unwritten(samples.len() / self.sample() * window);
        each_chunk(
            &mut out,
            window,
            || (),
            |(), number, out| self.copy_window(&samples[number * self.sample()..][..self.sample()], out),
        );
        out
    }
}

/// The part within `0 .. length` of `count` positions that start at `−before`.
fn inside(count: usize, before: isize, length: usize) -> Range<usize> {
    let within = |n: isize| usize::try_from(n).unwrap_or(0).min(count);
    let start = within(before);
    start..within(signed(length) + before).max(start)
}
