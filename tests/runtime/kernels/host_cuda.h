// Run a CUDA kernel as loops of C++, one thread after another: what the kernels use of the language, and nothing more.
// Where a source has barriers (BARRIERS), each thread of a block has a stack of its own, and the next one goes on when it
// waits; shared memory is that of one block, since blocks come one after another.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#ifdef BARRIERS
#include <functional>
#include <ucontext.h>
#include <vector>
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
using std::max;
using std::min;

#define __shared__ static thread_local
struct uint2 { unsigned int x, y; };
struct uint4 { unsigned int x, y, z, w; };
static inline uint2 make_uint2(unsigned int x, unsigned int y) { return {x, y}; }
static inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) { return {x, y, z, w}; }
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline float __uint_as_float(unsigned int bits) { float value; memcpy(&value, &bits, 4); return value; }
static inline unsigned int __float_as_uint(float value) { unsigned int bits; memcpy(&bits, &value, 4); return bits; }
static inline float __saturatef(float value) { return std::fmin(std::fmax(value, 0.0f), 1.0f); }
template <class T> T __ldcs(const T* from) { return *from; }
template <class T> void __stcs(T* to, T value) { *to = value; }

// No two threads touch a count at once.
static inline int atomicAdd(int* to, int value) { return std::exchange(*to, *to + value); }
static inline void __threadfence() {}

struct Index { int x, y, z; };
static thread_local Index blockIdx, threadIdx, blockDim, gridDim;

static inline float half_to_float(unsigned short bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value = exponent == 31 ? (fraction ? NAN : INFINITY)
                : exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp((float)fraction, -24);
    return bits >> 15 ? -value : value;
}

static inline unsigned short float_to_half(float value) {
    unsigned short sign = std::signbit(value) ? 0x8000 : 0;
    double size = std::fabs((double)value);
    if (std::isnan(value)) return sign | 0x7e00;
    int exponent = size > 0 ? std::max(std::ilogb(size), -14) : -14;
    double units = std::nearbyint(std::ldexp(size, 10 - exponent));  // to nearest, ties to even
    if (units == 2048) units = 1024, ++exponent;
    if (exponent > 15) return sign | 0x7c00;
    return sign | (units < 1024 ? (int)units : ((exponent + 15) << 10) + (int)units - 1024);
}

#ifdef BARRIERS
struct Thread {
    ucontext_t here;
    std::vector<char> stack = std::vector<char>(1 << 16);
    bool done;
};
static thread_local std::vector<Thread> block_threads;
static thread_local ucontext_t scheduler;
static thread_local std::function<void()> work;

static void begin_thread() {
    work();
    block_threads[threadIdx.x].done = true;
    swapcontext(&block_threads[threadIdx.x].here, &scheduler);
}

static void __syncthreads() { swapcontext(&block_threads[threadIdx.x].here, &scheduler); }

// Take every thread to the next barrier, until all are done.
static void run_block(int threads) {
    block_threads.resize(threads);
    for (Thread& one : block_threads) {
        getcontext(&one.here);
        one.here.uc_stack.ss_sp = one.stack.data(), one.here.uc_stack.ss_size = one.stack.size();
        one.here.uc_link = nullptr, one.done = false;
        makecontext(&one.here, begin_thread, 0);
    }
    for (bool left = true; left;) {
        left = false;
        for (int t = 0; t < threads; ++t) {
            if (block_threads[t].done) continue;
            threadIdx = {t, 0, 0};
            swapcontext(&scheduler, &block_threads[t].here);
            left |= !block_threads[t].done;
        }
    }
}
#endif

template <class... Args, std::size_t... I>
void run(void (*kernel)(Args...), const int* grid, int threads, void** args, std::index_sequence<I...>) {
    blockDim = {threads, 1, 1}, gridDim = {grid[0], grid[1], grid[2]};
#ifdef BARRIERS
    work = [=] { kernel(*(Args*)args[I]...); };
#endif
    for (int z = 0; z < grid[2]; ++z)
        for (int y = 0; y < grid[1]; ++y)
            for (int x = 0; x < grid[0]; ++x) {
                blockIdx = {x, y, z};
#ifdef BARRIERS
                run_block(threads);
#else
                for (int t = 0; t < threads; ++t) {
                    threadIdx = {t, 0, 0};
                    kernel(*(Args*)args[I]...);
                }
#endif
            }
}

template <class... Args>
void launch(void (*kernel)(Args...), const int* grid, int threads, void** args) {
    run(kernel, grid, threads, args, std::index_sequence_for<Args...>());
}
