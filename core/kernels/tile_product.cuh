// Matrix products inside a kernel, for operands that are cheaper to make on the way than to store:
// a block of 256 threads computes one 64 x 64 tile, each thread 4 x 4 of it, in plain fused
// multiply-adds of T.
//
//   T acc[4][4] = {};
//   tile_product<true, false>(acc, depth, [&](int i, int k) { return ...; },   // (64, depth)
//                             [&](int k, int j) { return ...; }, room);        // (depth, 64)
//   ... acc[r][c] belongs to row tile_row() + r, column tile_col() + c
#pragma once

#include "core/kernels/device.cuh"

namespace strata {

constexpr int kTile = 64;
constexpr int kTileThreads = 256;
constexpr int kTileStep = 16;          // columns of the left operand staged at a time
constexpr int kTilePitch = kTile + 4;  // keeps rows 16 bytes aligned and spreads them over banks
constexpr int kTileRoom = 2 * kTileStep * kTilePitch;  // elements of shared memory for staging

#ifdef __CUDACC__

__device__ __forceinline__ int tile_row() { return threadIdx.x / 16 * 4; }
__device__ __forceinline__ int tile_col() { return threadIdx.x % 16 * 4; }

// Four neighbours, moved 16 bytes at a time.
template <class T>
struct alignas(16) Quad {
  T v[4];
};

// Which element of a staged (64, 16) or (16, 64) slab a thread fetches r-th: neighbouring threads
// walk k when kAlongK, else the side of 64.
template <bool kAlongK>
__device__ __forceinline__ int fetch_side(int r) {
  return kAlongK ? threadIdx.x / kTileStep + 16 * r : threadIdx.x % kTile;
}
template <bool kAlongK>
__device__ __forceinline__ int fetch_k(int r) {
  return kAlongK ? threadIdx.x % kTileStep : threadIdx.x / kTile + 4 * r;
}

// acc += a b. a(i, k) and b(k, j) are called for i, j in [0, 64) and k in [0, depth), and return 0
// outside their matrices. kLeftK, kRightK: neighbours in k are neighbours in memory. `room`:
// kTileRoom elements of shared memory, 16 bytes aligned, free again when this returns. What a and b
// read of shared memory must have been synchronised; all threads take part.
template <bool kLeftK, bool kRightK, class T, class A, class B>
__device__ __forceinline__ void tile_product(T (&acc)[4][4], int depth, const A& a, const B& b,
                                             T* room) {
  T *left = room, *right = room + kTileStep * kTilePitch;
  T next_left[4], next_right[4];
  const auto fetch = [&](int k0) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int ka = k0 + fetch_k<kLeftK>(r), kb = k0 + fetch_k<kRightK>(r);
      next_left[r] = ka < depth ? a(fetch_side<kLeftK>(r), ka) : T(0);
      next_right[r] = kb < depth ? b(kb, fetch_side<kRightK>(r)) : T(0);
    }
  };
  const int row = tile_row(), col = tile_col();
  fetch(0);
  for (int k0 = 0; k0 < depth; k0 += kTileStep) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      left[fetch_k<kLeftK>(r) * kTilePitch + fetch_side<kLeftK>(r)] = next_left[r];
      right[fetch_k<kRightK>(r) * kTilePitch + fetch_side<kRightK>(r)] = next_right[r];
    }
    __syncthreads();
    if (k0 + kTileStep < depth) fetch(k0 + kTileStep);  // in flight during the products
#pragma unroll
    for (int k = 0; k < kTileStep; ++k) {
      const Quad<T> x = *reinterpret_cast<const Quad<T>*>(left + k * kTilePitch + row);
      const Quad<T> y = *reinterpret_cast<const Quad<T>*>(right + k * kTilePitch + col);
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) acc[r][c] += x.v[r] * y.v[c];
    }
    __syncthreads();
  }
}

// f(i, j, acc element) for this thread's part of the tile.
template <class T, class F>
__device__ __forceinline__ void each_of_tile(T (&acc)[4][4], const F& f) {
#pragma unroll
  for (int r = 0; r < 4; ++r)
#pragma unroll
    for (int c = 0; c < 4; ++c) f(tile_row() + r, tile_col() + c, acc[r][c]);
}

// The sum over the 16 threads that hold the same rows of a tile, in each of them.
template <class T>
__device__ __forceinline__ T tile_row_sum(T x) {
#pragma unroll
  for (int offset = 8; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

#endif

}  // namespace strata
