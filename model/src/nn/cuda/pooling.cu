// Pooling over grids (samples, height, width, channels).

#include "common.cuh"

// The largest of each window, and where in it the first of them was: u · size + v; n numbers of the result.
KERNEL(max_pool)(const T *x, int height, int width, int channels, int size, int stride, int padding, int down,
                 int across, T *out, unsigned char *chosen, long long n) {
    long long at = here();
    if (at >= n) return;
    long long sample = at;
    int c = taken(sample, channels), j = taken(sample, across), i = taken(sample, down);
    // As in main memory: NaN stays.
    C best = (C)-INFINITY;
    int tap = -1;
    for (int u = 0; u < size; u++) {
        int row = i * stride + u - padding;
        if (row < 0 || row >= height) continue;
        for (int v = 0; v < size; v++) {
            int column = j * stride + v - padding;
            if (column < 0 || column >= width) continue;
            C value = (C)x[((sample * height + row) * width + column) * channels + c];
            if (tap < 0 || value > best || value != value) {
                best = value;
                tap = u * size + v;
            }
        }
    }
    out[at] = (T)best;
    chosen[at] = (unsigned char)tap;
}

// Each place takes the gradients of the windows that chose it, in their order; n numbers of the grid.
KERNEL(max_pool_gradient)(const T *g, const unsigned char *chosen, int height, int width, int channels, int size,
                          int stride, int padding, int down, int across, T *out, long long n) {
    long long at = here();
    if (at >= n) return;
    long long sample = at;
    int c = taken(sample, channels), column = taken(sample, width), row = taken(sample, height);
    int top = row + padding - size + 1, left = column + padding - size + 1;
    C sum = 0;
    for (int i = top > 0 ? (top + stride - 1) / stride : 0; i < down && i * stride <= row + padding; i++) {
        for (int j = left > 0 ? (left + stride - 1) / stride : 0; j < across && j * stride <= column + padding; j++) {
            long long window = ((sample * down + i) * across + j) * channels + c;
            int tap = (row + padding - i * stride) * size + column + padding - j * stride;
            if (chosen[window] == tap) sum += (C)g[window];
        }
    }
    out[at] = (T)sum;
}

// Where cell i of `cells` begins and ends on an axis of `length` places.
__device__ inline int cell_start(int i, int length, int cells) { return (int)((long long)i * length / cells); }
__device__ inline int cell_end(int i, int length, int cells) {
    return (int)(((long long)(i + 1) * length + cells - 1) / cells);
}

// The mean of each cell; n numbers of the result.
KERNEL(grid_mean)(const T *x, int height, int width, int channels, int rows, int columns, T *out, long long n) {
    long long at = here();
    if (at >= n) return;
    long long sample = at;
    int c = taken(sample, channels), j = taken(sample, columns), i = taken(sample, rows);
    int top = cell_start(i, height, rows), bottom = cell_end(i, height, rows);
    int left = cell_start(j, width, columns), right = cell_end(j, width, columns);
    C share = (C)(1.0 / ((double)(bottom - top) * (right - left))), sum = 0;
    for (int row = top; row < bottom; row++) {
        for (int column = left; column < right; column++) {
            sum += (C)x[((sample * height + row) * width + column) * channels + c] * share;
        }
    }
    out[at] = (T)sum;
}

// Each place takes its share from the cells that it is in; n numbers of the grid.
KERNEL(grid_mean_gradient)(const T *g, int height, int width, int channels, int rows, int columns, T *out,
                           long long n) {
    long long at = here();
    if (at >= n) return;
    long long sample = at;
    int c = taken(sample, channels), column = taken(sample, width), row = taken(sample, height);
    C sum = 0;
    for (int i = cell_start(row, rows, height); i < rows && cell_start(i, height, rows) <= row; i++) {
        int tall = cell_end(i, height, rows) - cell_start(i, height, rows);
        for (int j = cell_start(column, columns, width); j < columns && cell_start(j, width, columns) <= column; j++) {
            int wide = cell_end(j, width, columns) - cell_start(j, width, columns);
            sum += (C)g[((sample * rows + i) * columns + j) * channels + c] * (C)(1.0 / ((double)tall * wide));
        }
    }
    out[at] = (T)sum;
}
