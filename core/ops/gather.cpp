#include "core/ops/gather.h"

namespace strata {

static const Op<GatherArgs> gather_op("gather");
static const Op<ScatterAddArgs> scatter_add_op("scatter_add");

Tensor gather(Context& cx, Tensor x, Tensor index) {
  if (index.dtype != DType::i32 || index.shape.rank + 1 > kMaxRank)
    throw Error(std::string(cx.place()) + ": gather: the index must be i32, got " +
                name_of(index.dtype) + " " + to_string(index.shape));
  Shape shape = index.shape;
  shape.dim[shape.rank++] = x.cols();
  Tensor y = cx.track(cx.alloc(shape, x.dtype));
  gather_op(cx, x.dtype, {x, index, y, false});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x);
    if (dx.wanted) scatter_add_op(cx, x.dtype, {dy, index, dx.grad, dx.accumulate});
  });
  return y;
}

Tensor scatter_add(Context& cx, Tensor x, Tensor index, int64_t n) {
  if (index.dtype != DType::i32 || index.numel() != x.rows())
    throw Error(std::string(cx.place()) + ": scatter_add: x " + to_string(x.shape) + " needs " +
                std::to_string(x.rows()) + " i32 indices, got " + name_of(index.dtype) + " " +
                to_string(index.shape));
  Tensor y = cx.track(cx.alloc({n, x.cols()}, x.dtype));
  scatter_add_op(cx, x.dtype, {x, index, y, false});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x);
    if (dx.wanted) gather_op(cx, x.dtype, {dy, index, dx.grad, dx.accumulate});
  });
  return y;
}

}  // namespace strata
