// cuBLAS's products and cuDNN's convolutions as plain loops, as far as they are used.

#include <cstddef>

namespace {

int something;

// Column-major, as cuBLAS has it: C = alpha op(A) op(B) + beta C.
template <class T>
void product(bool turn_a, bool turn_b, int m, int n, int k, T alpha, const T *a, int lda, const T *b, int ldb, T beta,
             T *c, int ldc) {
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            T sum = 0;
            for (int l = 0; l < k; l++) {
                T left = turn_a ? a[l + (size_t)i * lda] : a[i + (size_t)l * lda];
                T right = turn_b ? b[j + (size_t)l * ldb] : b[l + (size_t)j * ldb];
                sum += left * right;
            }
            T &into = c[i + (size_t)j * ldc];
            // What is multiplied by 0 is not read.
            into = beta == 0 ? alpha * sum : alpha * sum + beta * into;
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
    int padding, stride;
};

constexpr int NHWC = 1, NOT_SUPPORTED = 9, FMA = 3;

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
    int name(void *, int ta, int tb, int m, int n, int k, const T *alpha, const T *const *a, int lda,                  \
             const T *const *b, int ldb, const T *beta, T *const *c, int ldc, int count) {                             \
        if (wrong(ta, tb, m, n, k, lda, ldb, ldc)) return 7;                                                           \
        for (int i = 0; i < count; i++) product(ta, tb, m, n, k, *alpha, a[i], lda, b[i], ldb, *beta, c[i], ldc);      \
        return 0;                                                                                                      \
    }
PRODUCTS(cublasSgemmBatched, float)
PRODUCTS(cublasDgemmBatched, double)

int cudnnCreate(void **handle) { return *handle = &something, 0; }
int cudnnDestroy(void *) { return 0; }
int cudnnSetStream(void *, void *) { return 0; }
int cudnnCreateTensorDescriptor(Tensor **t) { return *t = new Tensor, 0; }
int cudnnDestroyTensorDescriptor(Tensor *t) { return delete t, 0; }
int cudnnSetTensor4dDescriptor(Tensor *t, int format, int type, int n, int c, int h, int w) {
    *t = {n, c, h, w};
    return format == NHWC && type == 0 ? 0 : NOT_SUPPORTED;
}
int cudnnCreateFilterDescriptor(Kernel **k) { return *k = new Kernel, 0; }
int cudnnDestroyFilterDescriptor(Kernel *k) { return delete k, 0; }
int cudnnSetFilter4dDescriptor(Kernel *k, int type, int format, int o, int c, int u, int v) {
    *k = {o, c, u, v};
    return format == NHWC && type == 0 ? 0 : NOT_SUPPORTED;
}
int cudnnCreateConvolutionDescriptor(Convolution **c) { return *c = new Convolution, 0; }
int cudnnDestroyConvolutionDescriptor(Convolution *c) { return delete c, 0; }
int cudnnSetConvolution2dDescriptor(Convolution *c, int down, int across, int stride_down, int stride_across, int dilation,
                                    int, int mode, int) {
    *c = {down, stride_down};
    return down == across && stride_down == stride_across && dilation == 1 && mode == 1 ? 0 : NOT_SUPPORTED;
}
int cudnnSetConvolutionMathType(Convolution *, int type) { return type == FMA ? 0 : NOT_SUPPORTED; }
int cudnnGetConvolutionForwardWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *n) { return *n = 8, 0; }
int cudnnGetConvolutionBackwardDataWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *n) {
    return *n = 0, 0;
}
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *n) {
    return *n = 0, 0;
}

int cudnnConvolutionForward(void *, const float *, Tensor *x, const float *from, Kernel *w, const float *weights,
                            Convolution *by, int algorithm, void *, size_t, const float *, Tensor *y, float *out) {
    for (size_t i = 0; i < size(y); i++) out[i] = 0;
    each(*x, *w, *by, *y, [&](int x, int w, int y) { out[y] += from[x] * weights[w]; });
    return algorithm == 1 ? 0 : NOT_SUPPORTED;
}
int cudnnConvolutionBackwardData(void *, const float *, Kernel *w, const float *weights, Tensor *dy, const float *g,
                                 Convolution *by, int algorithm, void *, size_t, const float *, Tensor *dx, float *out) {
    for (size_t i = 0; i < size(dx); i++) out[i] = 0;
    each(*dx, *w, *by, *dy, [&](int x, int w, int y) { out[x] += g[y] * weights[w]; });
    return algorithm == 1 ? 0 : NOT_SUPPORTED;
}
int cudnnConvolutionBackwardFilter(void *, const float *, Tensor *x, const float *from, Tensor *dy, const float *g,
                                   Convolution *by, int algorithm, void *, size_t, const float *, Kernel *dw, float *out) {
    for (size_t i = 0; i < size(dw); i++) out[i] = 0;
    each(*x, *dw, *by, *dy, [&](int x, int w, int y) { out[w] += from[x] * g[y]; });
    return algorithm == 1 ? 0 : NOT_SUPPORTED;
}
}
