// Reductions over rows and columns in a fixed order.
#pragma once

#include "core/kernels/device.cuh"

namespace strata {
namespace {

// A row belongs to the threads of equal threadIdx.y: one warp of a block of (32, 8) when rows are
// short, else a block of (n, 1). `room` holds a T per warp.
inline dim3 row_threads(int64_t cols) {
  if (cols <= 1024) return dim3(kWarp, kThreads / kWarp);
  return dim3(cols <= 8192 ? 256 : 1024);
}
inline int row_grid(int64_t rows, dim3 block) { return blocks_for(rows, int(block.y)); }

template <class T>
__device__ __forceinline__ T row_sum(T x, T* room) {
  return blockDim.x == kWarp ? warp_sum(x) : block_sum(x, room);
}
template <class T>
__device__ __forceinline__ T row_max(T x, T* room) {
  return blockDim.x == kWarp ? warp_max(x) : block_max(x, room);
}

// A sum over rows: `lanes` neighbouring threads take neighbouring columns, the others of the block
// take every (blockDim.x / lanes)-th row, and their sums are added in order.
constexpr int kSumThreads = 512;

inline int sum_lanes(int64_t cols) {
  int lanes = 32;
  while (lanes > 1 && lanes / 2 >= cols) lanes /= 2;
  // At least a sector of 32 bytes; more blocks where there are few columns.
  while (lanes > 8 && cols / lanes < 128) lanes /= 2;
  return lanes;
}

// The sum of f(r) over r = first, first + step, ... < end; valid in the threads of the first row of
// lanes. f is for this thread's column; `inside`: that column exists.
template <class T, class F>
__device__ __forceinline__ T sum_over_rows(int64_t first, int64_t end, int64_t step, int lanes,
                                           bool inside, T* room, const F& f) {
  const int lane = threadIdx.x % lanes, part = threadIdx.x / lanes, parts = blockDim.x / lanes;
  T sum = 0;
  if (inside) {
#pragma unroll 8
    for (int64_t r = first + part * step; r < end; r += parts * step) sum += f(r);
  }
  room[threadIdx.x] = sum;
  // A tree over the parts, which are a power of two.
  for (int half = parts / 2; half > 0; half /= 2) {
    __syncthreads();
    if (part < half) room[threadIdx.x] += room[threadIdx.x + half * lanes];
  }
  __syncthreads();
  sum = room[lane];
  __syncthreads();
  return sum;
}

}  // namespace
}  // namespace strata
