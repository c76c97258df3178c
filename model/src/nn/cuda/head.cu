// The worker's half of the head's step beside its products, see core/src/head/local.rs.

#include "common.cuh"

// A block for each row of logits without their bias: its errors (softmax − onehot of its label) / samples; and two numbers, its
// cross-entropy, which is NaN where a logit is not finite, and whether the first of its greatest logits is that of its label. An
// exponential is taken, and sums are, in double precision.
TOGETHER(head_errors)(const C *logits, const C *bias, const unsigned *labels, int classes, double samples, C *errors,
                      C *scores) {
    long long first = (long long)blockIdx.x * classes;
    const C *row = logits + first;
    int label = (int)labels[blockIdx.x];
    double wrong = 0;
    C largest = -INFINITY;
    for (int i = threadIdx.x; i < classes; i += BLOCK) {
        C z = row[i] + bias[i];
        if (!(fabs(z) < (C)INFINITY)) wrong = 1;
        if (z > largest) largest = z;
    }
    wrong = block_sum(wrong);
    largest = block_max(largest);
    C own = row[label] + bias[label];
    double sum = 0, before = 0;
    for (int i = threadIdx.x; i < classes; i += BLOCK) {
        C z = row[i] + bias[i];
        sum += exp((double)z - (double)largest);
        before += i < label && z == largest;
    }
    sum = block_sum(sum);
    before = block_sum(before);
    for (int i = threadIdx.x; i < classes; i += BLOCK) {
        double probability = exp((double)(row[i] + bias[i]) - (double)largest) / sum;
        errors[first + i] = (C)((i == label ? probability - 1 : probability) / samples);
    }
    if (threadIdx.x == 0) {
        double loss = log(sum) + (double)largest - (double)own;
        scores[2 * (long long)blockIdx.x] = (C)(wrong > 0 ? NAN : loss > 0 ? loss : 0);
        scores[2 * (long long)blockIdx.x + 1] = (C)(own == largest && before == 0);
    }
}

// Σ over the rows of x (rows, columns), divided by `divisor`.
KERNEL(column_shares)(const C *x, int rows, int columns, double divisor, C *out) {
    long long column = here();
    if (column >= columns) return;
    double sum = 0;
    for (int row = 0; row < rows; row++) sum += (double)x[(long long)row * columns + column];
    out[column] = (C)(sum / divisor);
}
