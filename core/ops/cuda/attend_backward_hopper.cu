// Gradient of attention on bf16 for compute capability 9.0, by the passes of the portable kernel: a
// warp copies tiles, two warpgroups multiply 64 of the block's own rows each.
#include "core/ops/cuda/attend_backward_args.cuh"
#include "core/ops/cuda/attend_hopper.cuh"

#include "core/ops/cuda/attend_hopper.h"

namespace strata {
namespace {

constexpr int kGroups = 2, kOwn = kGroups * 64;  // rows of a block
constexpr int kBackwardThreads = (1 + kGroups) * kGroupThreads;

struct BackwardMaps {
  CUtensorMap q, dy, k, v;
};

// Own rows of q, dy; keys and values in a ring.
template <int D>
struct QueryPass {
  static constexpr int kKeys = 128, kStages = 2;
  static constexpr int kBytes = 2 * (kOwn + kStages * kKeys) * D * 2 + 1024;
};
// Own rows of k, v; q, dy and their row sums in a ring.
template <int D>
struct KeyPass {
  static constexpr int kQueries = 64, kStages = 3;
  static constexpr int kBytes = 2 * (kOwn + kStages * kQueries) * D * 2 + 1024;
};

#ifdef STRATA_WARPGROUP_MMA

template <class T>
__device__ __forceinline__ T* aligned_room(char* room) {
  return reinterpret_cast<T*>(room + (1024 - shared_address(room) % 1024) % 1024);
}
// One arrival of a warp.
__device__ __forceinline__ void done(Barrier& b) {
  if (threadIdx.x % kWarp == 0) arrive(b);
}
template <int N>
__device__ __forceinline__ void clear(float (&x)[N][4]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) x[i][e] = 0;
}

template <int kStages>
struct QueryBarriers {
  Barrier own, k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};

// dq of 64 queries.
template <class T, int D, class Bars>
__device__ __forceinline__ void query_rows(const HalfBackward<T>& a, Bars& bar, const T* qs,
                                           const T* dys, const T* ks, const T* vs, int b, int h,
                                           int t, int j0, int hi, bool pairs) {
  constexpr int kKeys = QueryPass<D>::kKeys, N = kKeys / 8, kTile = kKeys * D;
  const int row = t + int(threadIdx.x) % kGroupThreads / kWarp * 16 + lane_row();
  const int t0 = min(t, a.q_len - 1), t1 = min(t + 63, a.q_len - 1);
  float lse2[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    lse2[half] = a.lse2[a.padded_offset(b, h) + row + half * 8];
    delta[half] = a.delta[a.padded_offset(b, h) + row + half * 8];
  }
  float dq[D / 8][4], s[N][4], ds[N][4];
  uint32_t w[N / 2][4];
  clear(dq);
  Ring<QueryPass<D>::kStages> ring;
  wait_phase(bar.own, 0);
  for (; j0 < hi; j0 += kKeys, ring.next()) {
    const int stage = ring.stage;
    wait_phase(bar.k_full[stage], ring.parity);
    wait_phase(bar.v_full[stage], ring.parity);
    begin_products();
    multiply_tiles<T, D, kOwn>(s, qs, ks + stage * kTile);
    commit_products();
    multiply_tiles<T, D, kOwn>(ds, dys, vs + stage * kTile);
    commit_products();
    const bool masked = is_masked(a, b, t0, t1, j0, kKeys);
    wait_products<1>();
    pin(s);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) s[n][e] = exp2_fast(fmaf(s[n][e], a.query, -lse2[e / 2]));
    if (masked) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        KeyRange seen = a.range_of(b, row + half * 8);
        seen = {seen.lo - j0 - lane_column(), seen.hi - j0 - lane_column()};
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (n * 8 + e < seen.lo || n * 8 + e >= seen.hi) s[n][2 * half + e] = 0;
      }
    }
    wait_products<0>();
    pin(ds);
    done(bar.v_empty[stage]);
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) ds[n][e] = s[n][e] * (ds[n][e] - delta[e / 2]);
    narrow_tile<T>(w, ds);
    begin_products();
    add_tile<T, kKeys>(dq, w, ks + stage * kTile, true);
    commit_products();
    wait_products<0>();
    pin(dq);
    done(bar.k_empty[stage]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half)
    if (row + half * 8 < a.q_len)
      put_row(a.dq.grad.template ptr<T>() + a.offset(b, row + half * 8, h, a.dq.grad.pitch), dq,
              half, a.slope, a.dim, a.dq.accumulate, pairs);
}

struct KeyBarriers {
  Barrier own, full[3], empty[3];
};

// dk and dv of 64 keys from j on.
template <class T, int D>
__device__ __forceinline__ void key_rows(const HalfBackward<T>& a, KeyBarriers& bar, const T* ks,
                                         const T* vs, const T* qs, const T* dys,
                                         const float (*sums)[2][64], int b, int g, int j, int from,
                                         int tiles, bool pairs) {
  constexpr int kQueries = KeyPass<D>::kQueries, N = kQueries / 8, kTile = kQueries * D;
  const int row = j + int(threadIdx.x) % kGroupThreads / kWarp * 16 + lane_row();
  float dk[D / 8][4], dv[D / 8][4], p[N][4], ds[N][4];
  uint32_t w[N / 2][4], z[N / 2][4];
  clear(dk);
  clear(dv);
  Ring<KeyPass<D>::kStages> ring;
  wait_phase(bar.own, 0);
  int t0 = from, tile = 0;
  for (int i = 0; i < tiles * a.group; ++i, ring.next()) {
    wait_phase(bar.full[ring.stage], ring.parity);
    begin_products();
    multiply_tiles<T, D, kOwn>(p, ks, qs + ring.stage * kTile);
    commit_products();
    multiply_tiles<T, D, kOwn>(ds, vs, dys + ring.stage * kTile);
    commit_products();
    const float* lse2 = sums[ring.stage][0] + lane_column();
    const float* delta = sums[ring.stage][1] + lane_column();
    const bool masked =
        j + 64 > a.kv_len || is_masked(a, b, t0, min(t0 + kQueries, a.q_len) - 1, j, 64);
    wait_products<1>();
    pin(p);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const Pack<float, 2> lse = load_pack<2>(lse2 + n * 8);
#pragma unroll
      for (int e = 0; e < 4; ++e) p[n][e] = exp2_fast(fmaf(p[n][e], a.query, -lse.v[e % 2]));
    }
    if (masked) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int key = min(row + half * 8, a.kv_len - 1);
        KeyRange seen = queries_seeing(a, b, key, key + 1);
        seen = {seen.lo - t0 - lane_column(), seen.hi - t0 - lane_column()};
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (n * 8 + e < seen.lo || n * 8 + e >= seen.hi) p[n][2 * half + e] = 0;
      }
    }
    narrow_tile<T>(w, p);
    begin_products();
    add_tile<T, kQueries>(dv, w, dys + ring.stage * kTile, true);
    commit_products();
    wait_products<1>();
    pin(ds);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const Pack<float, 2> sum = load_pack<2>(delta + n * 8);
#pragma unroll
      for (int e = 0; e < 4; ++e) ds[n][e] = p[n][e] * (ds[n][e] - sum.v[e % 2]);
    }
    narrow_tile<T>(z, ds);
    begin_products();
    add_tile<T, kQueries>(dk, z, qs + ring.stage * kTile, true);
    commit_products();
    wait_products<0>();
    pin(dv);
    pin(dk);
    done(bar.empty[ring.stage]);
    t0 += kQueries;
    if (++tile == tiles) tile = 0, t0 = from;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = row + half * 8;
    if (key >= a.kv_len) continue;
    const int64_t at = int64_t(b) * a.kv_len + key, column = int64_t(g) * a.dim;
    if (a.dk.wanted)
      put_row(a.dk.grad.template row<T>(at) + column, dk, half, a.slope, a.dim, a.dk.accumulate,
              pairs);
    if (a.dv.wanted)
      put_row(a.dv.grad.template row<T>(at) + column, dv, half, 1.f, a.dim, a.dv.accumulate, pairs);
  }
}

#endif

template <class T, int D>
__global__ void __launch_bounds__(kBackwardThreads, 1)
    dq_hopper_kernel(HalfBackward<T> a, const __grid_constant__ BackwardMaps maps, int tiles,
                     bool pairs) {
#ifdef STRATA_WARPGROUP_MMA
  constexpr int kKeys = QueryPass<D>::kKeys, kStages = QueryPass<D>::kStages;
  extern __shared__ char shared_room[];
  __shared__ QueryBarriers<kStages> bar;
  T* qs = aligned_room<T>(shared_room);
  T* dys = qs + kOwn * D;
  T* ks = dys + kOwn * D;
  T* vs = ks + kStages * kKeys * D;
  // Late tiles see most keys and go first, so that the end is even.
  const int heads = a.batch * a.n_heads, head = int(blockIdx.x) % heads;
  const int t0 = (tiles - 1 - int(blockIdx.x) / heads) * kOwn;
  const int b = head / a.n_heads, h = head % a.n_heads, g = h / a.group;
  const int from = a.key_range(b, t0).lo / kBoxRows * kBoxRows;
  const int hi = a.key_range(b, min(t0 + kOwn, a.q_len) - 1).hi;
  if (threadIdx.x == 0) {
    init_barrier(bar.own, 1);
    for (int i = 0; i < kStages; ++i) {
      init_barrier(bar.k_full[i], 1);
      init_barrier(bar.v_full[i], 1);
      init_barrier(bar.k_empty[i], kGroups * kGroupThreads / kWarp);
      init_barrier(bar.v_empty[i], kGroups * kGroupThreads / kWarp);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    give_registers<24>();
    if (threadIdx.x != 0) return;
    expect_bytes(bar.own, 2 * kOwn * D * 2);
    for (int r = 0; r < kOwn; r += kBoxRows) {
      copy_box_rows<kOwn, D>(qs, r, maps.q, bar.own, h, t0 + r, b);
      copy_box_rows<kOwn, D>(dys, r, maps.dy, bar.own, h, t0 + r, b);
    }
    Ring<kStages> ring;
    for (int j0 = from; j0 < hi; j0 += kKeys, ring.next()) {
      const int at = ring.stage * kKeys * D;
      wait_phase(bar.k_empty[ring.stage], ring.parity ^ 1);
      expect_bytes(bar.k_full[ring.stage], kKeys * D * 2);
      for (int r = 0; r < kKeys; r += kBoxRows)
        copy_box_rows<kKeys, D>(ks + at, r, maps.k, bar.k_full[ring.stage], g, j0 + r, b);
      wait_phase(bar.v_empty[ring.stage], ring.parity ^ 1);
      expect_bytes(bar.v_full[ring.stage], kKeys * D * 2);
      for (int r = 0; r < kKeys; r += kBoxRows)
        copy_box_rows<kKeys, D>(vs + at, r, maps.v, bar.v_full[ring.stage], g, j0 + r, b);
    }
  } else {
    take_registers<240>();
    const int own = (int(threadIdx.x) / kGroupThreads - 1) * 64;
    query_rows<T, D>(a, bar, qs + own * kPanelColumns, dys + own * kPanelColumns, ks, vs, b, h,
                     t0 + own, from, hi, pairs);
  }
#endif
}

template <class T, int D>
__global__ void __launch_bounds__(kBackwardThreads, 1)
    dkv_hopper_kernel(HalfBackward<T> a, const __grid_constant__ BackwardMaps maps, bool pairs) {
#ifdef STRATA_WARPGROUP_MMA
  constexpr int kQueries = KeyPass<D>::kQueries, kStages = KeyPass<D>::kStages;
  extern __shared__ char shared_room[];
  __shared__ KeyBarriers bar;
  __shared__ __align__(16) float sums[kStages][2][64];
  T* ks = aligned_room<T>(shared_room);
  T* vs = ks + kOwn * D;
  T* qs = vs + kOwn * D;
  T* dys = qs + kStages * kQueries * D;
  // Early keys are seen by most queries and go first.
  const int heads = a.batch * a.n_kv_heads, head = int(blockIdx.x) % heads;
  const int j0 = int(blockIdx.x) / heads * kOwn, b = head / a.n_kv_heads, g = head % a.n_kv_heads;
  const auto [begin, end] = queries_seeing(a, b, j0, min(j0 + kOwn, a.kv_len));
  const int from = begin / kQueries * kQueries;
  const int tiles = end > begin ? (end - from + kQueries - 1) / kQueries : 0;
  if (threadIdx.x == 0) {
    init_barrier(bar.own, 1);
    for (int i = 0; i < kStages; ++i) {
      init_barrier(bar.full[i], 1);
      init_barrier(bar.empty[i], kGroups * kGroupThreads / kWarp);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    give_registers<24>();
    if (threadIdx.x != 0) return;
    expect_bytes(bar.own, 2 * kOwn * D * 2);
    for (int r = 0; r < kOwn; r += kBoxRows) {
      copy_box_rows<kOwn, D>(ks, r, maps.k, bar.own, g, j0 + r, b);
      copy_box_rows<kOwn, D>(vs, r, maps.v, bar.own, g, j0 + r, b);
    }
    Ring<kStages> ring;
    for (int h = g * a.group; h < (g + 1) * a.group; ++h)
      for (int i = 0; i < tiles; ++i, ring.next()) {
        const int t0 = from + i * kQueries, at = ring.stage * kQueries * D;
        Barrier& full = bar.full[ring.stage];
        wait_phase(bar.empty[ring.stage], ring.parity ^ 1);
        expect_bytes(full, 2 * kQueries * D * 2 + 2 * 64 * 4);
        copy_box_rows<kQueries, D>(qs + at, 0, maps.q, full, h, t0, b);
        copy_box_rows<kQueries, D>(dys + at, 0, maps.dy, full, h, t0, b);
        copy_bulk(sums[ring.stage][0], a.lse2 + a.padded_offset(b, h) + t0, 256, full);
        copy_bulk(sums[ring.stage][1], a.delta + a.padded_offset(b, h) + t0, 256, full);
      }
  } else {
    take_registers<240>();
    const int own = (int(threadIdx.x) / kGroupThreads - 1) * 64;
    key_rows<T, D>(a, bar, ks + own * kPanelColumns, vs + own * kPanelColumns, qs, dys, sums, b, g,
                   j0 + own, from, tiles, pairs);
  }
#endif
}

template <class T, int D>
void launch(const AttendBackwardArgs& args, const HalfBackward<T>& a, cudaStream_t stream) {
  const BackwardMaps maps{tile_map<T>(args.forward.q, a.n_heads), tile_map<T>(args.dy, a.n_heads),
                          tile_map<T>(args.forward.k, a.n_kv_heads),
                          tile_map<T>(args.forward.v, a.n_kv_heads)};
  const int tiles = (a.q_len + kOwn - 1) / kOwn, key_tiles = (a.kv_len + kOwn - 1) / kOwn;
  if (a.dq.wanted)
    launch_shared(&dq_hopper_kernel<T, D>, int64_t(tiles) * a.batch * a.n_heads, kBackwardThreads,
                  QueryPass<D>::kBytes, stream, a, maps, tiles, has_pairs(a.dq, a.dim));
  const bool pairs =
      (!a.dk.wanted || has_pairs(a.dk, a.dim)) && (!a.dv.wanted || has_pairs(a.dv, a.dim));
  if (a.dk.wanted || a.dv.wanted)
    launch_shared(&dkv_hopper_kernel<T, D>, int64_t(key_tiles) * a.batch * a.n_kv_heads,
                  kBackwardThreads, KeyPass<D>::kBytes, stream, a, maps, pairs);
}

}  // namespace

bool attend_backward_hopper(const AttendBackwardArgs& args, Stream s) {
  const AttendArgs& f = args.forward;
  const bool suits = f.options.head_dim <= 128 && f.q.shape[1] >= 64 && f.q.shape[0] > 0 && f.k &&
                     f.options.softcap == 0 && HalfBackward<bf16>(args).packs;
  if (!suits || !has_warpgroup_mma()) return false;
  const HalfBackward<bf16> a(args);
  const cudaStream_t stream = stream_of(s);
  find_documents<bf16>(a, stream);
  find_row_sums(a, stream);
  if (a.dim <= 64)
    launch<bf16, 64>(args, a, stream);
  else
    launch<bf16, 128>(args, a, stream);
  check_launch("attend_backward");
  return true;
}

}  // namespace strata
