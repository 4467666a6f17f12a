// The LM head's loss, its twin on given logits, and the embedding.
#include "core/ops/lm_head_loss.h"

#include "core/ops/embedding.h"
#include "core/ops/linear.h"
#include "tests/core/ops/golden.h"

using namespace strata;
using namespace strata::test;

namespace {

struct Result {
  double loss;
  int64_t count;
  std::vector<double> dh, dw;
};

Tensor number(Bench& b, double v) {
  Tensor t = b.cx.alloc({1}, DType::f64);
  *t.ptr<double>() = v;
  return t;
}

Result run(bool twin, DType type, const LmHeadOptions& o, int64_t rows, int64_t vocab,
           double nudge = 0) {
  Bench b(type);
  b.cx.set_recording(true);
  const Tensor h = b.cx.track(b.random({1, rows, 9}, 1)), w = b.cx.track(b.random({vocab, 9}, 2));
  set(h, 4, get(h, 4) + nudge);
  std::vector<int32_t> ids;
  for (int64_t r = 0; r < rows; ++r) ids.push_back(r % 5 == 2 ? kNoLabel : int32_t(r * 7 % vocab));
  const Tensor labels = b.ints({1, rows}, ids), inverse = number(b, 0.125);
  const LmHeadLoss l = twin ? cross_entropy(b.cx, linear(b.cx, h, w, Tensor{}), labels, inverse, o)
                            : lm_head_loss(b.cx, h, w, labels, inverse, o);
  b.cx.replay(0);
  return {*l.loss.ptr<double>(), *l.count.ptr<int64_t>(), values(b.cx.grad(h)),
          values(b.cx.grad(w))};
}

}  // namespace

TEST_CASE("lm_head_loss: chunk by chunk equals cross_entropy of all logits") {
  for (DType type : {DType::f64, DType::f32})
    for (double cap : {0.0, 5.0})
      for (int64_t rows : {1, 7, 300}) {
        INFO(name_of(type), " softcap ", cap, ", rows ", rows);
        const LmHeadOptions o{.logits_scale = 0.7, .softcap = cap, .z_loss = 0.01};
        const double tolerance = type == DType::f64 ? 1e-12 : 1e-5;
        const Result a = run(false, type, o, rows, 83), b = run(true, type, o, rows, 83);
        CHECK(a.count == rows - (rows + 2) / 5);
        CHECK(a.count == b.count);
        CHECK(a.loss == doctest::Approx(b.loss).epsilon(tolerance));
        CHECK(difference(a.dh, b.dh) < tolerance);
        CHECK(difference(a.dw, b.dw) < tolerance * 10);
      }
}

TEST_CASE("lm_head_loss: the gradient is the difference quotient times inverse_count") {
  for (double cap : {0.0, 3.0}) {
    const LmHeadOptions o{.logits_scale = 0.7, .softcap = cap, .z_loss = 0.02, .chunk = 4};
    const double step = 1e-6;
    const double up = run(false, DType::f64, o, 10, 31, step).loss,
                 down = run(false, DType::f64, o, 10, 31, -step).loss;
    CHECK(run(false, DType::f64, o, 10, 31).dh[4] ==
          doctest::Approx(0.125 * (up - down) / (2 * step)).epsilon(1e-6));
  }
}

TEST_CASE("golden cross_entropy") {
  const Golden golden("cross_entropy");
  const auto logits = golden.values("in.logits"), labels = golden.values("in.labels");
  for (DType type : {DType::f64, DType::f32}) {
    const double tolerance = type == DType::f64 ? 1e-11 : 1e-5;
    // Logits t predict label t + 1; the last position predicts nothing.
    std::vector<int32_t> shifted;
    int64_t count = 0;
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t t = 0; t < 7; ++t) {
        shifted.push_back(t == 6 ? kNoLabel : int32_t(labels[size_t(b * 7 + t + 1)]));
        count += shifted.back() != kNoLabel;
      }
    Bench b(type);
    b.cx.set_recording(true);
    auto run = [&](const std::vector<int32_t>& ids, int64_t n, double z) {
      const Tensor x = b.cx.track(b.tensor({2, 7, 19}, logits));
      const LmHeadLoss l =
          cross_entropy(b.cx, x, b.ints({2, 7}, ids), number(b, 1.0 / double(n)), {.z_loss = z});
      CHECK(*l.count.ptr<int64_t>() == n);
      return std::pair{*l.loss.ptr<double>() / double(n), values(b.cx.grad(x))};
    };
    const auto [mean, gradient] = run(shifted, count, 0);
    const auto want = golden.values("grad.logits");
    CHECK(mean == doctest::Approx(golden.values("loss")[0]).epsilon(tolerance));
    CHECK(difference(gradient, want) <= tolerance * largest(want));
    // The reference's z-loss is the mean over all rows, by itself.
    const auto [with, with_gradient] = run(std::vector<int32_t>(14, 3), 14, 1);
    auto [without, z_gradient] = run(std::vector<int32_t>(14, 3), 14, 0);
    for (size_t i = 0; i < z_gradient.size(); ++i) z_gradient[i] = with_gradient[i] - z_gradient[i];
    const auto want_z = golden.values("z_loss.grad.logits");
    CHECK(with - without == doctest::Approx(golden.values("z_loss")[0]).epsilon(tolerance));
    CHECK(difference(z_gradient, want_z) <= tolerance * largest(want_z));
  }
}

TEST_CASE("lm_head_loss: predictions are the first largest logit") {
  Bench b(DType::f32);
  const Tensor x = b.tensor({3, 4}, {1, 5, 5, 2, 9, 0, 0, 0, 0, 0, 0, 1});
  const Tensor predictions = b.ints({3}, {7, 7, 7});
  const LmHeadLoss l = cross_entropy(b.cx, x, b.ints({3}, {1, kNoLabel, 0}), {}, {}, predictions);
  CHECK(predictions.ptr<int32_t>()[0] == 1);
  CHECK(predictions.ptr<int32_t>()[1] == -1);
  CHECK(predictions.ptr<int32_t>()[2] == 3);
  CHECK(*l.count.ptr<int64_t>() == 2);
  CHECK_THROWS_WITH_AS(cross_entropy(b.cx, x, b.ints({3}, {1, 4, 0}), {}),
                       doctest::Contains("label 4 is outside of the vocabulary of 4"), Error);
}

TEST_CASE("embedding: rows, gradients of repeated ids, ids outside") {
  const std::vector<int32_t> tokens = {4, 0, 4, 2, 4, 1};
  gradcheck({{5, 70}}, [&](Context& cx, Inputs& in) {
    Tensor ids = cx.alloc({2, 3}, DType::i32);
    if (!cx.planning())
      for (int i = 0; i < 6; ++i) ids.ptr<int32_t>()[i] = tokens[size_t(i)];
    return embedding(cx, ids, in[0]);
  });
  Bench b(DType::f32);
  CHECK_THROWS_WITH_AS(embedding(b.cx, b.ints({1, 2}, {1, 9}), b.random({9, 2})),
                       doctest::Contains("token 9 is outside of the vocabulary of 9"), Error);
}
