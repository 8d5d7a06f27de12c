// Cut upright pictures out of a panorama, antialiased by averaging n x n bilinear samples a pixel:
//
//   ray = R_v ((x - s/2) / f, (y - s/2) / f, 1),   column = (lon + pi) / 2 pi W - 1/2,   row = (pi/2 - lat) / pi H - 1/2
//
// across the seam, and over the poles onto the other side. Grey levels become -1..1.
// Thread: one pixel of one tile. Bytes: the panorama once, 12 (or 6) written per pixel.
#include "common.cuh"

__device__ __forceinline__ void add_row(const uint8* __restrict__ panorama, int row, float column, int height, int width,
                                        float share, float* total) {
    if (row < 0 || row >= height) {
        row = row < 0 ? -1 - row : 2 * height - 1 - row;
        column += 0.5f * width;
    }
    float whole = floorf(column), part = column - whole;
    int left = ((int)whole % width + width) % width, right = left + 1 == width ? 0 : left + 1;
    const uint8* line = panorama + (long long)row * width * 3;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        float first = line[left * 3 + c];
        total[c] += share * (first + part * (line[right * 3 + c] - first));
    }
}

extern "C" __global__ void __launch_bounds__(128) encode_tiles(
    const uint8* __restrict__ panorama,   // [H, W, 3]
    const float* __restrict__ rotations,  // [V, 3, 3] camera to world
    element* __restrict__ tiles,          // [V, 3, s, s]
    int height, int width, int size, int samples, float focal) {
    int p = blockIdx.x * blockDim.x + threadIdx.x, v = blockIdx.y, pixels = size * size;
    if (p >= pixels) return;
    const float* r = rotations + v * 9;
    float total[3] = {0.0f, 0.0f, 0.0f};
    for (int j = 0; j < samples; ++j) {
        for (int i = 0; i < samples; ++i) {
            float x = (p % size + (i + 0.5f) / samples - 0.5f * size) / focal;
            float y = (p / size + (j + 0.5f) / samples - 0.5f * size) / focal;
            float wx = r[0] * x + r[1] * y + r[2], wy = r[3] * x + r[4] * y + r[5], wz = r[6] * x + r[7] * y + r[8];
            float column = (atan2f(wx, wz) * 0.15915494309f + 0.5f) * width - 0.5f;
            float row = (0.5f + atan2f(wy, sqrtf(wx * wx + wz * wz)) * 0.31830988618f) * height - 0.5f;
            float upper = floorf(row), part = row - upper;
            add_row(panorama, (int)upper, column, height, width, 1.0f - part, total);
            add_row(panorama, (int)upper + 1, column, height, width, part, total);
        }
    }
    float scale = 1.0f / (127.5f * samples * samples);
#pragma unroll
    for (int c = 0; c < 3; ++c) put(tiles + ((long long)v * 3 + c) * pixels + p, total[c] * scale - 1.0f);
}
