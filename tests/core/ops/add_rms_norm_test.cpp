#include "core/ops/add_rms_norm.h"

#include "core/ops/arithmetic.h"
#include "core/ops/residual_add.h"
#include "core/ops/shape.h"
#include "tests/core/ops/gradcheck.h"

using namespace strata;
using namespace strata::test;

// The inputs go through operations of their own, as the stream and a block's output do: the
// gradients that the sum hands on are aliases of each other.
static Build built(bool fused, bool weighted, const RmsNormOptions& o, double factor) {
  return [=](Context& cx, Inputs& in) {
    const Tensor h = scale(cx, in[0], 0.5), y = scale(cx, in[1], 1.5);
    const Tensor w = weighted ? cx.reshape(in[2], {in[2].cols()}) : Tensor{};
    if (fused) {
      const AddedNorm a = add_rms_norm(cx, h, y, w, o, factor);
      return concat(cx, {a.h, a.n});
    }
    const Tensor sum = residual_add(cx, h, y, factor);
    return concat(cx, {sum, rms_norm(cx, sum, w, o)});
  };
}

TEST_CASE("add_rms_norm: gradients over odd sizes, groups, scales and weight + 1") {
  GradcheckOptions check;
  check.tolerance = 3e-7;  // twice the outputs of a norm: a larger sum to take differences of
  for (int64_t d : {1, 7, 24, 130})
    for (bool plus_one : {false, true}) {
      INFO("d ", d, plus_one ? ", weight + 1" : "");
      const RmsNormOptions o{1e-5, d == 24 ? 6 : 0, plus_one};
      gradcheck({{2, 3, d}, {2, 3, d}, {1, d}}, built(true, true, o, plus_one ? 0.22 : 1), check);
    }
  gradcheck({{40, 9}, {40, 9}}, built(true, false, {}, 1));
}

TEST_CASE("add_rms_norm: gradients where only the norm or only the sum is used") {
  for (bool norm : {false, true})
    gradcheck({{19, 15}, {19, 15}, {1, 15}}, [&](Context& cx, Inputs& in) {
      const AddedNorm a = add_rms_norm(cx, scale(cx, in[0], 0.5), scale(cx, in[1], 1.5),
                                       cx.reshape(in[2], {15}), {}, 0.5);
      return norm ? a.n : a.h;
    });
}

TEST_CASE("add_rms_norm: residual_add and rms_norm in one") {
  for (DType type : {DType::f32, DType::f64})
    for (bool weighted : {false, true}) {
      const std::vector<Shape> shapes{{3, 17, 96}, {3, 17, 96}, {1, 96}};
      std::vector<std::vector<double>> in;
      for (size_t n = 0; n < shapes.size(); ++n) {
        Random draw(n, 1);
        in.emplace_back();
        for (int64_t i = 0; i < shapes[n].numel(); ++i) in[n].push_back(draw.normal());
      }
      const RmsNormOptions o{.group = 32};
      const auto run = [&](bool fused) {
        return run_once(shapes, built(fused, weighted, o, 0.7), type, in, false, 1, true, {});
      };
      const GradRun one = run(true), two = run(false);
      const double tolerance = type == DType::f32 ? 1e-5 : 1e-12;
      CHECK(difference(one.y, two.y) <= tolerance);
      for (size_t n = 0; n < shapes.size(); ++n)
        CHECK(difference(one.grads[n], two.grads[n]) <= tolerance * (1 + largest(two.grads[n])));
    }
}

TEST_CASE("add_rms_norm: wrong shapes are named, and unrecorded the sum is written over h") {
  Bench b(DType::f32);
  CHECK_THROWS_WITH_AS(add_rms_norm(b.cx, b.random({2, 8}), b.random({2, 7}), {}),
                       doctest::Contains("the block must return (2, 8)"), Error);
  CHECK_THROWS_WITH_AS(add_rms_norm(b.cx, b.random({2, 8}), b.random({2, 8}), b.random({7})),
                       doctest::Contains("weight must be (8,), got (7,)"), Error);
  CHECK_THROWS_WITH_AS(add_rms_norm(b.cx, b.random({2, 8}), b.random({2, 8}), {}, {.group = 3}),
                       doctest::Contains("groups of 3 do not divide"), Error);
  const Tensor h = b.random({2, 8});
  CHECK(add_rms_norm(b.cx, h, b.random({2, 8}, 2), {}).h.data == h.data);
}
