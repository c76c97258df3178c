//! Loops over numbers, compiled once more for the vector unit of the processor.

/// Runs `work` with the widest vector unit that the processor has, if the compiler can make use of it: `work` and what
/// it calls must be `#[inline(always)]`. The bits are the same: neither the order of operations nor their rounding
/// depends on it.
#[inline(always)]
pub(crate) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
