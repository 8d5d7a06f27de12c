// Patches of the panorama and groups of frames, which compose.cu, detail.cu and pixel_major.cu share.
//
// FRAMES_EACH frames are worked on together. What they show at a pixel lies together, frame by frame and colour by colour,
// filled up with zeros to OCTETS times eight values, so that it is read and written 16 bytes at a time.
#pragma once
#include "common.cuh"

#define PATCH_COLUMNS 32
#define PATCH_PIXELS (PATCH_ROWS * PATCH_COLUMNS)
#define VALUES (3 * FRAMES_EACH)
#define OCTETS ((VALUES + 7) / 8)

struct __align__(16) Octet {
    element at[8];
};

// Eight numbers of 16 bits, two to a word: grey levels in 1/256, or whatever a kernel says.
struct __align__(16) Eight {
    unsigned int pairs[4];
};

__device__ __forceinline__ unsigned int pick(const Eight& from, int k) {
    return k % 2 ? from.pairs[k / 2] >> 16 : from.pairs[k / 2] & 0xffffu;
}

__device__ __forceinline__ Eight pack(const unsigned int* bits) {
    Eight packed;
#pragma unroll
    for (int k = 0; k < 4; ++k) packed.pairs[k] = (bits[2 * k] & 0xffffu) | bits[2 * k + 1] << 16;
    return packed;
}

__device__ __forceinline__ void write_once(Eight* __restrict__ to, const Eight& value) {
    __stcs((uint4*)to, make_uint4(value.pairs[0], value.pairs[1], value.pairs[2], value.pairs[3]));
}

// To the nearest integer, ties to even, in the low 16 bits; a float of 2^23 has no places behind the point.
__device__ __forceinline__ unsigned int to_bits(float value) { return __float_as_uint(value + 8388608.0f); }

// The other way, exact.
__device__ __forceinline__ float from_bits(unsigned int bits) { return __uint_as_float(0x4b000000u | bits) - 8388608.0f; }

__device__ __forceinline__ uint8 to_byte(float value) { return (uint8)to_bits(fminf(fmaxf(value, 0.0f), 255.0f)); }

// Write the bytes of the patch that begins at a row, frame by frame in rows, to frames [count, H, W, 3].
__device__ __forceinline__ void write_patch(const uint8* staged, uint8* __restrict__ frames, int count, int top, int height,
                                            int width) {
    int left = blockIdx.x * PATCH_COLUMNS;
    int bytes = 3 * min(PATCH_COLUMNS, width - left), each = width % 4 ? 1 : 4;  // rows begin at whole words, or do not
    int across = 3 * PATCH_COLUMNS / each;
    for (int i = threadIdx.x; i < count * PATCH_ROWS * across; i += PATCH_PIXELS) {
        int at = i % across * each, row = i / across % PATCH_ROWS, t = i / across / PATCH_ROWS;
        if (top + row >= height || at >= bytes) continue;
        const uint8* from = staged + (t * PATCH_ROWS + row) * 3 * PATCH_COLUMNS + at;
        uint8* to = frames + (((long long)t * height + top + row) * width + left) * 3 + at;
        if (each == 4)
            *(unsigned int*)to = *(const unsigned int*)from;
        else
            *to = *from;
    }
}
