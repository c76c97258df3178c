//! Convolutions in bf16 by cuDNN: grids and kernels with channels last, summed in f32, by its deterministic algorithms. In f32, in full
//! precision and with channels last, it takes longer than products of patches do.
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
use half::bf16;

use super::convolution_shape::Convolution;
use super::launch::Card;

/// What is asked of cuDNN: which of three algorithms, on which card, for a convolution of which sizes.
type Question = (Operation, DeviceId, [usize; 10]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Forward,
    InputGradient,
    KernelGradient,
}

// A handle belongs to a thread. Bytes that an algorithm works in are None where there is none for the shape; cuDNN takes as long to
// say so as to begin.
thread_local! {
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
    static BYTES: RefCell<HashMap<Question, Option<usize>>> = RefCell::default();
}

/// Memory for an algorithm to work in, if there is one. `ask` says how much, the first time.
fn space(
    operation: Operation,
    c: &Convolution,
    ask: impl FnOnce() -> std::result::Result<usize, CudnnError>,
) -> Result<Option<CudaSlice<u8>>> {
    let sizes = [c.samples, c.height, c.width, c.channels, c.outputs, c.tall, c.wide, c.stride, c.padding, c.down];
    let question = (operation, c.card.device.id(), sizes);
    let bytes = BYTES.with_borrow_mut(|known| *known.entry(question).or_insert_with(|| ask().ok()));
    // SAFETY: cuDNN reads nothing of it that it did not write.
    bytes.map(|bytes| unsafe { c.card.device.alloc(bytes.max(1)) }).transpose()
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
struct Described {
    convolution: ConvDescriptor<f32>,
    input: TensorDescriptor<bf16>,
    kernel: FilterDescriptor<bf16>,
    output: TensorDescriptor<bf16>,
}

/// What a result is multiplied by before it is written, and what was there before.
const SCALES: (bf16, bf16) = (bf16::ONE, bf16::ZERO);

fn ints<const N: usize>(numbers: [usize; N]) -> Result<[c_int; N]> {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(numbers) {
        *to = c_int::try_from(from).map_err(Error::wrap)?;
    }
    Ok(out)
}

impl Described {
    fn of(c: &Convolution) -> Result<Self> {
        let dnn = handle(&c.card)?;
        let (last, cross) =
            (sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION);
        let (padding, stride) = (ints([c.padding; 2])?, ints([c.stride; 2])?);
        let mut convolution = dnn.create_conv2d(padding, stride, [1, 1], cross).map_err(Error::wrap)?;
        // Products of bf16 are exact in f32.
        convolution.set_math_type(sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH).map_err(Error::wrap)?;
        let grid = |shape| dnn.create_4d_tensor(last, shape).map_err(Error::wrap);
        let input = grid(ints([c.samples, c.channels, c.height, c.width])?)?;
        let output = grid(ints([c.samples, c.outputs, c.down, c.across])?)?;
        let shape = ints([c.outputs, c.channels, c.tall, c.wide])?;
        let kernel = dnn.create_4d_filter(last, shape).map_err(Error::wrap)?;
        Ok(Self { convolution, input, kernel, output })
    }

    fn forward(&self, c: &Convolution, [x, weights, y]: [&Tensor; 3]) -> Result<bool> {
        let operation = ConvForward { conv: &self.convolution, x: &self.input, w: &self.kernel, y: &self.output };
        let algorithm = sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
        let asked = space(Operation::Forward, c, || operation.get_workspace_size(algorithm))?;
        let Some(mut space) = asked else { return Ok(false) };
        let card = &c.card;
        let (x, weights, mut y) = (slice(card, x)?, slice(card, weights)?, slice(card, y)?);
        // SAFETY: see above.
        done(unsafe { operation.launch(algorithm, Some(&mut space), SCALES, &*x, &*weights, &mut *y) })
    }

    fn input_gradient(&self, c: &Convolution, [weights, g, into]: [&Tensor; 3]) -> Result<bool> {
        let operation =
            ConvBackwardData { conv: &self.convolution, dx: &self.input, w: &self.kernel, dy: &self.output };
        // Of those for any shape the deterministic one.
        let algorithm = sys::cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
        let asked = space(Operation::InputGradient, c, || operation.get_workspace_size(algorithm))?;
        let Some(mut space) = asked else { return Ok(false) };
        let card = &c.card;
        let (weights, g, mut into) = (slice(card, weights)?, slice(card, g)?, slice(card, into)?);
        // SAFETY: see above.
        done(unsafe { operation.launch(algorithm, Some(&mut space), SCALES, &mut *into, &*weights, &*g) })
    }

    fn kernel_gradient(&self, c: &Convolution, [x, g, into]: [&Tensor; 3]) -> Result<bool> {
        let operation =
            ConvBackwardFilter { conv: &self.convolution, x: &self.input, dw: &self.kernel, dy: &self.output };
        // Of those for any shape the deterministic one.
        let algorithm = sys::cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
        let asked = space(Operation::KernelGradient, c, || operation.get_workspace_size(algorithm))?;
        let Some(mut space) = asked else { return Ok(false) };
        let card = &c.card;
        let (x, g, mut into) = (slice(card, x)?, slice(card, g)?, slice(card, into)?);
        // SAFETY: see above.
        done(unsafe { operation.launch(algorithm, Some(&mut space), SCALES, &*x, &mut *into, &*g) })
    }
}

/// A tensor's memory, which stays the tensor's.
fn slice(card: &Card, tensor: &Tensor) -> Result<ManuallyDrop<CudaSlice<bf16>>> {
    let address = card.address(tensor)?;
    // SAFETY: so many numbers are there, and the slice is never dropped.
    Ok(ManuallyDrop::new(unsafe { card.device.cuda_stream().upgrade_device_ptr(address, tensor.elem_count()) }))
}

/// Whether it was done: false where cuDNN has no such algorithm for the shape.
fn done(result: std::result::Result<(), CudnnError>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED)) => Ok(false),
        Err(error) => Err(Error::wrap(error)),
    }
}

/// What describes the convolution, if cuDNN is asked about it: not in other numbers, and not of empty batches.
fn described(c: &Convolution) -> Result<Option<Described>> {
    (c.card.dtype == DType::BF16 && c.samples > 0).then(|| Described::of(c)).transpose()
}

/// `y` from `x` and weights (O, U, V, C). False where it was not done.
pub(super) fn forward(c: &Convolution, x: &Tensor, weights: &Tensor, y: &Tensor) -> Result<bool> {
    described(c)?.map_or(Ok(false), |described| described.forward(c, [x, weights, y]))
}

/// The gradient `into` of the input from weights (O, U, V, C) and that of the output. False where it was not done.
pub(super) fn input_gradient(c: &Convolution, weights: &Tensor, g: &Tensor, into: &Tensor) -> Result<bool> {
    described(c)?.map_or(Ok(false), |described| described.input_gradient(c, [weights, g, into]))
}

/// The gradient (O, U, V, C) of the weights, as parameters are, from input and gradient of the output; cuDNN gives it in bf16. None
/// where it was not done.
pub(super) fn kernel_gradient(c: &Convolution, x: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
    let Some(described) = described(c)? else { return Ok(None) };
    let out = c.card.empty((c.outputs, c.tall, c.wide, c.channels))?;
    if described.kernel_gradient(c, [x, g, &out])? { c.card.widened(&out).map(Some) } else { Ok(None) }
}
