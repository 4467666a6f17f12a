// grouped_linear by warpgroups, for tensors that tensor maps can describe. As many blocks as the
// device holds take the tiles in turn, so that copies for the next tile run while one is stored.
#pragma once

#include "core/ops/cuda/group_tiles.cuh"
#include "core/ops/cuda/wgmma_tile.cuh"
#include "core/ops/grouped_linear.h"

namespace strata {
namespace {

struct WarpgroupArgs {
  const int32_t* offsets;
  int64_t groups, n, depth;  // of a product: C has n columns
  int64_t down, across;      // tiles in a column and in a row of C; down: at most
  Tensor y;                  // C
  bool accumulate, whole;    // whole: eight neighbours of C can be stored at once
};

#ifdef STRATA_WARPGROUP_MMA

// Where this thread's part of a tile lies: rows row() and row() + 8, columns 8 j + 2 (lane % 4).
__device__ __forceinline__ int first_row() {
  return threadIdx.x / kWarp * 16 + threadIdx.x % kWarp / 4;
}

// Stores the tile whose first element is y; rows and cols of it exist. `whole`: eight neighbours
// can be stored at once. The old numbers of eight tiles are under way at once: where they do not
// exist, others are read for them.
template <class T, int kTiles, int kRoom>
requires(is_half<T>) __device__ __forceinline__
    void store_tile(T* y, int64_t pitch, int rows, int cols, bool accumulate, bool whole,
                    float (&sum)[kRoom][4]) {
  const int quad = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = first_row() + 8 * half;
    T* line = y + (r < rows ? r : 0) * pitch;
#pragma unroll
    for (int j = 0; j < kTiles; j += 8) {
      if (whole) {
        uint32_t p[2][4];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int at = 8 * (j + i) < cols ? 8 * (j + i) : 0;
          p[i / 4][i % 4] =
              accumulate ? *reinterpret_cast<const uint32_t*>(line + at + 2 * quad) : 0;
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const float2 old = unpack2<T>(p[i / 4][i % 4]);
          p[i / 4][i % 4] =
              pack2<T>(old.x + sum[j + i][2 * half], old.y + sum[j + i][2 * half + 1]);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {  // a lane of four gets all of one of four tiles
          transpose_quad(p[i]);
          const int c = 8 * (j + 4 * i + quad);
          if (r < rows && c < cols)
            *reinterpret_cast<uint4*>(line + c) = uint4{p[i][0], p[i][1], p[i][2], p[i][3]};
        }
        continue;
      }
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int c = 8 * (j + i) + 2 * quad + e;
          if (r < rows && c < cols)
            put_accum<T, 1>(line + c, {sum[j + i][2 * half + e]}, accumulate);
        }
    }
  }
}

template <class T, int kTiles, int kRoom>
requires(!is_half<T>) __device__ __forceinline__
    void store_tile(T* y, int64_t pitch, int rows, int cols, bool accumulate, bool whole,
                    float (&sum)[kRoom][4]) {
  const int quad = threadIdx.x % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = first_row() + 8 * half;
    if (r >= rows) continue;
    T* line = y + r * pitch + 2 * quad;
#pragma unroll
    for (int j = 0; j < kTiles; j += 8) {
      if (whole && 8 * (j + 8) <= cols) {
        Pack<T, 2> p[8] = {};
        if (accumulate) {
#pragma unroll
          for (int i = 0; i < 8; ++i) p[i] = load_pack<2>(line + 8 * (j + i));
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          p[i][0] += sum[j + i][2 * half], p[i][1] += sum[j + i][2 * half + 1];
          store_pack(line + 8 * (j + i), p[i]);
        }
        continue;
      }
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (8 * (j + i) + 2 * quad + e < cols)
            put(line + 8 * (j + i) + e, sum[j + i][2 * half + e], accumulate);
    }
  }
}

#endif

// How the product reads its operands; C is Y.
//   forward: x (rows, k) W_g (n, k)      dx: dy (rows, k) W_g (k, n)      dweight: dy (k, m) x (k,
//   n)
enum class Product { forward, dx, dweight };

#ifdef STRATA_WARPGROUP_MMA

// Calls f(panels, row and column of C) for the tiles of this block. Tiles that multiply by the same
// columns of a weight follow each other, so that they share it while it is in the cache.
template <class Tile, Product kProduct, class F>
__device__ __forceinline__ void each_tile(const WarpgroupArgs& a, const F& f) {
  const int64_t units = a.down * a.across * (kProduct == Product::dweight ? a.groups : int64_t{1});
  for (int64_t unit = blockIdx.x; unit < units; unit += gridDim.x) {
    if constexpr (kProduct == Product::dweight) {
      const int64_t g = unit / a.across / a.down, m = a.y.shape[1];
      const int m0 = int(unit / a.across % a.down) * Tile::kHeight;
      const int n0 = int(unit % a.across) * Tile::kWidth;
      const int begin = a.offsets[g], depth = a.offsets[g + 1] - begin;
      if (depth == 0 && a.accumulate) continue;
      f(Panels{m0, begin, n0, begin, 0, depth, int(m) - m0, int(a.n) - n0}, g * m + m0, n0);
    } else {
      const RowTile t = find_tile(a.offsets, a.groups, unit / a.across, Tile::kHeight);
      if (!t.found) return;
      const int tiles = (int(t.rows) + Tile::kHeight - 1) / Tile::kHeight;
      const int local = int(t.row0) / Tile::kHeight * int(a.across) + int(unit % a.across);
      const int m0 = local % tiles * Tile::kHeight, n0 = local / tiles * Tile::kWidth;
      const int row = int(t.begin) + m0;
      f(Panels{0, row, n0, kProduct == Product::dx ? 0 : n0, int(t.group), int(a.depth),
               int(t.rows) - m0, int(a.n) - n0},
        row, n0);
    }
  }
}

#endif

template <class T, class Y, class Tile, Product kProduct>
__global__ void __launch_bounds__(Tile::kTileThreads, Tile::kBlocks)
    warpgroup_kernel(const __grid_constant__ CUtensorMap map_a,
                     const __grid_constant__ CUtensorMap map_b, WarpgroupArgs a) {
#ifdef STRATA_WARPGROUP_MMA
  constexpr bool kColumnsA = kProduct == Product::dweight, kColumnsB = kProduct != Product::forward;
  constexpr int kTiles = Tile::kWidth / 8;
  extern __shared__ __align__(128) char shared[];
  TileRing<Tile> ring(shared);
  if (threadIdx.x == 0) ring.init();
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    if constexpr (Tile::kMovesRegisters) give_registers<24>();
    if (threadIdx.x / kWarp == kConsumers / kWarp)
      each_tile<Tile, kProduct>(a, [&](const Panels& p, int64_t, int) {
        if (threadIdx.x % kWarp == 0)
          copy_panels<Tile, kColumnsA, kColumnsB>(ring, map_a, map_b, p);
        __syncwarp();
      });
  } else {
    if constexpr (Tile::kMovesRegisters) take_registers<240>();
    each_tile<Tile, kProduct>(a, [&](const Panels& p, int64_t row, int col) {
      float sum[kTiles][4];
      Y* y = a.y.row<Y>(row) + col;
      if (int(threadIdx.x / 128) * 64 >= p.rows) {
        multiply_panels<T, Tile, kColumnsA, kColumnsB, 0>(ring, p, sum);
      } else if (kTiles == 32 && p.cols <= 128) {
        multiply_panels<T, Tile, kColumnsA, kColumnsB, 16>(ring, p, sum);
        store_tile<Y, 16>(y, a.y.pitch, p.rows, p.cols, a.accumulate, a.whole, sum);
      } else {
        multiply_panels<T, Tile, kColumnsA, kColumnsB, kTiles>(ring, p, sum);
        store_tile<Y, kTiles>(y, a.y.pitch, p.rows, p.cols, a.accumulate, a.whole, sum);
      }
    });
  }
#endif
}

template <class T, class Y, class Tile, Product kProduct>
void run_warpgroups(const char* op, const CUtensorMap& map_a, const CUtensorMap& map_b,
                    const WarpgroupArgs& a, Stream stream) {
  const auto kernel = warpgroup_kernel<T, Y, Tile, kProduct>;
  const int64_t units = a.down * a.across * (kProduct == Product::dweight ? a.groups : int64_t{1});
  if (units == 0) return;
  const int processors = device_attribute(cudaDevAttrMultiProcessorCount, op);
  check_cuda(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kShared), op);
  const int64_t most = int64_t{processors} * Tile::kBlocks;
  kernel<<<unsigned(units < most ? units : most), Tile::kTileThreads, Tile::kShared,
           stream_of(stream)>>>(map_a, map_b, a);
  check_launch(op);
}

// y (+)= x W_g^T, or x W_g
template <class T, class Tile, bool kForward>
void rows_by_warpgroups(const char* op, const Tensor& x, const Tensor& weight,
                        const Tensor& offsets, const Tensor& y, bool accumulate, Stream stream) {
  const int64_t groups = weight.shape[0], n = y.cols();
  const WarpgroupArgs a{offsets.ptr<int32_t>(),
                        groups,
                        n,
                        x.cols(),
                        most_row_tiles(x.rows(), groups, Tile::kHeight),
                        (n + Tile::kWidth - 1) / Tile::kWidth,
                        y,
                        accumulate,
                        n % 8 == 0 && wide_rows<T>(y)};
  if (x.numel() == 0) return;
  run_warpgroups<T, T, Tile, kForward ? Product::forward : Product::dx>(
      op, panel_map<T>(op, x, 1, Tile::kHeight),
      panel_map<T>(op, weight, groups, kForward ? Tile::kWidth : kPanelColumns), a, stream);
}

// dW_g (+)= dy_g^T x_g
template <class T, class Tile>
void weight_gradient_by_warpgroups(const char* op, const GroupedLinearBackwardArgs& b,
                                   Stream stream) {
  const Tensor& dw = b.dweight.grad;
  const int64_t n = dw.cols();
  const WarpgroupArgs a{b.offsets.ptr<int32_t>(),
                        dw.shape[0],
                        n,
                        0,
                        (dw.shape[1] + Tile::kHeight - 1) / Tile::kHeight,
                        (n + Tile::kWidth - 1) / Tile::kWidth,
                        dw,
                        b.dweight.accumulate,
                        n % 8 == 0 && wide_rows<float>(dw)};
  run_warpgroups<T, float, Tile, Product::dweight>(op, panel_map<T>(op, b.dy, 1, kPanelColumns),
                                                   panel_map<T>(op, b.x, 1, kPanelColumns), a,
                                                   stream);
}

}  // namespace
}  // namespace strata
