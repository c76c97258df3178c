//! Convolutions by cuDNN: grids and kernels with channels last, summed in f32, by its deterministic algorithms.
//!
//! Safety: cuDNN reads and writes as far as the descriptors say, which are made here of the shapes that the tensors have.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::safe::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, FilterDescriptor,
    TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::cudnn::{result::CudnnError, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::{DType, Error, Result, Tensor};
use half::bf16;

use super::convolution::Convolution;
use super::launch::Card;

// A handle belongs to a thread.
thread_local! {
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
}

fn handle(card: &Card) -> Result<Arc<Cudnn>> {
    HANDLES.with_borrow_mut(|handles| {
        if let Some(handle) = handles.get(&card.device.id()) {
            return Ok(Arc::clone(handle));
        }
        let handle = Cudnn::new(card.device.cuda_stream()).map_err(Error::wrap)?;
        handles.insert(card.device.id(), Arc::clone(&handle));
        Ok(handle)
    })
}

/// What cuDNN is told of a convolution of these numbers.
struct Described<N> {
    convolution: ConvDescriptor<f32>,
    input: TensorDescriptor<N>,
    kernel: FilterDescriptor<N>,
    output: TensorDescriptor<N>,
}

/// What flows between operators, as cuDNN knows it. It is summed in f32.
trait Number: CudnnDataType + DeviceRepr {
    const ONE: Self;
    const ZERO: Self;
    /// Which products are taken.
    const MATH: sys::cudnnMathType_t;
}

impl Number for f32 {
    const ONE: Self = 1.0;
    const ZERO: Self = 0.0;
    // Without it products may be of fewer digits.
    const MATH: sys::cudnnMathType_t = sys::cudnnMathType_t::CUDNN_FMA_MATH;
}

impl Number for bf16 {
    const ONE: Self = Self::ONE;
    const ZERO: Self = Self::ZERO;
    // Products of bf16 are exact in f32.
    const MATH: sys::cudnnMathType_t = sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH;
}

fn ints<const N: usize>(numbers: [usize; N]) -> Result<[c_int; N]> {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(numbers) {
        *to = c_int::try_from(from).map_err(Error::wrap)?;
    }
    Ok(out)
}

impl<N: Number> Described<N> {
    fn of(c: &Convolution) -> Result<Self> {
        let dnn = handle(&c.card)?;
        let (last, cross) =
            (sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION);
        let (padding, stride) = (ints([c.padding; 2])?, ints([c.stride; 2])?);
        let mut convolution = dnn.create_conv2d(padding, stride, [1, 1], cross).map_err(Error::wrap)?;
        convolution.set_math_type(N::MATH).map_err(Error::wrap)?;
        let grid = |shape| dnn.create_4d_tensor(last, shape).map_err(Error::wrap);
        let input = grid(ints([c.samples, c.channels, c.height, c.width])?)?;
        let output = grid(ints([c.samples, c.outputs, c.down, c.across])?)?;
        let shape = ints([c.outputs, c.channels, c.tall, c.wide])?;
        let kernel = dnn.create_4d_filter(last, shape).map_err(Error::wrap)?;
        Ok(Self { convolution, input, kernel, output })
    }

    fn forward(&self, card: &Card, [x, weights, y]: [&Tensor; 3]) -> Result<bool> {
        let operation = ConvForward { conv: &self.convolution, x: &self.input, w: &self.kernel, y: &self.output };
        let algorithm = sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
        let Ok(bytes) = operation.get_workspace_size(algorithm) else { return Ok(false) };
        let (mut space, scales) = (space(card, bytes)?, (N::ONE, N::ZERO));
        let (x, weights, mut y) = (slice::<N>(card, x)?, slice::<N>(card, weights)?, slice::<N>(card, y)?);
        // SAFETY: see above.
        done(unsafe { operation.launch(algorithm, Some(&mut space), scales, &*x, &*weights, &mut *y) })
    }

    fn input_gradient(&self, card: &Card, [weights, g, into]: [&Tensor; 3]) -> Result<bool> {
        let operation =
            ConvBackwardData { conv: &self.convolution, dx: &self.input, w: &self.kernel, dy: &self.output };
        // Of those for any shape the deterministic one.
        let algorithm = sys::cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
        let Ok(bytes) = operation.get_workspace_size(algorithm) else { return Ok(false) };
        let (mut space, scales) = (space(card, bytes)?, (N::ONE, N::ZERO));
        let (weights, g, mut into) = (slice::<N>(card, weights)?, slice::<N>(card, g)?, slice::<N>(card, into)?);
        // SAFETY: see above.
        done(unsafe { operation.launch(algorithm, Some(&mut space), scales, &mut *into, &*weights, &*g) })
    }

    fn kernel_gradient(&self, card: &Card, [x, g, into]: [&Tensor; 3]) -> Result<bool> {
        let operation =
            ConvBackwardFilter { conv: &self.convolution, x: &self.input, dw: &self.kernel, dy: &self.output };
        // Of those for any shape the deterministic one.
        let algorithm = sys::cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
        let Ok(bytes) = operation.get_workspace_size(algorithm) else { return Ok(false) };
        let (mut space, scales) = (space(card, bytes)?, (N::ONE, N::ZERO));
        let (x, g, mut into) = (slice::<N>(card, x)?, slice::<N>(card, g)?, slice::<N>(card, into)?);
        // SAFETY: see above.
        done(unsafe { operation.launch(algorithm, Some(&mut space), scales, &*x, &mut *into, &*g) })
    }
}

/// A tensor's memory, which stays the tensor's.
fn slice<N: DeviceRepr>(card: &Card, tensor: &Tensor) -> Result<ManuallyDrop<CudaSlice<N>>> {
    let address = card.address(tensor)?;
    // SAFETY: so many numbers are there, and the slice is never dropped.
    Ok(ManuallyDrop::new(unsafe { card.device.cuda_stream().upgrade_device_ptr(address, tensor.elem_count()) }))
}

/// Memory for an algorithm to work in.
fn space(card: &Card, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: cuDNN reads nothing of it that it did not write.
    unsafe { card.device.alloc(bytes.max(1)) }
}

/// Whether it was done: false where cuDNN has no such algorithm for the shape.
fn done(result: std::result::Result<(), CudnnError>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED)) => Ok(false),
        Err(error) => Err(Error::wrap(error)),
    }
}

/// Calls this of what describes the convolution in the card's numbers; false for numbers that cuDNN is not asked about, and for empty
/// batches.
macro_rules! described {
    ($convolution:expr, $what:ident($tensors:expr)) => {
        match $convolution.card.dtype {
            _ if $convolution.samples == 0 => Ok(false),
            DType::F32 => Described::<f32>::of($convolution)?.$what(&$convolution.card, $tensors),
            DType::BF16 => Described::<bf16>::of($convolution)?.$what(&$convolution.card, $tensors),
            _ => Ok(false),
        }
    };
}

/// `y` from `x` and weights (O, U, V, C). False where it was not done.
pub(super) fn forward(c: &Convolution, x: &Tensor, weights: &Tensor, y: &Tensor) -> Result<bool> {
    described!(c, forward([x, weights, y]))
}

/// The gradient `into` of the input from weights (O, U, V, C) and that of the output. False where it was not done.
pub(super) fn input_gradient(c: &Convolution, weights: &Tensor, g: &Tensor, into: &Tensor) -> Result<bool> {
    described!(c, input_gradient([weights, g, into]))
}

/// The gradient (O, U, V, C) of the weights, as parameters are, from input and gradient of the output. cuDNN gives it in the numbers
/// of those. None where it was not done.
pub(super) fn kernel_gradient(c: &Convolution, x: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
    let out = c.card.empty((c.outputs, c.tall, c.wide, c.channels))?;
    if !described!(c, kernel_gradient([x, g, &out]))? {
        return Ok(None);
    }
    Ok(Some(if out.dtype() == c.card.computed() { out } else { c.card.widened(&out)? }))
}
