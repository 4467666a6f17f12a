#include "core/ops/rms_norm.h"

#include "tests/core/ops/golden.h"

using namespace strata;
using namespace strata::test;

static Tensor vec(Context& cx, Tensor t) { return cx.reshape(t, {t.cols()}); }

TEST_CASE("rms_norm: gradients over odd sizes, groups and weight + 1") {
  for (int64_t d : {1, 7, 24, 130})
    for (bool plus_one : {false, true}) {
      INFO("d ", d, plus_one ? ", weight + 1" : "");
      RmsNormOptions o;
      o.weight_plus_one = plus_one;
      o.group = d == 24 ? 6 : 0;
      gradcheck({{2, 3, d}, {1, d}},
                [&](Context& cx, Inputs& in) { return rms_norm(cx, in[0], vec(cx, in[1]), o); });
    }
  gradcheck({{40, 9}}, [](Context& cx, Inputs& in) { return rms_norm(cx, in[0], {}, {}); });
}

TEST_CASE("gated_rms_norm: gradients in both orders") {
  for (bool norm_first : {false, true})
    for (int64_t group : {0, 5, 15}) {
      INFO("norm first ", norm_first, ", group ", group);
      gradcheck({{19, 15}, {19, 15}, {1, 15}}, [&](Context& cx, Inputs& in) {
        return gated_rms_norm(cx, in[0], in[1], vec(cx, in[2]), {.group = group}, norm_first);
      });
    }
  gradcheck({{2, 300}, {2, 300}, {1, 300}}, [&](Context& cx, Inputs& in) {
    return gated_rms_norm(cx, in[0], in[1], vec(cx, in[2]));
  });
}

TEST_CASE("layer_norm: gradients with and without weight, bias and weight + 1") {
  for (bool plus_one : {false, true})
    gradcheck({{3, 7, 11}, {1, 11}, {1, 11}}, [&](Context& cx, Inputs& in) {
      return layer_norm(cx, in[0], vec(cx, in[1]), vec(cx, in[2]), {1e-5, plus_one});
    });
  gradcheck({{3, 7, 11}}, [&](Context& cx, Inputs& in) { return layer_norm(cx, in[0], {}, {}); });
}

TEST_CASE("golden norms") {
  const Golden golden("norms");
  for (int64_t group : {6, 12, 24})
    for (bool norm_first : {false, true})
      golden.check((norm_first ? "norm_then_gate.group" : "gate_then_norm.group") +
                       std::to_string(group) + ".",
                   {"x", "z", "weight"}, [&](Context& cx, Inputs& in) {
                     return gated_rms_norm(cx, in[0], in[1], in[2], {.group = group}, norm_first);
                   });
  for (bool plus_one : {false, true}) {
    golden.check(plus_one ? "rmsnorm_one_plus." : "rmsnorm.", {"x", "weight"},
                 [&](Context& cx, Inputs& in) {
                   return rms_norm(cx, in[0], in[1], {.weight_plus_one = plus_one});
                 });
    golden.check(plus_one ? "layernorm1p." : "layernorm.", {"x", "weight", "bias"},
                 [&](Context& cx, Inputs& in) {
                   return layer_norm(cx, in[0], in[1], in[2], {1e-5, plus_one});
                 });
  }
}

TEST_CASE("norms: wrong shapes are named") {
  Bench b(DType::f32);
  CHECK_THROWS_WITH_AS(rms_norm(b.cx, b.random({2, 8}), b.random({7})),
                       doctest::Contains("weight must be (8,), got (7,)"), Error);
  CHECK_THROWS_WITH_AS(rms_norm(b.cx, b.random({2, 8}), {}, {.group = 3}),
                       doctest::Contains("groups of 3 do not divide"), Error);
}
