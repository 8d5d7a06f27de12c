// Guidance, preconditioning, fusion of tiles, one step of the sampler, and the next input of the engine, in one pass:
//
//   denoised_j = c_skip x_j + c_out (u_j + g_t (v_j - u_j))                    u: unconditional half, g: guidance
//   fused_i(p) = sum_j w_j(q) denoised_j(q) / sum_j w_j(q)                     q = where tile j sees pixel p of tile i
//   target_i   = fused_i + k (fused_i - previous_i)
//   x_i       <- target_i + ratio (x_i - target_i),   sample_i <- c_in x_i
//
// With FUSE_SAMPLES every tile takes its step by its own estimate, and the stepped states are fused instead; a tile that
// is not denoised gives its latent and its part of the noise, still + level rest.
//
// Where guidance is left out, an engine's call holds twice as many tiles and the conditional half alone: v is read in the
// layout of this step, sample is written in that of the next one. With KEPT a guided step keeps its difference v - u, and
// with REUSED a step without the unconditional half takes the one that was kept: v + (g_t - 1) difference.
//
// Thread: one pixel of one denoised tile ("slot"), the frames of one chunk, all four channels. Neighbouring threads are
// neighbouring pixels, so a tile's own values are read and written coalesced; what a neighbour gives comes from the
// cache. Taps and shares are read once for all frames and channels.
// Bytes per element: x 4 + v 2 (+ u 2) read, x 4 + sample 2 (+ 2 guided) written; + 8 for previous and fused with k; + 2 with
// KEPT or REUSED.
#include "common.cuh"

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

struct State {
    const float* __restrict__ x;        // [slots, T, 4, P]
    const element* __restrict__ v;      // [G, HALVES * B, T, 4, P], unconditional half first
    const float* __restrict__ guidance; // [T]
    const float* __restrict__ previous; // [slots, T, 4, P]
    const element* __restrict__ kept;   // [slots, T, 4, P]
    int frames, pixels, batch;
    float c_skip, c_out, ratio, extrapolation;
};

// Row of frame t of a slot, in calls of `batch` tiles and so many halves.
__device__ __forceinline__ long long row_of(int slot, int half, int halves, int t, int batch, int frames) {
    return ((long long)((slot / batch) * halves + half) * batch + slot % batch) * frames + t;
}

// The denoised estimate of a slot, at a place counted from the start of frame t and channel c.
__device__ __forceinline__ float estimate(const State& s, int slot, int t, int c, int place) {
    float v = get(s.v + (row_of(slot, HALVES - 1, HALVES, t, s.batch, s.frames) * 4 + c) * s.pixels + place);
#if GUIDED
    float u = get(s.v + (row_of(slot, 0, HALVES, t, s.batch, s.frames) * 4 + c) * s.pixels + place);
    v = u + s.guidance[t] * (v - u);
#endif
    long long i = (((long long)slot * s.frames + t) * 4 + c) * s.pixels + place;
#if REUSED
    v += (s.guidance[t] - 1.0f) * get(s.kept + i);
#endif
    float x = s.x[i];
    return s.c_skip * x + s.c_out * v;
}

__device__ __forceinline__ float step_to(const State& s, float denoised, long long i) {
    float target = denoised;
#if SECOND_ORDER
    target += s.extrapolation * (target - s.previous[i]);
#endif
    return target + s.ratio * (s.x[i] - target);
}

// What a slot gives to its neighbours.
__device__ __forceinline__ float given(const State& s, int slot, int t, int c, int place) {
    float denoised = estimate(s, slot, t, c, place);
#if FUSE_SAMPLES
    return step_to(s, denoised, (((long long)slot * s.frames + t) * 4 + c) * s.pixels + place);
#else
    return denoised;
#endif
}

extern "C" __global__ void __launch_bounds__(128) blend(
    const float* __restrict__ x,            // [slots, T, 4, P]
    const element* __restrict__ v,          // [G, HALVES * B, T, 4, P]
    const float* __restrict__ guidance,     // [T]
    const int* __restrict__ slot_of,        // [V], -1 - k for the k-th tile that is not denoised
    const float* __restrict__ still,        // [V, 4, P] what such a tile shows in every frame, scaled
    const float* __restrict__ rest,         // [V - slots, T, 4, P] unit noise of such tiles, read with FUSE_SAMPLES
    const float* __restrict__ own,          // [slots, P] share of the pixel itself
    const int* __restrict__ taps,           // [ranks, slots, P] tile * P + upper left tap, -1 for none
    const float4* __restrict__ shares,      // [ranks, slots, P] of the four taps
    const float* __restrict__ previous,     // [slots, T, 4, P], read with SECOND_ORDER
    float* __restrict__ x_next,             // [slots, T, 4, P]
    float* __restrict__ fused_out,          // [slots, T, 4, P], written with SECOND_ORDER
    element* difference,                    // [slots, T, 4, P], read with REUSED, written with KEPT
    element* __restrict__ sample,           // [G', NEXT_HALVES * B', T, channels, P]
    int slots, int frames, int size, int batch, int next_batch, int ranks, int channels, int chunk,
    float c_skip, float c_out, float ratio, float c_in, float extrapolation, float level) {
    int pixels = size * size, p = blockIdx.x * blockDim.x + threadIdx.x, slot = blockIdx.y;
    if (p >= pixels) return;
    State s = {x, v, guidance, previous, difference, frames, pixels, batch, c_skip, c_out, ratio, extrapolation};
    long long entry = (long long)slot * pixels + p, stride = (long long)slots * pixels;
    float mine = own[entry];
    int first = blockIdx.z * chunk, last = min(first + chunk, frames), noisy = channels - 8;
    for (int t = first; t < last; ++t) {
        float denoised[4], total[4];
        long long start = ((long long)slot * frames + t) * 4 * pixels + p;
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            denoised[c] = estimate(s, slot, t, c, p);
#if FUSE_SAMPLES
            total[c] = mine * step_to(s, denoised[c], start + c * (long long)pixels);
#else
            total[c] = mine * denoised[c];
#endif
        }
        for (int r = 0; r < ranks; ++r) {
            int tap = taps[r * stride + entry];
            if (tap < 0) break;
            float4 share = shares[r * stride + entry];
            int tile = tap / pixels, at = tap - tile * pixels, other = slot_of[tile];
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                if (other < 0) {
                    const float* row = still + ((long long)tile * 4 + c) * pixels + at;
                    total[c] += share.x * row[0] + share.y * row[1] + share.z * row[size] + share.w * row[size + 1];
#if FUSE_SAMPLES
                    row = rest + (((long long)(-1 - other) * frames + t) * 4 + c) * pixels + at;
                    total[c] += level * (share.x * row[0] + share.y * row[1] + share.z * row[size]
                                         + share.w * row[size + 1]);
#endif
                } else {
                    total[c] += share.x * given(s, other, t, c, at) + share.y * given(s, other, t, c, at + 1)
                              + share.z * given(s, other, t, c, at + size) + share.w * given(s, other, t, c, at + size + 1);
                }
            }
        }
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            long long i = start + c * (long long)pixels;
#if FUSE_SAMPLES
            float next = total[c], kept = denoised[c];
#else
            float next = step_to(s, total[c], i), kept = total[c];
#endif
#if SECOND_ORDER
            fused_out[i] = kept;
#endif
#if KEPT
            put(difference + i, get(v + (row_of(slot, 1, HALVES, t, batch, frames) * 4 + c) * pixels + p)
                                    - get(v + (row_of(slot, 0, HALVES, t, batch, frames) * 4 + c) * pixels + p));
#endif
            x_next[i] = next;
#pragma unroll
            for (int half = 0; half < NEXT_HALVES; ++half)
                put(sample + (row_of(slot, half, NEXT_HALVES, t, next_batch, frames) * channels + noisy + c) * pixels + p, c_in * next);
        }
    }
}
