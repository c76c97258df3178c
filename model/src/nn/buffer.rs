//! Memory for results.

use super::number::Number;

/// `length` numbers that are all about to be written: setting them to 0 first would cost as much as many an operator does.
///
/// For callers that write each of them before anything reads it, whatever their inputs are: what shapes a caller relies on, its operator
/// has checked. Builds with debug assertions, which tests are, fill them with NaN, so that one which was forgotten does not stay
/// hidden.
pub(crate) fn unwritten<T: Number>(length: usize) -> Vec<T> {
    if cfg!(debug_assertions) {
        return vec![T::NAN; length];
    }
    let mut values = Vec::with_capacity(length);
    // SAFETY: there is room for them, numbers need no dropping, and callers write before they read.
    #[allow(clippy::uninit_vec, reason = "see above")]
    unsafe {
        values.set_len(length);
    }
    values
}
