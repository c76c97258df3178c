//! Products of matrices by cuBLAS, in full precision of their type, row-major.
//!
//! Safety: cuBLAS reads and writes what it is given addresses of, as far as shapes and strides say. Only the files beside this
//! one give them, and take both from the shapes of their tensors.

use std::ffi::c_int;

use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::{DType, Error, Result, Tensor};

use super::launch::Card;

/// A matrix on the card, or an array of addresses of some.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub(super) address: u64,
    /// From the start of a row to that of the next.
    pub(super) stride: usize,
    /// Whether its transpose is meant.
    pub(super) transposed: bool,
}

impl Matrix {
    /// Rows of `columns` numbers, without gaps.
    pub(super) fn of(card: &Card, tensor: &Tensor, columns: usize) -> Result<Self> {
        Ok(Self::at(card.address(tensor)?, columns))
    }

    /// Rows that begin every `stride` numbers.
    pub(super) fn at(address: u64, stride: usize) -> Self {
        Self { address, stride, transposed: false }
    }

    pub(super) fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    fn operation(self) -> sys::cublasOperation_t {
        if self.transposed { sys::cublasOperation_t::CUBLAS_OP_T } else { sys::cublasOperation_t::CUBLAS_OP_N }
    }
}

/// (M, N, K): the result is (M, N), K is what is summed over.
pub(super) type Size = (usize, usize, usize);

fn int(number: usize) -> Result<c_int> {
    c_int::try_from(number).map_err(Error::wrap)
}

/// `into = left · right`, or `into += left · right`.
pub(super) fn multiply(
    card: &Card,
    (m, n, k): Size,
    left: Matrix,
    right: Matrix,
    into: Matrix,
    accumulate: bool,
) -> Result<()> {
    if m == 0 || n == 0 {
        return Ok(());
    }
    let blas = card.device.cublas_handle();
    // cuBLAS is column-major: it is asked for the transpose of the result, which is the product of the transposes the other way round.
    let operations = (right.operation(), left.operation());
    let (m, n, k) = (int(m)?, int(n)?, int(k)?);
    let strides = [int(left.stride)?, int(right.stride)?, int(into.stride)?];
    let handle = *blas.handle();
    macro_rules! call {
        ($number:ty, $function:path) => {{
            let (alpha, beta): ($number, $number) = (1.0, if accumulate { 1.0 } else { 0.0 });
            // SAFETY: see above.
            unsafe {
                $function(
                    handle,
                    operations.0,
                    operations.1,
                    n,
                    m,
                    k,
                    &alpha,
                    right.address as *const $number,
                    strides[1],
                    left.address as *const $number,
                    strides[0],
                    &beta,
                    into.address as *mut $number,
                    strides[2],
                )
            }
        }};
    }
    match card.dtype {
        DType::F32 => call!(f32, result::sgemm).map_err(Error::wrap),
        DType::F64 => call!(f64, result::dgemm).map_err(Error::wrap),
        other => Err(Error::UnsupportedDTypeForOp(other, "product")),
    }
}

/// As [`multiply`], `count` times: the addresses are those of arrays of addresses.
pub(super) fn multiply_each(
    card: &Card,
    count: usize,
    (m, n, k): Size,
    left: Matrix,
    right: Matrix,
    into: Matrix,
) -> Result<()> {
    if m == 0 || n == 0 || count == 0 {
        return Ok(());
    }
    let blas = card.device.cublas_handle();
    let operations = (right.operation(), left.operation());
    let (m, n, k, count) = (int(m)?, int(n)?, int(k)?, int(count)?);
    let strides = [int(left.stride)?, int(right.stride)?, int(into.stride)?];
    let handle = *blas.handle();
    macro_rules! call {
        ($number:ty, $function:path) => {{
            let (alpha, beta): ($number, $number) = (1.0, 0.0);
            // SAFETY: see above.
            unsafe {
                $function(
                    handle,
                    operations.0,
                    operations.1,
                    n,
                    m,
                    k,
                    &alpha,
                    right.address as *const *const $number,
                    strides[1],
                    left.address as *const *const $number,
                    strides[0],
                    &beta,
                    into.address as *const *mut $number,
                    strides[2],
                    count,
                )
            }
        }};
    }
    let status = match card.dtype {
        DType::F32 => call!(f32, sys::cublasSgemmBatched),
        DType::F64 => call!(f64, sys::cublasDgemmBatched),
        other => return Err(Error::UnsupportedDTypeForOp(other, "products")),
    };
    status.result().map_err(Error::wrap)
}
