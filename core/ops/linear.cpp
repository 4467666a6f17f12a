#include "core/ops/linear.h"

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

}  // namespace strata
