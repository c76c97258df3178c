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

// Numbers of a thread of a kernel that takes each number by itself; `launch.rs` has the same number.
constexpr int EACH = 8;

// load(i), then store(i, what that gave) for every i below n, some of each thread's loads under way at a time. A store may write where a
// load of the same number read.
template <class Load, class Store> __device__ void numbers(long long n, Load load, Store store) {
    long long first = (long long)blockIdx.x * (BLOCK * EACH) + threadIdx.x;
    decltype(load(first)) values[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        if (first + k * BLOCK < n) values[k] = load(first + k * BLOCK);
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        if (first + k * BLOCK < n) store(first + k * BLOCK, values[k]);
    }
}

// Some numbers that were loaded together.
template <int N> struct Loaded {
    C at[N];
};

// Which of all threads this is.
__device__ inline long long here() { return (long long)blockIdx.x * BLOCK + threadIdx.x; }

// i mod n, in 32 bits where they suffice, and without a division by a power of 2.
__device__ inline int remainder_of(long long i, int n) {
    if ((n & (n - 1)) == 0) return (int)(i & (n - 1));
    return i < 0x80000000ll ? (int)((unsigned)i % (unsigned)n) : (int)(i % n);
}

// Threads that exchange numbers without a barrier; `launch.rs` has the same number. Where they do, all threads of a block must.
constexpr int WARP = 32;
constexpr unsigned EVERYONE = 0xffffffffu;

// rest mod n, of which rest / n is left; in 32 bits where they suffice.
__device__ inline int taken(long long &rest, int n) {
    if (rest < 0x80000000ll) {
        unsigned all = (unsigned)rest, share = all / (unsigned)n;
        rest = share;
        return (int)(all - share * (unsigned)n);
    }
    long long all = rest;
    rest = all / n;
    return (int)(all % n);
}

// As many numbers as are read and written at once, 16 bytes, or only one. Places of several are multiples of 16 bytes.
template <int N> struct alignas(N * sizeof(T)) Pack {
    T at[N];
};
constexpr int WIDEST = 16 / sizeof(T);

// The sum over the threads of a warp, in pairs: one order, and the same bits for all.
template <class N> __device__ N warp_sum(N value) {
    for (int other = WARP / 2; other > 0; other /= 2) value += __shfl_xor_sync(EVERYONE, value, other);
    return value;
}

// The largest over the threads of a warp.
__device__ inline C warp_max(C value) {
    for (int other = WARP / 2; other > 0; other /= 2) {
        C others = __shfl_xor_sync(EVERYONE, value, other);
        value = others > value ? others : value;
    }
    return value;
}

// The sum over the threads of a block: of its warps, in their order.
template <class N> __device__ N block_sum(N value) {
    __shared__ N shared[BLOCK / WARP];
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = value;
    __syncthreads();
    N sum = shared[0];
    for (int warp = 1; warp < BLOCK / WARP; warp++) sum += shared[warp];
    __syncthreads();
    return sum;
}

// The largest over the threads of a block.
__device__ inline C block_max(C value) {
    __shared__ C shared[BLOCK / WARP];
    value = warp_max(value);
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = value;
    __syncthreads();
    C largest = shared[0];
    for (int warp = 1; warp < BLOCK / WARP; warp++) largest = shared[warp] > largest ? shared[warp] : largest;
    __syncthreads();
    return largest;
}

// Columns that a block sums at a time, and threads that share a column.
constexpr int TILE = 32;
constexpr int LANES = BLOCK / TILE;

// Both sums over all groups for each column of a tile, `partial` being what `column_sums` left: of every so many-th group, then of those.
// A block for each tile; true for the threads that have them.
__device__ inline bool column_totals(const double *partial, int groups, int columns, int &column, double &first,
                                     double &second) {
    __shared__ double shared[2 * BLOCK];
    int lane = (int)threadIdx.x / TILE;
    column = (int)blockIdx.x * TILE + (int)threadIdx.x % TILE;
    first = second = 0;
    if (column < columns) {
#pragma unroll 4
        for (int group = lane; group < groups; group += LANES) {
            first += partial[((long long)group * 2) * columns + column];
            second += partial[((long long)group * 2 + 1) * columns + column];
        }
    }
    shared[threadIdx.x] = first;
    shared[BLOCK + threadIdx.x] = second;
    __syncthreads();
    if (lane > 0 || column >= columns) return false;
    for (int other = 1; other < LANES; other++) {
        first += shared[other * TILE + threadIdx.x];
        second += shared[BLOCK + other * TILE + threadIdx.x];
    }
    return true;
}

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
#pragma unroll 4
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
