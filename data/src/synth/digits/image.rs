//! Written digits: strokes in a writer's hand, then damage to the paper.

use bytes::Bytes;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::super::exact::{Dice, cosine, sine};
use super::strokes::{DIGITS, smooth};

/// Writers of a split.
pub(in super::super) const WRITERS: usize = 64;

/// The side of an image, in pixels.
const SIDE: usize = 28;

/// The fraction of images that cannot be read reliably.
const SPOILT: f64 = 0.21;

/// A writer: what the digits of one person have in common.
pub(in super::super) struct Writer {
    slant: f64,
    aspect: f64,
    pen: f64,
    habits: [f64; 10],
    wobble: f64,
}

impl Writer {
    /// The writer whose stream this is.
    pub(in super::super) fn new(mut dice: Dice) -> Self {
        Self {
            slant: 0.16 * dice.bell(),
            aspect: dice.between(0.6, 0.95),
            pen: dice.between(0.85, 1.7),
            habits: std::array::from_fn(|_| dice.between(0.0, 1.0)),
            wobble: dice.between(0.01, 0.04),
        }
    }
}

/// A grey image of intensities from 0 (paper) to 1 (ink), row by row.
type Canvas = [f64; SIDE * SIDE];

/// A PNG file of `digit`, 28 × 28, 8 bit grey, ink bright.
pub(in super::super) fn png(digit: usize, writer: &Writer, dice: &mut Dice) -> Bytes {
    let mut canvas = [0.0; SIDE * SIDE];
    let ink = dice.between(0.75, 1.0);
    for path in write(digit, writer, dice) {
        draw(&mut canvas, &path, writer.pen * dice.between(0.85, 1.15), ink);
    }
    let spoilt = dice.chance(SPOILT);
    spoil(&mut canvas, spoilt, dice);
    encode(&canvas.map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8))
}

/// The strokes of a digit, in pixels.
fn write(digit: usize, writer: &Writer, dice: &mut Dice) -> Vec<Vec<(f64, f64)>> {
    let ways = DIGITS[digit];
    let habit = if dice.chance(0.9) { writer.habits[digit] } else { dice.between(0.0, 1.0) };
    let way = ways[((habit * ways.len() as f64) as usize).min(ways.len() - 1)];
    let place = Placement::new(writer, dice);
    way.iter().map(|stroke| smooth(stroke, 5).into_iter().map(|point| place.map(point)).collect()).collect()
}

/// An elastic map, then a random affine map from the unit square to pixels.
struct Placement {
    rotation: f64,
    shear: f64,
    width: f64,
    height: f64,
    centre: (f64, f64),
    wobble: f64,
    phases: [f64; 4],
}

impl Placement {
    fn new(writer: &Writer, dice: &mut Dice) -> Self {
        let height = dice.between(16.5, 22.0);
        Self {
            rotation: 0.018 * dice.bell(),
            shear: writer.slant + 0.06 * dice.bell(),
            width: height * writer.aspect * dice.between(0.88, 1.12),
            height,
            centre: (14.0 + 1.1 * dice.bell(), 14.0 + 1.1 * dice.bell()),
            wobble: writer.wobble * dice.between(0.5, 1.5),
            phases: std::array::from_fn(|_| dice.between(0.0, 1.0)),
        }
    }

    fn map(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let bent_x = x + self.wobble * (sine(0.9 * y + self.phases[0]) + sine(1.7 * x + 0.6 * y + self.phases[1]));
        let bent_y = y + self.wobble * (sine(0.9 * x + self.phases[2]) + sine(1.7 * y + 0.6 * x + self.phases[3]));
        let across = (bent_x - 0.5) * self.width - self.shear * (bent_y - 0.5) * self.height;
        let down = (bent_y - 0.5) * self.height;
        let (sin, cos) = (sine(self.rotation), cosine(self.rotation));
        (self.centre.0 + cos * across - sin * down, self.centre.1 + sin * across + cos * down)
    }
}

/// Adds a line through `path`, with a half width of `pen` pixels and a soft edge of one pixel.
fn draw(canvas: &mut Canvas, path: &[(f64, f64)], pen: f64, ink: f64) {
    for span in path.windows(2) {
        let (from, to) = (span[0], span[1]);
        let reach = pen + 1.0;
        let columns = pixels(from.0.min(to.0) - reach, from.0.max(to.0) + reach);
        for row in pixels(from.1.min(to.1) - reach, from.1.max(to.1) + reach) {
            for column in columns.clone() {
                let away = distance((column as f64 + 0.5, row as f64 + 0.5), from, to);
                let value = ink * (pen + 0.5 - away).clamp(0.0, 1.0);
                let pixel = &mut canvas[row * SIDE + column];
                *pixel = pixel.max(value);
            }
        }
    }
}

fn pixels(low: f64, high: f64) -> std::ops::Range<usize> {
    let end = SIDE as f64;
    low.floor().clamp(0.0, end) as usize..high.ceil().clamp(0.0, end) as usize
}

/// The distance from a point to the line between `from` and `to`.
fn distance(point: (f64, f64), from: (f64, f64), to: (f64, f64)) -> f64 {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (px, py) = (point.0 - from.0, point.1 - from.1);
    let along = ((px * dx + py * dy) / (dx * dx + dy * dy + 1e-9)).clamp(0.0, 1.0);
    let (x, y) = (px - along * dx, py - along * dy);
    (x * x + y * y).sqrt()
}

/// Fades, blots, scratches and grain: a little, or so much that the digit often cannot be recognised.
fn spoil(canvas: &mut Canvas, spoilt: bool, dice: &mut Dice) {
    let (contrast, grain, blots, scratches) = if spoilt {
        (dice.between(0.25, 0.6), dice.between(0.25, 0.42), 2 + dice.below(3), 1 + dice.below(3))
    } else {
        (
            dice.between(0.75, 1.0),
            dice.between(0.03, 0.15),
            usize::from(dice.chance(0.3)),
            usize::from(dice.chance(0.2)),
        )
    };
    for _ in 0..blots {
        blot(canvas, if spoilt { 1.5 } else { 1.0 }, dice);
    }
    for _ in 0..scratches {
        let ends = [(); 2].map(|()| (dice.between(2.0, 26.0), dice.between(2.0, 26.0)));
        draw(canvas, &ends, dice.between(0.5, 1.3), dice.between(0.5, 1.0));
    }
    for value in canvas.iter_mut() {
        *value = *value * contrast + grain * dice.bell();
    }
}

/// Covers a rectangle with one shade.
fn blot(canvas: &mut Canvas, size: f64, dice: &mut Dice) {
    let (width, height) = (size * dice.between(3.0, 8.0), size * dice.between(3.0, 8.0));
    let (left, top) = (dice.between(2.0, 26.0) - width / 2.0, dice.between(2.0, 26.0) - height / 2.0);
    let shade = if dice.chance(0.6) { 0.0 } else { dice.between(0.3, 0.9) };
    for row in pixels(top, top + height) {
        canvas[row * SIDE..][pixels(left, left + width)].fill(shade);
    }
}

fn encode(pixels: &[u8; SIDE * SIDE]) -> Bytes {
    let mut file = Vec::with_capacity(1024);
    PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Sub)
        .write_image(pixels, SIDE as u32, SIDE as u32, ExtendedColorType::L8)
        .expect("a vector takes any number of bytes, and the pixels fill the image");
    file.into()
}
