//! The numbers that operators are written for, and their way out of a candle tensor.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Error, Layout, Result, Storage, StorageRef, Tensor, WithDType};

/// f32, which trains, or f64, in which gradients are checked.
pub(crate) trait Number: WithDType {
    const ZERO: Self;
    const ONE: Self;
    const NEGATIVE_INFINITY: Self;
    fn square_root(self) -> Self;
    fn exponential(self) -> Self;
    /// The numbers of a storage, if it holds this kind.
    fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;
}

macro_rules! number {
    ($type:ty, $kind:ident) => {
        impl Number for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEGATIVE_INFINITY: Self = <$type>::NEG_INFINITY;
            fn square_root(self) -> Self {
                self.sqrt()
            }
            fn exponential(self) -> Self {
                self.exp()
            }
            fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]> {
                match storage {
                    CpuStorage::$kind(values) => Ok(values),
                    other => Err(Error::UnsupportedDTypeForOp(other.dtype(), "in place")),
                }
            }
        }
    };
}
number!(f32, F32);
number!(f64, F64);

/// Calls `$function::<T>($argument...)` with the number type of `$dtype`.
macro_rules! by_number {
    ($dtype:expr, $name:expr, $($function:ident).+ ( $($argument:expr),* $(,)? )) => {
        match $dtype {
            candle_core::DType::F32 => $($function).+::<f32>($($argument),*),
            candle_core::DType::F64 => $($function).+::<f64>($($argument),*),
            other => Err(candle_core::Error::UnsupportedDTypeForOp(other, $name)),
        }
    };
}
pub(crate) use by_number;

/// The values of a contiguous tensor in main memory, in row-major order.
pub(crate) fn values<'a, T: Number>(
    storage: &'a CpuStorage,
    layout: &Layout,
    operator: &'static str,
) -> Result<&'a [T]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: operator })?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// [`values`], to be changed.
pub(crate) fn values_mut<'a, T: Number>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
    operator: &'static str,
) -> Result<&'a mut [T]> {
    let (start, end) = layout.contiguous_offsets().ok_or(Error::RequiresContiguous { op: operator })?;
    Ok(&mut T::slice_mut(storage)?[start..end])
}

/// Holds a tensor's storage open for reading.
pub(crate) struct Reading<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Reading<'a> {
    pub(crate) fn of(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    /// See [`values`].
    pub(crate) fn values<T: Number>(&self, operator: &'static str) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => values(storage, self.layout, operator),
            _ => Err(Error::Msg(format!("{operator} has an implementation in main memory only"))),
        }
    }
}

/// Which kind of numbers a storage holds.
pub(crate) fn dtype(storage: &CpuStorage) -> DType {
    storage.dtype()
}
