// Steps of optimizers, in place and in one pass, and the norm of a gradient.

#include "common.cuh"

// v ← μ v + (share · g + λ p); p ← p − lr v
KERNEL(sgd)(C *p, C *v, const C *g, double share, double momentum, double decay, double lr, long long n) {
    long long i = here();
    if (i >= n) return;
    C velocity = (C)momentum * v[i] + ((C)share * g[i] + (C)decay * p[i]);
    v[i] = velocity;
    p[i] -= (C)lr * velocity;
}

// m ← β₁ m + (1 − β₁) share · g; v ← β₂ v + (1 − β₂) (share · g)²; p ← decay · p − rate · m / (√v / correction + ε)
KERNEL(adamw)(C *p, C *m, C *v, const C *g, double share, double beta1, double new1, double beta2, double new2, double decay,
              double rate, double correction, double epsilon, long long n) {
    long long i = here();
    if (i >= n) return;
    C clipped = (C)share * g[i];
    C mean = (C)beta1 * m[i] + (C)new1 * clipped, square = (C)beta2 * v[i] + (C)new2 * clipped * clipped;
    m[i] = mean;
    v[i] = square;
    p[i] = (C)decay * p[i] - (C)rate * mean / (sqrt(square) / (C)correction + (C)epsilon);
}

// partial[block] = Σ x² over every so many-th number, in double precision.
TOGETHER(squares)(const C *x, double *partial, long long n) {
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
