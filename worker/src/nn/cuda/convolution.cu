// Convolution as a product: the patches of a grid (samples, height, width, channels) as rows, and back.

#include "common.cuh"

// Where number i of the result (first, third, second) is in (first, second, third).
__device__ inline long long exchanged(long long i, int second, int third) {
    int b = remainder_of(i, second);
    long long rest = i / second;
    int c = remainder_of(rest, third);
    return (rest / third * second + b) * third + c;
}

// Weights (outputs, channels, area) to (outputs, area, channels), as products take them.
KERNEL(channels_last)(const C *weights, int channels, int area, T *out, long long n) {
    long long i = here();
    if (i < n) out[i] = (T)weights[exchanged(i, channels, area)];
}

// Their gradient (outputs, area, channels) to (outputs, channels, area).
KERNEL(channels_first)(const C *gradient, int area, int channels, C *out, long long n) {
    long long i = here();
    if (i < n) out[i] = gradient[exchanged(i, area, channels)];
}

// rows[(sample, i, j)][(u, v, c)] = x[sample, i · stride + u − padding, j · stride + v − padding, c], 0 outside; n numbers of the result.
KERNEL(patches)(const T *x, int height, int width, int channels, int tall, int wide, int stride, int padding, int down,
                int across, T *out, long long n) {
    long long at = here();
    if (at >= n) return;
    int c = remainder_of(at, channels);
    long long rest = at / channels;
    int v = remainder_of(rest, wide);
    rest /= wide;
    int u = remainder_of(rest, tall);
    rest /= tall;
    int j = remainder_of(rest, across);
    rest /= across;
    int i = remainder_of(rest, down);
    long long sample = rest / down;
    int row = i * stride + u - padding, column = j * stride + v - padding;
    bool inside = row >= 0 && row < height && column >= 0 && column < width;
    out[at] = inside ? x[((sample * height + row) * width + column) * channels + c] : (T)0;
}

// The gradient of the grid from that of its patches: each place takes its parts, in the order of the kernel's rows and columns; n
// numbers of the grid.
KERNEL(patches_gradient)(const T *rows, int height, int width, int channels, int tall, int wide, int stride,
                         int padding, int down, int across, T *out, long long n) {
    long long at = here();
    if (at >= n) return;
    int c = remainder_of(at, channels);
    long long rest = at / channels;
    int column = remainder_of(rest, width);
    rest /= width;
    int row = remainder_of(rest, height);
    long long sample = rest / height;
    C sum = 0;
    for (int u = 0; u < tall; u++) {
        int i = row + padding - u;
        if (i < 0 || i % stride != 0 || i / stride >= down) continue;
        for (int v = 0; v < wide; v++) {
            int j = column + padding - v;
            if (j < 0 || j % stride != 0 || j / stride >= across) continue;
            long long place = (sample * down + i / stride) * across + j / stride;
            sum += (C)rows[((place * tall + u) * wide + v) * channels + c];
        }
    }
    out[at] = (T)sum;
}
