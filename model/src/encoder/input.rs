//! Converts batches to the input of an encoder, and averages the frames of clips.

use antiphon_data::{BatchInput, InputShape};
use candle_core::{DType, Device, Tensor, Var};

use super::error::EncoderError;
use crate::nn::layer::Pass;
use crate::nn::segment_mean::segment_mean;
use crate::nn::value::Value;

/// The dense batch as a tensor of this type on this device, if it has the shape that the encoder reads: (B, …), or
/// (B·F, …) for clips.
pub(super) fn read(
    input: &BatchInput,
    expected: &InputShape,
    numbers: DType,
    device: &Device,
) -> Result<Tensor, EncoderError> {
    let sample = match *expected {
        InputShape::Features { width } => vec![width],
        InputShape::Grid { channels, height, width } => vec![channels, height, width],
        InputShape::Clip { frames, channels, height, width } => vec![frames, channels, height, width],
        InputShape::Tokens { .. } => vec![],
    };
    match input {
        BatchInput::Dense { shape, data } if shape.len() > 1 && shape[1..] == sample => {
            let tensor = match numbers {
                #[cfg(feature = "cuda")]
                DType::F32 if device.is_cuda() => crate::nn::cuda::staging::upload(data, shape.as_slice(), device)?,
                _ => Tensor::from_slice(data, shape.as_slice(), &Device::Cpu)?.to_dtype(numbers)?.to_device(device)?,
            };
            Ok(if let InputShape::Clip { .. } = expected { tensor.flatten(0, 1)? } else { tensor })
        }
        BatchInput::Dense { shape, .. } => Err(wrong_batch(expected, format!("shape {shape:?}"))),
        BatchInput::Tokens { .. } => Err(wrong_batch(expected, "texts".to_owned())),
    }
}

/// A batch for a candle network. Dense batches are in f32. Token sequences are padded to the longest possible length,
/// so that no sample's shape depends on its batch.
pub(crate) fn tensor_of(input: &BatchInput, expected: &InputShape, device: &Device) -> Result<Tensor, EncoderError> {
    match (input, expected) {
        (BatchInput::Tokens { ids, lengths, longest }, InputShape::Tokens { max_tokens, padding, .. })
            if longest <= max_tokens =>
        {
            let mut filled = Vec::with_capacity(lengths.len() * max_tokens);
            for row in ids.chunks_exact((*longest).max(1)) {
                filled.extend_from_slice(row);
                filled.resize(filled.len() + max_tokens - longest, *padding);
            }
            Ok(Tensor::from_vec(filled, (lengths.len(), *max_tokens), device)?)
        }
        _ => read(input, expected, DType::F32, device),
    }
}

/// The dense batch for our own layers, on the device of the parameters, if it has the shape that the encoder reads.
pub(super) fn dense(
    input: &BatchInput,
    expected: &InputShape,
    pass: &Pass<'_>,
    parameters: &[(String, Var)],
) -> Result<Tensor, EncoderError> {
    read(input, expected, pass.activations(), parameters[0].1.device())
}

/// A batch of grids (B, C, H, W) with channels last, (B, H, W, C), as convolutions read it. For clips, B·F grids.
pub(super) fn grid(
    input: &BatchInput,
    expected: &InputShape,
    pass: &Pass<'_>,
    parameters: &[(String, Var)],
) -> Result<Value, EncoderError> {
    let (device, flowing) = (parameters[0].1.device(), pass.activations());
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        // It is copied unchanged: the GPU permutes and rounds it faster.
        let x = read(input, expected, parameters[0].1.dtype(), device)?;
        return Ok(Value::constant(crate::nn::cuda::convolution::channels_last(&x, flowing)?));
    }
    debug_assert!(device.is_cpu(), "{device:?}");
    Ok(Value::constant(read(input, expected, flowing, device)?.permute((0, 2, 3, 1))?.contiguous()?))
}

/// The mean over the frames of each sample: `x` is (B·F, N), the result (B, N). Other inputs than clips are returned
/// unchanged.
pub(super) fn frame_mean(x: Value, shape: &InputShape) -> candle_core::Result<Value> {
    let frames = shape.frames();
    if frames == 1 {
        return Ok(x);
    }
    let samples = x.tensor().dim(0)? / frames;
    segment_mean(&x, (0..samples).map(|sample| sample * frames..(sample + 1) * frames).collect())
}

pub(super) fn wrong_batch(expected: &InputShape, got: String) -> EncoderError {
    EncoderError::WrongBatch { expected: expected.clone(), got }
}
