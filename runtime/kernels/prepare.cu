// The first input of the engine: mask, noisy latent, image latent, for both guidance halves.
//
//   sample = [mask_t | c_in x | latent]          unconditional half: the latent is 0, the mask is not
//
// Thread: one pixel of one frame of one slot. Bytes per pixel: 16 + 16 (+ 4) read, 2 * channels * HALVES written.
#include "common.cuh"

#if GUIDED
#define HALVES 2
#else
#define HALVES 1
#endif

extern "C" __global__ void __launch_bounds__(128) prepare(
    const float* __restrict__ x,       // [slots, T, 4, P]
    const float* __restrict__ masks,   // [slots, T, P], read with 9 channels
    const float* __restrict__ latents, // [slots, 4, P], unscaled
    element* __restrict__ sample,      // [R, T, channels, P]
    int frames, int pixels, int batch, int batched, int channels, float c_in) {
    int p = blockIdx.x * blockDim.x + threadIdx.x, slot = blockIdx.y, t = blockIdx.z;
    if (p >= pixels) return;
    for (int half = 0; half < HALVES; ++half) {
        element* to = sample + row_of(slot, half, HALVES, t, batch, batched, frames) * channels * pixels + p;
        if (channels == 9) {
            put(to, masks[((long long)slot * frames + t) * pixels + p]);
            to += pixels;
        }
        for (int c = 0; c < 4; ++c) {
            put(to + c * pixels, c_in * x[(((long long)slot * frames + t) * 4 + c) * pixels + p]);
            float known = half == HALVES - 1 ? latents[((long long)slot * 4 + c) * pixels + p] : 0.0f;
            put(to + (4 + c) * pixels, known);
        }
    }
}
