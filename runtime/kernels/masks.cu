// The share of moving pixels in each latent cell of each tile, as tiles.tile_masks:
//
//   share(v, cell) = mean of the mask's bilinear samples at the cell's tile pixels,
//                    and at least 1 / factor^2 if the cell holds the centre of a moving panorama pixel
//
// Whether a cell moves at all hangs on shares above zero, however small: places are computed in double precision.
#include "common.cuh"

// Mark the cells that hold the centre of a moving pixel. Thread: one panorama pixel; threads that meet in a cell write
// the same. Bytes per pixel: 1 read.
extern "C" __global__ void __launch_bounds__(128) mark_moving(
    const uint8* __restrict__ mask,        // [H, W] not zero where the picture may move
    const double* __restrict__ rotations,  // [V, 3, 3] camera to world
    const double* __restrict__ columns,    // [W, 2] sine and cosine of the longitude
    const double* __restrict__ rows,       // [H, 2] sine and cosine of the latitude
    uint8* __restrict__ marks,             // [V, cells, cells], zero before
    int height, int width, int tiles, int size, int factor, double focal, double reach) {
    int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y, cells = size / factor;
    if (column >= width || !mask[(long long)row * width + column]) return;
    double wx = rows[2 * row + 1] * columns[2 * column], wy = -rows[2 * row];
    double wz = rows[2 * row + 1] * columns[2 * column + 1], half = 0.5 * size;
    for (int v = 0; v < tiles; ++v) {
        const double* r = rotations + v * 9;
        double depth = wx * r[2] + wy * r[5] + wz * r[8];
        if (depth < reach) continue;  // beyond the tile's corners
        double scale = focal / depth;
        double x = (wx * r[0] + wy * r[3] + wz * r[6]) * scale, y = (wx * r[1] + wy * r[4] + wz * r[7]) * scale;
        if (fabs(x) > half || fabs(y) > half) continue;
        int i = min((int)floor((x + half) / factor), cells - 1), j = min((int)floor((y + half) / factor), cells - 1);
        marks[((long long)v * cells + max(j, 0)) * cells + max(i, 0)] = 1;
    }
}

// One sample of a row; beyond a pole it lies on the other side.
__device__ __forceinline__ float sample_row(const uint8* __restrict__ mask, int row, double column, int height, int width) {
    if (row < 0 || row >= height) {
        row = row < 0 ? -1 - row : 2 * height - 1 - row;
        column += 0.5 * width;
    }
    double whole = floor(column);
    int left = ((int)whole % width + width) % width, right = left + 1 == width ? 0 : left + 1;
    float first = mask[(long long)row * width + left] != 0, second = mask[(long long)row * width + right] != 0;
    return first + (float)(column - whole) * (second - first);
}

// Thread: one latent cell of one tile. Bytes per cell: the mask's pixels in it, 1 more read, 4 written.
extern "C" __global__ void __launch_bounds__(128) share_moving(
    const uint8* __restrict__ mask,        // [H, W]
    const double* __restrict__ rotations,  // [V, 3, 3]
    const uint8* __restrict__ marks,       // [V, cells, cells]
    float* __restrict__ shares,            // [V, cells, cells]
    int height, int width, int size, int factor, double focal) {
    int cell = blockIdx.x * blockDim.x + threadIdx.x, v = blockIdx.y, cells = size / factor;
    if (cell >= cells * cells) return;
    const double* r = rotations + v * 9;
    const double pi = 3.14159265358979323846;
    float total = 0.0f;
    for (int j = 0; j < factor; ++j) {
        double y = (cell / cells * factor + j + 0.5 - 0.5 * size) / focal;
        for (int i = 0; i < factor; ++i) {
            double x = (cell % cells * factor + i + 0.5 - 0.5 * size) / focal;
            double wx = r[0] * x + r[1] * y + r[2], wy = r[3] * x + r[4] * y + r[5], wz = r[6] * x + r[7] * y + r[8];
            double column = (atan2(wx, wz) + pi) / (2.0 * pi) * width - 0.5;
            double row = (0.5 * pi + atan2(wy, sqrt(wx * wx + wz * wz))) / pi * height - 0.5;
            double upper = floor(row);
            float above = sample_row(mask, (int)upper, column, height, width);
            float below = sample_row(mask, (int)upper + 1, column, height, width);
            total += above + (float)(row - upper) * (below - above);
        }
    }
    float least = 1.0f / (factor * factor);
    long long at = (long long)v * cells * cells + cell;
    shares[at] = fmaxf(total / (factor * factor), marks[at] ? least : 0.0f);
}
