// Bring float32 values into the engine's element type: to[i] = scale from[i], or to[i] = from[i] + scale noise[i].
// Thread: one value. Bytes: 4 (or 8) read, 2 (or 4) written.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(128) scale_into(
    const float* __restrict__ from, element* __restrict__ to, long long count, float scale) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) put(to + i, scale * from[i]);
}

extern "C" __global__ void __launch_bounds__(128) add_noise(
    const float* __restrict__ from, const float* __restrict__ noise, element* __restrict__ to, long long count,
    float scale) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) put(to + i, from[i] + scale * noise[i]);
}
