#include "core/ops/softmax.h"

#include "core/ops/help.h"

namespace strata {

static const Op<SoftmaxArgs> softmax_op("softmax");
static const Op<SoftmaxBackwardArgs> softmax_backward_op("softmax_backward");

Tensor softmax(Context& cx, Tensor x, double scale) {
  Tensor y = cx.track(cx.alloc(x.shape, x.dtype));
  softmax_op(cx, x.dtype, {x, y, scale});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x);
    if (dx.wanted) softmax_backward_op(cx, x.dtype, {y, dy, dx, scale});
  });
  return y;
}

STRATA_OP_HELP("softmax", R"(y = softmax(scale x) over the last axis
  Tensor softmax(Context&, Tensor x, double scale = 1);
  x, y  (..., d)
State: none. Gradient: x. For attention over a sequence use attend: its memory is linear.
  #include "core/ops/softmax.h"
  Tensor weights = softmax(cx, linear(cx, x, router_));)")

}  // namespace strata
