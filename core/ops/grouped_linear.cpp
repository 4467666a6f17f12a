#include "core/ops/grouped_linear.h"

#include "core/ops/help.h"

namespace strata {

static const Op<GroupedLinearArgs> grouped_op("grouped_linear");
static const Op<GroupedLinearBackwardArgs> grouped_backward_op("grouped_linear_backward");

Tensor grouped_linear(Context& cx, Tensor x, Tensor weight, Tensor offsets) {
  if (weight.shape.rank != 3 || x.shape.rank != 2 || x.cols() != weight.cols() ||
      offsets.dtype != DType::i32 || offsets.numel() != weight.shape[0] + 1)
    throw Error(std::string(cx.place()) + ": grouped_linear: x must be (rows, d_in), weight " +
                "(groups, d_out, d_in) and offsets (groups + 1,) i32; got x " + to_string(x.shape) +
                ", weight " + to_string(weight.shape) + " and offsets " + name_of(offsets.dtype) +
                " " + to_string(offsets.shape));
  Tensor y = cx.track(cx.alloc({x.rows(), weight.shape[1]}, x.dtype));
  grouped_op(cx, x.dtype, {x, weight, offsets, y});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x), dweight = cx.grad_target(weight);
    grouped_backward_op(cx, x.dtype, {x, weight, offsets, dy, dx, dweight});
  });
  return y;
}

STRATA_OP_HELP("grouped_linear", R"(y = x W_g^T for rows sorted by group
  Tensor grouped_linear(Context&, Tensor x, Tensor weight, Tensor offsets);
  x     (rows, d_in)      weight (groups, d_out, d_in)      offsets (groups + 1,) i32      y (rows, d_out)
Group g has the rows [offsets[g], offsets[g + 1]); a group may be empty.
State: none. Gradient: x and weight.
  #include "core/ops/grouped_linear.h"
  Tensor h = grouped_linear(cx, rows, experts_, offsets);)")

}  // namespace strata
