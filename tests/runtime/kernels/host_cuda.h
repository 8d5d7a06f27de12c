// Run a CUDA kernel as loops of C++, one thread after another: what the kernels use of the language, and nothing more.
// Kernels may have barriers where no thread needs what a later one of its block does.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
using std::max;
using std::min;

#define __shared__ static thread_local
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline float __saturatef(float value) { return std::fmin(std::fmax(value, 0.0f), 1.0f); }
template <class T> T __ldcs(const T* from) { return *from; }
template <class T> void __stcs(T* to, T value) { *to = value; }

// Threads and blocks run one after another, so what one waits for has been done, and no two touch a count at once.
static inline int atomicAdd(int* to, int value) { return std::exchange(*to, *to + value); }
static inline void __syncthreads() {}
static inline void __threadfence() {}

struct Index { int x, y, z; };
static thread_local Index blockIdx, threadIdx, blockDim;

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

template <class... Args, std::size_t... I>
void run(void (*kernel)(Args...), const int* grid, int threads, void** args, std::index_sequence<I...>) {
    blockDim = {threads, 1, 1};
    for (int z = 0; z < grid[2]; ++z)
        for (int y = 0; y < grid[1]; ++y)
            for (int x = 0; x < grid[0]; ++x)
                for (int t = 0; t < threads; ++t) {
                    blockIdx = {x, y, z}, threadIdx = {t, 0, 0};
                    kernel(*(Args*)args[I]...);
                }
}

template <class... Args>
void launch(void (*kernel)(Args...), const int* grid, int threads, void** args) {
    run(kernel, grid, threads, args, std::index_sequence_for<Args...>());
}
