// Run a CUDA kernel without barriers as loops of C++: what the kernels use of the language, and nothing more.
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

struct float4 { float x, y, z, w; };
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
