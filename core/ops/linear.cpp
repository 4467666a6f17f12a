#include "core/ops/linear.h"

#include "core/ops/help.h"

namespace strata {

static const Op<LinearArgs> linear_op("linear");
static const Op<LinearBackwardArgs> linear_backward_op("linear_backward");

Tensor linear(Context& cx, Tensor x, Param weight, Param bias) {
  return linear(cx, x, Tensor(weight), Tensor(bias));
}

Tensor linear(Context& cx, Tensor x, Tensor weight, Tensor bias) {
  if (weight.shape.rank != 2 || x.cols() != weight.shape[1])
    throw Error(std::string(cx.place()) + ": linear: x must be (..., d_in=" +
                std::to_string(weight.shape[-1]) + "), got " + to_string(x.shape));
  if (bias && bias.numel() != weight.shape[0])
    throw Error(std::string(cx.place()) + ": linear: bias must be (" +
                std::to_string(weight.shape[0]) + ",), got " + to_string(bias.shape));
  Shape shape = x.shape;
  shape[-1] = weight.shape[0];
  Tensor y = cx.track(cx.alloc(shape, x.dtype));
  linear_op(cx, x.dtype, {x, weight, bias, y});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    linear_backward_op(cx, x.dtype,
                       {x, weight, dy, cx.grad_target(x), cx.grad_target(weight),
                        bias ? cx.grad_target(bias) : GradTarget{}});
  });
  return y;
}

STRATA_OP_HELP("linear", R"(y = x W^T + b
  Tensor linear(Context&, Tensor x, Param weight, Param bias = {});
  x     (..., d_in)       weight (d_out, d_in)       bias (d_out,)       y (..., d_out)
Weights may be dense, quantized, adapted or sharded: the layer need not know.
State: none. Gradient: x, weight, bias; those that are frozen cost nothing.
  #include "core/ops/linear.h"
  Tensor h = linear(cx, x, up_, up_bias_);)")

}  // namespace strata
