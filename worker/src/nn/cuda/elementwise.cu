// Operators that take each number by itself.

#include "common.cuh"

KERNEL(copy)(const T *x, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = x[i];
}

KERNEL(add)(const T *a, const T *b, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = a[i] + b[i];
}

// y = activation(y + bias), in place; y is (n / width, width).
KERNEL(bias_activation)(T *y, const T *bias, int width, int relu, long long n) {
    long long i = here();
    if (i >= n) return;
    T z = y[i] + bias[remainder_of(i, width)];
    y[i] = relu && z < 0 ? (T)0 : z;  // NaN stays
}

// The gradient of what came through ReLU: zero where the output is.
KERNEL(relu_gradient)(const T *y, const T *g, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = y[i] > 0 ? g[i] : (T)0;
}

__device__ inline T normal_cumulative(T x) { return (T)0.5 * erfc(-x * (T)0.70710678118654752440); }

// y = x Φ(x)
KERNEL(gelu)(const T *x, T *y, long long n) {
    long long i = here();
    if (i < n) y[i] = x[i] * normal_cumulative(x[i]);
}

// dx = g (Φ(x) + x φ(x))
KERNEL(gelu_gradient)(const T *x, const T *g, T *out, long long n) {
    long long i = here();
    if (i >= n) return;
    T density = (T)0.39894228040143267794 * exp((T)-0.5 * x[i] * x[i]);
    out[i] = g[i] * (normal_cumulative(x[i]) + x[i] * density);
}

// Where the bit of `kept` is 0 the result is 0, elsewhere it is scaled; eight bits of a byte, the lowest first.
KERNEL(masked)(const T *x, const unsigned char *kept, double scale, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = kept[i / 8] >> (i % 8) & 1 ? x[i] * (T)scale : (T)0;
}
