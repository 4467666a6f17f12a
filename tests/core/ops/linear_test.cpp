#include "core/ops/linear.h"

#include <doctest/doctest.h>

#include "tests/core/ops/gradcheck.h"

using namespace strata;
using namespace strata::test;

TEST_CASE("linear: values and gradients over odd sizes") {
  for (const auto& [rows, d_in, d_out] :
       {std::array<int64_t, 3>{1, 1, 1}, {3, 5, 7}, {17, 33, 9}, {2, 64, 130}}) {
    INFO(rows, " x ", d_in, " -> ", d_out);
    GradcheckOptions o;
    o.tolerance = 1e-6;
    gradcheck(
        {{rows, d_in}, {d_out, d_in}, {1, d_out}},
        [](Context& cx, Inputs& in) {
          return linear(cx, in[0], in[1], cx.reshape(in[2], {in[2].cols()}));
        },
        o);
    gradcheck(
        {{rows, d_in}, {d_out, d_in}},
        [](Context& cx, Inputs& in) { return linear(cx, in[0], in[1], Tensor{}); }, o);
  }
}

TEST_CASE("linear: equals the sum written out") {
  Bench b(DType::f64);
  const Tensor x = b.random({2, 3, 5}, 1), w = b.random({4, 5}, 2), bias = b.random({4}, 3);
  const Tensor y = linear(b.cx, x, w, bias);
  CHECK(y.shape == Shape{2, 3, 4});
  for (int64_t r = 0; r < 6; ++r)
    for (int64_t o = 0; o < 4; ++o) {
      double sum = get(bias, o);
      for (int64_t i = 0; i < 5; ++i) sum += get(x, r * 5 + i) * get(w, o * 5 + i);
      CHECK(get(y, r * 4 + o) == doctest::Approx(sum).epsilon(1e-12));
    }
}

TEST_CASE("linear: wrong shapes are named") {
  Bench b(DType::f32);
  CHECK_THROWS_WITH_AS(linear(b.cx, b.random({2, 4}), b.random({3, 5}), Tensor{}),
                       doctest::Contains("x must be (..., d_in=5), got (2, 4)"), Error);
}
