// Layer normalisation, a warp for each row.

#include "common.cuh"

// y = (x − mean) / √(variance + ε) · scale + shift; mean and 1 / √(variance + ε) of each row are kept, (rows, 2).
TOGETHER(layer_norm)(const T *x, const C *scale, const C *shift, double epsilon, int width, long long rows, T *y, C *kept) {
    long long number = here() / WARP;
    int lane = threadIdx.x % WARP, end = number < rows ? width : 0;
    const T *row = x + number * width;
    T *out = y + number * width;
    double sum = 0, squares = 0;
#pragma unroll 4
    for (int i = lane; i < end; i += WARP) sum += (double)row[i];
    double mean = warp_sum(sum) / width;
#pragma unroll 4
    for (int i = lane; i < end; i += WARP) squares += ((double)row[i] - mean) * ((double)row[i] - mean);
    C centre = (C)mean, inverse = (C)(1.0 / sqrt(warp_sum(squares) / width + epsilon));
#pragma unroll 4
    for (int i = lane; i < end; i += WARP) out[i] = (T)(((C)row[i] - centre) * inverse * scale[i] + shift[i]);
    if (lane == 0 && number < rows) {
        kept[2 * number] = centre;
        kept[2 * number + 1] = inverse;
    }
}

// With x̂ the normalised row and d = g · scale: dx = (d − mean(d) − x̂ · mean(d · x̂)) / √(variance + ε).
TOGETHER(layer_norm_gradient)(const T *x, const C *scale, const T *g, const C *kept, int width, long long rows, T *dx) {
    long long number = here() / WARP, first = number * width;
    int lane = threadIdx.x % WARP, end = number < rows ? width : 0;
    C centre = number < rows ? kept[2 * number] : 0, inverse = number < rows ? kept[2 * number + 1] : 0;
    double sum = 0, product = 0;
#pragma unroll 4
    for (int i = lane; i < end; i += WARP) {
        C d = (C)g[first + i] * scale[i];
        sum += (double)d;
        product += (double)d * (double)(((C)x[first + i] - centre) * inverse);
    }
    C mean = (C)(warp_sum(sum) / width), along = (C)(warp_sum(product) / width);
#pragma unroll 4
    for (int i = lane; i < end; i += WARP) {
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
