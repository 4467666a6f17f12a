#include "core/contract/layer.h"
#include "plugins/host/registry.h"
#include "tests/core/ops/golden.h"
#include "tests/core/ops/test_pass.h"

using namespace strata;
using namespace strata::test;

namespace {

std::unique_ptr<Layer> make(const Options& options, int64_t d_model) {
  return Registry().create("E", LayerConfig(d_model, 4, options, "block 2 'E' (moe)"));
}

Options options_of(const char* router, bool gated) {
  return {{"n_experts", int64_t{8}}, {"top_k", int64_t{3}},
          {"d_ff", int64_t{7}},      {"router", std::string(router)},
          {"gated", gated},          {"activation", std::string(gated ? "silu" : "relu2")},
          {"aux_loss", 0.0}};
}

const char* golden_name(const std::string& param) {
  if (param == "router") return "router";
  if (param == "correction_bias") return "correction_bias";
  if (param == "experts.up_proj") return "up";
  if (param == "experts.gate_proj") return "gate";
  return "down";
}

// Keeps what the layer taps.
struct Kept : Probe {
  void see(std::string_view, std::string_view, Tensor value) override { kept = value; }
  Tensor kept;
};

}  // namespace

TEST_CASE("golden moe: routing, outputs and gradients") {
  const Golden golden("moe");
  struct Rule {
    const char *name, *router;
    bool gated, normalize;
    double scale;
  };
  for (const Rule& rule : {Rule{"sigmoid_bias", "sigmoid", false, true, 2.5},
                           Rule{"sigmoid_bias_grouped", "sigmoid", false, true, 2.5},
                           Rule{"softmax_topk", "softmax", true, false, 1},
                           Rule{"softmax_topk_norm", "softmax", true, true, 1},
                           Rule{"topk_softmax", "topk_softmax", true, false, 1}})
    for (DType type : {DType::f64, DType::f32}) {
      INFO(rule.name, " in ", name_of(type));
      const double tolerance = type == DType::f64 ? 1e-11 : 2e-5;
      const std::string prefix = std::string(rule.name) + ".";
      Options options = options_of(rule.router, rule.gated);
      options["normalize"] = rule.normalize;
      options["scale"] = rule.scale;
      if (rule.name == std::string("sigmoid_bias_grouped")) {
        options["n_groups"] = int64_t{4};
        options["top_groups"] = int64_t{2};
      }
      const auto layer = make(options, 10);
      Bench b(type);
      Kept probe;
      b.cx.set_probe(&probe);
      b.cx.set_recording(true);
      for (ParamSlot& p : layer->params()) {
        const auto v = golden.values(std::string("in.") + golden_name(p.name));
        p.value = b.tensor(p.shape, v);
        if (!p.is_buffer) p.value = b.cx.track(p.value);
      }
      const Tensor x = b.cx.track(b.tensor({1, 9, 10}, golden.values("in.x")));
      TestPass pass(1);
      const Tensor y = layer->forward(b.cx, x, pass);
      CHECK(y.shape == Shape{1, 9, 10});
      golden.close(y, prefix + "y", tolerance);
      const auto index = golden.values(prefix + "indices");
      for (size_t t = 0; t < 9; ++t) {  // as sets
        std::vector<double> want(index.begin() + int(t) * 3, index.begin() + int(t) * 3 + 3), got;
        for (int64_t j = 0; j < 3; ++j) got.push_back(get(probe.kept, int64_t(t) * 3 + j));
        std::sort(want.begin(), want.end());
        std::sort(got.begin(), got.end());
        CHECK(got == want);
      }
      const GradTarget t = b.cx.grad_target(y);
      const auto cotangent = golden.values(prefix + "cotangent.y");
      for (int64_t i = 0; i < y.numel(); ++i) set(t.grad, i, cotangent[size_t(i)]);
      b.cx.replay(0);
      golden.close(b.cx.grad(x), prefix + "grad.x", tolerance);
      for (ParamSlot& p : layer->params())
        if (!p.is_buffer)
          golden.close(b.cx.grad(p.value), prefix + "grad." + golden_name(p.name), tolerance);
    }
}

TEST_CASE("golden moe: the load-balancing loss and its gradient") {
  const Golden golden("moe");
  Bench b(DType::f64);
  b.cx.set_recording(true);
  Options options = options_of("softmax", false);
  options["aux_loss"] = 1.0;
  const auto layer = make(options, 8);
  // With the identity for a router, the input is the logits.
  for (ParamSlot& p : layer->params()) {
    p.value = b.random(p.shape, 3, 0);
    if (p.name == "router")
      for (int64_t i = 0; i < 8; ++i) set(p.value, i * 9, 1);
  }
  const Tensor x = b.cx.track(b.tensor({1, 9, 8}, golden.values("router_logits")));
  TestPass pass(1);
  layer->forward(b.cx, x, pass);
  REQUIRE(b.cx.aux_losses().size() == 1);
  CHECK(b.cx.aux_losses()[0].weight == 1);
  golden.close(b.cx.aux_losses()[0].value, "aux_loss", 1e-11);
  b.cx.replay(0);
  golden.close(b.cx.grad(x), "aux_loss.grad.router_logits", 1e-11);
}

TEST_CASE("moe: gradients of everything, plain and gated, with a shared expert") {
  for (const char* router : {"softmax", "sigmoid", "topk_softmax"})
    for (bool gated : {false, true}) {
      INFO(router, ", gated ", gated);
      Options options = options_of(router, gated);
      options["shared_d_ff"] = int64_t{5};
      options["shared_bias"] = true;
      options["aux_loss"] = 0.0;
      options["correction_bias"] = false;
      options["n_experts"] = int64_t{5};
      if (gated) {
        options["n_experts"] = int64_t{6};
        options["n_groups"] = int64_t{3};
        options["top_groups"] = int64_t{2};
        options["latent_size"] = int64_t{4};
        options["latent_bias"] = true;
      }
      const auto layer = make(options, 6);
      std::vector<Shape> shapes = {{2, 7, 6}};
      for (const ParamSlot& p : layer->params()) shapes.push_back(p.shape);
      GradcheckOptions o;
      o.pitched = false;
      o.tolerance = 1e-6;  // difference quotients lose digits over the latent projections
      o.f32_tolerance = 1e-3;
      gradcheck(
          shapes,
          [&](Context& cx, Inputs& in) {
            for (size_t i = 0; i < layer->params().size(); ++i)
              layer->params()[i].value = in[i + 1];
            TestPass pass(2);
            return layer->forward(cx, in[0], pass);
          },
          o);
    }
}

TEST_CASE("moe: the correction bias moves the choice, never the weights") {
  Bench b(DType::f64);
  Options options = options_of("sigmoid", false);
  options["top_k"] = int64_t{1};
  options["normalize"] = false;
  const auto layer = make(options, 4);
  for (ParamSlot& p : layer->params()) p.value = b.random(p.shape, 5, p.is_buffer ? 0 : 1);
  Kept probe;
  b.cx.set_probe(&probe);
  TestPass pass(1);
  const Tensor x = b.random({1, 6, 4}, 8);
  layer->forward(b.cx, x, pass);
  for (ParamSlot& p : layer->params())
    if (p.name == "correction_bias") set(p.value, 6, 10);
  layer->forward(b.cx, x, pass);
  for (int64_t t = 0; t < 6; ++t) CHECK(get(probe.kept, t) == 6);
}

TEST_CASE("moe: after a step the correction bias moves towards even loads, and nothing else does") {
  for (DType type : {DType::f64, DType::f32}) {
    Options options = options_of("sigmoid", false);
    options["bias_update"] = 0.25;
    const auto layer = make(options, 4);
    Bench b(type);
    for (ParamSlot& p : layer->params()) p.value = b.random(p.shape, 5, p.is_buffer ? 0 : 1);
    TestPass pass(1);
    layer->forward(b.cx, b.random({2, 6, 4}, 8), pass);
    REQUIRE(b.cx.counts().size() == 1);
    const Tensor offsets = b.cx.counts()[0].values;
    CHECK(get(offsets, 8) == 36);  // 12 tokens, 3 experts each
    StepCounts step;
    std::vector<double> sums;
    for (int64_t e = 0; e <= 8; ++e) sums.push_back(2 * get(offsets, e));  // two microbatches
    step.counts["offsets"] = sums;
    layer->after_step(b.cx, step);
    for (const ParamSlot& p : layer->params()) {
      if (p.name != "correction_bias") continue;
      for (int64_t e = 0; e < 8; ++e) {
        const double load = get(offsets, e + 1) - get(offsets, e);
        CHECK(get(p.value, e) == 0.25 * double((load < 4.5) - (load > 4.5)));
      }
    }
    layer->after_step(b.cx, {});  // a step that counted nothing
  }
}

TEST_CASE("moe: wrong options are refused") {
  CHECK_THROWS_WITH_AS(make({{"bias_update", 0.1}, {"correction_bias", false}}, 4),
                       doctest::Contains("needs correction_bias"), Error);
  CHECK_THROWS_WITH_AS(make({{"top_k", int64_t{9}}}, 4), doctest::Contains("top_k 9, n_experts 8"),
                       Error);
  CHECK_THROWS_WITH_AS(make({{"n_groups", int64_t{3}}}, 4),
                       doctest::Contains("n_groups must divide n_experts"), Error);
  CHECK_THROWS_WITH_AS(
      make({{"n_groups", int64_t{4}}, {"top_groups", int64_t{1}}, {"top_k", int64_t{3}}}, 4),
      doctest::Contains("must hold top_k experts, got n_groups 4, top_groups 1"), Error);
  CHECK_THROWS_WITH_AS(make({{"router", std::string("hash")}}, 4), doctest::Contains("got 'hash'"),
                       Error);
}
