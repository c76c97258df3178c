// Steps of optimizers, in place and in one pass, and the norm of a gradient.

#include "common.cuh"

// v ← μ v + (share · g + λ p); p ← p − lr v
KERNEL(sgd)(T *p, T *v, const T *g, double share, double momentum, double decay, double lr, long long n) {
    long long i = here();
    if (i >= n) return;
    T velocity = (T)momentum * v[i] + ((T)share * g[i] + (T)decay * p[i]);
    v[i] = velocity;
    p[i] -= (T)lr * velocity;
}

// m ← β₁ m + (1 − β₁) share · g; v ← β₂ v + (1 − β₂) (share · g)²; p ← decay · p − rate · m / (√v / correction + ε)
KERNEL(adamw)(T *p, T *m, T *v, const T *g, double share, double beta1, double new1, double beta2, double new2, double decay,
              double rate, double correction, double epsilon, long long n) {
    long long i = here();
    if (i >= n) return;
    T clipped = (T)share * g[i];
    T mean = (T)beta1 * m[i] + (T)new1 * clipped, square = (T)beta2 * v[i] + (T)new2 * clipped * clipped;
    m[i] = mean;
    v[i] = square;
    p[i] = (T)decay * p[i] - (T)rate * mean / (sqrt(square) / (T)correction + (T)epsilon);
}

// partial[block] = Σ x² over every so many-th number, in double precision.
TOGETHER(squares)(const T *x, double *partial, long long n) {
    double sum = 0;
    for (long long i = here(); i < n; i += (long long)gridDim.x * BLOCK) sum += (double)x[i] * (double)x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// out[at] = Σ of `count` partial sums.
TOGETHER(squares_total)(const double *partial, int count, double *out, int at) {
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += BLOCK) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[at] = sum;
}
