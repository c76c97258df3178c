// Convolution as a product: the patches of a grid (samples, height, width, channels) as rows, and back.

#include "common.cuh"

// Where number i of the result (first, third, second) is in (first, second, third).
__device__ inline long long exchanged(long long i, int second, int third) {
    int b = taken(i, second), c = taken(i, third);
    return (i * second + b) * third + c;
}

// Weights or grids (outputs, channels, area) to (outputs, area, channels), as products take them.
KERNEL(channels_last)(const C *weights, int channels, int area, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = (T)weights[exchanged(i, channels, area)];
}

// Their gradient (outputs, area, channels) to (outputs, channels, area).
KERNEL(channels_first)(const C *gradient, int area, int channels, C *out, long long n) {
    long long i = here();
    if (i < n) out[i] = gradient[exchanged(i, area, channels)];
}

// A grid (samples, height, width, channels), and a kernel that goes over it.
struct Walk {
    int height, width, channels, tall, wide, stride, padding, down, across;
};

// Each thread has N channels of one place and one column of the kernel, for all its rows.
template <int N> __device__ void lay_patches(const T *x, Walk by, T *out, long long n) {
    long long rest = here();
    if (rest >= n) return;
    int c = taken(rest, by.channels / N) * N, v = taken(rest, by.wide);
    long long place = rest;
    int j = taken(rest, by.across), i = taken(rest, by.down);
    int column = j * by.stride + v - by.padding;
    for (int u = 0; u < by.tall; u++) {
        int row = i * by.stride + u - by.padding;
        Pack<N> pack;
        if (row >= 0 && row < by.height && column >= 0 && column < by.width) {
            pack = *(const Pack<N> *)(x + ((rest * by.height + row) * by.width + column) * by.channels + c);
        } else {
            for (int k = 0; k < N; k++) pack.at[k] = (T)0;
        }
        *(Pack<N> *)(out + ((place * by.tall + u) * by.wide + v) * by.channels + c) = pack;
    }
}

// rows[(sample, i, j)][(u, v, c)] = x[sample, i · stride + u − padding, j · stride + v − padding, c], 0 outside. n is how many
// numbers there are in one row of the kernel at all places.
KERNEL(patches)(const T *x, int height, int width, int channels, int tall, int wide, int stride, int padding, int down,
                int across, T *out, long long n) {
    Walk by{height, width, channels, tall, wide, stride, padding, down, across};
    channels % WIDEST == 0 ? lay_patches<WIDEST>(x, by, out, n / WIDEST) : lay_patches<1>(x, by, out, n);
}

// Each thread has N channels of one place of the grid.
template <int N> __device__ void gather_patches(const T *rows, Walk by, T *out, long long n) {
    long long rest = here();
    if (rest >= n) return;
    long long at = rest;
    int c = taken(rest, by.channels / N) * N, column = taken(rest, by.width) + by.padding;
    int row = taken(rest, by.height) + by.padding;
    int top = row - by.tall + 1, left = column - by.wide + 1;
    int first = left > 0 ? (left + by.stride - 1) / by.stride : 0;
    C sums[N];
    for (int k = 0; k < N; k++) sums[k] = 0;
    for (int i = top > 0 ? (top + by.stride - 1) / by.stride : 0; i < by.down && i * by.stride <= row; i++) {
        for (int j = first; j < by.across && j * by.stride <= column; j++) {
            long long place = (rest * by.down + i) * by.across + j;
            int u = row - i * by.stride, v = column - j * by.stride;
            Pack<N> pack = *(const Pack<N> *)(rows + ((place * by.tall + u) * by.wide + v) * by.channels + c);
            for (int k = 0; k < N; k++) sums[k] += (C)pack.at[k];
        }
    }
    Pack<N> pack;
    for (int k = 0; k < N; k++) pack.at[k] = (T)sums[k];
    ((Pack<N> *)out)[at] = pack;
}

// The gradient of the grid from that of its patches: each place takes its parts, in the order of the patches; n numbers of the grid.
KERNEL(patches_gradient)(const T *rows, int height, int width, int channels, int tall, int wide, int stride,
                         int padding, int down, int across, T *out, long long n) {
    Walk by{height, width, channels, tall, wide, stride, padding, down, across};
    channels % WIDEST == 0 ? gather_patches<WIDEST>(rows, by, out, n / WIDEST) : gather_patches<1>(rows, by, out, n);
}
