//! The contents of a file of weights in any format.

use std::collections::BTreeMap;

use candle_core::Tensor;

/// Tensors by the names that the file gives them.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    /// The floating-point tensors, converted to f32.
    pub floats: BTreeMap<String, Tensor>,
    /// The types of the other tensors.
    pub others: BTreeMap<String, String>,
}

/// The number of elements of a shape. None if the product overflows, even with a dimension of 0.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    let product = shape.iter().try_fold(1_usize, |product, dimension| product.checked_mul((*dimension).max(1)))?;
    Some(if shape.contains(&0) { 0 } else { product })
}
