// One frame of the first state: every tile pixel from the cells of the field that it contains,
//
//   noise(v, t, c, p) = sum over its cells of field(c, cell) / sqrt(number of cells)
//
// Summed in double precision and in the order of the cells, so the bytes are those of the CPU. A pixel without a cell
// keeps what it holds. Thread: one pixel of one tile, one channel. Bytes per pixel and channel: about 8 per cell read
// (the field comes from the cache), 4 written.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(128) gather_cells(
    const float* __restrict__ field,  // [C, cells]
    const int* __restrict__ start,    // [V * P + 1] into held
    const int* __restrict__ held,     // cells of each pixel, ascending
    float* __restrict__ noise,        // [V, T, C, P]
    int cells, int pixels, int channels, int frames, int t) {
    int p = blockIdx.x * blockDim.x + threadIdx.x, v = blockIdx.y, c = blockIdx.z;
    if (p >= pixels) return;
    int first = start[v * pixels + p], last = start[v * pixels + p + 1];
    if (first == last) return;
    double total = 0.0;
    for (int k = first; k < last; ++k) total += field[(long long)c * cells + held[k]];
    noise[(((long long)v * frames + t) * channels + c) * pixels + p] = (float)(total / sqrt((double)(last - first)));
}
