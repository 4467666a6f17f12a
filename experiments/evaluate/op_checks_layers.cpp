// Golden operators that live in plugins.
#include <algorithm>

#include "core/model/params.h"
#include "core/ops/named_op.h"
#include "core/tensor/convert.h"
#include "experiments/evaluate/op_checks.h"

namespace strata::golden {

void check_ssd_scan(OpCase& c) {
  const NamedOp scan = find_named_op("ssd_scan");
  for (const std::string variant : {"", "zero_state.", "clamped."}) {
    if (!c.has(variant + "y")) continue;
    // The result must not depend on how the sequence is cut into chunks.
    for (const int64_t chunk : {int64_t{1}, int64_t{3}, int64_t{8}, int64_t{64}}) {
      c.begin(variant);
      NamedCall call{c.cx(), {}, {}, {}};
      for (const char* name : {"x", "dt_raw", "B", "C", "A_log", "D", "dt_bias"}) {
        call.in[name] = c.in(name);
      }
      if (variant != "zero_state.") call.in["initial_state"] = c.in("initial_state");
      call.options["chunk_size"] = chunk;
      if (variant == "clamped.") {
        const auto& limits = c.about().at("clamp_limits", "ssd_scan").as_array("clamp_limits");
        call.options["dt_limit_min"] = limits.at(0).as_double("clamp_limits");
        call.options["dt_limit_max"] = limits.at(1).as_double("clamp_limits");
      }
      scan(call);
      c.output("y", call.out.at("y"));
      c.output("final_state", call.out.at("final_state"));
      c.gradients();
    }
  }
}

namespace {

// How the stored routing rules are spelled as options of the layer.
struct Rule {
  const char* variant;
  const char* router;
  bool normalize, has_bias, gated;
  bool grouped = false;
};
constexpr Rule kRules[] = {{"sigmoid_bias", "sigmoid", true, true, false},
                           {"sigmoid_bias_grouped", "sigmoid", true, true, false, true},
                           {"softmax_topk", "softmax", false, false, true},
                           {"softmax_topk_norm", "softmax", true, false, true},
                           {"topk_softmax", "topk_softmax", true, false, true}};

void fill(OpCase& c, const Tensor& to, const std::string& stored) {
  const Tensor from = c.constant(stored);
  if (from.bytes() != to.bytes()) {
    throw Error("moe: " + stored + " is " + to_string(from.shape) + ", the layer has " +
                to_string(to.shape));
  }
  std::copy_n(static_cast<const char*>(from.data), from.bytes(), static_cast<char*>(to.data));
}

void check_rule(OpCase& c, const Rule& rule) {
  c.begin(std::string(rule.variant) + ".");
  const Tensor stored_x = c.constant("in.x", Layout::same, 2);
  const Shape up = c.constant("in.up", Layout::same, 3).shape;  // (n_experts, d_ff, d_model)
  Options options;
  options["n_experts"] = up[0];
  options["d_ff"] = up[1];
  options["top_k"] = c.about().at("top_k", "moe").as_int("moe: top_k");
  options["router"] = std::string(rule.router);
  options["normalize"] = rule.normalize;
  options["correction_bias"] = rule.has_bias;
  options["scale"] = rule.has_bias ? c.about().at("scale", "moe").as_double("moe: scale") : 1.0;
  options["activation"] = std::string(rule.gated ? "silu" : "relu2");
  options["gated"] = rule.gated;
  options["aux_loss"] = 0.0;
  if (rule.grouped) {
    options["n_groups"] = c.about().at("n_group", "moe").as_int("moe: n_group");
    options["top_groups"] = c.about().at("topk_group", "moe").as_int("moe: topk_group");
  }
  const auto layer = c.factory().create("E", LayerConfig(up[2], 1, options, "golden moe"));
  ParamStore params;
  params.adopt("", "E", *layer);
  params.allocate(c.cx().dtype(), true, false);
  // Our parameters and the stored tensors.
  const std::pair<const char*, const char*> names[] = {{"router", "router"},
                                                       {"experts.up_proj", "up"},
                                                       {"experts.gate_proj", "gate"},
                                                       {"experts.down_proj", "down"},
                                                       {"correction_bias", "correction_bias"}};
  for (const auto& [ours, theirs] : names) {
    if (const NamedParam* p = params.find(ours)) {
      fill(c, p->slot->value, std::string("in.") + theirs);
    }
  }
  OpPass pass(1);
  const Tensor x = c.in("x", Layout::same, {1, stored_x.shape[0], stored_x.shape[1]});
  c.output("y", layer->forward(c.cx(), x, pass));
  c.gradients();
  for (const auto& [ours, theirs] : names) {
    const NamedParam* p = params.find(ours);
    if (p && p->trainable()) c.gradient(theirs, numbers_of(p->slot->grad));
  }
}

// The load-balancing loss on logits: with the identity for a router, the input is the logits.
void check_balance(OpCase& c) {
  c.begin("aux_loss.");
  const Shape shape = c.constant("router_logits", Layout::same, 2).shape;  // (tokens, n_experts)
  const int64_t tokens = shape[0], n_experts = shape[1];
  const int64_t top_k = c.about().at("top_k", "moe").as_int("moe: top_k");
  const Options options = {{"n_experts", n_experts}, {"d_ff", int64_t{1}},
                           {"top_k", top_k},         {"router", std::string("softmax")},
                           {"aux_loss", 1.0},        {"correction_bias", false}};
  const auto layer = c.factory().create("E", LayerConfig(n_experts, 1, options, "golden moe"));
  ParamStore params;
  params.adopt("", "E", *layer);
  params.allocate(c.cx().dtype(), true, false);
  const Tensor router = params.at("router").slot->value;
  for (int64_t i = 0; i < n_experts; ++i) {
    const double one = 1;
    convert_numbers(
        &one, DType::f64,
        static_cast<char*>(router.data) + i * (n_experts + 1) * int64_t(size_of(router.dtype)),
        router.dtype, 1);
  }
  const Tensor x =
      c.cx().track(c.cx().reshape(c.constant("router_logits"), {1, tokens, n_experts}));
  OpPass pass(1);
  layer->forward(c.cx(), x, pass);
  c.require(c.cx().aux_losses().size() == 1, "the layer gave no load-balancing loss");
  c.compare("aux_loss", numbers_of(c.cx().aux_losses()[0].value));
  c.cx().replay(0);
  c.gradient("router_logits", numbers_of(c.cx().grad(x)));
}

}  // namespace

void check_moe(OpCase& c) {
  for (const Rule& rule : kRules) {
    if (c.has(std::string(rule.variant) + ".y")) check_rule(c, rule);
  }
  if (c.has("aux_loss")) check_balance(c);
}

}  // namespace strata::golden
