#include "core/ops/arithmetic.h"

#include "core/ops/help.h"
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
      partial = cx.scratch({row_blocks(a.rows()).count, b.numel()},
                           size_of(b.dtype) == 2 ? cx.accum_dtype() : b.dtype);
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

Tensor distinct(Context& cx, Tensor x, std::initializer_list<Tensor> others) {
  for (const Tensor& other : others)
    if (cx.share_columns(x, other)) return copy(cx, x);
  return x;
}

STRATA_OP_HELP("add", R"(y = a + b, b broadcast over a
  Tensor add(Context&, Tensor a, Tensor b);   also sub (a - b) and mul (a * b)
  a     (...)                 b  the shape of a; its trailing axes ((d,), (heads, d)); one number per
                                 row ((..., 1), (heads, 1)); or a single number ((1,))
  y     as a
State: none. Gradient: both; that of b is summed over what it was broadcast to, in a fixed order.
  #include "core/ops/arithmetic.h"
  Tensor y = add(cx, x, mul(cx, h, gate));)")
STRATA_OP_HELP("sub", R"(y = a - b, b broadcast over a: see add)")
STRATA_OP_HELP("mul", R"(y = a * b, b broadcast over a: see add)")
STRATA_OP_HELP("scale", R"(y = factor * x + shift, with two numbers
  Tensor scale(Context&, Tensor x, double factor, double shift = 0);
  x, y  (...)
State: none. Gradient: x.
  #include "core/ops/arithmetic.h"
  Tensor keep = scale(cx, z, -1, 1);          // 1 - z)")
STRATA_OP_HELP("copy", R"(a packed copy of x
  Tensor copy(Context&, Tensor x);
  x, y  (...); x may be a slice of wider rows
State: none. Gradient: x.
  #include "core/ops/arithmetic.h"
  Tensor packed = copy(cx, cx.columns(h, 0, d));)")

}  // namespace strata
