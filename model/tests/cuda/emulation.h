// Enough of CUDA C for a C++ compiler to compile the kernels, and to run them on a processor.
//
// Blocks run one after the other. Within a block, the threads of kernels that wait for each other (TOGETHER) take turns at
// each barrier; threads of the others (KERNEL) run one after the other. So races are found
// only where running backwards (`driver.cpp`) shows them; a barrier that not all threads reach is found.

#pragma once

#include <math.h>

#include <cstddef>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __shared__ static

struct Index {
    unsigned x, y, z;
};
extern Index threadIdx, blockIdx, gridDim;

void __syncthreads();

// Every thread of the block has to come here, as to a barrier.
template <class N> N __shfl_xor_sync(unsigned, N value, int with) {
    static N all[1024];
    all[threadIdx.x] = value;
    __syncthreads();
    N got = all[threadIdx.x ^ (unsigned)with];
    __syncthreads();
    return got;
}

inline unsigned __float_as_uint(float number) {
    unsigned bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

using Launcher = void (*)(void **parameters);
int register_kernel(const char *name, Launcher launcher, bool together);

// Calls a kernel with the parameters that the driver is given the addresses of.
template <auto kernel> struct Call;
template <class... Parameters, void (*kernel)(Parameters...)> struct Call<kernel> {
    static void run(void **parameters) { with(parameters, std::index_sequence_for<Parameters...>{}); }
    template <size_t... Number> static void with(void **parameters, std::index_sequence<Number...>) {
        kernel(*(Parameters *)parameters[Number]...);
    }
};

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
#define REGISTER(name, together)                                                                                       \
    static int name##_registered =                                                                                     \
        register_kernel(TEXT(NAMED(name, SUFFIX)), &Call<&NAMED(name, SUFFIX)>::run, together);
