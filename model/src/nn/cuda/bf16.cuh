// Numbers of 16 bits with the exponent of a float.

#pragma once

// The upper half of a float: its sign, its 8 bits of exponent and the first 7 of its fraction. Nothing is computed in it.
struct Bf16 {
    unsigned short bits;

    Bf16() = default;

    // The nearest, and of two that are equally near the even one. What is not a number stays so.
    __device__ Bf16(float value) {
        unsigned all = __float_as_uint(value);
        bits = (unsigned short)(value != value ? 0x7fff : (all + 0x7fff + (all >> 16 & 1)) >> 16);
    }

    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};
