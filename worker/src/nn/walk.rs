//! How a kernel goes over a grid (H, W, C): which places it meets, and the products it takes there.

use std::ops::Range;

use super::number::Number;
use super::product::Panels;
use super::tile::{self, Into, PANEL, Runs};

/// One dimension of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    /// Of the input.
    pub(crate) length: usize,
    /// Of the kernel.
    pub(crate) taps: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Axis {
    /// Of the output.
    pub(crate) fn places(&self) -> usize {
        (self.length + 2 * self.padding - self.taps) / self.stride + 1
    }

    /// From input to output.
    pub(crate) fn forward(&self) -> Line {
        let &Self { length, taps, stride, padding } = self;
        Line { length, before: signed(padding), taps, stride, places: self.places() }
    }

    /// The places of the input fall into as many kinds as the stride is long: those of a kind meet the same taps of the kernel.
    /// Kinds that meet none are left out.
    pub(crate) fn phases(&self) -> impl Iterator<Item = Phase> + Clone {
        let axis = *self;
        let phase = (0..self.stride.min(self.taps)).map(move |remainder| Phase { axis, remainder });
        phase.filter(|phase| phase.places() > 0)
    }
}

/// The places y of the input with `y + padding ≡ remainder` modulo the stride. They meet the taps with that remainder, the last
/// one first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    axis: Axis,
    remainder: usize,
}

impl Phase {
    pub(crate) fn taps(&self) -> usize {
        (self.axis.taps - self.remainder).div_ceil(self.axis.stride)
    }

    /// The kernel's tap that comes n-th.
    pub(crate) fn tap(&self, n: usize) -> usize {
        self.remainder + self.axis.stride * (self.taps() - 1 - n)
    }

    fn first(&self) -> usize {
        let Axis { stride, padding, .. } = self.axis;
        (self.remainder + stride * padding - padding) % stride
    }

    pub(crate) fn places(&self) -> usize {
        self.axis.length.saturating_sub(self.first()).div_ceil(self.axis.stride)
    }

    /// The n-th place.
    pub(crate) fn place(&self, n: usize) -> usize {
        self.first() + n * self.axis.stride
    }

    /// From the gradient of the output to that of the places of this kind.
    pub(crate) fn backward(&self) -> Line {
        let Axis { stride, padding, .. } = self.axis;
        let before = signed(self.taps()) - 1 - signed((self.first() + padding) / stride);
        Line { length: self.axis.places(), before, taps: self.taps(), stride: 1, places: self.places() }
    }
}

fn signed(n: usize) -> isize {
    isize::try_from(n).expect("no length is longer than isize::MAX")
}

/// A walk along one dimension: the n-th of `places` meets `taps` places of the source, from `n · stride − before` on; those outside
/// `0 .. length` are zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    length: usize,
    before: isize,
    taps: usize,
    stride: usize,
    places: usize,
}

impl Line {
    /// Places of the source that are met, or would be.
    fn window(&self) -> usize {
        (self.places - 1) * self.stride + self.taps
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

/// Rows of a product that make a task worth while.
const ROWS_PER_TASK: usize = 256;

/// Bytes of a source that are multiplied by one panel after the other, so that they stay near.
const NEAR: usize = 1 << 17;

impl Walk {
    pub(crate) fn new(down: Line, across: Line, channels: usize) -> Self {
        Self { down, across, channels }
    }

    /// Of one sample.
    pub(crate) fn places(&self) -> usize {
        self.down.places * self.across.places
    }

    /// How many of `samples` a task takes.
    pub(crate) fn samples_per_task(&self, samples: usize) -> usize {
        ROWS_PER_TASK.div_ceil(self.places()).clamp(1, samples.max(1))
    }

    /// Numbers of one sample of the source.
    fn sample(&self) -> usize {
        self.down.length * self.across.length * self.channels
    }

    /// `out[place] = Σ over the patch at the place · panels`, sample by sample. `scratch` holds padded samples.
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
        let start = |place: usize| {
            let (sample, place) = (place / self.places(), place % self.places());
            let (i, j) = (place / self.across.places, place % self.across.places);
            (sample * height + i * self.down.stride) * row + j * self.across.stride * self.channels
        };
        let starts: Vec<usize> = (0..count * self.places()).map(start).collect();
        let runs = Runs { count: self.down.taps, length: self.across.taps * self.channels, step: row };
        let rows = (NEAR / (row * self.down.stride * size_of::<T>())).clamp(1, 8) * self.across.places.max(16);
        for (number, starts) in starts.chunks(rows).enumerate() {
            for (first, columns, panel) in panels.iter() {
                let values = &mut out[number * rows * panels.columns() + first..];
                let into = Into { values, stride: panels.columns(), columns, accumulate: false };
                tile::rows(source, starts, runs, panel, into);
            }
        }
    }

    /// What the walk meets of a sample, with zeros for what lies outside.
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

    /// The patches of some places of all samples as the rows of a right operand, with columns (U, V, C).
    pub(crate) fn panels<T: Number>(&self, samples: &[T], places: Range<usize>) -> Panels<T> {
        let run = self.across.taps * self.channels;
        Panels::filled(places.len(), self.down.taps * run, |columns, panel| {
            // A panel may reach over the end of one row of the kernel into the next.
            let mut column = columns.start;
            while column < columns.end {
                let (tap, offset) = (column / run, column % run);
                let count = (run - offset).min(columns.end - column);
                self.gather(samples, places.clone(), (tap, offset, count), &mut panel[column - columns.start..]);
                column += count;
            }
        })
    }

    /// `count` numbers from `offset` on of what row `tap` of the kernel meets at each place, one place after the other.
    fn gather<T: Number>(
        &self,
        samples: &[T],
        places: Range<usize>,
        (tap, offset, count): (usize, usize, usize),
        into: &mut [T],
    ) {
        let row = signed(self.across.length * self.channels);
        let mut into = into.chunks_mut(PANEL);
        let mut place = places.start;
        while place < places.end {
            let (sample, within) = (place / self.places(), place % self.places());
            let (i, first) = (within / self.across.places, within % self.across.places);
            let length = (self.across.places - first).min(places.end - place);
            place += length;
            let y = signed(i * self.down.stride + tap) - self.down.before;
            let Some(y) = usize::try_from(y).ok().filter(|y| *y < self.down.length) else {
                // Panels are zero at first.
                into.by_ref().take(length).for_each(drop);
                continue;
            };
            let at = sample * self.sample() + y * self.across.length * self.channels;
            let source = &samples[at..][..self.across.length * self.channels];
            for (j, into) in (first..first + length).zip(into.by_ref()) {
                let x = (signed(j * self.across.stride) - self.across.before) * signed(self.channels) + signed(offset);
                if count == PANEL && x >= 0 && x + signed(PANEL) <= row {
                    into[..PANEL].copy_from_slice(&source[x.unsigned_abs()..][..PANEL]);
                    continue;
                }
                let inside = inside(count, -x, source.len());
                if !inside.is_empty() {
                    let from = (signed(inside.start) + x).unsigned_abs();
                    into[inside.clone()].copy_from_slice(&source[from..][..inside.len()]);
                }
            }
        }
    }
}

/// Of `count` places from `−before` on, those within `0 .. length`.
fn inside(count: usize, before: isize, length: usize) -> Range<usize> {
    let within = |n: isize| usize::try_from(n).unwrap_or(0).min(count);
    let start = within(before);
    start..within(signed(length) + before).max(start)
}
