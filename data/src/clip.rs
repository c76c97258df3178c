//! Clips: lists of images, from which a fixed number of frames is taken.
//!
//! A sample's features are the mean over its frames (see `antiphon_model::encoder`). The choice of frames depends only
//! on the length of the clip, so it is the same in every epoch, on every machine and in predictions.

use bytes::{BufMut, Bytes, BytesMut};

use super::row::Frame;

/// Positions of the `frames` taken from a clip of `length`: the middles of F equal sections, ⌊(2i + 1)·n / 2F⌋. A
/// shorter clip repeats frames.
pub(super) fn taken(length: usize, frames: u32) -> impl Iterator<Item = usize> {
    let frames = frames.max(1) as usize;
    (0..frames).map(move |i| (2 * i + 1) * length / (2 * frames))
}

/// Packs frames into one value: for each frame its position and, unless it repeats the previous frame, its length and
/// bytes.
pub(super) fn pack(frames: &[Frame]) -> Bytes {
    let mut packed = BytesMut::new();
    let mut last = None;
    for Frame { position, bytes } in frames {
        packed.put_u32_le(*position);
        if last.replace(*position) != Some(*position) {
            packed.put_u64_le(bytes.len() as u64);
            packed.put_slice(bytes);
        }
    }
    packed.freeze()
}

/// The frames that [`pack`] packed. Nothing is copied.
pub(super) fn unpack(packed: &Bytes) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut at = 0;
    while at < packed.len() {
        let position = u32::from_le_bytes(array(packed, at));
        at += 4;
        let bytes = match frames.last() {
            Some(last) if last.position == position => last.bytes.clone(),
            _ => {
                let start = at + 8;
                at = start + u64::from_le_bytes(array(packed, at)) as usize;
                packed.slice(start..at)
            }
        };
        frames.push(Frame { position, bytes });
    }
    frames
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_spread_evenly_and_shorter_clips_repeat() {
        let positions = |length, frames| taken(length, frames).collect::<Vec<_>>();
        assert_eq!(positions(9, 3), [1, 4, 7]);
        assert_eq!(positions(10, 3), [1, 5, 8]);
        assert_eq!(positions(3, 3), [0, 1, 2]);
        assert_eq!(positions(2, 3), [0, 1, 1]);
        assert_eq!(positions(1, 4), [0; 4]);
        for (length, middle) in [(1, 0), (2, 1), (3, 1), (8, 4), (9, 4)] {
            assert_eq!(positions(length, 1), [middle]);
        }
        for (length, frames) in (1..40).flat_map(|length| (1..20).map(move |frames| (length, frames))) {
            let positions = positions(length, frames);
            assert!(positions.is_sorted() && positions.iter().all(|position| *position < length));
            let distinct: std::collections::BTreeSet<_> = positions.iter().collect();
            assert_eq!(distinct.len(), length.min(frames as usize), "{frames} of {length}: {positions:?}");
        }
    }

    #[test]
    fn what_was_packed_comes_out_and_a_repeated_frame_is_held_once() {
        let frame = |position, bytes: &'static [u8]| Frame { position, bytes: Bytes::from_static(bytes) };
        let frames = vec![frame(0, b"one"), frame(0, b"one"), frame(3, b""), frame(9, b"three"), frame(9, b"three")];
        let packed = pack(&frames);
        assert_eq!(packed.len(), 5 * 4 + 3 * 8 + 8);
        assert_eq!(unpack(&packed), frames);
        assert_eq!(unpack(&pack(&[])), []);
    }
}
