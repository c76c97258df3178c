//! Tensors on the wire: little-endian f32 in row-major order, checked for element type, shape, size and finiteness.

use antiphon_core::linalg::Matrix;
use bytes::Bytes;

use crate::error::WireError;
use crate::v1;

const F32_BYTES: usize = size_of::<f32>();

/// What a dimension of an incoming tensor must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// This and nothing else.
    Exactly(usize),
    /// 1 to this many.
    AtMost(usize),
}

impl Dimension {
    fn admits(self, given: u64) -> bool {
        match self {
            Self::Exactly(n) => given == n as u64,
            Self::AtMost(n) => (1..=n as u64).contains(&given),
        }
    }
}

impl std::fmt::Display for Dimension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(n) => n.fmt(f),
            Self::AtMost(n) => write!(f, "1 to {n}"),
        }
    }
}

/// A tensor of `shape` over `data`, which holds product(shape) numbers.
#[must_use]
pub fn encode_f32(shape: &[usize], data: &[f32]) -> v1::Tensor {
    debug_assert_eq!(shape.iter().product::<usize>(), data.len(), "a tensor's data must fill its shape");
    let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
    v1::Tensor {
        dtype: v1::DataType::F32.into(),
        shape: shape.iter().map(|d| *d as u64).collect(),
        data: Bytes::from(bytes),
    }
}

/// The tensor of a (rows, columns) matrix.
#[must_use]
pub fn encode_matrix(matrix: &Matrix<f32>) -> v1::Tensor {
    encode_f32(&[matrix.rows(), matrix.cols()], matrix.as_slice())
}

/// The numbers of `tensor`, whose shape must be `expected`, which must be of at most `limit` bytes, and all finite.
///
/// # Errors
/// Whatever is wrong first, in this order: element type, shape, size, number of bytes, a number that is not finite.
pub fn decode_f32(
    field: &str,
    tensor: &v1::Tensor,
    expected: &[Dimension],
    limit: usize,
) -> Result<(Vec<usize>, Vec<f32>), WireError> {
    check_data_type(field, tensor.dtype)?;
    let shape = checked_shape(field, &tensor.shape, expected, limit)?;
    let needed = shape.iter().product::<usize>() * F32_BYTES;
    if tensor.data.len() != needed {
        return Err(WireError::ByteLength {
            field: field.to_owned(),
            shape: shape_text(&tensor.shape),
            expected: needed,
            given: tensor.data.len(),
        });
    }
    let (words, _) = tensor.data.as_chunks::<F32_BYTES>();
    let numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    match numbers.iter().position(|x| !x.is_finite()) {
        None => Ok((shape, numbers)),
        Some(index) => Err(not_finite(field, index, numbers[index].into())),
    }
}

/// As [`decode_f32`], for a matrix of `rows` by `columns`.
///
/// # Errors
/// As [`decode_f32`]; a tensor that is not there is missing.
pub fn decode_matrix(
    field: &str,
    tensor: Option<&v1::Tensor>,
    rows: Dimension,
    columns: Dimension,
    limit: usize,
) -> Result<Matrix<f32>, WireError> {
    let tensor = crate::error::required(field, tensor)?;
    let (shape, numbers) = decode_f32(field, tensor, &[rows, columns], limit)?;
    Matrix::from_vec(shape[0], shape[1], numbers).map_err(|_| WireError::ByteLength {
        field: field.to_owned(),
        shape: shape_text(&tensor.shape),
        expected: shape[0] * shape[1] * F32_BYTES,
        given: tensor.data.len(),
    })
}

/// As [`decode_f32`], for a vector of `length` numbers.
///
/// # Errors
/// As [`decode_f32`]; a tensor that is not there is missing.
pub fn decode_vector(
    field: &str,
    tensor: Option<&v1::Tensor>,
    length: usize,
    limit: usize,
) -> Result<Vec<f32>, WireError> {
    let tensor = crate::error::required(field, tensor)?;
    Ok(decode_f32(field, tensor, &[Dimension::Exactly(length)], limit)?.1)
}

/// The error for a number that is NaN or infinite.
pub(crate) fn not_finite(field: &str, index: usize, value: f64) -> WireError {
    WireError::NotFinite { field: field.to_owned(), index, value: value.to_string() }
}

fn check_data_type(field: &str, dtype: i32) -> Result<(), WireError> {
    match v1::DataType::try_from(dtype) {
        Ok(v1::DataType::F32) => Ok(()),
        Ok(v1::DataType::F64) => Err(WireError::DataType { field: field.to_owned(), expected: "f32", given: "f64" }),
        Ok(v1::DataType::Unspecified) | Err(_) => {
            Err(WireError::UnknownEnum { field: format!("{field}.dtype"), kind: "DataType", value: dtype })
        }
    }
}

/// Checks before it multiplies: a shape may name any numbers, and their product need not fit a machine word.
fn checked_shape(field: &str, given: &[u64], expected: &[Dimension], limit: usize) -> Result<Vec<usize>, WireError> {
    if given.len() != expected.len() || !given.iter().zip(expected).all(|(d, rule)| rule.admits(*d)) {
        return Err(WireError::Shape {
            field: field.to_owned(),
            expected: shape_text(expected),
            given: shape_text(given),
        });
    }
    let bytes = given.iter().try_fold(F32_BYTES as u64, |product, d| product.checked_mul(*d));
    match bytes {
        Some(bytes) if bytes <= limit as u64 => Ok(given.iter().map(|d| *d as usize).collect()),
        _ => Err(WireError::TooLarge { field: field.to_owned(), shape: shape_text(given), limit }),
    }
}

/// `(10, 512)`; a hostile shape of many dimensions is cut.
fn shape_text<D: std::fmt::Display>(shape: &[D]) -> String {
    const SHOWN: usize = 8;
    let mut dimensions: Vec<String> = shape.iter().take(SHOWN).map(ToString::to_string).collect();
    if shape.len() > SHOWN {
        dimensions.push(format!("… {} dimensions", shape.len()));
    }
    format!("({})", dimensions.join(", "))
}
