// Keys cut into splits, for few queries over many keys: a block per split leaves its weighted
// values, maximum and divisor in float32, and a second kernel joins the splits in order
// (FlashDecoding).
#pragma once

#include "core/ops/cuda/attend_mma.cuh"

namespace strata {
namespace {

constexpr int kSplitTokens = 128;  // the least keys of a split

// The keys of queries t0 ... t1 of sequence b in at most `most` splits of whole pages: a number
// that depends on the sequence's own length.
struct KeySplits {
  int lo, hi, origin, tokens, count;

  template <class T>
  __device__ __forceinline__ KeySplits(const Attention<T>& a, int b, int t0, int t1, int most) {
    constexpr int kPage = int(kPageTokens);
    lo = a.key_range(b, t0).lo;
    hi = a.key_range(b, t1).hi;
    origin = lo / kPage * kPage;
    const int even = (hi - origin + most - 1) / most;
    tokens = most == 1 ? hi - origin : max(kSplitTokens, (even + kPage - 1) / kPage * kPage);
    count = tokens > 0 ? (hi - origin + tokens - 1) / tokens : 0;
  }
  __device__ __forceinline__ KeyRange at(int split) const {
    const int start = origin + split * tokens;
    return {max(lo, start), min(hi, start + tokens)};
  }
};

// Where splits leave their sums: (batch, q_len, n_heads, splits, pitch) f32, the maximum (in units
// of log 2) and the divisor in the last four of a pitch.
struct Partials {
  float* base;
  int splits, pitch;

  __device__ __forceinline__ float* at(int64_t head_offset, int split) const {
    return base + (head_offset * splits + split) * pitch;
  }
};

// Only pages are cut. heads: for tiles of one head's queries.
inline Partials partials_of(const AttendArgs& args, bool heads) {
  const AttendWorkspaceCuda size(args, 2);
  const int64_t splits = !args.k_pages ? 1 : heads ? size.head_splits : size.splits;
  return {args.workspace.ptr<float>(), int(splits), int(size.partial_pitch)};
}

constexpr int kJoinWarps = 8;
constexpr int kFewSplits = 8;  // that one warp joins

// What a join makes: y and lse of query t and head h of sequence b, from `count` splits. tile_rows:
// rows (queries, `heads` heads of a group) that were cut together.
struct JoinRow {
  int b, t, h, count;

  template <class T>
  __device__ __forceinline__ JoinRow(const Attention<T>& a, const Partials& partials, int64_t i,
                                     int tile_rows, int heads) {
    h = int(i % a.n_heads);
    t = int(i / a.n_heads % a.q_len);
    b = int(i / a.n_heads / a.q_len);
    const int first = (t * heads + h % heads) / tile_rows * tile_rows;
    const int last = min(first + tile_rows, a.q_len * heads) - 1;
    count = KeySplits(a, b, first / heads, last / heads, partials.splits).count;
  }
  template <class T>
  __device__ __forceinline__ void put_lse(const Attention<T>& a, float top, float total) const {
    if (a.lse) a.lse[a.head_offset(b, t, h)] = (top + log2f(total)) * float(kLn2);
  }
};

// Maximum and divisor of split s of a row, whose sums start at p.
__device__ __forceinline__ Pack<float, 2> split_state(const float* p, int s, int count, int pitch) {
  return s < count ? load_pack<2>(p + s * pitch + pitch - 4) : Pack<float, 2>{kNoScore, 0.f};
}

// A row per block: warp w adds up every kJoinWarps-th split, then the warps' sums are added in
// order.
template <class T>
__global__ void __launch_bounds__(kJoinWarps* kWarp)
    join_kernel(Attention<T> a, Partials partials, int tile_rows, int heads) {
  constexpr int kBatch = 4, kMaxDim = 256;  // kBatch: splits whose loads are under way at a time
  __shared__ float factors[kMaxStepSplits], room[kJoinWarps];
  __shared__ __align__(16) float sums[kJoinWarps][kMaxDim];
  static_assert(kMaxStepSplits <= kJoinWarps * kWarp);
  const JoinRow row(a, partials, blockIdx.x, tile_rows, heads);
  const int pitch = partials.pitch, lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const float* p = partials.at(blockIdx.x, 0);
  const Pack<float, 2> mine = split_state(p, threadIdx.x, row.count, pitch);
  const float top = block_max(mine[0], room);
  const float factor = exp2_fast(mine[0] - top);
  if (int(threadIdx.x) < row.count) factors[threadIdx.x] = factor;
  const float total = block_sum(factor * mine[1], room);
  for (int d = lane * 4; d < pitch - 4; d += kWarp * 4) {
    Pack<float, 4> sum{};
    for (int s = warp; s < row.count; s += kJoinWarps * kBatch) {
      Pack<float, 4> x[kBatch];
#pragma unroll
      for (int n = 0; n < kBatch; ++n)
        x[n] = load_pack<4>(p + min(s + n * kJoinWarps, row.count - 1) * pitch + d);
#pragma unroll
      for (int n = 0; n < kBatch; ++n) {
        const float weight = s + n * kJoinWarps < row.count ? factors[s + n * kJoinWarps] : 0.f;
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[e] = fmaf(weight, x[n][e], sum[e]);
      }
    }
    store_pack(&sums[warp][d], sum);
  }
  __syncthreads();
  const float scale = total == 0 ? 0.f : 1.f / total;
  T* y = a.y + a.offset(row.b, row.t, row.h, a.y_pitch);
  for (int d = threadIdx.x; d < a.dim; d += kJoinWarps * kWarp) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kJoinWarps; ++w) sum += sums[w][d];
    y[d] = narrow_to<T>(sum * scale);
  }
  if (threadIdx.x == 0) row.put_lse(a, top, total);
}

// A row per warp, for at most kFewSplits splits.
template <class T>
__global__ void __launch_bounds__(kJoinWarps* kWarp)
    join_few_kernel(Attention<T> a, Partials partials, int tile_rows, int heads, int64_t rows) {
  const int lane = threadIdx.x % kWarp, pitch = partials.pitch;
  const int64_t i = int64_t(blockIdx.x) * kJoinWarps + threadIdx.x / kWarp;
  if (i >= rows) return;
  const JoinRow row(a, partials, i, tile_rows, heads);
  const float* p = partials.at(i, 0);
  const Pack<float, 2> mine = split_state(p, lane, row.count, pitch);
  const float top = warp_max(mine[0]), factor = exp2_fast(mine[0] - top);
  const float total = warp_sum(factor * mine[1]), scale = total == 0 ? 0.f : 1.f / total;
  float weights[kFewSplits];
#pragma unroll
  for (int s = 0; s < kFewSplits; ++s) weights[s] = __shfl_sync(kAllLanes, factor, s);
  T* y = a.y + a.offset(row.b, row.t, row.h, a.y_pitch);
  for (int d = lane * 4; d < a.dim; d += kWarp * 4) {
    Pack<float, 4> sum{};
#pragma unroll
    for (int s = 0; s < kFewSplits; ++s) {
      if (s >= row.count) break;
      const Pack<float, 4> x = load_pack<4>(p + s * pitch + d);
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[e] = fmaf(weights[s], x[e], sum[e]);
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[e] *= scale;
    const Pack<T, 4> out = narrow<T>(sum);
    if (a.packs) {
      store_pack(y + d, out);
    } else {
      for (int e = 0; e < 4 && d + e < a.dim; ++e) y[d + e] = out[e];
    }
  }
  if (lane == 0) row.put_lse(a, top, total);
}

template <class T>
void join_splits(const Attention<T>& a, const Partials& partials, int tile_rows, int heads,
                 cudaStream_t stream) {
  constexpr int kJoinThreads = kJoinWarps * kWarp;
  const int64_t rows = int64_t(a.batch) * a.q_len * a.n_heads;
  if (rows == 0) return;
  if (partials.splits > kFewSplits)
    join_kernel<T><<<unsigned(rows), kJoinThreads, 0, stream>>>(a, partials, tile_rows, heads);
  else
    join_few_kernel<T><<<unsigned((rows + kJoinWarps - 1) / kJoinWarps), kJoinThreads, 0, stream>>>(
        a, partials, tile_rows, heads, rows);
}

}  // namespace
}  // namespace strata
