// The scan, forward, on Hopper's matrix unit, for bf16 and f16: ssd_scan_mma_cuda.cuh with chunks
// of Q = 64 tokens and a tile of 64 rows p of S^T (P, N) per warpgroup, in its accumulators. The
// large products have S^T or x^T in registers on the left,
//   y^T = S^T C^T,      S^T <- p_Q S^T + (tail o x)^T B,
// and C and B as they were copied on the right. Rows of a tile may belong to two heads, so what
// depends on the head, W = (C B^T) o M and y^T += x^T W^T, is left to single warps.
#pragma once

#include "core/kernels/tma.cuh"
#include "layers/mamba2/ssd_mma_cuda.cuh"

namespace strata::mamba2 {
namespace {

constexpr int kGroupQ = int(SsdMmaPlan::kGroupChunk);
constexpr int kGroupThreads = int(SsdMmaPlan::kMaxGroupWarps) * kWarp;
constexpr int kGroupWeightPitch = padded_row(kGroupQ);
constexpr int kGroupStages = int(SsdMmaPlan::kGroupStages);
constexpr int kPanelElements = kGroupQ * kPanelColumns;  // a panel of B or C

// x (batch, tokens, columns), in boxes of a chunk of a panel.
inline CUtensorMap chunk_map(const Tensor& x) {
  const int64_t pitch = x.pitch * 2;
  return tensor_map<3>("ssd_scan", x.dtype, x.data, {x.shape[2], x.shape[1], x.shape[0]},
                       {pitch, pitch * x.shape[1]}, {kPanelColumns, kGroupQ, 1},
                       CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
}

struct GroupScan {
  MmaScan scan;
  CUtensorMap x, b, c, y;

  explicit GroupScan(const SsdScanArgs& a)
      : scan(a, true), x(chunk_map(a.x)), b(chunk_map(a.b)), c(chunk_map(a.c)), y(chunk_map(a.y)) {}
};

#ifdef STRATA_WARPGROUP_MMA

// A stage: panels of B, C and x of a chunk. Tokens past the end are zero.
template <class T, int kN>
struct GroupStage {
  T *b, *c, *x;
  __device__ __forceinline__ explicit GroupStage(T* at)
      : b(at), c(at + kGroupQ * kN), x(at + 2 * kGroupQ * kN) {}

  // One thread asks for all of it.
  __device__ __forceinline__ void load(const GroupScan& k, const MmaPlace& at, int chunk,
                                       Barrier& full) const {
    const int panels = (at.count * int(k.scan.plan.dim) + 63) / 64, row = chunk * kGroupQ;
    expect_bytes(full, (panels + 2 * kN / 64) * kPanelElements * 2);
    for (int i = 0; i < kN / 64; ++i) {
      const int column = at.group * kN + i * 64;
      copy_box(b + i * kPanelElements, k.b, full, column, row, at.batch);
      copy_box(c + i * kPanelElements, k.c, full, column, row, at.batch);
    }
    for (int i = 0; i < panels; ++i)
      copy_box(x + i * kPanelElements, k.x, full, at.head * int(k.scan.plan.dim) + i * 64, row,
               at.batch);
  }

  // Stores y, which stands where x was: one thread asks for whole panels, all store the columns
  // that are left, 16 bytes a thread.
  __device__ __forceinline__ void store(const GroupScan& k, const MmaPlace& at, int chunk) const {
    const int width = at.count * int(k.scan.plan.dim), whole = width / 64;
    const int first = at.head * int(k.scan.plan.dim), row = chunk * kGroupQ;
    if (threadIdx.x == 0) {
      for (int i = 0; i < whole; ++i)
        store_box(k.y, x + i * kPanelElements, first + i * 64, row, at.batch);
      commit_boxes();
    }
    const int cells = width % 64 / 8, tokens = int(k.scan.plan.seq_len);
    if (cells == 0) return;
    const Tensor& y = k.scan.args.y;
    for (int e = int(threadIdx.x); e < kGroupQ * cells; e += int(blockDim.x)) {
      const int i = e / cells, cell = e % cells;
      if (row + i < tokens)
        store_pack(
            y.row<T>(at.batch * k.scan.plan.seq_len + row + i) + first + whole * 64 + cell * 8,
            load_pack<8>(x + whole * kPanelElements + panel_cell(i, cell)));
    }
  }
};

// C B^T of a block of 16 by 16 tokens from (i0, j0).
template <class T, int kN>
__device__ __forceinline__ void correlate(float (&acc)[2][4], const T* b, const T* c, int i0,
                                          int j0) {
  const int lane = threadIdx.x % kWarp, turn = lane % 8;
  float sums[2][2][4] = {};  // of even and odd steps: shorter chains
  const uint32_t rows = shared_address(c + (i0 + lane % 16) * 64);
  const uint32_t columns = shared_address(b + (j0 + lane / 16 * 8 + lane % 8) * 64);
#pragma unroll
  for (int s = 0; s < kN / 16; ++s) {
    uint32_t left[4], right[4];
    const int panel = s / 4 * kPanelElements * 2, cell = s % 4 * 2;
    load_matrix(left, rows + panel + ((cell + lane / 16) ^ turn) * 16);
    load_matrix(right, columns + panel + ((cell + lane / 8 % 2) ^ turn) * 16);
    mma<T>(sums[s % 2][0], left, right[0], right[1]);
    mma<T>(sums[s % 2][1], left, right[2], right[3]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int e = 0; e < 4; ++e) acc[half][e] = sums[0][half][e] + sums[1][half][e];
}

// Stores four 8 x 8 tiles, each transposed: the way back of load_matrix_transposed.
__device__ __forceinline__ void store_matrix_transposed(uint32_t address, uint32_t r0, uint32_t r1,
                                                        uint32_t r2, uint32_t r3) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(r0), "r"(r1), "r"(r2), "r"(r3)
      : "memory");
}

#endif

// kStatesOnly: what segments add to the state, without y.
template <class T, int kN, bool kStatesOnly>
__global__ void __launch_bounds__(kGroupThreads, 1)
    scan_wgmma_kernel(const __grid_constant__ GroupScan group) {
#ifdef STRATA_WARPGROUP_MMA
  extern __shared__ __align__(1024) char shared[];
  const MmaScan& k = group.scan;
  const SsdMmaPlan& plan = k.plan;
  const int heads = int(plan.block_heads), stage_elements = int(plan.stage_elements());
  T* const stages = reinterpret_cast<T*>(shared + (1024 - shared_address(shared) % 1024) % 1024);
  T* const w = stages + kGroupStages * stage_elements;
  float* const coefs_room = reinterpret_cast<float*>(w + heads * kGroupQ * kGroupWeightPitch);
  const int stride = heads * kGroupQ;
  Barrier* const full =
      reinterpret_cast<Barrier*>(coefs_room + 2 * int(SsdMmaPlan::kCoefficients) * stride);
  const auto coefs_of = [&](int chunk) {
    return MmaCoefficients<kGroupQ>{
        coefs_room + chunk % 2 * int(SsdMmaPlan::kCoefficients) * stride, stride};
  };
  const MmaPlace at(plan);
  const int lane = threadIdx.x % kWarp, warp = int(threadIdx.x) / kWarp;
  const int warps = int(blockDim.x) / kWarp;
  const int t = lane % 4 * 2, dim = int(plan.dim), n = int(plan.states);
  const int own_head = warp * 16 / dim, row0 = warp * 16 % dim;  // the rows of this warp
  const int rows = own_head < at.count ? 16 : 0, local = min(own_head, at.count - 1);

  const auto stage_of = [&](int chunk) {
    return GroupStage<T, kN>(stages + (chunk - at.first) % kGroupStages * stage_elements);
  };
  const auto load = [&](int chunk) {
    stage_of(chunk).load(group, at, chunk, full[(chunk - at.first) % kGroupStages]);
  };
  if (threadIdx.x == 0) {
    for (int i = 0; i < kGroupStages; ++i) {
      init_barrier(full[i], 1);
      publish_barriers();
    }
    for (int i = at.first; i < min(at.last, at.first + kGroupStages); ++i) load(i);
  }
  // Into the place of the chunk before this one, when nobody needs that any more.
  const auto load_ahead = [&](int chunk) {
    if (threadIdx.x > 0 || chunk == at.first || chunk - 1 + kGroupStages >= at.last) return;
    if (!kStatesOnly) wait_boxes();
    load(chunk - 1 + kGroupStages);
  };

  const int counted = warps - 1 - warp;  // the head whose decays this warp computes
  const bool counts = counted < at.count;
  MmaDecays<T, kGroupQ> decays;
  const auto read = [&](int chunk) {
    if (counts && chunk < at.last) decays.read(k, at.batch, at.head + counted, chunk);
  };
  const auto count = [&](int chunk) {
    if (counts && chunk < at.last)
      decays.write(k, at.head + counted, chunk, coefs_of(chunk), counted);
  };
  read(at.first);
  count(at.first);

  MmaState<kN> state;
  state.clear();
  const int64_t offset = (int64_t(at.head + local) * dim + row0) * n;
  if constexpr (!kStatesOnly) state_of_segment(state, k, at, at.head + local, offset, rows);

  for (int chunk = at.first; chunk < at.last; ++chunk) {
    const GroupStage<T, kN> stage = stage_of(chunk);
    const MmaCoefficients<kGroupQ> coefs = coefs_of(chunk);
    read(chunk + 1);
    publish_shared();
    __syncthreads();
    wait_phase<false>(full[(chunk - at.first) % kGroupStages],
                      (chunk - at.first) / kGroupStages % 2);
    if (kStatesOnly) load_ahead(chunk);
    if (!kStatesOnly && chunk > at.first) stage_of(chunk - 1).store(group, at, chunk - 1);
    count(chunk + 1);
    float y[kGroupQ / 8][4] = {};
    if constexpr (!kStatesOnly) {
      // Blocks (i, j) of the lower triangle in rows: 0, then 1 2, ...
      for (int block = warp; block < 10; block += warps) {
        const int i0 = ((block > 0) + (block > 2) + (block > 5)) * 16;
        const int j0 = block * 16 - i0 * (i0 / 16 + 1) / 2;
        float acc[2][4];
        correlate<T, kN>(acc, stage.b, stage.c, i0, j0);
        add_decays<T>(acc, i0, j0, coefs, k.args.d, at, w, kGroupWeightPitch);
      }
      uint32_t packed[kN / 16][4];
      narrow_tile<T>(packed, state.v);
      pin(y);
      begin_products();
#pragma unroll
      for (int s = 0; s < kN / 16; ++s)
        product<T, false>(
            y, packed[s],
            panel_by_rows(shared_address(stage.c + s / 4 * kPanelElements), s % 4 * 16));
      commit_products();
      __syncthreads();
      load_ahead(chunk);
      wait_products<0>();
      pin(y);
    }

    // x^T serves as it is for y and, scaled, for the states.
    uint32_t x_tile[4][4], x_tail[4][4];
    const uint32_t own = shared_address(
        stage.x + warp / 4 * kPanelElements +
        panel_cell(lane / 16 * 8 + lane % 8, warp % 4 * 2 + lane / 8 % 2));  // 16 rows by 16
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      load_matrix_transposed(x_tile[j], own + j * 16 * 128);
      const float* tail = coefs.tail(local) + j * 16 + t;
      const float2 low = *reinterpret_cast<const float2*>(tail);
      const float2 high = *reinterpret_cast<const float2*>(tail + 8);
      x_tail[j][0] = scaled<T>(x_tile[j][0], low);
      x_tail[j][1] = scaled<T>(x_tile[j][1], low);
      x_tail[j][2] = scaled<T>(x_tile[j][2], high);
      x_tail[j][3] = scaled<T>(x_tile[j][3], high);
    }
    state.scale(coefs.decay(local)[kGroupQ - 1]);
    pin(state.v);
    begin_products();
#pragma unroll
    for (int j = 0; j < 4; ++j)
      product<T, true>(state.v, x_tail[j],
                       panel_by_columns(shared_address(stage.b), j * 16, kPanelElements * 2));
    commit_products();

    if constexpr (!kStatesOnly) {
#pragma unroll
      for (int i = 0; i < kGroupQ / 8; ++i) {
        const float2 decay = *reinterpret_cast<const float2*>(coefs.decay(local) + i * 8 + t);
        y[i][0] *= decay.x, y[i][1] *= decay.y, y[i][2] *= decay.x, y[i][3] *= decay.y;
      }
      const uint32_t weights = shared_address(w + local * kGroupQ * kGroupWeightPitch +
                                              lane_offset_b(kGroupWeightPitch));
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int i = j; i < 4; ++i) {
          uint32_t w_tile[4];
          load_matrix(w_tile, weights + (i * 16 * kGroupWeightPitch + j * 16) * 2);
          mma<T>(y[2 * i], x_tile[j], w_tile[0], w_tile[1]);
          mma<T>(y[2 * i + 1], x_tile[j], w_tile[2], w_tile[3]);
        }
      // y takes the place of x, whose columns no other warp reads, until the next barrier.
      __syncwarp();
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        uint32_t out[4];
#pragma unroll
        for (int e = 0; e < 4; ++e)
          out[e] = pack2<T>(y[2 * j + e / 2][e % 2 * 2], y[2 * j + e / 2][e % 2 * 2 + 1]);
        store_matrix_transposed(own + j * 16 * 128, out[0], out[1], out[2], out[3]);
      }
    }
    wait_products<0>();
    pin(state.v);
  }
  if constexpr (!kStatesOnly) {
    publish_shared();
    __syncthreads();
    stage_of(at.last - 1).store(group, at, at.last - 1);
    if (threadIdx.x == 0) wait_boxes();
  }

  if constexpr (kStatesOnly) {
    keep_segment(state, k, at, offset, rows);
    if (counts && lane == 0)
      k.work
          .decays[(int64_t(at.segment) * plan.batch + at.batch) * plan.heads + at.head + counted] =
          decays.sign * power_of_two(decays.total);
  } else if (at.segment + 1 == plan.segments) {
    if (float* end = k.end(at.batch)) state.store(end + offset, rows, n, k.paired_states);
  }
#endif
}

}  // namespace
}  // namespace strata::mamba2
