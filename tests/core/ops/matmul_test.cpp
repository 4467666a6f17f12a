#include "core/ops/matmul.h"

#include "tests/core/ops/gradcheck.h"

using namespace strata;
using namespace strata::test;

TEST_CASE("matmul: every transposition, batched and shared") {
  for (bool ta : {false, true})
    for (bool tb : {false, true})
      for (bool shared : {false, true}) {
        INFO("transposed ", ta, tb, ", shared ", shared);
        const Shape a = ta ? Shape{2, 3, 7, 5} : Shape{2, 3, 5, 7};
        const Shape b = shared ? (tb ? Shape{9, 7} : Shape{7, 9})
                               : (tb ? Shape{2, 3, 9, 7} : Shape{2, 3, 7, 9});
        auto op = [&](Context& cx, Inputs& in) {
          return matmul(cx, in[0], in[1], {.transpose_a = ta, .transpose_b = tb, .alpha = 0.5});
        };
        GradcheckOptions o;
        o.tolerance = 1e-6;
        gradcheck({a, b}, op, o);
        Bench bench(DType::f64);
        Inputs in = {bench.random(a, 1), bench.random(b, 2)};
        const Tensor y = op(bench.cx, in);
        REQUIRE(y.shape == Shape{2, 3, 5, 9});
        double worst = 0;
        for (int64_t i = 0; i < y.numel(); ++i) {
          const int64_t batch = i / 45, r = i / 9 % 5, c = i % 9;
          double sum = 0;
          for (int64_t k = 0; k < 7; ++k)
            sum += get(in[0], batch * 35 + (ta ? k * 5 + r : r * 7 + k)) *
                   get(in[1], (shared ? 0 : batch * 63) + (tb ? c * 7 + k : k * 9 + c));
          worst = std::max(worst, std::abs(get(y, i) - 0.5 * sum));
        }
        CHECK(worst < 1e-12);
      }
}

TEST_CASE("matmul: shapes that do not fit are named") {
  Bench b(DType::f32);
  CHECK_THROWS_WITH_AS(matmul(b.cx, b.random({2, 3, 4}), b.random({2, 5, 6})),
                       doctest::Contains("(2, 3, 4) and (2, 5, 6) cannot be multiplied"), Error);
  CHECK_THROWS_AS(matmul(b.cx, b.random({2, 3, 4}), b.random({3, 4, 6})), Error);
  CHECK_THROWS_AS(matmul(b.cx, b.random({4}), b.random({4, 6})), Error);
}
