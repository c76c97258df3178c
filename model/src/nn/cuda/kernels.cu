// All kernels, as one file for the compiler.

#include "attention.cu"
#include "batch_norm.cu"
#include "convolution.cu"
#include "elementwise.cu"
#include "head.cu"
#include "layer_norm.cu"
#include "optimizer.cu"
#include "pooling.cu"
#include "rows.cu"
