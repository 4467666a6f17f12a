// Attention for one new token per sequence over pages, and the append of new keys and values.
//
// A step reads every key and value once, so it is made to stream: tasks are runs of pages of one
// sequence, keys are read token by token through all heads, with the head's elements in the vector
// lanes. Each run leaves (maximum, sum, weighted values); a second pass joins the runs in order.
#include <omp.h>

#include <cstring>

#include "core/ops/cpu/attend_tile.h"

namespace strata {
namespace {

// Lane i of the result is the sum of all lanes of v[i]. v has kLanes<T> entries and is destroyed.
template <class T>
inline Vec<T> sum_each(Vec<T>* v) {
  VecInt<T> even, odd;
  for (int i = 0; i < kLanes<T>; ++i) even[i] = 2 * i, odd[i] = 2 * i + 1;
#pragma GCC unroll 8
  for (int n = kLanes<T> / 2; n > 0; n /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      const Vec<T> a = v[2 * i], b = v[2 * i + 1];
      v[i] = __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
    }
  }
  return v[0];
}

// scores[j] = q . key j for kLanes<T> keys; rows behind `count` repeat the last one.
template <class T>
inline Vec<T> dot_keys(const T* q, const T* key, int64_t pitch, int64_t count, int64_t dim) {
  constexpr int kW = kLanes<T>;
  const int64_t whole = dim / kW * kW;
  Vec<T> acc[kW];
  const T* row[kW];
  for (int j = 0; j < kW; ++j) {
    acc[j] = Vec<T>{};
    row[j] = key + min_of<int64_t>(j, count - 1) * pitch;
  }
  for (int64_t d = 0; d < whole; d += kW) {
    const Vec<T> qd = load<T>(q + d);
#pragma GCC unroll 16
    for (int j = 0; j < kW; ++j) acc[j] += qd * load<T>(row[j] + d);
  }
  if (whole < dim) {
    const Vec<T> qd = load<T>(q + whole);
    for (int j = 0; j < kW; ++j) acc[j] += qd * load_part<T>(row[j] + whole, int(dim - whole));
  }
  return sum_each<T>(acc);
}

// sums[d] += sum_j p[j] value[j][d]
template <class T>
inline void add_values(T* sums, const T* p, const T* value, int64_t pitch, int64_t count,
                       int64_t dim) {
  constexpr int kW = kLanes<T>;
  int64_t d = 0;
  for (; d + kW <= dim; d += kW) {
    Vec<T> s = load<T>(sums + d), t{};
    int64_t j = 0;
    for (; j + 2 <= count; j += 2) {
      s += p[j] * load<T>(value + j * pitch + d);
      t += p[j + 1] * load<T>(value + (j + 1) * pitch + d);
    }
    if (j < count) s += p[j] * load<T>(value + j * pitch + d);
    store<T>(sums + d, s + t);
  }
  for (; d < dim; ++d) {
    for (int64_t j = 0; j < count; ++j) sums[d] += p[j] * value[j * pitch + d];
  }
}

// Keys [from, to) of sequence b. out: per head {width sums, maximum, divisor}.
template <class T>
void attend_run(const Attention<T>& a, int64_t b, int64_t from, int64_t to, T* scratch, T* out) {
  constexpr int kW = kLanes<T>;
  const int64_t dim = a.head_dim, width = padded_width(dim, sizeof(T));
  const int64_t group = a.n_heads / a.n_kv_heads, step = width + 2;
  const ScoreScale<T> scale(a);
  T* q = scratch;                     // (n_heads, width), scaled
  T* scores = q + a.n_heads * width;  // (n_heads, 64)
  for (int64_t h = 0; h < a.n_heads; ++h) {
    const T* row = a.q + b * a.q_pitch + h * dim;
    for (int64_t d = 0; d < width; ++d) {
      q[h * width + d] = d < dim ? row[d] * scale.query : T(0);
      out[h * step + d] = T(0);
    }
    out[h * step + width] = T(-1e30);
    out[h * step + width + 1] = T(0);
  }
  for (int64_t j0 = from; j0 < to; j0 = j0 / kTile * kTile + kTile) {
    const int64_t count = min_of(to, j0 / kTile * kTile + kTile) - j0;
    const Rows<T> keys = rows_of(a.k, a.k_pitch, a.k_pages, a, b, 0);
    const Rows<T> values = rows_of(a.v, a.v_pitch, a.v_pages, a, b, 0);
    const T* k = keys.at(j0);
    const T* v = values.at(j0);
    for (int64_t j = 0; j < count; j += kW) {
      for (int64_t h = 0; h < a.n_heads; ++h) {
        store<T>(scores + h * kTile + j,
                 dot_keys<T>(q + h * width, k + j * keys.pitch + h / group * dim, keys.pitch,
                             count - j, dim));
      }
    }
    for (int64_t h = 0; h < a.n_heads; ++h) {
      T* s = scores + h * kTile;
      T* sums = out + h * step;
      T top = sums[width];
      for (int64_t j = count; j < round_up(count, kW); ++j) s[j] = T(-__builtin_inff());
      if (scale.cap > 0) {
        for (int64_t j = 0; j < count; ++j) s[j] = scale.cap * simd::tanh(s[j]);
        for (int64_t j = count; j < round_up(count, kW); ++j) s[j] = T(-__builtin_inff());
      }
      for (int64_t j = 0; j < count; ++j) top = s[j] > top ? s[j] : top;
      const T alpha = exp2(splat<T>(sums[width] - top))[0];
      Vec<T> sum{};
      for (int64_t j = 0; j < count; j += kW) {
        const Vec<T> p = exp2(load<T>(s + j) - top);
        store<T>(s + j, p);
        sum += p;
      }
      sums[width] = top;
      sums[width + 1] = sums[width + 1] * alpha + sum_lanes<T>(sum);
      if (alpha != T(1)) {
        for (int64_t d = 0; d < width; ++d) sums[d] *= alpha;
      }
    }
    constexpr int64_t kBlock = 8;  // tokens read side by side
    for (int64_t j = 0; j < count; j += kBlock) {
      for (int64_t h = 0; h < a.n_heads; ++h) {
        add_values<T>(out + h * step, scores + h * kTile + j,
                      v + j * values.pitch + h / group * dim, values.pitch,
                      min_of(kBlock, count - j), dim);
      }
    }
  }
}

// y and lse of head h from the runs of sequence b, in their order.
template <class T>
void join_runs(const Attention<T>& a, int64_t b, int64_t h, int64_t runs, int64_t run_pitch,
               const T* partial) {
  const int64_t dim = a.head_dim, width = padded_width(dim, sizeof(T));
  T* y = a.y + b * a.y_pitch + h * dim;
  for (int64_t d = 0; d < dim; ++d) y[d] = T(0);
  T top = T(-1e30), total = T(0);
  for (int64_t r = 0; r < runs; ++r) {
    const T m = partial[r * run_pitch + h * (width + 2) + width];
    top = m > top ? m : top;
  }
  for (int64_t r = 0; r < runs; ++r) {
    const T* sums = partial + r * run_pitch + h * (width + 2);
    const T weight = exp2(splat<T>(sums[width] - top))[0];
    total += weight * sums[width + 1];
    for (int64_t d = 0; d < dim; ++d) y[d] += weight * sums[d];
  }
  const T factor = total == T(0) ? T(0) : T(1) / total;
  for (int64_t d = 0; d < dim; ++d) y[d] *= factor;
  if (a.lse) a.lse[b * a.n_heads + h] = T(top * kLn2) + T(__builtin_log(double(total)));
}

template <class T>
void attend_step_cpu(const AttendArgs& args, Stream) {
  const Attention<T> a(args);
  const AttendWorkspace size(args, sizeof(T));
  const int64_t run_pitch = a.n_heads * (padded_width(a.head_dim, sizeof(T)) + 2);
  T* partial = reinterpret_cast<T*>(a.workspace);
  char* scratch = a.workspace + size.partial;
  // Keys of one run: whole pages, a number that depends on the sequence's own length only.
  const auto run_tokens = [&](int64_t lo, int64_t hi) {
    const int64_t n = hi - lo / kTile * kTile;
    return max_of(kAttendSplitTokens, round_up((n + size.splits - 1) / size.splits, kTile));
  };
#pragma omp parallel num_threads(a.threads) if (worth_forking(a))
  {
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < a.batch * size.splits; ++task) {
      const int64_t b = task / size.splits, run = task % size.splits;
      int64_t lo, hi;
      key_range(a, nullptr, b, 0, &lo, &hi);
      const int64_t tokens = run_tokens(lo, hi), start = lo / kTile * kTile + run * tokens;
      if (start >= hi) continue;
      attend_run(a, b, max_of(lo, start), min_of(hi, start + tokens),
                 reinterpret_cast<T*>(scratch + omp_get_thread_num() * size.step),
                 partial + task * run_pitch);
    }
#pragma omp for
    for (int64_t task = 0; task < a.batch * a.n_heads; ++task) {
      const int64_t b = task / a.n_heads;
      int64_t lo, hi;
      key_range(a, nullptr, b, 0, &lo, &hi);
      const int64_t tokens = run_tokens(lo, hi);
      const int64_t runs = (hi - lo / kTile * kTile + tokens - 1) / tokens;
      join_runs(a, b, task % a.n_heads, runs, run_pitch, partial + b * size.splits * run_pitch);
    }
  }
}

template <class T>
void append_pages_cpu(const AppendPagesArgs& a, Stream) {
  const int64_t batch = a.rows.shape[0], len = a.rows.shape[1];
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < len; ++t) {
      std::memcpy(a.pages.token<T>(b, a.pages.lengths[b] + t), a.rows.row<T>(b * len + t),
                  size_t(a.rows.cols()) * sizeof(T));
    }
  }
}

STRATA_CPU_KERNEL("attend_step", AttendArgs, attend_step_cpu)
STRATA_CPU_KERNEL("append_pages", AppendPagesArgs, append_pages_cpu)

}  // namespace
}  // namespace strata
