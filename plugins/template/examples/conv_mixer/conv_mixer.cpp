// conv_mixer ('k'): y = W_out (q * conv(k * v)), three projections and a short causal filter, gated
// before and after (the order-2 Hyena operator with a short filter, arXiv 2302.10866).
#include "core/contract/plugin.h"
#include "core/ops/arithmetic.h"
#include "core/ops/causal_conv1d.h"
#include "core/ops/linear.h"
#include "core/ops/shape.h"

using namespace strata;

class ConvMixer final : public Layer {
 public:
  explicit ConvMixer(const Config& c)
      : d_(c.d_model()),
        in_(param("in_proj", {3 * d_, d_})),
        conv_(param("conv1d.weight", {d_, 1, c.size("d_conv", 4, "taps of the filter")})),
        out_(param("out_proj", {d_, d_})) {}

  Tensor forward(Context& cx, Tensor x, Pass& pass) override {
    auto qkv = split(cx, linear(cx, x, in_), {d_, d_, d_});  // (batch, seq_len, d_model) each
    Tensor h = causal_conv1d(cx, mul(cx, qkv[1], qkv[2]), conv_, {}, pass, {.silu = true});
    return linear(cx, mul(cx, qkv[0], h), out_);
  }

 private:
  int64_t d_;
  Param in_, conv_, out_;
};
STRATA_LAYER(ConvMixer, 'k', "conv_mixer")
