//! What a file holds, whatever its format.

use std::collections::BTreeMap;

use candle_core::Tensor;

/// Tensors by the names that the file gives them.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    /// In f32, whatever the file's precision.
    pub floats: BTreeMap<String, Tensor>,
    /// The types of those whose elements are no floating-point numbers.
    pub others: BTreeMap<String, String>,
}

/// How many a shape has. None where the product overflows, even behind a dimension of 0.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    let product = shape.iter().try_fold(1_usize, |product, dimension| product.checked_mul((*dimension).max(1)))?;
    Some(if shape.contains(&0) { 0 } else { product })
}
