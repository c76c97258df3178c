// What attention does beside its products: softmax over the rows of scores, a warp for each row.

#include "common.cuh"

// Where N numbers of the matrices (kinds, texts, heads, length, depth) are in rows, in which all heads of a kind are beside each other, and
// the kinds then.
template <int N> __device__ long long place_in_rows(long long at, const unsigned *starts, int texts, int heads,
                                                    int length, int depth, int kinds) {
    int d = taken(at, depth / N) * N, row = taken(at, length), head = taken(at, heads), text = taken(at, texts);
    return (((long long)starts[text] + row) * kinds + at) * (heads * depth) + head * depth + d;
}

template <int N> __device__ void move_apart(const T *rows, const unsigned *starts, int texts, int heads, int length,
                                            int depth, int kinds, T *out, long long n) {
    long long i = here();
    if (i >= n) return;
    long long from = place_in_rows<N>(i, starts, texts, heads, length, depth, kinds);
    ((Pack<N> *)out)[i] = *(const Pack<N> *)(rows + from);
}

template <int N> __device__ void move_together(T *rows, const unsigned *starts, int texts, int heads, int length,
                                               int depth, int kinds, const T *matrices, long long n) {
    long long i = here();
    if (i >= n) return;
    long long to = place_in_rows<N>(i, starts, texts, heads, length, depth, kinds);
    *(Pack<N> *)(rows + to) = ((const Pack<N> *)matrices)[i];
}

// The matrices of the texts that begin at these rows; n numbers of them.
KERNEL(heads_apart)(const T *rows, const unsigned *starts, int texts, int heads, int length, int depth, int kinds,
                    T *out, long long n) {
    depth % WIDEST == 0 ? move_apart<WIDEST>(rows, starts, texts, heads, length, depth, kinds, out, n / WIDEST)
                        : move_apart<1>(rows, starts, texts, heads, length, depth, kinds, out, n);
}

// And back.
KERNEL(heads_together)(T *rows, const unsigned *starts, int texts, int heads, int length, int depth, int kinds,
                       const T *matrices, long long n) {
    depth % WIDEST == 0 ? move_together<WIDEST>(rows, starts, texts, heads, length, depth, kinds, matrices, n / WIDEST)
                        : move_together<1>(rows, starts, texts, heads, length, depth, kinds, matrices, n);
}

// row = softmax(scale · row), in place where it is kept, and as products take it where there is a place for that. Rows begin every
// `stride` numbers.
TOGETHER(softmax)(C *scores, double scale, int length, int stride, long long rows, int kept, T *stored) {
    long long number = here() / WARP;
    int lane = threadIdx.x % WARP, end = number < rows ? length : 0;
    C *row = scores + number * stride;
    C largest = -INFINITY, sum = 0;
    for (int i = lane; i < end; i += WARP) largest = row[i] > largest ? row[i] : largest;
    largest = warp_max(largest);
    for (int i = lane; i < end; i += WARP) sum += exp((row[i] - largest) * (C)scale);
    C inverse = (C)1 / warp_sum(sum);
    for (int i = lane; i < end; i += WARP) {
        C probability = exp((row[i] - largest) * (C)scale) * inverse;
        if (kept) row[i] = probability;
        if (stored) stored[number * stride + i] = (T)probability;
    }
}

// probabilities · (gradient − Σ probabilities · gradient) · scale, as products take it. Rows begin every `stride` numbers.
TOGETHER(softmax_gradient)(const C *gradient, const C *probabilities, double scale, int length, int stride,
                           long long rows, T *out) {
    long long number = here() / WARP;
    int lane = threadIdx.x % WARP, end = number < rows ? length : 0;
    const C *g = gradient + number * stride, *p = probabilities + number * stride;
    C sum = 0;
    for (int i = lane; i < end; i += WARP) sum += g[i] * p[i];
    sum = warp_sum(sum);
    for (int i = lane; i < end; i += WARP) out[number * stride + i] = (T)((g[i] - sum) * p[i] * (C)scale);
}
