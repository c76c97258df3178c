// Layer normalisation, a block for each row.

#include "common.cuh"

// y = (x − mean) / √(variance + ε) · scale + shift; mean and 1 / √(variance + ε) of each row are kept, (rows, 2).
TOGETHER(layer_norm)(const T *x, const C *scale, const C *shift, double epsilon, int width, T *y, C *kept) {
    const T *row = x + (long long)blockIdx.x * width;
    T *out = y + (long long)blockIdx.x * width;
    double sum = 0;
    for (int i = threadIdx.x; i < width; i += BLOCK) sum += (double)row[i];
    double mean = block_sum(sum) / width, squares = 0;
    for (int i = threadIdx.x; i < width; i += BLOCK) squares += ((double)row[i] - mean) * ((double)row[i] - mean);
    C centre = (C)mean, inverse = (C)(1.0 / sqrt(block_sum(squares) / width + epsilon));
    for (int i = threadIdx.x; i < width; i += BLOCK) {
        out[i] = (T)(((C)row[i] - centre) * inverse * scale[i] + shift[i]);
    }
    if (threadIdx.x == 0) {
        kept[2 * (long long)blockIdx.x] = centre;
        kept[2 * (long long)blockIdx.x + 1] = inverse;
    }
}

// With x̂ the normalised row and d = g · scale: dx = (d − mean(d) − x̂ · mean(d · x̂)) / √(variance + ε).
TOGETHER(layer_norm_gradient)(const T *x, const C *scale, const T *g, const C *kept, int width, T *dx) {
    long long first = (long long)blockIdx.x * width;
    C centre = kept[2 * (long long)blockIdx.x], inverse = kept[2 * (long long)blockIdx.x + 1];
    double sum = 0, product = 0;
    for (int i = threadIdx.x; i < width; i += BLOCK) {
        C d = (C)g[first + i] * scale[i];
        sum += (double)d;
        product += (double)d * (double)(((C)x[first + i] - centre) * inverse);
    }
    C mean = (C)(block_sum(sum) / width), along = (C)(block_sum(product) / width);
    for (int i = threadIdx.x; i < width; i += BLOCK) {
        C d = (C)g[first + i] * scale[i];
        dx[first + i] = (T)((d - mean - ((C)x[first + i] - centre) * inverse * along) * inverse);
    }
}

struct LayerNormTerm {
    const T *x, *g;
    const C *kept;
    int width;
    __device__ void operator()(long long row, int column, double &shift, double &scale) const {
        long long i = row * width + column;
        shift += (double)g[i];
        scale += (double)((C)g[i] * (((C)x[i] - kept[2 * row]) * kept[2 * row + 1]));
    }
};

// Σ g and Σ g · x̂ over the rows, see column_sums.
TOGETHER(layer_norm_sums)(const T *x, const T *g, const C *kept, long long rows, int width, int rows_per_group,
                          double *partial) {
    column_sums(LayerNormTerm{x, g, kept, width}, rows, width, rows_per_group, partial);
}
