// Compose decoded tiles onto the panorama by gathering; no atomics, so the result is the same every time:
//
//   composed(p) = sum_v w_v(q) tile_v(q) / sum_v w_v(q),   q = where denoised tile v sees pixel p
//   alpha(p)    = sum over denoised tiles of w_v / sum over all tiles of w_v
//
// Decoded values -1..1 are clipped and become grey levels 0..255.
// Thread: one selected pixel, the frames of one chunk. Where each tile sees it is computed once for all frames, from the
// few tiles listed for its block of the panorama. Bytes: each decoded value once (2), 12 written per pixel and frame.
#include "common.cuh"

#define SEEN 8  // no layout shows a direction in more tiles

extern "C" __global__ void __launch_bounds__(128) compose(
    const element* __restrict__ pixels,     // [slots, T, 3, s, s] in -1..1
    const float* __restrict__ rotations,    // [V, 3, 3] camera to world
    const int* __restrict__ slot_of,        // [V], -1 for a tile that was not denoised
    const int* __restrict__ block_start,    // [blocks + 1] into block_tiles, blocks of `block` x `block` pixels
    const int* __restrict__ block_tiles,    // tiles that may see a block
    const float* __restrict__ columns,      // [W, 2] sine and cosine of the longitude
    const float* __restrict__ rows,         // [H, 2] sine and cosine of the latitude
    const int* __restrict__ selected,       // [N] flat pixels to compose
    float* __restrict__ composed,           // [frames, N, 3] grey levels
    float* __restrict__ alpha,              // [N]
    int count, int width, int block, int frames, int first_frame, int all_frames, int size, int chunk, float focal) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= count) return;
    int flat = selected[n], row = flat / width, column = flat - row * width;
    float wx = rows[2 * row + 1] * columns[2 * column], wy = -rows[2 * row];
    float wz = rows[2 * row + 1] * columns[2 * column + 1];
    int blocks_across = (width + block - 1) / block, tile_pixels = size * size;
    int at_block = (row / block) * blocks_across + column / block;
    int seen = 0, slots[SEEN], taps[SEEN];
    float shares[SEEN][4], moving = 0.0f, all = 0.0f;
    for (int e = block_start[at_block]; e < block_start[at_block + 1]; ++e) {
        const float* r = rotations + block_tiles[e] * 9;
        float z = r[2] * wx + r[5] * wy + r[8] * wz;
        if (z <= 1e-6f) continue;
        float x = (r[0] * wx + r[3] * wy + r[6] * wz) * focal / z, y = (r[1] * wx + r[4] * wy + r[7] * wz) * focal / z;
        if (fabsf(x) > 0.5f * size || fabsf(y) > 0.5f * size) continue;
        x += 0.5f * size - 0.5f, y += 0.5f * size - 0.5f;
        float weight = feather(x, y, (float)size);
        all += weight;
        int slot = slot_of[block_tiles[e]];
        if (slot < 0 || seen == SEEN) continue;
        moving += weight;
        x = fminf(fmaxf(x, 0.0f), size - 1.0f), y = fminf(fmaxf(y, 0.0f), size - 1.0f);
        int left = min((int)x, size - 2), top = min((int)y, size - 2);
        float fx = x - left, fy = y - top;
        slots[seen] = slot, taps[seen] = top * size + left;
        shares[seen][0] = weight * (1 - fx) * (1 - fy), shares[seen][1] = weight * fx * (1 - fy);
        shares[seen][2] = weight * (1 - fx) * fy, shares[seen][3] = weight * fx * fy;
        ++seen;
    }
    if (blockIdx.y == 0) alpha[n] = all > 0.0f ? moving / all : 0.0f;
    float scale = moving > 0.0f ? 1.0f / moving : 0.0f;
    int begin = blockIdx.y * chunk, end = min(begin + chunk, frames);
    for (int t = begin; t < end; ++t) {
        float total[3] = {0.0f, 0.0f, 0.0f};
        for (int k = 0; k < seen; ++k) {
            const element* tile = pixels + ((long long)slots[k] * all_frames + first_frame + t) * 3 * tile_pixels + taps[k];
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                const int offsets[4] = {0, 1, size, size + 1};
#pragma unroll
                for (int q = 0; q < 4; ++q) {
                    float level = get(tile + c * tile_pixels + offsets[q]) * 127.5f + 127.5f;
                    total[c] += shares[k][q] * fminf(fmaxf(level, 0.0f), 255.0f);
                }
            }
        }
#pragma unroll
        for (int c = 0; c < 3; ++c) composed[((long long)t * count + n) * 3 + c] = total[c] * scale;
    }
}
