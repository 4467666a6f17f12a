// Tiles of matrix products on Hopper: the tensor memory accelerator brings k in panels of 64, a
// warpgroup multiplies from shared memory. C = A B with A (m, k) and B (k, n), as in mma_tile.cuh;
// two consumer warpgroups have 64 rows each, and a warp of a third runs ahead with the copies.
#pragma once

#include <cuda.h>

#include "core/kernels/wgmma.cuh"
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
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [op] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                cudaEnableDefault, &found),
               op);
    if (found != cudaDriverEntryPointSuccess)
      kernel_error("%s: the driver has no cuTensorMapEncodeTiled; it is older than CUDA 12", op);
    return reinterpret_cast<Encode>(function);
  }();
  const int64_t rows = x.rows() / outer, pitch = x.pitch * int64_t(sizeof(T));
  const cuuint64_t sizes[3] = {cuuint64_t(x.cols()), cuuint64_t(rows), cuuint64_t(outer)};
  const cuuint64_t pitches[2] = {cuuint64_t(pitch), cuuint64_t(pitch * rows)};
  const cuuint32_t box[3] = {kPanelColumns, cuuint32_t(box_rows), 1}, steps[3] = {1, 1, 1};
  const auto type = dtype_of<T>() == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  CUtensorMap map;
  if (encode(&map, type, 3, x.data, sizes, pitches, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
    kernel_error("%s: the driver refused a tensor map of %d x %d", op, int(x.rows()),
                 int(x.cols()));
  return map;
}

#ifdef STRATA_WARPGROUP_MMA

__device__ __forceinline__ void init_barrier(uint64_t* b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals)
               : "memory");
}
__device__ __forceinline__ void arrive(uint64_t* b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
// Arrives, and lets the phase wait for `bytes` to be copied.
__device__ __forceinline__ void expect_bytes(uint64_t* b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)),
               "r"(bytes)
               : "memory");
}
// Until the phase of this parity has ended.
__device__ __forceinline__ void wait_phase(uint64_t* b, int parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni over;\nbra.uni again;\nover:\n}" ::"r"(shared_address(b)),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void copy_panel(char* to, const CUtensorMap& map, uint64_t* b,
                                           int column, int row, int outer) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(to)),
      "l"(&map), "r"(shared_address(b)), "r"(column), "r"(row), "r"(outer)
      : "memory");
}

// What one tile multiplies: columns (k) from 0 to depth of rows a_row + [0, 128) of A and b_row +
// of B[b_outer], or, for a side whose lines are columns, rows a_row + [0, depth) of columns a_line
// on. `rows` and `cols` of C exist from the tile's first on.
struct Panels {
  int a_line, a_row, b_line, b_row, b_outer, depth, rows, cols;
};

// A ring of stages in shared memory, and where this thread is in it.
template <class Tile>
struct Ring {
  char* stages;
  uint64_t *full, *empty;
  int stage = 0, parity = 0;

  __device__ __forceinline__ explicit Ring(char* shared) {
    stages = shared + (1024 - shared_address(shared) % 1024) % 1024;
    full = reinterpret_cast<uint64_t*>(stages + Tile::kStages * (Tile::kBytesA + Tile::kBytesB));
    empty = full + Tile::kStages;
  }
  __device__ __forceinline__ void init() {
    for (int s = 0; s < Tile::kStages; ++s) {
      init_barrier(full + s, 1);
      init_barrier(empty + s, kConsumers / kWarp);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __device__ __forceinline__ char* a() const { return stages + stage * Tile::kBytesA; }
  __device__ __forceinline__ char* b() const {
    return stages + Tile::kStages * Tile::kBytesA + stage * Tile::kBytesB;
  }
  __device__ __forceinline__ void next() {
    if (++stage == Tile::kStages) stage = 0, parity ^= 1;
  }
};

// The copies of one tile, by one lane. kColumnsA, kColumnsB: the lines are columns in memory.
template <class Tile, bool kColumnsA, bool kColumnsB>
__device__ __forceinline__ void copy_panels(Ring<Tile>& ring, const CUtensorMap& map_a,
                                            const CUtensorMap& map_b, const Panels& p) {
  for (int k = 0; k < p.depth; k += kPanelColumns) {
    wait_phase(ring.empty + ring.stage, ring.parity ^ 1);
    uint64_t* full = ring.full + ring.stage;
    expect_bytes(full, Tile::kBytesA + Tile::kBytesB);
    if constexpr (kColumnsA) {
#pragma unroll
      for (int i = 0; i < Tile::kHeight / kPanelColumns; ++i)
        copy_panel(ring.a() + i * kPanelBytes, map_a, full, p.a_line + i * kPanelColumns,
                   p.a_row + k, 0);
    } else {
      copy_panel(ring.a(), map_a, full, k, p.a_row, 0);
    }
    if constexpr (kColumnsB) {
#pragma unroll
      for (int i = 0; i < Tile::kWidth / kPanelColumns; ++i)
        copy_panel(ring.b() + i * kPanelBytes, map_b, full, p.b_line + i * kPanelColumns,
                   p.b_row + k, p.b_outer);
    } else {
      copy_panel(ring.b(), map_b, full, k, p.b_row, p.b_outer);
    }
    ring.next();
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
__device__ __forceinline__ void multiply_panels(Ring<Tile>& ring, const Panels& p,
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
    wait_phase(ring.full + ring.stage, ring.parity);
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
      if (last >= 0 && speaks) arrive(ring.empty + last);
      last = ring.stage;
    } else if (speaks) {
      arrive(ring.empty + ring.stage);
    }
    ring.next();
  }
  if constexpr (kTiles > 0) {
    wait_products<0>();
    if (last >= 0 && speaks) arrive(ring.empty + last);
  }
}

#endif

}  // namespace
}  // namespace strata
