// Bring a tile's picture to another size with antialiasing, as Pillow's bicubic filter does, rows first:
//
//   wide(y, i) = sum_k w_i(k) picture(y, first_i + k),   out(j, i) = sum_k w_j(k) wide(first_j + k, i), clipped to -1..1
//
// Weights and sums are in double precision and what lies between is not, as there.
// Thread: one value of one colour. Bytes per value: 4 per tap read (from the cache mostly), 4, then 2 (or 4) written.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(128) resize_rows(
    const float* __restrict__ picture,   // [3, s, s]
    const int* __restrict__ first,       // [o]
    const double* __restrict__ weights,  // [o, taps], zero where a filter is cut off
    float* __restrict__ wide,            // [3, s, o]
    int size, int out, int taps) {
    int at = blockIdx.x * blockDim.x + threadIdx.x, c = blockIdx.y;
    if (at >= size * out) return;
    int i = at % out, count = min(taps, size - first[i]);
    const float* line = picture + ((long long)c * size + at / out) * size + first[i];
    double total = 0.0;
    for (int k = 0; k < count; ++k) total += line[k] * weights[i * taps + k];
    wide[(long long)c * size * out + at] = (float)total;
}

extern "C" __global__ void __launch_bounds__(128) resize_columns(
    const float* __restrict__ wide,      // [3, s, o]
    const int* __restrict__ first,       // [o]
    const double* __restrict__ weights,  // [o, taps]
    element* __restrict__ resized,       // [3, o, o]
    int size, int out, int taps) {
    int at = blockIdx.x * blockDim.x + threadIdx.x, c = blockIdx.y;
    if (at >= out * out) return;
    int j = at / out, count = min(taps, size - first[j]);
    const float* column = wide + ((long long)c * size + first[j]) * out + at % out;
    double total = 0.0;
    for (int k = 0; k < count; ++k) total += column[(long long)k * out] * weights[j * taps + k];
    put(resized + (long long)c * out * out + at, fminf(fmaxf((float)total, -1.0f), 1.0f));
}
