//! Transfer of batches to the GPU, through pinned memory that the GPU reads while the processor works.
//!
//! Safety: allocated memory is written before it is read. Memory that the GPU reads is overwritten or freed only after
//! the GPU has read it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Device, Error, Result, Shape, Storage, Tensor};
use rayon::prelude::*;

/// The number of elements that a thread copies at a time.
const BLOCK: usize = 1 << 17;

/// Pinned memory for one batch.
struct Staging {
    memory: PinnedHostSlice<f32>,
    /// The event after which the GPU has read it.
    read: Option<CudaEvent>,
}

// One for each thread that uses a GPU, like the handles of libraries.
thread_local! {
    static STAGING: RefCell<HashMap<DeviceId, Staging>> = RefCell::default();
}

impl Staging {
    fn new(stream: &Arc<CudaStream>, count: usize) -> Result<Self> {
        // SAFETY: see above.
        let memory = unsafe { stream.context().alloc_pinned::<f32>(count) }.map_err(Error::wrap)?;
        Ok(Self { memory, read: None })
    }

    fn wait(&mut self) -> Result<()> {
        self.read.take().map_or(Ok(()), |read| read.synchronize().map_err(Error::wrap))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A GPU that fails no longer reads.
        let _ = self.wait();
    }
}

/// These numbers on a GPU, in this shape.
///
/// # Errors
/// If the device is not a GPU, or fails.
pub(crate) fn upload(numbers: &[f32], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    let (card, count) = (device.as_cuda_device()?, numbers.len());
    if count == 0 {
        return Tensor::zeros(shape, DType::F32, device);
    }
    let stream = card.cuda_stream();
    // SAFETY: see above.
    let mut there = unsafe { card.alloc::<f32>(count)? };
    STAGING.with_borrow_mut(|all| -> Result<()> {
        let staging = match all.entry(card.id()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Staging::new(&stream, count)?),
        };
        staging.wait()?;
        if staging.memory.len() != count {
            *staging = Staging::new(&stream, count)?;
        }
        let into = staging.memory.as_mut_slice().map_err(Error::wrap)?;
        into.par_chunks_mut(BLOCK).zip(numbers.par_chunks(BLOCK)).for_each(|(to, from)| to.copy_from_slice(from));
        stream.memcpy_htod(&staging.memory, &mut there).map_err(Error::wrap)?;
        staging.read = Some(stream.record_event(None).map_err(Error::wrap)?);
        Ok(())
    })?;
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(there, card.clone()));
    Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
}
