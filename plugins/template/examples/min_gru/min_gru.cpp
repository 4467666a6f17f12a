// min_gru ('r'): h_t = (1 - z_t) h_{t-1} + z_t W_h x_t, z_t = sigmoid(W_z x_t) (arXiv 2410.01201).
// Its state is the scan's, and so are its steps, its chunks and its document boundaries.
#include "core/contract/plugin.h"
#include "core/ops/activation.h"
#include "core/ops/arithmetic.h"
#include "core/ops/decay_scan.h"
#include "core/ops/linear.h"

using namespace strata;

class MinGru final : public Layer {
 public:
  explicit MinGru(const Config& c)
      : width_(c.size("d_inner", 2 * c.d_model(), "width of the hidden state")),
        z_(param("z_proj", {width_, c.d_model()})),
        h_(param("h_proj", {width_, c.d_model()})),
        out_(param("out_proj", {c.d_model(), width_})) {}

  Tensor forward(Context& cx, Tensor x, Pass& pass) override {
    Tensor z = sigmoid(cx, linear(cx, x, z_));  // (batch, seq_len, d_inner)
    Tensor in = mul(cx, z, linear(cx, x, h_));
    return linear(cx, decay_scan(cx, scale(cx, z, -1, 1), in, pass), out_);
  }

 private:
  int64_t width_;
  Param z_, h_, out_;
};
STRATA_LAYER(MinGru, 'r', "min_gru")
