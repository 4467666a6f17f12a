// Tiles of matrix products on Hopper: the tensor memory accelerator brings k in panels of 64, a
// warpgroup multiplies from shared memory. C = A B with A (m, k) and B (k, n), as in mma_tile.cuh;
// two consumer warpgroups have 64 rows each, and a warp of a third runs ahead with the copies.
#pragma once

#include "core/kernels/tma.cuh"
#include "core/ops/cuda/elementwise.cuh"

namespace strata {
namespace {

constexpr int kPanelBytes = kPanelColumns * kPanelColumns * 2;
constexpr int kConsumers = 256;  // threads

template <int kWidth_, int kStages_, int kBlocks_>
struct WgmmaTile {
  static constexpr int kHeight = 128, kWidth = kWidth_, kStages = kStages_, kBlocks = kBlocks_;
  // A warpgroup of which one warp copies, so that registers can be shared out; where blocks are
  // small enough without, that warp alone.
  static constexpr bool kMovesRegisters = kBlocks == 1;
  static constexpr int kTileThreads = kConsumers + (kMovesRegisters ? 128 : kWarp);
  static constexpr int kBytesA = kHeight * kPanelColumns * 2, kBytesB = kWidth * kPanelColumns * 2;
  // Barriers, and what the stages need to start on 1024 bytes.
  static constexpr int kShared = kStages * (kBytesA + kBytesB) + 1024 + kStages * 16;
};

// Whether rows of x can be read by tensor maps.
template <class T>
bool mappable(const Tensor& x) {
  return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.pitch * int64_t(sizeof(T)) % 16 == 0;
}

// x as (outer, rows, cols), read in boxes of box_rows rows of a panel; outside it reads zero.
template <class T>
CUtensorMap panel_map(const char* op, const Tensor& x, int64_t outer, int box_rows) {
  const int64_t rows = x.rows() / outer, pitch = x.pitch * int64_t(sizeof(T));
  return tensor_map<3>(op, dtype_of<T>(), x.data, {x.cols(), rows, outer}, {pitch, pitch * rows},
                       {kPanelColumns, box_rows, 1});
}

#ifdef STRATA_WARPGROUP_MMA

// What one tile multiplies: columns (k) from 0 to depth of rows a_row + [0, 128) of A and b_row +
// of B[b_outer], or, for a side whose lines are columns, rows a_row + [0, depth) of columns a_line
// on. `rows` and `cols` of C exist from the tile's first on.
struct Panels {
  int a_line, a_row, b_line, b_row, b_outer, depth, rows, cols;
};

// The stages in shared memory, and where this thread is in them.
template <class Tile>
struct TileRing {
  char* stages;
  Barrier *full, *empty;
  Ring<Tile::kStages> at;

  __device__ __forceinline__ explicit TileRing(char* shared) {
    stages = shared + (1024 - shared_address(shared) % 1024) % 1024;
    full = reinterpret_cast<Barrier*>(stages + Tile::kStages * (Tile::kBytesA + Tile::kBytesB));
    empty = full + Tile::kStages;
  }
  __device__ __forceinline__ void init() {
    for (int s = 0; s < Tile::kStages; ++s) {
      init_barrier(full[s], 1);
      init_barrier(empty[s], kConsumers / kWarp);
    }
    publish_barriers();
  }
  __device__ __forceinline__ char* a() const { return stages + at.stage * Tile::kBytesA; }
  __device__ __forceinline__ char* b() const {
    return stages + Tile::kStages * Tile::kBytesA + at.stage * Tile::kBytesB;
  }
};

// The copies of one tile, by one lane. kColumnsA, kColumnsB: the lines are columns in memory.
template <class Tile, bool kColumnsA, bool kColumnsB>
__device__ __forceinline__ void copy_panels(TileRing<Tile>& ring, const CUtensorMap& map_a,
                                            const CUtensorMap& map_b, const Panels& p) {
  for (int k = 0; k < p.depth; k += kPanelColumns) {
    wait_phase(ring.empty[ring.at.stage], ring.at.parity ^ 1);
    Barrier& full = ring.full[ring.at.stage];
    expect_bytes(full, Tile::kBytesA + Tile::kBytesB);
    if constexpr (kColumnsA) {
#pragma unroll
      for (int i = 0; i < Tile::kHeight / kPanelColumns; ++i)
        copy_box(ring.a() + i * kPanelBytes, map_a, full, p.a_line + i * kPanelColumns, p.a_row + k,
                 0);
    } else {
      copy_box(ring.a(), map_a, full, k, p.a_row, 0);
    }
    if constexpr (kColumnsB) {
#pragma unroll
      for (int i = 0; i < Tile::kWidth / kPanelColumns; ++i)
        copy_box(ring.b() + i * kPanelBytes, map_b, full, p.b_line + i * kPanelColumns, p.b_row + k,
                 p.b_outer);
    } else {
      copy_box(ring.b(), map_b, full, k, p.b_row, p.b_outer);
    }
    ring.at.next();
  }
}

// The rows of k past the end of A's panel of this warpgroup become zero: its neighbours' numbers
// lie there.
__device__ __forceinline__ void clear_rows(char* panel, int from) {
  const int thread = threadIdx.x % 128, group = threadIdx.x / 128;
  for (int i = from * 8 + thread; i < kPanelColumns * 8; i += 128)
    *reinterpret_cast<uint4*>(panel + i * 16) = uint4{};
  publish_shared();
  sync_some(1 + group, 128);
}

// sum (64, 8 kTiles) of this warpgroup; kTiles 0: it has no part of this tile.
template <class T, class Tile, bool kColumnsA, bool kColumnsB, int kTiles, int kRoom>
__device__ __forceinline__ void multiply_panels(TileRing<Tile>& ring, const Panels& p,
                                                float (&sum)[kRoom][4]) {
  const int group = threadIdx.x / 128;
  if constexpr (kTiles > 0) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[j][e] = 0;
  }
  const bool speaks = threadIdx.x % kWarp == 0;
  int last = -1;  // the stage that the last products read
#pragma unroll 1
  for (int k = 0; k < p.depth; k += kPanelColumns) {
    wait_phase(ring.full[ring.at.stage], ring.at.parity);
    if constexpr (kTiles > 0) {
      char* a = ring.a() + group * kPanelBytes;
      if (kColumnsA && p.depth - k < kPanelColumns) clear_rows(a, p.depth - k);
      const uint32_t at_a = shared_address(a), at_b = shared_address(ring.b());
      begin_products();
#pragma unroll
      for (int i = 0; i < kPanelColumns; i += 16) {
        const uint64_t name_a =
            kColumnsA ? panel_by_columns(at_a, i, kPanelBytes) : panel_by_rows(at_a, i);
        const uint64_t name_b =
            kColumnsB ? panel_by_columns(at_b, i, kPanelBytes) : panel_by_rows(at_b, i);
        shared_product<T, kColumnsA, kColumnsB, kTiles>(sum, name_a, name_b);
      }
      commit_products();
      wait_products<1>();
      if (last >= 0 && speaks) arrive(ring.empty[last]);
      last = ring.at.stage;
    } else if (speaks) {
      arrive(ring.empty[ring.at.stage]);
    }
    ring.at.next();
  }
  if constexpr (kTiles > 0) {
    wait_products<0>();
    if (last >= 0 && speaks) arrive(ring.empty[last]);
  }
}

#endif

}  // namespace
}  // namespace strata
