// The products of one head in one chunk, each the work of one warp. Eight warps: (r, half) has
// tokens 16 r to 16 r + 15 and half the columns. ssd_backward_chunk_cuda.cuh has the algebra.
#pragma once

#include <type_traits>

#include "layers/mamba2/ssd_backward_cuda.cuh"

namespace strata::mamba2 {
namespace {

constexpr int kChunkThreads = 256;  // warp (r, half): tokens 16 r to 16 r + 15, half the columns

// The 16 x 16 blocks (r, block) of a transposed lower triangle: rows 16 r, columns 16 block, r <=
// block. Stored blocks of bf16 are four 8 x 8 tiles of 128 bytes, the upper left one first, then
// that below.
constexpr int kBlocks = 10;
__device__ __forceinline__ int block_place(int r, int block) {
  return (block + r * (7 - r) / 2) * 256;
}

// A block's tokens and heads; blockIdx.x: (batch, chunk, group, slice). It lies in shared memory,
// as registers are short.
struct ChunkPlace {
  int64_t row0, pair0, group, slice;  // pair0: of head 0
  int tokens, first, end;             // heads first to end - 1

  __device__ __forceinline__ void set(const Back& k) {
    const int64_t block = blockIdx.x, place = block / k.s.slices;
    slice = block % k.s.slices, group = place % k.s.groups;
    const int64_t chunk = place / k.s.groups % k.s.chunks, batch = place / k.s.groups / k.s.chunks;
    row0 = batch * k.s.seq_len + chunk * kQ, pair0 = k.pair(batch, chunk, 0);
    tokens = k.tokens(chunk);
    first = int(group * k.s.heads_per_group + slice * k.s.slice_heads);
    end = min(first + int(k.s.slice_heads), int((group + 1) * k.s.heads_per_group));
  }
};

template <int P, int N>
struct ChunkShared {
  alignas(16) bf16 x[kQ * padded_row(P)], dy[kQ * padded_row(P)];
  bf16 states[2][P * N];                 // S and dS, as tile_offset says
  bf16 b[kQ * N], c[kQ * N];             // 8 x 8 tiles, (Q / 8, N / 8) of them
  bf16 w[kBlocks * 256];                 // W^T, at last dG^T: blocks as block_place says
  float dg[kBlocks * 256];               // dG^T: of a block, tile and lane four accumulator entries
  float decay[2][kQ], dt[2][kQ];         // of this head and the next
  float rows[4][kQ];                     // sums of T over the rows j of a warp, for each i
  float columns[2][kQ];                  // sums of T / dt over i > j, of the two halves, for each j
  float diagonal[kQ], skip[4];           // T_jj / dt_j; sums of dW_jj = x_j . dy_j over 16 tokens
  float z[2][kQ], v[2][kQ];              // tail / dt o (x . Z); p o (V . C), of the two halves
  float through[kChunkThreads / kWarp];  // dS . S
  ChunkPlace place;
};

// Where a lane's accumulator entries are: rows j of the warp's 16 tokens and columns of a tile.
struct Warp {
  int lane, r, half, row, column;  // rows `row` and `row` + 8; columns `column` and `column` + 1
  __device__ __forceinline__ explicit Warp(int warp) {
    lane = threadIdx.x % kWarp, r = warp / 2, half = warp % 2;
    row = 16 * r + lane / 4, column = lane % 4 * 2;
  }
};

// Waits for the other warp of rows 16 r on, which has made the other half of their W^T.
__device__ __forceinline__ void wait_for_rows(int r) {
  asm volatile("bar.sync %0, %1;" ::"r"(1 + r), "n"(2 * kWarp) : "memory");
}

// v[m][u][e]: this lane's value for column 16 (half + 2 m) + 8 u + column + e. Sums over the eight
// lanes that share a column, each of which keeps one of the columns.
__device__ __forceinline__ void sum_rows(const Warp& at, float (&v)[2][2][2], float* to) {
  const bool m = at.lane & 16, u = at.lane & 8, e = at.lane & 4;
  float a[2][2], b[2];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float keep = m ? v[1][i / 2][i % 2] : v[0][i / 2][i % 2];
    const float give = m ? v[0][i / 2][i % 2] : v[1][i / 2][i % 2];
    a[i / 2][i % 2] = keep + __shfl_xor_sync(kAllLanes, give, 16);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float keep = u ? a[1][i] : a[0][i], give = u ? a[0][i] : a[1][i];
    b[i] = keep + __shfl_xor_sync(kAllLanes, give, 8);
  }
  const float sum = (e ? b[1] : b[0]) + __shfl_xor_sync(kAllLanes, e ? b[0] : b[1], 4);
  to[16 * (at.half + 2 * m) + 8 * u + at.column + e] = sum;
}

// dW^T of the warp's rows, and from it W^T, dG^T and the sums of T.
template <int P, int N>
__device__ __forceinline__ void decay_part(int warp, ChunkShared<P, N>& l, int parity,
                                           const uint32_t (&g)[2][2][2]) {
  const Warp at(warp);
  const uint32_t x = shared_address(l.x + 16 * at.r * padded_row(P) + lane_offset(padded_row(P)));
  const uint32_t dy = shared_address(l.dy + lane_offset_b(padded_row(P)));
  const float* decay = l.decay[parity];
  const float decay_j[2] = {decay[at.row], decay[at.row + 8]};
  const float dt_j[2] = {l.dt[parity][at.row], l.dt[parity][at.row + 8]};
  float over_j[2][2][2] = {}, over_i[2] = {}, skip = 0;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    const int block = at.half + 2 * m;
    if (block < at.r) continue;
    float dw[2][4] = {};
#pragma unroll
    for (int p = 0; p < P; p += 16) {
      uint32_t a[4], b[4];
      load_matrix(a, x + p * 2);
      load_matrix(b, dy + (16 * block * padded_row(P) + p) * 2);
      mma<bf16>(dw[0], a, b[0], b[1]);
      mma<bf16>(dw[1], a, b[2], b[3]);
    }
    const auto finish = [&](auto diagonal) {  // whether the block has entries above the diagonal
      const int place = block_place(at.r, block);
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const int i0 = 16 * block + 8 * u + at.column;
        const float2 decay_i = *reinterpret_cast<const float2*>(decay + i0);
        float* const sums = l.dg + place + 128 * u + 4 * at.lane;
        Pack<float, 4> sum = load_pack<4>(sums);
        float w[4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int i = i0 + e % 2, j = at.row + e / 2 * 8;
          const float2 pair = unpack2<bf16>(g[m][u][e / 2]);
          float carried = exp2_fast((e % 2 ? decay_i.y : decay_i.x) - decay_j[e / 2]);
          if (diagonal.value && i < j) carried = 0;
          const float read = (e % 2 ? pair.y : pair.x) * carried;
          float value = dw[u][e] * read;
          w[e] = read * dt_j[e / 2];
          sum[e] += dw[u][e] * (carried * dt_j[e / 2]);
          if (diagonal.value && i == j) {
            l.diagonal[j] = value, skip += dw[u][e];
            value = 0;
          }
          over_i[e / 2] += value;
          over_j[m][u][e % 2] += value * dt_j[e / 2];
        }
        store_pack(sums, sum);
        uint32_t* const to = reinterpret_cast<uint32_t*>(l.w + place) + 64 * u + at.lane;
        to[0] = pack2<bf16>(w[0], w[1]), to[32] = pack2<bf16>(w[2], w[3]);
      }
    };
    if (block == at.r)
      finish(std::true_type());
    else
      finish(std::false_type());
  }
  if (at.half == at.r % 2) {
    skip = warp_sum(skip);
    if (at.lane == 0) l.skip[at.r] = skip;
  }
  sum_rows(at, over_j, l.rows[at.r]);
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const float sum = quad_sum(over_i[e]);
    if (at.column == 0) l.columns[at.half][at.row + 8 * e] = sum;
  }
}

// dS . S, a lane's share: the diagonals of products of 16 x 16 tiles.
template <int P, int N>
__device__ __forceinline__ float through_state(int warp, const ChunkShared<P, N>& l) {
  const Warp at(warp);
  float acc[2][4] = {};
  const int lane = tile_offset<P>(at.lane / 16, at.lane / 8 % 2) + at.lane % 8 * 8;
#pragma unroll
  for (int i = 0; i < P * N / 256; i += kChunkThreads / kWarp) {
    const int tile = i + warp;
    if (P * N / 256 % (kChunkThreads / kWarp) && tile >= P * N / 256) continue;
    const int place = tile_offset<P>(tile / (P / 16) * 2, tile % (P / 16) * 2) + lane;
    uint32_t s[4], ds[4];
    load_matrix(s, shared_address(l.states[0] + place));
    load_matrix(ds, shared_address(l.states[1] + place));
    const uint32_t left[4] = {s[0], s[2], s[1], s[3]};
    mma<bf16>(acc[0], left, ds[0], ds[1]);
    mma<bf16>(acc[1], left, ds[2], ds[3]);
  }
  const int off = at.lane / 4 - at.column;
  return off == 0 ? acc[0][0] + acc[1][2] : off == 1 ? acc[0][1] + acc[1][3] : 0.f;
}

// dx of the warp's rows, kTiles tiles of 8 columns from tile `first` of its half; adds x . Z to z.
template <int P, int N, int kTiles>
__device__ __forceinline__ void dx_part(const Back& k, int warp, const ChunkShared<P, N>& l,
                                        int first, const float (&tail)[2], int64_t row0, int tokens,
                                        int head, float (&z)[2]) {
  const Warp at(warp);
  first += at.half * (P / 16);
  float acc[kTiles][4] = {};
  const uint32_t b = shared_address(l.b + tile_offset<N>(2 * at.r + at.lane / 8 % 2, at.lane / 16) +
                                    at.lane % 8 * 8);
  const uint32_t ds =
      shared_address(l.states[1] + tile_offset<P>(at.lane / 8, first) + at.lane % 8 * 8);
#pragma unroll
  for (int n = 0; n < N; n += 32) {
    uint32_t a[2][4];
    load_matrix(a[0], b + tile_offset<N>(0, n / 8) * 2);
    load_matrix(a[1], b + tile_offset<N>(0, n / 8 + 2) * 2);
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      uint32_t right[4];
      load_matrix_transposed(right, ds + tile_offset<P>(n / 8, i) * 2);
      mma<bf16>(acc[i], a[0], right[0], right[1]);
      mma<bf16>(acc[i], a[1], right[2], right[3]);
    }
  }
  const int place = at.row * padded_row(P) + first * 8 + at.column;
#pragma unroll
  for (int i = 0; i < kTiles; ++i)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float2 x = unpack2<bf16>(
          *reinterpret_cast<const uint32_t*>(l.x + place + 8 * e * padded_row(P) + 8 * i));
      z[e] += acc[i][2 * e] * x.x + acc[i][2 * e + 1] * x.y;
      acc[i][2 * e] *= tail[e], acc[i][2 * e + 1] *= tail[e];
    }
  wait_for_rows(at.r);
  const uint32_t w = shared_address(l.w + block_place(at.r, 0) + at.lane * 8);
  const uint32_t dy = shared_address(l.dy + first * 8 + lane_offset(padded_row(P)));
#pragma unroll
  for (int block = 0; block < kQ / 16; ++block) {
    if (block < at.r) continue;
    uint32_t a[4];
    load_matrix(a, w + 256 * block * 2);
#pragma unroll
    for (int i = 0; i < kTiles; i += 2) {  // an odd last tile takes its neighbour or the padding
      uint32_t right[4];
      load_matrix_transposed(right, dy + (16 * block * padded_row(P) + 8 * i) * 2);
      mma<bf16>(acc[i], a, right[0], right[1]);
      if (i + 1 < kTiles) mma<bf16>(acc[i + 1], a, right[2], right[3]);
    }
  }
  if (!k.args.dx.wanted) return;
  const int columns = int(k.s.dim) - first * 8;
  const float skip = k.args.forward.d ? k.args.forward.d.ptr<float>()[head] : 0.f;
#pragma unroll
  for (int e = 0; e < 2; ++e)
#pragma unroll
    for (int i = 0; i < kTiles; ++i) {
      const float2 dy = unpack2<bf16>(
          *reinterpret_cast<const uint32_t*>(l.dy + place + 8 * e * padded_row(P) + 8 * i));
      acc[i][2 * e] += skip * dy.x, acc[i][2 * e + 1] += skip * dy.y;
    }
  bf16* const to = k.args.dx.grad.row<bf16>(row0 + at.row) + head * k.s.dim + first * 8;
  const int64_t step = 8 * k.args.dx.grad.pitch;
  if (k.dx.packs && !k.args.dx.accumulate) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      uint32_t words[kTiles];
#pragma unroll
      for (int i = 0; i < kTiles; ++i) words[i] = pack2<bf16>(acc[i][2 * e], acc[i][2 * e + 1]);
      store_row<kTiles>(to + e * step, words, at.row + 8 * e < tokens ? columns : 0);
    }
    return;
  }
#pragma unroll
  for (int e = 0; e < 2; ++e)
#pragma unroll
    for (int i = 0; i < kTiles; ++i)
      if (at.row + 8 * e < tokens)
        put_pair(to + e * step + 8 * i + at.column, acc[i][2 * e], acc[i][2 * e + 1],
                 columns - 8 * i - at.column, k.dx.pairs, k.args.dx.accumulate);
}

// dB += (tail o x) dS for the warp's half of the states.
template <int P, int N>
__device__ __forceinline__ void db_part(int warp, const ChunkShared<P, N>& l,
                                        const float (&tail)[2], float (&db)[N / 16][4]) {
  const Warp at(warp);
  const uint32_t x = shared_address(l.x + 16 * at.r * padded_row(P) + lane_offset(padded_row(P)));
  const uint32_t ds = shared_address(
      l.states[1] + tile_offset<P>(at.half * (N / 16) + at.lane / 16, at.lane / 8 % 2) +
      at.lane % 8 * 8);
#pragma unroll
  for (int p = 0; p < P; p += 16) {
    uint32_t a[4];
    load_matrix(a, x + p * 2);
    scale_rows(a, tail[0], tail[1]);
#pragma unroll
    for (int i = 0; i < N / 16; i += 2) {
      uint32_t right[4];
      load_matrix(right, ds + tile_offset<P>(i, p / 8) * 2);
      mma<bf16>(db[i], a, right[0], right[1]);
      mma<bf16>(db[i + 1], a, right[2], right[3]);
    }
  }
}

// dC += p o V, and V . C, for the warp's half of the states. dy: the rows as left operands.
template <int P, int N>
__device__ __forceinline__ void dc_part(int warp, const ChunkShared<P, N>& l,
                                        const uint32_t (&dy)[P / 16][4], const float (&factor)[2],
                                        float (&dc)[N / 16][4], float (&v)[2]) {
  const Warp at(warp);
  const uint32_t* const c =
      reinterpret_cast<const uint32_t*>(l.c + tile_offset<N>(2 * at.r, at.half * (N / 16))) +
      at.lane;
  const uint32_t s = shared_address(
      l.states[0] + tile_offset<P>(at.half * (N / 16) + at.lane / 16, at.lane / 8 % 2) +
      at.lane % 8 * 8);
#pragma unroll
  for (int i = 0; i < N / 16; i += 2) {
    float acc[2][4] = {};
#pragma unroll
    for (int p = 0; p < P / 16; ++p) {
      uint32_t right[4];
      load_matrix(right, s + tile_offset<P>(i, 2 * p) * 2);
      mma<bf16>(acc[0], dy[p], right[0], right[1]);
      mma<bf16>(acc[1], dy[p], right[2], right[3]);
    }
#pragma unroll
    for (int u = 0; u < 2; ++u)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float low = acc[u][2 * e], high = acc[u][2 * e + 1];
        const float2 c_pair = unpack2<bf16>(c[tile_offset<N>(e, i + u) / 2]);
        v[e] += low * c_pair.x + high * c_pair.y;
        dc[i + u][2 * e] += factor[e] * low, dc[i + u][2 * e + 1] += factor[e] * high;
      }
  }
}

}  // namespace
}  // namespace strata::mamba2
