#include "core/ops/add_rms_norm.h"

#include "core/ops/residual_add.h"
#include "core/ops/row_blocks.h"

namespace strata {

static const Op<AddRmsNormArgs> add_rms_norm_op("add_rms_norm");
static const Op<RmsNormBackwardArgs> rms_norm_backward_op("rms_norm_backward");

static RmsNormOptions checked(Context& cx, Tensor h, Tensor y, Tensor weight, RmsNormOptions o) {
  const std::string at = std::string(cx.place()) + ": ";
  const int64_t d = h.cols();
  if (o.group == 0) o.group = d;
  if (!(h.shape == y.shape))
    throw Error(at + "the block must return " + to_string(h.shape) +
                ", the shape of the residual stream, got " + to_string(y.shape));
  if (o.group < 1 || d % o.group != 0)
    throw Error(at + "add_rms_norm: groups of " + std::to_string(o.group) +
                " do not divide the last axis of " + to_string(h.shape));
  if (weight && weight.numel() != d)
    throw Error(at + "add_rms_norm: weight must be (" + std::to_string(d) + ",), got " +
                to_string(weight.shape));
  return o;
}

void add_rms_norm_into(Context& cx, Tensor h, Tensor y, Tensor weight, Tensor n, Tensor inv,
                       const RmsNormOptions& options, double scale) {
  const RmsNormOptions o = checked(cx, h, y, weight, options);
  add_rms_norm_op(cx, h.dtype, {h, y, weight, h, n, inv, scale, o});
}

AddedNorm add_rms_norm(Context& cx, Tensor h, Tensor y, Tensor weight,
                       const RmsNormOptions& options, double scale) {
  const RmsNormOptions o = checked(cx, h, y, weight, options);
  const int64_t d = h.cols();
  const Tensor sum = cx.recording() ? cx.track(cx.alloc(h.shape, h.dtype)) : h;
  const Tensor n = cx.track(cx.alloc(h.shape, h.dtype));
  const Tensor inv = cx.alloc({h.rows(), d / o.group}, cx.accum_dtype());
  add_rms_norm_op(cx, h.dtype, {h, y, weight, sum, n, inv, scale, o});
  cx.record([=](Context& cx) {
    if (const Tensor dn = cx.grad(n)) {
      const GradTarget dsum = cx.grad_target(sum),
                       dw = weight ? cx.grad_target(weight) : GradTarget{};
      ScratchScope scope(cx);
      const Tensor partial =
          dw.wanted ? cx.scratch({partial_rows(h), d}, cx.accum_dtype()) : Tensor{};
      rms_norm_backward_op(cx, h.dtype, {sum, weight, inv, dn, dsum, dw, partial, o});
    }
    const Tensor g = cx.grad(sum);
    if (!g) return;
    // y first: its producers run before anything writes into h's gradient, which is g itself.
    pass_gradient(cx, y, g, scale, true);
    pass_gradient(cx, h, g, 1, true);
  });
  return {sum, n};
}

}  // namespace strata
