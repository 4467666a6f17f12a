// Attention over tiles with an online softmax: a block takes a tile of query rows of one key-value
// head and walks the keys. Row r is query r / group, head g * group + r % group, so that the query
// heads that share keys share their loads.
#include "core/ops/cuda/attend_tile.cuh"

namespace strata {
namespace {

// Rows and keys of a tile: Q, K and V, (rows, D) each, fit 99 KB.
template <class T, int D>
struct ForwardTile {
  static constexpr int kRows = sizeof(T) == 4 ? (D <= 128 ? 64 : 32) : (D <= 128 ? 32 : 16);
  static constexpr int kKeys = kRows;
  static constexpr int kElements = (kRows + 2 * kKeys) * (D + kPack<T>);
};

template <class T, int D>
__global__ void __launch_bounds__(kTileThreads)
    attend_kernel(Attention<T> a, int tiles, int heads) {
  constexpr int kRows = ForwardTile<T, D>::kRows, kKeys = ForwardTile<T, D>::kKeys;
  constexpr int P = kPack<T>, M = kRows / kRowThreads, N = kKeys / kKeyThreads;
  constexpr int C = Columns<T, D>::kCount;
  extern __shared__ double shared_room[];
  T* qs = reinterpret_cast<T*>(shared_room);  // (kRows, D)
  T* ks = qs + kRows * (D + P);               // (kKeys, D)
  T* vs = ks + kKeys * (D + P);               // (kKeys, D)
  T* ps = ks;                                 // (kRows, kKeys), when the scores are done
  static_assert(kRows * (kKeys + P) <= kKeys * (D + P));

  // Late tiles see most keys and go first, so that the end is even.
  const int head = int(blockIdx.x) % heads, first = (tiles - 1 - int(blockIdx.x) / heads) * kRows;
  const int b = head / a.n_kv_heads, g = head % a.n_kv_heads;
  const int rows = min(kRows, a.q_len * a.group - first);
  const int t0 = first / a.group, t1 = (first + rows - 1) / a.group;
  const int lo = a.key_range(b, t0).lo, hi = a.key_range(b, t1).hi;
  const Rows<T> keys(a, a.k, a.k_pitch, a.k_pages, b, g);
  const Rows<T> values(a, a.v, a.v_pitch, a.v_pages, b, g);
  const int row = int(threadIdx.x) / kKeyThreads * M, column = int(threadIdx.x) % kKeyThreads;

  load_tile<T, kRows, D>(qs, a.dim, a.packs, [&](int r) -> const T* {
    if (r >= rows) return nullptr;
    const int t = (first + r) / a.group, h = g * a.group + (first + r) % a.group;
    return a.q + a.offset(b, t, h, a.q_pitch);
  });
  int j0 = lo / kKeys * kKeys;
  if (j0 < hi) load_keys<T, kKeys, D>(ks, a, keys, j0, lo, hi);
  __pipeline_commit();

  T o[M][C] = {}, top[M], sum[M] = {};  // sum: of this thread's keys only
#pragma unroll
  for (int i = 0; i < M; ++i) top[i] = T(-1e30);
  for (; j0 < hi; j0 += kKeys) {
    load_keys<T, kKeys, D>(vs, a, values, j0, lo, hi);
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __syncthreads();
    T s[M][N];
    dot_rows<T, D>(qs, ks, a.dim, s);
    const bool masked = is_masked(a, b, t0, t1, j0, kKeys);
#pragma unroll
    for (int i = 0; i < M; ++i) {
      KeyRange seen{0, 1 << 30};
      if (masked) seen = a.key_range(b, min(first + row + i, first + rows - 1) / a.group);
      T most = top[i];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        s[i][j] *= a.query;
        if (a.cap > 0) s[i][j] = a.cap * tanh_of(s[i][j]);
        const int key = j0 + column + j * kKeyThreads;
        if (key < seen.lo || key >= seen.hi) s[i][j] = -INFINITY;
        most = s[i][j] > most ? s[i][j] : most;
      }
#pragma unroll
      for (int step = kKeyThreads / 2; step > 0; step /= 2) {
        const T other = __shfl_xor_sync(kAllLanes, most, step);
        most = other > most ? other : most;
      }
      const T alpha = exp2_of(top[i] - most);
      top[i] = most;
      sum[i] *= alpha;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        s[i][j] = exp2_of(s[i][j] - most);
        sum[i] += s[i][j];
      }
#pragma unroll
      for (int c = 0; c < C; ++c) o[i][c] *= alpha;
    }
    __syncthreads();  // the keys are done with: the weights take their place
#pragma unroll
    for (int i = 0; i < M; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j) ps[(row + i) * (kKeys + P) + column + j * kKeyThreads] = s[i][j];
    __pipeline_wait_prior(0);
    __syncthreads();
    add_rows<T, D, kKeys>(ps, vs, o);
    __syncthreads();
    if (j0 + kKeys < hi) load_keys<T, kKeys, D>(ks, a, keys, j0 + kKeys, lo, hi);
    __pipeline_commit();
  }
  __pipeline_wait_prior(0);

#pragma unroll
  for (int i = 0; i < M; ++i) {
#pragma unroll
    for (int step = kKeyThreads / 2; step > 0; step /= 2)
      sum[i] += __shfl_xor_sync(kAllLanes, sum[i], step);
    if (row + i >= rows) continue;
    const int t = (first + row + i) / a.group, h = g * a.group + (first + row + i) % a.group;
    const T factor = sum[i] == T(0) ? T(0) : T(1) / sum[i];  // a row without keys gives zero
    T* y = a.y + a.offset(b, t, h, a.y_pitch);
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int d = Columns<T, D>::at(c);
      if (d < a.dim) y[d] = o[i][c] * factor;
    }
    if (a.lse && column == 0) a.lse[a.head_offset(b, t, h)] = top[i] * T(kLn2) + log_of(sum[i]);
  }
}

template <class T>
void attend_cuda(const AttendArgs& args, Stream s) {
  const Attention<T> a(args);
  const cudaStream_t stream = stream_of(s);
  find_documents(a, stream);
  with_width<T>(a.dim, [&](auto width) {
    constexpr int D = decltype(width)::value;
    using Tile = ForwardTile<T, D>;
    const int tiles = (a.q_len * a.group + Tile::kRows - 1) / Tile::kRows;
    const int heads = a.batch * a.n_kv_heads;
    launch_tiles<T>(&attend_kernel<T, D>, int64_t(tiles) * heads, Tile::kElements, stream, a, tiles,
                    heads);
  });
  check_launch("attend");
}

}  // namespace

STRATA_CUDA_KERNEL("attend", AttendArgs, attend_cuda)

}  // namespace strata
