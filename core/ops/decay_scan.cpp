#include "core/ops/decay_scan.h"

#include "core/ops/arithmetic.h"
#include "core/ops/help.h"

#include <algorithm>

namespace strata {

static const Op<DecayScanArgs> scan_op("decay_scan");
static const Op<DecayScanBackwardArgs> scan_backward_op("decay_scan_backward");
static const Op<DecayScanOuterArgs> outer_op("decay_scan_outer");
static const Op<DecayScanOuterBackwardArgs> outer_backward_op("decay_scan_outer_backward");

// a as b, or as (batch, seq_len, rows of one token); absent when it is neither.
static Tensor as_decay(Context& cx, Tensor a, Tensor b) {
  if (a.shape == b.shape && b.cols() > 1) return a;
  const Shape per_row{b.shape[0], b.shape[1], b.numel() / (b.shape[0] * b.shape[1] * b.cols())};
  Shape without = b.shape, one = b.shape;
  --without.rank;
  one[-1] = 1;
  if (!(a.shape == without) && !(a.shape == one)) return {};
  return a.shape == per_row ? a : cx.reshape(a, per_row);
}

Tensor decay_scan(Context& cx, Tensor a, Tensor b, Pass& pass) {
  b = distinct(cx, b, {a});
  const Tensor decay = b.shape.rank >= 3 ? as_decay(cx, a, b) : Tensor{};
  if (!decay)
    throw Error(std::string(cx.place()) + ": decay_scan: b must be (batch, seq_len, ..., width) " +
                "and a like it, with or without the last axis; got a " + to_string(a.shape) +
                " and b " + to_string(b.shape));
  const bool wide = decay.shape == b.shape && b.cols() > 1;
  Shape per_sequence;
  for (int i = 2; i < b.shape.rank; ++i) per_sequence.dim[per_sequence.rank++] = b.shape[i];
  const StateRef state = pass.state(pass.unique("scan"), per_sequence, cx.accum_dtype());
  const Tensor seq_idx = pass.seq_idx();
  Tensor h = cx.track(cx.alloc(b.shape, b.dtype));
  scan_op(cx, b.dtype, {decay, b, h, seq_idx, state, wide});
  cx.record([=](Context& cx) {
    const Tensor dh = cx.grad(h);
    if (!dh) return;
    const GradTarget da = cx.grad_target(decay), db = cx.grad_target(b);
    scan_backward_op(cx, h.dtype, {decay, h, dh, seq_idx, da, db, wide});
  });
  return h;
}

// Workspace of one lane, in elements: three squares, two (chunk, d_k), four vectors, two states. No
// less than float32.
static Tensor outer_work(Context& cx, int64_t pairs, int64_t d_k, int64_t d_v, DType dtype) {
  return cx.scratch(
      {std::min(pairs, kScanLanes), kScanChunk * (3 * kScanChunk + 2 * d_k + 4) + 2 * d_k * d_v},
      size_of(dtype) == 2 ? cx.accum_dtype() : dtype);
}

Tensor decay_scan_outer(Context& cx, Tensor a, Tensor k, Tensor v, Tensor q, Pass& pass) {
  Shape as_v = k.shape;
  if (as_v.rank == 4) as_v[-1] = v.cols();
  if (k.shape.rank != 4 || !(q.shape == k.shape) || !(v.shape == as_v) || a.shape.rank != 3 ||
      a.shape[0] != k.shape[0] || a.shape[1] != k.shape[1] || a.shape[2] != k.shape[2])
    throw Error(std::string(cx.place()) +
                ": decay_scan_outer: a must be (batch, seq_len, heads), k " +
                "and q (batch, seq_len, heads, d_k), v (batch, seq_len, heads, d_v); got a " +
                to_string(a.shape) + ", k " + to_string(k.shape) + ", v " + to_string(v.shape) +
                ", q " + to_string(q.shape));
  k = distinct(cx, k, {a});
  v = distinct(cx, v, {a, k});
  q = distinct(cx, q, {a, k, v});
  const int64_t batch = k.shape[0], seq_len = k.shape[1], heads = k.shape[2];
  const int64_t d_k = k.cols(), d_v = v.cols();
  const StateRef state = pass.state(pass.unique("scan"), {heads, d_k, d_v}, cx.accum_dtype());
  const Tensor seq_idx = pass.seq_idx();
  Tensor y = cx.track(cx.alloc(v.shape, v.dtype)), starts;
  if (cx.recording())
    starts = cx.alloc({batch, (seq_len + kScanChunk - 1) / kScanChunk, heads, d_k * d_v},
                      cx.accum_dtype());
  {
    ScratchScope scope(cx);
    outer_op(
        cx, v.dtype,
        {a, k, v, q, y, seq_idx, state, starts, outer_work(cx, batch * heads, d_k, d_v, v.dtype)});
  }
  cx.record([=](Context& cx) {
    const Tensor dy = cx.grad(y);
    if (!dy) return;
    const GradTarget da = cx.grad_target(a), dk = cx.grad_target(k), dv = cx.grad_target(v),
                     dq = cx.grad_target(q);
    ScratchScope scope(cx);
    outer_backward_op(cx, v.dtype,
                      {a, k, v, q, dy, seq_idx, starts, da, dk, dv, dq,
                       outer_work(cx, batch * heads, d_k, d_v, v.dtype)});
  });
  return y;
}

STRATA_OP_HELP("decay_scan", R"(h_t = a_t h_{t-1} + b_t, all h_t returned
  Tensor decay_scan(Context&, Tensor a, Tensor b, Pass&);
  b, h  (batch, seq_len, ..., width)
  a     as b, or without its last axis (or with 1 there): one decay for the row; any value
State: "scan" (..., width), h of the last token; declared by the operation. A document's first token
(pass.seq_idx) starts from zero. Gradient: a and b.
  #include "core/ops/decay_scan.h"
  Tensor z = sigmoid(cx, linear(cx, x, gate_));
  Tensor h = decay_scan(cx, scale(cx, z, -1, 1), mul(cx, z, value), pass);   // minGRU)")
STRATA_OP_HELP("decay_scan_outer", R"(S_t = a_t S_{t-1} + k_t v_t^T, y_t = S_t^T q_t
  Tensor decay_scan_outer(Context&, Tensor a, Tensor k, Tensor v, Tensor q, Pass&);
  a     (batch, seq_len, heads), any value                 k, q (batch, seq_len, heads, d_k)
  v, y  (batch, seq_len, heads, d_v)
Linear attention with decay, in chunks of 64 tokens by matrix products (arXiv 2006.16236, 2405.21060).
State: "scan" (heads, d_k, d_v); declared by the operation. A document's first token starts from
zero. Gradient: a, k, v, q.
  #include "core/ops/decay_scan.h"
  Tensor y = decay_scan_outer(cx, sigmoid(cx, a), k, v, q, pass);)")

}  // namespace strata
