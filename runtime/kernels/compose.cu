// Compose decoded tiles onto the panorama by gathering; no atomics, so the result is the same every time:
//
//   composed(p) = sum_v w_v(q) tile_v(q) / sum_v w_v(q),   q = where denoised tile v sees pixel p
//   alpha(p)    = sum over denoised tiles of w_v / sum over all tiles of w_v
//
// Decoded values -1..1 are clipped and become grey levels 0..255. With LAY they are laid over the input picture at once,
// as `finish` of detail.cu does without detail: out = alpha composed + (1 - alpha) input.
// Block: PATCH_ROWS x 32 panorama pixels and FRAMES_EACH frames, so that rows of a tile that neighbouring pixels share
// come from the cache, and all its threads go through one list of tiles. Thread: one pixel; its sums for all frames and
// colours are in registers, the tiles come one after another. SIZE is the side of a tile, known when this is compiled, so
// that a tap's frames, colours and rows lie at constant distances.
// Bytes: each decoded value once (2), 12 written per pixel and frame; with LAY 3, and 3 to 7 read per pixel.
#include "common.cuh"

#define PATCH_COLUMNS 32
// Registers enough that the twelve taps of a frame are on their way before the first is used.
#define RESIDENT ((FRAMES_EACH > 7 ? 768 : 1024) / (PATCH_ROWS * PATCH_COLUMNS))

// Add four taps, each clipped: the grey level over 255.
__device__ __forceinline__ void gather(const element* __restrict__ from, const float* shares, float& total) {
    const int offsets[4] = {0, 1, SIZE, SIZE + 1};
#pragma unroll
    for (int q = 0; q < 4; ++q) total += shares[q] * __saturatef(get(from + offsets[q]) * 0.5f + 0.5f);
}

extern "C" __global__ void __launch_bounds__(PATCH_ROWS * PATCH_COLUMNS, RESIDENT) compose(
    const element* __restrict__ pixels,     // [slots, T, 3, SIZE, SIZE] in -1..1
    const float* __restrict__ rotations,    // [V, 3, 3] camera to world
    const int* __restrict__ slot_of,        // [V], -1 for a tile that was not denoised
    const int* __restrict__ patch_start,    // [patches + 1] into patch_tiles
    const int* __restrict__ patch_tiles,    // tiles that may see a patch
    const float* __restrict__ columns,      // [W, 2] sine and cosine of the longitude
    const float* __restrict__ rows,         // [H, 2] sine and cosine of the latitude
    const int* __restrict__ place_of,       // [H, W] number of a pixel to compose, -1 for the others
#if LAY
    const uint8* __restrict__ panorama,     // [H, W, 3]
    const float* __restrict__ weights,      // [N] to use for alpha, if `weighted`
    uint8* __restrict__ out,                // [frames, H, W, 3], the input's bytes already
    int weighted,
#else
    float* __restrict__ composed,           // [frames, 3, N] grey levels
#endif
    float* __restrict__ alpha,              // [N]
    int count, int height, int width, int frames, int first_frame, int all_frames, float focal) {
    const int tile_pixels = SIZE * SIZE;
    int column = blockIdx.x * PATCH_COLUMNS + threadIdx.x % PATCH_COLUMNS;
    int row = blockIdx.y * PATCH_ROWS + threadIdx.x / PATCH_COLUMNS;
    int n = row < height && column < width ? place_of[(long long)row * width + column] : -1;
    if (n < 0) return;
    float wx = rows[2 * row + 1] * columns[2 * column], wy = -rows[2 * row];
    float wz = rows[2 * row + 1] * columns[2 * column + 1];
    int patch = blockIdx.y * ((width + PATCH_COLUMNS - 1) / PATCH_COLUMNS) + blockIdx.x;
    int begin = blockIdx.z * FRAMES_EACH, taken = min(FRAMES_EACH, frames - begin);
    float total[FRAMES_EACH][3] = {}, moving = 0.0f, all = 0.0f;
    for (int e = patch_start[patch]; e < patch_start[patch + 1]; ++e) {
        int tile = patch_tiles[e], slot = slot_of[tile];
        const float* r = rotations + tile * 9;
        float z = r[2] * wx + r[5] * wy + r[8] * wz;
        if (z <= 1e-6f) continue;
        float by = focal / z;
        float x = (r[0] * wx + r[3] * wy + r[6] * wz) * by, y = (r[1] * wx + r[4] * wy + r[7] * wz) * by;
        if (fabsf(x) > 0.5f * SIZE || fabsf(y) > 0.5f * SIZE) continue;
        x += 0.5f * SIZE - 0.5f, y += 0.5f * SIZE - 0.5f;
        float weight = feather(x, y, (float)SIZE);
        all += weight;
        if (slot < 0) continue;
        moving += weight;
        x = fminf(fmaxf(x, 0.0f), SIZE - 1.0f), y = fminf(fmaxf(y, 0.0f), SIZE - 1.0f);
        int left = min((int)x, SIZE - 2), top = min((int)y, SIZE - 2);
        float fx = x - left, fy = y - top, upper = weight * (1 - fy), lower = weight * fy;
        const float shares[4] = {upper * (1 - fx), upper * fx, lower * (1 - fx), lower * fx};
        const element* from = pixels + ((long long)slot * all_frames + first_frame + begin) * 3 * tile_pixels;
        from += top * SIZE + left;
        if (taken == FRAMES_EACH) {
#pragma unroll
            for (int t = 0; t < FRAMES_EACH; ++t)
#pragma unroll
                for (int c = 0; c < 3; ++c) gather(from + (t * 3 + c) * tile_pixels, shares, total[t][c]);
        } else {
#pragma unroll
            for (int t = 0; t < FRAMES_EACH; ++t)
                if (t < taken)
#pragma unroll
                    for (int c = 0; c < 3; ++c) gather(from + (t * 3 + c) * tile_pixels, shares, total[t][c]);
        }
    }
    float share = all > 0.0f ? moving / all : 0.0f, scale = moving > 0.0f ? 255.0f / moving : 0.0f;
    if (blockIdx.z == 0) alpha[n] = share;
#if LAY
    long long at = ((long long)row * width + column) * 3;
    float weight = weighted ? weights[n] : share;
    const float still[3] = {(float)panorama[at], (float)panorama[at + 1], (float)panorama[at + 2]};
#endif
#pragma unroll
    for (int t = 0; t < FRAMES_EACH; ++t)
        if (t < taken)
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                float level = total[t][c] * scale;
#if LAY
                float mixed = rintf(weight * level + (1.0f - weight) * still[c]);
                out[(begin + t) * 3ll * height * width + at + c] = (uint8)fminf(fmaxf(mixed, 0.0f), 255.0f);
#else
                __stcs(composed + ((long long)(begin + t) * 3 + c) * count + n, level);
#endif
            }
}
