#include "core/ops/shape.h"

#include "core/ops/arithmetic.h"
#include "core/ops/help.h"

namespace strata {

static const Op<ScaleArgs> scale_op("scale");

std::vector<Tensor> split(Context& cx, Tensor x, const std::vector<int64_t>& sizes) {
  std::string list;
  int64_t sum = 0;
  for (int64_t n : sizes) {
    list += (list.empty() ? "" : " + ") + std::to_string(n);
    sum += n;
  }
  if (sum != x.cols())
    throw Error(std::string(cx.place()) + ": split: " + list + " = " + std::to_string(sum) +
                " is not the last axis of " + to_string(x.shape));
  std::vector<Tensor> parts;
  int64_t at = 0;
  for (int64_t n : sizes) {
    parts.push_back(cx.columns(x, at, n));
    at += n;
  }
  return parts;
}

Tensor reshape(Context& cx, Tensor x, const Shape& shape) {
  if (shape.numel() == x.numel() && shape.cols() != x.cols() && !x.contiguous()) x = copy(cx, x);
  return cx.reshape(x, shape);
}

// A slice of a tensor without a gradient of its own.
static Tensor slice(Tensor x, int64_t begin, int64_t width) {
  if (x.data) x.data = static_cast<char*>(x.data) + begin * int64_t(size_of(x.dtype));
  x.shape[-1] = width;
  return x;
}

Tensor concat(Context& cx, const std::vector<Tensor>& parts) {
  if (parts.empty()) throw Error(std::string(cx.place()) + ": concat: nothing to join");
  Shape shape = parts[0].shape;
  shape[-1] = 0;
  for (const Tensor& p : parts) {
    Shape same = p.shape;
    same[-1] = shape[-1];
    if (!(same == shape))
      throw Error(std::string(cx.place()) + ": concat: " + to_string(p.shape) + " and " +
                  to_string(parts[0].shape) + " differ in more than the last axis");
    shape[-1] += p.cols();
  }
  Tensor y = cx.track(cx.alloc(shape, parts[0].dtype));
  int64_t at = 0;
  for (const Tensor& p : parts) {
    scale_op(cx, p.dtype, {p, slice(y, at, p.cols()), 1, 0, false});
    at += p.cols();
  }
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    int64_t at = 0;
    for (const Tensor& p : parts) {
      const GradTarget dp = cx.grad_target(p);
      if (dp.wanted) scale_op(cx, p.dtype, {slice(dy, at, p.cols()), dp.grad, 1, 0, dp.accumulate});
      at += p.cols();
    }
  });
  return y;
}

STRATA_OP_HELP("split", R"(views of consecutive columns
  std::vector<Tensor> split(Context&, Tensor x, const std::vector<int64_t>& sizes);
  x     (..., sum of sizes)       views (..., size)
State: none. Gradient: the views' gradients are views of x's. cx.columns(x, begin, width) is one of them.
  #include "core/ops/shape.h"
  auto parts = split(cx, h, {d_inner, d_inner, n_heads});)")
STRATA_OP_HELP("concat", R"(tensors one after the other along the last axis
  Tensor concat(Context&, const std::vector<Tensor>& parts);
  parts (..., d_i)                y (..., sum of d_i)
State: none. Gradient: all parts.
  #include "core/ops/shape.h"
  Tensor both = concat(cx, {x, pass.fetch("embed")});)")
STRATA_OP_HELP("reshape", R"(x with another shape of as many elements
  Tensor reshape(Context&, Tensor x, const Shape& shape);
A view; a copy only where a slice gets another last axis.
State: none. Gradient: x.
  #include "core/ops/shape.h"
  Tensor heads = reshape(cx, x, {batch, seq_len, n_heads, head_dim});)")

}  // namespace strata
