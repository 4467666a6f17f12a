// Golden operators that live in plugins.
#include <algorithm>

#include "core/model/params.h"
#include "core/ops/named_op.h"
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
  const Tensor stored_x = c.constant("in.x");
  const Shape up = c.constant("in.up").shape;  // (n_experts, d_ff, d_model)
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
    if (p && c.has(std::string(rule.variant) + ".grad." + theirs)) {
      c.gradient(theirs, read_tensor(p->slot->grad));
    }
  }
}

}  // namespace

void check_moe(OpCase& c) {
  for (const Rule& rule : kRules) {
    if (c.has(std::string(rule.variant) + ".y")) check_rule(c, rule);
  }
}

}  // namespace strata::golden
