#include "core/ops/causal_conv1d.h"

#include "tests/core/ops/golden.h"
#include "tests/core/ops/test_pass.h"

using namespace strata;
using namespace strata::test;

namespace {

Tensor vec(Context& cx, Tensor t) { return cx.reshape(t, {t.cols()}); }

// The sum written out, in double: x (batch, seq_len, channels) with documents.
double naive(const Tensor& x, const Tensor& w, const Tensor& bias, const std::vector<int>& doc,
             bool silu, int64_t b, int64_t t, int64_t c) {
  const int64_t seq_len = x.shape[1], channels = x.cols(), kernel = w.shape[2];
  double sum = bias ? get(bias, c) : 0;
  for (int64_t j = 0; j < kernel; ++j) {
    const int64_t from = t - kernel + 1 + j;
    if (from < 0 || (!doc.empty() && doc[size_t(from)] != doc[size_t(t)])) continue;
    sum += get(w, c * kernel + j) * get(x, (b * seq_len + from) * channels + c);
  }
  return silu ? sum / (1 + std::exp(-sum)) : sum;
}

}  // namespace

TEST_CASE("causal_conv1d: equals the sum written out, with documents") {
  Bench b(DType::f64);
  for (const auto& [seq_len, channels, kernel] :
       {std::array<int64_t, 3>{1, 1, 1}, {13, 5, 4}, {9, 70, 3}, {300, 7, 4}, {2, 3, 7}})
    for (bool documents : {false, true})
      for (bool silu : {false, true}) {
        INFO(seq_len, " tokens, ", channels, " channels, kernel ", kernel, " documents ",
             documents);
        TestPass pass(2);
        std::vector<int> doc;
        if (documents) {
          std::vector<int32_t> idx;
          for (int row = 0; row < 2; ++row)
            for (int64_t t = 0; t < seq_len; ++t) idx.push_back(int32_t(t / 5));
          for (int64_t t = 0; t < seq_len; ++t) doc.push_back(int(t / 5));
          pass.set_seq_idx(b.ints({2, seq_len}, idx));
        }
        const Tensor x = b.random({2, seq_len, channels}, 1),
                     w = b.random({channels, 1, kernel}, 2), bias = b.random({channels}, 3);
        const Tensor y = causal_conv1d(b.cx, x, w, bias, pass, {.silu = silu});
        double worst = 0;
        for (int64_t i = 0; i < y.numel(); ++i)
          worst = std::max(worst,
                           std::abs(get(y, i) - naive(x, w, bias, doc, silu, i / channels / seq_len,
                                                      i / channels % seq_len, i % channels)));
        CHECK(worst < 1e-12);
      }
}

TEST_CASE("causal_conv1d: gradients, also across documents and long rows") {
  for (bool documents : {false, true})
    for (bool silu : {false, true})
      for (const auto& [seq_len, channels, kernel] :
           {std::array<int64_t, 3>{6, 3, 4}, {5, 67, 3}, {260, 2, 4}, {4, 3, 1}}) {
        INFO(seq_len, " tokens, ", channels, " channels, kernel ", kernel, " documents ",
             documents);
        GradcheckOptions o;
        o.tolerance = 1e-6;
        gradcheck(
            {{2, seq_len, channels}, {1, channels * kernel}, {1, channels}},
            [&, n = seq_len, channels = channels, kernel = kernel](Context& cx, Inputs& in) {
              TestPass pass(2);
              if (documents) {
                Tensor idx = cx.alloc({2, n}, DType::i32);
                if (!cx.planning())
                  for (int64_t i = 0; i < 2 * n; ++i)
                    idx.ptr<int32_t>()[i] = int32_t((i % n + i / n) / 3);
                pass.set_seq_idx(idx);
              }
              Tensor w = cx.reshape(in[1], {channels, 1, kernel});
              return causal_conv1d(cx, in[0], w, vec(cx, in[2]), pass, {.silu = silu});
            },
            [&] {
              o.pitched = false;
              return o;
            }());
      }
}

TEST_CASE("causal_conv1d: a slice goes in as it is") {
  gradcheck(
      {{2, 9, 14}, {5, 1, 4}},
      [](Context& cx, Inputs& in) {
        TestPass pass(2);
        return causal_conv1d(cx, cx.columns(in[0], 4, 5), cx.reshape(in[1], {5, 1, 4}), {}, pass);
      },
      [] {
        GradcheckOptions o;
        o.pitched = false;
        return o;
      }());
}

TEST_CASE("causal_conv1d: prefill in pieces, then steps, equals the whole") {
  for (DType type : {DType::f64, DType::f32})
    for (int64_t kernel : {2, 4}) {
      Bench b(type);
      const int64_t n = 11, channels = 37;
      TestPass pass(3);
      const Tensor x = b.random({3, n, channels}, 1), w = b.random({channels, 1, kernel}, 2),
                   bias = b.random({channels}, 3);
      const Tensor whole = causal_conv1d(b.cx, x, w, bias, pass, {.silu = true});
      int64_t at = 0;
      for (int64_t piece : {1, 5, 2, 1, 1, 1}) {
        pass.begin(piece > 1 ? Mode::prefill : Mode::decode);
        Tensor part = b.cx.alloc({3, piece, channels});
        for (int64_t r = 0; r < 3; ++r)
          for (int64_t i = 0; i < piece * channels; ++i)
            set(part, r * piece * channels + i, get(x, (r * n + at) * channels + i));
        const Tensor y = causal_conv1d(b.cx, part, w, bias, pass, {.silu = true});
        for (int64_t r = 0; r < 3; ++r)
          for (int64_t i = 0; i < piece * channels; ++i)
            CHECK(get(y, r * piece * channels + i) ==
                  doctest::Approx(get(whole, (r * n + at) * channels + i)).epsilon(1e-6));
        at += piece;
      }
      CHECK(pass.specs.at("conv").shape == Shape{kernel - 1, channels});
    }
}

TEST_CASE("golden causal_conv1d") {
  const Golden golden("causal_conv1d");
  auto swap = [](const Tensor& t) {  // (2, 10, n) <-> (2, n, 10), values only
    std::vector<double> out(size_t(t.numel()));
    const int64_t p = t.shape[1], q = t.shape[2];
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t i = 0; i < p; ++i)
        for (int64_t j = 0; j < q; ++j)
          out[size_t((b * q + j) * p + i)] = get(t, (b * p + i) * q + j);
    return out;
  };
  for (const std::string prefix : {"", "linear_nobias.", "stateful."})
    for (DType type : {DType::f64, DType::f32}) {
      INFO(prefix, name_of(type));
      Bench b(type);
      b.cx.set_recording(true);
      auto load = [&](const std::string& name) {
        return b.tensor(golden.shape(name), golden.values(name));
      };
      auto turned = [&](const std::string& name) {
        const Tensor t = load(name);
        return b.tensor({2, t.shape[2], 10}, swap(t));
      };
      auto near = [&](std::vector<double> got, const std::string& name) {
        INFO(name);
        const auto want = golden.values(name);
        CHECK(difference(got, want) <= (type == DType::f64 ? 1e-11 : 1e-5) * largest(want));
      };
      const bool plain = prefix == "linear_nobias.", stateful = prefix == "stateful.";
      const Tensor x = b.cx.track(turned("in.x")), w = b.cx.track(load("in.weight"));
      const Tensor bias = plain ? Tensor{} : b.cx.track(load("in.bias"));
      CausalConv1dOptions o{.silu = !plain};
      if (stateful) o.initial = b.cx.track(turned("in.initial_state"));
      TestPass pass(2);
      pass.begin(Mode::prefill);
      const Tensor y = causal_conv1d(b.cx, x, w, bias, pass, o);
      near(swap(y), prefix + "y");
      const Tensor state = b.tensor({2, 3, 10}, std::vector<double>(60));
      for (int64_t r = 0; r < 2; ++r)  // rows lie in slots 1, 0
        std::memcpy(static_cast<char*>(state.data) + r * 30 * int64_t(size_of(type)),
                    pass.bytes("conv").data() + (1 - r) * 30 * int64_t(size_of(type)),
                    30 * size_of(type));
      near(swap(state), prefix + "final_state");
      const GradTarget t = b.cx.grad_target(y);
      const auto cotangent = swap(load(prefix + "cotangent.y"));
      for (int64_t i = 0; i < y.numel(); ++i) set(t.grad, i, cotangent[size_t(i)]);
      b.cx.replay(0);
      near(swap(b.cx.grad(x)), prefix + "grad.x");
      near(values(b.cx.grad(w)), prefix + "grad.weight");
      if (bias) near(values(b.cx.grad(bias)), prefix + "grad.bias");
      if (stateful) near(swap(b.cx.grad(o.initial)), prefix + "grad.initial_state");
    }
}

TEST_CASE("causal_conv1d: wrong shapes are named") {
  Bench b(DType::f32);
  TestPass pass(1);
  CHECK_THROWS_WITH_AS(causal_conv1d(b.cx, b.random({1, 4, 6}), b.random({5, 1, 4}), {}, pass),
                       doctest::Contains("weight must be (channels=6, 1, kernel), got (5, 1, 4)"),
                       Error);
}
