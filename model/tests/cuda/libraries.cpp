// cuBLAS's products and cuDNN's convolutions as plain loops, as far as they are used.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "emulation.h"

#include "../../src/nn/cuda/bf16.cuh"

namespace {

int something;

// Column-major, as cuBLAS has it: C = alpha op(A) op(B) + beta C, summed in N.
template <class N, class From, class To>
void product(bool turn_a, bool turn_b, int m, int n, int k, N alpha, const From *a, int lda, const From *b, int ldb, N beta,
             To *c, int ldc) {
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            N sum = 0;
            for (int l = 0; l < k; l++) {
                N left = turn_a ? a[l + (size_t)i * lda] : a[i + (size_t)l * lda];
                N right = turn_b ? b[j + (size_t)l * ldb] : b[l + (size_t)j * ldb];
                sum += left * right;
            }
            To &into = c[i + (size_t)j * ldc];
            // What is multiplied by 0 is not read.
            into = To(beta == 0 ? alpha * sum : alpha * sum + beta * N(into));
        }
    }
}

// Strides that cuBLAS refuses.
bool wrong(bool turn_a, bool turn_b, int m, int n, int k, int lda, int ldb, int ldc) {
    return m < 0 || n < 0 || k < 0 || lda < (turn_a ? k : m) || ldb < (turn_b ? n : k) || ldc < m;
}

struct Tensor {
    int n, c, h, w;
};
struct Kernel {
    int o, c, u, v;
};
struct Convolution {
    int padding, stride, math;
};

constexpr int NHWC = 1, NOT_SUPPORTED = 3000, TENSOR = 1, FLOAT = 0, BF16 = 9;

// Calls visit(place in x, place in w, place in y) for each product of a convolution.
template <class Visit> void each(const Tensor &x, const Kernel &w, const Convolution &by, const Tensor &y, Visit visit) {
    for (int n = 0; n < y.n; n++)
        for (int i = 0; i < y.h; i++)
            for (int j = 0; j < y.w; j++)
                for (int o = 0; o < w.o; o++)
                    for (int u = 0; u < w.u; u++)
                        for (int v = 0; v < w.v; v++) {
                            int row = i * by.stride + u - by.padding, column = j * by.stride + v - by.padding;
                            if (row < 0 || row >= x.h || column < 0 || column >= x.w) continue;
                            for (int c = 0; c < w.c; c++)
                                visit(((n * x.h + row) * x.w + column) * x.c + c, ((o * w.u + u) * w.v + v) * w.c + c,
                                      ((n * y.h + i) * y.w + j) * y.c + o);
                        }
}

// Of bf16, summed in f32: no caller asks for other numbers.
bool supported(const Convolution *by) { return by->math == TENSOR; }

size_t size(const Tensor *t) { return (size_t)t->n * t->c * t->h * t->w; }
size_t size(const Kernel *k) { return (size_t)k->o * k->c * k->u * k->v; }

} // namespace

extern "C" {
int cublasCreate_v2(void **handle) { return *handle = &something, 0; }
int cublasDestroy_v2(void *) { return 0; }
int cublasSetStream_v2(void *, void *) { return 0; }

#define PRODUCT(name, T)                                                                                               \
    int name(void *, int ta, int tb, int m, int n, int k, const T *alpha, const T *a, int lda, const T *b, int ldb,    \
             const T *beta, T *c, int ldc) {                                                                           \
        if (wrong(ta, tb, m, n, k, lda, ldb, ldc)) return 7;                                                           \
        return product(ta, tb, m, n, k, *alpha, a, lda, b, ldb, *beta, c, ldc), 0;                                     \
    }
PRODUCT(cublasSgemm_v2, float)
PRODUCT(cublasDgemm_v2, double)

#define PRODUCTS(name, T)                                                                                              \
    int name(void *, int ta, int tb, int m, int n, int k, const T *alpha, const T *a, int lda, long long step_a,       \
             const T *b, int ldb, long long step_b, const T *beta, T *c, int ldc, long long step_c, int count) {       \
        if (wrong(ta, tb, m, n, k, lda, ldb, ldc)) return 7;                                                           \
        for (int i = 0; i < count; i++)                                                                                \
            product(ta, tb, m, n, k, *alpha, a + i * step_a, lda, b + i * step_b, ldb, *beta, c + i * step_c, ldc);    \
        return 0;                                                                                                      \
    }
PRODUCTS(cublasSgemmStridedBatched, float)
PRODUCTS(cublasDgemmStridedBatched, double)

// Of bf16, summed in f32, to either: no caller asks for other types.
constexpr int R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, FULL_SUMS = 16;
static int math_mode;
int cublasSetMathMode(void *, int mode) { return math_mode = mode, 0; }

int cublasGemmEx(void *, int ta, int tb, int m, int n, int k, const float *alpha, const Bf16 *a, int a_type, int lda, const Bf16 *b,
                 int b_type, int ldb, const float *beta, void *c, int c_type, int ldc, int compute, int) {
    if (wrong(ta, tb, m, n, k, lda, ldb, ldc)) return 7;
    if (a_type != R_16BF || b_type != R_16BF || compute != COMPUTE_32F || math_mode != FULL_SUMS) return 15;
    if (c_type == R_32F) return product(ta, tb, m, n, k, *alpha, a, lda, b, ldb, *beta, (float *)c, ldc), 0;
    if (c_type == R_16BF) return product(ta, tb, m, n, k, *alpha, a, lda, b, ldb, *beta, (Bf16 *)c, ldc), 0;
    return 15;
}

int cublasGemmStridedBatchedEx(void *handle, int ta, int tb, int m, int n, int k, const float *alpha, const Bf16 *a, int a_type,
                               int lda, long long step_a, const Bf16 *b, int b_type, int ldb, long long step_b,
                               const float *beta, char *c, int c_type, int ldc, long long step_c, int count, int compute,
                               int algorithm) {
    for (int i = 0; i < count; i++) {
        int status = cublasGemmEx(handle, ta, tb, m, n, k, alpha, a + i * step_a, a_type, lda, b + i * step_b, b_type, ldb, beta,
                                  c + i * step_c * (c_type == R_32F ? 4 : 2), c_type, ldc, compute, algorithm);
        if (status != 0) return status;
    }
    return 0;
}

int cudnnCreate(void **handle) { return *handle = &something, 0; }
int cudnnDestroy(void *) { return 0; }
int cudnnSetStream(void *, void *) { return 0; }
int cudnnCreateTensorDescriptor(Tensor **t) { return *t = new Tensor, 0; }
int cudnnDestroyTensorDescriptor(Tensor *t) { return delete t, 0; }
int cudnnSetTensor4dDescriptor(Tensor *t, int format, int type, int n, int c, int h, int w) {
    *t = {n, c, h, w};
    return format == NHWC && type == BF16 ? 0 : NOT_SUPPORTED;
}
int cudnnCreateFilterDescriptor(Kernel **k) { return *k = new Kernel, 0; }
int cudnnDestroyFilterDescriptor(Kernel *k) { return delete k, 0; }
int cudnnSetFilter4dDescriptor(Kernel *k, int type, int format, int o, int c, int u, int v) {
    *k = {o, c, u, v};
    return format == NHWC && type == BF16 ? 0 : NOT_SUPPORTED;
}
int cudnnCreateConvolutionDescriptor(Convolution **c) { return *c = new Convolution, 0; }
int cudnnDestroyConvolutionDescriptor(Convolution *c) { return delete c, 0; }
int cudnnSetConvolution2dDescriptor(Convolution *c, int down, int across, int stride_down, int stride_across, int dilation,
                                    int, int mode, int type) {
    *c = {down, stride_down, 0};
    bool known = down == across && stride_down == stride_across && dilation == 1 && mode == 1 && type == FLOAT;
    return known ? 0 : NOT_SUPPORTED;
}
int cudnnSetConvolutionMathType(Convolution *c, int type) { return c->math = type, 0; }
int cudnnGetConvolutionForwardWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *n) { return *n = 8, 0; }
int cudnnGetConvolutionBackwardDataWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *n) {
    return *n = 0, 0;
}
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *n) {
    return *n = 0, 0;
}

} // extern "C"

namespace {

// Sums in f32 of `size` numbers of a result, which `add` adds to, and then the result.
template <class Add> int summed(size_t size, Bf16 *out, Add add) {
    std::vector<float> sums(size, 0.0f);
    add(sums.data());
    for (size_t i = 0; i < size; i++) out[i] = Bf16(sums[i]);
    return 0;
}

} // namespace

extern "C" {
int cudnnConvolutionForward(void *, const float *, Tensor *x, const Bf16 *from, Kernel *w, const Bf16 *weights,
                            Convolution *by, int algorithm, void *, size_t, const float *, Tensor *y, Bf16 *out) {
    if (algorithm != 1 || !supported(by)) return NOT_SUPPORTED;
    return summed(size(y), out, [&](float *sums) {
        each(*x, *w, *by, *y, [&](int x, int w, int y) { sums[y] += (float)from[x] * (float)weights[w]; });
    });
}
int cudnnConvolutionBackwardData(void *, const float *, Kernel *w, const Bf16 *weights, Tensor *dy, const Bf16 *g,
                                 Convolution *by, int algorithm, void *, size_t, const float *, Tensor *dx, Bf16 *out) {
    if (algorithm != 1 || !supported(by)) return NOT_SUPPORTED;
    return summed(size(dx), out, [&](float *sums) {
        each(*dx, *w, *by, *dy, [&](int x, int w, int y) { sums[x] += (float)g[y] * (float)weights[w]; });
    });
}
int cudnnConvolutionBackwardFilter(void *, const float *, Tensor *x, const Bf16 *from, Tensor *dy, const Bf16 *g,
                                   Convolution *by, int algorithm, void *, size_t, const float *, Kernel *dw, Bf16 *out) {
    if (algorithm != 1 || !supported(by)) return NOT_SUPPORTED;
    return summed(size(dw), out, [&](float *sums) {
        each(*x, *dw, *by, *dy, [&](int x, int w, int y) { sums[w] += (float)from[x] * (float)g[y]; });
    });
}
}
