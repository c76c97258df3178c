//! Registers that hold several numbers, one type per vector unit.

use super::number::Number;

/// A register of numbers of one kind.
///
/// # Safety
/// Functions may be called only on a processor with the vector unit. Pointers must be valid for `COUNT` numbers.
pub(crate) trait Lanes: Copy {
    type Number: Number;
    /// The number of lanes.
    const COUNT: usize;
    unsafe fn zero() -> Self;
    /// A register with the same number in every lane.
    unsafe fn splat(from: *const Self::Number) -> Self;
    unsafe fn load(from: *const Self::Number) -> Self;
    unsafe fn store(self, to: *mut Self::Number);
    /// `self · other + addend`, rounded once.
    unsafe fn multiply_add(self, other: Self, addend: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
}

/// Any processor. `mul_add` rounds once everywhere, so the bits are those of the vector units.
impl<T: Number> Lanes for [T; 4] {
    type Number = T;
    const COUNT: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        [T::ZERO; 4]
    }
    #[inline(always)]
    unsafe fn splat(from: *const T) -> Self {
        unsafe { [*from; 4] }
    }
    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        unsafe { from.cast::<[T; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        unsafe { to.cast::<[T; 4]>().write(self) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, other: Self, addend: Self) -> Self {
        std::array::from_fn(|i| self[i].fused(other[i], addend[i]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    macro_rules! lanes {
        ($register:ty, $number:ty, $count:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident) => {
            impl super::Lanes for $register {
                type Number = $number;
                const COUNT: usize = $count;
                #[inline(always)]
                unsafe fn zero() -> Self {
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn splat(from: *const $number) -> Self {
                    unsafe { $splat(*from) }
                }
                #[inline(always)]
                unsafe fn load(from: *const $number) -> Self {
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut $number) {
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn multiply_add(self, other: Self, addend: Self) -> Self {
                    unsafe { $fma(self, other, addend) }
                }
                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    unsafe { $add(self, other) }
                }
            }
        };
    }
    lanes!(
        __m512,
        f32,
        16,
        _mm512_setzero_ps,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_add_ps
    );
    lanes!(
        __m512d,
        f64,
        8,
        _mm512_setzero_pd,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_fmadd_pd,
        _mm512_add_pd
    );
    lanes!(
        __m256,
        f32,
        8,
        _mm256_setzero_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_add_ps
    );
    lanes!(
        __m256d,
        f64,
        4,
        _mm256_setzero_pd,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_fmadd_pd,
        _mm256_add_pd
    );
}
