// Compose decoded tiles onto the panorama by gathering; no atomics, so the result is the same every time:
//
//   composed(p) = sum_v w_v(q) tile_v(q) / sum_v w_v(q),   q = where denoised tile v sees pixel p
//   alpha(p)    = sum over denoised tiles of w_v / sum over all tiles of w_v
//
// Values -1..1 become grey levels 0..255. With LAY they are laid over the input picture at once, as `finish` of detail.cu
// does without detail: out = alpha composed + (1 - alpha) input.
// Tiles lie pixel by pixel (pixel_major.cu). Block: PATCH_ROWS x 32 panorama pixels. Its threads first find where tiles see
// the patch, a pixel each; then a thread gathers one octet of a pixel's values after another, of TOGETHER groups at a time:
// four 16-byte loads for each tile and group, all on their way before the first is used.
// SIZE is the side of a tile, known when this is compiled, so that taps lie at constant distances.
// Bytes per group: each octet of the tiles once, 16 OCTETS written per pixel; with LAY 3 FRAMES_EACH written, 3 to 7 read.
#include "patch.cuh"

#ifndef PLACES
#define PLACES 6  // in shared memory for each pixel; what more tiles see is found again where it is gathered
#endif

// Where a tile sees a pixel.
struct __align__(16) Place {
    int at;  // pixel of the upper left tap, counted from that of the first group and slot; -1 in a tile that has no slot
    float weight, fx, fy;
};

struct Ray {
    float x, y, z;
};

__device__ __forceinline__ bool see(const float* __restrict__ r, const Ray& ray, float focal, Place& place) {
    float z = r[2] * ray.x + r[5] * ray.y + r[8] * ray.z;
    if (z <= 1e-6f) return false;
    float by = focal / z;
    float x = (r[0] * ray.x + r[3] * ray.y + r[6] * ray.z) * by, y = (r[1] * ray.x + r[4] * ray.y + r[7] * ray.z) * by;
    if (fabsf(x) > 0.5f * SIZE || fabsf(y) > 0.5f * SIZE) return false;
    x += 0.5f * SIZE - 0.5f, y += 0.5f * SIZE - 0.5f;
    place.weight = feather(x, y, (float)SIZE);
    x = fminf(fmaxf(x, 0.0f), SIZE - 1.0f), y = fminf(fmaxf(y, 0.0f), SIZE - 1.0f);
    int left = min((int)x, SIZE - 2), top = min((int)y, SIZE - 2);
    place.fx = x - left, place.fy = y - top, place.at = top * SIZE + left;
    return true;
}

// Add a tile's four taps of an octet of each group.
__device__ __forceinline__ void gather(const Octet* const* groups, const Place& place, float (*total)[8]) {
    long long at = (long long)place.at * OCTETS;
    Octet taps[TOGETHER][4];
#pragma unroll
    for (int g = 0; g < TOGETHER; ++g) {
        const Octet* __restrict__ from = groups[g] + at;
        taps[g][0] = from[0], taps[g][1] = from[OCTETS];
        taps[g][2] = from[SIZE * OCTETS], taps[g][3] = from[(SIZE + 1) * OCTETS];
    }
    float lower = place.weight * place.fy, upper = place.weight - lower;
    const float shares[4] = {upper - upper * place.fx, upper * place.fx, lower - lower * place.fx, lower * place.fx};
#pragma unroll
    for (int g = 0; g < TOGETHER; ++g)
#pragma unroll
        for (int q = 0; q < 4; ++q)
#pragma unroll
            for (int k = 0; k < 8; ++k) total[g][k] += shares[q] * get(taps[g][q].at + k);
}

extern "C" __global__ void __launch_bounds__(PATCH_PIXELS, 1024 / PATCH_PIXELS - TOGETHER + 1) compose(
    const Octet* __restrict__ pixels,       // [slots, groups, SIZE, SIZE, OCTETS] in -1..1
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
    uint8* __restrict__ out,                // [frames, H, W, 3]
    int weighted, int begin, int frames,    // of the panorama's frames, those to write
#else
    Eight* __restrict__ composed,           // [group_count, N, OCTETS] grey levels in 1/256
#endif
    float* __restrict__ alpha,              // [N]
    int count, int height, int width, int groups, int first_group, int group_count, float focal) {
    __shared__ Place places[PLACES][PATCH_PIXELS];
    __shared__ int numbers[PATCH_PIXELS], seen_by[PATCH_PIXELS];
    __shared__ float scales[PATCH_PIXELS];
#if LAY
    __shared__ __align__(16) uint8 staged[TOGETHER][FRAMES_EACH * PATCH_PIXELS * 3];
    __shared__ float shares[PATCH_PIXELS];
#endif
    const int tile_pixels = SIZE * SIZE;
    const int left = blockIdx.x * PATCH_COLUMNS, top = blockIdx.y * PATCH_ROWS;
    const int patch = blockIdx.y * gridDim.x + blockIdx.x;
    int listed = patch_start[patch], end = patch_start[patch + 1];
    auto ray_of = [&](int pixel) {
        int row = top + pixel / PATCH_COLUMNS, column = left + pixel % PATCH_COLUMNS;
        return Ray{rows[2 * row + 1] * columns[2 * column], -rows[2 * row], rows[2 * row + 1] * columns[2 * column + 1]};
    };
    // Find place e of the patch's tiles in which a pixel lies.
    auto find = [&](int e, const Ray& ray, Place& place) {
        int tile = patch_tiles[e], slot = slot_of[tile];
        if (!see(rotations + tile * 9, ray, focal, place)) return false;
        place.at = slot < 0 ? -1 : place.at + slot * groups * tile_pixels;
        return true;
    };
    {
        int pixel = threadIdx.x, row = top + pixel / PATCH_COLUMNS, column = left + pixel % PATCH_COLUMNS;
        int n = row < height && column < width ? place_of[(long long)row * width + column] : -1, seen = 0;
        if (n >= 0) {
            Ray ray = ray_of(pixel);
            Place place;
            float moving = 0.0f, all = 0.0f;
            for (int e = listed; e < end; ++e) {
                if (!find(e, ray, place)) continue;
                all += place.weight;
                if (place.at < 0) continue;
                moving += place.weight;
                if (seen < PLACES) places[seen][pixel] = place;
                ++seen;
            }
            float share = all > 0.0f ? moving / all : 0.0f;
            scales[pixel] = moving > 0.0f ? 1.0f / moving : 0.0f;
            alpha[n] = share;
#if LAY
            shares[pixel] = weighted ? weights[n] : share;
#endif
        }
        numbers[pixel] = n, seen_by[pixel] = seen;
    }
    __syncthreads();
    for (int start = 0; start < group_count; start += TOGETHER) {
        for (int item = threadIdx.x; item < PATCH_PIXELS * OCTETS; item += PATCH_PIXELS) {
            int pixel = item / OCTETS, o = item % OCTETS, n = numbers[pixel], seen = seen_by[pixel];
#if !LAY
            if (n < 0) continue;
#endif
            // Where groups are over, the last one is gathered again, for nothing.
            const Octet* from[TOGETHER];
#pragma unroll
            for (int g = 0; g < TOGETHER; ++g)
                from[g] = pixels + (long long)(first_group + min(start + g, group_count - 1)) * tile_pixels * OCTETS + o;
            float total[TOGETHER][8] = {};
            for (int k = 0; k < min(seen, PLACES); ++k) gather(from, places[k][pixel], total);
            if (seen > PLACES) {
                Ray ray = ray_of(pixel);
                Place place;
                for (int e = listed, k = 0; e < end; ++e)
                    if (find(e, ray, place) && place.at >= 0 && k++ >= PLACES) gather(from, place, total);
            }
            float scale = 127.5f * scales[pixel], grey = seen ? 127.5f : 0.0f;
#if LAY
            int row = top + pixel / PATCH_COLUMNS, column = left + pixel % PATCH_COLUMNS;
            if (row >= height || column >= width) continue;
            const uint8* still = panorama + ((long long)row * width + column) * 3;
            float share = n < 0 ? 0.0f : shares[pixel];
#pragma unroll
            for (int k = 0; k < 8; ++k) {
                int value = 8 * o + k, t = value / 3, c = value % 3;
                if (value >= VALUES) break;
                float rest = (1.0f - share) * still[c];
#pragma unroll
                for (int g = 0; g < TOGETHER; ++g) {
                    float level = n < 0 ? 0.0f : total[g][k] * scale + grey;
                    staged[g][(t * PATCH_PIXELS + pixel) * 3 + c] = to_byte(share * level + rest);
                }
            }
#else
#pragma unroll
            for (int g = 0; g < TOGETHER; ++g) {
                if (start + g >= group_count) break;
                unsigned int bits[8];
#pragma unroll
                for (int k = 0; k < 8; ++k) bits[k] = to_bits(total[g][k] * (256.0f * scale) + 256.0f * grey);
                write_once(composed + ((long long)(start + g) * count + n) * OCTETS + o, pack(bits));
            }
#endif
        }
#if LAY
        __syncthreads();
        for (int g = 0; g < min(TOGETHER, group_count - start); ++g) {
            int frame = (first_group + start + g) * FRAMES_EACH;
            int first = max(begin, frame), last = min(begin + frames, frame + FRAMES_EACH);
            write_patch(staged[g] + (first - frame) * PATCH_PIXELS * 3, out + (first - begin) * 3ll * height * width,
                        last - first, top, height, width);
        }
        __syncthreads();
#endif
    }
}
