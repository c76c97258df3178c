//! PNG and JPEG files to grids in [-1, 1].
//!
//! Colours are converted first (sRGB luma weights for grey; transparency is dropped), then the image is resized with a
//! triangle filter to the modality's size, without preserving its aspect ratio. A value v of 0 to 255
//! becomes v / 127.5 - 1.

use std::io::Cursor;

use ::image::imageops::{self, FilterType};
use ::image::{DynamicImage, ImageFormat, ImageReader, Limits};

use super::error::{SampleError, guarded};

/// The longest side that is decoded, in pixels. It protects against small files that would decode to gigabytes.
const LONGEST: u32 = 16_384;
/// The memory that a decoder may use, in bytes.
const MEMORY: u64 = 512 << 20;

/// The size of a modality's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageSize {
    /// 1 (grey) or 3 (RGB).
    pub(super) channels: u32,
    /// Pixels.
    pub(super) height: u32,
    /// Pixels.
    pub(super) width: u32,
}

/// Whether a file begins like PNG or JPEG.
pub(super) fn is_image(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG") || bytes.starts_with(&[0xff, 0xd8, 0xff])
}

/// Height and width of a file's image.
pub(super) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), SampleError> {
    let image = open(bytes)?;
    Ok((image.height(), image.width()))
}

/// (channels, height, width), row-major.
pub(super) fn decode(bytes: &[u8], size: ImageSize) -> Result<Vec<f32>, SampleError> {
    let image = open(bytes)?;
    let scaled = |v: u8| f32::from(v) / 127.5 - 1.0;
    if size.channels == 1 {
        let mut grey = image.into_luma8();
        if grey.dimensions() != (size.width, size.height) {
            grey = imageops::resize(&grey, size.width, size.height, FilterType::Triangle);
        }
        return Ok(grey.as_raw().iter().map(|v| scaled(*v)).collect());
    }
    let mut colour = image.into_rgb8();
    if colour.dimensions() != (size.width, size.height) {
        colour = imageops::resize(&colour, size.width, size.height, FilterType::Triangle);
    }
    let pixels = colour.as_raw();
    Ok((0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3).map(|v| scaled(*v))).collect())
}

fn open(bytes: &[u8]) -> Result<DynamicImage, SampleError> {
    let format = if bytes.starts_with(b"\x89PNG") { ImageFormat::Png } else { ImageFormat::Jpeg };
    if !is_image(bytes) {
        let what = format!("not a supported image file (it begins with {})", beginning(bytes));
        return Err(SampleError::new(what, "store it as PNG or JPEG"));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST);
    limits.max_image_height = Some(LONGEST);
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    let decoded = guarded(|| Ok(reader.decode()))?;
    decoded.map_err(|error| {
        let what =
            format!("the {} cannot be decoded: {error}", if format == ImageFormat::Png { "PNG" } else { "JPEG" });
        SampleError::new(what, "the image is damaged or truncated; replace it, or make the value null")
    })
}

/// The first bytes of a file, for messages.
pub(super) fn beginning(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing: it is empty".to_owned();
    }
    let shown = &bytes[..bytes.len().min(8)];
    format!("`{}`", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).expect("memory is writable");
        bytes.into_inner()
    }

    #[test]
    fn channels_come_first_and_values_are_scaled() {
        let image = ::image::RgbImage::from_fn(2, 1, |x, _| ::image::Rgb([if x == 0 { 0 } else { 255 }, 255, 51]));
        let decoded =
            decode(&png(&image.into()), ImageSize { channels: 3, height: 1, width: 2 }).expect("a good image");
        assert_eq!(decoded, [-1.0, 1.0, 1.0, 1.0, -0.6, -0.6]);
    }

    #[test]
    fn an_even_image_stays_even_at_any_size() {
        let grey = DynamicImage::from(::image::GrayImage::from_pixel(7, 5, ::image::Luma([51])));
        for (height, width) in [(1, 1), (5, 7), (32, 3)] {
            let decoded = decode(&png(&grey), ImageSize { channels: 1, height, width }).expect("a good image");
            assert_eq!(decoded, vec![-0.6; (height * width) as usize]);
        }
    }

    #[test]
    fn a_png_that_claims_to_be_huge_is_refused() {
        let mut bytes = png(&DynamicImage::from(::image::GrayImage::new(4, 4)));
        bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        assert!(decode(&bytes, ImageSize { channels: 1, height: 4, width: 4 }).is_err());
    }
}
