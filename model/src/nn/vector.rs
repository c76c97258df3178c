//! Loops over numbers, compiled a second time for the processor's vector unit.

/// Runs `work`, compiled for the widest vector unit of the processor. The bits are the same:
/// neither the order of operations nor their rounding depends on it.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
