//! The number types of operators, and access to the numbers of a candle tensor.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Error, Layout, Result, Shape, Storage, StorageRef, Tensor, WithDType};

use super::tile::{Kernel, kernel_f32, kernel_f64};

/// f32, for training, or f64, for checks of gradients.
pub(crate) trait Number: WithDType {
    const ZERO: Self;
    const ONE: Self;
    const NEGATIVE_INFINITY: Self;
    const NAN: Self;
    fn square_root(self) -> Self;
    fn is_no_number(self) -> bool;
    /// eˣ.
    fn exponential(self) -> Self;
    /// Φ(x) and φ(x): the normal distribution's cumulative function and its density.
    fn normal(self) -> (Self, Self);
    /// `self · factor + addend`, rounded once.
    fn fused(self, factor: Self, addend: Self) -> Self;
    /// The kernel of matrix products for this processor.
    fn kernel() -> Kernel<Self>;
    /// The numbers of a storage, if it holds this type.
    fn slice_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;
}

macro_rules! number {
    ($type:ty, $kind:ident, $kernel:ident, $exponential:path, $normal:path) => {
        impl Number for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEGATIVE_INFINITY: Self = <$type>::NEG_INFINITY;
            const NAN: Self = <$type>::NAN;
            #[inline(always)]
            fn is_no_number(self) -> bool {
                self.is_nan()
            }
            fn square_root(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn exponential(self) -> Self {
                $exponential(self)
            }
            #[inline(always)]
            fn normal(self) -> (Self, Self) {
                $normal(self)
            }
            #[inline(always)]
            fn fused(self, factor: Self, addend: Self) -> Self {
                self.mul_add(factor, addend)
            }
            fn kernel() -> Kernel<Self> {
                $kernel()
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
number!(f32, F32, kernel_f32, exponential, normal);
number!(f64, F64, kernel_f64, f64::exp, normal_f64);

/// eˣ with a relative error of 3e-7, in a form that vector units can execute: 2ⁿ · 2ᶠ with a polynomial for 2ᶠ, |f| ≤
/// ½. The standard library calls a different function on every system, which is neither fast nor the same to the last
/// bit.
#[inline(always)]
fn exponential(x: f32) -> f32 {
    /// The result is 0 below its negative, and infinity above it.
    const LIMIT: f32 = 87.0;
    // Adding and subtracting 1.5 · 2²³ rounds to a whole number.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-LIMIT, LIMIT);
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 as a sum of two, the first with few digits, so that n · ln 2 is exact.
    let f = (clamped - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut sum = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        sum = sum * f + coefficient;
    }
    let value = (sum * f * f + f + 1.0) * f32::from_bits(((n as i32 + 127) as u32) << 23);
    if x < -LIMIT {
        0.0
    } else if x > LIMIT {
        f32::INFINITY
    } else {
        value
    }
}

/// Φ(x) with an error of 3e-7 (Abramowitz & Stegun 7.1.26), and φ(x). Both use the same exponential.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let bell = exponential(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * (x.abs() * std::f32::consts::FRAC_1_SQRT_2));
    let mut sum = 1.061_405_4;
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        sum = sum * t + coefficient;
    }
    let tail = 0.5 * sum * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell * INVERSE_ROOT_TWO_PI as f32)
}

/// 1 / √(2π)
const INVERSE_ROOT_TWO_PI: f64 = 0.398_942_280_401_432_7;

fn normal_f64(x: f64) -> (f64, f64) {
    (0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2), (-0.5 * x * x).exp() * INVERSE_ROOT_TWO_PI)
}

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

/// [`values`], writable.
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
            _ => Err(Error::Msg(format!("{operator} is implemented in main memory only; move its tensors there"))),
        }
    }
}

/// A tensor of these values, on the device of another tensor.
pub(crate) fn tensor<T: Number>(values: Vec<T>, shape: impl Into<Shape>, like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), like.device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_exponential_is_the_exponential() {
        for i in -8600..8600 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            assert!((f64::from(x.exponential()) / expected - 1.0).abs() < 3e-7, "{x}: {}", x.exponential());
        }
        assert_eq!([f32::NEG_INFINITY, -88.0, 0.0, 100.0].map(Number::exponential), [0.0, 0.0, 1.0, f32::INFINITY]);
        assert!(f32::NAN.exponential().is_nan());
    }

    #[test]
    fn the_fast_normal_distribution_is_the_normal_distribution() {
        for i in -600..600 {
            let x = f64::from(i) / 100.0;
            let ((cumulative, density), expected) = ((x as f32).normal(), x.normal());
            assert!((f64::from(cumulative) - expected.0).abs() < 3e-7, "{x}");
            assert!((f64::from(density) - expected.1).abs() < 3e-7, "{x}");
        }
        assert!((0.0f64.normal().1 - 1.0 / (2.0 * std::f64::consts::PI).sqrt()).abs() < 1e-15);
    }
}
