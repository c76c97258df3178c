// What attention does beside its products: softmax over the rows of scores, a block for each row.

#include "common.cuh"

// row = softmax(scale · row), in place, and as products take it where there is a place for that. Rows begin every `stride` numbers.
TOGETHER(softmax)(C *scores, double scale, int length, int stride, T *stored) {
    C *row = scores + (long long)blockIdx.x * stride;
    C largest = row[0];
    for (int i = threadIdx.x; i < length; i += BLOCK) largest = row[i] > largest ? row[i] : largest;
    largest = block_max(largest);
    C sum = 0;
    for (int i = threadIdx.x; i < length; i += BLOCK) {
        row[i] = exp((row[i] - largest) * (C)scale);
        sum += row[i];
    }
    C inverse = (C)1 / block_sum(sum);
    for (int i = threadIdx.x; i < length; i += BLOCK) {
        row[i] *= inverse;
        if (stored) stored[(long long)blockIdx.x * stride + i] = (T)row[i];
    }
}

// probabilities · (gradient − Σ probabilities · gradient) · scale, as products take it. Rows begin every `stride` numbers.
TOGETHER(softmax_gradient)(const C *gradient, const C *probabilities, double scale, int length, int stride, T *out) {
    long long first = (long long)blockIdx.x * stride;
    const C *g = gradient + first, *p = probabilities + first;
    C sum = 0;
    for (int i = threadIdx.x; i < length; i += BLOCK) sum += g[i] * p[i];
    C mean = block_sum(sum);
    for (int i = threadIdx.x; i < length; i += BLOCK) out[first + i] = (T)((g[i] - mean) * p[i] * (C)scale);
}
