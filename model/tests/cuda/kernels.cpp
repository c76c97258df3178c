// The kernels for one type of number, see `run`.

#include "emulation.h"

namespace SUFFIX {
#include "../../src/nn/cuda/kernels.cu"

// REGISTER(name, together) for each kernel.
#include "registry.inc"
} // namespace SUFFIX
