// Move bytes and compute nothing: what kernels need at least that read and write as much.
// A thread reads READS octets of 16 bytes and writes WRITES, those of a whole grid apart from each other.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) move(
    const uint4* __restrict__ from,      // [reads]
    uint4* __restrict__ to,              // [writes]
    int reads, int writes, int kept) {   // the last ones written stay in the cache, for the next kernel
    wait();
    follow();
    int first = blockIdx.x * THREADS + threadIdx.x, threads = gridDim.x * THREADS;
    uint4 octets[READS], all = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int k = 0; k < READS; ++k) octets[k] = first + k * threads < reads ? __ldcs(from + first + k * threads) : all;
#pragma unroll
    for (int k = 0; k < READS; ++k)
        all.x ^= octets[k].x, all.y ^= octets[k].y, all.z ^= octets[k].z, all.w ^= octets[k].w;
#pragma unroll
    for (int k = 0; k < WRITES; ++k) {
        int at = first + k * threads;
        if (at < writes - kept)
            __stcs(to + at, all);
        else if (at < writes)
            to[at] = all;
    }
}
