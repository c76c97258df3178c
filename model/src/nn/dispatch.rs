//! Chooses where an operator computes after its inputs are checked: in main memory, or on the GPU that holds them.

/// Calls the operator at this path in `cuda` and returns its result, if the tensor is on a GPU.
#[cfg(feature = "cuda")]
macro_rules! on_cuda {
    ($tensor:expr, $($path:ident)::+ ( $($argument:expr),* $(,)? )) => {
        if $tensor.device().is_cuda() {
            return $crate::nn::cuda::$($path)::+($($argument),*);
        }
    };
}

/// Without CUDA, no tensor is on a GPU.
#[cfg(not(feature = "cuda"))]
macro_rules! on_cuda {
    ($tensor:expr, $($any:tt)*) => {
        let _ = &$tensor;
    };
}
pub(crate) use on_cuda;
