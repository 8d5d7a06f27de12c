// Guidance, preconditioning, fusion of tiles, one step of the sampler, and the next input of the engine:
//
//   denoised_j = c_skip x_j + c_out (u_j + g_t (v_j - u_j))                    u: unconditional half, g: guidance
//   fused_i(p) = sum_j w_j(q) denoised_j(q) / sum_j w_j(q)                     q = where tile j sees pixel p of tile i
//   target_i   = fused_i + k (fused_i - previous_i)
//   x_i       <- target_i + ratio (x_i - target_i),   sample_i <- c_in x_i
//
// With FUSE_SAMPLES every tile takes its step by its own estimate, and the stepped states are fused instead; a tile that
// is not denoised gives its latent and its part of the noise, still + level rest.
//
// Rows of v and sample are those of engine calls (`row_of`). Where guidance is left out, a call holds twice as many tiles
// and the conditional half alone: v is read in the layout of this step, sample is written in that of the next one. With
// KEPT a guided step keeps its difference v - u, and with REUSED a step without the unconditional half takes the one that
// was kept: v + (g_t - 1) difference.
//
// `give` writes what each tile gives to its neighbours, pixel by pixel with its four channels together; `blend` gathers
// it: a tap is one load, where taps of x, v, u and previous would be 16 loads. It is given in the engine's element type, to
// which v was rounded already, and to which the next sample will be; what is rounded shrinks with the noise from step to
// step. `blend` begins with the frames that `give` ended with, which the L2 cache still holds; everything else passes the
// cache by.
// Tiles are in the order of `places`: the denoised ones ("slots"), then the others.
// Thread of `give`: PIXELS_EACH neighbouring pixels of a frame of a tile, two where rows of pixels are even, so that a warp
// reads whole lines of v. Thread of `blend`: a pixel of FRAMES_EACH frames, whose taps and shares are read once.
// Bytes per element: x 4 + v 2 (+ u 2) read, x 4 + sample 2 (+ 2 guided) written; + 8 for previous and fused with k; and
// within the L2 cache 2 written, 4 to 8 read of what is given; + 2 with KEPT or REUSED.
#include "common.cuh"
#ifndef BLEND_BLOCKS
#define BLEND_BLOCKS 7
#endif
#ifdef KEEP_X
template <class V> __device__ __forceinline__ void READ_X(const V* from, Few<V>& few) { few = *(const Few<V>*)from; }
#else
#define READ_X read_few
#endif

// Launch bounds leave registers enough that all of a thread's loads are on their way before the first is used.

#if GUIDED
#define HALVES 2
#else
#define HALVES 1
#endif
#ifndef NEXT_GUIDED  // only where it differs from this step's
#define NEXT_GUIDED GUIDED
#endif
#if NEXT_GUIDED
#define NEXT_HALVES 2
#else
#define NEXT_HALVES 1
#endif

#ifndef KEPT
#define KEPT 0
#endif
#ifndef REUSED
#define REUSED 0
#endif

struct Sizes {
    int slots, places, frames, size, batch, next_batch, batched, next_batched, ranks, channels;
};

struct Scales {
    float c_skip, c_out, ratio, c_in, extrapolation, level;
};

__device__ __forceinline__ float step_to(float denoised, float x, float previous, const Scales& by) {
    float target = denoised;
#if SECOND_ORDER
    target += by.extrapolation * (target - previous);
#endif
    return target + by.ratio * (x - target);
}

// What a tile gives of a pixel.
#if ELEMENT_BYTES == 2
struct __align__(8) Gift {
    unsigned short channels[4];
};
__device__ __forceinline__ void wrap(Gift& gift, int c, float value) { gift.channels[c] = float_to_half(value); }
__device__ __forceinline__ float unwrap(const Gift& gift, int c) { return half_to_float(gift.channels[c]); }
#else
struct __align__(16) Gift {
    float channels[4];
};
__device__ __forceinline__ void wrap(Gift& gift, int c, float value) { gift.channels[c] = value; }
__device__ __forceinline__ float unwrap(const Gift& gift, int c) { return gift.channels[c]; }
#endif

struct __align__(PIXELS_EACH * sizeof(Gift) < 16 ? PIXELS_EACH * sizeof(Gift) : 16) Gifts {
    Gift of[PIXELS_EACH];
};

extern "C" __global__ void __launch_bounds__(THREADS, 10) give(
    const float* __restrict__ x,         // [slots, T, 4, P]
    const element* __restrict__ v,       // [R, T, 4, P], unconditional half of a call first
    const float* __restrict__ guidance,  // [T]
    const int* __restrict__ places,      // [V] tile of each place
    const float* __restrict__ still,     // [V, 4, P] what a tile that is not denoised shows in every frame, scaled
    const float* __restrict__ rest,      // [V - slots, T, 4, P] unit noise of such tiles, read with FUSE_SAMPLES
    const float* __restrict__ previous,  // [slots, T, 4, P], read with SECOND_ORDER
    float* __restrict__ fused_out,       // [slots, T, 4, P], written with SECOND_ORDER and FUSE_SAMPLES
    element* difference,                 // [slots, T, 4, P], read with REUSED, written with KEPT
    Gift* __restrict__ given,            // [T, V, P] by place
    const Sizes n, const Scales by) {
    int pixels = n.size * n.size, p = (blockIdx.x * THREADS + threadIdx.x) * PIXELS_EACH;
    int place = blockIdx.y, t = blockIdx.z;
    follow();
    if (p >= pixels) return;
    Gifts gifts;
    if (place < n.slots) {
        long long start = ((long long)place * n.frames + t) * 4 * pixels + p;
        Few<float> states[4];
        Few<element> known[4];
        [[maybe_unused]] Few<element> unknown[4];
        [[maybe_unused]] Few<float> before[4];
        const element* row = v + row_of(place, HALVES - 1, HALVES, t, n.batch, n.batched, n.frames) * 4 * pixels + p;
#pragma unroll
        for (int c = 0; c < 4; ++c) READ_X(x + start + c * pixels, states[c]), read_few(row + c * pixels, known[c]);
#if GUIDED
        const element* other = v + row_of(place, 0, HALVES, t, n.batch, n.batched, n.frames) * 4 * pixels + p;
#pragma unroll
        for (int c = 0; c < 4; ++c) read_few(other + c * pixels, unknown[c]);
#elif REUSED
#pragma unroll
        for (int c = 0; c < 4; ++c) read_few(difference + start + c * pixels, unknown[c]);
#endif
#if GUIDED || REUSED
        float scale = guidance[t];
#endif
#if FUSE_SAMPLES && SECOND_ORDER
#pragma unroll
        for (int c = 0; c < 4; ++c) read_few(previous + start + c * pixels, before[c]);
#endif
#pragma unroll
        for (int c = 0; c < 4; ++c)
#pragma unroll
            for (int i = 0; i < PIXELS_EACH; ++i) {
                float predicted = get(known[c].of + i), state = states[c].of[i];
#if GUIDED
                float off = get(unknown[c].of + i), apart = predicted - off;
                predicted = off + scale * apart;
#elif REUSED
                predicted += (scale - 1.0f) * get(unknown[c].of + i);
#endif
                float denoised = by.c_skip * state + by.c_out * predicted;
#if FUSE_SAMPLES && SECOND_ORDER
                wrap(gifts.of[i], c, step_to(denoised, state, before[c].of[i], by));
                write_once(fused_out + start + c * pixels + i, denoised);
#elif FUSE_SAMPLES
                wrap(gifts.of[i], c, step_to(denoised, state, 0.0f, by));
#else
                wrap(gifts.of[i], c, denoised);
#endif
#if KEPT
                write_once(difference + start + c * pixels + i, apart);
#endif
            }
    } else {
        const float* row = still + (long long)places[place] * 4 * pixels + p;
        [[maybe_unused]] const float* noise = rest + ((long long)(place - n.slots) * n.frames + t) * 4 * pixels + p;
#pragma unroll
        for (int c = 0; c < 4; ++c)
#pragma unroll
            for (int i = 0; i < PIXELS_EACH; ++i) {
#if FUSE_SAMPLES
                wrap(gifts.of[i], c, row[c * pixels + i] + by.level * noise[c * pixels + i]);
#else
                wrap(gifts.of[i], c, row[c * pixels + i]);
#endif
            }
    }
    *(Gifts*)(given + ((long long)t * n.places + place) * pixels + p) = gifts;
}

__device__ __forceinline__ void add(float* total, float share, const Gift& gift) {
#pragma unroll
    for (int c = 0; c < 4; ++c) total[c] += share * unwrap(gift, c);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLEND_BLOCKS) blend(
    const float* __restrict__ x,         // [slots, T, 4, P], read without FUSE_SAMPLES
    const float* __restrict__ own,       // [slots, P] share of the pixel itself
    const int* __restrict__ taps,        // [ranks, slots, P] place * P + upper left tap, -1 for none
    const float4* __restrict__ shares,   // [ranks, slots, P] of the four taps
    const float* __restrict__ previous,  // [slots, T, 4, P], read with SECOND_ORDER
    const Gift* given,                    // [T, V, P]
    float* __restrict__ x_next,          // [slots, T, 4, P]
    float* __restrict__ fused_out,       // [slots, T, 4, P], written with SECOND_ORDER and without FUSE_SAMPLES
    element* __restrict__ sample,        // [R', T, channels, P]
    const Sizes n, const Scales by) {
    int pixels = n.size * n.size, p = blockIdx.x * THREADS + threadIdx.x, slot = blockIdx.y;
    if (p >= pixels) return;
    int first = ((n.frames - 1) / FRAMES_EACH - blockIdx.z) * FRAMES_EACH;
    long long entry = (long long)slot * pixels + p, frame = (long long)n.places * pixels;
    float share = own[entry];
    int at = n.ranks ? taps[entry] : -1;
    float4 weights = at < 0 ? float4() : shares[entry];
#if !FUSE_SAMPLES
    // All of them before the first write, which no read may pass.
    float states[FRAMES_EACH][4], before[FRAMES_EACH][4] = {};
#pragma unroll
    for (int f = 0; f < FRAMES_EACH; ++f) {
        long long start = ((long long)slot * n.frames + min(first + f, n.frames - 1)) * 4 * pixels + p;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            states[f][c] = read_once(x + start + c * pixels);
#if SECOND_ORDER
            before[f][c] = read_once(previous + start + c * pixels);
#endif
        }
    }
#endif
    wait();
    const Gift* frames[FRAMES_EACH];
    float total[FRAMES_EACH][4] = {};
#pragma unroll
    for (int f = 0; f < FRAMES_EACH; ++f) {
        frames[f] = given + min(first + f, n.frames - 1) * frame;
        add(total[f], share, frames[f][entry]);
    }
    for (int r = 1; at >= 0; ++r) {
#pragma unroll
        for (int f = 0; f < FRAMES_EACH; ++f) {
            const Gift* from = frames[f] + at;
            const Gift four[4] = {from[0], from[1], from[n.size], from[n.size + 1]};
            add(total[f], weights.x, four[0]), add(total[f], weights.y, four[1]);
            add(total[f], weights.z, four[2]), add(total[f], weights.w, four[3]);
        }
        entry += (long long)n.slots * pixels;
        at = r < n.ranks ? taps[entry] : -1;
        if (at >= 0) weights = shares[entry];
    }
#pragma unroll
    for (int f = 0; f < FRAMES_EACH; ++f) {
        int t = first + f;
        if (t >= n.frames) break;
        long long start = ((long long)slot * n.frames + t) * 4 * pixels + p;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            float next = total[f][c];
#if !FUSE_SAMPLES
#if SECOND_ORDER
            write_once(fused_out + start + c * pixels, next);
#endif
            next = step_to(next, states[f][c], before[f][c], by);
#endif
            write_once(x_next + start + c * pixels, next);
#pragma unroll
            for (int half = 0; half < NEXT_HALVES; ++half) {
                long long row = row_of(slot, half, NEXT_HALVES, t, n.next_batch, n.next_batched, n.frames);
                write_once(sample + (row * n.channels + n.channels - 8 + c) * pixels + p, by.c_in * next);
            }
        }
    }
}
