// What all kernels share. They are compiled once for each type of number: NUMBER is what flows between operators (float, double or
// Bf16), COMPUTED what they compute in, and what parameters, their gradients and all that is kept of a row or channel are (float or
// double). SUFFIX (f32, f64, bf16) ends the names of its kernels.
//
// No kernel adds by atomics: every sum has one order, so that the same input gives the same bits.

#pragma once

#include "bf16.cuh"

typedef NUMBER T;
typedef COMPUTED C;

// Threads of a block; `launch.rs` has the same number.
constexpr int BLOCK = 256;

#define JOINED(name, suffix) name##_##suffix
#define NAMED(name, suffix) JOINED(name, suffix)

// A kernel whose threads go each their own way.
#define KERNEL(name) extern "C" __global__ void NAMED(name, SUFFIX)

// A kernel whose threads wait for each other.
#define TOGETHER(name) extern "C" __global__ void NAMED(name, SUFFIX)

// Which of all threads this is.
__device__ inline long long here() { return (long long)blockIdx.x * BLOCK + threadIdx.x; }

// i mod n, in 32 bits where they suffice.
__device__ inline int remainder_of(long long i, int n) {
    return i < 0x80000000ll ? (int)((unsigned)i % (unsigned)n) : (int)(i % n);
}

// The sum over the threads of a block, in pairs: one order.
template <class N> __device__ N block_sum(N value) {
    __shared__ N shared[BLOCK];
    shared[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    N sum = shared[0];
    __syncthreads();
    return sum;
}

// The largest over the threads of a block.
__device__ inline C block_max(C value) {
    __shared__ C shared[BLOCK];
    shared[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half && shared[threadIdx.x + half] > shared[threadIdx.x]) {
            shared[threadIdx.x] = shared[threadIdx.x + half];
        }
        __syncthreads();
    }
    C largest = shared[0];
    __syncthreads();
    return largest;
}

// Columns that a block sums at a time, and threads that share a column.
constexpr int TILE = 32;
constexpr int LANES = BLOCK / TILE;

// Two sums for each of `columns` over a group of rows: `term(row, column, first, second)` adds to both. Blocks go through the
// tiles of columns within a group, then the groups; `partial` is (groups, 2, columns).
template <class Term>
__device__ void column_sums(Term term, long long rows, int columns, int rows_per_group, double *partial) {
    __shared__ double shared[2 * BLOCK];
    int tiles = (columns + TILE - 1) / TILE;
    long long group = blockIdx.x / tiles, end = (group + 1) * rows_per_group;
    int column = (int)(blockIdx.x % tiles) * TILE + (int)threadIdx.x % TILE, lane = (int)threadIdx.x / TILE;
    double first = 0, second = 0;
    if (column < columns) {
        if (end > rows) end = rows;
        for (long long row = group * rows_per_group + lane; row < end; row += LANES) term(row, column, first, second);
    }
    shared[threadIdx.x] = first;
    shared[BLOCK + threadIdx.x] = second;
    __syncthreads();
    if (lane == 0 && column < columns) {
        for (int other = 1; other < LANES; other++) {
            first += shared[other * TILE + threadIdx.x];
            second += shared[BLOCK + other * TILE + threadIdx.x];
        }
        partial[(group * 2) * columns + column] = first;
        partial[(group * 2 + 1) * columns + column] = second;
    }
}
