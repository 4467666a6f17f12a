// short_conv — gated short convolution: [b, c, u] = W_in x, y = W_out (c * conv(b * u)).
// The mixer of LFM2 (Liquid AI, 2025); gates on both sides of a causal depthwise convolution.
#include "core/contract/plugin.h"
#include "core/ops/arithmetic.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/linear.h"

namespace strata::short_conv {

class ShortConv final : public Layer {
 public:
  explicit ShortConv(const Config& c) : width_(c.d_model()) {
    const int64_t d_conv = c.size("d_conv", 3, "taps of the convolution, in tokens");
    const bool bias = c.get("bias", false, "biases on projections and convolution");
    const ParamOptions zeros{.init = Init::zeros(), .decay = Decay::no};
    in_ = param("in_proj", {3 * width_, c.d_in()}, {.role = "out,in"});
    conv_ = param("conv1d.weight", {width_, 1, d_conv});
    out_ = param("out_proj", {c.d_model(), width_}, {.role = "out,in"});
    if (!bias) return;
    in_bias_ = param("in_proj.bias", {3 * width_}, zeros);
    conv_bias_ = param("conv1d.bias", {width_}, zeros);
    out_bias_ = param("out_proj.bias", {c.d_model()}, zeros);
  }

  Tensor forward(Context& cx, Tensor x, Pass& pass) override {
    const Tensor bcu = linear(cx, x, in_, in_bias_);  // (batch, seq_len, 3 d_model)
    const Tensor b = cx.columns(bcu, 0, width_);
    const Tensor c = cx.columns(bcu, width_, width_);
    const Tensor u = cx.columns(bcu, 2 * width_, width_);
    const Tensor h = causal_conv1d(cx, mul(cx, b, u), conv_, conv_bias_, pass);
    return linear(cx, mul(cx, c, h), out_, out_bias_);  // (batch, seq_len, d_model)
  }

 private:
  int64_t width_;
  Param in_, in_bias_, conv_, conv_bias_, out_, out_bias_;
};

STRATA_LAYER(ShortConv, 'c', "short_conv")

}  // namespace strata::short_conv
