// Gradient of attention: scores are computed again tile by tile from the saved log-sum-exp,
//   p = 2^(s - lse), ds = p * (dy v^T - delta), delta = sum(dy * y),
//   dq = ds k, dk = ds^T q, dv = p^T dy.
// One pass over tiles of query rows makes dq, one over tiles of keys makes dk and dv; each sum is
// added up by one block in order. Rows as in the forward: query r / group, head g * group + r %
// group.
#include "core/ops/cuda/attend_tile.cuh"

namespace strata {
namespace {

constexpr int kWarps = kThreads / kWarp;

// Rows and keys of a tile: q, dy (rows, D), k, v (keys, D) and p, ds (rows, keys) fit 99 KB.
template <class T, int D>
struct BackwardTile {
  static constexpr bool kSingle = sizeof(T) == 4;
  static constexpr int kRows = kSingle ? (D <= 128 ? 32 : 16) : (D <= 128 ? 16 : 8);
  static constexpr int kKeys = kSingle ? (D <= 80 ? 64 : D <= 128 ? 32 : 16) : (D <= 64 ? 32 : 16);
  static constexpr int kPitch = D + kPack<T>, kPairPitch = kKeys + kPack<T>;
  static constexpr int kElements = 2 * (kRows + kKeys) * kPitch + 2 * kRows * kPairPitch;
  static constexpr int M = kRows / kRowThreads, N = kKeys / kKeyThreads;

  T *q, *dy, *k, *v, *p, *ds;

  __device__ __forceinline__ explicit BackwardTile(void* room) {
    q = static_cast<T*>(room);
    dy = q + kRows * kPitch;
    k = dy + kRows * kPitch;
    v = k + kKeys * kPitch;
    p = v + kKeys * kPitch;
    ds = p + kRows * kPairPitch;
  }
};

template <class T>
struct Backward : Attention<T> {
  const T* dy;
  int64_t dy_pitch;
  T* delta;  // (batch, q_len, n_heads)
  GradTarget dq, dk, dv;

  explicit Backward(const AttendBackwardArgs& args)
      : Attention<T>(args.forward),
        dy(args.dy.ptr<T>()),
        dy_pitch(args.dy.pitch),
        dq(args.dq),
        dk(args.dk),
        dv(args.dv) {
    this->packs = this->packs && strata::packable(args.dy);
    const AttendWorkspaceCuda size(args.forward, sizeof(T));
    delta = reinterpret_cast<T*>(args.forward.workspace.ptr<char>() + size.documents);
  }
};

// delta, a warp per query and head.
template <class T>
__global__ void delta_kernel(Backward<T> a) {
  const int64_t n = int64_t(a.batch) * a.q_len * a.n_heads, warps = int64_t(gridDim.x) * kWarps;
  for (int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp; i < n; i += warps) {
    const int64_t row = i / a.n_heads, column = i % a.n_heads * a.dim;
    const T* y = a.y + row * a.y_pitch + column;
    const T* dy = a.dy + row * a.dy_pitch + column;
    T sum = 0;
    for (int d = threadIdx.x % kWarp; d < a.dim; d += kWarp) sum += dy[d] * y[d];
    sum = warp_sum(sum);
    if (threadIdx.x % kWarp == 0) a.delta[i] = sum;
  }
}

// The query rows [first, first + rows) of one key-value head.
template <class T>
struct QueryRows {
  int b, g, first, rows;

  __device__ __forceinline__ int query(const Backward<T>& a, int r) const {
    return (first + r) / a.group;
  }
  __device__ __forceinline__ int head(const Backward<T>& a, int r) const {
    return g * a.group + (first + r) % a.group;
  }
};

// Rows of q or dy, (rows, n_heads * head_dim) elements `pitch` apart, into a tile.
template <class T, int D>
__device__ __forceinline__ void load_queries(const Backward<T>& a, const QueryRows<T>& rows,
                                             const T* x, int64_t pitch, T* to) {
  load_tile<T, BackwardTile<T, D>::kRows, D>(to, a.dim, a.packs, [&](int r) {
    return r < rows.rows ? x + a.offset(rows.b, rows.query(a, r), rows.head(a, r), pitch) : nullptr;
  });
}

// p and ds of a tile, from q, dy, k and v in shared memory, into shared memory.
template <class T, int D>
__device__ __forceinline__ void score_gradient(const Backward<T>& a, const QueryRows<T>& rows,
                                               int j0, const BackwardTile<T, D>& tile) {
  using Tile = BackwardTile<T, D>;
  constexpr int M = Tile::M, N = Tile::N;
  const int row = int(threadIdx.x) / kKeyThreads * M, column = int(threadIdx.x) % kKeyThreads;
  const int last = rows.rows - 1;
  T p[M][N], ds[M][N];
  dot_rows<T, D>(tile.q, tile.k, a.dim, p);
  dot_rows<T, D>(tile.dy, tile.v, a.dim, ds);
  const bool masked = is_masked(a, rows.b, rows.query(a, 0), rows.query(a, last), j0, Tile::kKeys);
#pragma unroll
  for (int i = 0; i < M; ++i) {
    const int r = min(row + i, last), t = rows.query(a, r);
    const int64_t at = a.head_offset(rows.b, t, rows.head(a, r));
    // Rows behind the last have weight zero.
    const T lse = row + i <= last ? a.lse[at] * T(kLog2E) : T(1e30), delta = a.delta[at];
    KeyRange seen{0, 1 << 30};
    if (masked) seen = a.key_range(rows.b, t);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      T score = p[i][j] * a.query, slope = a.slope;
      if (a.cap > 0) {
        score = tanh_of(score);
        slope *= T(1) - score * score;
        score *= a.cap;
      }
      const int key = column + j * kKeyThreads;
      const bool sees = j0 + key >= seen.lo && j0 + key < seen.hi;
      const T weight = sees ? exp2_of(score - lse) : T(0);
      tile.p[(row + i) * Tile::kPairPitch + key] = weight;
      tile.ds[(row + i) * Tile::kPairPitch + key] = weight * (ds[i][j] - delta) * slope;
    }
  }
}

template <class T, int D>
__global__ void __launch_bounds__(kTileThreads) dq_kernel(Backward<T> a, int tiles, int heads) {
  using Tile = BackwardTile<T, D>;
  constexpr int kKeys = Tile::kKeys, C = Columns<T, D>::kCount;
  extern __shared__ double shared_room[];
  const Tile tile(shared_room);
  // Late tiles see most keys and go first, so that the end is even.
  const int head = int(blockIdx.x) % heads;
  const int first = (tiles - 1 - int(blockIdx.x) / heads) * Tile::kRows;
  const QueryRows<T> rows{head / a.n_kv_heads, head % a.n_kv_heads, first,
                          min(Tile::kRows, a.q_len * a.group - first)};
  const int lo = a.key_range(rows.b, rows.query(a, 0)).lo;
  const int hi = a.key_range(rows.b, rows.query(a, rows.rows - 1)).hi;
  const Rows<T> keys(a, a.k, a.k_pitch, a.k_pages, rows.b, rows.g);
  const Rows<T> values(a, a.v, a.v_pitch, a.v_pages, rows.b, rows.g);
  load_queries<T, D>(a, rows, a.q, a.q_pitch, tile.q);
  load_queries<T, D>(a, rows, a.dy, a.dy_pitch, tile.dy);
  int j0 = lo / kKeys * kKeys;
  load_keys<T, kKeys, D>(tile.k, a, keys, j0, lo, hi);
  load_keys<T, kKeys, D>(tile.v, a, values, j0, lo, hi);
  __pipeline_commit();

  T dq[Tile::M][C] = {};
  for (; j0 < hi; j0 += kKeys) {
    const bool more = j0 + kKeys < hi;
    __pipeline_wait_prior(0);
    __syncthreads();
    score_gradient(a, rows, j0, tile);
    __syncthreads();
    if (more) load_keys<T, kKeys, D>(tile.v, a, values, j0 + kKeys, lo, hi);
    add_rows<T, D, kKeys>(tile.ds, tile.k, dq);
    __syncthreads();
    if (more) load_keys<T, kKeys, D>(tile.k, a, keys, j0 + kKeys, lo, hi);
    __pipeline_commit();
  }

  const int row = int(threadIdx.x) / kKeyThreads * Tile::M;
#pragma unroll
  for (int i = 0; i < Tile::M; ++i) {
    if (row + i >= rows.rows) continue;
    T* to = a.dq.grad.template ptr<T>() +
            a.offset(rows.b, rows.query(a, row + i), rows.head(a, row + i), a.dq.grad.pitch);
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int d = Columns<T, D>::at(c);
      if (d < a.dim) put(to + d, dq[i][c], a.dq.accumulate);
    }
  }
}

// The rows of one key-value head that may see a key of [j0, j1): from `begin` to before `end`.
template <class T>
__device__ __forceinline__ void rows_seeing(const Backward<T>& a, int b, int j0, int j1, int* begin,
                                            int* end) {
  int lo = a.causal ? j0 : 0, hi = a.kv_len;  // positions of queries
  if (a.window > 0) {
    lo = max(lo, j0 - a.window + 1);
    hi = min(hi, j1 - 1 + a.window);
  }
  if (a.documents) {
    lo = max(lo, a.documents[int64_t(b) * a.kv_len + j0]);
    hi = min(hi, a.documents[int64_t(a.batch + b) * a.kv_len + j1 - 1]);
  }
  const int offset = a.kv_len - a.q_len;
  *begin = max(0, lo - offset) * a.group;
  *end = max(0, hi - offset) * a.group;
}

template <class T, int D>
__device__ __forceinline__ void put_keys(
    const Backward<T>& a, const GradTarget& target, int b, int g, int j0, int j1,
    const T (&x)[BackwardTile<T, D>::kKeys / kRowThreads][Columns<T, D>::kCount]) {
  constexpr int K = BackwardTile<T, D>::kKeys / kRowThreads;
  const int key = j0 + int(threadIdx.x) / kKeyThreads * K;
#pragma unroll
  for (int i = 0; i < K; ++i) {
    if (key + i >= j1) continue;
    T* to = target.grad.row<T>(int64_t(b) * a.kv_len + key + i) + int64_t(g) * a.dim;
#pragma unroll
    for (int c = 0; c < Columns<T, D>::kCount; ++c) {
      const int d = Columns<T, D>::at(c);
      if (d < a.dim) put(to + d, x[i][c], target.accumulate);
    }
  }
}

template <class T, int D>
__global__ void __launch_bounds__(kTileThreads) dkv_kernel(Backward<T> a, int heads) {
  using Tile = BackwardTile<T, D>;
  constexpr int kRows = Tile::kRows, kKeys = Tile::kKeys;
  extern __shared__ double shared_room[];
  const Tile tile(shared_room);
  // Early keys are seen by most rows and go first.
  const int head = int(blockIdx.x) % heads, j0 = int(blockIdx.x) / heads * kKeys;
  const int b = head / a.n_kv_heads, g = head % a.n_kv_heads, j1 = min(j0 + kKeys, a.kv_len);
  int begin, end;
  rows_seeing(a, b, j0, j1, &begin, &end);
  const auto rows_from = [&](int r) { return QueryRows<T>{b, g, r, min(kRows, end - r)}; };
  const Rows<T> keys(a, a.k, a.k_pitch, a.k_pages, b, g);
  const Rows<T> values(a, a.v, a.v_pitch, a.v_pages, b, g);
  load_keys<T, kKeys, D>(tile.k, a, keys, j0, j0, j1);
  load_keys<T, kKeys, D>(tile.v, a, values, j0, j0, j1);
  load_queries<T, D>(a, rows_from(begin), a.q, a.q_pitch, tile.q);
  load_queries<T, D>(a, rows_from(begin), a.dy, a.dy_pitch, tile.dy);
  __pipeline_commit();

  T dk[kKeys / kRowThreads][Columns<T, D>::kCount] = {};
  T dv[kKeys / kRowThreads][Columns<T, D>::kCount] = {};
  for (int r = begin; r < end; r += kRows) {
    const bool more = r + kRows < end;
    __pipeline_wait_prior(0);
    __syncthreads();
    score_gradient(a, rows_from(r), j0, tile);
    __syncthreads();
    add_columns<T, D, kKeys, kRows>(tile.p, tile.dy, dv);
    __syncthreads();
    if (more) load_queries<T, D>(a, rows_from(r + kRows), a.dy, a.dy_pitch, tile.dy);
    add_columns<T, D, kKeys, kRows>(tile.ds, tile.q, dk);
    __syncthreads();
    if (more) load_queries<T, D>(a, rows_from(r + kRows), a.q, a.q_pitch, tile.q);
    __pipeline_commit();
  }
  __pipeline_wait_prior(0);
  if (a.dk.wanted) put_keys<T, D>(a, a.dk, b, g, j0, j1, dk);
  if (a.dv.wanted) put_keys<T, D>(a, a.dv, b, g, j0, j1, dv);
}

template <class T>
void attend_backward_cuda(const AttendBackwardArgs& args, Stream s) {
  const Backward<T> a(args);
  const cudaStream_t stream = stream_of(s);
  find_documents<T>(a, stream);
  const int64_t deltas = int64_t(a.batch) * a.q_len * a.n_heads;
  delta_kernel<T><<<blocks_for(deltas * kWarp), kThreads, 0, stream>>>(a);
  with_width<T>(a.dim, [&](auto width) {
    constexpr int D = decltype(width)::value;
    using Tile = BackwardTile<T, D>;
    const int heads = a.batch * a.n_kv_heads;
    const int row_tiles = (a.q_len * a.group + Tile::kRows - 1) / Tile::kRows;
    const int key_tiles = (a.kv_len + Tile::kKeys - 1) / Tile::kKeys;
    if (a.dq.wanted)
      launch_tiles<T>(&dq_kernel<T, D>, int64_t(row_tiles) * heads, Tile::kElements, stream, a,
                      row_tiles, heads);
    if (a.dk.wanted || a.dv.wanted)
      launch_tiles<T>(&dkv_kernel<T, D>, int64_t(key_tiles) * heads, Tile::kElements, stream, a,
                      heads);
  });
  check_launch("attend_backward");
}

}  // namespace

STRATA_CUDA_KERNEL("attend_backward", AttendBackwardArgs, attend_backward_cuda)

}  // namespace strata
