// Give composed frames back the detail that the autoencoder loses, and lay them over the input picture:
//
//   r = input - composed_0,   cast = mean of r around,   w_t = exp(-(mean |composed_t - composed_0| / LEVELS)^2)
//   out_t = alpha (composed_t + cast + w_t (r - cast)) + (1 - alpha) input
//
// Means are taken over the selected pixels of a square, round the seam but not over the poles, along rows and then
// along columns. Pixels with alpha 0 are the input's bytes.
// A group of at most seven frames is worked on together: their changes and the count of selected pixels are eight numbers
// of 16 bits. Thread: one panorama pixel.
// Bytes per pixel and group: change 16 OCTETS + 8 read, 16 written; each sum 16 read, 16 written; finish 16 OCTETS + 55
// read, 3 FRAMES_EACH written.
#include "patch.cuh"

#define COUNT 7  // the place of the count
#define PIXEL ((long long)blockIdx.x * blockDim.x + threadIdx.x)

// Residual and its count, on the whole panorama. Composed is that of the first group.
extern "C" __global__ void __launch_bounds__(128) residual(
    const Eight* __restrict__ composed,   // [N, OCTETS] grey levels in 1/256
    const uint8* __restrict__ panorama,   // [H, W, 3]
    const int* __restrict__ place_of,     // [H, W] number of a selected pixel, -1 for the others
    uint2* __restrict__ first,            // [N] composed_0: three numbers of 16 bits
    float4* __restrict__ values,          // [H, W], zero where nothing is selected
    int pixels) {
    long long at = PIXEL;
    if (at >= pixels) return;
    int n = place_of[at];
    float4 value = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (n >= 0) {
        Eight row = composed[(long long)n * OCTETS];
        const float unit = 1.0f / 256.0f;
        const uint8* still = panorama + at * 3;
        value = make_float4(still[0] - unit * from_bits(pick(row, 0)), still[1] - unit * from_bits(pick(row, 1)),
                            still[2] - unit * from_bits(pick(row, 2)), 1.0f);
        first[n] = make_uint2(row.pairs[0], row.pairs[1] & 0xffffu);
    }
    values[at] = value;
}

// Sum of 2 radius + 1 neighbours along one axis.
extern "C" __global__ void __launch_bounds__(128) box_sum(
    const float4* __restrict__ values,    // [H, W]
    float4* __restrict__ sums,            // [H, W]
    int height, int width, int radius, int along_rows) {
    long long at = PIXEL;
    if (at >= (long long)height * width) return;
    int column = at % width, row = at / width;
    float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int d = -radius; d <= radius; ++d) {
        int x = column + (along_rows ? d : 0), y = row + (along_rows ? 0 : d);
        if (y < 0 || y >= height) continue;
        x += x < 0 ? width : x >= width ? -width : 0;
        float4 value = values[(long long)y * width + x];
        total.x += value.x, total.y += value.y, total.z += value.z, total.w += value.w;
    }
    sums[at] = total;
}

// Change of each frame, in 1/256 of a grey level, and 256 for its count.
extern "C" __global__ void __launch_bounds__(128) change(
    const uint2* __restrict__ first,      // [N]
    const Eight* __restrict__ composed,   // [N, OCTETS]
    const int* __restrict__ place_of,     // [H, W]
    Eight* __restrict__ changes,          // [H, W], zero where nothing is selected
    int pixels) {
    long long at = PIXEL;
    if (at >= pixels) return;
    int n = place_of[at];
    unsigned int bits[8] = {};
    if (n >= 0) {
        uint2 start = first[n];
        const int before[3] = {(int)(start.x & 0xffffu), (int)(start.x >> 16), (int)start.y};
        Eight row[OCTETS];
#pragma unroll
        for (int o = 0; o < OCTETS; ++o) row[o] = composed[(long long)n * OCTETS + o];
#pragma unroll
        for (int value = 0; value < VALUES; ++value)
            bits[value / 3] += abs((int)pick(row[value / 8], value % 8) - before[value % 3]);
#pragma unroll
        for (int t = 0; t < FRAMES_EACH; ++t) bits[t] = (bits[t] + 1) / 3;
        bits[COUNT] = 256;
    }
    changes[at] = pack(bits);
}

// Mean of the changes of 2 radius + 1 neighbours of a row, where nothing is selected 0: float16 of grey levels.
extern "C" __global__ void __launch_bounds__(128) change_along_rows(
    const Eight* __restrict__ changes,    // [H, W]
    Eight* __restrict__ means,            // [H, W]
    int height, int width, int radius) {
    long long at = PIXEL;
    if (at >= (long long)height * width) return;
    int column = at % width;
    const Eight* row = changes + (at - column);
    unsigned int total[8] = {};
    for (int d = -radius; d <= radius; ++d) {
        int x = column + d;
        Eight one = row[x < 0 ? x + width : x >= width ? x - width : x];
#pragma unroll
        for (int k = 0; k < 8; ++k) total[k] += pick(one, k);
    }
    float scale = 1.0f / (256.0f * (2 * radius + 1));
    unsigned int bits[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) bits[k] = float_to_half(scale * total[k]);
    means[at] = pack(bits);
}

// Mean along columns too, and w_t: 65535 where nothing has changed, 0 where something else is seen.
extern "C" __global__ void __launch_bounds__(128) stay_along_columns(
    const Eight* __restrict__ means,      // [H, W]
    const int* __restrict__ place_of,     // [H, W]
    Eight* __restrict__ stay,             // [H, W], written where pixels are selected
    int height, int width, int radius, float levels) {
    long long at = PIXEL;
    if (at >= (long long)height * width || place_of[at] < 0) return;
    int column = at % width, row = at / width;
    float total[8] = {};
    for (int y = max(row - radius, 0); y <= min(row + radius, height - 1); ++y) {
        Eight one = means[(long long)y * width + column];
#pragma unroll
        for (int k = 0; k < 8; ++k) total[k] += half_to_float(pick(one, k));
    }
    float scale = 1.0f / (total[COUNT] * levels);
    unsigned int bits[8] = {};
#pragma unroll
    for (int t = 0; t < FRAMES_EACH; ++t) {
        float moved = total[t] * scale;
        bits[t] = to_bits(65535.0f * expf(-moved * moved));
    }
    stay[at] = pack(bits);
}

// Some finished frames of the group. Block: a patch of the panorama, as compose.cu's.
extern "C" __global__ void __launch_bounds__(PATCH_PIXELS) finish(
    const Eight* __restrict__ composed,   // [N, OCTETS]
    const uint2* __restrict__ first,      // [N] composed_0
    const float4* __restrict__ cast,      // [H, W] sums of the residual, and their count
    const Eight* __restrict__ stay,       // [H, W]
    const uint8* __restrict__ panorama,   // [H, W, 3]
    const int* __restrict__ place_of,     // [H, W]
    const float* __restrict__ alpha,      // [N]
    uint8* __restrict__ out,              // [count, H, W, 3]
    int height, int width, int begin, int count) {
    __shared__ __align__(16) uint8 staged[FRAMES_EACH * PATCH_PIXELS * 3];
    int row = blockIdx.y * PATCH_ROWS + threadIdx.x / PATCH_COLUMNS;
    int column = blockIdx.x * PATCH_COLUMNS + threadIdx.x % PATCH_COLUMNS;
    if (row < height && column < width) {
        long long at = (long long)row * width + column;
        int n = place_of[at];
        float still[3], less[3], weight = 0.0f;
#pragma unroll
        for (int c = 0; c < 3; ++c) still[c] = panorama[at * 3 + c], less[c] = 0.0f;
        Eight values[OCTETS] = {}, stays = {};
        if (n >= 0) {
#pragma unroll
            for (int o = 0; o < OCTETS; ++o) values[o] = composed[(long long)n * OCTETS + o];
            stays = stay[at], weight = alpha[n];
            uint2 start = first[n];
            float4 sum = cast[at];
            const float unit = 1.0f / 256.0f, mean[3] = {sum.x / sum.w, sum.y / sum.w, sum.z / sum.w};
            const float before[3] = {unit * from_bits(start.x & 0xffffu), unit * from_bits(start.x >> 16),
                                     unit * from_bits(start.y)};
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                less[c] = weight * (still[c] - before[c] - mean[c]);
                still[c] = weight * mean[c] + (1.0f - weight) * still[c];
            }
        }
#pragma unroll
        for (int value = 0; value < VALUES; ++value) {
            int t = value / 3, c = value % 3;
            float level = from_bits(pick(values[value / 8], value % 8)) * (1.0f / 256.0f);
            float share = from_bits(pick(stays, t)) * (1.0f / 65535.0f);
            staged[(t * PATCH_PIXELS + threadIdx.x) * 3 + c] = to_byte(weight * level + still[c] + share * less[c]);
        }
    }
    __syncthreads();
    write_patch(staged + begin * PATCH_PIXELS * 3, out, count, blockIdx.y * PATCH_ROWS, height, width);
}
