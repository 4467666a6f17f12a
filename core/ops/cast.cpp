#include "core/ops/cast.h"

#include "core/ops/help.h"

namespace strata {

static const Op<CastArgs> cast_op("cast");

static bool floating(DType type) {
  return type == DType::f32 || type == DType::f64 || type == DType::bf16 || type == DType::f16;
}

Tensor cast(Context& cx, Tensor x, DType to) {
  if (!floating(x.dtype) || !floating(to))
    throw Error(std::string(cx.place()) +
                ": cast: from and to must be f32, f64, bf16 or f16, got " + name_of(x.dtype) +
                " and " + name_of(to));
  if (x.dtype == to) return x;
  Tensor y = cx.track(cx.alloc(x.shape, to));
  cast_op(cx, x.dtype, {x, y, false});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x);
    if (dx.wanted) cast_op(cx, dy.dtype, {dy, dx.grad, dx.accumulate});
  });
  return y;
}

STRATA_OP_HELP("cast", R"(x in another dtype
  Tensor cast(Context&, Tensor x, DType to);
  x, y  (...); f32, f64, bf16 or f16; x itself when it is of that dtype
State: none. Gradient: x, in its own dtype. For what must not lose digits in a bf16 stack.
  #include "core/ops/cast.h"
  Tensor logits = linear(cx, cast(cx, x, cx.accum_dtype()), router_);)")

}  // namespace strata
