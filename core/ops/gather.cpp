#include "core/ops/gather.h"

#include "core/ops/help.h"

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

STRATA_OP_HELP("gather", R"(y[i] = x[index[i]], rows by index
  Tensor gather(Context&, Tensor x, Tensor index);
  x     (n rows, d)       index (...) i32 in [-1, n)        y index.shape + (d); -1 gives a row of zeros
State: none. Gradient: x, added up in the order of the indices.
  #include "core/ops/gather.h"
  Tensor rows = gather(cx, x, sorted.token);)")
STRATA_OP_HELP("scatter_add", R"(y[index[i]] += x[i], from zero
  Tensor scatter_add(Context&, Tensor x, Tensor index, int64_t n);
  x     (m rows, d)       index (m,) i32 in [-1, n); -1 drops the row      y (n, d)
State: none. Gradient: x. Sums run in the order of i, whatever the number of threads.
  #include "core/ops/gather.h"
  Tensor y = scatter_add(cx, rows, token, x.rows());)")

}  // namespace strata
