// What attention does beside its products: softmax over the rows of scores, a block for each row.

#include "common.cuh"

// row = softmax(scale · row), in place.
TOGETHER(softmax)(T *scores, double scale, int length) {
    T *row = scores + (long long)blockIdx.x * length;
    T largest = row[0];
    for (int i = threadIdx.x; i < length; i += BLOCK) largest = row[i] > largest ? row[i] : largest;
    largest = block_max(largest);
    T sum = 0;
    for (int i = threadIdx.x; i < length; i += BLOCK) {
        row[i] = exp((row[i] - largest) * (T)scale);
        sum += row[i];
    }
    T inverse = (T)1 / block_sum(sum);
    for (int i = threadIdx.x; i < length; i += BLOCK) row[i] *= inverse;
}

// gradient = probabilities · (gradient − Σ probabilities · gradient) · scale, in place.
TOGETHER(softmax_gradient)(T *gradient, const T *probabilities, double scale, int length) {
    T *g = gradient + (long long)blockIdx.x * length;
    const T *p = probabilities + (long long)blockIdx.x * length;
    T sum = 0;
    for (int i = threadIdx.x; i < length; i += BLOCK) sum += g[i] * p[i];
    T mean = block_sum(sum);
    for (int i = threadIdx.x; i < length; i += BLOCK) g[i] = (g[i] - mean) * p[i] * (T)scale;
}
