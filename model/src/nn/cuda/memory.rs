//! The pool of a card's memory.
//!
//! Safety: a pool is asked for of a device that is there, is that device's own, which is never destroyed, and its attributes that are
//! used here are of 64 bits.

use candle_core::cuda_backend::cudarc::driver::result;
use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute as Attribute, CUmemoryPool};
use candle_core::{Device, Error, Result};

/// What is given back stays for the next taker in this program, until [`give_back`]. Without this the driver returns it to the system
/// whenever the card is waited for.
pub(super) fn keep(device: &Device) -> Result<()> {
    set(device, Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX)
}

/// Where the card's memory is taken from, if it has such a place.
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

/// Gives the card's memory that is not in use back to other programs.
///
/// # Errors
/// When the device is no card, or does not answer.
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

/// The most bytes of the card that this program had in use at a time since [`forget_peak`]; None where the card does not count.
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
