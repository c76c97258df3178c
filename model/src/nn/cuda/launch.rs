//! Memory on the GPU, and kernel launches.
//!
//! Safety: a kernel reads and writes at the addresses among its arguments, as far as its counts say. Only the files
//! beside this one launch kernels. Each allocates the output with the shape that it passes to the kernel, after the
//! operator's shapes were checked. Memory is freed in the order of the stream, so no launched kernel loses its memory.
//! Tensors are written in place only where no other code can read them: results before they are returned, and the
//! parameters and moments of an optimizer, which only its owner uses during a step.

use std::cell::RefCell;
use std::collections::HashMap;

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDType, DeviceId};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Device, Error, Result, Shape, Storage, Tensor};
use half::bf16;

use super::memory;

/// Threads per block, threads per warp, and numbers per thread. `common.cuh` has the same constants.
const BLOCK: usize = 256;
const WARP: usize = 32;
const EACH: usize = 8;

const KERNELS_F32: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels_f32.ptx"));
const KERNELS_F64: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels_f64.ptx"));
const KERNELS_BF16: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels_bf16.ptx"));

thread_local! {
    static FUNCTIONS: RefCell<HashMap<(DeviceId, DType, &'static str), CudaFunction>> = RefCell::default();
}

/// The GPU of this number, with its own stream.
///
/// # Errors
/// If there is no such GPU, or its driver is too old.
pub(crate) fn open(number: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(number)?;
    // SAFETY: the device's tensors are used only on this stream.
    unsafe {
        device.as_cuda_device()?.disable_event_tracking();
    }
    memory::keep(&device)?;
    Ok(device)
}

/// Whether cuBLAS multiplies in bf16 on this GPU: it must be of the Ampere generation or later.
///
/// # Errors
/// If the device is not a GPU, or does not answer.
pub(crate) fn multiplies_bf16(device: &Device) -> Result<bool> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let (generation, _) = stream.context().compute_capability().map_err(Error::wrap)?;
    Ok(generation >= 8)
}

/// The number of GPUs. 0 if the driver does not answer.
pub(crate) fn count() -> usize {
    CudaContext::device_count().ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

/// Arguments of a kernel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument<'a> {
    /// The address of a tensor's first number.
    Tensor(&'a Tensor),
    /// No address.
    Missing,
    /// `int` or `long long`.
    Count(usize),
    /// `double`
    Real(f64),
}

impl<'a> From<&'a Tensor> for Argument<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl<'a> From<Option<&'a Tensor>> for Argument<'a> {
    fn from(tensor: Option<&'a Tensor>) -> Self {
        tensor.map_or(Self::Missing, Self::Tensor)
    }
}

impl From<usize> for Argument<'_> {
    fn from(count: usize) -> Self {
        Self::Count(count)
    }
}

impl From<bool> for Argument<'_> {
    fn from(yes: bool) -> Self {
        Self::Count(usize::from(yes))
    }
}

impl From<f64> for Argument<'_> {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

/// Converts values to the arguments of a kernel.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$($crate::nn::cuda::launch::Argument::from($argument)),*] };
}
pub(super) use arguments;

/// A GPU, and the number type of an operation.
#[derive(Debug, Clone)]
pub(super) struct Card {
    pub(super) device: CudaDevice,
    /// The type of activations.
    pub(super) dtype: DType,
}

impl Card {
    /// The GPU of a tensor, for numbers of the tensor's type.
    ///
    /// # Errors
    /// If the tensor is in main memory.
    pub(super) fn of(tensor: &Tensor) -> Result<Self> {
        Ok(Self { device: tensor.device().as_cuda_device()?.clone(), dtype: tensor.dtype() })
    }

    /// The type of computations, parameters, gradients, and statistics of rows or channels.
    pub(super) fn computed(&self) -> DType {
        if self.dtype == DType::BF16 { DType::F32 } else { self.dtype }
    }

    /// A tensor that a kernel will write.
    pub(super) fn empty(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        self.empty_of(self.dtype, shape)
    }

    /// As [`Self::empty`], with this type.
    pub(super) fn empty_of(&self, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let count = shape.elem_count();
        let storage = match dtype {
            DType::F32 => self.allocated::<f32>(count)?,
            DType::F64 => self.allocated::<f64>(count)?,
            DType::BF16 => self.allocated::<bf16>(count)?,
            DType::U8 => self.allocated::<u8>(count)?,
            other => return Err(Error::UnsupportedDTypeForOp(other, "empty")),
        };
        Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
    }

    fn allocated<T: DeviceRepr + CudaDType>(&self, count: usize) -> Result<CudaStorage> {
        // SAFETY: all bit patterns are valid numbers of these types, and the caller writes them before they are read.
        let slice = unsafe { self.device.alloc::<T>(count.max(1))? };
        Ok(CudaStorage::wrap_cuda_slice(slice, self.device.clone()))
    }

    /// A tensor of zeros.
    pub(super) fn zeros(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        self.zeros_of(self.dtype, shape)
    }

    /// As [`Self::zeros`], with this type.
    pub(super) fn zeros_of(&self, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::zeros(shape, dtype, &Device::Cuda(self.device.clone()))
    }

    /// A parameter in the type of activations, as a factor of products.
    pub(super) fn operand(&self, parameter: &Tensor) -> Result<Tensor> {
        if self.dtype == self.computed() { Ok(parameter.clone()) } else { self.narrowed(parameter) }
    }

    /// Converts from the type of computations to the type of activations.
    pub(super) fn narrowed(&self, x: &Tensor) -> Result<Tensor> {
        self.copied("narrowed", x, (self.computed(), self.dtype))
    }

    /// Converts from the type of activations to the type of computations.
    pub(super) fn widened(&self, x: &Tensor) -> Result<Tensor> {
        self.copied("widened", x, (self.dtype, self.computed()))
    }

    fn copied(&self, kernel: &'static str, x: &Tensor, (from, to): (DType, DType)) -> Result<Tensor> {
        if x.dtype() != from {
            return Err(Error::Msg(format!("{kernel}: got {:?}, expected {from:?}", x.dtype())));
        }
        let (x, out, n) = (x.contiguous()?, self.empty_of(to, x.shape())?, x.elem_count());
        self.numbers(kernel, n, &arguments![&x, &out, n])?;
        Ok(out)
    }

    /// Copies numbers to the GPU, with this shape.
    pub(super) fn upload_as<N: candle_core::WithDType>(
        &self,
        numbers: &[N],
        shape: impl Into<Shape>,
    ) -> Result<Tensor> {
        Tensor::from_slice(numbers, shape, &Device::Cuda(self.device.clone()))
    }

    /// Copies numbers to the GPU.
    pub(super) fn upload<N: candle_core::WithDType>(&self, numbers: Vec<N>) -> Result<Tensor> {
        let count = numbers.len();
        if count == 0 {
            return self.upload(vec![N::from_f64(0.0)]);
        }
        Tensor::from_vec(numbers, count, &Device::Cuda(self.device.clone()))
    }

    /// Launches a kernel with at least `threads` threads. Each thread checks whether it is needed.
    pub(super) fn each(&self, kernel: &'static str, threads: usize, arguments: &[Argument<'_>]) -> Result<()> {
        self.blocks(kernel, threads.div_ceil(BLOCK), arguments)
    }

    /// Launches an elementwise kernel over `n` numbers, several per thread.
    pub(super) fn numbers(&self, kernel: &'static str, n: usize, arguments: &[Argument<'_>]) -> Result<()> {
        self.blocks(kernel, n.div_ceil(BLOCK * EACH), arguments)
    }

    /// Launches a kernel with one thread per pack of numbers. A pack has 16 bytes, which are read and written at once,
    /// if runs of `together` numbers are multiples of a pack. Otherwise it has one number. The kernel makes the same
    /// choice (`WIDEST` of `common.cuh`).
    pub(super) fn packs(
        &self,
        kernel: &'static str,
        together: usize,
        n: usize,
        arguments: &[Argument<'_>],
    ) -> Result<()> {
        let widest = 16 / self.dtype.size_in_bytes();
        self.each(kernel, if together.is_multiple_of(widest) { n / widest } else { n }, arguments)
    }

    /// Launches a kernel with a warp for each of `rows` rows. Surplus warps do nothing.
    pub(super) fn rows(&self, kernel: &'static str, rows: usize, arguments: &[Argument<'_>]) -> Result<()> {
        self.each(kernel, rows * WARP, arguments)
    }

    /// The kernel for this number type. Each thread looks it up once.
    fn function(&self, kernel: &'static str) -> Result<CudaFunction> {
        let key = (self.device.id(), self.dtype, kernel);
        if let Some(found) = FUNCTIONS.with_borrow(|functions| functions.get(&key).cloned()) {
            return Ok(found);
        }
        let (suffix, kernels) = match self.dtype {
            DType::F32 => ("f32", KERNELS_F32),
            DType::F64 => ("f64", KERNELS_F64),
            DType::BF16 => ("bf16", KERNELS_BF16),
            other => return Err(Error::Msg(format!("{kernel} has no kernel for {other:?}"))),
        };
        let (name, module) = (format!("{kernel}_{suffix}"), format!("antiphon_{suffix}"));
        let function = self.device.get_or_load_custom_func(&name, &module, kernels)?.into_cuda_function();
        FUNCTIONS.with_borrow_mut(|functions| functions.insert(key, function.clone()));
        Ok(function)
    }

    /// Launches `blocks` blocks of a kernel.
    pub(super) fn blocks(&self, kernel: &'static str, blocks: usize, arguments: &[Argument<'_>]) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        // The kernel reads smaller arguments from the first bytes of these.
        let values = arguments.iter().map(|argument| self.value(argument)).collect::<Result<Vec<u64>>>()?;
        let (function, stream) = (self.function(kernel)?, self.device.cuda_stream());
        let mut builder = stream.launch_builder(&function);
        for value in &values {
            builder.arg(value);
        }
        let grid = u32::try_from(blocks).map_err(Error::wrap)?;
        let config = LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (BLOCK as u32, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: see above.
        unsafe { builder.launch(config) }.map_err(Error::wrap)?;
        Ok(())
    }

    fn value(&self, argument: &Argument<'_>) -> Result<u64> {
        Ok(match argument {
            Argument::Tensor(tensor) => self.address(tensor)?,
            Argument::Missing => 0,
            Argument::Count(count) => *count as u64,
            Argument::Real(number) => number.to_bits(),
        })
    }

    /// The address of a tensor's first number. The tensor has no gaps.
    pub(super) fn address(&self, tensor: &Tensor) -> Result<u64> {
        let (storage, layout) = tensor.storage_and_layout();
        let (first, _) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: "cuda" })?;
        let Storage::Cuda(storage) = &*storage else {
            candle_core::bail!("some tensors are in main memory and others on a GPU; move them to one device")
        };
        let start = match tensor.dtype() {
            DType::F32 => self.start::<f32>(storage)?,
            DType::F64 => self.start::<f64>(storage)?,
            DType::BF16 => self.start::<bf16>(storage)?,
            DType::U8 => self.start::<u8>(storage)?,
            DType::U32 => self.start::<u32>(storage)?,
            DType::I64 => self.start::<i64>(storage)?,
            other => return Err(Error::UnsupportedDTypeForOp(other, "cuda")),
        };
        Ok(start + (first * tensor.dtype().size_in_bytes()) as u64)
    }

    fn start<T: CudaDType>(&self, storage: &CudaStorage) -> Result<u64> {
        let stream = self.device.cuda_stream();
        let (address, _recorded) = storage.as_cuda_slice::<T>()?.device_ptr(&stream);
        Ok(address)
    }
}
