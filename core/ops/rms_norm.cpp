#include "core/ops/rms_norm.h"

#include "core/ops/help.h"
#include "core/ops/row_blocks.h"

namespace strata {

static const Op<RmsNormArgs> rms_norm_op("rms_norm");
static const Op<RmsNormBackwardArgs> rms_norm_backward_op("rms_norm_backward");
static const Op<GatedRmsNormArgs> gated_rms_norm_op("gated_rms_norm");
static const Op<GatedRmsNormBackwardArgs> gated_rms_norm_backward_op("gated_rms_norm_backward");
static const Op<LayerNormArgs> layer_norm_op("layer_norm");
static const Op<LayerNormBackwardArgs> layer_norm_backward_op("layer_norm_backward");

static void check_vector(Context& cx, const char* op, const char* what, Tensor v, int64_t d) {
  if (v && v.numel() != d)
    throw Error(std::string(cx.place()) + ": " + op + ": " + what + " must be (" +
                std::to_string(d) + ",), got " + to_string(v.shape));
}

static RmsNormOptions with_group(Context& cx, const char* op, Tensor x, RmsNormOptions o) {
  if (o.group == 0) o.group = x.cols();
  if (o.group < 1 || x.cols() % o.group != 0)
    throw Error(std::string(cx.place()) + ": " + op + ": groups of " + std::to_string(o.group) +
                " do not divide the last axis of " + to_string(x.shape));
  return o;
}

// The workspace for sums over rows, only where somebody wants them.
static Tensor partial_sums(Context& cx, bool wanted, Tensor x, int64_t cols) {
  if (!wanted) return {};
  return cx.scratch({partial_rows(x), cols}, cx.accum_dtype());
}

Tensor rms_norm(Context& cx, Tensor x, Tensor weight, const RmsNormOptions& options) {
  const RmsNormOptions o = with_group(cx, "rms_norm", x, options);
  check_vector(cx, "rms_norm", "weight", weight, x.cols());
  Tensor y = cx.track(cx.alloc(x.shape, x.dtype));
  const Tensor inv = cx.alloc({x.rows(), x.cols() / o.group}, cx.accum_dtype());
  rms_norm_op(cx, x.dtype, {x, weight, y, inv, o});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x), dw = weight ? cx.grad_target(weight) : GradTarget{};
    ScratchScope scope(cx);
    const Tensor partial = partial_sums(cx, dw.wanted, x, x.cols());
    rms_norm_backward_op(cx, x.dtype, {x, weight, inv, dy, dx, dw, partial, o});
  });
  return y;
}

Tensor gated_rms_norm(Context& cx, Tensor x, Tensor z, Tensor weight, const RmsNormOptions& options,
                      bool norm_before_gate) {
  const RmsNormOptions o = with_group(cx, "gated_rms_norm", x, options);
  check_vector(cx, "gated_rms_norm", "weight", weight, x.cols());
  if (!(z.shape == x.shape))
    throw Error(std::string(cx.place()) + ": gated_rms_norm: the gate must be " +
                to_string(x.shape) + " like x, got " + to_string(z.shape));
  Tensor y = cx.track(cx.alloc(x.shape, x.dtype));
  const Tensor inv = cx.alloc({x.rows(), x.cols() / o.group}, cx.accum_dtype());
  gated_rms_norm_op(cx, x.dtype, {x, z, weight, y, inv, o, norm_before_gate});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x), dz = cx.grad_target(z),
                     dw = weight ? cx.grad_target(weight) : GradTarget{};
    ScratchScope scope(cx);
    const Tensor partial = partial_sums(cx, dw.wanted, x, x.cols());
    gated_rms_norm_backward_op(cx, x.dtype,
                               {x, z, weight, inv, dy, dx, dz, dw, partial, o, norm_before_gate});
  });
  return y;
}

Tensor layer_norm(Context& cx, Tensor x, Tensor weight, Tensor bias,
                  const LayerNormOptions& options) {
  check_vector(cx, "layer_norm", "weight", weight, x.cols());
  check_vector(cx, "layer_norm", "bias", bias, x.cols());
  Tensor y = cx.track(cx.alloc(x.shape, x.dtype));
  const Tensor stats = cx.alloc({x.rows(), 2}, cx.accum_dtype());
  layer_norm_op(cx, x.dtype, {x, weight, bias, y, stats, options});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x), dw = weight ? cx.grad_target(weight) : GradTarget{},
                     db = bias ? cx.grad_target(bias) : GradTarget{};
    ScratchScope scope(cx);
    const Tensor partial = partial_sums(cx, dw.wanted || db.wanted, x, 2 * x.cols());
    layer_norm_backward_op(cx, x.dtype, {x, weight, stats, dy, dx, dw, db, partial, options});
  });
  return y;
}

STRATA_OP_HELP("rms_norm", R"(y = x / sqrt(mean(x^2) + eps) * w, over groups of the last axis
  Tensor rms_norm(Context&, Tensor x, Tensor weight, {.eps = 1e-5, .group = 0, .weight_plus_one});
  x, y  (..., d)          weight (d,) or absent      group: width of a group, 0: all of d
State: none. Gradient: x and weight. Source: arXiv 1910.07467.
  #include "core/ops/rms_norm.h"
  Tensor q = rms_norm(cx, heads, q_norm_, {.eps = 1e-6});)")
STRATA_OP_HELP("gated_rms_norm", R"(rms(x silu(z)) w, or rms(x) w silu(z)
  Tensor gated_rms_norm(Context&, Tensor x, Tensor z, Tensor weight, {.eps, .group},
                        bool norm_before_gate = false);
  x, z, y  (..., d)       weight (d,)                group: width of a group, 0: all of d
State: none. Gradient: x, z and weight. The output norm of Mamba-2 (arXiv 2405.21060).
  #include "core/ops/rms_norm.h"
  y = gated_rms_norm(cx, y, z, norm_, {.group = d_inner / n_groups});)")
STRATA_OP_HELP("layer_norm", R"(y = (x - mean) / sqrt(var + eps) * w + b
  Tensor layer_norm(Context&, Tensor x, Tensor weight, Tensor bias, {.eps = 1e-5, .weight_plus_one});
  x, y  (..., d)          weight, bias (d,) or absent
State: none. Gradient: x, weight and bias. Source: arXiv 1607.06450.
  #include "core/ops/rms_norm.h"
  x = layer_norm(cx, x, norm_, norm_bias_);)")

}  // namespace strata
