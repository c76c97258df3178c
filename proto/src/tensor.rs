//! Tensors on the wire: little-endian f32 in row-major order, checked for element type, shape, size and finiteness.

use antiphon_core::linalg::Matrix;
use std::sync::Arc;

use antiphon_core::head::Head;
use bytes::Bytes;

use crate::elements::{F32_BYTES, Followed, finite_prefix, read_f32, shape_text};
use crate::error::WireError;
use crate::v1;

/// The rule for a dimension of an incoming tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// Exactly this number.
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

/// A tensor of `shape` over `data`, which holds product(shape) numbers. The numbers are not copied.
#[must_use]
pub fn encode_f32(shape: &[usize], data: Vec<f32>) -> v1::Tensor {
    encode_shared(shape, data)
}

/// The tensor of a (rows, columns) matrix. Its numbers are not copied.
#[must_use]
pub fn encode_matrix(matrix: Matrix<f32>) -> v1::Tensor {
    encode_f32(&[matrix.rows(), matrix.cols()], matrix.into_vec())
}

/// The tensors of W (C, s) and b (C) of a shared head. Its numbers are not copied.
#[must_use]
pub fn encode_head(head: &Arc<Head<f32>>) -> (v1::Tensor, v1::Tensor) {
    let (classes, width) = (head.classes(), head.width());
    let weight = encode_shared(&[classes, width], Weight(Arc::clone(head)));
    (weight, encode_shared(&[classes], Bias(Arc::clone(head))))
}

struct Weight(Arc<Head<f32>>);
struct Bias(Arc<Head<f32>>);

impl AsRef<[f32]> for Weight {
    fn as_ref(&self) -> &[f32] {
        self.0.weight().as_slice()
    }
}

impl AsRef<[f32]> for Bias {
    fn as_ref(&self) -> &[f32] {
        self.0.bias()
    }
}

/// Numbers as their bytes in memory. On little-endian processors, these are the bytes of the wire.
struct InMemory<T>(T);

impl<T: AsRef<[f32]>> AsRef<[u8]> for InMemory<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self.0.as_ref())
    }
}

fn encode_shared(shape: &[usize], numbers: impl AsRef<[f32]> + Send + 'static) -> v1::Tensor {
    let given = numbers.as_ref();
    debug_assert_eq!(shape.iter().product::<usize>(), given.len(), "a tensor's data must fill its shape");
    let data = if cfg!(target_endian = "little") {
        Bytes::from_owner(InMemory(numbers))
    } else {
        given.iter().flat_map(|x| x.to_le_bytes()).collect()
    };
    v1::Tensor { dtype: v1::DataType::F32.into(), shape: shape.iter().map(|d| *d as u64).collect(), data }
}

/// The numbers of `tensor`: its shape must be `expected`, its size at most `limit` bytes, and all numbers finite.
/// Elements that followed the message are taken from `followed`.
///
/// # Errors
/// The first error, in this order: element type, shape, size, number of bytes, a number that is not finite.
pub fn decode_f32(
    field: &str,
    tensor: &v1::Tensor,
    expected: &[Dimension],
    limit: usize,
    followed: &mut Followed,
) -> Result<(Vec<usize>, Vec<f32>), WireError> {
    read(field, tensor, Rules { expected, limit, scan: Scan::Now }, followed)
}

/// Where numbers are checked to be finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// In the decoding function.
    Now,
    /// In its caller, with the caller's other checks of each number. Elements that followed in chunks were checked on
    /// arrival.
    Caller,
}

/// The rules for a tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) expected: &'a [Dimension],
    /// The largest size in bytes.
    pub(crate) limit: usize,
    pub(crate) scan: Scan,
}

/// As [`decode_f32`].
pub(crate) fn read(
    field: &str,
    tensor: &v1::Tensor,
    Rules { expected, limit, scan }: Rules<'_>,
    followed: &mut Followed,
) -> Result<(Vec<usize>, Vec<f32>), WireError> {
    check_data_type(field, tensor.dtype)?;
    let shape = checked_shape(field, &tensor.shape, expected, limit)?;
    let needed = shape.iter().product::<usize>() * F32_BYTES;
    let came_whole = tensor.data.len() == needed;
    let elements = (!came_whole && tensor.data.is_empty()).then(|| followed.next_tensor()).flatten();
    let (numbers, bad) = match elements {
        Some(elements) if elements.numbers.len() * F32_BYTES == needed => (elements.numbers, elements.not_finite),
        None if came_whole => {
            let mut numbers = Vec::with_capacity(needed / F32_BYTES);
            read_f32(&tensor.data, &mut numbers);
            let finite = if scan == Scan::Now { finite_prefix(&numbers) } else { numbers.len() };
            let bad = (finite < numbers.len()).then_some(finite);
            (numbers, bad)
        }
        other => {
            return Err(WireError::ByteLength {
                field: field.to_owned(),
                shape: shape_text(&tensor.shape),
                expected: needed,
                given: other.map_or(tensor.data.len(), |elements| elements.numbers.len() * F32_BYTES),
            });
        }
    };
    match bad {
        None => Ok((shape, numbers)),
        Some(index) => Err(not_finite(field, index, numbers[index].into())),
    }
}

/// As [`decode_f32`], for a matrix of `rows` by `columns`.
///
/// # Errors
/// As [`decode_f32`]; a missing tensor.
pub fn decode_matrix(
    field: &str,
    tensor: Option<&v1::Tensor>,
    rows: Dimension,
    columns: Dimension,
    limit: usize,
    followed: &mut Followed,
) -> Result<Matrix<f32>, WireError> {
    read_matrix(field, tensor, Rules { expected: &[rows, columns], limit, scan: Scan::Now }, followed)
}

/// As [`decode_matrix`], with a rule for each dimension.
pub(crate) fn read_matrix(
    field: &str,
    tensor: Option<&v1::Tensor>,
    rules: Rules<'_>,
    followed: &mut Followed,
) -> Result<Matrix<f32>, WireError> {
    let tensor = crate::error::required(field, tensor)?;
    let (shape, numbers) = read(field, tensor, rules, followed)?;
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
/// As [`decode_f32`]; a missing tensor.
pub fn decode_vector(
    field: &str,
    tensor: Option<&v1::Tensor>,
    length: usize,
    limit: usize,
    followed: &mut Followed,
) -> Result<Vec<f32>, WireError> {
    let tensor = crate::error::required(field, tensor)?;
    Ok(decode_f32(field, tensor, &[Dimension::Exactly(length)], limit, followed)?.1)
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

/// Checks each dimension before multiplying them: a sender may choose any numbers, and their product may overflow.
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
