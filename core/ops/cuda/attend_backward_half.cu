// Gradient of attention on bf16 (FlashAttention-2, arXiv 2307.08691). One pass over tiles of
// queries of a head makes dq, one over tiles of keys makes dk and dv; each sum is added up by one
// block in order. The second pass multiplies with keys as rows, s^T = k q^T, so that a warp keeps
// its weights in registers.
#include "core/ops/cuda/attend_backward_args.cuh"
#include "core/ops/cuda/attend_hopper.h"

namespace strata {
namespace {

constexpr int kTileWarps = 4, kTileThreads = kTileWarps * kWarp;
constexpr int kOwn = 16 * kTileWarps;  // rows of the tile that a block owns: 16 of each warp

// q, dy and k, v: of one pair the block's own rows, of the other kOther rows at a time.
template <int D>
struct BackwardTile {
  static constexpr int kOther = D <= 128 ? 64 : 32, P = padded_row(D);
  static constexpr int kBytes = 2 * (kOwn + kOther) * P * 2;
};

template <class T, int kRows, int D>
__device__ __forceinline__ void copy_queries(T* to, const HalfBackward<T>& a, const T* x,
                                             int64_t pitch, int b, int h, int t0) {
  copy_tile<T, kRows, D, kTileThreads>(to, a, x + a.offset(b, t0, h, pitch), pitch, 0, a.q_len - t0,
                                       threadIdx.x);
}

template <class T, int D>
__global__ void __launch_bounds__(kTileThreads)
    dq_half_kernel(HalfBackward<T> a, int tiles, int heads, bool pairs) {
  using Tile = BackwardTile<D>;
  constexpr int kKeys = Tile::kOther, P = Tile::P, N = kKeys / 8;
  extern __shared__ __align__(16) char shared_room[];
  T* qs = reinterpret_cast<T*>(shared_room);
  T* dys = qs + kOwn * P;
  T* ks = dys + kOwn * P;
  T* vs = ks + kKeys * P;
  // Late tiles see most keys and go first, so that the end is even.
  const int head = int(blockIdx.x) % heads, t0 = (tiles - 1 - int(blockIdx.x) / heads) * kOwn;
  const int b = head / a.n_heads, h = head % a.n_heads, g = h / a.group;
  const int t1 = min(t0 + kOwn, a.q_len) - 1;
  const int lo = a.key_range(b, t0).lo, hi = a.key_range(b, t1).hi;
  const Rows<T> keys(a, a.k, a.k_pitch, a.k_pages, b, g);
  const Rows<T> values(a, a.v, a.v_pitch, a.v_pages, b, g);
  const int warp_row = int(threadIdx.x) / kWarp * 16;
  copy_queries<T, kOwn, D>(qs, a, a.q, a.q_pitch, b, h, t0);
  copy_queries<T, kOwn, D>(dys, a, a.dy, a.dy_pitch, b, h, t0);
  int j0 = lo / kKeys * kKeys;
  if (j0 < hi) {
    copy_keys<T, kKeys, D, kTileThreads>(ks, a, keys, j0, lo, hi, threadIdx.x);
    copy_keys<T, kKeys, D, kTileThreads>(vs, a, values, j0, lo, hi, threadIdx.x);
  }
  commit_copies();
  float lse2[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t at = a.padded_offset(b, h) + t0 + warp_row + half * 8 + lane_row();
    lse2[half] = a.lse2[at];
    delta[half] = a.delta[at];
  }

  float dq[1][D / 8][4] = {};
  for (; j0 < hi; j0 += kKeys) {
    const bool more = j0 + kKeys < hi;
    wait_copies<0>();
    __syncthreads();
    float s[1][N][4] = {}, ds[1][N][4] = {};
    multiply_rows<T, D>(qs + warp_row * P, ks, s);
    multiply_rows<T, D>(dys + warp_row * P, vs, ds);
    __syncthreads();
    if (more) copy_keys<T, kKeys, D, kTileThreads>(vs, a, values, j0 + kKeys, lo, hi, threadIdx.x);
    const bool masked = is_masked(a, b, t0, t1, j0, kKeys);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      KeyRange seen{0, 1 << 30};
      if (masked) {
        seen = a.range_of(b, t0 + warp_row + half * 8 + lane_row());
        seen = {seen.lo - j0 - lane_column(), seen.hi - j0 - lane_column()};
      }
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& weight = s[0][j][2 * half + e];
          float& slope = ds[0][j][2 * half + e];
          score_gradient(a, lse2[half], delta[half], weight, slope);
          if (masked && (j * 8 + e < seen.lo || j * 8 + e >= seen.hi)) slope = 0;
        }
    }
    add_weighted<T, D>(ds, ks, dq);
    __syncthreads();
    if (more) copy_keys<T, kKeys, D, kTileThreads>(ks, a, keys, j0 + kKeys, lo, hi, threadIdx.x);
    commit_copies();
  }
  wait_copies<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int t = t0 + warp_row + half * 8 + lane_row();
    if (t < a.q_len)
      put_row(a.dq.grad.template ptr<T>() + a.offset(b, t, h, a.dq.grad.pitch), dq[0], half,
              slope_of(a), a.dim, a.dq.accumulate, pairs);
  }
}

// kDk, kDv: which gradients this pass makes; the sums of both fit the registers of narrow heads.
template <class T, int D, bool kDk, bool kDv>
__global__ void __launch_bounds__(kTileThreads)
    dkv_half_kernel(HalfBackward<T> a, int heads, bool pairs) {
  using Tile = BackwardTile<D>;
  constexpr int kQueries = Tile::kOther, P = Tile::P, N = kQueries / 8;
  extern __shared__ __align__(16) char shared_room[];
  T* ks = reinterpret_cast<T*>(shared_room);
  T* vs = ks + kOwn * P;
  T* qs = vs + kOwn * P;
  T* dys = qs + kQueries * P;
  // Early keys are seen by most queries and go first.
  const int head = int(blockIdx.x) % heads, j0 = int(blockIdx.x) / heads * kOwn;
  const int b = head / a.n_kv_heads, g = head % a.n_kv_heads, j1 = min(j0 + kOwn, a.kv_len);
  const auto [begin, end] = queries_seeing(a, b, j0, j1);
  const int from = begin / kQueries * kQueries;
  const int tiles = end > begin ? (end - from + kQueries - 1) / kQueries : 0;
  const Rows<T> keys(a, a.k, a.k_pitch, a.k_pages, b, g);
  const Rows<T> values(a, a.v, a.v_pitch, a.v_pages, b, g);
  const int warp_row = int(threadIdx.x) / kWarp * 16;
  const auto copy = [&](T* to, const T* x, int64_t pitch, int i) {
    if (i < tiles * a.group)
      copy_queries<T, kQueries, D>(to, a, x, pitch, b, g * a.group + i / tiles,
                                   from + i % tiles * kQueries);
  };
  copy_keys<T, kOwn, D, kTileThreads>(ks, a, keys, j0, j0, j1, threadIdx.x);
  copy_keys<T, kOwn, D, kTileThreads>(vs, a, values, j0, j0, j1, threadIdx.x);
  copy(qs, a.q, a.q_pitch, 0);
  copy(dys, a.dy, a.dy_pitch, 0);
  commit_copies();

  float dk[1][kDk ? D / 8 : 1][4] = {}, dv[1][kDv ? D / 8 : 1][4] = {};
  for (int i = 0; i < tiles * a.group; ++i) {
    const int h = g * a.group + i / tiles, t0 = from + i % tiles * kQueries;
    const float* lse2 = a.lse2 + a.padded_offset(b, h) + t0 + lane_column();
    const float* delta = a.delta + a.padded_offset(b, h) + t0 + lane_column();
    wait_copies<0>();
    __syncthreads();
    float p[1][N][4] = {}, ds[1][N][4] = {};
    multiply_rows<T, D>(ks + warp_row * P, qs, p);
    if constexpr (kDk) multiply_rows<T, D>(vs + warp_row * P, dys, ds);
    const bool masked = is_masked(a, b, t0, min(t0 + kQueries, a.q_len) - 1, j0, kOwn);
    KeyRange seen[2] = {{0, 1 << 30}, {0, 1 << 30}};  // queries from t0 on that see the keys
    if (masked) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int key = min(j0 + warp_row + half * 8 + lane_row(), a.kv_len - 1);
        const KeyRange range = queries_seeing(a, b, key, key + 1);
        seen[half] = {range.lo - t0 - lane_column(), range.hi - t0 - lane_column()};
      }
    }
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float lse = lse2[j * 8 + e], sum = delta[j * 8 + e];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float& weight = p[0][j][2 * half + e];
          float& slope = ds[0][j][2 * half + e];
          score_gradient(a, lse, sum, weight, slope);
          if (masked && (j * 8 + e < seen[half].lo || j * 8 + e >= seen[half].hi))
            weight = 0, slope = 0;
        }
      }
    if constexpr (kDv) add_weighted<T, D>(p, dys, dv);
    __syncthreads();
    copy(dys, a.dy, a.dy_pitch, i + 1);
    if constexpr (kDk) {
      add_weighted<T, D>(ds, qs, dk);
      __syncthreads();
    }
    copy(qs, a.q, a.q_pitch, i + 1);
    commit_copies();
  }
  wait_copies<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = j0 + warp_row + half * 8 + lane_row();
    if (key >= j1) continue;
    const int64_t row = int64_t(b) * a.kv_len + key, column = int64_t(g) * a.dim;
    if constexpr (kDk)
      if (a.dk.wanted)
        put_row(a.dk.grad.template row<T>(row) + column, dk[0], half, slope_of(a), a.dim,
                a.dk.accumulate, pairs);
    if constexpr (kDv)
      if (a.dv.wanted)
        put_row(a.dv.grad.template row<T>(row) + column, dv[0], half, 1.f, a.dim, a.dv.accumulate,
                pairs);
  }
}

template <class T>
void attend_backward_half(const AttendBackwardArgs& args, Stream s) {
  check_types(args.forward);
  if (attend_backward_hopper(args, s)) return;
  const HalfBackward<T> a(args);
  const cudaStream_t stream = stream_of(s);
  find_documents<T>(a, stream);
  find_row_sums(a, stream);
  with_half_width(a.dim, [&](auto width) {
    constexpr int D = decltype(width)::value, kBytes = BackwardTile<D>::kBytes;
    const int tiles = (a.q_len + kOwn - 1) / kOwn, heads = a.batch * a.n_heads;
    if (a.dq.wanted)
      launch_shared(&dq_half_kernel<T, D>, int64_t(tiles) * heads, kTileThreads, kBytes, stream, a,
                    tiles, heads, has_pairs(a.dq, a.dim));
    const int kv_heads = a.batch * a.n_kv_heads;
    const int64_t blocks = int64_t((a.kv_len + kOwn - 1) / kOwn) * kv_heads;
    const bool pairs =
        (!a.dk.wanted || has_pairs(a.dk, a.dim)) && (!a.dv.wanted || has_pairs(a.dv, a.dim));
    const auto pass = [&](auto* kernel) {
      launch_shared(kernel, blocks, kTileThreads, kBytes, stream, a, kv_heads, pairs);
    };
    if constexpr (D <= 128) {
      if (a.dk.wanted || a.dv.wanted) pass(&dkv_half_kernel<T, D, true, true>);
    } else {
      if (a.dk.wanted) pass(&dkv_half_kernel<T, D, true, false>);
      if (a.dv.wanted) pass(&dkv_half_kernel<T, D, false, true>);
    }
  });
  check_launch("attend_backward");
}

}  // namespace

STRATA_CUDA_BF16_KERNEL("attend_backward", AttendBackwardArgs, attend_backward_half)

}  // namespace strata
