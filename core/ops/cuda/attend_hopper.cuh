// What attention uses of compute capability 9.0 (Hopper): tiles that the tensor memory accelerator
// copies (core/kernels/tma.cuh) and products of a warpgroup (core/kernels/wgmma.cuh). In shared
// memory a tile of (rows, D) two-byte numbers is D / 64 panels of (rows, 64).
#pragma once

#include "core/kernels/tma.cuh"
#include "core/ops/cuda/attend_mma.cuh"

namespace strata {
namespace {

constexpr int kBoxRows = int(kPageTokens);  // rows of a copy
constexpr int kGroupThreads = 128;          // of a warpgroup

// Of the current device.
inline int multiprocessors() {
  int device = 0, count = 0;
  check_cuda(cudaGetDevice(&device), "attend");
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "attend");
  return count;
}

// x as (outer, rows, heads, dim) with `pitch` bytes from row to row, read in boxes of 64 rows of a
// panel of one head.
template <class T>
CUtensorMap tile_map(const void* x, int64_t outer, int64_t outer_pitch, int64_t rows, int64_t pitch,
                     int64_t heads, int64_t dim) {
  return tensor_map<4>("attend", dtype_of<T>(), x, {dim, heads, rows, outer},
                       {dim * 2, pitch, outer_pitch}, {kPanelColumns, 1, kBoxRows, 1});
}
// Of a (batch, rows, heads * dim) tensor and of pages.
template <class T>
CUtensorMap tile_map(const Tensor& x, int64_t heads) {
  const int64_t pitch = x.pitch * int64_t(sizeof(T));
  return tile_map<T>(x.data, x.shape[0], pitch * x.shape[1], x.shape[1], pitch, heads,
                     x.cols() / heads);
}
template <class T>
CUtensorMap tile_map(const PagesRef& x, int64_t heads, int64_t dim) {
  const int64_t any = int64_t{1} << 31;  // pages: the table names only those that exist
  return tile_map<T>(x.base, any, x.page_bytes, kPageTokens, x.token_bytes, heads, dim);
}

#ifdef STRATA_WARPGROUP_MMA

// 64 rows from `row` on into rows [at, at + 64) of a tile of (kRows, D).
template <int kRows, int D, class T>
__device__ __forceinline__ void copy_box_rows(T* tile, int at, const CUtensorMap& map, Barrier& b,
                                              int head, int row, int outer) {
#pragma unroll
  for (int panel = 0; panel < D / kPanelColumns; ++panel)
    copy_box(tile + panel * kRows * kPanelColumns + at * kPanelColumns, map, b,
             panel * kPanelColumns, head, row, outer);
}
// s = x z^T for 64 rows of a tile x (kRows, D), from its row 0 at `x`, and all rows of z (8 N, D).
template <class T, int D, int kRows, int N>
__device__ __forceinline__ void multiply_tiles(float (&s)[N][4], const T* x, const T* z) {
  const uint64_t xs = panel_by_rows(shared_address(x), 0);
  const uint64_t zs = panel_by_rows(shared_address(z), 0);
#pragma unroll
  for (int k = 0; k < D / 16; ++k) {
    constexpr int kSteps = kPanelColumns / 16;
    const int xk = k / kSteps * (kRows * 128 >> 4) + k % kSteps * 2;
    const int zk = k / kSteps * (N * 8 * 128 >> 4) + k % kSteps * 2;
    shared_product<T, false, false, N>(s, xs + xk, zs + zk, k > 0);
  }
}
// o = (more: +=) w z for weights w (64, kRows) in registers and a tile z (kRows, D).
template <class T, int kRows, int C>
__device__ __forceinline__ void add_tile(float (&o)[C][4], const uint32_t (&w)[kRows / 16][4],
                                         const T* z, bool more) {
  const uint64_t zs = panel_by_columns(shared_address(z), 0, kRows * 128);
#pragma unroll
  for (int k = 0; k < kRows / 16; ++k) product<T, true>(o, w[k], zs + k * 128, more || k > 0);
}

#endif

}  // namespace
}  // namespace strata
