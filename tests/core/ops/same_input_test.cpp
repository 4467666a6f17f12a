// One variable given to an operation twice: its gradient is the sum over both uses.
#include "core/ops/activation.h"
#include "core/ops/arithmetic.h"
#include "core/ops/attend.h"
#include "core/ops/decay_scan.h"
#include "core/ops/matmul.h"
#include "core/ops/rms_norm.h"
#include "core/ops/shape.h"
#include "tests/core/ops/gradcheck.h"
#include "tests/core/ops/test_pass.h"

using namespace strata;
using namespace strata::test;

TEST_CASE("one variable as two inputs of an operation") {
  TestPass pass(2);
  SUBCASE("mul") {
    gradcheck({{2, 5, 6}}, [](Context& cx, Inputs& in) { return mul(cx, in[0], in[0]); });
  }
  SUBCASE("sub") {
    gradcheck({{2, 5, 6}}, [](Context& cx, Inputs& in) { return sub(cx, in[0], in[0]); });
  }
  SUBCASE("gated") {
    gradcheck({{2, 5, 6}}, [](Context& cx, Inputs& in) { return silu_mul(cx, in[0], in[0]); });
  }
  SUBCASE("matmul") {
    gradcheck({{2, 5, 5}}, [](Context& cx, Inputs& in) { return matmul(cx, in[0], in[0]); });
  }
  SUBCASE("gated_rms_norm") {
    gradcheck({{2, 5, 6}, {1, 6}}, [](Context& cx, Inputs& in) {
      return gated_rms_norm(cx, in[0], in[0], cx.reshape(in[1], {6}));
    });
  }
  SUBCASE("attend") {
    const AttendOptions o{.n_heads = 2, .n_kv_heads = 2, .head_dim = 3};
    gradcheck({{2, 5, 6}},
              [&](Context& cx, Inputs& in) { return attend(cx, in[0], in[0], in[0], o, pass); });
  }
  SUBCASE("decay_scan") {
    gradcheck({{2, 5, 6}},
              [&](Context& cx, Inputs& in) { return decay_scan(cx, in[0], in[0], pass); });
  }
  SUBCASE("decay_scan_outer") {
    gradcheck({{2, 5, 2}, {2, 5, 6}}, [&](Context& cx, Inputs& in) {
      const Tensor k = reshape(cx, in[1], {2, 5, 2, 3});
      return reshape(cx, decay_scan_outer(cx, in[0], k, k, k, pass), {2, 5, 6});
    });
  }
}

TEST_CASE("distinct copies what shares columns, and nothing else") {
  Bench b(DType::f32);
  b.cx.set_recording(true);
  const Tensor x = b.cx.track(b.random({2, 8}));
  const Tensor left = b.cx.columns(x, 0, 4), right = b.cx.columns(x, 4, 4);
  const Tensor middle = b.cx.columns(x, 2, 4);
  CHECK(distinct(b.cx, right, {left}).data == right.data);
  CHECK(distinct(b.cx, middle, {left}).data != middle.data);
  CHECK(distinct(b.cx, x, {x}).data != x.data);
  CHECK(distinct(b.cx, b.random({2, 8}), {x}).var == -1);
}
