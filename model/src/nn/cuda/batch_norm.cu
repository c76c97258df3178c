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

// Means, then variances (divided by n), from sums and sums of squares, see column_totals.
TOGETHER(statistics)(const double *partial, int groups, int channels, long long count, double *out) {
    int c;
    double sum, square;
    if (!column_totals(partial, groups, channels, c, sum, square)) return;
    double mean = sum / (double)count, variance = square / (double)count - mean * mean;
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
    numbers(
        n, [=](long long i) { return Loaded<2>{{(C)x[i], residual ? (C)residual[i] : (C)0}}; },
        [=](long long i, Loaded<2> given) {
            int c = remainder_of(i, channels);
            C value = given.at[0] * (C)coefficients[channels + c] + (C)coefficients[2 * channels + c] + given.at[1];
            y[i] = (T)(relu && value < 0 ? (C)0 : value);  // NaN stays
        });
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

// From both sums, see column_totals: the gradients of shift and scale, (2, channels); and slope and level, (2, channels), where the gradient
// of the input is factor · g + slope · x + level. Those are 0 when the statistics are constants.
TOGETHER(batch_norm_slopes)(const double *partial, int groups, int channels, const double *statistics,
                            const double *coefficients, long long count, int constants, C *gradients, double *out) {
    int c;
    double sum, product;
    if (!column_totals(partial, groups, channels, c, sum, product)) return;
    double factor = coefficients[channels + c];
    double slope = constants ? 0 : -factor * coefficients[c] * product / (double)count;
    gradients[c] = (C)sum;
    gradients[channels + c] = (C)product;
    out[c] = slope;
    out[channels + c] = constants ? 0 : -factor * sum / (double)count - slope * statistics[c];
}

// dx, and what came through the activation where there is a place for it.
KERNEL(batch_norm_gradient)(const T *x, const T *y, const T *g, const double *coefficients, const double *slopes,
                            int channels, T *dx, T *passed, long long n) {
    numbers(
        n, [=](long long i) { return Loaded<2>{{(C)x[i], !y || (C)y[i] > 0 ? (C)g[i] : (C)0}}; },
        [=](long long i, Loaded<2> given) {
            int c = remainder_of(i, channels);
            C before = given.at[0], through = given.at[1];
            dx[i] = (T)((C)coefficients[channels + c] * through + ((C)slopes[c] * before + (C)slopes[channels + c]));
            if (passed) passed[i] = (T)through;
        });
}
