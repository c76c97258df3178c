//! Products of matrices by cuBLAS, row-major. Factors in f32 or f64 are multiplied and summed in full precision of
//! their type. Products of bf16 factors are exact and summed in f32; a bf16 result is rounded once.
//!
//! Safety: cuBLAS reads and writes at the given addresses, as far as shapes and strides say. Only the files beside this
//! one pass them, and take both from the shapes of their tensors.

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::{DType, Error, Result, Tensor};

use super::launch::Card;

/// A matrix on the GPU, or the first of several.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub(super) address: u64,
    pub(super) dtype: DType,
    /// The distance between the starts of two rows.
    pub(super) stride: usize,
    /// Whether the product uses its transpose.
    pub(super) transposed: bool,
}

impl Matrix {
    /// A matrix with rows of `columns` numbers, without gaps.
    pub(super) fn of(card: &Card, tensor: &Tensor, columns: usize) -> Result<Self> {
        Ok(Self::at(card.address(tensor)?, tensor.dtype(), columns))
    }

    /// A matrix whose rows start `stride` numbers apart.
    pub(super) fn at(address: u64, dtype: DType, stride: usize) -> Self {
        Self { address, dtype, stride, transposed: false }
    }

    pub(super) fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    fn operation(self) -> sys::cublasOperation_t {
        if self.transposed { sys::cublasOperation_t::CUBLAS_OP_T } else { sys::cublasOperation_t::CUBLAS_OP_N }
    }
}

/// (M, N, K): the result is (M, N), and the sums run over K.
pub(super) type Size = (usize, usize, usize);

fn int(number: usize) -> Result<c_int> {
    c_int::try_from(number).map_err(Error::wrap)
}

/// A product for cuBLAS. cuBLAS is column-major, so it computes the transpose of the result: the product of the
/// transposes in reverse order.
struct Call {
    handle: sys::cublasHandle_t,
    left: Matrix,
    right: Matrix,
    into: Matrix,
    size: [c_int; 3],
    /// The strides of left, right and result.
    strides: [c_int; 3],
}

impl Call {
    fn new(card: &Card, (m, n, k): Size, left: Matrix, right: Matrix, into: Matrix) -> Result<Self> {
        let size = [int(m)?, int(n)?, int(k)?];
        let strides = [int(left.stride)?, int(right.stride)?, int(into.stride)?];
        Ok(Self { handle: *card.device.cublas_handle().handle(), left, right, into, size, strides })
    }

    fn dtypes(&self) -> [DType; 3] {
        [self.left.dtype, self.right.dtype, self.into.dtype]
    }

    /// `into = left · right + beta · into` for factors in bf16.
    fn mixed(&self, to: sys::cudaDataType, beta: f32) -> Result<()> {
        let Self { handle, left, right, into, size: [m, n, k], strides } = *self;
        full_sums(handle)?;
        let (from, alpha) = (sys::cudaDataType::CUDA_R_16BF, 1.0_f32);
        // SAFETY: see above.
        let done = unsafe {
            result::gemm_ex(
                handle,
                right.operation(),
                left.operation(),
                n,
                m,
                k,
                (&raw const alpha).cast(),
                right.address as *const c_void,
                from,
                strides[1],
                left.address as *const c_void,
                from,
                strides[0],
                (&raw const beta).cast(),
                into.address as *mut c_void,
                to,
                strides[2],
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(Error::wrap)
    }

    /// As [`Self::mixed`] without `beta`, `count` times, with these distances between consecutive matrices.
    fn mixed_each(&self, to: sys::cudaDataType, count: c_int, steps: [c_longlong; 3]) -> Result<()> {
        let Self { handle, left, right, into, size: [m, n, k], strides } = *self;
        full_sums(handle)?;
        let (from, alpha, beta) = (sys::cudaDataType::CUDA_R_16BF, 1.0_f32, 0.0_f32);
        // SAFETY: see above.
        let done = unsafe {
            result::gemm_strided_batched_ex(
                handle,
                right.operation(),
                left.operation(),
                n,
                m,
                k,
                (&raw const alpha).cast(),
                right.address as *const c_void,
                from,
                strides[1],
                steps[1],
                left.address as *const c_void,
                from,
                strides[0],
                steps[0],
                (&raw const beta).cast(),
                into.address as *mut c_void,
                to,
                strides[2],
                steps[2],
                count,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(Error::wrap)
    }
}

/// Adds the partial sums of a divided sum in f32, even for bf16 results. This does not affect products in f32 and f64.
fn full_sums(handle: sys::cublasHandle_t) -> Result<()> {
    let mode = sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
    // SAFETY: the handle belongs to the GPU, which outlives this call.
    unsafe { sys::cublasSetMathMode(handle, mode) }.result().map_err(Error::wrap)
}

/// `into = left · right`, or `into += left · right`. Both factors have the same type. The result has it too, or is in
/// f32 for bf16 factors.
pub(super) fn multiply(
    card: &Card,
    size: Size,
    left: Matrix,
    right: Matrix,
    into: Matrix,
    accumulate: bool,
) -> Result<()> {
    if size.0 == 0 || size.1 == 0 {
        return Ok(());
    }
    let asked = Call::new(card, size, left, right, into)?;
    let Call { handle, size: [m, n, k], strides, .. } = asked;
    macro_rules! call {
        ($number:ty, $function:path) => {{
            let (alpha, beta): ($number, $number) = (1.0, if accumulate { 1.0 } else { 0.0 });
            // SAFETY: see above.
            unsafe {
                $function(
                    handle,
                    right.operation(),
                    left.operation(),
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
            .map_err(Error::wrap)
        }};
    }
    let beta = if accumulate { 1.0 } else { 0.0 };
    match asked.dtypes() {
        [DType::F32, DType::F32, DType::F32] => call!(f32, result::sgemm),
        [DType::F64, DType::F64, DType::F64] => call!(f64, result::dgemm),
        [DType::BF16, DType::BF16, DType::BF16] => asked.mixed(sys::cudaDataType::CUDA_R_16BF, beta),
        [DType::BF16, DType::BF16, DType::F32] => asked.mixed(sys::cudaDataType::CUDA_R_32F, beta),
        [_, _, other] => Err(Error::UnsupportedDTypeForOp(other, "product")),
    }
}

/// As [`multiply`], `count` times: matrices of `rows` rows, transposed or not, are stored one after the other.
pub(super) fn multiply_each(
    card: &Card,
    (count, rows): (usize, usize),
    size: Size,
    left: Matrix,
    right: Matrix,
    into: Matrix,
) -> Result<()> {
    if size.0 == 0 || size.1 == 0 || count == 0 {
        return Ok(());
    }
    let (asked, count) = (Call::new(card, size, left, right, into)?, int(count)?);
    let Call { handle, size: [m, n, k], strides, .. } = asked;
    let steps = [left, right, into].map(|matrix| (rows * matrix.stride) as c_longlong);
    macro_rules! call {
        ($number:ty, $function:path) => {{
            let (alpha, beta): ($number, $number) = (1.0, 0.0);
            // SAFETY: see above.
            unsafe {
                $function(
                    handle,
                    right.operation(),
                    left.operation(),
                    n,
                    m,
                    k,
                    &alpha,
                    right.address as *const $number,
                    strides[1],
                    steps[1],
                    left.address as *const $number,
                    strides[0],
                    steps[0],
                    &beta,
                    into.address as *mut $number,
                    strides[2],
                    steps[2],
                    count,
                )
            }
            .map_err(Error::wrap)
        }};
    }
    match asked.dtypes() {
        [DType::F32, DType::F32, DType::F32] => call!(f32, result::sgemm_strided_batched),
        [DType::F64, DType::F64, DType::F64] => call!(f64, result::dgemm_strided_batched),
        [DType::BF16, DType::BF16, DType::BF16] => asked.mixed_each(sys::cudaDataType::CUDA_R_16BF, count, steps),
        [DType::BF16, DType::BF16, DType::F32] => asked.mixed_each(sys::cudaDataType::CUDA_R_32F, count, steps),
        [_, _, other] => Err(Error::UnsupportedDTypeForOp(other, "products")),
    }
}
