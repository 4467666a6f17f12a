// One chunk of one group, given the states at its start and their gradients at its end: a block
// goes through (a slice of) the group's heads and keeps dG, dB and dC in accumulators. With
// G = C B^T, L_ij = a_{j+1} ... a_i, M_ij = L_ij dt_j, W = G o M, per head:
//   dW = dy x^T         dG += dW o M
//   Z = B dS^T          dx = W^T dy + tail o Z + D dy
//   V = dy S            dC += p o V,  dB += (tail o x) dS;  at last dC += dG B,  dB += dG^T C
// G, M, W and dW are held transposed, so that W^T is a left operand. The gradients of the running
// sums of log a follow from T = dW o W alone: its sums over rows less those over columns, and
//   p_i V_i . C_i  at i,   tail_j x_j . Z_j  at the last token less at j,   p_Q dS . S  at the
//   last.
#pragma once

#include "layers/mamba2/ssd_backward_parts_cuda.cuh"

namespace strata::mamba2 {
namespace {

// What a head's parts add up to: the gradients of log a's running sums and of dt, and dD. One warp,
// two tokens a lane.
struct HeadSums {
  float2 dlog, ddt;
  float ahead, last, skip;  // sum of tail o (x . Z); p_Q; sum of x . dy

  // All but what comes of S; before the barrier at the start of the next head.
  template <int P, int N>
  __device__ __forceinline__ void gather(const ChunkShared<P, N>& l, int parity) {
    const int t = here(threadIdx.x) % kWarp * 2;
    const auto two = [&](const float* from) { return *reinterpret_cast<const float2*>(from + t); };
    const float2 dt = two(l.dt[parity]), diagonal = two(l.diagonal);
    const float2 z0 = two(l.z[0]), z1 = two(l.z[1]), c0 = two(l.columns[0]), c1 = two(l.columns[1]);
    dlog = two(l.rows[0]);
#pragma unroll
    for (int r = 1; r < 4; ++r) {
      const float2 more = two(l.rows[r]);
      dlog.x += more.x, dlog.y += more.y;
    }
    const float2 z{z0.x + z1.x, z0.y + z1.y}, open{c0.x + c1.x + z.x, c0.y + c1.y + z.y};
    dlog.x -= dt.x * open.x, dlog.y -= dt.y * open.y;
    ddt = {open.x + diagonal.x, open.y + diagonal.y};
    ahead = warp_sum(dt.x * z.x + dt.y * z.y), last = exp2_fast(l.decay[parity][kQ - 1]);
    skip = l.skip[0] + l.skip[1] + l.skip[2] + l.skip[3];
  }

  // The rest, after that barrier.
  template <int P, int N>
  __device__ __forceinline__ void store(const Back& k, const ChunkShared<P, N>& l, int64_t pair) {
    const int t = here(threadIdx.x) % kWarp * 2;
#pragma unroll
    for (int half = 0; half < 2; ++half) dlog.x += l.v[half][t], dlog.y += l.v[half][t + 1];
    if (t == kQ - 2) {
      float through = 0;
      for (const float part : l.through) through += part;
      dlog.y += ahead + last * through;
      k.w.sums[k.s.batch * k.s.chunks * k.s.heads + pair] = skip;
    }
    *reinterpret_cast<float2*>(k.w.dlog + pair * kQ + t) = dlog;
    *reinterpret_cast<float2*>(k.w.ddt + pair * kQ + t) = ddt;
  }
};

template <int P, int N>
__device__ __forceinline__ void load_states(const Back& k, ChunkShared<P, N>& l, int64_t pair,
                                            bool gradient) {
  load_all<P * N, kChunkThreads>(l.states[gradient], gradient ? k.dstate(pair) : k.state(pair));
}

template <int P, int N>
__device__ __forceinline__ void load_head(const Back& k, ChunkShared<P, N>& l, int64_t row0,
                                          int64_t pair, int tokens, int head) {
  const Tensor &x = k.args.forward.x, &dy = k.args.dy;
  const int dim = int(k.s.dim);
  load_tile<P, kChunkThreads>(l.x, x.row<bf16>(row0) + head * dim, x.pitch, tokens, dim, k.x.packs);
  load_tile<P, kChunkThreads>(l.dy, dy.row<bf16>(row0) + head * dim, dy.pitch, tokens, dim,
                              k.dy.packs);
  load_all<kQ, kChunkThreads>(l.decay[head % 2], k.w.decay + pair * kQ);
  load_all<kQ, kChunkThreads>(l.dt[head % 2], k.w.dt + pair * kQ);
}

// G^T of the warp's rows in blocks half and half + 2, narrowed.
template <int P, int N>
__device__ __forceinline__ void correlate_part(int warp, const ChunkShared<P, N>& l,
                                               uint32_t (&g)[2][2][2]) {
  const Warp at(warp);
  const int row = at.lane % 8 * 8;
  const uint32_t b =
      shared_address(l.b + tile_offset<N>(2 * at.r + at.lane / 8 % 2, at.lane / 16) + row);
  const uint32_t c =
      shared_address(l.c + tile_offset<N>(2 * at.half + at.lane / 16, at.lane / 8 % 2) + row);
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    float acc[2][4] = {};
#pragma unroll
    for (int n = 0; n < N / 8; n += 2) {
      uint32_t left[4], right[4];
      load_matrix(left, b + tile_offset<N>(0, n) * 2);
      load_matrix(right, c + tile_offset<N>(4 * m, n) * 2);
      mma<bf16>(acc[0], left, right[0], right[1]);
      mma<bf16>(acc[1], left, right[2], right[3]);
    }
#pragma unroll
    for (int u = 0; u < 2; ++u)
#pragma unroll
      for (int e = 0; e < 2; ++e) g[m][u][e] = pack2<bf16>(acc[u][2 * e], acc[u][2 * e + 1]);
  }
}

// dB += dG^T C and dC += dG B, with dG^T in l.w.
template <int P, int N>
__device__ __forceinline__ void group_part(int warp, const ChunkShared<P, N>& l,
                                           float (&db)[N / 16][4], float (&dc)[N / 16][4]) {
  const Warp at(warp);
  const int row = at.lane % 8 * 8, tile = at.lane / 8 % 2 * 2 + at.lane / 16;
  const int place = tile_offset<N>(at.lane / 8 % 2, at.half * (N / 16) + at.lane / 16) + row;
  const uint32_t c = shared_address(l.c + place), b = shared_address(l.b + place);
#pragma unroll
  for (int block = 0; block < kQ / 16; ++block) {
    uint32_t a[4], right[4];
    if (block >= at.r) {
      load_matrix(a, shared_address(l.w + block_place(at.r, block) + at.lane * 8));
#pragma unroll
      for (int i = 0; i < N / 16; i += 2) {
        load_matrix_transposed(right, c + tile_offset<N>(2 * block, i) * 2);
        mma<bf16>(db[i], a, right[0], right[1]);
        mma<bf16>(db[i + 1], a, right[2], right[3]);
      }
    }
    if (block <= at.r) {
      load_matrix_transposed(a, shared_address(l.w + block_place(block, at.r) + tile * 64 + row));
#pragma unroll
      for (int i = 0; i < N / 16; i += 2) {
        load_matrix_transposed(right, b + tile_offset<N>(2 * block, i) * 2);
        mma<bf16>(dc[i], a, right[0], right[1]);
        mma<bf16>(dc[i + 1], a, right[2], right[3]);
      }
    }
  }
}

// A warp's part of dB or dC to the gradient, or, if there are several slices, to this one's share.
template <int N>
__device__ __forceinline__ void put_states(const Back& k, int warp, const GradTarget& to,
                                           bool pairs, float* parts, const ChunkPlace& place,
                                           const float (&acc)[N / 16][4]) {
  if (!to.wanted) return;
  const Warp at(warp);
  const int n = int(k.s.states), first = at.half * (N / 2) + at.column;
  const int64_t width = k.s.groups * n, rows = k.s.batch * k.s.seq_len;
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    if (at.row + 8 * e >= place.tokens) continue;
    const int64_t row = place.row0 + at.row + 8 * e;
#pragma unroll
    for (int i = 0; i < N / 16; ++i) {
      const int column = first + 8 * i;
      const float low = acc[i][2 * e], high = acc[i][2 * e + 1];
      if (k.s.slices > 1) {
        float* const share = parts + (place.slice * rows + row) * width + place.group * n + column;
        if (column < n) share[0] = low;
        if (column + 1 < n) share[1] = high;
      } else {
        put_pair(to.grad.row<bf16>(row) + place.group * n + column, low, high, n - column, pairs,
                 to.accumulate);
      }
    }
  }
}

template <int P, int N>
__global__ void __launch_bounds__(kChunkThreads, P* N <= 80 * 128 ? 2 : 1) chunk_kernel(Back k) {
  extern __shared__ __align__(16) char shared[];
  ChunkShared<P, N>& l = *reinterpret_cast<ChunkShared<P, N>*>(shared);
  constexpr int kLast = 6;                                          // the warp without work on dW
  const int warp = __shfl_sync(kAllLanes, threadIdx.x / kWarp, 0);  // known to be uniform

  if (threadIdx.x == 0) l.place.set(k);
  for (int e = threadIdx.x; e < kBlocks * 256; e += kChunkThreads) l.dg[e] = 0;
  __syncthreads();
  const ChunkPlace& place = l.place;
  const Tensor &b = k.args.forward.b, &c = k.args.forward.c;
  const int n = int(k.s.states);
  load_tile<N, kChunkThreads, true>(l.b, b.row<bf16>(place.row0) + place.group * n, b.pitch,
                                    place.tokens, n, k.b.packs);
  load_tile<N, kChunkThreads, true>(l.c, c.row<bf16>(place.row0) + place.group * n, c.pitch,
                                    place.tokens, n, k.c.packs);
  commit_copies();
  load_head(k, l, place.row0, place.pair0 + place.first, place.tokens, place.first);
  commit_copies();
  load_states(k, l, place.pair0 + place.first, true);
  commit_copies();
  wait_copies<2>();
  __syncthreads();
  uint32_t g[2][2][2];
  correlate_part(warp, l, g);

  float db[N / 16][4] = {}, dc[N / 16][4] = {};
  HeadSums sums;
  for (int head = place.first; head < place.end; ++head) {
    const int parity = head % 2;
    const bool more = head + 1 < place.end;
    const int64_t pair = place.pair0 + head;
    wait_copies<0>();
    __syncthreads();
    load_states(k, l, pair, false);
    commit_copies();
    if (warp == kLast && head > place.first) sums.store(k, l, pair - 1);
    decay_part(warp, l, parity, g);
    {
      const Warp at(warp);
      float carried[2], tail[2], z[2] = {};
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int j = at.row + 8 * e;
        carried[e] = exp2_fast(l.decay[parity][kQ - 1] - l.decay[parity][j]);
        tail[e] = carried[e] * l.dt[parity][j];
      }
      constexpr int kTiles = P / 16 > 5 ? P / 32 : P / 16;  // few enough for the registers
#pragma unroll
      for (int i = 0; i < P / 16; i += kTiles)
        dx_part<P, N, kTiles>(k, warp, l, i, tail, place.row0, place.tokens, head, z);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float sum = quad_sum(z[e]) * carried[e];
        if (at.column == 0) l.z[at.half][at.row + 8 * e] = sum;
      }
      db_part(warp, l, tail, db);
    }
    wait_copies<0>();
    __syncthreads();
    float through = through_state(warp, l);
    uint32_t dy_rows[P / 16][4];  // kept, as dy makes room for the next head's
#pragma unroll
    for (int i = 0; i < P / 16; ++i)
      load_matrix(dy_rows[i], shared_address(l.dy + warp / 2 * 16 * padded_row(P) + 16 * i +
                                             lane_offset(padded_row(P))));
    __syncthreads();
    if (more) load_head(k, l, place.row0, pair + 1, place.tokens, head + 1);
    commit_copies();
    if (more) load_states(k, l, pair + 1, true);
    commit_copies();
    {
      const Warp at(warp);
      through = warp_sum(through);
      if (at.lane == 0) l.through[warp] = through;
      const float p[2] = {exp2_fast(l.decay[parity][at.row]),
                          exp2_fast(l.decay[parity][at.row + 8])};
      float v[2] = {};
      dc_part(warp, l, dy_rows, p, dc, v);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float sum = quad_sum(v[e]) * p[e];
        if (at.column == 0) l.v[at.half][at.row + 8 * e] = sum;
      }
    }
    if (warp == kLast) sums.gather(l, parity);
  }

  __syncthreads();
  if (warp == kLast) sums.store(k, l, place.pair0 + place.end - 1);
  for (int e = threadIdx.x; e < kBlocks * 64; e += kChunkThreads) {
    const auto sum = load_pack<4>(l.dg + 4 * e);
    uint32_t* const to = reinterpret_cast<uint32_t*>(l.w) + e / 32 * 64 + e % 32;
    to[0] = pack2<bf16>(sum[0], sum[1]), to[32] = pack2<bf16>(sum[2], sum[3]);
  }
  __syncthreads();
  group_part(warp, l, db, dc);
  put_states<N>(k, warp, k.args.db, k.db.pairs, k.w.db, place, db);
  put_states<N>(k, warp, k.args.dc, k.dc.pairs, k.w.dc, place, dc);
}

}  // namespace
}  // namespace strata::mamba2
