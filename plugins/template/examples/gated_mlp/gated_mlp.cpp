// gated_mlp ('g'): y = W_down (silu(W_gate x) * W_up x), the SwiGLU block (arXiv 2002.05202).
#include "core/contract/plugin.h"
#include "core/ops/activation.h"
#include "core/ops/linear.h"

using namespace strata;

class GatedMlp final : public Layer {
 public:
  explicit GatedMlp(const Config& c)
      : d_ff_(c.size("d_ff", 3 * c.d_model(), "inner width")),
        gate_(param("gate_proj", {d_ff_, c.d_model()})),
        up_(param("up_proj", {d_ff_, c.d_model()})),
        down_(param("down_proj", {c.d_model(), d_ff_})) {}

  Tensor forward(Context& cx, Tensor x, Pass&) override {
    Tensor h = silu_mul(cx, linear(cx, x, gate_), linear(cx, x, up_));  // (batch, seq_len, d_ff)
    return linear(cx, h, down_);
  }

 private:
  int64_t d_ff_;
  Param gate_, up_, down_;
};
STRATA_LAYER(GatedMlp, 'g', "gated_mlp")
