#include "core/ops/cast.h"

#include "core/ops/arithmetic.h"
#include "tests/core/ops/gradcheck.h"

using namespace strata;
using namespace strata::test;

static DType other(DType type) { return type == DType::f64 ? DType::f32 : DType::f64; }

TEST_CASE("cast: the same numbers, rounded, and x itself in its own dtype") {
  Bench b(DType::f64);
  const Tensor x = b.random({3, 7}, 1);
  CHECK(cast(b.cx, x, DType::f64).data == x.data);
  const Tensor y = cast(b.cx, b.cx.columns(x, 2, 4), DType::f32);
  CHECK(y.dtype == DType::f32);
  const auto in = values(x), out = values(y);
  for (size_t i = 0; i < out.size(); ++i) CHECK(out[i] == double(float(in[i / 4 * 7 + 2 + i % 4])));
  CHECK_THROWS_WITH_AS(cast(b.cx, x, DType::i32), doctest::Contains("got f64 and i32"), Error);
}

TEST_CASE("cast: the gradient comes back in the dtype of x, and adds up") {
  // There and back; twice, so that the second gradient is added to the first.
  const auto round_trip = [](Context& cx, Inputs& in) {
    const auto once = [&] { return cast(cx, cast(cx, in[0], other(cx.dtype())), cx.dtype()); };
    return add(cx, once(), once());
  };
  for (DType type : {DType::f32, DType::f64})
    for (bool pitched : {false, true}) {
      INFO(name_of(type), ", pitched ", pitched);
      std::vector<double> x(33);
      for (size_t i = 0; i < x.size(); ++i) x[i] = double(float(i) / 7);
      const GradRun run = run_once({{3, 11}}, round_trip, type, {x}, pitched, 1, true, {});
      Random draw(99, 3);
      for (size_t i = 0; i < x.size(); ++i) {
        CHECK(run.y[i] == 2 * x[i]);
        CHECK(run.grads[0][i] == doctest::Approx(2 * draw.normal()).epsilon(1e-6));
      }
    }
}
