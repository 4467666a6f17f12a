// Steps that the forward and the backward kernels of the chunked scan share. For kernel files only.
//
// Inside a chunk of Q tokens, with p_i = a_1 ... a_i and M_ij = a_{j+1} ... a_i dt_j for j <= i
// (0 above the diagonal), the recurrence is
//   y = ((C B^T) o M) x + p o (C S^T) + D x,      S <- p_Q S + x^T (M_Q o B).
// M grows row by row, M_i = a_i M_{i-1} with dt_i on the diagonal: no logarithm, no difference of
// cumulative sums, so a_t may be zero (a new document) or negative (neg_eig), and nothing
// overflows.
#pragma once

#include <omp.h>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <algorithm>

#include "core/kernels/gemm.h"
#include "core/kernels/parallel.h"
#include "core/kernels/simd.h"
#include "core/kernels/vec.h"
#include "layers/mamba2/ssd_layout.h"

namespace strata::mamba2 {
namespace {

constexpr int64_t kTriangleRows = 64;  // rows of a triangular product that share one k

// Decayed products sink into denormals, which cost time and mean nothing: zero in this scope.
class FlushDenormals {
 public:
#if defined(__SSE__)
  STRATA_INLINE FlushDenormals() : old_(_mm_getcsr()) { _mm_setcsr(old_ | 0x8040); }
  STRATA_INLINE ~FlushDenormals() { _mm_setcsr(old_); }

 private:
  unsigned old_;
#endif
};

template <class T>
struct Scan {
  const SsdScanArgs& args;
  const SsdScanOptions& o;
  const SsdTasks tasks;
  const int64_t seq_len, heads, dim, states, chunk;

  STRATA_INLINE explicit Scan(const SsdScanArgs& a)
      : args(a),
        o(a.options),
        tasks(a),
        seq_len(tasks.seq_len),
        heads(o.n_heads),
        dim(o.head_dim),
        states(o.d_state),
        chunk(tasks.chunk) {}

  STRATA_INLINE const T* x(int64_t b, int64_t t, int64_t h) const {
    return args.x.row<T>(b * seq_len + t) + h * dim;
  }
  STRATA_INLINE const T* b(int64_t batch, int64_t t, int64_t g) const {
    return args.b.row<T>(batch * seq_len + t) + g * states;
  }
  STRATA_INLINE const T* c(int64_t batch, int64_t t, int64_t g) const {
    return args.c.row<T>(batch * seq_len + t) + g * states;
  }
  // The state that sequence b starts from, or null.
  STRATA_INLINE const T* start(int64_t b) const {
    if (args.state) return args.state.row<T>(b);
    return args.initial_state ? args.initial_state.ptr<T>() + b * heads * dim * states : nullptr;
  }
  STRATA_INLINE T* end(int64_t b) const {
    if (args.state) return args.state.row<T>(b);
    return args.final_state ? args.final_state.ptr<T>() + b * heads * dim * states : nullptr;
  }
  // Whether token t > 0 of sequence b begins a document.
  STRATA_INLINE bool resets(int64_t b, int64_t t) const {
    if (!args.seq_idx || t == 0) return false;
    const int32_t* id = args.seq_idx.ptr<int32_t>() + b * seq_len + t;
    return id[0] != id[-1];
  }
};

// The block of heads that a task walks.
struct Block {
  int64_t batch, group, block, first, count;
  template <class T>
  STRATA_INLINE Block(const Scan<T>& s, int64_t task) {
    block = task % s.tasks.blocks;
    group = task / s.tasks.blocks % s.o.n_groups;
    batch = task / (s.tasks.blocks * s.o.n_groups);
    const int64_t begin = block * s.tasks.block_heads;
    first = group * s.tasks.heads_per_group + begin;
    count = std::min(s.tasks.block_heads, s.tasks.heads_per_group - begin);
  }
};

// For `count` heads from `first` and q tokens from t0, each array (count, chunk):
//   dt; a; slope = da/d(dt), 0 where a document starts; open = d(dt)/d(dt_raw).
template <class T>
void coefficients(const Scan<T>& s, int64_t batch, int64_t first, int64_t count, int64_t t0,
                  int64_t q, const SsdChunkBuffers<T>& w) {
  const T low = T(s.o.dt_min), high = T(s.o.dt_max);
  for (int64_t k = 0; k < count; ++k) {
    const int64_t h = first + k;
    const T bias = s.args.dt_bias ? s.args.dt_bias.template ptr<T>()[h] : T(0);
    const T rate = simd::exp(s.args.a_log.template ptr<T>()[h]);
    T *dt = w.dt + k * s.chunk, *a = w.a + k * s.chunk;
    T *slope = w.slope + k * s.chunk, *open = w.open + k * s.chunk;
    for (int64_t t = 0; t < q; ++t)
      open[t] = s.args.dt.template row<T>(batch * s.seq_len + t0 + t)[h] + bias;
    const T scale = s.o.neg_eig ? T(2) : T(1), shift = s.o.neg_eig ? T(1) : T(0);
    for (int64_t t = 0; t < q; ++t) {
      const T soft = simd::softplus(open[t]);
      open[t] = soft >= low && soft <= high ? simd::sigmoid(open[t]) : T(0);
      const T step = soft < low ? low : soft > high ? high : soft;
      const T decay = scale * simd::exp(-rate * step);
      dt[t] = step;
      a[t] = decay - shift;
      slope[t] = -rate * decay;
    }
    for (int64_t t = 0; t < q; ++t)
      if (s.resets(batch, t0 + t)) a[t] = slope[t] = T(0);
  }
}

// decay_i = a_1 ... a_i; returns the last.
template <class T>
STRATA_INLINE T running_product(const T* a, int64_t q, T* decay) {
  T product = T(1);
  for (int64_t i = 0; i < q; ++i) decay[i] = product *= a[i];
  return product;
}

// G = C B^T for the tokens of a chunk, in row blocks up to the diagonal.
template <class T>
void correlate(const Scan<T>& s, const T* b, const T* c, int64_t q, T* g) {
  for (int64_t r = 0; r < q; r += kTriangleRows) {
    const int64_t end = std::min(q, r + kTriangleRows);
    gemm<T>(Trans::no, Trans::yes, end - r, end, s.states, 1, c + r * s.args.c.pitch,
            s.args.c.pitch, b, s.args.b.pitch, 0, g + r * s.chunk, s.chunk);
  }
}

// W = G o M row by row. `row` ends as the last row of M; M itself is kept when `m` is given.
// Columns are walked up to the end of the row's block, where M is zero.
template <class T>
void masked(const T* g, const T* a, const T* dt, int64_t q, int64_t ld, T* row, T* w, T* m) {
  for (int64_t j = 0; j < ld; ++j) row[j] = T(0);
  for (int64_t i = 0; i < q; ++i) {
    const int64_t end = std::min(q, i / kTriangleRows * kTriangleRows + kTriangleRows);
    const T decay = a[i];
    for (int64_t j = 0; j < end; ++j) row[j] *= decay;
    row[i] = dt[i];
    const T* from = g + i * ld;
    T* to = w + i * ld;
    for (int64_t j = 0; j < end; ++j) to[j] = from[j] * row[j];
    if (m)
      for (int64_t j = 0; j < end; ++j) m[i * ld + j] = row[j];
  }
}

// to_j = factor_j x_j for q rows of `dim`.
template <class T>
STRATA_INLINE void scale_rows(const T* x, int64_t pitch, const T* factor, int64_t q, int64_t dim,
                              T* to) {
  for (int64_t j = 0; j < q; ++j) {
    const T f = factor[j];
    for (int64_t p = 0; p < dim; ++p) to[j * dim + p] = f * x[j * pitch + p];
  }
}

// Small scans stay on one thread.
template <class T>
STRATA_INLINE int64_t task_grain(const Scan<T>& s) {
  const int64_t tasks = s.tasks.count(s.o);
  const int64_t work = s.tasks.batch * s.seq_len * s.heads * s.dim * s.states;
  return work < 256 * 1024 ? tasks : 1;
}

}  // namespace
}  // namespace strata::mamba2
