#include "core/ops/residual_add.h"

namespace strata {

static const Op<ResidualAddArgs> residual_add_op("residual_add");

void residual_add_into(Context& cx, Tensor out, Tensor h, Tensor y, double scale) {
  residual_add_op(cx, y.dtype, {h, y, out, scale, false});
}

void pass_gradient(Context& cx, Tensor x, Tensor g, double scale, bool adopt) {
  if (x.var < 0) return;
  if (adopt && scale == 1 && cx.can_set_grad(x) && g.contiguous()) return cx.set_grad(x, g);
  const GradTarget t = cx.grad_target(x);
  residual_add_op(cx, g.dtype, {{}, g, t.grad, scale, t.accumulate});
}

Tensor residual_add(Context& cx, Tensor h, Tensor y, double scale) {
  if (!(h.shape == y.shape))
    throw Error(std::string(cx.place()) + ": the block must return " + to_string(h.shape) +
                ", the shape of the residual stream, got " + to_string(y.shape));
  if (!cx.recording()) {
    residual_add_into(cx, h, h, y, scale);
    return h;
  }
  Tensor out = cx.track(cx.alloc(h.shape, h.dtype));
  residual_add_into(cx, out, h, y, scale);
  cx.record([=](Context& cx) {
    const Tensor g = cx.grad(out);
    if (!g) return;
    // y first: its producers run before anything writes into h's gradient, which is g itself.
    pass_gradient(cx, y, g, scale, true);
    pass_gradient(cx, h, g, 1, true);
  });
  return out;
}

}  // namespace strata
