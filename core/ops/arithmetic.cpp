#include "core/ops/arithmetic.h"

#include "core/ops/row_blocks.h"

namespace strata {

static const Op<ArithmeticArgs> arithmetic_op("arithmetic");
static const Op<ArithmeticBackwardArgs> arithmetic_backward_op("arithmetic_backward");
static const Op<ScaleArgs> scale_op("scale");

// b's axes must be a's trailing axes, but for a last axis of 1.
static bool broadcasts(const Shape& a, const Shape& b) {
  if (b.numel() == 1) return true;
  if (b.rank > a.rank) return false;
  for (int i = 1; i <= b.rank; ++i)
    if (b[-i] != a[-i] && !(i == 1 && b[-1] == 1)) return false;
  return true;
}

static Tensor arithmetic(Context& cx, Arithmetic kind, Tensor a, Tensor b, const char* name) {
  if (kind != Arithmetic::sub && !broadcasts(a.shape, b.shape) && broadcasts(b.shape, a.shape))
    std::swap(a, b);
  if (!broadcasts(a.shape, b.shape))
    throw Error(std::string(cx.place()) + ": " + name + ": " + to_string(b.shape) +
                " cannot be broadcast over " + to_string(a.shape) +
                "; it must have the same shape, its trailing axes, or one number per row");
  if (a.dtype != b.dtype)
    throw Error(std::string(cx.place()) + ": " + name + ": " + name_of(a.dtype) + " and " +
                name_of(b.dtype) + " cannot be mixed");
  Tensor y = cx.track(cx.alloc(a.shape, a.dtype));
  arithmetic_op(cx, a.dtype, {kind, a, b, y});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget da = cx.grad_target(a), db = cx.grad_target(b);
    ScratchScope scope(cx);
    Tensor partial;
    if (db.wanted && b.rows() != a.rows())
      partial = cx.scratch({row_blocks(a.rows()).count, b.numel()}, b.dtype);
    arithmetic_backward_op(cx, a.dtype, {kind, a, b, dy, da, db, partial});
  });
  return y;
}

Tensor add(Context& cx, Tensor a, Tensor b) { return arithmetic(cx, Arithmetic::add, a, b, "add"); }
Tensor sub(Context& cx, Tensor a, Tensor b) { return arithmetic(cx, Arithmetic::sub, a, b, "sub"); }
Tensor mul(Context& cx, Tensor a, Tensor b) { return arithmetic(cx, Arithmetic::mul, a, b, "mul"); }

Tensor scale(Context& cx, Tensor x, double factor, double shift) {
  Tensor y = cx.track(cx.alloc(x.shape, x.dtype));
  scale_op(cx, x.dtype, {x, y, factor, shift, false});
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget dx = cx.grad_target(x);
    if (dx.wanted) scale_op(cx, x.dtype, {dy, dx.grad, factor, 0, dx.accumulate});
  });
  return y;
}

Tensor copy(Context& cx, Tensor x) { return scale(cx, x, 1); }

}  // namespace strata
