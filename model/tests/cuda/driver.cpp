// A driver without a card: memory is main memory, streams do everything at once, and kernels are those of `kernels.cpp`.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "emulation.h"

Index threadIdx, blockIdx, gridDim;

namespace {

struct Kernel {
    Launcher launcher;
    bool together;
};

std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

std::mutex one_at_a_time;

// With ANTIPHON_EMULATION_BACKWARDS blocks and threads run from the last to the first: where one reads what another writes without
// a barrier, the two orders give two results.
bool backwards() {
    static bool given = getenv("ANTIPHON_EMULATION_BACKWARDS") != nullptr;
    return given;
}

unsigned in_order(unsigned number, unsigned count) { return backwards() ? count - 1 - number : number; }

constexpr unsigned MOST_THREADS = 1024;
constexpr size_t STACK = 1 << 16;

// Threads of a block as coroutines: `own` is where the scheduler resumes, `threads` where each thread does.
void *own, *threads[MOST_THREADS];
char *stacks;
bool ended[MOST_THREADS];
const Kernel *current;
void **current_parameters;

} // namespace

// Keeps what a function must keep and the stack's address in *from, and resumes where `to` was kept.
extern "C" void switch_stacks(void **from, void *to);
asm(R"(
.text
.globl switch_stacks
switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

int register_kernel(const char *name, Launcher launcher, bool together) {
    kernels()[name] = {launcher, together};
    return 0;
}

void __syncthreads() {
    unsigned thread = threadIdx.x;
    switch_stacks(&threads[thread], own);
    threadIdx.x = thread;
}

namespace {

void thread_begins() {
    current->launcher(current_parameters);
    ended[threadIdx.x] = true;
    switch_stacks(&threads[threadIdx.x], own);
    abort();
}

void run_together(unsigned count) {
    if (!stacks) stacks = (char *)aligned_alloc(4096, STACK * MOST_THREADS);
    for (unsigned thread = 0; thread < count; thread++) {
        // As if thread_begins had been called: the stack's address is 8 more than a multiple of 16 there.
        void **top = (void **)(stacks + STACK * (thread + 1)) - 2;
        top[0] = (void *)thread_begins;
        threads[thread] = top - 6;
        ended[thread] = false;
    }
    for (unsigned left = count; left > 0;) {
        unsigned ends = 0;
        for (unsigned number = 0; number < count; number++) {
            unsigned thread = in_order(number, count);
            if (ended[thread]) continue;
            threadIdx = {thread, 0, 0};
            switch_stacks(&own, threads[thread]);
            ends += ended[thread];
        }
        left -= ends;
        if (ends > 0 && left > 0) {
            fprintf(stderr, "emulation: some threads of a block ended while others wait for them\n");
            abort();
        }
    }
}

void launch(const Kernel &kernel, unsigned blocks, unsigned count, void **parameters) {
    gridDim = {blocks, 1, 1};
    current = &kernel;
    current_parameters = parameters;
    for (unsigned number = 0; number < blocks; number++) {
        blockIdx = {in_order(number, blocks), 0, 0};
        if (kernel.together) {
            run_together(count);
            continue;
        }
        for (unsigned thread = 0; thread < count; thread++) {
            threadIdx = {in_order(thread, count), 0, 0};
            kernel.launcher(parameters);
        }
    }
}

// Results are filled with what is no number, so that reading what was not written shows.
void *allocated(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    memset(memory, 0xff, bytes);
    return memory;
}

// How many cards to make believe.
int cards() {
    const char *given = getenv("ANTIPHON_EMULATION_CARDS");
    return given ? atoi(given) : 1;
}

int something;

} // namespace

// The driver's functions, as far as they are used. 0 is success.
extern "C" {
typedef uintptr_t Address;

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGetCount(int *count) { return *count = cards(), 0; }
int cuDeviceGet(int *device, int number) { return *device = number, number < cards() ? 0 : 101; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    constexpr int GENERATION = 75;
    return *value = attribute == GENERATION ? 8 : 1, 0;
}
int cuDeviceGetName(char *name, int length, int) { return snprintf(name, length, "emulation"), 0; }
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = &something, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxSetCurrent(void *) { return 0; }
int cuCtxGetCurrent(void **context) { return *context = &something, 0; }
int cuCtxSynchronize() { return 0; }
int cuStreamCreate(void **stream, unsigned) { return *stream = &something, 0; }
int cuStreamDestroy_v2(void *) { return 0; }
int cuStreamSynchronize(void *) { return 0; }
int cuStreamWaitEvent(void *, void *, unsigned) { return 0; }
int cuStreamIsCapturing(void *, int *status) { return *status = 0, 0; }
int cuEventCreate(void **event, unsigned) { return *event = &something, 0; }
int cuEventRecord(void *, void *) { return 0; }
int cuEventSynchronize(void *) { return 0; }
int cuEventDestroy_v2(void *) { return 0; }
int cuMemAlloc_v2(Address *to, size_t bytes) { return *to = (Address)allocated(bytes), 0; }
int cuMemAllocAsync(Address *to, size_t bytes, void *) { return *to = (Address)allocated(bytes), 0; }
int cuMemFree_v2(Address at) { return free((void *)at), 0; }
int cuMemFreeAsync(Address at, void *) { return free((void *)at), 0; }
int cuMemHostAlloc(void **to, size_t bytes, unsigned) { return *to = allocated(bytes), 0; }
int cuMemFreeHost(void *at) { return free(at), 0; }
int cuDeviceGetDefaultMemPool(void **pool, int) { return *pool = &something, 0; }
int cuMemPoolSetAttribute(void *, int, void *) { return 0; }
int cuMemPoolGetAttribute(void *, int, void *value) { return *(uint64_t *)value = 0, 0; }
int cuMemPoolTrimTo(void *, size_t) { return 0; }
int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t n, void *) { return memcpy((void *)to, from, n), 0; }
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t n, void *) { return memcpy(to, (void *)from, n), 0; }
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t n, void *) { return memmove((void *)to, (void *)from, n), 0; }
int cuMemsetD8Async(Address at, unsigned char value, size_t n, void *) { return memset((void *)at, value, n), 0; }
int cuModuleLoadData(void **module, const void *) { return *module = &something, 0; }
int cuModuleUnload(void *) { return 0; }

int cuModuleGetFunction(void **function, void *, const char *name) {
    auto found = kernels().find(name);
    if (found == kernels().end()) {
        fprintf(stderr, "emulation: there is no kernel %s\n", name);
        return 500;
    }
    return *function = &found->second, 0;
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                   unsigned threads_z, unsigned, void *, void **parameters, void **) {
    if (x == 0 || y != 1 || z != 1 || threads_x > MOST_THREADS || threads_y != 1 || threads_z != 1) return 1;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    launch(*(const Kernel *)function, x, threads_x, parameters);
    return 0;
}

int cuGetErrorName(int, const char **text) { return *text = "emulation", 0; }
int cuGetErrorString(int, const char **text) { return *text = "an error of the emulation", 0; }

int curandCreateGenerator(void **generator, int) { return *generator = &something, 0; }
int curandDestroyGenerator(void *) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }
int curandSetStream(void *, void *) { return 0; }
}
