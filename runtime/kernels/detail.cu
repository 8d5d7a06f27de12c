// Give composed frames back the detail that the autoencoder loses, and lay them over the input picture:
//
//   r = input - composed_0,   cast = mean of r around,   w_t = exp(-(mean |composed_t - composed_0| / LEVELS)^2)
//   out_t = alpha (composed_t + cast + w_t (r - cast)) + (1 - alpha) input
//
// Means are taken over the selected pixels of a square, round the seam but not over the poles, along rows and then
// along columns. Pixels with alpha 0 are the input's bytes.
#include "common.cuh"

// Residual and its count, on the whole panorama: values [H, W, 4]. Thread: one selected pixel.
extern "C" __global__ void __launch_bounds__(128) residual(
    const float* __restrict__ first,      // [3, N] composed_0
    const uint8* __restrict__ panorama,   // [H, W, 3]
    const int* __restrict__ selected,     // [N]
    float* __restrict__ values,           // [H, W, 4], zero elsewhere
    int count) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= count) return;
    long long at = selected[n];
    for (int c = 0; c < 3; ++c) values[at * 4 + c] = panorama[at * 3 + c] - first[c * (long long)count + n];
    values[at * 4 + 3] = 1.0f;
}

// Change of a frame and its count, on the whole panorama: values [H, W, 2]. Thread: one selected pixel.
extern "C" __global__ void __launch_bounds__(128) change(
    const float* __restrict__ first,      // [3, N]
    const float* __restrict__ frame,      // [3, N]
    const int* __restrict__ selected,     // [N]
    float* __restrict__ values,           // [H, W, 2], zero elsewhere
    int count) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= count) return;
    float total = 0.0f;
    for (int c = 0; c < 3; ++c) total += fabsf(frame[c * (long long)count + n] - first[c * (long long)count + n]);
    values[selected[n] * 2ll] = total * (1.0f / 3.0f);
    values[selected[n] * 2ll + 1] = 1.0f;
}

// Sum of 2 radius + 1 neighbours along one axis. Thread: one value.
extern "C" __global__ void __launch_bounds__(128) box_sum(
    const float* __restrict__ values,     // [H, W, C]
    float* __restrict__ sums,             // [H, W, C]
    int height, int width, int channels, int radius, int along_rows) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (long long)height * width * channels) return;
    int c = i % channels, column = i / channels % width, row = i / channels / width;
    float total = 0.0f;
    for (int d = -radius; d <= radius; ++d) {
        int x = column, y = row;
        if (along_rows) {
            x = ((column + d) % width + width) % width;
        } else {
            y = row + d;
            if (y < 0 || y >= height) continue;
        }
        total += values[((long long)y * width + x) * channels + c];
    }
    sums[i] = total;
}

// The finished frame. Thread: one selected pixel.
extern "C" __global__ void __launch_bounds__(128) finish(
    const float* __restrict__ frame,      // [3, N] composed
    const float* __restrict__ first,      // [3, N] composed_0
    const float* __restrict__ cast,       // [H, W, 4] sums of the residual, and their count
    const float* __restrict__ change,     // [H, W, 2] sums of the change, and their count
    const uint8* __restrict__ panorama,   // [H, W, 3]
    const int* __restrict__ selected,     // [N]
    const float* __restrict__ alpha,      // [N]
    uint8* __restrict__ out,              // [H, W, 3], the input's bytes already
    int count, float levels) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= count) return;
    long long at = selected[n];
    float weight = alpha[n], moved = change[at * 2] / change[at * 2 + 1] / levels, stay = expf(-moved * moved);
    for (int c = 0; c < 3; ++c) {
        float value = frame[c * (long long)count + n], still = panorama[at * 3 + c];
        float mean = cast[at * 4 + c] / cast[at * 4 + 3];
        value += mean + stay * (still - first[c * (long long)count + n] - mean);
        float mixed = rintf(weight * value + (1.0f - weight) * still);
        out[at * 3 + c] = (uint8)fminf(fmaxf(mixed, 0.0f), 255.0f);
    }
}
