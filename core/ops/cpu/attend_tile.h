// One tile of attention, 64 query rows against 64 keys, with the query rows in the vector lanes:
// scores are held as S^T (keys, rows), so that row maxima and sums need no shuffles, and keys and
// values are read by broadcast straight from where they lie (tensor, wider row or page).
// For kernel files only (internal linkage: one copy per instruction set).
#pragma once

#include "core/kernels/register.h"
#include "core/kernels/simd.h"
#include "core/ops/attend.h"
#include "core/ops/attend_workspace.h"
#include "core/ops/cpu/exp2.h"
#include "core/ops/cpu/tile_matmul.h"
#include "core/ops/cpu/tile_transpose.h"

namespace strata {
namespace {

constexpr int64_t kTile = kPageTokens;  // rows and keys of a tile; a tile of keys is a page

template <class T>
inline T min_of(T a, T b) {
  return a < b ? a : b;
}
template <class T>
inline T max_of(T a, T b) {
  return a > b ? a : b;
}
inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// The arguments as plain numbers and typed pointers; a pitch is in elements from token to token.
template <class T>
struct Attention {
  int64_t batch, q_len, kv_len, n_heads, n_kv_heads, head_dim;
  const T *q, *k, *v;
  T *y, *lse;
  int64_t q_pitch, k_pitch, v_pitch, y_pitch;
  const int32_t* seq_idx;
  PagesRef k_pages, v_pages;
  double scale, softcap;
  bool causal;
  int64_t window;
  int threads;
  char* workspace;

  explicit Attention(const AttendArgs& a)
      : batch(a.q.shape[0]),
        q_len(a.q.shape[1]),
        kv_len(a.k ? a.k.shape[1] : 0),
        n_heads(a.options.n_heads),
        n_kv_heads(a.options.n_kv_heads),
        head_dim(a.options.head_dim),
        q(a.q.ptr<T>()),
        k(a.k.ptr<T>()),
        v(a.v.ptr<T>()),
        y(a.y.ptr<T>()),
        lse(a.lse.ptr<T>()),
        q_pitch(a.q.pitch),
        k_pitch(a.k.pitch),
        v_pitch(a.v.pitch),
        y_pitch(a.y.pitch),
        seq_idx(a.seq_idx.ptr<int32_t>()),
        k_pages(a.k_pages),
        v_pages(a.v_pages),
        scale(a.options.scale),
        softcap(a.options.softcap),
        causal(a.options.causal),
        window(a.options.window),
        threads(a.threads),
        workspace(a.workspace.ptr<char>()) {}
};

// Integers of the width of T, to be compared lane by lane.
template <class T>
using LaneInt = __typeof__(VecInt<T>{}[0] + 0 * VecInt<T>{}[0]);

// The keys or values of one sequence and one key-value head.
template <class T>
struct Rows {
  const T* dense;
  const PagesRef* pages;
  const int32_t* table;
  int64_t pitch, head_offset;

  // Row of token t; the rows up to the end of t's tile follow at `pitch`.
  const T* at(int64_t t) const {
    if (!pages) return dense + t * pitch;
    const char* page = static_cast<const char*>(pages->base) + table[t / kTile] * pages->page_bytes;
    return reinterpret_cast<const T*>(page) + head_offset + t % kTile * pitch;
  }
};
template <class T>
inline Rows<T> rows_of(const T* dense, int64_t pitch, const PagesRef& pages, const Attention<T>& a,
                       int64_t b, int64_t g) {
  if (pages) {
    return {nullptr, &pages, pages.table + b * pages.table_pitch,
            pages.token_bytes / int64_t(sizeof(T)), g * a.head_dim};
  }
  return {dense + b * a.kv_len * pitch + g * a.head_dim, nullptr, nullptr, pitch, 0};
}

// Keys [lo, hi) that query t of sequence b sees. documents: (2, batch, kv_len) or null.
template <class T>
inline void key_range(const Attention<T>& a, const int32_t* documents, int64_t b, int64_t t,
                      int64_t* lo, int64_t* hi) {
  const int64_t end = a.k_pages ? a.k_pages.lengths[b] + a.q_len : a.kv_len;
  const int64_t p = end - a.q_len + t;
  *lo = 0;
  *hi = a.causal ? p + 1 : end;
  if (a.window > 0) {
    *lo = max_of<int64_t>(0, p - a.window + 1);
    *hi = min_of(*hi, p + a.window);
  }
  if (documents) {
    *lo = max_of<int64_t>(*lo, documents[b * a.kv_len + p]);
    *hi = min_of<int64_t>(*hi, documents[(a.batch + b) * a.kv_len + p]);
  }
  *lo = min_of(*lo, *hi);
}

// Up to 64 query rows of one key-value head: row r is query r / group, head g * group + r % group.
template <class T>
struct RowTile {
  alignas(kVecBytes) LaneInt<T> lo[kTile], hi[kTile];
  int64_t b, g, first, rows, lanes;  // lanes: rows rounded up to whole vectors
  int64_t lo_min = INT64_MAX, lo_max = 0, hi_min = INT64_MAX, hi_max = 0;
  int64_t group;

  RowTile(const Attention<T>& a, const int32_t* documents, int64_t b_, int64_t g_, int64_t first_)
      : b(b_), g(g_), first(first_) {
    group = a.n_heads / a.n_kv_heads;
    rows = min_of(kTile, a.q_len * group - first);
    lanes = round_up(rows, kLanes<T>);
    int64_t l = 0, h = 0;
    for (int64_t i = 0; i < lanes; ++i) {
      if (i < rows && (i == 0 || (first + i) % group == 0)) {
        key_range(a, documents, b, (first + i) / group, &l, &h);
      }
      lo[i] = LaneInt<T>(l);
      hi[i] = LaneInt<T>(h);
      lo_min = min_of(lo_min, l);
      lo_max = max_of(lo_max, l);
      hi_min = min_of(hi_min, h);
      hi_max = max_of(hi_max, h);
    }
  }
  // Element offset of row i in a (batch, q_len, n_heads * head_dim) tensor.
  int64_t offset(const Attention<T>& a, int64_t i, int64_t pitch) const {
    const int64_t r = first + i;
    return (b * a.q_len + r / group) * pitch + (g * group + r % group) * a.head_dim;
  }
  // The same in (batch, q_len, n_heads).
  int64_t head_offset(const Attention<T>& a, int64_t i) const {
    const int64_t r = first + i;
    return (b * a.q_len + r / group) * a.n_heads + g * group + r % group;
  }
};

// to (head_dim, 64) = factor * x^T of the tile's rows; lanes behind the rows are zero.
template <class T>
inline void gather_transposed(const Attention<T>& a, const RowTile<T>& tile, const T* x,
                              int64_t pitch, T factor, T* to) {
  rows_to_lanes(
      tile.rows, tile.lanes, a.head_dim, [&](int64_t i) { return x + tile.offset(a, i, pitch); },
      factor, to);
}

// Scores before and after the elementwise part, in units where the softmax is 2^s / sum 2^s.
template <class T>
struct ScoreScale {
  T query;  // folded into the packed queries
  T cap;    // 0: none; else s = cap * tanh(x)
  explicit ScoreScale(const Attention<T>& a)
      : query(T(a.softcap > 0 ? a.scale / a.softcap : a.scale * kLog2E)),
        cap(T(a.softcap > 0 ? a.softcap * kLog2E : 0)) {}
};

// Keys [begin, end) of the tile starting at j0 that any row sees, and whether some row must not.
template <class T>
struct KeyTile {
  int64_t begin, count;
  bool masked;
  KeyTile(const RowTile<T>& tile, int64_t j0) {
    begin = max_of(j0, tile.lo_min);
    const int64_t end = min_of(j0 + kTile, tile.hi_max);
    count = end - begin;
    masked = tile.lo_max > begin || tile.hi_min < end;
  }
};

// The rows of a tile, packed: heads lie far apart in a row, and rows a power of two apart fall into
// one set of the cache.
template <class T>
[[gnu::noinline]] const T* pack_rows(const Rows<T>& rows, int64_t begin, int64_t count, int64_t dim,
                                     T* to) {
  const T* from = rows.at(begin);
  if (rows.pitch == dim) return from;
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t d = 0; d < dim; ++d) to[j * dim + d] = from[j * rows.pitch + d];
  }
  return to;
}

// Asks for the rows of the tile starting at j0, which is worked on later.
template <class T>
inline void prefetch_rows(const Rows<T>& rows, int64_t j0, int64_t end, int64_t dim) {
  if (j0 >= end) return;
  const T* from = rows.at(j0);
  const int64_t count = min_of(kTile, end - j0);
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t d = 0; d < dim; d += 64 / int64_t(sizeof(T))) {
      __builtin_prefetch(from + j * rows.pitch + d, 0, 2);
    }
  }
}

// scores = tanh(scores), for the softcap.
template <class T>
inline void tanh_scores(T* st, int64_t keys, int64_t lanes) {
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t i = 0; i < lanes; ++i) st[j * kTile + i] = simd::tanh(st[j * kTile + i]);
  }
}

template <class T>
inline Vec<T> mask_keys(const RowTile<T>& tile, int64_t lane, int64_t key, Vec<T> s, T masked) {
  const VecInt<T> j = VecInt<T>{} + LaneInt<T>(key);
  const VecInt<T> lo = *reinterpret_cast<const VecInt<T>*>(tile.lo + lane);
  const VecInt<T> hi = *reinterpret_cast<const VecInt<T>*>(tile.hi + lane);
  return ((j >= lo) & (j < hi)) ? s : splat(masked);
}

// documents (2, batch, kv_len): first and one-past-last position of the run of equal seq_idx.
template <class T>
inline const int32_t* find_documents(const Attention<T>& a, int32_t* documents) {
  if (!a.seq_idx) return nullptr;
  for (int64_t b = 0; b < a.batch; ++b) {
    const int32_t* id = a.seq_idx + b * a.kv_len;
    int32_t* begin = documents + b * a.kv_len;
    int32_t* end = documents + (a.batch + b) * a.kv_len;
    for (int64_t t = 0; t < a.kv_len; ++t) {
      begin[t] = t > 0 && id[t] == id[t - 1] ? begin[t - 1] : int32_t(t);
    }
    for (int64_t t = a.kv_len - 1; t >= 0; --t) {
      end[t] = t + 1 < a.kv_len && id[t] == id[t + 1] ? end[t + 1] : int32_t(t + 1);
    }
  }
  return documents;
}
template <class T>
inline int64_t row_tiles(const Attention<T>& a) {
  return (a.q_len * (a.n_heads / a.n_kv_heads) + kTile - 1) / kTile;
}

// Small work runs on one thread.
template <class T>
inline bool worth_forking(const Attention<T>& a) {
  double keys = 0;
  for (int64_t b = 0; b < a.batch; ++b) {
    const int64_t all = a.k_pages ? a.k_pages.lengths[b] + a.q_len : a.kv_len;
    keys += double(a.window > 0 ? min_of(a.window, all) : all);
  }
  return 4.0 * double(a.q_len) * keys * double(a.n_heads * a.head_dim) > 2e6;
}

}  // namespace
}  // namespace strata
