// Lay decoded tiles out pixel by pixel: what FRAMES_EACH frames show at a pixel then lies together, and a tap of compose.cu
// is one run of 16-byte loads. Values are clipped to -1..1, which is exact in any element type.
// Thread: one pixel of a group of frames, read plane by plane; the block writes what it staged in one run.
// Bytes per pixel: 3 T elements read, 8 OCTETS for each group written.
#include "patch.cuh"

#define THREADS 128  // as compose_cuda.py has it

extern "C" __global__ void __launch_bounds__(THREADS) pixel_major(
    const element* __restrict__ decoded,  // [tiles, T, 3, P]
    Octet* __restrict__ rows,             // [tiles, groups, P, OCTETS]
    int pixels, int frames) {
    __shared__ Octet staged[THREADS * OCTETS];
    int first = blockIdx.x * THREADS, p = first + threadIdx.x, group = blockIdx.y, tile = blockIdx.z;
    if (p < pixels) {
        const element* from = decoded + ((long long)tile * frames * 3 + group * VALUES) * pixels + p;
        int held = 3 * frames - group * VALUES;
        float values[8 * OCTETS];
#pragma unroll
        for (int k = 0; k < 8 * OCTETS; ++k)
            values[k] = k < VALUES && k < held ? read_once(from + (long long)k * pixels) : 0.0f;
#pragma unroll
        for (int o = 0; o < OCTETS; ++o) {
            Octet octet;
#pragma unroll
            for (int k = 0; k < 8; ++k) put(octet.at + k, fminf(fmaxf(values[8 * o + k], -1.0f), 1.0f));
            staged[threadIdx.x * OCTETS + o] = octet;
        }
    }
    __syncthreads();
    Octet* to = rows + (((long long)tile * gridDim.y + group) * pixels + first) * OCTETS;
    int count = min(THREADS, pixels - first) * OCTETS;
    for (int i = threadIdx.x; i < count; i += THREADS) to[i] = staged[i];
}
