// mamba2: the Mamba-2 mixer (Dao and Gu, arXiv 2405.21060), names and order as in its checkpoints.
#include <cmath>

#include "core/contract/plugin.h"
#include "core/ops/activation.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/linear.h"
#include "core/ops/rms_norm.h"
#include "layers/mamba2/ssd_scan.h"

namespace strata::mamba2 {

// The widest usual head (64 or a power of two below) that divides 2 d_model.
static int64_t default_head_dim(int64_t d_model) {
  int64_t dim = 64;
  while (2 * d_model % dim) dim /= 2;
  return dim;
}

// dt log-uniform in [dt_min, dt_max] at the start; dt_bias is its inverse softplus.
static Init dt_bias_init(double dt_min, double dt_max) {
  return Init::each([=](Random& random) {
    const double low = std::log(dt_min), high = std::log(dt_max);
    const double dt = std::max(std::exp(low + random.uniform() * (high - low)), 1e-4);
    return dt + std::log(-std::expm1(-dt));
  });
}

class Mamba2 final : public Layer {
 public:
  explicit Mamba2(const Config& c) {
    scan_.head_dim = c.size("head_dim", default_head_dim(c.d_model()), "width of a head");
    scan_.n_heads = c.size("n_heads", std::max<int64_t>(1, 2 * c.d_model() / scan_.head_dim),
                           "heads; n_heads * head_dim is d_inner, by default 2 d_model");
    scan_.n_groups = c.size("n_groups", 1, "groups of heads that share B and C");
    scan_.d_state = c.size("d_state", 128, "state columns per head");
    scan_.chunk_size = c.size("chunk_size", 128, "tokens per chunk, changes rounding only");
    scan_.dt_min = c.get("dt_limit_min", 0.0, "lower clamp of the step size");
    scan_.dt_max = c.get("dt_limit_max", INFINITY, "upper clamp of the step size");
    scan_.neg_eig = c.get("neg_eig", false, "decay in [-1, 1] instead of [0, 1]");
    const int64_t d_conv = c.size("d_conv", 4, "taps of the causal convolution");
    const bool conv_bias = c.get("conv_bias", true, "bias of the convolution");
    const bool bias = c.get("bias", false, "biases of in_proj and out_proj");
    const std::string norm = c.get("gated_norm", "gate_first", "gate_first, norm_first or none");
    norm_.group = c.size("norm_groups", scan_.n_groups, "groups of the gated norm, 1: whole width");
    norm_.eps = c.get("norm_eps", 1e-5, "added to the mean square");
    const double dt_low = c.get("dt_init_min", 0.001, "least step size at initialisation");
    const double dt_high = c.get("dt_init_max", 0.1, "largest step size at initialisation");
    has_norm_ = norm != "none";
    norm_first_ = norm == "norm_first";
    d_inner_ = scan_.n_heads * scan_.head_dim;
    check(c, norm, dt_low, dt_high);
    norm_.group = d_inner_ / norm_.group;

    const int64_t heads = scan_.n_heads, bc = scan_.n_groups * scan_.d_state;
    conv_dim_ = d_inner_ + 2 * bc;
    const double taps = 1 / std::sqrt(double(d_conv));
    const Init conv_init =
        Init::each([taps](Random& random) { return (2 * random.uniform() - 1) * taps; });
    ParamOptions kept;  // float32 in every mode
    kept.keep = Keep::accum;
    kept.decay = Decay::no;
    const auto keep = [&](Init init, const char* role) {
      ParamOptions o = kept;
      o.init = std::move(init);
      o.role = role;
      return o;
    };
    ParamOptions out;
    out.init_scale = 1 / std::sqrt(double(c.n_blocks()));
    out.role = "out,in";
    in_proj_ = param("in_proj", {d_inner_ + conv_dim_ + heads, c.d_in()}, {.role = "out,in"});
    if (bias)
      in_bias_ = param("in_proj.bias", {d_inner_ + conv_dim_ + heads}, {.init = Init::zeros()});
    conv_ = param("conv1d.weight", {conv_dim_, 1, d_conv},
                  {.init = conv_init, .decay = Decay::no, .role = "channels,1,taps"});
    if (conv_bias) conv_bias_ = param("conv1d.bias", {conv_dim_}, keep(conv_init, "channels"));
    dt_bias_ = param("dt_bias", {heads}, keep(dt_bias_init(dt_low, dt_high), "heads"));
    a_log_ =
        param("A_log", {heads},
              keep(Init::each([](Random& random) { return std::log(1 + 15 * random.uniform()); }),
                   "heads"));
    d_ = param("D", {heads}, keep(Init::ones(), "heads"));
    if (has_norm_) norm_weight_ = param("norm.weight", {d_inner_}, keep(Init::ones(), "channels"));
    out_proj_ = param("out_proj", {c.d_model(), d_inner_}, out);
    if (bias) out_bias_ = param("out_proj.bias", {c.d_model()}, {.init = Init::zeros()});
  }

  Tensor forward(Context& cx, Tensor x, Pass& pass) override {  // (batch, seq_len, d_model)
    const int64_t bc = scan_.n_groups * scan_.d_state;
    // z (d_inner) | x (d_inner) | B (n_groups * d_state) | C (the same) | dt (n_heads)
    const Tensor all = linear(cx, x, in_proj_, in_bias_);
    const Tensor z = cx.columns(all, 0, d_inner_);
    const Tensor dt = cx.columns(all, d_inner_ + conv_dim_, scan_.n_heads);
    const Tensor xbc = causal_conv1d(cx, cx.columns(all, d_inner_, conv_dim_), conv_, conv_bias_,
                                     pass, {.silu = true});
    Tensor y = ssd_scan(cx, cx.columns(xbc, 0, d_inner_), dt, cx.columns(xbc, d_inner_, bc),
                        cx.columns(xbc, d_inner_ + bc, bc), a_log_, d_, dt_bias_, scan_, pass);
    tap(cx, "ssm_out", y);
    y = has_norm_ ? gated_rms_norm(cx, y, z, norm_weight_, norm_, norm_first_) : silu_mul(cx, z, y);
    return linear(cx, y, out_proj_, out_bias_);
  }

  // The convolution's taps are few and steer everything behind them: they stay as they are.
  QuantChoice quantize(const ParamSlot& param) const override {
    if (param.name == "conv1d.weight") return {};
    return Layer::quantize(param);
  }

 private:
  void check(const Config& c, const std::string& norm, double dt_low, double dt_high) const {
    const auto refuse = [&](const std::string& text) { throw Error(c.place() + ": " + text); };
    const SsdScanOptions& o = scan_;
    if (o.n_heads % o.n_groups)
      refuse("n_heads must be a multiple of n_groups, got n_heads " + std::to_string(o.n_heads) +
             " and n_groups " + std::to_string(o.n_groups));
    if (norm != "none" && norm != "gate_first" && norm != "norm_first")
      refuse("gated_norm must be gate_first, norm_first or none, got '" + norm + "'");
    if (d_inner_ % norm_.group)
      refuse("norm_groups must divide n_heads * head_dim = " + std::to_string(d_inner_) + ", got " +
             std::to_string(norm_.group));
    if (!(o.dt_min >= 0 && o.dt_max >= o.dt_min))
      refuse("the step size limits must be 0 <= dt_limit_min <= dt_limit_max, got " +
             std::to_string(o.dt_min) + " and " + std::to_string(o.dt_max));
    if (!(dt_low > 0 && dt_high >= dt_low))
      refuse("the initial step sizes must be 0 < dt_init_min <= dt_init_max, got " +
             std::to_string(dt_low) + " and " + std::to_string(dt_high));
  }

  SsdScanOptions scan_;
  RmsNormOptions norm_;
  bool has_norm_, norm_first_;
  int64_t d_inner_, conv_dim_;
  Param in_proj_, in_bias_, conv_, conv_bias_, dt_bias_, a_log_, d_, norm_weight_, out_proj_,
      out_bias_;
};

}  // namespace strata::mamba2

STRATA_LAYER(strata::mamba2::Mamba2, 'M', "mamba2")
