// Attention on bf16 and f16 (FlashAttention-2, arXiv 2307.08691): a warp takes rows of queries of
// one key-value head, holds its scores, weights and sums in registers, and walks the keys. Row r is
// query r / group, head g * group + r % group, so that the query heads that share keys share their
// loads. Few queries over pages cut the keys into splits.
#include "core/ops/cuda/attend_hopper.h"
#include "core/ops/cuda/attend_split.cuh"

namespace strata {
namespace {

constexpr int kTileWarps = 4, kTileThreads = kTileWarps * kWarp;

template <int D>
struct ForwardTile {
  static constexpr int kRows = int(half_tile_rows(D)), kKeys = 64, P = padded_row(D);
  static constexpr int M = kRows / (16 * kTileWarps);  // tiles of 16 rows of a warp
  static constexpr int kBytes = (kRows + 2 * kKeys) * P * 2;
};

template <class T, int D>
__global__ void __launch_bounds__(kTileThreads)
    attend_half_kernel(Attention<T> a, int tiles, int heads, Partials partials) {
  using Tile = ForwardTile<D>;
  constexpr int kRows = Tile::kRows, kKeys = Tile::kKeys, P = Tile::P, M = Tile::M;
  extern __shared__ __align__(16) char shared_room[];
  T* qs = reinterpret_cast<T*>(shared_room);  // (kRows, D); at the end, y
  T* ks = qs + kRows * P;                     // (kKeys, D)
  T* vs = ks + kKeys * P;                     // (kKeys, D)

  // Late tiles see most keys and go first, so that the end is even.
  const int split = int(blockIdx.x) % partials.splits, block = int(blockIdx.x) / partials.splits;
  const int head = block % heads, first = (tiles - 1 - block / heads) * kRows;
  const int b = head / a.n_kv_heads, g = head % a.n_kv_heads;
  const int rows = min(kRows, a.q_len * a.group - first);
  const int t0 = first / a.group, t1 = (first + rows - 1) / a.group;
  const auto [lo, hi] = KeySplits(a, b, t0, t1, partials.splits).at(split);
  if (partials.splits > 1 && lo >= hi) return;
  const Rows<T> keys(a, a.k, a.k_pitch, a.k_pages, b, g);
  const Rows<T> values(a, a.v, a.v_pitch, a.v_pages, b, g);
  const int warp_row = int(threadIdx.x) / kWarp * M * 16;

  copy_rows<T, kRows, D, kTileThreads>(qs, a, threadIdx.x, [&](int r) -> const T* {
    if (r >= rows) return nullptr;
    const int t = (first + r) / a.group, h = g * a.group + (first + r) % a.group;
    return a.q + a.offset(b, t, h, a.q_pitch);
  });
  int j0 = lo / kKeys * kKeys;
  if (j0 < hi) copy_keys<T, kKeys, D, kTileThreads>(ks, a, keys, j0, lo, hi, threadIdx.x);
  commit_copies();

  const float unit = score_unit(a);
  Softmax<M> softmax;
  float o[M][D / 8][4] = {};
  for (; j0 < hi; j0 += kKeys) {
    wait_copies<0>();
    __syncthreads();  // the keys are there, the last values done with
    copy_keys<T, kKeys, D, kTileThreads>(vs, a, values, j0, lo, hi, threadIdx.x);
    commit_copies();
    float s[M][kKeys / 8][4] = {};
    multiply_rows<T, D>(qs + warp_row * P, ks, s);
    wait_copies<0>();
    __syncthreads();  // the values are there, the keys done with
    if (j0 + kKeys < hi)
      copy_keys<T, kKeys, D, kTileThreads>(ks, a, keys, j0 + kKeys, lo, hi, threadIdx.x);
    commit_copies();

    cap_scores(a, s);
    if (is_masked(a, b, t0, t1, j0, kKeys) || j0 < lo || j0 + kKeys > hi) {
#pragma unroll
      for (int i = 0; i < M; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int r = min(warp_row + i * 16 + half * 8 + lane_row(), rows - 1);
          KeyRange seen = a.key_range(b, (first + r) / a.group);
          seen.lo = max(seen.lo, lo) - j0 - lane_column();
          seen.hi = min(seen.hi, hi) - j0 - lane_column();
#pragma unroll
          for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
            for (int e = 0; e < 2; ++e)
              if (j * 8 + e < seen.lo || j * 8 + e >= seen.hi) s[i][j][2 * half + e] = -INFINITY;
        }
    }
    softmax.add(s, o, unit);
    add_weighted<T, D>(s, vs, o);
  }
  wait_copies<0>();
  if (lo >= hi) __syncthreads();

#pragma unroll
  for (int i = 0; i < M; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = warp_row + i * 16 + half * 8 + lane_row();
      const float sum = quad_sum(softmax.sum[i][half]), top = softmax.top[i][half] * unit;
      const float factor = sum == 0 ? 0.f : 1.f / sum;  // a row without keys gives zero
      const int64_t at =
          a.head_offset(b, (first + r) / a.group, g * a.group + (first + r) % a.group);
      if (partials.splits > 1) {
        if (r >= rows) continue;
        float* out = partials.at(at, split);
#pragma unroll
        for (int c = 0; c < D / 8; ++c)
          if (const int d = c * 8 + lane_column(); d < partials.pitch - 4)
            store_pack(out + d, Pack<float, 2>{o[i][c][2 * half], o[i][c][2 * half + 1]});
        if (threadIdx.x % 4 == 0) store_pack(out + partials.pitch - 4, Pack<float, 2>{top, sum});
        continue;
      }
#pragma unroll
      for (int c = 0; c < D / 8; ++c)
        *reinterpret_cast<uint32_t*>(qs + r * P + c * 8 + lane_column()) =
            pack2<T>(o[i][c][2 * half] * factor, o[i][c][2 * half + 1] * factor);
      if (a.lse && r < rows && threadIdx.x % 4 == 0) a.lse[at] = (top + log2f(sum)) * float(kLn2);
    }
  if (partials.splits > 1) return;
  __syncwarp();  // a warp stores the rows that only it read and wrote
  for (int i = threadIdx.x % kWarp; i < M * 16 * (D / 8); i += kWarp) {
    const int r = warp_row + i / (D / 8), c = i % (D / 8) * 8;
    if (r >= rows || c >= a.dim) continue;
    const int t = (first + r) / a.group, h = g * a.group + (first + r) % a.group;
    T* y = a.y + a.offset(b, t, h, a.y_pitch) + c;
    if (a.packs) {
      store_pack(y, load_pack<8>(qs + r * P + c));
    } else {
      for (int e = 0; e < 8 && c + e < a.dim; ++e) y[e] = qs[r * P + c + e];
    }
  }
}

template <class T>
void attend_half(const AttendArgs& args, Stream s) {
  check_types(args);
  if (attend_hopper(args, s)) return;
  const Attention<T> a(args);
  const cudaStream_t stream = stream_of(s);
  find_documents(a, stream);
  const Partials partials = partials_of(args, false);
  with_half_width(a.dim, [&](auto width) {
    constexpr int D = decltype(width)::value;
    using Tile = ForwardTile<D>;
    const int tiles = (a.q_len * a.group + Tile::kRows - 1) / Tile::kRows;
    const int heads = a.batch * a.n_kv_heads;
    launch_shared(&attend_half_kernel<T, D>, int64_t(tiles) * heads * partials.splits, kTileThreads,
                  Tile::kBytes, stream, a, tiles, heads, partials);
    if (partials.splits > 1) join_splits(a, partials, Tile::kRows, a.group, stream);
  });
  check_launch("attend");
}

}  // namespace

STRATA_CUDA_HALF_KERNEL("attend", AttendArgs, attend_half)

}  // namespace strata
