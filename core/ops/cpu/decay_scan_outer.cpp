// The scan with a matrix state, in chunks of n tokens. With the decays of a chunk multiplied up,
//   D_ij = a_{j+1} ... a_i for j <= i,   e_i = a_0 ... a_i,   w_j = D_{n-1,j}
// and the state S before the chunk:
//   y = (q k^T * D) v + (e * q) S,       S' = e_{n-1} S + (w * k)^T v
// D is built by products, row by row, never by quotients or logarithms: any a will do, and a
// document's first token has a = 0.
#include <algorithm>
#include <utility>

#include "core/kernels/gemm.h"
#include "core/kernels/parallel.h"
#include "core/kernels/register.h"
#include "core/ops/decay_scan.h"

namespace strata {
namespace {

constexpr int64_t kC = kScanChunk;

// The rows of one (sequence, head) pair: token t at base + t * step.
template <class T>
struct Rows {
  T* base;
  int64_t step;
  STRATA_INLINE Rows(const Tensor& t, int64_t b, int64_t head)
      : base(t.ptr<T>() ? t.row<T>((b * t.shape[1]) * t.shape[2] + head) : nullptr),
        step(t.shape[2] * t.pitch) {}
  STRATA_INLINE T* at(int64_t t) const { return base + t * step; }
};

// The workspace of one lane, and the decays of the chunk in it.
template <class T>
struct Lane {
  T *pairs, *decay, *extra;  // (chunk, chunk) each
  T *rows_a, *rows_b;        // (chunk, d_k) each
  T *a, *e, *w, *de;         // (chunk,) each
  T *state, *dstate;         // (d_k, d_v) each

  Lane(const Tensor& work, int64_t lane, int64_t d_k, int64_t d_v) {
    T* p = work.row<T>(lane);
    auto take = [&](int64_t n) { return std::exchange(p, p + n); };
    pairs = take(kC * kC), decay = take(kC * kC), extra = take(kC * kC);
    rows_a = take(kC * d_k), rows_b = take(kC * d_k);
    a = take(kC), e = take(kC), w = take(kC), de = take(kC);
    state = take(d_k * d_v), dstate = take(d_k * d_v);
  }

  void load(const Tensor& decays, const Tensor& seq_idx, int64_t b, int64_t head, int64_t t0,
            int64_t n) {
    const int64_t seq_len = decays.shape[1];
    const int32_t* doc = seq_idx ? seq_idx.ptr<int32_t>() + b * seq_len : nullptr;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t t = t0 + i;
      a[i] = doc && t > 0 && doc[t] != doc[t - 1] ? T(0) : decays.row<T>(b * seq_len + t)[head];
      e[i] = i == 0 ? a[0] : e[i - 1] * a[i];
      T* d = decay + i * kC;
      if (i > 0)
        for (int64_t j = 0; j < i; ++j) d[j] = d[j - kC] * a[i];
      d[i] = 1;
      for (int64_t j = i + 1; j < n; ++j) d[j] = 0;
    }
    for (int64_t j = 0; j < n; ++j) w[j] = decay[(n - 1) * kC + j];
  }
};

// to = factor * from, row by row
template <class T>
void scale_rows(T* to, int64_t width, const Rows<T>& from, int64_t t0, int64_t n, const T* factor) {
  for (int64_t i = 0; i < n; ++i) {
    const T* x = from.at(t0 + i);
    for (int64_t c = 0; c < width; ++c) to[i * width + c] = factor[i] * x[c];
  }
}

template <class T>
void one_token(T a, const T* k, const T* v, const T* q, T* y, T* state, int64_t d_k, int64_t d_v) {
  for (int64_t c = 0; c < d_v; ++c) y[c] = 0;
  for (int64_t i = 0; i < d_k; ++i) {
    T* s = state + i * d_v;
    const T ki = k[i], qi = q[i];
    for (int64_t c = 0; c < d_v; ++c) {
      s[c] = a * s[c] + ki * v[c];
      y[c] += qi * s[c];
    }
  }
}

template <class T>
void forward_pair(const DecayScanOuterArgs& s, int64_t b, int64_t head, int64_t lane) {
  const int64_t seq_len = s.k.shape[1], heads = s.k.shape[2], d_k = s.k.cols(), d_v = s.v.cols();
  const Rows<T> k(s.k, b, head), v(s.v, b, head), q(s.q, b, head), y(s.y, b, head);
  Lane<T> l(s.work, lane, d_k, d_v);
  T* state = s.state ? s.state.row<T>(b) + head * d_k * d_v : l.state;
  if (!s.state) std::fill_n(state, d_k * d_v, T(0));
  const int64_t chunks = (seq_len + kC - 1) / kC;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t t0 = chunk * kC, n = std::min(kC, seq_len - t0);
    if (s.starts)
      std::copy_n(state, d_k * d_v, s.starts.row<T>((b * chunks + chunk) * heads + head));
    l.load(s.a, s.seq_idx, b, head, t0, n);
    if (n == 1) {
      one_token(l.a[0], k.at(t0), v.at(t0), q.at(t0), y.at(t0), state, d_k, d_v);
      continue;
    }
    gemm<T>(Trans::no, Trans::yes, n, n, d_k, 1, q.at(t0), q.step, k.at(t0), k.step, 0, l.pairs,
            kC);
    for (int64_t i = 0; i < n * kC; ++i) l.pairs[i] *= l.decay[i];
    gemm<T>(Trans::no, Trans::no, n, d_v, n, 1, l.pairs, kC, v.at(t0), v.step, 0, y.at(t0), y.step);
    scale_rows(l.rows_a, d_k, q, t0, n, l.e);
    gemm<T>(Trans::no, Trans::no, n, d_v, d_k, 1, l.rows_a, d_k, state, d_v, 1, y.at(t0), y.step);
    scale_rows(l.rows_a, d_k, k, t0, n, l.w);
    gemm<T>(Trans::yes, Trans::no, d_k, d_v, n, 1, l.rows_a, d_k, v.at(t0), v.step, l.e[n - 1],
            state, d_v);
  }
}

// da from the gradients of D (l.extra) and e (l.de): the products of load(), backwards.
template <class T>
void decay_backward(const DecayScanOuterBackwardArgs& s, Lane<T>& l, int64_t b, int64_t head,
                    int64_t t0, int64_t n) {
  const int64_t seq_len = s.k.shape[1];
  const int32_t* doc = s.seq_idx ? s.seq_idx.ptr<int32_t>() + b * seq_len : nullptr;
  for (int64_t i = n - 1; i >= 0; --i) {
    T sum = l.de[i] * (i > 0 ? l.e[i - 1] : T(1));
    if (i > 0) {
      const T *g = l.extra + i * kC, *above = l.decay + (i - 1) * kC;
      T* g_above = l.extra + (i - 1) * kC;
      for (int64_t j = 0; j < i; ++j) sum += g[j] * above[j];
      for (int64_t j = 0; j < i; ++j) g_above[j] += g[j] * l.a[i];
      l.de[i - 1] += l.de[i] * l.a[i];
    }
    const int64_t t = t0 + i;
    if (doc && t > 0 && doc[t] != doc[t - 1]) sum = 0;
    T& da = s.da.grad.template row<T>(b * seq_len + t)[head];
    da = (s.da.accumulate ? da : T(0)) + sum;
  }
}

template <class T>
void backward_pair(const DecayScanOuterBackwardArgs& s, int64_t b, int64_t head, int64_t lane) {
  const int64_t seq_len = s.k.shape[1], heads = s.k.shape[2], d_k = s.k.cols(), d_v = s.v.cols();
  const Rows<T> k(s.k, b, head), v(s.v, b, head), q(s.q, b, head), dy(s.dy, b, head);
  Lane<T> l(s.work, lane, d_k, d_v);
  T* ds = l.dstate;  // gradient of the state after the chunk
  std::fill_n(ds, d_k * d_v, T(0));
  const int64_t chunks = (seq_len + kC - 1) / kC;
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const int64_t t0 = chunk * kC, n = std::min(kC, seq_len - t0);
    const T* start = s.starts.row<T>((b * chunks + chunk) * heads + head);
    l.load(s.a, s.seq_idx, b, head, t0, n);
    // pairs = q k^T, extra = dy v^T; then extra = gradient of D, pairs = gradient of q k^T
    gemm<T>(Trans::no, Trans::yes, n, n, d_k, 1, q.at(t0), q.step, k.at(t0), k.step, 0, l.pairs,
            kC);
    if (s.dv.wanted) {
      const Rows<T> dv(s.dv.grad, b, head);
      for (int64_t i = 0; i < n * kC; ++i) l.extra[i] = l.pairs[i] * l.decay[i];
      gemm<T>(Trans::yes, Trans::no, n, d_v, n, 1, l.extra, kC, dy.at(t0), dy.step,
              s.dv.accumulate ? 1 : 0, dv.at(t0), dv.step);
      scale_rows(l.rows_a, d_k, k, t0, n, l.w);
      gemm<T>(Trans::no, Trans::no, n, d_v, d_k, 1, l.rows_a, d_k, ds, d_v, 1, dv.at(t0), dv.step);
    }
    gemm<T>(Trans::no, Trans::yes, n, n, d_v, 1, dy.at(t0), dy.step, v.at(t0), v.step, 0, l.extra,
            kC);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        const T dp = j <= i ? l.extra[i * kC + j] : T(0);
        l.extra[i * kC + j] = dp * l.pairs[i * kC + j];
        l.pairs[i * kC + j] = dp * l.decay[i * kC + j];
      }
    // rows_a = dy S^T, rows_b = v dS^T
    gemm<T>(Trans::no, Trans::yes, n, d_k, d_v, 1, dy.at(t0), dy.step, start, d_v, 0, l.rows_a,
            d_k);
    gemm<T>(Trans::no, Trans::yes, n, d_k, d_v, 1, v.at(t0), v.step, ds, d_v, 0, l.rows_b, d_k);
    for (int64_t i = 0; i < n; ++i) {
      T de = 0, dw = 0;
      for (int64_t c = 0; c < d_k; ++c) {
        de += q.at(t0 + i)[c] * l.rows_a[i * d_k + c];
        dw += k.at(t0 + i)[c] * l.rows_b[i * d_k + c];
      }
      l.de[i] = de;
      l.extra[(n - 1) * kC + i] += dw;
    }
    for (int64_t i = 0; i < d_k * d_v; ++i) l.de[n - 1] += ds[i] * start[i];
    auto finish = [&](const GradTarget& target, Trans trans, const Rows<T>& other, const T* rows,
                      const T* factor) {
      if (!target.wanted) return;
      const Rows<T> d(target.grad, b, head);
      gemm<T>(trans, Trans::no, n, d_k, n, 1, l.pairs, kC, other.at(t0), other.step,
              target.accumulate ? 1 : 0, d.at(t0), d.step);
      for (int64_t i = 0; i < n; ++i)
        for (int64_t c = 0; c < d_k; ++c) d.at(t0 + i)[c] += factor[i] * rows[i * d_k + c];
    };
    finish(s.dq, Trans::no, k, l.rows_a, l.e);
    finish(s.dk, Trans::yes, q, l.rows_b, l.w);
    scale_rows(l.rows_a, d_k, q, t0, n, l.e);
    gemm<T>(Trans::yes, Trans::no, d_k, d_v, n, 1, l.rows_a, d_k, dy.at(t0), dy.step, l.e[n - 1],
            ds, d_v);
    if (s.da.wanted) decay_backward(s, l, b, head, t0, n);
  }
}

template <class F>
void each_pair(const Tensor& k, const Tensor& work, const F& f) {
  const int64_t pairs = k.shape[0] * k.shape[2], heads = k.shape[2], lanes = work.rows();
  parallel_for(lanes, grain_for(k.shape[1] * k.cols() * pairs / lanes * 8),
               [&](int64_t begin, int64_t end) {
                 for (int64_t lane = begin; lane < end; ++lane)
                   for (int64_t i = lane; i < pairs; i += lanes) f(i / heads, i % heads, lane);
               });
}

template <class T>
void decay_scan_outer_cpu(const DecayScanOuterArgs& s, Stream) {
  each_pair(s.k, s.work,
            [&](int64_t b, int64_t head, int64_t lane) { forward_pair<T>(s, b, head, lane); });
}

template <class T>
void decay_scan_outer_backward_cpu(const DecayScanOuterBackwardArgs& s, Stream) {
  each_pair(s.k, s.work,
            [&](int64_t b, int64_t head, int64_t lane) { backward_pair<T>(s, b, head, lane); });
}

}  // namespace

STRATA_CPU_KERNEL("decay_scan_outer", DecayScanOuterArgs, decay_scan_outer_cpu)
STRATA_CPU_KERNEL("decay_scan_outer_backward", DecayScanOuterBackwardArgs,
                  decay_scan_outer_backward_cpu)

}  // namespace strata
