// moe — mixture of experts: y = sum over the top_k experts e of w_e expert_e(x), plus a shared
// expert. Choice and weights: softmax (Jamba; Qwen3-Next with normalize), sigmoid with a
// selection-only correction bias (DeepSeek-V3, arXiv 2412.19437; Nemotron-H), topk_softmax
// (Granite). With latent_size the experts work on W_in x and their sum goes through W_out.
#include "core/contract/plugin.h"
#include "core/ops/activation.h"
#include "core/ops/arithmetic.h"
#include "core/ops/cast.h"
#include "core/ops/gather.h"
#include "core/ops/grouped_linear.h"
#include "core/ops/linear.h"
#include "layers/moe/route.h"

namespace strata::moe {

static Router router_of(const std::string& name, const std::string& place) {
  if (name == "softmax") return Router::softmax;
  if (name == "sigmoid") return Router::sigmoid;
  if (name == "topk_softmax") return Router::topk_softmax;
  throw Error(place + ": router must be softmax, sigmoid or topk_softmax, got '" + name + "'");
}

class Moe final : public Layer {
 public:
  explicit Moe(const Config& c) : n_experts_(c.size("n_experts", 8, "experts to choose from")) {
    const int64_t d = c.d_model(), d_in = c.d_in();
    const int64_t d_ff = c.size("d_ff", 2 * d, "inner width of an expert");
    const std::string router =
        c.get("router", "sigmoid", "scores: softmax, sigmoid, or topk_softmax (over the chosen)");
    route_.router = router_of(router, c.place());
    route_.top_k = c.size("top_k", 2, "experts per token");
    route_.normalize = c.get("normalize", true, "weights of a token sum to scale");
    route_.scale = c.get("scale", 1.0, "factor on the weights");
    activation_ = activation_of(
        c.get("activation", "relu2", "relu2, silu, gelu, gelu_tanh, relu, ..."), c.place());
    const bool gated = c.get("gated", false, "act(gate) * up instead of act(up)");
    const int64_t shared = c.get("shared_d_ff", 0, "inner width of the shared expert, 0: none");
    const bool shared_bias = c.get("shared_bias", false, "biases in the shared expert");
    route_.n_groups = c.size("n_groups", 1, "groups of experts for a group-limited choice");
    route_.top_groups =
        c.size("top_groups", route_.n_groups, "groups that a token may choose from");
    const int64_t latent =
        c.get("latent_size", 0, "width that the routed experts work in, 0: d_model");
    const bool latent_bias = c.get("latent_bias", false, "biases on the way into and out of it");
    aux_loss_ = c.get("aux_loss", 0.01, "weight of the load-balancing loss");
    bias_update_ =
        c.get("bias_update", 0.0, "moves correction_bias after each step towards even loads by it");
    if (n_experts_ > kMaxExperts || route_.top_k > n_experts_ || shared < 0)
      throw Error(c.place() + ": top_k must be 1 to n_experts, n_experts at most 1024 and " +
                  "shared_d_ff not negative, got top_k " + std::to_string(route_.top_k) +
                  ", n_experts " + std::to_string(n_experts_) + ", shared_d_ff " +
                  std::to_string(shared));

    check_groups(c.place());
    if (latent < 0)
      throw Error(c.place() + ": latent_size must not be negative, got " + std::to_string(latent));

    router_ = param("router", {n_experts_, d_in}, {.keep = Keep::accum, .role = "experts,in"});
    if (c.get("correction_bias", route_.router == Router::sigmoid,
              "a buffer added to the scores for the choice only"))
      bias_ = buffer("correction_bias", {n_experts_},
                     {.init = Init::zeros(), .keep = Keep::accum, .role = "experts"});
    if (bias_update_ < 0 || (bias_update_ > 0 && !bias_))
      throw Error(c.place() +
                  ": bias_update must not be negative, and needs correction_bias, got " +
                  std::to_string(bias_update_));
    const ParamOptions zeros{.init = Init::zeros(), .decay = Decay::no};
    const int64_t from = latent ? latent : d_in, to = latent ? latent : d;
    if (latent) {
      latent_in_ = param("latent_in", {latent, d_in}, {.role = "out,in"});
      latent_out_ = param("latent_out", {d, latent}, {.role = "out,in"});
      if (latent_bias) latent_in_bias_ = param("latent_in.bias", {latent}, zeros);
      if (latent_bias) latent_out_bias_ = param("latent_out.bias", {d}, zeros);
    }
    if (gated)
      gate_ = param("experts.gate_proj", {n_experts_, d_ff, from}, {.role = "experts,out,in"});
    up_ = param("experts.up_proj", {n_experts_, d_ff, from}, {.role = "experts,out,in"});
    down_ = param("experts.down_proj", {n_experts_, to, d_ff}, {.role = "experts,out,in"});
    if (shared == 0) return;
    if (gated) shared_gate_ = param("shared.gate_proj", {shared, d_in}, {.role = "out,in"});
    shared_up_ = param("shared.up_proj", {shared, d_in}, {.role = "out,in"});
    if (shared_bias) shared_up_bias_ = param("shared.up_proj.bias", {shared}, zeros);
    shared_down_ = param("shared.down_proj", {d, shared}, {.role = "out,in"});
    if (shared_bias) shared_down_bias_ = param("shared.down_proj.bias", {d}, zeros);
  }

  Tensor forward(Context& cx, Tensor x, Pass&) override {
    const Tensor flat = cx.reshape(x, {x.rows(), x.cols()});  // (tokens, d_in)
    // Choice and weights are computed as the router is stored: no less than float32.
    const Tensor logits = linear(cx, cast(cx, flat, cx.accum_dtype()), router_);
    const Routes routes = route(cx, logits, bias_, route_);  // (tokens, top_k)
    if (aux_loss_ != 0) cx.add_loss("balance", balance_loss(cx, logits, routes.index), aux_loss_);
    tap(cx, "expert_index", routes.index);
    const Sorted sorted = sort_by_expert(cx, routes.index, n_experts_);
    if (bias_update_ > 0) cx.add_count("offsets", sorted.offsets);

    // (tokens, d_in) or (tokens, latent_size)
    const Tensor inner = latent_in_ ? linear(cx, flat, latent_in_, latent_in_bias_) : flat;
    const Tensor rows = gather(cx, inner, sorted.token);       // (tokens top_k, d_in)
    Tensor h = grouped_linear(cx, rows, up_, sorted.offsets);  // (tokens top_k, d_ff)
    h = gate_ ? gated(cx, grouped_linear(cx, rows, gate_, sorted.offsets), h, activation_)
              : activation(cx, h, activation_);
    h = grouped_linear(cx, h, down_, sorted.offsets);       // (tokens top_k, d_model)
    Tensor y = combine(cx, h, routes.weights, sorted.row);  // (tokens, d_model)
    if (latent_out_) y = linear(cx, y, latent_out_, latent_out_bias_);
    if (shared_up_) y = add(cx, y, shared_expert(cx, flat));
    Shape shape = x.shape;
    shape[-1] = y.cols();
    return cx.reshape(y, shape);
  }

  // b_e += bias_update * sign(mean load - load of e), over the tokens of the whole step
  // (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
  void after_step(Context& cx, const StepCounts& step) override {
    const auto offsets = step.counts.find("offsets");
    if (offsets != step.counts.end()) even_out(cx, bias_, offsets->second, bias_update_);
  }

  // The choice of experts is a comparison of scores: the router stays as it is.
  QuantChoice quantize(const ParamSlot& p) const override {
    return p.name == "router" ? QuantChoice{} : Layer::quantize(p);
  }

 private:
  void check_groups(const std::string& place) const {
    const int64_t groups = route_.n_groups, top = route_.top_groups;
    if (n_experts_ % groups == 0 && top <= groups && route_.top_k <= n_experts_ / groups * top)
      return;
    throw Error(place +
                ": n_groups must divide n_experts, and top_groups (at most n_groups) must " +
                "hold top_k experts, got n_groups " + std::to_string(groups) + ", top_groups " +
                std::to_string(top) + ", n_experts " + std::to_string(n_experts_) + ", top_k " +
                std::to_string(route_.top_k));
  }

  Tensor shared_expert(Context& cx, Tensor x) const {
    Tensor h = linear(cx, x, shared_up_, shared_up_bias_);
    h = shared_gate_ ? gated(cx, linear(cx, x, shared_gate_), h, activation_)
                     : activation(cx, h, activation_);
    return linear(cx, h, shared_down_, shared_down_bias_);
  }

  int64_t n_experts_;
  RouteOptions route_;
  Activation activation_;
  double aux_loss_, bias_update_;
  Param latent_in_, latent_in_bias_, latent_out_, latent_out_bias_;
  Param router_, bias_, gate_, up_, down_;
  Param shared_gate_, shared_up_, shared_up_bias_, shared_down_, shared_down_bias_;
};

STRATA_LAYER(Moe, 'E', "moe")

}  // namespace strata::moe
