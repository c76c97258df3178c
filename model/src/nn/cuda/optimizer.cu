// Steps of optimizers, in place and in one pass, and the norm of a gradient; of all parameters together.

#include "common.cuh"

// Numbers of a block; `optimizer.rs` has the same number.
constexpr int PER_BLOCK = 4096;

// A parameter, what is remembered of it (the first or only moment, the second), its gradient, and the number of its first block. SGD:
// rate is lr, decay λ. AdamW: rate is lr / (1 − β₁ᵗ), decay 1 − lr λ.
struct Change {
    C *p, *first, *second;
    const C *g;
    long long count;
    double rate, decay;
    long long block;
};

// The change of this block: the last that begins no later.
__device__ inline const Change &own_part(const Change *changes, int count) {
    int low = 0, high = count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (changes[middle].block <= (long long)blockIdx.x) low = middle;
        else high = middle - 1;
    }
    return changes[low];
}

// Where the numbers of this block begin and end.
__device__ inline long long own_start(const Change &change) { return ((long long)blockIdx.x - change.block) * PER_BLOCK; }
__device__ inline long long own_end(const Change &change) {
    long long end = own_start(change) + PER_BLOCK;
    return end < change.count ? end : change.count;
}

// v ← μ v + (share · g + λ p); p ← p − lr v
KERNEL(sgd)(const Change *changes, int count, double share, double momentum) {
    const Change &change = own_part(changes, count);
    C *__restrict__ p = change.p, *__restrict__ v = change.first;
    const C *__restrict__ g = change.g;
    C lr = (C)change.rate, decay = (C)change.decay;
    long long end = own_end(change);
#pragma unroll 4
    for (long long i = own_start(change) + threadIdx.x; i < end; i += BLOCK) {
        C velocity = (C)momentum * v[i] + ((C)share * g[i] + decay * p[i]);
        v[i] = velocity;
        p[i] -= lr * velocity;
    }
}

// m ← β₁ m + (1 − β₁) share · g; v ← β₂ v + (1 − β₂) (share · g)²; p ← decay · p − rate · m / (√v / correction + ε)
KERNEL(adamw)(const Change *changes, int count, double share, double beta1, double new1, double beta2, double new2,
              double correction, double epsilon) {
    const Change &change = own_part(changes, count);
    C *__restrict__ p = change.p, *__restrict__ m = change.first, *__restrict__ v = change.second;
    const C *__restrict__ g = change.g;
    C rate = (C)change.rate, decay = (C)change.decay;
    long long end = own_end(change);
#pragma unroll 4
    for (long long i = own_start(change) + threadIdx.x; i < end; i += BLOCK) {
        C clipped = (C)share * g[i];
        C mean = (C)beta1 * m[i] + (C)new1 * clipped, square = (C)beta2 * v[i] + (C)new2 * clipped * clipped;
        m[i] = mean;
        v[i] = square;
        p[i] = decay * p[i] - rate * mean / (sqrt(square) / (C)correction + (C)epsilon);
    }
}

// partial[block] = Σ g² over the numbers of the block, in double precision.
TOGETHER(squares)(const Change *changes, int count, double *partial) {
    const Change &change = own_part(changes, count);
    const C *g = change.g;
    long long end = own_end(change);
    double sum = 0;
#pragma unroll 4
    for (long long i = own_start(change) + threadIdx.x; i < end; i += BLOCK) sum += (double)g[i] * (double)g[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// out[change] = Σ of the partial sums of its blocks; a block for each change.
TOGETHER(squares_total)(const Change *changes, const double *partial, double *out) {
    const Change &change = changes[blockIdx.x];
    long long count = (change.count + PER_BLOCK - 1) / PER_BLOCK;
    double sum = 0;
    for (long long i = threadIdx.x; i < count; i += BLOCK) sum += partial[change.block + i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
