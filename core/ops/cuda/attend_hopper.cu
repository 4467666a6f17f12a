// Attention on bf16 and f16 for compute capability 9.0 (FlashAttention-3, arXiv 2407.08608): a warp
// copies keys and values, two warpgroups of 64 queries of a head each multiply. The products of
// weights and values run while the next weights are found, and the warpgroups take turns.
#include "core/ops/cuda/attend_hopper.cuh"

#include "core/ops/cuda/attend_hopper.h"

#include <algorithm>

#include "core/ops/cuda/attend_split.cuh"

namespace strata {
namespace {

constexpr int kGroups = 2, kRows = kGroups * 64, kKeys = 128, kStages = 2;
static_assert(kRows == kHeadTileQueries);
constexpr int kLeastQueries = 48;  // that are worth a tile of one head

struct HopperMaps {
  CUtensorMap q, k, v;
};

template <class T, int D>
struct HopperTile {
  static constexpr int kBytes = 2 * (kRows + kStages * kKeys) * D * 2 + 1024;  // q, k, v; y
};

#ifdef STRATA_WARPGROUP_MMA

struct ForwardBarriers {
  Barrier q_full, q_empty, k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};

// A tile of queries of a head, or a split of its keys.
struct Work {
  int split, b, h, g, t0, lo, hi, origin;

  template <class T>
  __device__ __forceinline__ Work(const Attention<T>& a, int tiles, int splits, int item) {
    split = item % splits;
    const int block = item / splits, heads = a.batch * a.n_heads, head = block % heads;
    // Late tiles see most keys and go first, so that the end is even.
    t0 = (tiles - 1 - block / heads) * kRows;
    b = head / a.n_heads;
    h = head % a.n_heads;
    g = h / a.group;
    const KeyRange range = KeySplits(a, b, t0, min(t0 + kRows, a.q_len) - 1, splits).at(split);
    lo = range.lo;
    hi = range.hi;
    origin = lo / kBoxRows * kBoxRows;
  }
  __device__ __forceinline__ int turns() const {
    return hi > lo ? (hi - origin + kKeys - 1) / kKeys : 0;
  }
};

// The tile of keys or values from j0 on. What lies behind the last page reads zero.
template <int D, class T>
__device__ __forceinline__ void copy_keys_tile(T* to, const Attention<T>& a, const PagesRef& pages,
                                               const Work& work, int j0, const CUtensorMap& map,
                                               Barrier& full) {
  expect_bytes(full, kKeys * D * 2);
#pragma unroll
  for (int r = 0; r < kKeys; r += kBoxRows) {
    int row = j0 + r, outer = work.b;
    if (pages) {
      const bool have = row < work.hi;
      outer = have ? pages.table[work.b * pages.table_pitch + row / kBoxRows] : 0;
      row = have ? 0 : kBoxRows;
    }
    copy_box_rows<kKeys, D>(to, r, map, full, work.g, row, outer);
  }
}

// f(work) for the block's share of all work: of every round of gridDim.x items one, in
// turn from the front and from the back, because items get shorter.
template <class T, class F>
__device__ __forceinline__ void for_each_work(const Attention<T>& a, int tiles, int splits,
                                              const F& f) {
  const int items = tiles * a.batch * a.n_heads * splits, width = gridDim.x, own = blockIdx.x;
  for (int from = 0, round = 0; from < items; from += width, ++round) {
    const int item = from + (round % 2 ? width - 1 - own : own);
    if (item >= items) continue;
    const Work work(a, tiles, splits, item);
    if (splits == 1 || work.turns() > 0) f(work);
  }
}

template <class T, int D>
__device__ __forceinline__ void copy_work(const Attention<T>& a, const HopperMaps& maps,
                                          const Work& work, ForwardBarriers& bar, T* qs, T* ks,
                                          T* vs, Ring<1>& q_ring, Ring<kStages>& ring) {
  for (int i = 0; i < work.turns(); ++i, ring.next()) {
    const int j0 = work.origin + i * kKeys, at = ring.stage * kKeys * D;
    wait_phase(bar.k_empty[ring.stage], ring.parity ^ 1);
    copy_keys_tile<D>(ks + at, a, a.k_pages, work, j0, maps.k, bar.k_full[ring.stage]);
    if (i == 0) {
      wait_phase(bar.q_empty, q_ring.parity ^ 1);
      q_ring.next();
      expect_bytes(bar.q_full, kRows * D * 2);
#pragma unroll
      for (int r = 0; r < kRows; r += kBoxRows)
        copy_box_rows<kRows, D>(qs, r, maps.q, bar.q_full, work.h, work.t0 + r, work.b);
    }
    wait_phase(bar.v_empty[ring.stage], ring.parity ^ 1);
    copy_keys_tile<D>(vs + at, a, a.v_pages, work, j0, maps.v, bar.v_full[ring.stage]);
  }
}

// One warpgroup's 64 queries.
template <class T, int D>
struct Consumer {
  const Attention<T>& a;
  const Work& work;
  ForwardBarriers& bar;
  const T *qs, *ks;
  T* vs;
  int group, lane_warp;
  float unit;
  Ring<1>& q_ring;
  Ring<kStages>&k_ring, &v_ring;
  Softmax<1> softmax;
  float o[1][D / 8][4];
  uint32_t w[kKeys / 16][4];

  __device__ __forceinline__ void done(Barrier& b) const {
    if (threadIdx.x % kWarp == 0) arrive(b);
  }
  __device__ __forceinline__ void mask(float (&s)[1][kKeys / 8][4], int j0) const {
    const int last = a.q_len - 1, t = work.t0 + group * 64;
    if (!is_masked(a, work.b, min(t, last), min(t + 63, last), j0, kKeys) && j0 >= work.lo &&
        j0 + kKeys <= work.hi)
      return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      KeyRange seen = a.key_range(work.b, min(t + lane_warp * 16 + half * 8 + lane_row(), last));
      seen.lo = max(seen.lo, work.lo) - j0 - lane_column();
      seen.hi = min(seen.hi, work.hi) - j0 - lane_column();
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (j * 8 + e < seen.lo || j * 8 + e >= seen.hi) s[0][j][2 * half + e] = -INFINITY;
    }
  }
  // Rows of a page behind the sequence's end may never have been written.
  __device__ __forceinline__ void clear_values(T* v, int j0) const {
    if (!a.v_pages || j0 + kKeys <= work.hi) return;
    for (int i = threadIdx.x % kGroupThreads; i < kKeys * D / 8; i += kGroupThreads) {
      const int panel = i / (kKeys * 8), r = i / 8 % kKeys;
      if (j0 + r >= work.hi)
        *reinterpret_cast<uint4*>(v + panel * kKeys * kPanelColumns + r * kPanelColumns +
                                  i % 8 * 8) = {};
    }
    publish_shared();
    sync_some(3 + group, kGroupThreads);
  }

  __device__ __forceinline__ void run() {
    const T* q = qs + group * 64 * kPanelColumns;
    const int turns = work.turns();
    int j0 = work.origin;
    float s[1][kKeys / 8][4];
    wait_phase(bar.q_full, q_ring.parity);
    q_ring.next();
    wait_phase(bar.k_full[k_ring.stage], k_ring.parity);
    begin_products();
    multiply_tiles<T, D, kRows>(s[0], q, ks + k_ring.stage * kKeys * D);
    commit_products();
    wait_products<0>();
    pin(s[0]);
    done(bar.k_empty[k_ring.stage]);
    if (turns == 1) done(bar.q_empty);
    k_ring.next();
    cap_scores(a, s);
    mask(s, j0);
    weigh(s);
    narrow_tile<T>(w, s[0]);
    for (int i = 1; i < turns; ++i) {
      wait_phase(bar.k_full[k_ring.stage], k_ring.parity);
      sync_some(1 + group, kGroups * kGroupThreads);
      begin_products();
      multiply_tiles<T, D, kRows>(s[0], q, ks + k_ring.stage * kKeys * D);
      commit_products();
      wait_phase(bar.v_full[v_ring.stage], v_ring.parity);
      add_tile<T, kKeys>(o[0], w, vs + v_ring.stage * kKeys * D, true);
      commit_products();
      arrive_some(2 - group, kGroups * kGroupThreads);
      wait_products<1>();
      pin(s[0]);
      done(bar.k_empty[k_ring.stage]);
      if (i + 1 == turns) done(bar.q_empty);
      k_ring.next();
      j0 += kKeys;
      cap_scores(a, s);
      mask(s, j0);
      float shrink[2];
      weigh(s, shrink);
      wait_products<0>();
      pin(o[0]);
      done(bar.v_empty[v_ring.stage]);
      v_ring.next();
      narrow_tile<T>(w, s[0]);
#pragma unroll
      for (int c = 0; c < D / 8; ++c)
#pragma unroll
        for (int e = 0; e < 4; ++e) o[0][c][e] *= shrink[e / 2];
    }
    wait_phase(bar.v_full[v_ring.stage], v_ring.parity);
    clear_values(vs + v_ring.stage * kKeys * D, j0);
    begin_products();
    add_tile<T, kKeys>(o[0], w, vs + v_ring.stage * kKeys * D, true);
    commit_products();
    wait_products<0>();
    pin(o[0]);
    done(bar.v_empty[v_ring.stage]);
    v_ring.next();
  }
  __device__ __forceinline__ void weigh(float (&s)[1][kKeys / 8][4]) {
    float shrink[2];
    weigh(s, shrink);
  }
  __device__ __forceinline__ void weigh(float (&s)[1][kKeys / 8][4], float (&shrink)[2]) {
    const float before[2] = {softmax.top[0][0], softmax.top[0][1]};
    float none[1][1][4] = {};
    softmax.add(s, none, unit);
#pragma unroll
    for (int half = 0; half < 2; ++half)
      shrink[half] = exp2_fast((before[half] - softmax.top[0][half]) * unit);
  }

  // y (or the sums of a split) and lse; y goes through shared memory, 16 bytes at a time.
  __device__ __forceinline__ void store(T* staging, const Partials& partials) {
    const int row = lane_warp * 16 + lane_row(), t0 = work.t0 + group * 64;
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = row + half * 8;
      const float sum = quad_sum(softmax.sum[0][half]), top = softmax.top[0][half] * unit;
      const int64_t at = a.head_offset(work.b, t0 + r, work.h);
      if (partials.splits > 1) {
        if (t0 + r >= a.q_len) continue;
        float* out = partials.at(at, work.split);
#pragma unroll
        for (int c = 0; c < D / 8; ++c)
          if (const int d = c * 8 + lane_column(); d < a.dim)
            store_pack(out + d, Pack<float, 2>{o[0][c][2 * half], o[0][c][2 * half + 1]});
        if (threadIdx.x % 4 == 0) store_pack(out + partials.pitch - 4, Pack<float, 2>{top, sum});
        continue;
      }
      const float factor = sum == 0 ? 0.f : 1.f / sum;  // a row without keys gives zero
      if (a.lse && t0 + r < a.q_len && threadIdx.x % 4 == 0)
        a.lse[at] = (top + log2f(sum)) * float(kLn2);
#pragma unroll
      for (int c = 0; c < D / 8; ++c)
        *reinterpret_cast<uint32_t*>(staging + r * D + (c ^ r % 8) * 8 + lane_column()) =
            pack2<T>(o[0][c][2 * half] * factor, o[0][c][2 * half + 1] * factor);
    }
    if (partials.splits > 1) return;
    __syncwarp();
    for (int i = threadIdx.x % kWarp; i < 16 * (D / 8); i += kWarp) {
      const int r = lane_warp * 16 + i / (D / 8), c = i % (D / 8);
      if (t0 + r < a.q_len && c * 8 < a.dim)
        store_pack(a.y + a.offset(work.b, t0 + r, work.h, a.y_pitch) + c * 8,
                   load_pack<8>(staging + r * D + (c ^ r % 8) * 8));
    }
  }
};

#endif

template <class T, int D>
__global__ void __launch_bounds__((1 + kGroups) * kGroupThreads, 1)
    attend_hopper_kernel(Attention<T> a, const __grid_constant__ HopperMaps maps, int tiles,
                         Partials partials) {
#ifdef STRATA_WARPGROUP_MMA
  extern __shared__ char shared_room[];
  __shared__ ForwardBarriers bar;
  T* qs = reinterpret_cast<T*>(shared_room + (1024 - shared_address(shared_room) % 1024) % 1024);
  T* ks = qs + kRows * D;
  T* vs = ks + kStages * kKeys * D;
  T* ys = vs + kStages * kKeys * D;
  if (threadIdx.x == 0) {
    constexpr int kWarps = kGroups * kGroupThreads / kWarp;
    init_barrier(bar.q_full, 1);
    init_barrier(bar.q_empty, kWarps);
    for (int i = 0; i < kStages; ++i) {
      init_barrier(bar.k_full[i], 1);
      init_barrier(bar.v_full[i], 1);
      init_barrier(bar.k_empty[i], kWarps);
      init_barrier(bar.v_empty[i], kWarps);
    }
    publish_barriers();
  }
  __syncthreads();
  Ring<1> q_ring;
  Ring<kStages> k_ring, v_ring;
  if (threadIdx.x < kGroupThreads) {
    give_registers<24>();
    if (threadIdx.x != 0) return;
    for_each_work(a, tiles, partials.splits, [&](const Work& work) {
      copy_work<T, D>(a, maps, work, bar, qs, ks, vs, q_ring, k_ring);
    });
  } else {
    take_registers<240>();
    const int group = int(threadIdx.x) / kGroupThreads - 1;
    // The warpgroups take turns to issue: an arrival of one lets the other begin.
    if (group == 1) arrive_some(1, kGroups * kGroupThreads);
    for_each_work(a, tiles, partials.splits, [&](const Work& work) {
      Consumer<T, D> c{a,
                       work,
                       bar,
                       qs,
                       ks,
                       vs,
                       group,
                       int(threadIdx.x) % kGroupThreads / kWarp,
                       score_unit(a),
                       q_ring,
                       k_ring,
                       v_ring};
#pragma unroll
      for (int i = 0; i < D / 8; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) c.o[0][i][e] = 0;
      if (work.turns() > 0) c.run();
      c.store(ys + group * 64 * D, partials);
    });
    if (group == 0) sync_some(1, kGroups * kGroupThreads);
  }
#endif
}

template <class T, int D>
void launch(const AttendArgs& args, const Attention<T>& a, cudaStream_t stream) {
  HopperMaps maps;
  maps.q = tile_map<T>(args.q, a.n_heads);
  maps.k =
      a.k_pages ? tile_map<T>(a.k_pages, a.n_kv_heads, a.dim) : tile_map<T>(args.k, a.n_kv_heads);
  maps.v =
      a.v_pages ? tile_map<T>(a.v_pages, a.n_kv_heads, a.dim) : tile_map<T>(args.v, a.n_kv_heads);
  const Partials partials = partials_of(args, true);
  const int tiles = (a.q_len + kRows - 1) / kRows;
  // Blocks that keep the card's multiprocessors and copy one tile while they finish the last; where
  // lengths differ, the card hands out the work.
  int64_t blocks = int64_t(tiles) * a.batch * a.n_heads * partials.splits;
  if (!a.k_pages && !a.documents) blocks = std::min<int64_t>(blocks, multiprocessors());
  launch_shared(&attend_hopper_kernel<T, D>, blocks, (1 + kGroups) * kGroupThreads,
                HopperTile<T, D>::kBytes, stream, a, maps, tiles, partials);
  if (partials.splits > 1) join_splits(a, partials, kRows, 1, stream);
}

template <class T>
void run(const AttendArgs& args, Stream s) {
  const Attention<T> a(args);
  const cudaStream_t stream = stream_of(s);
  find_documents(a, stream);
  if (a.dim <= 64)
    launch<T, 64>(args, a, stream);
  else
    launch<T, 128>(args, a, stream);
  check_launch("attend");
}

}  // namespace

bool attend_hopper(const AttendArgs& args, Stream s) {
  const bool suits = args.options.head_dim <= 128 && args.q.shape[1] >= kLeastQueries &&
                     args.q.shape[0] > 0 && Attention<bf16>(args).packs;
  if (!suits || !has_warpgroup_mma()) return false;
  if (args.q.dtype == DType::bf16)
    run<bf16>(args, s);
  else
    run<f16>(args, s);
  return true;
}

}  // namespace strata
