// Rows that are looked up, gathered and summed; sums over the rows of a matrix.

#include "common.cuh"

struct PlainTerm {
    const T *x;
    int columns;
    __device__ void operator()(long long row, int column, double &first, double &) const {
        first += (double)x[row * columns + column];
    }
};

// Σ over the rows of x (rows, columns), see column_sums.
TOGETHER(row_sums)(const T *x, long long rows, int columns, int rows_per_group, double *partial) {
    column_sums(PlainTerm{x, columns}, rows, columns, rows_per_group, partial);
}

// Both sums of each column, see column_totals; (2, columns).
TOGETHER(totals)(const double *partial, int groups, int columns, C *out) {
    int column;
    double first, second;
    if (!column_totals(partial, groups, columns, column, first, second)) return;
    out[column] = (C)first;
    out[columns + column] = (C)second;
}

// out[targets[k]] = Σ over j from starts[k] to starts[k + 1] of share · x[sources[j]], each a row of `width`; share is shares[j], or 1
// without shares. No target comes twice.
KERNEL(gathered_sums)(const T *x, const unsigned *targets, const unsigned *starts, const unsigned *sources,
                      const C *shares, int width, T *out, long long n) {
    long long i = here();
    if (i >= n) return;
    long long k = i / width;
    int column = remainder_of(i, width);
    C sum = 0;
    for (unsigned j = starts[k]; j < starts[k + 1]; j++) {
        C value = (C)x[(long long)sources[j] * width + column];
        sum += shares ? shares[j] * value : value;
    }
    out[(long long)targets[k] * width + column] = (T)sum;
}

// y[n] = table[tokens[n]] + places[position[n]] + kind, each a row of `width`; kind may be missing.
KERNEL(embedding)(const C *table, const C *places, const C *kind, const unsigned *tokens, const unsigned *positions,
                  int width, C *out, long long n) {
    long long i = here();
    if (i >= n) return;
    long long row = i / width;
    int column = remainder_of(i, width);
    C sum = table[(long long)tokens[row] * width + column] + places[(long long)positions[row] * width + column];
    out[i] = kind ? sum + kind[column] : sum;
}

// Of each sample, class + places[0], then patch + bias + places[1 + p] for each of `count` patches; n numbers of the result.
KERNEL(with_class_token)(const T *patches, const C *bias, const C *class_token, const C *places, int count, int width,
                         T *out, long long n) {
    long long i = here();
    if (i >= n) return;
    int column = remainder_of(i, width);
    long long row = i / width, sample = row / (1 + count);
    int place = (int)(row % (1 + count));
    C at_place = places[(long long)place * width + column];
    out[i] = (T)(place == 0 ? class_token[column] + at_place
                            : (C)patches[(sample * count + place - 1) * width + column] + bias[column] + at_place);
}

// Of each sample all rows but the first of 1 + count; n numbers of the result.
KERNEL(without_class_token)(const T *g, int count, int width, T *out, long long n) {
    long long i = here();
    if (i >= n) return;
    long long row = i / width, sample = row / count;
    out[i] = g[(row + sample + 1) * width + remainder_of(i, width)];
}
