// Operators that take each number by itself.

#include "common.cuh"

KERNEL(copy)(const T *x, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = x[i];
}

// From what operators compute in to what flows between them, and back.
KERNEL(narrowed)(const C *x, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = (T)x[i];
}

KERNEL(widened)(const T *x, C *out, long long n) {
    long long i = here();
    if (i < n) out[i] = (C)x[i];
}

KERNEL(add)(const T *a, const T *b, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = (T)((C)a[i] + (C)b[i]);
}

// y = activation(y + bias), in place; y is (n / width, width).
KERNEL(bias_activation)(T *y, const C *bias, int width, int relu, long long n) {
    long long i = here();
    if (i >= n) return;
    C z = (C)y[i] + bias[remainder_of(i, width)];
    y[i] = (T)(relu && z < 0 ? (C)0 : z);  // NaN stays
}

// The gradient of what came through ReLU: zero where the output is.
KERNEL(relu_gradient)(const T *y, const T *g, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = (C)y[i] > 0 ? g[i] : (T)0;
}

__device__ inline C normal_cumulative(C x) { return (C)0.5 * erfc(-x * (C)0.70710678118654752440); }

// y = x Φ(x)
KERNEL(gelu)(const T *x, T *y, long long n) {
    long long i = here();
    if (i >= n) return;
    C value = (C)x[i];
    y[i] = (T)(value * normal_cumulative(value));
}

// dx = g (Φ(x) + x φ(x))
KERNEL(gelu_gradient)(const T *x, const T *g, T *out, long long n) {
    long long i = here();
    if (i >= n) return;
    C value = (C)x[i];
    C density = (C)0.39894228040143267794 * exp((C)-0.5 * value * value);
    out[i] = (T)((C)g[i] * (normal_cumulative(value) + value * density));
}

// Where the bit of `kept` is 0 the result is 0, elsewhere it is scaled; eight bits of a byte, the lowest first.
KERNEL(masked)(const T *x, const unsigned char *kept, double scale, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = kept[i / 8] >> (i % 8) & 1 ? (T)((C)x[i] * (C)scale) : (T)0;
}
