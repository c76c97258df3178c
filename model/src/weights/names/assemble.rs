//! Assembles a tensor of an encoder from its components in a file.

use candle_core::{DType, Device, Result, Tensor};

/// How a tensor of a file relates to a tensor of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Component {
    /// It is the same tensor.
    Whole,
    /// One of three stacked blocks: query, key, value.
    Third(usize),
    /// The transposed tensor.
    Transposed,
    /// A patch embedding (W, P · P · C) with channels last, for a kernel (W, C, P, P).
    Patches,
    /// The same, transposed.
    PatchesTransposed,
    /// Positions (1, N, W) of the patches only. The class token has position 0.
    Positions,
    /// An offset (1, 1, W) to the position of every patch.
    PositionOffset,
    /// An offset (1, 1, W) to every patch, besides sinusoidal positions, which no file stores.
    WavesOffset,
}

/// The tensor, of shape `wanted` if the components allow it. None if components are missing. If components do not fit
/// together, the first one is returned, and its shape shows what is wrong.
pub(super) fn assemble(mut components: Vec<(Component, Tensor)>, wanted: &[usize]) -> Option<Tensor> {
    components.sort_by_key(|(component, _)| *component);
    let kinds: Vec<Component> = components.iter().map(|(component, _)| *component).collect();
    let first = &components.first()?.1;
    let made = match kinds.as_slice() {
        [Component::Whole, ..] => Ok(first.clone()),
        [Component::Third(0), Component::Third(1), Component::Third(2)] => {
            Tensor::cat(&[first, &components[1].1, &components[2].1], 0)
        }
        [Component::Transposed] => transposed(first),
        [Component::Patches] => kernel(first, wanted),
        [Component::PatchesTransposed] => transposed(first).and_then(|patches| kernel(&patches, wanted)),
        [Component::Positions] => with_class(first),
        [Component::Positions, Component::PositionOffset] => {
            first.broadcast_add(&components[1].1).and_then(|sum| with_class(&sum))
        }
        [Component::WavesOffset] => waves(wanted)?.and_then(|waves| with_class(&waves.broadcast_add(first)?)),
        _ => return None,
    };
    Some(made.unwrap_or_else(|_| first.clone()))
}

fn transposed(matrix: &Tensor) -> Result<Tensor> {
    matrix.dims2()?;
    matrix.t()?.contiguous()
}

/// Returned unchanged if its shape is wrong: the comparison reports the shape.
fn kernel(patches: &Tensor, wanted: &[usize]) -> Result<Tensor> {
    match (patches.dims(), wanted) {
        (&[width, numbers], &[own, channels, height, wide]) if width == own && numbers == channels * height * wide => {
            patches.reshape((width, height, wide, channels))?.permute((0, 3, 1, 2))?.contiguous()
        }
        _ => Ok(patches.clone()),
    }
}

fn with_class(positions: &Tensor) -> Result<Tensor> {
    let (_, _, width) = positions.dims3()?;
    Tensor::cat(&[&Tensor::zeros((1, 1, width), DType::F32, &Device::Cpu)?, positions], 1)
}

/// Positions (1, N, W) on a square grid as in He et al. 2022: the sines, then the cosines, of column and then of row
/// times 10000^(−k / (W/4)). None if the grid is not square or the width is no multiple of four.
fn waves(wanted: &[usize]) -> Option<Result<Tensor>> {
    let &[1, tokens, width] = wanted else { return None };
    let (patches, quarter) = (tokens.checked_sub(1)?, width / 4);
    let side = patches.isqrt();
    if side * side != patches || quarter * 4 != width || patches == 0 {
        return None;
    }
    let angle = |place: usize, k: usize| place as f64 / 10_000_f64.powf(k as f64 / quarter as f64);
    let half = |place: usize| {
        let sines = (0..quarter).map(move |k| angle(place, k).sin() as f32);
        sines.chain((0..quarter).map(move |k| angle(place, k).cos() as f32))
    };
    let numbers: Vec<f32> = (0..patches).flat_map(|at| half(at % side).chain(half(at / side))).collect();
    Some(Tensor::from_vec(numbers, (1, patches, width), &Device::Cpu))
}
