//! Memory for results.

use super::number::Number;

/// Uninitialised memory for `length` numbers. Setting them to 0 first would cost as much as some operators.
///
/// The caller must write each number before anything reads it, for all inputs; its operator has checked the shapes.
/// Builds with debug assertions, such as tests, fill the memory with NaN, so that a forgotten number shows.
pub(crate) fn unwritten<T: Number>(length: usize) -> Vec<T> {
    if cfg!(debug_assertions) {
        return vec![T::NAN; length];
    }
    let mut values = Vec::with_capacity(length);
    // SAFETY: the capacity suffices, numbers need no dropping, and callers write before they read.
    #[allow(clippy::uninit_vec, reason = "see above")]
    unsafe {
        values.set_len(length);
    }
    values
}
