//! Convolutions by cuDNN: grids and kernels with channels last, in full precision, by its deterministic algorithms.
//!
//! Safety: cuDNN reads and writes as far as the descriptors say, which are made here of the shapes that the tensors have.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::safe::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::cudnn::{result::CudnnError, sys};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{DType, Error, Result, Tensor};

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

/// What cuDNN is told of a convolution.
struct Described {
    convolution: ConvDescriptor<f32>,
    input: TensorDescriptor<f32>,
    kernel: FilterDescriptor<f32>,
    output: TensorDescriptor<f32>,
}

fn ints<const N: usize>(numbers: [usize; N]) -> Result<[c_int; N]> {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(numbers) {
        *to = c_int::try_from(from).map_err(Error::wrap)?;
    }
    Ok(out)
}

impl Described {
    /// None for numbers that cuDNN is not asked about, and for empty batches.
    fn of(c: &Convolution) -> Result<Option<Self>> {
        if c.card.dtype != DType::F32 || c.samples == 0 {
            return Ok(None);
        }
        let dnn = handle(&c.card)?;
        let (last, cross) =
            (sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION);
        let (padding, stride) = (ints([c.padding; 2])?, ints([c.stride; 2])?);
        let mut convolution = dnn.create_conv2d(padding, stride, [1, 1], cross).map_err(Error::wrap)?;
        // Without it products may be of fewer digits.
        convolution.set_math_type(sys::cudnnMathType_t::CUDNN_FMA_MATH).map_err(Error::wrap)?;
        let grid = |shape| dnn.create_4d_tensor(last, shape).map_err(Error::wrap);
        let input = grid(ints([c.samples, c.channels, c.height, c.width])?)?;
        let output = grid(ints([c.samples, c.outputs, c.down, c.across])?)?;
        let shape = ints([c.outputs, c.channels, c.tall, c.wide])?;
        let kernel = dnn.create_4d_filter(last, shape).map_err(Error::wrap)?;
        Ok(Some(Self { convolution, input, kernel, output }))
    }
}

/// A tensor's memory, which stays the tensor's.
fn slice(card: &Card, tensor: &Tensor) -> Result<ManuallyDrop<CudaSlice<f32>>> {
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

/// `y` from `x` and weights (O, U, V, C).
pub(super) fn forward(c: &Convolution, x: &Tensor, weights: &Tensor, y: &Tensor) -> Result<bool> {
    let Some(Described { convolution, input, kernel, output }) = Described::of(c)? else { return Ok(false) };
    let operation = ConvForward { conv: &convolution, x: &input, w: &kernel, y: &output };
    let algorithm = sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    let Ok(bytes) = operation.get_workspace_size(algorithm) else { return Ok(false) };
    let (mut space, card) = (space(&c.card, bytes)?, &c.card);
    let (x, weights, mut y) = (slice(card, x)?, slice(card, weights)?, slice(card, y)?);
    // SAFETY: see above.
    done(unsafe { operation.launch(algorithm, Some(&mut space), (1.0, 0.0), &*x, &*weights, &mut *y) })
}

/// The gradient `into` of the input from weights (O, U, V, C) and that of the output.
pub(super) fn input_gradient(c: &Convolution, weights: &Tensor, g: &Tensor, into: &Tensor) -> Result<bool> {
    let Some(Described { convolution, input, kernel, output }) = Described::of(c)? else { return Ok(false) };
    let operation = ConvBackwardData { conv: &convolution, dx: &input, w: &kernel, dy: &output };
    // Of those for any shape the deterministic one.
    let algorithm = sys::cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
    let Ok(bytes) = operation.get_workspace_size(algorithm) else { return Ok(false) };
    let (mut space, card) = (space(&c.card, bytes)?, &c.card);
    let (weights, g, mut into) = (slice(card, weights)?, slice(card, g)?, slice(card, into)?);
    // SAFETY: see above.
    done(unsafe { operation.launch(algorithm, Some(&mut space), (1.0, 0.0), &mut *into, &*weights, &*g) })
}

/// The gradient `into` (O, U, V, C) of the weights from input and gradient of the output.
pub(super) fn kernel_gradient(c: &Convolution, x: &Tensor, g: &Tensor, into: &Tensor) -> Result<bool> {
    let Some(Described { convolution, input, kernel, output }) = Described::of(c)? else { return Ok(false) };
    let operation = ConvBackwardFilter { conv: &convolution, x: &input, dw: &kernel, dy: &output };
    // Of those for any shape the deterministic one.
    let algorithm = sys::cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
    let Ok(bytes) = operation.get_workspace_size(algorithm) else { return Ok(false) };
    let (mut space, card) = (space(&c.card, bytes)?, &c.card);
    let (x, g, mut into) = (slice(card, x)?, slice(card, g)?, slice(card, into)?);
    // SAFETY: see above.
    done(unsafe { operation.launch(algorithm, Some(&mut space), (1.0, 0.0), &*x, &mut *into, &*g) })
}
