#include <algorithm>
#include <limits>

#include "core/kernels/parallel.h"
#include "core/kernels/register.h"
#include "core/kernels/simd.h"
#include "core/ops/row_blocks.h"
#include "layers/moe/route.h"

namespace strata::moe {
namespace {

template <class T>
void softmax_row(const T* x, T* y, int64_t n) {
  T largest = x[0], sum = 0;
  for (int64_t i = 1; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  for (int64_t i = 0; i < n; ++i) sum += y[i] = simd::exp(x[i] - largest);
  for (int64_t i = 0; i < n; ++i) y[i] /= sum;
}

// The k largest of value(e), best first. NaN is never chosen before a number.
template <class T, class F>
void choose(int64_t n, int64_t k, int32_t* index, const F& value) {
  for (int64_t j = 0; j < k; ++j) {
    int64_t best = -1;
    T highest = 0;
    for (int64_t e = 0; e < n; ++e) {
      bool taken = false;
      for (int64_t i = 0; i < j; ++i) taken = taken || index[i] == e;
      if (taken) continue;
      const T v = value(e);
      if (best < 0 || v > highest || (highest != highest && v == v)) {
        best = e;
        highest = v;
      }
    }
    index[j] = int32_t(best);
  }
}

// Which groups of experts may be chosen from: those with the largest sums of their two best values.
template <class T, class F>
void choose_groups(int64_t n, const RouteOptions& o, bool* allowed, const F& value) {
  const int64_t size = n / o.n_groups;
  T sums[kMaxExperts];
  int32_t best[kMaxExperts];
  for (int64_t g = 0; g < o.n_groups; ++g) {
    int32_t two[2];
    const int64_t count = std::min<int64_t>(2, size);
    choose<T>(size, count, two, [&](int64_t i) { return value(g * size + i); });
    sums[g] = 0;
    for (int64_t i = 0; i < count; ++i) sums[g] += value(g * size + two[i]);
    allowed[g] = false;
  }
  choose<T>(o.n_groups, o.top_groups, best, [&](int64_t g) { return sums[g]; });
  for (int64_t j = 0; j < o.top_groups; ++j) allowed[best[j]] = true;
}

constexpr double kTiny = 1e-20;  // added to the sum of chosen scores

template <class T>
void route_cpu(const RouteArgs& a, Stream) {
  const RouteOptions& o = a.options;
  const int64_t n = a.logits.cols(), k = o.top_k;
  const T* bias = a.bias.ptr<T>();
  parallel_for(a.logits.rows(), grain_for(n * (8 + k)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T* x = a.logits.row<T>(t);
      T *s = a.scores.row<T>(t), *w = a.weights.row<T>(t);
      int32_t* index = a.index.row<int32_t>(t);
      if (o.router == Router::softmax)
        softmax_row(x, s, n);
      else
        for (int64_t e = 0; e < n; ++e)
          s[e] = o.router == Router::sigmoid ? simd::sigmoid(x[e]) : x[e];
      const auto value = [&](int64_t e) { return bias ? s[e] + bias[e] : s[e]; };
      if (o.top_groups < o.n_groups) {
        bool allowed[kMaxExperts];
        choose_groups<T>(n, o, allowed, value);
        const int64_t size = n / o.n_groups;
        constexpr T kNever = -std::numeric_limits<T>::infinity();
        choose<T>(n, k, index, [&](int64_t e) { return allowed[e / size] ? value(e) : kNever; });
      } else {
        choose<T>(n, k, index, value);
      }
      for (int64_t j = 0; j < k; ++j) w[j] = s[index[j]];
      if (o.router == Router::topk_softmax) {
        softmax_row(w, w, k);
      } else if (o.normalize) {
        T sum = T(kTiny);
        for (int64_t j = 0; j < k; ++j) sum += w[j];
        for (int64_t j = 0; j < k; ++j) w[j] /= sum;
      }
      for (int64_t j = 0; j < k; ++j) w[j] *= T(o.scale);
    }
  });
}

template <class T>
void route_backward_cpu(const RouteBackwardArgs& a, Stream) {
  const RouteOptions& o = a.options;
  const int64_t n = a.scores.cols(), k = o.top_k;
  parallel_for(a.scores.rows(), grain_for(n * 4), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T *s = a.scores.row<T>(t), *w = a.weights.row<T>(t), *dw = a.dweights.row<T>(t);
      const int32_t* index = a.index.row<int32_t>(t);
      T* dx = a.dlogits.grad.row<T>(t);
      if (!a.dlogits.accumulate)
        for (int64_t e = 0; e < n; ++e) dx[e] = 0;
      if (o.router == Router::topk_softmax) {
        T dot = 0;
        for (int64_t j = 0; j < k; ++j) dot += w[j] * dw[j];
        for (int64_t j = 0; j < k; ++j) dx[index[j]] += w[j] * (dw[j] - dot / T(o.scale));
        continue;
      }
      // ds_j = (g_j - sum(g s) / sum(s)) / sum(s) when normalised, else g_j, with g = scale dw
      T sum = T(kTiny), dot = 0, pull = 0;
      for (int64_t j = 0; j < k; ++j) {
        sum += s[index[j]];
        dot += T(o.scale) * dw[j] * s[index[j]];
      }
      for (int64_t j = 0; j < k; ++j) {
        const T g = T(o.scale) * dw[j], score = s[index[j]];
        const T ds = o.normalize ? (g - dot / sum) / sum : g;
        dx[index[j]] += o.router == Router::sigmoid ? ds * score * (1 - score) : ds * score;
        pull += ds * score;
      }
      if (o.router == Router::softmax)
        for (int64_t e = 0; e < n; ++e) dx[e] -= s[e] * pull;
    }
  });
}

void sort_cpu(const SortArgs& a, Stream) {
  const int64_t n = a.offsets.numel() - 1, pairs = a.index.numel(), k = a.index.cols();
  const int32_t* index = a.index.ptr<int32_t>();
  int32_t *offsets = a.offsets.ptr<int32_t>(), *row = a.row.ptr<int32_t>();
  for (int64_t e = 0; e <= n; ++e) offsets[e] = 0;
  for (int64_t i = 0; i < pairs; ++i) ++offsets[index[i]];
  int32_t total = 0;  // now offsets[e] counts expert e; make it where e begins
  for (int64_t e = 0; e <= n; ++e) {
    const int32_t count = offsets[e];
    offsets[e] = total;
    total += count;
  }
  for (int64_t i = 0; i < pairs; ++i) {
    row[i] = offsets[index[i]]++;
    a.token.ptr<int32_t>()[row[i]] = int32_t(i / k);
  }
  for (int64_t e = n; e > 0; --e) offsets[e] = offsets[e - 1];  // each now stood at its end
  offsets[0] = 0;
}

template <class T>
void combine_cpu(const CombineArgs& a, Stream) {
  const int64_t d = a.x.cols(), k = a.weights.cols();
  parallel_for(a.y.rows(), grain_for(d * k), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      T* y = a.y.row<T>(t);
      for (int64_t c = 0; c < d; ++c) y[c] = 0;
      for (int64_t j = 0; j < k; ++j) {
        const T* x = a.x.row<T>(a.row.row<int32_t>(t)[j]);
        const T w = a.weights.row<T>(t)[j];
        for (int64_t c = 0; c < d; ++c) y[c] += w * x[c];
      }
    }
  });
}

template <class T>
void combine_backward_cpu(const CombineBackwardArgs& a, Stream) {
  const int64_t d = a.x.cols(), k = a.weights.cols();
  parallel_for(a.dy.rows(), grain_for(2 * d * k), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t j = 0; j < k; ++j) {
        const int64_t r = a.row.row<int32_t>(t)[j];
        const T *dy = a.dy.row<T>(t), *x = a.x.row<T>(r);
        const T w = a.weights.row<T>(t)[j];
        if (a.dweights.wanted) {
          T dot = 0;
#pragma omp simd reduction(+ : dot)
          for (int64_t c = 0; c < d; ++c) dot += dy[c] * x[c];
          T& dw = a.dweights.grad.row<T>(t)[j];
          dw = (a.dweights.accumulate ? dw : T(0)) + dot;
        }
        if (!a.dx.wanted) continue;
        T* dx = a.dx.grad.row<T>(r);
        for (int64_t c = 0; c < d; ++c) dx[c] = (a.dx.accumulate ? dx[c] : T(0)) + w * dy[c];
      }
  });
}

template <class T>
void balance_cpu(const BalanceArgs& a, Stream) {
  const int64_t tokens = a.logits.rows(), n = a.logits.cols();
  const RowBlocks blocks = row_blocks(tokens);
  T* chosen = a.chosen.ptr<T>();
  for (int64_t e = 0; e < n; ++e) chosen[e] = 0;
  for (int64_t i = 0; i < a.index.numel(); ++i) chosen[a.index.ptr<int32_t>()[i]] += T(1);
  for (int64_t e = 0; e < n; ++e) chosen[e] /= T(tokens);
  parallel_for(blocks.count, grain_for(blocks.size * n * 8), [&](int64_t begin, int64_t end) {
    T p[kMaxExperts];
    for (int64_t block = begin; block < end; ++block) {
      T* sum = a.partial.row<T>(block);
      for (int64_t e = 0; e < n; ++e) sum[e] = 0;
      for (int64_t t = blocks.begin(block); t < blocks.end(block); ++t) {
        softmax_row(a.logits.row<T>(t), p, n);
        for (int64_t e = 0; e < n; ++e) sum[e] += p[e];
      }
    }
  });
  T loss = 0;
  for (int64_t block = 0; block < blocks.count; ++block)
    for (int64_t e = 0; e < n; ++e) loss += chosen[e] * a.partial.row<T>(block)[e];
  *a.loss.ptr<T>() = T(n) * loss / T(tokens);
}

template <class T>
void balance_backward_cpu(const BalanceBackwardArgs& a, Stream) {
  const int64_t tokens = a.logits.rows(), n = a.logits.cols();
  const T factor = *a.dloss.ptr<T>() * T(n) / T(tokens);
  const T* chosen = a.chosen.ptr<T>();
  parallel_for(tokens, grain_for(n * 10), [&](int64_t begin, int64_t end) {
    T p[kMaxExperts];
    for (int64_t t = begin; t < end; ++t) {
      softmax_row(a.logits.row<T>(t), p, n);
      T* dx = a.dlogits.grad.row<T>(t);
      T mean = 0;
      for (int64_t e = 0; e < n; ++e) mean += p[e] * chosen[e];
      for (int64_t e = 0; e < n; ++e)
        dx[e] = (a.dlogits.accumulate ? dx[e] : T(0)) + factor * p[e] * (chosen[e] - mean);
    }
  });
}

template <class T>
void even_out_cpu(const EvenOutArgs& a, Stream) {
  const int64_t n = a.bias.numel();
  const double mean = a.offsets[n] / double(n);
  for (int64_t e = 0; e < n; ++e) {
    const double load = a.offsets[e + 1] - a.offsets[e];
    a.bias.ptr<T>()[e] += T(a.rate * double((load < mean) - (load > mean)));
  }
}

}  // namespace

STRATA_CPU_KERNEL("moe_route", RouteArgs, route_cpu)
STRATA_CPU_KERNEL("moe_route_backward", RouteBackwardArgs, route_backward_cpu)
STRATA_KERNEL("moe_sort", DeviceKind::cpu, DType::i32, SortArgs, sort_cpu)
STRATA_CPU_KERNEL("moe_combine", CombineArgs, combine_cpu)
STRATA_CPU_KERNEL("moe_combine_backward", CombineBackwardArgs, combine_backward_cpu)
STRATA_CPU_KERNEL("moe_balance", BalanceArgs, balance_cpu)
STRATA_CPU_KERNEL("moe_balance_backward", BalanceBackwardArgs, balance_backward_cpu)
STRATA_CPU_KERNEL("moe_even_out", EvenOutArgs, even_out_cpu)

}  // namespace strata::moe
