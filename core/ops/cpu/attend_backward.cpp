// Gradient of attention: scores are computed again tile by tile from the saved log-sum-exp,
//   p = 2^(s - lse), ds = p * (dy v^T - delta), delta = sum(dy * y),
//   dq = ds k, dk = ds^T q, dv = p^T dy.
// Either one task per (sequence, key-value head) makes all three (five products per tile), or, when
// that gives too few tasks, row tiles make dq and chunks of keys make dk and dv (seven products).
// Both add up in the same order, so the bits are the same.
#include <omp.h>

#include "core/ops/cpu/attend_tile.h"

namespace strata {
namespace {

template <class T>
struct BackwardScratch {
  T *qt, *dyt, *dqt;  // (head_dim, 64)
  T *q, *dy;          // (64, width)
  T *p, *ds;          // (64 keys, 64 rows)
  T *k, *v;           // (64 keys, head_dim)
  T *lse, *delta;     // (64)
  T *dk, *dv;         // (keys, width)
  int64_t width;      // head_dim rounded up to 64 bytes

  BackwardScratch(T* at, int64_t head_dim, int64_t keys)
      : width(padded_width(head_dim, sizeof(T))) {
    qt = at;
    dyt = qt + head_dim * kTile;
    dqt = dyt + head_dim * kTile;
    q = dqt + head_dim * kTile;
    dy = q + kTile * width;
    p = dy + kTile * width;
    ds = p + kTile * kTile;
    k = ds + kTile * kTile;
    v = k + kTile * head_dim;
    lse = v + kTile * head_dim;
    delta = lse + kTile;
    dk = delta + kTile;
    dv = dk + keys * width;
  }
};

// sum_d a[d] b[d]
template <class T>
inline T dot(const T* a, const T* b, int64_t n) {
  constexpr int kW = kLanes<T>;
  Vec<T> sum{};
  int64_t d = 0;
  for (; d + kW <= n; d += kW) sum += load(a + d) * load(b + d);
  if (d < n) sum += load_part(a + d, int(n - d)) * load_part(b + d, int(n - d));
  return sum_lanes<T>(sum);
}

template <class T>
struct Backward : Attention<T> {
  const T* dy;
  int64_t dy_pitch;
  GradTarget dq, dk, dv;
  explicit Backward(const AttendBackwardArgs& args)
      : Attention<T>(args.forward),
        dy(args.dy.ptr<T>()),
        dy_pitch(args.dy.pitch),
        dq(args.dq),
        dk(args.dk),
        dv(args.dv) {}
};

template <class T>
void load_rows(const Backward<T>& a, const RowTile<T>& tile, const ScoreScale<T>& scale,
               bool want_dkv, BackwardScratch<T>& s) {
  const int64_t dim = a.head_dim;
  gather_transposed(a, tile, a.q, a.q_pitch, scale.query, s.qt);
  gather_transposed(a, tile, a.dy, a.dy_pitch, T(1), s.dyt);
  for (int64_t i = 0; i < tile.lanes; ++i) {
    s.lse[i] = T(1e30);  // no key is seen: every weight is zero
    s.delta[i] = T(0);
    if (i >= tile.rows) continue;
    const T* y = a.y + tile.offset(a, i, a.y_pitch);
    const T* dy = a.dy + tile.offset(a, i, a.dy_pitch);
    const T* q = a.q + tile.offset(a, i, a.q_pitch);
    s.delta[i] = dot(dy, y, dim);
    const T lse = a.lse[tile.head_offset(a, i)];
    if (tile.lo[i] < tile.hi[i]) s.lse[i] = lse * T(kLog2E);
    if (!want_dkv) continue;
    for (int64_t d = 0; d < dim; ++d) {
      s.q[i * s.width + d] = q[d];
      s.dy[i * s.width + d] = dy[d];
    }
    for (int64_t d = dim; d < s.width; ++d) s.q[i * s.width + d] = s.dy[i * s.width + d] = T(0);
  }
}

// p: scores to weights; ds: dy v^T to the gradient of q k^T. One vector of rows from `lane` on.
template <class T>
void score_gradient(const Attention<T>& a, const RowTile<T>& tile, const KeyTile<T>& key,
                    const ScoreScale<T>& scale, int64_t lane, BackwardScratch<T>& s) {
  const Vec<T> lse = load<T>(s.lse + lane), delta = load<T>(s.delta + lane);
  for (int64_t j = 0; j < key.count; ++j) {
    T* pj = s.p + j * kTile + lane;
    T* dsj = s.ds + j * kTile + lane;
    Vec<T> score = load<T>(pj);
    Vec<T> slope = splat(T(a.scale));
    if (scale.cap > 0) {
      slope *= T(1) - score * score;
      score *= scale.cap;
    }
    if (key.masked) {
      score = mask_keys(tile, lane, key.begin + j, score, T(-__builtin_inff()));
    }
    const Vec<T> p = exp2(score - lse);
    store<T>(pj, p);
    store<T>(dsj, p * (load<T>(dsj) - delta) * slope);
  }
}

// Adds the tile's part of dk, dv over keys [from, to) and, if wanted, writes the rows' dq.
template <class T>
void backward_tile(const Backward<T>& a, const RowTile<T>& tile, int64_t from, int64_t to,
                   bool want_dq, bool want_dkv, BackwardScratch<T>& s) {
  const int64_t dim = a.head_dim, lanes = tile.lanes;
  const ScoreScale<T> scale(a);
  const Rows<T> keys = rows_of(a.k, a.k_pitch, a.k_pages, a, tile.b, tile.g);
  const Rows<T> values = rows_of(a.v, a.v_pitch, a.v_pages, a, tile.b, tile.g);
  load_rows(a, tile, scale, want_dkv, s);
  if (want_dq) {
    for (int64_t i = 0; i < dim * kTile; ++i) s.dqt[i] = T(0);
  }
  const int64_t start = max_of(from, tile.lo_min / kTile * kTile);
  for (int64_t j0 = start; j0 < min_of(to, tile.hi_max); j0 += kTile) {
    const KeyTile<T> key(tile, j0);
    const T* k = pack_rows(keys, key.begin, key.count, dim, s.k);
    const T* v = pack_rows(values, key.begin, key.count, dim, s.v);
    prefetch_rows(keys, j0 + kTile, min_of(to, tile.hi_max), dim);
    prefetch_rows(values, j0 + kTile, min_of(to, tile.hi_max), dim);
    tile_matmul<T, false>(key.count, lanes, dim, k, dim, s.qt, kTile, s.p, kTile, false);
    tile_matmul<T, false>(key.count, lanes, dim, v, dim, s.dyt, kTile, s.ds, kTile, false);
    if (scale.cap > 0) tanh_scores(s.p, key.count, lanes);
    for (int64_t c = 0; c < lanes; c += kLanes<T>) score_gradient(a, tile, key, scale, c, s);
    if (want_dq) {
      tile_matmul<T, true>(dim, lanes, key.count, k, dim, s.ds, kTile, s.dqt, kTile, true);
    }
    if (want_dkv) {
      const int64_t row = (key.begin - from) * s.width;
      tile_matmul<T, false>(key.count, s.width, tile.rows, s.p, kTile, s.dy, s.width, s.dv + row,
                            s.width, true);
      tile_matmul<T, false>(key.count, s.width, tile.rows, s.ds, kTile, s.q, s.width, s.dk + row,
                            s.width, true);
    }
  }
  if (!want_dq) return;
  lanes_to_rows(
      tile.rows, dim, s.dqt,
      [&](int64_t i) { return a.dq.grad.template ptr<T>() + tile.offset(a, i, a.dq.grad.pitch); },
      a.dq.accumulate);
}

// One head's row of a gradient: to = from, or to += from.
template <class T>
void put(const GradTarget& target, int64_t row, int64_t column, int64_t n, const T* from) {
  T* to = target.grad.row<T>(row) + column;
  for (int64_t d = 0; d < n; ++d) to[d] = target.accumulate ? to[d] + from[d] : from[d];
}

// dk and dv of keys [from, to) of one key-value head and, if wanted, dq of all its rows.
template <class T>
void backward_keys(const Backward<T>& a, const int32_t* documents, int64_t b, int64_t g,
                   int64_t from, int64_t to, bool want_dq, BackwardScratch<T>& s) {
  for (int64_t i = 0; i < (to - from) * s.width; ++i) s.dk[i] = s.dv[i] = T(0);
  for (int64_t i = 0; i < row_tiles(a); ++i) {
    const RowTile<T> tile(a, documents, b, g, i * kTile);
    const bool sees = tile.lo_min < to && tile.hi_max > from;
    if (sees || want_dq) backward_tile(a, tile, from, to, want_dq, true, s);
  }
  for (int64_t j = from; j < to; ++j) {
    const int64_t row = b * a.kv_len + j, at = (j - from) * s.width;
    if (a.dk.wanted) put<T>(a.dk, row, g * a.head_dim, a.head_dim, s.dk + at);
    if (a.dv.wanted) put<T>(a.dv, row, g * a.head_dim, a.head_dim, s.dv + at);
  }
}

template <class T>
void attend_backward_cpu(const AttendBackwardArgs& args, Stream) {
  const Backward<T> a(args);
  const AttendWorkspace size(args.forward, sizeof(T));
  const int32_t* documents = find_documents(a, reinterpret_cast<int32_t*>(a.workspace));
  char* scratch = a.workspace + size.documents;
  const int64_t heads = a.batch * a.n_kv_heads;
  const bool want_dkv = a.dk.wanted || a.dv.wanted;
  const bool together = size.backward_keys == a.kv_len && want_dkv && a.dq.wanted;
  const int64_t chunks = want_dkv ? (a.kv_len + size.backward_keys - 1) / size.backward_keys : 0;
  const int64_t tiles = together || !a.dq.wanted ? 0 : row_tiles(a);
#pragma omp parallel num_threads(a.threads) if (worth_forking(a))
  {
    BackwardScratch<T> s(reinterpret_cast<T*>(scratch + omp_get_thread_num() * size.backward),
                         a.head_dim, size.backward_keys);
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t task = 0; task < heads * chunks; ++task) {
      const int64_t head = task % heads, from = task / heads * size.backward_keys;
      backward_keys(a, documents, head / a.n_kv_heads, head % a.n_kv_heads, from,
                    min_of(from + size.backward_keys, a.kv_len), together, s);
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < heads * tiles; ++task) {
      const int64_t head = task % heads, first = (tiles - 1 - task / heads) * kTile;
      const RowTile<T> tile(a, documents, head / a.n_kv_heads, head % a.n_kv_heads, first);
      backward_tile(a, tile, 0, a.kv_len, true, false, s);
    }
  }
}

STRATA_CPU_KERNEL("attend_backward", AttendBackwardArgs, attend_backward_cpu)

}  // namespace
}  // namespace strata
