// Lay decoded tiles out pixel by pixel: what FRAMES_EACH frames show at a pixel then lies together, and a tap of compose.cu
// is one run of 16-byte loads. Values are clipped to -1..1, which is exact in any element type.
// Thread: PIXELS_EACH neighbouring pixels of a group of frames, two where tiles are even, so that a warp reads whole lines;
// they are read plane by plane, and the block writes what it staged in one run.
// Bytes per pixel: 3 T elements read, 8 OCTETS for each group written.
#include "patch.cuh"

#define BLOCK_PIXELS (THREADS * PIXELS_EACH)

extern "C" __global__ void __launch_bounds__(THREADS) pixel_major(
    const element* __restrict__ decoded,  // [tiles, T, 3, P]
    Octet* __restrict__ rows,             // [tiles, groups, P, OCTETS]
    int pixels, int frames) {
    __shared__ Octet staged[BLOCK_PIXELS * OCTETS];
    int first = blockIdx.x * BLOCK_PIXELS, p = first + threadIdx.x * PIXELS_EACH, group = blockIdx.y, tile = blockIdx.z;
    if (p < pixels) {
        const element* from = decoded + ((long long)tile * frames * 3 + group * VALUES) * pixels + p;
        int held = min(VALUES, 3 * frames - group * VALUES);
        Few<element> values[VALUES] = {};
#pragma unroll
        for (int k = 0; k < VALUES; ++k)
            if (k < held) read_few(from + (long long)k * pixels, values[k]);
#pragma unroll
        for (int i = 0; i < PIXELS_EACH; ++i)
#pragma unroll
            for (int o = 0; o < OCTETS; ++o) {
                Octet octet;
#pragma unroll
                for (int k = 0; k < 8; ++k) {
                    int value = min(8 * o + k, VALUES - 1);
                    float level = 8 * o + k < VALUES ? get(values[value].of + i) : 0.0f;
                    put(octet.at + k, fminf(fmaxf(level, -1.0f), 1.0f));
                }
                staged[(threadIdx.x * PIXELS_EACH + i) * OCTETS + o] = octet;
            }
    }
    __syncthreads();
    Octet* to = rows + (((long long)tile * gridDim.y + group) * pixels + first) * OCTETS;
    int count = min(BLOCK_PIXELS, pixels - first) * OCTETS;
    for (int i = threadIdx.x; i < count; i += THREADS) to[i] = staged[i];
}
