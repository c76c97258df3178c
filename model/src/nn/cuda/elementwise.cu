// Operators that take each number by itself.

#include "common.cuh"

KERNEL(copy)(const T *x, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = x[i];
}

// From what operators compute in to what flows between them, and back.
KERNEL(narrowed)(const C *x, T *out, long long n) {
    numbers(n, [=](long long i) { return x[i]; }, [=](long long i, C value) { out[i] = (T)value; });
}

KERNEL(widened)(const T *x, C *out, long long n) {
    numbers(n, [=](long long i) { return (C)x[i]; }, [=](long long i, C value) { out[i] = value; });
}

KERNEL(add)(const T *a, const T *b, T *out, long long n) {
    numbers(n, [=](long long i) { return (C)a[i] + (C)b[i]; }, [=](long long i, C sum) { out[i] = (T)sum; });
}

template <int N> __device__ void add_bias(T *y, const C *bias, int width, int relu, long long n) {
    long long i = here(), rest = i;
    if (i >= n) return;
    int column = taken(rest, width / N) * N;
    Pack<N> pack = ((Pack<N> *)y)[i];
    for (int k = 0; k < N; k++) {
        C z = (C)pack.at[k] + bias[column + k];
        pack.at[k] = (T)(relu && z < 0 ? (C)0 : z);  // NaN stays
    }
    ((Pack<N> *)y)[i] = pack;
}

// y = activation(y + bias), in place; y is (n / width, width).
KERNEL(bias_activation)(T *y, const C *bias, int width, int relu, long long n) {
    width % WIDEST == 0 ? add_bias<WIDEST>(y, bias, width, relu, n / WIDEST) : add_bias<1>(y, bias, width, relu, n);
}

// The gradient of what came through ReLU: zero where the output is.
KERNEL(relu_gradient)(const T *y, const T *g, T *out, long long n) {
    numbers(
        n, [=](long long i) { return Loaded<2>{{(C)y[i], (C)g[i]}}; },
        [=](long long i, Loaded<2> given) { out[i] = (T)(given.at[0] > 0 ? given.at[1] : (C)0); });
}

__device__ inline C normal_cumulative(C x) { return (C)0.5 + (C)0.5 * erf(x * (C)0.70710678118654752440); }

// y = x Φ(x)
KERNEL(gelu)(const T *x, T *y, long long n) {
    numbers(
        n, [=](long long i) { return (C)x[i]; },
        [=](long long i, C value) { y[i] = (T)(value * normal_cumulative(value)); });
}

// dx = g (Φ(x) + x φ(x))
KERNEL(gelu_gradient)(const T *x, const T *g, T *out, long long n) {
    numbers(
        n, [=](long long i) { return Loaded<2>{{(C)x[i], (C)g[i]}}; },
        [=](long long i, Loaded<2> given) {
            C value = given.at[0], density = (C)0.39894228040143267794 * exp((C)-0.5 * value * value);
            out[i] = (T)(given.at[1] * (normal_cumulative(value) + value * density));
        });
}

// Where the bit of `kept` is 0 the result is 0, elsewhere it is scaled; eight bits of a byte, the lowest first.
KERNEL(masked)(const T *x, const unsigned char *kept, double scale, T *out, long long n) {
    numbers(
        n, [=](long long i) { return (C)x[i]; },
        [=](long long i, C value) { out[i] = (T)(kept[i / 8] >> (i % 8) & 1 ? value * (C)scale : (C)0); });
}
