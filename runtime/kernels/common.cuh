// What every kernel shares: element types and bilinear weights. Arrays are named with their shapes, C order.
// T frames, V tiles, P = s * s pixels of a tile, B tiles of one engine call, R rows of all calls.
#pragma once

#ifdef PANO4D_ON_HOST
#include "host_cuda.h"  // tests run the kernels as C++ loops where there is no GPU
#else
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ __forceinline__ unsigned short float_to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

// Where the next kernel may begin before this one ends (`compiler.Kernel.after`): the next one's blocks take their places
// as soon as all blocks of this one have theirs, and `wait` until all that this one writes can be read.
#if !defined PANO4D_ON_HOST && __CUDA_ARCH__ >= 900
__device__ __forceinline__ void follow() { asm volatile("griddepcontrol.launch_dependents;"); }
__device__ __forceinline__ void wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
__device__ __forceinline__ void follow() {}
__device__ __forceinline__ void wait() {}
#endif

// ELEMENT_BYTES: 2 where engines speak float16, 4 where they speak float32.
#if ELEMENT_BYTES == 2
typedef unsigned short element;
__device__ __forceinline__ float get(const element* __restrict__ from) { return half_to_float(*from); }
__device__ __forceinline__ void put(element* __restrict__ to, float value) { *to = float_to_half(value); }
#else
typedef float element;
__device__ __forceinline__ float get(const element* __restrict__ from) { return *from; }
__device__ __forceinline__ void put(element* __restrict__ to, float value) { *to = value; }
#endif

typedef unsigned char uint8;

// Row of frame t of a slot: the first `batched` slots, a multiple of `batch`, are computed in calls of `batch` tiles, all
// others one tile a call; every call holds so many halves.
__device__ __forceinline__ long long row_of(int slot, int half, int halves, int t, int batch, int batched, int frames) {
    if (slot >= batched) batch = 1;
    return ((long long)((slot / batch) * halves + half) * batch + slot % batch) * frames + t;
}

// Values that are read or written once need not stay in the cache.
__device__ __forceinline__ float read_once(const float* __restrict__ from) { return __ldcs(from); }
__device__ __forceinline__ void write_once(float* __restrict__ to, float value) { __stcs(to, value); }
#if ELEMENT_BYTES == 2
__device__ __forceinline__ float read_once(const element* __restrict__ from) { return half_to_float(__ldcs(from)); }
__device__ __forceinline__ void write_once(element* __restrict__ to, float value) { __stcs(to, float_to_half(value)); }
#endif

// Values of PIXELS_EACH neighbouring pixels, 1 or 2, which are read once: together, where two begin at a multiple of two.
#ifndef PIXELS_EACH
#define PIXELS_EACH 1
#endif
template <class Value>
struct __align__(PIXELS_EACH * sizeof(Value)) Few {
    Value of[PIXELS_EACH];
};
template <class Value>
__device__ __forceinline__ void read_few(const Value* from, Few<Value>& few) {
    if constexpr (sizeof few == 8) {
        uint2 bits = __ldcs((const uint2*)from);
        few = *(const Few<Value>*)&bits;
    } else if constexpr (sizeof few == 4) {
        unsigned int bits = __ldcs((const unsigned int*)from);
        few = *(const Few<Value>*)&bits;
    } else {
        few.of[0] = __ldcs(from);
    }
}
template <class Value>
__device__ __forceinline__ void write_few(Value* to, const Few<Value>& few) {
    if constexpr (sizeof few == 8)
        __stcs((uint2*)to, *(const uint2*)&few);
    else if constexpr (sizeof few == 4)
        __stcs((unsigned int*)to, *(const unsigned int*)&few);
    else
        __stcs(to, few.of[0]);
}

// Smooth fall towards a tile's border, as tiles.feather_at: never 0, so that no tile is lost.
__device__ __forceinline__ float feather_ramp(float at, float size) {
    float edge = fminf(at + 0.5f, size - 0.5f - at) / (size * FEATHER_SHARE);
    float t = fminf(fmaxf(edge, 0.0f), 1.0f);
    return t * t * (3.0f - 2.0f * t);
}
__device__ __forceinline__ float feather(float x, float y, float size) {
    return fmaxf(feather_ramp(x, size) * feather_ramp(y, size), LOWEST_WEIGHT);
}
