// Attention for one new token per sequence over pages, and the append of new keys and values.
//
// A step reads every key and value once, so it is made to stream: the keys of a sequence are cut
// into splits of whole pages, a block per split and key-value head, so that one sequence fills the
// card. All query heads of a key-value head share each load. Each split leaves (weighted values,
// maximum, divisor); a second pass joins the splits in order.
#include <type_traits>

#include "core/ops/cuda/attend_args.cuh"

namespace strata {
namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr int kPage = int(kPageTokens);
constexpr int kMaxDim = 256;
constexpr int kKeyLanes = 8;                           // threads that share a key's scores
constexpr int kHalves = kPage * kKeyLanes / kThreads;  // keys of a thread per page

// Keys of one split: whole pages from `origin` on, a number that depends on the sequence's own
// length.
struct Splits {
  int lo, hi, origin, tokens, count;

  template <class T>
  __device__ __forceinline__ Splits(const Attention<T>& a, int b, int most) {
    const KeyRange range = a.key_range(b, 0);
    lo = range.lo;
    hi = range.hi;
    origin = lo / kPage * kPage;
    const int even = (hi - origin + most - 1) / most;
    tokens = max(kPage, (even + kPage - 1) / kPage * kPage);
    count = (hi - origin + tokens - 1) / tokens;
  }
};

// One split for up to kHeads query heads of one key-value head; N: elements of an access.
// width: head_dim rounded up to a power of two; kThreads / width keys are added up side by side.
template <class T, int kHeads, int N>
__global__ void __launch_bounds__(kThreads)
    step_kernel(Attention<T> a, int splits, int chunks, int width, T* partial) {
  static_assert(kHeads <= kWarps && kHeads <= kKeyLanes);
  __shared__ __align__(16) T room[kHeads * kMaxDim];  // queries; at the end, the threads' sums
  __shared__ __align__(16) T weights[2][kPage][kHeads];
  __shared__ T factors[2][kHeads];
  const int split = int(blockIdx.x) % splits, chunk = int(blockIdx.x) / splits % chunks;
  const int group = int(blockIdx.x) / splits / chunks;
  const int b = group / a.n_kv_heads, g = group % a.n_kv_heads;
  const int heads = min(kHeads, a.group - chunk * kHeads);
  const int first_head = g * a.group + chunk * kHeads;
  const Splits cut(a, b, splits);
  const int start = cut.origin + split * cut.tokens;
  const int from = max(cut.lo, start), to = min(cut.hi, start + cut.tokens);
  if (from >= to) return;
  const Rows<T> keys(a, a.k, a.k_pitch, a.k_pages, b, g);
  const Rows<T> values(a, a.v, a.v_pitch, a.v_pages, b, g);
  for (int i = threadIdx.x; i < kHeads * a.dim; i += kThreads) {
    const int h = i / a.dim, d = i % a.dim;
    room[h * kMaxDim + d] =
        h < heads ? a.q[a.offset(b, 0, first_head + h, a.q_pitch) + d] * a.query : T(0);
  }
  __syncthreads();

  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int part = threadIdx.x % kKeyLanes, slot = threadIdx.x / kKeyLanes;
  const int column = threadIdx.x % width, slice = threadIdx.x / width, slices = kThreads / width;
  T sums[kHeads] = {};
  T top = T(-1e30), divisor = 0;  // of head `warp`
  int buffer = 0;
  for (int j0 = start; j0 < to; j0 += kPage, buffer ^= 1) {
    // Scores: eight threads take a key and all heads.
    const T* k = keys.at(j0);
    T dots[kHalves][kHeads] = {};
    bool seen[kHalves];
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const int key = j0 + slot + half * (kPage / kHalves);
      seen[half] = key >= from && key < to;
    }
#pragma unroll 4
    for (int d = part * N; d < a.dim; d += kKeyLanes * N) {
      Pack<T, N> ks[kHalves] = {};
#pragma unroll
      for (int half = 0; half < kHalves; ++half)
        if (seen[half])
          ks[half] = load_pack<N>(k + (slot + half * (kPage / kHalves)) * keys.pitch + d);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const Pack<T, N> q = load_pack<N>(room + h * kMaxDim + d);
#pragma unroll
        for (int half = 0; half < kHalves; ++half)
#pragma unroll
          for (int e = 0; e < N; ++e) dots[half][h] += q.v[e] * ks[half].v[e];
      }
    }
#pragma unroll
    for (int half = 0; half < kHalves; ++half)
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        T s = dots[half][h];
#pragma unroll
        for (int step = kKeyLanes / 2; step > 0; step /= 2)
          s += __shfl_xor_sync(kAllLanes, s, step);
        if (part != h) continue;
        if (a.cap > 0) s = a.cap * tanh_of(s);
        weights[buffer][slot + half * (kPage / kHalves)][h] = seen[half] ? s : T(-INFINITY);
      }
    __syncthreads();
    // Scores to weights: warp h takes head h, two keys per lane.
    if (warp < kHeads) {
      T* w = &weights[buffer][0][warp];
      const T s0 = w[lane * kHeads], s1 = w[(lane + kWarp) * kHeads];
      const T most = warp_max(s0 > s1 ? s0 : s1), before = top;
      top = most > top ? most : top;
      const T p0 = exp2_of(s0 - top), p1 = exp2_of(s1 - top), factor = exp2_of(before - top);
      divisor = divisor * factor + warp_sum(p0 + p1);
      w[lane * kHeads] = p0;
      w[(lane + kWarp) * kHeads] = p1;
      if (lane == 0) factors[buffer][warp] = factor;
    }
    __syncthreads();
    // Weighted values: a thread takes a column, and every slices-th key.
#pragma unroll
    for (int h = 0; h < kHeads; ++h) sums[h] *= factors[buffer][h];
    if (column >= a.dim) continue;
    const T* v = values.at(j0) + column;
    const int end = min(to - j0, kPage);
#pragma unroll 8
    for (int j = max(from - j0, 0) + slice; j < end; j += slices) {
      const T value = v[j * values.pitch];
      const Pack<T, kHeads> w = load_pack<kHeads>(&weights[buffer][j][0]);
#pragma unroll
      for (int h = 0; h < kHeads; ++h) sums[h] += w.v[h] * value;
    }
  }

  // The slices' sums, in order. The last reads of the queries lie two barriers back.
#pragma unroll
  for (int h = 0; h < kHeads; ++h) room[(h * slices + slice) * width + column] = sums[h];
  __syncthreads();
  const int64_t step = int64_t(splits) * (a.dim + 2);  // of one head
  T* out = partial + (int64_t(b) * a.n_heads + first_head) * step + int64_t(split) * (a.dim + 2);
  for (int i = threadIdx.x; i < heads * a.dim; i += kThreads) {
    const int h = i / a.dim, d = i % a.dim;
    T sum = 0;
    for (int s = 0; s < slices; ++s) sum += room[(h * slices + s) * width + d];
    out[h * step + d] = sum;
  }
  if (warp < heads && lane == 0) {
    out[warp * step + a.dim] = top;
    out[warp * step + a.dim + 1] = divisor;
  }
}

// y and lse of one head of one sequence per block, from the splits: warp w adds up every kWarps-th
// of them, and then the warps' sums are added in order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    join_kernel(Attention<T> a, int splits, const T* partial) {
  static_assert(kMaxStepSplits <= kThreads);
  __shared__ T room[kWarps], factors[kThreads], sums[kWarps][kMaxDim];
  const int b = int(blockIdx.x) / a.n_heads, h = int(blockIdx.x) % a.n_heads;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const Splits cut(a, b, splits);
  const T* p = partial + int64_t(blockIdx.x) * splits * (a.dim + 2);
  const T* mine = p + int64_t(threadIdx.x) * (a.dim + 2) + a.dim;
  const bool have = int(threadIdx.x) < cut.count;
  const T top = block_max(have ? mine[0] : T(-1e30), room);
  const T factor = have ? exp2_of(mine[0] - top) : T(0);
  factors[threadIdx.x] = factor;
  const T total = block_sum(have ? factor * mine[1] : T(0), room);
  T acc[kMaxDim / kWarp] = {};
#pragma unroll 4
  for (int s = warp; s < cut.count; s += kWarps) {
    const T* from = p + int64_t(s) * (a.dim + 2);
#pragma unroll
    for (int c = 0; c < kMaxDim / kWarp; ++c)
      if (lane + c * kWarp < a.dim) acc[c] += factors[s] * from[lane + c * kWarp];
  }
#pragma unroll
  for (int c = 0; c < kMaxDim / kWarp; ++c) sums[warp][lane + c * kWarp] = acc[c];
  __syncthreads();
  const T scale = total == T(0) ? T(0) : T(1) / total;
  for (int d = threadIdx.x; d < a.dim; d += kThreads) {
    T sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += sums[w][d];
    a.y[a.offset(b, 0, h, a.y_pitch) + d] = sum * scale;
  }
  if (a.lse && threadIdx.x == 0) a.lse[a.head_offset(b, 0, h)] = top * T(kLn2) + log_of(total);
}

template <class T>
void attend_step_cuda(const AttendArgs& args, Stream s) {
  const Attention<T> a(args);
  const int splits = int(AttendWorkspaceCuda(args, sizeof(T)).splits);
  T* partial = args.workspace.ptr<T>();
  if (a.dim > kMaxDim)
    kernel_error("attend: head_dim must be at most %d on CUDA, got %d", kMaxDim, a.dim);
  if (a.batch == 0) return;
  int width = 1;
  while (width < a.dim) width *= 2;
  const auto run = [&](auto heads, auto pack) {
    constexpr int kHeads = decltype(heads)::value, N = decltype(pack)::value;
    const int chunks = (a.group + kHeads - 1) / kHeads;
    const int64_t blocks = int64_t(a.batch) * a.n_kv_heads * chunks * splits;
    step_kernel<T, kHeads, N>
        <<<unsigned(blocks), kThreads, 0, stream_of(s)>>>(a, splits, chunks, width, partial);
  };
  const auto run_heads = [&](auto heads) {
    if (a.packs)
      run(heads, std::integral_constant<int, kPack<T>>{});
    else
      run(heads, std::integral_constant<int, 1>{});
  };
  if (a.group == 1)
    run_heads(std::integral_constant<int, 1>{});
  else if (a.group <= 4)
    run_heads(std::integral_constant<int, 4>{});
  else
    run_heads(std::integral_constant<int, 8>{});
  join_kernel<T><<<unsigned(a.batch * a.n_heads), kThreads, 0, stream_of(s)>>>(a, splits, partial);
  check_launch("attend_step");
}

// rows (batch, len, width) become tokens lengths[b] + t of their sequences, N elements at once.
template <class T, int N>
__global__ void append_kernel(AppendPagesArgs a) {
  const int64_t len = a.rows.shape[1], packs = a.rows.cols() / N;
  STRATA_GRID_LOOP(i, a.rows.rows() * packs) {
    const int64_t row = i / packs, c = i % packs * N, b = row / len;
    T* to = a.pages.token<T>(b, a.pages.lengths[b] + row % len);
    store_pack(to + c, load_pack<N>(a.rows.row<T>(row) + c));
  }
}

template <class T>
void append_pages_cuda(const AppendPagesArgs& a, Stream s) {
  const int64_t n = a.rows.numel();
  if (packable(a.rows) && Attention<T>::packable(a.pages) && a.rows.cols() % kPack<T> == 0)
    append_kernel<T, kPack<T>><<<blocks_for(n / kPack<T>), kThreads, 0, stream_of(s)>>>(a);
  else
    append_kernel<T, 1><<<blocks_for(n), kThreads, 0, stream_of(s)>>>(a);
  check_launch("append_pages");
}

}  // namespace

STRATA_CUDA_KERNEL("attend_step", AttendArgs, attend_step_cuda)
STRATA_CUDA_KERNEL("append_pages", AppendPagesArgs, append_pages_cuda)
STRATA_CUDA_HALF_KERNEL("append_pages", AppendPagesArgs, append_pages_cuda)

}  // namespace strata
