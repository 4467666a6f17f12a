// Attention by its definition, in double and one query at a time: the twin of every attend test.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/ops/attend.h"
#include "core/tensor/random.h"

namespace strata::test {

using Numbers = std::vector<double>;

inline Numbers random_numbers(int64_t n, uint64_t stream, double size = 1) {
  Random random(11, stream);
  Numbers x(n);
  for (double& e : x) e = size * random.normal();
  return x;
}

// Sizes of a case; documents lists the id of each key position, for every sequence alike.
struct Case {
  int64_t batch, q_len, kv_len;
  AttendOptions options;
  std::vector<int32_t> documents;
  int64_t q_size() const { return batch * q_len * options.n_heads * options.head_dim; }
  int64_t kv_size() const { return batch * kv_len * options.n_kv_heads * options.head_dim; }
};

struct Result {
  Numbers y, dq, dk, dv;
};

// The definition, one query at a time; with dy also the gradients.
inline Result naive(const Case& c, const Numbers& q, const Numbers& k, const Numbers& v,
                    const Numbers& dy = {}) {
  const AttendOptions& o = c.options;
  const int64_t group = o.n_heads / o.n_kv_heads, dim = o.head_dim;
  const double scale = o.scale ? o.scale : 1 / std::sqrt(double(dim));
  Result r{Numbers(q.size()), Numbers(q.size()), Numbers(k.size()), Numbers(v.size())};
  Numbers p(c.kv_len), slope(c.kv_len), dp(c.kv_len);
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t t = 0; t < c.q_len; ++t)
      for (int64_t h = 0; h < o.n_heads; ++h) {
        const int64_t at = ((b * c.q_len + t) * o.n_heads + h) * dim, pos = c.kv_len - c.q_len + t;
        const auto kv = [&](int64_t j) {
          return ((b * c.kv_len + j) * o.n_kv_heads + h / group) * dim;
        };
        double top = -1e300, total = 0;
        for (int64_t j = 0; j < c.kv_len; ++j) {
          bool sees =
              (!o.causal || j <= pos) && (!o.window || (pos - j < o.window && j - pos < o.window));
          for (int64_t i = std::min(j, pos); !c.documents.empty() && i < std::max(j, pos); ++i)
            sees = sees && c.documents[i] == c.documents[i + 1];
          double s = 0;
          for (int64_t d = 0; d < dim; ++d) s += q[at + d] * k[kv(j) + d];
          s *= scale;
          slope[j] = scale;
          if (o.softcap > 0) {
            const double th = std::tanh(s / o.softcap);
            s = o.softcap * th;
            slope[j] *= 1 - th * th;
          }
          p[j] = sees ? s : -INFINITY;
          top = std::max(top, p[j]);
        }
        for (double& e : p) total += (e = std::exp(e - top));
        double delta = 0;
        for (int64_t j = 0; j < c.kv_len; ++j) {
          p[j] /= total;
          dp[j] = 0;
          for (int64_t d = 0; d < dim; ++d) {
            r.y[at + d] += p[j] * v[kv(j) + d];
            if (!dy.empty()) dp[j] += dy[at + d] * v[kv(j) + d];
          }
          delta += p[j] * dp[j];
        }
        if (dy.empty()) continue;
        for (int64_t j = 0; j < c.kv_len; ++j) {
          const double ds = p[j] * (dp[j] - delta) * slope[j];
          for (int64_t d = 0; d < dim; ++d) {
            r.dv[kv(j) + d] += p[j] * dy[at + d];
            r.dk[kv(j) + d] += ds * q[at + d];
            r.dq[at + d] += ds * k[kv(j) + d];
          }
        }
      }
  return r;
}

template <class T>
void put(Tensor x, const Numbers& values) {
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t i = 0; i < x.cols(); ++i) x.row<T>(r)[i] = T(values[r * x.cols() + i]);
}
template <class T>
Numbers get(Tensor x) {
  Numbers values;
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t i = 0; i < x.cols(); ++i) values.push_back(x.row<T>(r)[i]);
  return values;
}

inline double relative(const Numbers& got, const Numbers& want) {
  REQUIRE(got.size() == want.size());
  double error = 0, size = 0.1;  // a gradient may be zero
  for (size_t i = 0; i < got.size(); ++i) {
    error = std::max(error, std::abs(got[i] - want[i]));
    if (std::isnan(got[i])) error = INFINITY;
    size = std::max(size, std::abs(want[i]));
  }
  return error / size;
}

}  // namespace strata::test
