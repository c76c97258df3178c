// Batch normalisation over (rows, channels). Statistics and what follows from them are in double precision.

#include "common.cuh"

constexpr double BATCH_NORM_EPSILON = 1e-5;

struct MomentTerm {
    const T *x;
    int channels;
    __device__ void operator()(long long row, int channel, double &sum, double &square) const {
        double value = (double)x[row * channels + channel];
        sum += value;
        square += value * value;
    }
};

// Sums and sums of squares, see column_sums.
TOGETHER(moments)(const T *x, long long rows, int channels, int rows_per_group, double *partial) {
    column_sums(MomentTerm{x, channels}, rows, channels, rows_per_group, partial);
}

// Means, then variances (divided by n), from sums and sums of squares.
KERNEL(statistics)(const double *sums, long long count, int channels, double *out) {
    long long c = here();
    if (c >= channels) return;
    double mean = sums[c] / (double)count, variance = sums[channels + c] / (double)count - mean * mean;
    out[c] = mean;
    out[channels + c] = variance > 0 ? variance : 0;
}

// From means and variances: 1 / √(variance + ε), scale / √(variance + ε), and shift − mean · that; (3, channels).
KERNEL(batch_norm_coefficients)(const double *statistics, const C *scale, const C *shift, int channels, double *out) {
    long long c = here();
    if (c >= channels) return;
    double inverse = 1.0 / sqrt(statistics[channels + c] + BATCH_NORM_EPSILON);
    double factor = (double)scale[c] * inverse;
    out[c] = inverse;
    out[channels + c] = factor;
    out[2 * channels + c] = (double)shift[c] - statistics[c] * factor;
}

// y = activation(x · factor + offset + residual); there may be no residual.
KERNEL(batch_norm)(const T *x, const T *residual, const double *coefficients, int channels, int relu, T *y, long long n) {
    long long i = here();
    if (i >= n) return;
    int c = remainder_of(i, channels);
    C value = (C)x[i] * (C)coefficients[channels + c] + (C)coefficients[2 * channels + c];
    if (residual) value += (C)residual[i];
    y[i] = (T)(relu && value < 0 ? (C)0 : value);  // NaN stays
}

struct NormTerm {
    const T *x, *y, *g;
    const double *statistics, *coefficients;
    int channels;
    __device__ void operator()(long long row, int c, double &sum, double &product) const {
        long long i = row * channels + c;
        C passed = !y || (C)y[i] > 0 ? (C)g[i] : (C)0;
        sum += (double)passed;
        product += (double)(passed * ((C)x[i] - (C)statistics[c]) * (C)coefficients[c]);
    }
};

// With g what came through the activation (all of it without y): Σ g and Σ g · x̂, see column_sums.
TOGETHER(batch_norm_sums)(const T *x, const T *y, const T *g, const double *statistics, const double *coefficients,
                          long long rows, int channels, int rows_per_group, double *partial) {
    column_sums(NormTerm{x, y, g, statistics, coefficients, channels}, rows, channels, rows_per_group, partial);
}

// The gradient of the input is factor · g + slope · x + level; slope and level, (2, channels), from the two sums. They are 0 when the
// statistics are constants, and the sums may be missing then.
KERNEL(batch_norm_slopes)(const double *sums, const double *statistics, const double *coefficients, long long count,
                          int channels, int constants, double *out) {
    long long c = here();
    if (c >= channels) return;
    double factor = coefficients[channels + c];
    double slope = constants ? 0 : -factor * coefficients[c] * sums[channels + c] / (double)count;
    out[c] = slope;
    out[channels + c] = constants ? 0 : -factor * sums[c] / (double)count - slope * statistics[c];
}

// dx, and what came through the activation where there is a place for it.
KERNEL(batch_norm_gradient)(const T *x, const T *y, const T *g, const double *coefficients, const double *slopes,
                            int channels, T *dx, T *passed, long long n) {
    long long i = here();
    if (i >= n) return;
    int c = remainder_of(i, channels);
    C through = !y || (C)y[i] > 0 ? (C)g[i] : (C)0;
    dx[i] = (T)((C)coefficients[channels + c] * through + ((C)slopes[c] * (C)x[i] + (C)slopes[channels + c]));
    if (passed) passed[i] = (T)through;
}
