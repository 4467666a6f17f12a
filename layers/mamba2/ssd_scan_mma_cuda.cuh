// The scan, forward, on the warp's matrix unit, for bf16 and f16: one kernel that walks the chunks
// of a sequence in order and keeps the states in registers. With Q = 32 tokens in a chunk, P =
// head_dim, N = d_state (ssd_chunk_cpu.h has the algebra):
//   y = p o (C S) + ((C B^T) o M) x + D x,      S <- p_Q S + B^T (tail o x).
// A warp owns 16 rows p of S^T (P, N) per tile, so it computes the same columns of y: its float32
// accumulators of S^T, narrowed, are the right operand of C S as they lie, and S never leaves it.
// x, B and C of the next chunk are copied while this one is worked on; C B^T is computed once for
// the heads of a block and decayed on its way to shared memory.
#pragma once

#include "layers/mamba2/ssd_mma_cuda.cuh"

namespace strata::mamba2 {
namespace {

constexpr int kMmaChunk = int(SsdMmaPlan::kChunk);
constexpr int kMmaThreads = int(SsdMmaPlan::kMaxWarps) * kWarp;
constexpr int kWeightPitch = padded_row(kMmaChunk);

// Copies x, B and C of a chunk into a stage, a warp per token; tokens past the end become zero.
template <class T>
__device__ __forceinline__ void copy_chunk(const MmaScan& k, const MmaPlace& at, int chunk, T* x,
                                           T* b, T* c, int x_pitch, int bc_pitch) {
  const SsdMmaPlan& p = k.plan;
  const int lane = threadIdx.x % kWarp, dim = int(p.dim), n = int(p.states);
  const int width = min(dim - at.dim0, int(p.tiles) * 16), padded = int(p.tiles) * 16;
  for (int i = int(threadIdx.x) / kWarp; i < kMmaChunk; i += int(blockDim.x) / kWarp) {
    const int64_t t = int64_t(chunk) * kMmaChunk + i;
    const bool within = t < p.seq_len;
    const int64_t row = at.batch * p.seq_len + (within ? t : 0);
    const T* x_row = k.args.x.row<T>(row) + int64_t(at.head) * dim + at.dim0;
    const T* b_row = k.args.b.row<T>(row) + at.group * n;
    const T* c_row = k.args.c.row<T>(row) + at.group * n;
    if (k.packed_in) {
      const int bytes = within ? 16 : 0;
      if (width == padded && width == dim) {
        for (int e = lane * 8; e < at.count * dim; e += kWarp * 8)
          copy_async(x + i * x_pitch + e, x_row + e, bytes);
      } else {
        for (int h = 0; h < at.count; ++h)
          for (int e = lane * 8; e < width; e += kWarp * 8)
            copy_async(x + i * x_pitch + h * padded + e, x_row + h * dim + e, bytes);
      }
      for (int e = lane * 8; e < 2 * n; e += kWarp * 8) {
        const bool second = e >= n;
        const int column = second ? e - n : e;
        copy_async((second ? c : b) + i * bc_pitch + column, (second ? c_row : b_row) + column,
                   bytes);
      }
    } else {
      const T zero = narrow_to<T>(0.f);
      for (int h = 0; h < at.count; ++h)
        for (int e = lane; e < width; e += kWarp)
          x[i * x_pitch + h * padded + e] = within ? x_row[h * dim + e] : zero;
      for (int e = lane; e < n; e += kWarp) {
        b[i * bc_pitch + e] = within ? b_row[e] : zero;
        c[i * bc_pitch + e] = within ? c_row[e] : zero;
      }
    }
  }
  commit_copies();
}

// W = (C B^T) o M + D for every head of the block: a warp per block of 16 by 16 of the lower
// triangle.
template <class T, int kN>
__device__ __forceinline__ void weights(const T* b, const T* c,
                                        const MmaCoefficients<kMmaChunk>& coefs,
                                        const Tensor& skips, const MmaPlace& at, T* w) {
  constexpr int kPitch = padded_row(kN);
  const int warps = int(blockDim.x) / kWarp;
  for (int block = int(threadIdx.x) / kWarp; block < 3; block += warps) {
    const int i0 = block > 0 ? 16 : 0, j0 = block > 1 ? 16 : 0;
    const uint32_t rows = shared_address(c + i0 * kPitch + lane_offset(kPitch));
    const uint32_t columns = shared_address(b + j0 * kPitch + lane_offset_b(kPitch));
    float acc[2][4] = {};
#pragma unroll
    for (int s = 0; s < kN; s += 16) {
      uint32_t left[4], right[4];
      load_matrix(left, rows + s * 2);
      load_matrix(right, columns + s * 2);
      mma<T>(acc[0], left, right[0], right[1]);
      mma<T>(acc[1], left, right[2], right[3]);
    }
    add_decays<T>(acc, i0, j0, coefs, skips, at, w, kWeightPitch);
  }
}

// y of a tile takes the place of its x, whose columns no other warp reads, and leaves in rows.
template <class T>
__device__ __forceinline__ void store_tile(const MmaScan& k, const MmaPlace& at, int chunk,
                                           const float (&y)[2][2][4], T* own, int pitch, int column,
                                           int rows) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4 * 2;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        *reinterpret_cast<uint32_t*>(own + (m * 16 + e * 8 + g) * pitch + half * 8 + t) =
            pack2<T>(y[m][half][2 * e], y[m][half][2 * e + 1]);
  __syncwarp();
  const int64_t to = at.batch * k.plan.seq_len + int64_t(chunk) * kMmaChunk;
  const int tokens = min(kMmaChunk, int(k.plan.seq_len) - chunk * kMmaChunk);
  T* row = k.args.y.row<T>(to) + column;
  const int y_pitch = int(k.args.y.pitch);
  if (k.packed_out) {
    const int p = lane % 2 * 8;
#pragma unroll
    for (int i = lane / 2; i < kMmaChunk; i += kWarp / 2)
      if (i < tokens && p < rows)
        store_pack(row + int64_t(i) * y_pitch + p, load_pack<8>(own + i * pitch + p));
  } else {
    for (int e = lane; e < tokens * 16; e += kWarp)
      if (e % 16 < rows) row[int64_t(e / 16) * y_pitch + e % 16] = own[e / 16 * pitch + e % 16];
  }
}

// kTiles: of a warp. kStatesOnly: what segments add to the state, without y.
template <class T, int kN, int kTiles, bool kStatesOnly>
__global__ void __launch_bounds__(kMmaThreads, 1)
    scan_mma_kernel(const __grid_constant__ MmaScan k) {
  extern __shared__ __align__(16) char shared[];
  constexpr int kPitch = padded_row(kN);
  const SsdMmaPlan& plan = k.plan;
  const int heads = int(plan.block_heads), x_pitch = int(plan.x_pitch());
  const int stage_elements = int(plan.stage_elements());
  T* const stages = reinterpret_cast<T*>(shared);
  T* const w = stages + 2 * stage_elements;
  float* const coefs_room = reinterpret_cast<float*>(w + heads * kMmaChunk * kWeightPitch);
  const auto stage_b = [&](int chunk) { return stages + chunk % 2 * stage_elements; };
  const auto coefs_of = [&](int chunk) {
    const int stride = heads * kMmaChunk;
    return MmaCoefficients<kMmaChunk>{
        coefs_room + chunk % 2 * int(SsdMmaPlan::kCoefficients) * stride, stride};
  };

  const MmaPlace at(plan);
  const int lane = threadIdx.x % kWarp, warp = int(threadIdx.x) / kWarp;
  const int g = lane / 4, t = lane % 4 * 2, dim = int(plan.dim), n = int(plan.states);
  int local[kTiles], rows[kTiles], row0[kTiles];  // head in the block; rows of it, from row0
#pragma unroll
  for (int r = 0; r < kTiles; ++r) {
    const int tile = warp * kTiles + r, head = tile / int(plan.tiles);
    row0[r] = at.dim0 + tile % int(plan.tiles) * 16;
    rows[r] = head < at.count ? max(0, min(16, dim - row0[r])) : 0;
    local[r] = min(head, at.count - 1);
  }

  for (int i = int(threadIdx.x); i < stage_elements / 4; i += int(blockDim.x))
    reinterpret_cast<uint4*>(shared)[i] = {0, 0, 0, 0};
  __syncthreads();
  const auto copy = [&](int chunk) {
    T *b = stage_b(chunk), *c = b + kMmaChunk * kPitch;
    copy_chunk<T>(k, at, chunk, c + kMmaChunk * kPitch, b, c, x_pitch, kPitch);
  };
  copy(at.first);

  const int counted =
      int(blockDim.x) / kWarp - 1 - warp;  // the head whose decays this warp computes
  const bool counts = counted < at.count;
  MmaDecays<T, kMmaChunk> decays;
  const auto read = [&](int chunk) {
    if (counts && chunk < at.last) decays.read(k, at.batch, at.head + counted, chunk);
  };
  const auto count = [&](int chunk) {
    if (counts && chunk < at.last)
      decays.write(k, at.head + counted, chunk, coefs_of(chunk), counted);
  };
  read(at.first);
  count(at.first);

  MmaState<kN> state[kTiles];
  int64_t offset[kTiles];  // of a tile in the states of a sequence
#pragma unroll
  for (int r = 0; r < kTiles; ++r) {
    state[r].clear();
    offset[r] = (int64_t(at.head + local[r]) * dim + row0[r]) * n;
    if constexpr (!kStatesOnly)
      state_of_segment(state[r], k, at, at.head + local[r], offset[r], rows[r]);
  }

  for (int chunk = at.first; chunk < at.last; ++chunk) {
    const T* b = stage_b(chunk);
    const T* c = b + kMmaChunk * kPitch;
    T* x = stage_b(chunk) + 2 * kMmaChunk * kPitch;
    const MmaCoefficients<kMmaChunk> coefs = coefs_of(chunk);
    read(chunk + 1);
    wait_copies<0>();
    __syncthreads();
    if (chunk + 1 < at.last) copy(chunk + 1);
    count(chunk + 1);

    float y[kTiles][2][2][4] = {};  // (tile, half of the tokens, half of the rows)
    if constexpr (!kStatesOnly) {
      weights<T, kN>(b, c, coefs, k.args.d, at, w);
      const uint32_t left = shared_address(c + lane_offset(kPitch));
#pragma unroll
      for (int s = 0; s < kN / 16; ++s) {
        uint32_t c_tile[2][4];
        load_matrix(c_tile[0], left + s * 32);
        load_matrix(c_tile[1], left + s * 32 + 16 * kPitch * 2);
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
          const float(&v)[kN / 8][4] = state[r].v;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const uint32_t s0 = pack2<T>(v[2 * s][2 * half], v[2 * s][2 * half + 1]);
            const uint32_t s1 = pack2<T>(v[2 * s + 1][2 * half], v[2 * s + 1][2 * half + 1]);
            mma<T>(y[r][0][half], c_tile[0], s0, s1);
            mma<T>(y[r][1][half], c_tile[1], s0, s1);
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kTiles; ++r)
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const float* decay = coefs.decay(local[r]) + m * 16 + g;
          const float low = decay[0], high = decay[8];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            y[r][m][half][0] *= low, y[r][m][half][1] *= low;
            y[r][m][half][2] *= high, y[r][m][half][3] *= high;
          }
        }
      __syncthreads();
    }

    // Tiles of x serve W x as they are and, with rows and columns exchanged, the states.
    uint32_t x_tail[kTiles][2][4];
#pragma unroll
    for (int r = 0; r < kTiles; ++r) {
      const int column = (warp * kTiles + r) * 16;
      const uint32_t right = shared_address(x + column + lane_offset(x_pitch));
      const uint32_t left =
          shared_address(w + local[r] * kMmaChunk * kWeightPitch + lane_offset(kWeightPitch));
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        uint32_t x_tile[4];
        load_matrix_transposed(x_tile, right + j * 16 * x_pitch * 2);
        if constexpr (!kStatesOnly) {
#pragma unroll
          for (int m = j; m < 2; ++m) {
            uint32_t w_tile[4];
            load_matrix(w_tile, left + (m * 16 * kWeightPitch + j * 16) * 2);
            mma<T>(y[r][m][0], w_tile, x_tile[0], x_tile[1]);
            mma<T>(y[r][m][1], w_tile, x_tile[2], x_tile[3]);
          }
        }
        const float* tail = coefs.tail(local[r]) + j * 16 + t;
        const float2 low = *reinterpret_cast<const float2*>(tail);
        const float2 high = *reinterpret_cast<const float2*>(tail + 8);
        x_tail[r][j][0] = scaled<T>(x_tile[0], low);
        x_tail[r][j][1] = scaled<T>(x_tile[2], low);
        x_tail[r][j][2] = scaled<T>(x_tile[1], high);
        x_tail[r][j][3] = scaled<T>(x_tile[3], high);
      }
      if constexpr (!kStatesOnly)
        store_tile<T>(k, at, chunk, y[r], x + column, x_pitch, (at.head + local[r]) * dim + row0[r],
                      rows[r]);
    }

#pragma unroll
    for (int r = 0; r < kTiles; ++r) state[r].scale(coefs.decay(local[r])[kMmaChunk - 1]);
    const uint32_t right = shared_address(b + lane_offset(kPitch));
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int s = 0; s < kN / 16; ++s) {
        uint32_t b_tile[4];
        load_matrix_transposed(b_tile, right + (j * 16 * kPitch + s * 16) * 2);
#pragma unroll
        for (int r = 0; r < kTiles; ++r) {
          mma<T>(state[r].v[2 * s], x_tail[r][j], b_tile[0], b_tile[1]);
          mma<T>(state[r].v[2 * s + 1], x_tail[r][j], b_tile[2], b_tile[3]);
        }
      }
  }

  if constexpr (kStatesOnly) {
#pragma unroll
    for (int r = 0; r < kTiles; ++r) keep_segment(state[r], k, at, offset[r], rows[r]);
    if (counts && lane == 0)
      k.work
          .decays[(int64_t(at.segment) * plan.batch + at.batch) * plan.heads + at.head + counted] =
          decays.sign * power_of_two(decays.total);
  } else {
    float* end = at.segment + 1 == plan.segments ? k.end(at.batch) : nullptr;
    if (!end) return;
#pragma unroll
    for (int r = 0; r < kTiles; ++r) state[r].store(end + offset[r], rows[r], n, k.paired_states);
  }
}

}  // namespace
}  // namespace strata::mamba2
