//! The pool of a GPU's memory.
//!
//! Safety: the device exists, its default pool is never destroyed, and the attributes that are used here have 64 bits.

use candle_core::cuda_backend::cudarc::driver::result;
use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute as Attribute, CUmemoryPool};
use candle_core::{Device, Error, Result};

/// Keeps freed memory for the next allocation of this program, until [`give_back`]. By default, the driver returns it
/// to the system at every synchronisation.
pub(super) fn keep(device: &Device) -> Result<()> {
    set(device, Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)
}

/// The GPU's memory pool, if the GPU supports pools.
fn pool(device: &Device) -> Result<Option<CUmemoryPool>> {
    let stream = device.as_cuda_device()?.cuda_stream();
    if !stream.context().has_async_alloc() {
        return Ok(None);
    }
    // SAFETY: see above.
    unsafe { result::device::get_default_mem_pool(stream.context().cu_device()) }.map(Some).map_err(Error::wrap)
}

fn set(device: &Device, attribute: Attribute, mut value: u64) -> Result<()> {
    let Some(pool) = pool(device)? else { return Ok(()) };
    // SAFETY: see above.
    unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut value).cast()) }.map_err(Error::wrap)
}

/// Returns unused memory of the GPU, so that other programs can use it.
///
/// # Errors
/// If the device is not a GPU, or does not answer.
pub(crate) fn give_back(device: &Device) -> Result<()> {
    device.synchronize()?;
    let Some(pool) = pool(device)? else { return Ok(()) };
    // SAFETY: see above.
    unsafe { result::mem_pool::trim_to(pool, 0) }.map_err(Error::wrap)
}

/// Resets [`peak`].
///
/// # Errors
/// As [`give_back`].
pub(crate) fn forget_peak(device: &Device) -> Result<()> {
    set(device, Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0)
}

/// The peak memory of the GPU that this program has used since [`forget_peak`], in bytes. None if the GPU does not
/// measure it.
///
/// # Errors
/// As [`give_back`].
pub(crate) fn peak(device: &Device) -> Result<Option<u64>> {
    let Some(pool) = pool(device)? else { return Ok(None) };
    let mut value = 0_u64;
    let high = Attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    // SAFETY: see above.
    unsafe { result::mem_pool::get_attribute(pool, high, (&raw mut value).cast()) }.map_err(Error::wrap)?;
    Ok(Some(value))
}
