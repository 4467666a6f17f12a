// Attention for one new token per sequence over pages, and the append of new keys and values.
//
// A step reads every key and value once, so it is made to stream: tasks are runs of pages of one
// sequence, read 16 tokens at a time through all heads. All query heads of a key-value head share
// each load; a head's elements are in the vector lanes. Each run leaves (maximum, sum, weighted
// values); a second pass joins the runs in order.
#include <omp.h>

#include <cstring>
#include <utility>

#include "core/ops/cpu/attend_tile.h"

namespace strata {
namespace {

// The sums of neighbouring lanes, a's and then b's.
template <class T, int... kLane>
inline Vec<T> pair_sums(Vec<T> a, Vec<T> b, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b, (2 * kLane)...) +
         __builtin_shufflevector(a, b, (2 * kLane + 1)...);
}

// Lane i of the result is the sum of all lanes of v[i]. v has kLanes<T> entries and is destroyed.
template <class T>
inline Vec<T> sum_each(Vec<T>* v) {
#pragma GCC unroll 8
  for (int n = kLanes<T> / 2; n > 0; n /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i)
      v[i] = pair_sums<T>(v[2 * i], v[2 * i + 1], std::make_integer_sequence<int, kLanes<T>>{});
  }
  return v[0];
}

// scores[h][j] = q[h] . key[j] for kHeads heads and the kLanes / kHeads keys from key on; keys
// behind `count` repeat the last one. q rows are `width` apart, rows of scores 64.
template <class T, int kHeads>
inline void dot_block(const T* q, int64_t width, const T* key, int64_t pitch, int64_t count,
                      int64_t dim, T* scores) {
  constexpr int kW = kLanes<T>, kKeys = kW / kHeads;
  Vec<T> acc[kW];
  const T* row[kKeys];
#pragma GCC unroll 16
  for (int j = 0; j < kKeys; ++j) row[j] = key + min_of<int64_t>(j, count - 1) * pitch;
#pragma GCC unroll 16
  for (int i = 0; i < kW; ++i) acc[i] = Vec<T>{};
  int64_t d = 0;
  for (; d + kW <= dim; d += kW) {
    Vec<T> qd[kHeads];
#pragma GCC unroll 4
    for (int h = 0; h < kHeads; ++h) qd[h] = load<T>(q + h * width + d);
#pragma GCC unroll 16
    for (int j = 0; j < kKeys; ++j) {
      const Vec<T> kd = load<T>(row[j] + d);
#pragma GCC unroll 4
      for (int h = 0; h < kHeads; ++h) acc[h * kKeys + j] += qd[h] * kd;
    }
  }
  if (d < dim) {
#pragma GCC unroll 16
    for (int j = 0; j < kKeys; ++j) {
      const Vec<T> kd = load_part<T>(row[j] + d, int(dim - d));
#pragma GCC unroll 4
      for (int h = 0; h < kHeads; ++h) acc[h * kKeys + j] += load<T>(q + h * width + d) * kd;
    }
  }
  T sums[kW];
  store<T>(sums, sum_each<T>(acc));
#pragma GCC unroll 4
  for (int h = 0; h < kHeads; ++h) {
    for (int j = 0; j < kKeys; ++j) scores[h * kTile + j] = sums[h * kKeys + j];
  }
}

// Scores of a block of keys for the `group` heads that share them.
template <class T>
void dot_heads(const T* q, int64_t group, int64_t width, const T* key, int64_t pitch, int64_t count,
               int64_t dim, T* scores) {
  const auto block = [&]<int kHeads>(int64_t h) {
    constexpr int kKeys = kLanes<T> / kHeads;
    for (int64_t j = 0; j < count; j += kKeys) {
      dot_block<T, kHeads>(q + h * width, width, key + j * pitch, pitch, count - j, dim,
                           scores + h * kTile + j);
    }
  };
  int64_t h = 0;
  if constexpr (kLanes<T> >= 4) {
    for (; h + 4 <= group; h += 4) block.template operator()<4>(h);
  }
  for (; h + 2 <= group; h += 2) block.template operator()<2>(h);
  for (; h < group; ++h) block.template operator()<1>(h);
}

// sums[h][d] += sum_j weights[h][j] value[j][d] for the heads that share the values.
template <class T>
void add_values(T* sums, int64_t step, const T* weights, int64_t group, const T* value,
                int64_t pitch, int64_t count, int64_t dim) {
  const int64_t whole = dim / kLanes<T> * kLanes<T>;
  tile_matmul<T, false>(group, whole, count, weights, kTile, value, pitch, sums, step, true);
  for (int64_t h = 0; h < group && whole < dim; ++h) {
    for (int64_t j = 0; j < count; ++j) {
      for (int64_t d = whole; d < dim; ++d) {
        sums[h * step + d] += weights[h * kTile + j] * value[j * pitch + d];
      }
    }
  }
}

// The scores of one page become weights; earlier sums are scaled to the new maximum.
// sums: {width sums, maximum, divisor}. At most 63 scores behind `count` are overwritten.
template <class T>
void softmax_page(T* s, int64_t count, T cap, int64_t width, T* sums) {
  constexpr int kW = kLanes<T>;
  if (cap > 0) {
    for (int64_t j = 0; j < count; ++j) s[j] = cap * simd::tanh(s[j]);
  }
  for (int64_t j = count; j < round_up(count, kW); ++j) s[j] = T(-__builtin_inff());
  Vec<T> tops = splat(sums[width]);
  for (int64_t j = 0; j < count; j += kW) {
    const Vec<T> v = load<T>(s + j);
    tops = v > tops ? v : tops;
  }
  T top = tops[0];
  for (int i = 1; i < kW; ++i) top = tops[i] > top ? tops[i] : top;
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

// A hint only: rows behind the end of a page do no harm.
template <class T>
inline void prefetch_block(const T* from, int64_t pitch, int64_t count, int64_t dim) {
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t d = 0; d < dim; d += 64 / int64_t(sizeof(T))) {
      __builtin_prefetch(from + j * pitch + d, 0, 2);
    }
  }
}

constexpr int64_t kBlock = 16;  // tokens read side by side

// Keys [from, to) of sequence b. out: per head {width sums, maximum, divisor}.
template <class T>
void attend_run(const Attention<T>& a, int64_t b, int64_t from, int64_t to, T* scratch, T* out) {
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
    // While a head's block is worked on, the same head's next block is on its way.
    const T* following = j0 + count < to ? keys.at(j0 + count) : v;
    for (int64_t j = 0; j < count; j += kBlock) {
      const T* next = j + kBlock < count ? k + (j + kBlock) * keys.pitch : v;
      for (int64_t g = 0; g < a.n_kv_heads; ++g) {
        prefetch_block(next + g * dim, keys.pitch, min_of(kBlock, count - j), dim);
        dot_heads(q + g * group * width, group, width, k + j * keys.pitch + g * dim, keys.pitch,
                  min_of(kBlock, count - j), dim, scores + g * group * kTile + j);
      }
    }
    for (int64_t h = 0; h < a.n_heads; ++h) {
      softmax_page(scores + h * kTile, count, scale.cap, width, out + h * step);
    }
    for (int64_t j = 0; j < count; j += kBlock) {
      const T* next = j + kBlock < count ? v + (j + kBlock) * values.pitch : following;
      for (int64_t g = 0; g < a.n_kv_heads; ++g) {
        prefetch_block(next + g * dim, values.pitch, min_of(kBlock, count - j), dim);
        add_values(out + g * group * step, step, scores + g * group * kTile + j, group,
                   v + j * values.pitch + g * dim, values.pitch, min_of(kBlock, count - j), dim);
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
  if (a.lse) a.lse[b * a.n_heads + h] = T(top * kLn2) + simd::log(total);
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
