#include "core/ops/decay_scan.h"

#include "core/kernels/parallel.h"
#include "core/kernels/register.h"

namespace strata {
namespace {

constexpr int64_t kTile = 64;  // columns whose state stays in registers or the nearest cache

STRATA_INLINE bool starts_document(const Tensor& seq_idx, int64_t b, int64_t seq_len, int64_t t) {
  if (!seq_idx || t == 0) return false;
  const int32_t* doc = seq_idx.ptr<int32_t>() + b * seq_len;
  return doc[t] != doc[t - 1];
}

// One task: row `n` of every token of sequence b, all its columns, tile by tile.
template <class T>
void decay_scan_cpu(const DecayScanArgs& s, Stream) {
  const int64_t batch = s.b.shape[0], seq_len = s.b.shape[1], width = s.b.cols();
  const int64_t per_token = s.b.rows() / (batch * seq_len);
  const int64_t tiles = (width + kTile - 1) / kTile;
  parallel_for(batch * per_token * tiles, grain_for(seq_len * kTile * 2),
               [&](int64_t begin, int64_t end) {
                 for (int64_t task = begin; task < end; ++task) {
                   const int64_t from = task % tiles * kTile, n = task / tiles % per_token,
                                 b = task / tiles / per_token;
                   const int64_t m = width - from < kTile ? width - from : kTile;
                   T* kept = s.state ? s.state.row<T>(b) + n * width + from : nullptr;
                   T h[kTile];
                   for (int64_t c = 0; c < m; ++c) h[c] = kept ? kept[c] : T(0);
                   for (int64_t t = 0; t < seq_len; ++t) {
                     const int64_t bt = b * seq_len + t, r = bt * per_token + n;
                     if (starts_document(s.seq_idx, b, seq_len, t))
                       for (int64_t c = 0; c < m; ++c) h[c] = 0;
                     const T* x = s.b.row<T>(r) + from;
                     T* y = s.h.row<T>(r) + from;
                     if (s.wide) {
                       const T* a = s.a.row<T>(r) + from;
                       for (int64_t c = 0; c < m; ++c) y[c] = h[c] = a[c] * h[c] + x[c];
                     } else {
                       const T a = s.a.row<T>(bt)[n];
                       for (int64_t c = 0; c < m; ++c) y[c] = h[c] = a * h[c] + x[c];
                     }
                   }
                   if (kept)
                     for (int64_t c = 0; c < m; ++c) kept[c] = h[c];
                 }
               });
}

// g_t = dh_t + a_{t+1} g_{t+1},  db_t = g_t,  da_t = g_t h_{t-1}
template <class T>
void scan_row_backward(const DecayScanBackwardArgs& s, int64_t b, int64_t n, int64_t per_token) {
  const int64_t seq_len = s.h.shape[1], width = s.h.cols();
  for (int64_t from = 0; from < width; from += kTile) {
    const int64_t m = width - from < kTile ? width - from : kTile;
    T g[kTile] = {};
    for (int64_t t = seq_len - 1; t >= 0; --t) {
      const int64_t bt = b * seq_len + t, r = bt * per_token + n;
      const bool first = t == 0 || starts_document(s.seq_idx, b, seq_len, t);
      const T *dh = s.dh.row<T>(r) + from,
              *before = first ? nullptr : s.h.row<T>(r - per_token) + from;
      for (int64_t c = 0; c < m; ++c) g[c] += dh[c];
      if (s.db.wanted) {
        T* db = s.db.grad.row<T>(r) + from;
        for (int64_t c = 0; c < m; ++c) db[c] = (s.db.accumulate ? db[c] : T(0)) + g[c];
      }
      if (s.da.wanted && s.wide) {
        T* da = s.da.grad.row<T>(r) + from;
        for (int64_t c = 0; c < m; ++c)
          da[c] = (s.da.accumulate ? da[c] : T(0)) + (before ? g[c] * before[c] : T(0));
      } else if (s.da.wanted) {
        T dot = 0;
        if (before)
#pragma omp simd reduction(+ : dot)
          for (int64_t c = 0; c < m; ++c) dot += g[c] * before[c];
        T& da = s.da.grad.row<T>(bt)[n];
        da = (s.da.accumulate || from > 0 ? da : T(0)) + dot;
      }
      if (first)
        for (int64_t c = 0; c < m; ++c) g[c] = 0;
      else if (s.wide)
        for (int64_t c = 0; c < m; ++c) g[c] *= s.a.row<T>(r)[from + c];
      else
        for (int64_t c = 0; c < m; ++c) g[c] *= s.a.row<T>(bt)[n];
    }
  }
}

template <class T>
void decay_scan_backward_cpu(const DecayScanBackwardArgs& s, Stream) {
  const int64_t batch = s.h.shape[0], seq_len = s.h.shape[1];
  const int64_t per_token = s.h.rows() / (batch * seq_len);
  if (!s.da.wanted && !s.db.wanted) return;
  parallel_for(batch * per_token, grain_for(seq_len * s.h.cols() * 4),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i)
                   scan_row_backward<T>(s, i / per_token, i % per_token, per_token);
               });
}

}  // namespace

STRATA_CPU_KERNEL("decay_scan", DecayScanArgs, decay_scan_cpu)
STRATA_CPU_KERNEL("decay_scan_backward", DecayScanBackwardArgs, decay_scan_backward_cpu)

}  // namespace strata
