//! Sound files to mono samples. Headers are checked against the content.
//!
//! In WAV files the lengths of chunks and the number of samples are checked. In FLAC files the checksum of each frame
//! is checked. If the whole file is decoded because it is not longer than needed, so are the number of samples and the
//! MD5 in the header, if it has one. MP3 frames must only be decodable: checksums are optional and ignored, and the
//! header makes no reliable promise. So an MP3 file that was truncated between two frames counts as a shorter
//! recording.

use std::io::Cursor;

use bytes::Bytes;
use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use super::super::error::SampleError;
use super::super::image::beginning;

const REPLACE: &str = "the recording is damaged or truncated; replace it, or make the value null";
/// The accepted sample rates, in Hz.
const RATES: std::ops::RangeInclusive<u32> = 1000..=768_000;
/// Extra samples that are decoded, so that resampling sees what follows the end.
const MARGIN: usize = 4096;

/// Mono samples in [-1, 1].
#[derive(Debug)]
pub(super) struct Recording {
    /// Hz.
    pub(super) rate: u32,
    /// The mean of all channels.
    pub(super) samples: Vec<f32>,
}

/// Whether a file begins like WAV, FLAC or MP3.
pub(in super::super) fn is_audio(bytes: &[u8]) -> bool {
    container(bytes).is_some()
}

/// The format by the first bytes of a file: WAV, FLAC or MP3.
pub(super) fn container(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some("WAV"),
        [b'f', b'L', b'a', b'C', ..] => Some("FLAC"),
        [b'I', b'D', b'3', ..] => Some("MP3"),
        [0xff, second, ..] if second & 0xe6 == 0xe2 => Some("MP3"),
        _ => None,
    }
}

/// Decodes the first `seconds` of a file, and a margin.
pub(super) fn decode(bytes: &[u8], seconds: f64) -> Result<Recording, SampleError> {
    let Some(container) = container(bytes) else {
        let what = format!("not a supported audio file (it begins with {})", beginning(bytes));
        return Err(SampleError::new(what, "store it as WAV, FLAC or MP3"));
    };
    if container == "WAV" {
        check_wav(bytes)?;
    }
    let failed = |error: Error| SampleError::new(format!("the {container} cannot be decoded: {error}"), REPLACE);
    let mut format = open(bytes).map_err(failed)?;
    let track = format.default_track(TrackType::Audio).ok_or_else(|| failed(Error::Unsupported("no audio track")))?;
    let id = track.id;
    let promised = track.num_frames.filter(|_| container != "MP3");
    let parameters = track.codec_params.as_ref().and_then(|parameters| parameters.audio());
    let parameters = parameters.ok_or_else(|| failed(Error::Unsupported("no parameters of the codec")))?;
    let options = AudioDecoderOptions::default().verify(container == "FLAC");
    let mut decoder = symphonia::default::get_codecs().make_audio_decoder(parameters, &options).map_err(failed)?;
    let (recording, ended) = samples(format.as_mut(), decoder.as_mut(), id, seconds, failed)?;
    if ended && decoder.finalize().verify_ok == Some(false) {
        let what = format!("the {container}'s samples do not match its MD5");
        return Err(SampleError::new(what, REPLACE));
    }
    let there = recording.samples.len() as u64;
    match promised {
        Some(promised) if ended && there < promised => Err(SampleError::new(
            format!("the {container}'s header promises {promised} samples, but there are {there}"),
            REPLACE,
        )),
        _ if there == 0 => Err(SampleError::new(format!("the {container} has no samples"), REPLACE)),
        _ => Ok(recording),
    }
}

fn open(bytes: &[u8]) -> Result<Box<dyn FormatReader>, Error> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(Bytes::copy_from_slice(bytes))), Default::default());
    symphonia::default::get_probe().probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
}

/// The samples, and whether the end of the file was reached.
fn samples(
    format: &mut dyn FormatReader,
    decoder: &mut dyn AudioDecoder,
    track: u32,
    seconds: f64,
    failed: impl Fn(Error) -> SampleError,
) -> Result<(Recording, bool), SampleError> {
    let mut recording = Recording { rate: 0, samples: Vec::new() };
    let mut interleaved: Vec<f32> = Vec::new();
    loop {
        let packet = match format.next_packet().map_err(&failed)? {
            Some(packet) if packet.track_id == track => packet,
            Some(_) => continue,
            None => return Ok((recording, true)),
        };
        let decoded = decoder.decode(&packet).map_err(&failed)?;
        let (rate, channels) = (decoded.spec().rate(), decoded.spec().channels().count());
        check_rate(rate, recording.rate, channels)?;
        recording.rate = rate;
        decoded.copy_to_vec_interleaved(&mut interleaved);
        let scale = 1.0 / channels as f32;
        recording.samples.extend(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * scale));
        if recording.samples.iter().rev().take(interleaved.len() / channels).any(|sample| !sample.is_finite()) {
            return Err(SampleError::new("a sample is not a finite number", REPLACE));
        }
        if recording.samples.len() >= (seconds * f64::from(rate)).ceil() as usize + MARGIN {
            return Ok((recording, false));
        }
    }
}

fn check_rate(rate: u32, before: u32, channels: usize) -> Result<(), SampleError> {
    if !RATES.contains(&rate) {
        let what = format!("its header says {rate} Hz, which is not between {} and {}", RATES.start(), RATES.end());
        return Err(SampleError::new(what, REPLACE));
    }
    if (before != 0 && before != rate) || channels == 0 {
        return Err(SampleError::new(
            format!("its sample rate changes from {before} to {rate} Hz, or it has no channels"),
            REPLACE,
        ));
    }
    Ok(())
}

/// Checks the lengths of the chunks of a WAV file. A writer that could not seek leaves a length of 2³² − 1.
fn check_wav(bytes: &[u8]) -> Result<(), SampleError> {
    let mut at = 12;
    while let Some(header) = bytes.get(at..at + 8) {
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let there = bytes.len() - at - 8;
        if length != u32::MAX && length as usize > there {
            let name = header[..4].escape_ascii();
            let what = format!("the WAV's header promises {length} bytes in its `{name}` chunk, but there are {there}");
            return Err(SampleError::new(what, REPLACE));
        }
        if let (b"fmt ", Some(format)) = (&header[..4], bytes.get(at + 8..at + 24)) {
            check_wav_format(format)?;
        }
        if header.starts_with(b"data") {
            return Ok(());
        }
        at += 8 + length as usize + length as usize % 2;
    }
    Err(SampleError::new("the WAV has no `data` chunk", REPLACE))
}

/// Checks the ranges of the numbers in the `fmt ` chunk, which the decoder multiplies unchecked.
fn check_wav_format(format: &[u8]) -> Result<(), SampleError> {
    let channels = u16::from_le_bytes([format[2], format[3]]);
    let rate = u32::from_le_bytes([format[4], format[5], format[6], format[7]]);
    let bits = u16::from_le_bytes([format[14], format[15]]);
    if !(1..=64).contains(&channels) || bits > 64 {
        let what = format!("the WAV's header says {channels} channels of {bits} bits");
        return Err(SampleError::new(what, REPLACE));
    }
    check_rate(rate, 0, channels.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1000 samples of 1000 at 8 kHz, mono, 16 bit, in one frame of a constant, with this MD5 in the header.
    fn flac(md5: u128) -> Vec<u8> {
        let information = [0x03e8_03e8_0000_u64 << 16, 0x01f4_00f0_0000_03e8].map(u64::to_be_bytes).concat();
        let frame = [0xff, 0xf8, 0x74, 0x08, 0x00, 0x03, 0xe7, 0x11, 0x00, 0x03, 0xe8, 0x13, 0xe5];
        let (sizes, rest) = information.split_at(8);
        [b"fLaC".as_slice(), &[0x80, 0, 0, 34], sizes, &[0, 0], rest, &md5.to_be_bytes(), &frame].concat()
    }

    const MD5: u128 = 0x67d8_e138_fa3c_f40d_59ac_3c73_fd9b_e593;

    #[test]
    fn a_flac_is_held_to_its_md5_if_it_gives_one() {
        for md5 in [MD5, 0] {
            let recording = decode(&flac(md5), 1.0).expect("a good file");
            assert_eq!((recording.rate, recording.samples.len()), (8000, 1000));
            assert!(recording.samples.iter().all(|sample| *sample == 1000.0 / 32768.0));
        }
        let error = decode(&flac(MD5 + 1), 1.0).expect_err("an MD5 of other samples");
        assert!(error.what.contains("MD5"), "{error}");
    }

    #[test]
    fn a_damaged_frame_of_a_flac_is_refused() {
        let mut bytes = flac(MD5);
        let value = bytes.len() - 3;
        bytes[value] ^= 1;
        assert!(decode(&bytes, 1.0).is_err());
    }
}
