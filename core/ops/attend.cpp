#include "core/ops/attend.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "core/ops/arithmetic.h"
#include "core/ops/attend_workspace.h"
#include "core/ops/attend_workspace_cuda.h"
#include "core/ops/help.h"

namespace strata {
namespace {

const Op<AttendArgs> attend_op("attend");
const Op<AttendArgs> attend_step_op("attend_step");
const Op<AttendBackwardArgs> attend_backward_op("attend_backward");
const Op<AppendPagesArgs> append_pages_op("append_pages");

[[noreturn]] void fail(Context& cx, const std::string& text) {
  throw Error(std::string(cx.place()) + ": attend: " + text);
}

AttendOptions checked(Context& cx, Tensor q, Tensor k, Tensor v, AttendOptions o) {
  if (o.n_heads < 1 || o.n_kv_heads < 1 || o.head_dim < 1 || o.n_heads % o.n_kv_heads)
    fail(cx, "n_kv_heads must divide n_heads, got n_heads " + std::to_string(o.n_heads) +
                 ", n_kv_heads " + std::to_string(o.n_kv_heads) + ", head_dim " +
                 std::to_string(o.head_dim));
  if (o.window < 0 || o.softcap < 0) fail(cx, "window and softcap must not be negative");
  const int64_t kv_width = o.n_kv_heads * o.head_dim;
  if (q.shape.rank != 3 || q.cols() != o.n_heads * o.head_dim)
    fail(cx, "q must be (batch, seq_len, n_heads * head_dim = " +
                 std::to_string(o.n_heads * o.head_dim) + "), got " + to_string(q.shape));
  if (k.shape.rank != 3 || k.cols() != kv_width || k.shape[0] != q.shape[0] ||
      k.shape[1] < q.shape[1])
    fail(cx, "k must be (" + std::to_string(q.shape[0]) + ", at least " +
                 std::to_string(q.shape[1]) + ", n_kv_heads * head_dim = " +
                 std::to_string(kv_width) + "), got " + to_string(k.shape));
  if (!(v.shape == k.shape))
    fail(cx, "v must be as k, " + to_string(k.shape) + ", got " + to_string(v.shape));
  if (o.scale == 0) o.scale = 1 / std::sqrt(double(o.head_dim));
  return o;
}

Tensor workspace(Context& cx, const AttendArgs& args, bool backward) {
  const int64_t bytes =
      cx.device().kind == DeviceKind::cuda
          ? AttendWorkspaceCuda(args, int64_t(size_of(args.q.dtype))).bytes(args, backward)
          : attend_workspace_bytes(args, backward);
  return cx.scratch({bytes}, DType::u8);
}

}  // namespace

int64_t attend_workspace_bytes(const AttendArgs& args, bool backward) {
  const AttendWorkspace w(args, int64_t(size_of(args.q.dtype)));
  if (backward) return w.documents + args.threads * w.backward;
  const int64_t step = args.k ? 0 : w.partial + args.threads * w.step;
  return std::max(step, w.documents + args.threads * w.forward);
}

Tensor attend(Context& cx, Tensor q, Tensor k, Tensor v, const AttendOptions& options,
              Tensor seq_idx) {
  const AttendOptions o = checked(cx, q, k, v, options);
  if (seq_idx && seq_idx.numel() != k.shape[0] * k.shape[1])
    fail(cx, "seq_idx must be (" + std::to_string(k.shape[0]) + ", " + std::to_string(k.shape[1]) +
                 "), got " + to_string(seq_idx.shape));
  k = distinct(cx, k, {q});
  v = distinct(cx, v, {q, k});
  AttendArgs args{q, k, v, {}, {}, seq_idx, {}, {}, o, {}, omp_get_max_threads()};
  args.y = cx.track(cx.alloc(q.shape, q.dtype));
  if (cx.recording()) args.lse = cx.alloc({q.shape[0], q.shape[1], o.n_heads}, cx.accum_dtype());
  {
    ScratchScope scope(cx);
    args.workspace = workspace(cx, args, false);
    attend_op(cx, q.dtype, args);
  }
  args.workspace = {};
  cx.record([args](Context& cx) {
    const Tensor dy = cx.grad(args.y);
    if (!dy) return;
    AttendBackwardArgs back{args, dy, cx.grad_target(args.q), cx.grad_target(args.k),
                            cx.grad_target(args.v)};
    ScratchScope scope(cx);
    back.forward.workspace = workspace(cx, back.forward, true);
    attend_backward_op(cx, args.q.dtype, back);
  });
  return args.y;
}

Tensor attend(Context& cx, Tensor q, Tensor k, Tensor v, const AttendOptions& options, Pass& pass) {
  if (pass.mode() == Mode::train) return attend(cx, q, k, v, options, pass.seq_idx());
  const AttendOptions o = checked(cx, q, k, v, options);
  if (!o.causal) fail(cx, "attention with causal = false sees later tokens and cannot decode");
  const Growth growth = o.window > 0 ? Growth::window_of(o.window) : Growth::per_token();
  const Shape per_token{o.n_kv_heads * o.head_dim};
  AttendArgs args{q, {}, {}, {}, {}, {}, {}, {}, o, {}, omp_get_max_threads()};
  args.k_pages = pass.pages(pass.unique("k"), per_token, k.dtype, growth);
  args.v_pages = pass.pages(pass.unique("v"), per_token, v.dtype, growth);
  append_pages_op(cx, k.dtype, {k, args.k_pages});
  append_pages_op(cx, v.dtype, {v, args.v_pages});
  args.y = cx.alloc(q.shape, q.dtype);
  ScratchScope scope(cx);
  args.workspace = workspace(cx, args, false);
  (q.shape[1] == 1 ? attend_step_op : attend_op)(cx, q.dtype, args);
  return args.y;
}

STRATA_OP_HELP("attend", R"(softmax attention with memory linear in the sequence length
  Tensor attend(Context&, Tensor q, Tensor k, Tensor v, const AttendOptions&, Pass&);
  q, y  (batch, seq_len, n_heads * head_dim)      k, v (batch, seq_len, n_kv_heads * head_dim)
Options: n_heads, n_kv_heads, head_dim, scale, softcap, causal, window.
State: "k" and "v" in pages, per token; declared by the operation. A query sees keys of its own
document (pass.seq_idx) only. Gradient: q, k, v. Source: arXiv 2205.14135.
  #include "core/ops/attend.h"
  Tensor y = attend(cx, q, k, v, {.n_heads = 8, .n_kv_heads = 2, .head_dim = 64}, pass);)")

}  // namespace strata
