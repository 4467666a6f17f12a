// The scan with its states as tensors, for checks against stored references: x (batch, seq_len,
// n_heads, head_dim), B and C (batch, seq_len, n_groups, d_state), initial_state and final_state
// (batch, n_heads, head_dim, d_state).
#include <omp.h>

#include "core/ops/named_op.h"
#include "layers/mamba2/ssd_scan.h"

namespace strata::mamba2 {
namespace {

const Op<SsdScanArgs> ssd_scan_op("ssd_scan");
const Op<SsdScanBackwardArgs> ssd_scan_backward_op("ssd_scan_backward");

GradTarget target(Context& cx, Tensor x) { return x ? cx.grad_target(x) : GradTarget{}; }

Tensor merged(Context& cx, Tensor x) {
  return cx.reshape(x, {x.shape[0], x.shape[1], x.shape[2] * x.shape[3]});
}

void run_ssd_scan(NamedCall& call) {
  Context& cx = call.cx;
  const Tensor x = call.at("x"), b = call.at("B");
  SsdScanOptions options;
  options.n_heads = x.shape[2];
  options.head_dim = x.shape[3];
  options.n_groups = b.shape[2];
  options.d_state = b.shape[3];
  options.chunk_size = int64_t(call.number("chunk_size", 128));
  options.dt_min = call.number("dt_limit_min", 0);
  options.dt_max = call.number("dt_limit_max", options.dt_max);

  SsdScanArgs args{merged(cx, x),
                   call.at("dt_raw"),
                   merged(cx, b),
                   merged(cx, call.at("C")),
                   call.at("A_log"),
                   call.at("D"),
                   call.at("dt_bias"),
                   {},
                   {},
                   {},
                   call.at("initial_state"),
                   {},
                   options,
                   {},
                   omp_get_max_threads()};
  args.y = cx.track(cx.alloc(args.x.shape));
  const Tensor final_state = cx.track(
      cx.alloc({x.shape[0], options.n_heads, options.head_dim, options.d_state}, cx.accum_dtype()));
  args.final_state = final_state;
  {
    ScratchScope scope(cx);
    args.workspace = cx.scratch({ssd_workspace_bytes(args, false)}, DType::u8);
    ssd_scan_op(cx, x.dtype, args);
  }
  args.workspace = {};
  cx.record([args, final_state](Context& cx) {
    SsdScanBackwardArgs back{args,
                             cx.grad(args.y),
                             cx.grad(final_state),
                             cx.grad_target(args.x),
                             cx.grad_target(args.dt),
                             cx.grad_target(args.b),
                             cx.grad_target(args.c),
                             cx.grad_target(args.a_log),
                             target(cx, args.d),
                             target(cx, args.dt_bias),
                             target(cx, args.initial_state)};
    ScratchScope scope(cx);
    back.forward.workspace = cx.scratch({ssd_workspace_bytes(back.forward, true)}, DType::u8);
    ssd_scan_backward_op(cx, args.x.dtype, back);
  });
  call.out["y"] = cx.reshape(args.y, x.shape);
  call.out["final_state"] = final_state;
}

STRATA_NAMED_OP("ssd_scan", run_ssd_scan)

}  // namespace
}  // namespace strata::mamba2
