//! Convolutions in bf16 by cuDNN: grids and kernels with channels last, sums in f32, deterministic algorithms only. In
//! full-precision f32 with channels last, it takes longer than products of patches.
//!
//! Safety: cuDNN reads and writes within its descriptors, which are created here from the shapes of the tensors.

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

/// A request to cuDNN: one of three operations, a GPU, and the sizes of a convolution.
type Question = (Operation, DeviceId, [usize; 10]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Forward,
    InputGradient,
    KernelGradient,
}

// A handle belongs to a thread. The workspace size is None if no algorithm exists for the shape. It is cached, because
// cuDNN takes as long to answer as to start.
thread_local! {
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
    static BYTES: RefCell<HashMap<Question, Option<usize>>> = RefCell::default();
}

/// The workspace of an algorithm, if there is one. `ask` returns its size, at the first call.
fn space(
    operation: Operation,
    c: &Convolution,
    ask: impl FnOnce() -> std::result::Result<usize, CudnnError>,
) -> Result<Option<CudaSlice<u8>>> {
    let sizes = [c.samples, c.height, c.width, c.channels, c.outputs, c.tall, c.wide, c.stride, c.padding, c.down];
    let question = (operation, c.card.device.id(), sizes);
    let bytes = BYTES.with_borrow_mut(|known| *known.entry(question).or_insert_with(|| ask().ok()));
    // SAFETY: cuDNN reads only what it has written.
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

/// The descriptors of a convolution in this number type.
struct Described {
    convolution: ConvDescriptor<f32>,
    input: TensorDescriptor<bf16>,
    kernel: FilterDescriptor<bf16>,
    output: TensorDescriptor<bf16>,
}

/// The factors of the result and of the previous contents.
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

/// A tensor's memory, which the tensor still owns.
fn slice(card: &Card, tensor: &Tensor) -> Result<ManuallyDrop<CudaSlice<bf16>>> {
    let address = card.address(tensor)?;
    // SAFETY: the tensor has this many numbers, and the slice is never dropped.
    Ok(ManuallyDrop::new(unsafe { card.device.cuda_stream().upgrade_device_ptr(address, tensor.elem_count()) }))
}

/// Whether cuDNN computed it: false if it has no algorithm for the shape.
fn done(result: std::result::Result<(), CudnnError>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(CudnnError(sys::cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED)) => Ok(false),
        Err(error) => Err(Error::wrap(error)),
    }
}

/// The descriptors of the convolution, if cuDNN computes it: only in bf16, and not for empty batches.
fn described(c: &Convolution) -> Result<Option<Described>> {
    (c.card.dtype == DType::BF16 && c.samples > 0).then(|| Described::of(c)).transpose()
}

/// Computes `y` from `x` and weights (O, U, V, C). False if cuDNN did not compute it.
pub(super) fn forward(c: &Convolution, x: &Tensor, weights: &Tensor, y: &Tensor) -> Result<bool> {
    described(c)?.map_or(Ok(false), |described| described.forward(c, [x, weights, y]))
}

/// Computes the gradient `into` of the input from weights (O, U, V, C) and the gradient of the output. False if cuDNN
/// did not compute it.
pub(super) fn input_gradient(c: &Convolution, weights: &Tensor, g: &Tensor, into: &Tensor) -> Result<bool> {
    described(c)?.map_or(Ok(false), |described| described.input_gradient(c, [weights, g, into]))
}

/// The gradient (O, U, V, C) of the weights, in the type of parameters, from the input and the gradient of the output.
/// cuDNN computes it in bf16. None if cuDNN did not compute it.
pub(super) fn kernel_gradient(c: &Convolution, x: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
    let Some(described) = described(c)? else { return Ok(None) };
    let out = c.card.empty((c.outputs, c.tall, c.wide, c.channels))?;
    if described.kernel_gradient(c, [x, g, &out])? { c.card.widened(&out).map(Some) } else { Ok(None) }
}
