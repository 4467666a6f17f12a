// mlp — feed-forward block.
//   plain   y = W_down act(W_up x)                     squared ReLU by default (Primer, 2109.08668)
//   gated   y = W_down (act(W_gate x) * W_up x)        SwiGLU with act = silu (2002.05202)
#include "core/contract/plugin.h"
#include "core/ops/activation.h"
#include "core/ops/linear.h"

namespace strata::mlp {

class Mlp final : public Layer {
 public:
  explicit Mlp(const Config& c)
      : activation_(activation_of(
            c.get("activation", "relu2", "relu2, silu, gelu, gelu_tanh, relu, ..."), c.place())) {
    const int64_t d_ff = c.size("d_ff", 4 * c.d_model(), "inner width");
    const bool gated = c.get("gated", false, "act(gate) * up instead of act(up)");
    const bool bias = c.get("bias", false, "biases on every projection");
    const ParamOptions zeros{.init = Init::zeros(), .decay = Decay::no};
    if (gated) gate_ = param("gate_proj", {d_ff, c.d_in()}, {.role = "out,in"});
    if (gated && bias) gate_bias_ = param("gate_proj.bias", {d_ff}, zeros);
    up_ = param("up_proj", {d_ff, c.d_in()}, {.role = "out,in"});
    if (bias) up_bias_ = param("up_proj.bias", {d_ff}, zeros);
    down_ = param("down_proj", {c.d_model(), d_ff}, {.role = "out,in"});
    if (bias) down_bias_ = param("down_proj.bias", {c.d_model()}, zeros);
  }

  Tensor forward(Context& cx, Tensor x, Pass&) override {
    Tensor h = linear(cx, x, up_, up_bias_);  // (batch, seq_len, d_ff)
    if (gate_)
      h = gated(cx, linear(cx, x, gate_, gate_bias_), h, activation_);
    else
      h = activation(cx, h, activation_);
    return linear(cx, h, down_, down_bias_);  // (batch, seq_len, d_model)
  }

 private:
  Activation activation_;
  Param gate_, gate_bias_, up_, up_bias_, down_, down_bias_;
};

STRATA_LAYER(Mlp, '-', "mlp")

}  // namespace strata::mlp
