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
// `give` writes what each tile gives to its neighbours, pixel by pixel with four channels of FRAMES_EACH frames together;
// `blend` gathers it: a tap is one load, where taps of x, v, u and previous would be 16 loads for each frame. It is given in
// the engine's element type, to which v was rounded already, and to which the next sample will be; what is rounded shrinks
// with the noise from step to step. `blend` begins with the frames that `give` ended with, which the L2 cache still holds;
// everything else passes the cache by. Its blocks take their places, and read what `give` does not write, while the last
// blocks of `give` still run.
// Tiles are in the order of `places`: the denoised ones ("slots"), then the others.
// Thread of `give`: PIXELS_EACH neighbouring pixels of a tile, two where rows of pixels are even, so that a warp reads whole
// lines of v. Thread of `blend`: a pixel. Both take FRAMES_EACH frames, for which taps and shares are read once; where
// frames are over, the last one is given again.
// Bytes per element: x 4 + v 2 (+ u 2) read, x 4 + sample 2 (+ 2 guided) written; + 8 for previous and fused with k; and
// within the L2 cache 2 written, 4 to 8 read of what is given; + 2 with KEPT or REUSED.
#include "common.cuh"

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

// What a tile gives of a pixel in FRAMES_EACH frames.
struct __align__(16) Gift {
    element channels[FRAMES_EACH][4];
};

struct __align__(16) Gifts {
    Gift of[PIXELS_EACH];
};

extern "C" __global__ void __launch_bounds__(THREADS, 7) give(
    const float* __restrict__ x,         // [slots, T, 4, P]
    const element* __restrict__ v,       // [R, T, 4, P], unconditional half of a call first
    const float* __restrict__ guidance,  // [T]
    const int* __restrict__ places,      // [V] tile of each place
    const float* __restrict__ still,     // [V, 4, P] what a tile that is not denoised shows in every frame, scaled
    const float* __restrict__ rest,      // [V - slots, T, 4, P] unit noise of such tiles, read with FUSE_SAMPLES
    const float* __restrict__ previous,  // [slots, T, 4, P], read with SECOND_ORDER
    float* __restrict__ fused_out,       // [slots, T, 4, P], written with SECOND_ORDER and FUSE_SAMPLES
    element* difference,                 // [slots, T, 4, P], read with REUSED, written with KEPT
    Gift* __restrict__ given,            // [G, V, P] by group of frames and place
    const Sizes n, const Scales by) {
    int pixels = n.size * n.size, p = (blockIdx.x * THREADS + threadIdx.x) * PIXELS_EACH, place = blockIdx.y;
    follow();
    if (p >= pixels) return;
    Gifts gifts;
    if (place < n.slots) {
        Few<float> states[FRAMES_EACH][4];
        Few<element> known[FRAMES_EACH][4];
        [[maybe_unused]] Few<element> unknown[FRAMES_EACH][4];
        [[maybe_unused]] Few<float> before[FRAMES_EACH][4];
#pragma unroll
        for (int f = 0; f < FRAMES_EACH; ++f) {
            int t = min(blockIdx.z * FRAMES_EACH + f, n.frames - 1);
            long long start = ((long long)place * n.frames + t) * 4 * pixels + p;
            const element* row = v + row_of(place, HALVES - 1, HALVES, t, n.batch, n.batched, n.frames) * 4 * pixels + p;
#pragma unroll
            for (int c = 0; c < 4; ++c) read_few(x + start + c * pixels, states[f][c]), read_few(row + c * pixels, known[f][c]);
#if GUIDED
            const element* other = v + row_of(place, 0, HALVES, t, n.batch, n.batched, n.frames) * 4 * pixels + p;
#pragma unroll
            for (int c = 0; c < 4; ++c) read_few(other + c * pixels, unknown[f][c]);
#elif REUSED
#pragma unroll
            for (int c = 0; c < 4; ++c) read_few(difference + start + c * pixels, unknown[f][c]);
#endif
#if FUSE_SAMPLES && SECOND_ORDER
#pragma unroll
            for (int c = 0; c < 4; ++c) read_few(previous + start + c * pixels, before[f][c]);
#endif
        }
#pragma unroll
        for (int f = 0; f < FRAMES_EACH; ++f) {
            int t = min(blockIdx.z * FRAMES_EACH + f, n.frames - 1);
            [[maybe_unused]] long long start = ((long long)place * n.frames + t) * 4 * pixels + p;
#if GUIDED || REUSED
            float scale = guidance[t];
#endif
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                [[maybe_unused]] Few<float> estimate;
                [[maybe_unused]] Few<element> kept;
#pragma unroll
                for (int i = 0; i < PIXELS_EACH; ++i) {
                    float predicted = get(known[f][c].of + i), state = states[f][c].of[i];
                    element* gift = gifts.of[i].channels[f] + c;
#if GUIDED
                    float off = get(unknown[f][c].of + i), apart = predicted - off;
                    predicted = off + scale * apart;
#elif REUSED
                    predicted += (scale - 1.0f) * get(unknown[f][c].of + i);
#endif
                    float denoised = by.c_skip * state + by.c_out * predicted;
#if FUSE_SAMPLES && SECOND_ORDER
                    put(gift, step_to(denoised, state, before[f][c].of[i], by));
                    estimate.of[i] = denoised;
#elif FUSE_SAMPLES
                    put(gift, step_to(denoised, state, 0.0f, by));
#else
                    put(gift, denoised);
#endif
#if KEPT
                    put(kept.of + i, apart);
#endif
                }
#if FUSE_SAMPLES && SECOND_ORDER
                write_few(fused_out + start + c * pixels, estimate);
#endif
#if KEPT
                write_few(difference + start + c * pixels, kept);
#endif
            }
        }
    } else {
        const float* row = still + (long long)places[place] * 4 * pixels + p;
#pragma unroll
        for (int f = 0; f < FRAMES_EACH; ++f) {
            [[maybe_unused]] int t = min(blockIdx.z * FRAMES_EACH + f, n.frames - 1);
            [[maybe_unused]] const float* noise = rest + ((long long)(place - n.slots) * n.frames + t) * 4 * pixels + p;
#pragma unroll
            for (int c = 0; c < 4; ++c)
#pragma unroll
                for (int i = 0; i < PIXELS_EACH; ++i) {
                    element* gift = gifts.of[i].channels[f] + c;
#if FUSE_SAMPLES
                    put(gift, row[c * pixels + i] + by.level * noise[c * pixels + i]);
#else
                    put(gift, row[c * pixels + i]);
#endif
                }
        }
    }
    *(Gifts*)(given + ((long long)blockIdx.z * n.places + place) * pixels + p) = gifts;
}

__device__ __forceinline__ void add(float (*total)[4], float share, const Gift& gift) {
#pragma unroll
    for (int f = 0; f < FRAMES_EACH; ++f)
#pragma unroll
        for (int c = 0; c < 4; ++c) total[f][c] += share * get(gift.channels[f] + c);
}

extern "C" __global__ void __launch_bounds__(THREADS, 7) blend(
    const float* __restrict__ x,         // [slots, T, 4, P], read without FUSE_SAMPLES
    const float* __restrict__ own,       // [slots, P] share of the pixel itself
    const int* __restrict__ taps,        // [ranks, slots, P] place * P + upper left tap, -1 for none
    const float4* __restrict__ shares,   // [ranks, slots, P] of the four taps
    const float* __restrict__ previous,  // [slots, T, 4, P], read with SECOND_ORDER
    const Gift* given,                   // [G, V, P], written while the first blocks wait
    float* __restrict__ x_next,          // [slots, T, 4, P]
    float* __restrict__ fused_out,       // [slots, T, 4, P], written with SECOND_ORDER and without FUSE_SAMPLES
    element* __restrict__ sample,        // [R', T, channels, P]
    const Sizes n, const Scales by) {
    int pixels = n.size * n.size, p = blockIdx.x * THREADS + threadIdx.x, slot = blockIdx.y;
    if (p >= pixels) return;
    int first = ((n.frames - 1) / FRAMES_EACH - blockIdx.z) * FRAMES_EACH;
    long long entry = (long long)slot * pixels + p;
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
    const Gift* group = given + (long long)(first / FRAMES_EACH) * n.places * pixels;
    float total[FRAMES_EACH][4] = {};
    add(total, share, group[entry]);
    for (int r = 1; at >= 0; ++r) {
        const Gift four[4] = {group[at], group[at + 1], group[at + n.size], group[at + n.size + 1]};
        add(total, weights.x, four[0]), add(total, weights.y, four[1]);
        add(total, weights.z, four[2]), add(total, weights.w, four[3]);
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
