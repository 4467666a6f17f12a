#include "core/ops/decay_scan.h"

#include "tests/core/ops/gradcheck.h"
#include "tests/core/ops/test_pass.h"

using namespace strata;
using namespace strata::test;

namespace {

// Documents of five tokens, shifted per row.
Tensor documents(Context& cx, int64_t batch, int64_t seq_len) {
  Tensor idx = cx.alloc({batch, seq_len}, DType::i32);
  if (!cx.planning())
    for (int64_t i = 0; i < batch * seq_len; ++i)
      idx.ptr<int32_t>()[i] = int32_t((i % seq_len + i / seq_len) / 5);
  return idx;
}

GradcheckOptions options() {
  GradcheckOptions o;
  o.tolerance = 1e-6;
  // Decays first: between -1 and 1, some exactly zero.
  o.value = [](size_t n, int64_t i) {
    Random draw(n + 1, 3, uint64_t(i) * 4);
    return n == 0 ? (i % 7 == 3 ? 0.0 : 2 * draw.uniform() - 1) : draw.normal();
  };
  return o;
}

// The recurrence of decay_scan_outer, token by token.
std::vector<double> naive_outer(const Tensor& a, const Tensor& k, const Tensor& v, const Tensor& q,
                                const int32_t* doc) {
  const int64_t batch = k.shape[0], seq_len = k.shape[1], heads = k.shape[2];
  const int64_t d_k = k.cols(), d_v = v.cols();
  std::vector<double> y;
  y.resize(size_t(v.numel()));
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t h = 0; h < heads; ++h) {
      std::vector<double> s(size_t(d_k * d_v));
      for (int64_t t = 0; t < seq_len; ++t) {
        const int64_t bt = b * seq_len + t, r = bt * heads + h;
        const bool reset = doc && t > 0 && doc[bt] != doc[bt - 1];
        for (int64_t i = 0; i < d_k; ++i)
          for (int64_t c = 0; c < d_v; ++c) {
            double& e = s[size_t(i * d_v + c)];
            e = (reset ? 0 : get(a, bt * heads + h) * e) +
                get(k, r * d_k + i) * get(v, r * d_v + c);
            y[size_t(r * d_v + c)] += get(q, r * d_k + i) * e;
          }
      }
    }
  return y;
}

}  // namespace

TEST_CASE("decay_scan: gradients for one decay an element and one a row, with documents") {
  for (bool docs : {false, true}) {
    auto op = [&](Context& cx, Inputs& in) {
      TestPass pass(2);
      if (docs) pass.set_seq_idx(documents(cx, 2, 13));
      return decay_scan(cx, in[0], in[1], pass);
    };
    gradcheck({{2, 13, 70}, {2, 13, 70}}, op, options());
    gradcheck({{2, 13, 3, 5}, {2, 13, 3, 5}}, op, options());
    gradcheck({{2, 13, 3}, {2, 13, 3, 67}}, op, options());
    GradcheckOptions packed = options();
    packed.pitched = false;
    gradcheck({{2, 13, 3, 1}, {2, 13, 3, 5}}, op, packed);
    gradcheck({{2, 13}, {2, 13, 5}}, op, packed);
    gradcheck({{2, 13, 1}, {2, 13, 1}}, op, packed);
  }
}

TEST_CASE("decay_scan: equals the recurrence, and steps continue a prefill") {
  for (bool wide : {false, true}) {
    Bench b(DType::f64);
    TestPass pass(2);
    const Tensor x = b.random({2, 9, 3, 5}, 1);
    const Tensor a = wide ? b.random({2, 9, 3, 5}, 2, 0.5) : b.random({2, 9, 3}, 2, 0.5);
    const Tensor h = decay_scan(b.cx, a, x, pass);
    for (int64_t i = 0; i < h.numel(); ++i) {
      const int64_t t = i / 15 % 9;
      const double decay = wide ? get(a, i) : get(a, i / 5);
      const double before = t > 0 ? get(h, i - 15) : 0;
      CHECK(get(h, i) == doctest::Approx(decay * before + get(x, i)).epsilon(1e-12));
    }
    int64_t at = 0;
    for (int64_t piece : {4, 1, 3, 1}) {
      pass.begin(piece > 1 ? Mode::prefill : Mode::decode);
      auto cut = [&](const Tensor& t) {
        const int64_t per_token = t.numel() / 18;
        Shape s = t.shape;
        s[1] = piece;
        Tensor part = b.cx.alloc(s);
        for (int64_t r = 0; r < 2; ++r)
          for (int64_t i = 0; i < piece * per_token; ++i)
            set(part, r * piece * per_token + i, get(t, (r * 9 + at) * per_token + i));
        return part;
      };
      const Tensor y = decay_scan(b.cx, cut(a), cut(x), pass);
      CHECK(difference(values(y), values(cut(h))) < 1e-12);
      at += piece;
    }
  }
}

TEST_CASE("decay_scan_outer: chunks equal the recurrence, with documents and zero decays") {
  for (int64_t seq_len : {1, 5, 64, 150})
    for (bool docs : {false, true}) {
      INFO(seq_len, " tokens, documents ", docs);
      Bench b(DType::f64);
      TestPass pass(2);
      const Tensor idx = documents(b.cx, 2, seq_len);
      if (docs) pass.set_seq_idx(idx);
      const Tensor a = b.random({2, seq_len, 3}, 1, 0.7), k = b.random({2, seq_len, 3, 5}, 2),
                   v = b.random({2, seq_len, 3, 7}, 3), q = b.random({2, seq_len, 3, 5}, 4);
      set(a, seq_len / 2, 0);
      const Tensor y = decay_scan_outer(b.cx, a, k, v, q, pass);
      const auto want = naive_outer(a, k, v, q, docs ? idx.ptr<int32_t>() : nullptr);
      CHECK(difference(values(y), want) < 1e-11 * (1 + largest(want)));
    }
}

TEST_CASE("decay_scan_outer: gradients across chunks and documents") {
  for (bool docs : {false, true})
    for (int64_t seq_len : {1, 6, 131}) {
      INFO(seq_len, " tokens, documents ", docs);
      gradcheck(
          {{2, seq_len, 2}, {2, seq_len, 2, 3}, {2, seq_len, 2, 4}, {2, seq_len, 2, 3}},
          [&](Context& cx, Inputs& in) {
            TestPass pass(2);
            if (docs) pass.set_seq_idx(documents(cx, 2, seq_len));
            return decay_scan_outer(cx, in[0], in[1], in[2], in[3], pass);
          },
          options());
    }
}

TEST_CASE("decay_scan_outer: prefill in pieces, then steps, equals the whole") {
  for (DType type : {DType::f64, DType::f32}) {
    Bench b(type);
    TestPass pass(2);
    const int64_t n = 80;
    const Tensor a = b.random({2, n, 3}, 1, 0.7), k = b.random({2, n, 3, 5}, 2),
                 v = b.random({2, n, 3, 7}, 3), q = b.random({2, n, 3, 5}, 4);
    const Tensor whole = decay_scan_outer(b.cx, a, k, v, q, pass);
    int64_t at = 0;
    for (int64_t piece : {70, 1, 7, 1, 1}) {
      pass.begin(piece > 1 ? Mode::prefill : Mode::decode);
      auto cut = [&](const Tensor& t) {
        const int64_t per_token = t.numel() / (2 * n);
        Shape s = t.shape;
        s[1] = piece;
        Tensor part = b.cx.alloc(s);
        for (int64_t r = 0; r < 2; ++r)
          for (int64_t i = 0; i < piece * per_token; ++i)
            set(part, r * piece * per_token + i, get(t, (r * n + at) * per_token + i));
        return part;
      };
      const Tensor y = decay_scan_outer(b.cx, cut(a), cut(k), cut(v), cut(q), pass);
      CHECK(difference(values(y), values(cut(whole))) < (type == DType::f64 ? 1e-11 : 1e-4));
      at += piece;
    }
    CHECK(pass.specs.at("scan").shape == Shape{3, 5, 7});
  }
}

TEST_CASE("decay_scan: wrong shapes are named") {
  Bench b(DType::f32);
  TestPass pass(1);
  CHECK_THROWS_WITH_AS(decay_scan(b.cx, b.random({1, 4, 3}), b.random({1, 4, 6}), pass),
                       doctest::Contains("got a (1, 4, 3) and b (1, 4, 6)"), Error);
  CHECK_THROWS_AS(decay_scan_outer(b.cx, b.random({1, 4, 2}), b.random({1, 4, 2, 6}),
                                   b.random({1, 4, 3, 5}), b.random({1, 4, 2, 6}), pass),
                  Error);
}
