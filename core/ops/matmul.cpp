#include "core/ops/matmul.h"

#include "core/ops/help.h"

namespace strata {

static const Op<MatmulArgs> matmul_op("matmul");

// (..., m, n) as (batch, m, n): rows keep their pitch.
static Tensor as_batch(Tensor x) {
  x.shape = {x.rows() / x.shape[-2], x.shape[-2], x.shape[-1]};
  return x;
}

static bool same_batch(const Shape& a, const Shape& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i + 2 < a.rank; ++i)
    if (a.dim[i] != b.dim[i]) return false;
  return true;
}

// A shared b meets all rows of a as one product; only a transposed a must be taken batch by batch.
static void product(Context& cx, Tensor a, Tensor b, Tensor c, bool ta, bool tb, bool accumulate,
                    double alpha) {
  a = as_batch(a), b = as_batch(b), c = as_batch(c);
  if (!ta && b.shape[0] == 1) {
    a.shape = {1, a.rows(), a.cols()};
    c.shape = {1, c.rows(), c.cols()};
  }
  matmul_op(cx, a.dtype, {a, b, c, ta, tb, accumulate, alpha});
}

Tensor matmul(Context& cx, Tensor a, Tensor b, const MatmulOptions& o) {
  const bool ta = o.transpose_a, tb = o.transpose_b;
  const bool ranks = a.shape.rank >= 2 && b.shape.rank >= 2;
  const bool shared = ranks && b.shape.rank == 2;
  const int64_t m = ranks ? a.shape[ta ? -1 : -2] : 0, k = ranks ? a.shape[ta ? -2 : -1] : 0,
                n = ranks ? b.shape[tb ? -2 : -1] : 0;
  if (!ranks || b.shape[tb ? -1 : -2] != k || (!shared && !same_batch(a.shape, b.shape)))
    throw Error(std::string(cx.place()) + ": matmul: " + to_string(a.shape) +
                (ta ? " (transposed)" : "") + " and " + to_string(b.shape) +
                (tb ? " (transposed)" : "") +
                " cannot be multiplied; they must be (..., m, k) and (..., k, n) with equal "
                "leading axes");
  Shape shape = a.shape;
  shape[-2] = m;
  shape[-1] = n;
  Tensor y = cx.track(cx.alloc(shape, a.dtype));
  product(cx, a, b, y, ta, tb, false, o.alpha);
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget da = cx.grad_target(a), db = cx.grad_target(b);
    if (da.wanted) {  // da = dy op(b)^T, or its transpose
      if (ta)
        product(cx, b, dy, da.grad, tb, true, da.accumulate, o.alpha);
      else
        product(cx, dy, b, da.grad, false, !tb, da.accumulate, o.alpha);
    }
    if (!db.wanted) return;
    if (!shared) {
      if (tb)
        product(cx, dy, a, db.grad, true, ta, db.accumulate, o.alpha);
      else
        product(cx, a, dy, db.grad, !ta, false, db.accumulate, o.alpha);
      return;
    }
    // The batch is summed, in its order: a and dy as one tall matrix, or one product after another.
    const Tensor a3 = as_batch(a), dy3 = as_batch(dy);
    for (int64_t i = 0, count = ta ? a3.shape[0] : 1; i < count; ++i) {
      Tensor ai = a3, di = dy3;
      if (ta) {
        if (ai.data)
          ai.data =
              static_cast<char*>(ai.data) + i * ai.shape[1] * ai.pitch * int64_t(size_of(ai.dtype));
        if (di.data)
          di.data =
              static_cast<char*>(di.data) + i * di.shape[1] * di.pitch * int64_t(size_of(di.dtype));
        ai.shape = {1, ai.shape[1], ai.shape[2]};
        di.shape = {1, di.shape[1], di.shape[2]};
      } else {
        ai.shape = {1, ai.rows(), ai.cols()};
        di.shape = {1, di.rows(), di.cols()};
      }
      const bool add = db.accumulate || i > 0;
      if (tb)
        product(cx, di, ai, db.grad, true, ta, add, o.alpha);
      else
        product(cx, ai, di, db.grad, !ta, false, add, o.alpha);
    }
  });
  return y;
}

STRATA_OP_HELP("matmul", R"(y = alpha op(a) op(b), batched over the leading axes
  Tensor matmul(Context&, Tensor a, Tensor b, {.transpose_a, .transpose_b, .alpha});
  a     (..., m, k)       b (..., k, n), or (k, n) shared by all      y (..., m, n)
State: none. Gradient: a and b.
  #include "core/ops/matmul.h"
  Tensor scores = matmul(cx, q, k, {.transpose_b = true, .alpha = 0.125});)")

}  // namespace strata
