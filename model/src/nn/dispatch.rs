//! Where an operator computes once its inputs are checked: in main memory, or on the card that holds them.

/// Returns what the operator of this path in `cuda` gives for these arguments, if the tensor is on a card.
#[cfg(feature = "cuda")]
macro_rules! on_cuda {
    ($tensor:expr, $($path:ident)::+ ( $($argument:expr),* $(,)? )) => {
        if $tensor.device().is_cuda() {
            return $crate::nn::cuda::$($path)::+($($argument),*);
        }
    };
}

/// No tensor is on a card.
#[cfg(not(feature = "cuda"))]
macro_rules! on_cuda {
    ($tensor:expr, $($any:tt)*) => {
        let _ = &$tensor;
    };
}
pub(crate) use on_cuda;
