// The scan with its states as tensors, for checks against stored references: x (batch, seq_len,
// n_heads, head_dim), B and C (batch, seq_len, n_groups, d_state), initial_state and final_state
// (batch, n_heads, head_dim, d_state).
#include "core/ops/named_op.h"
#include "layers/mamba2/ssd_scan.h"

namespace strata::mamba2 {
namespace {

Tensor merged(Context& cx, Tensor x) {
  return cx.reshape(x, {x.shape[0], x.shape[1], x.shape[2] * x.shape[3]});
}

void run_ssd_scan(NamedCall& call) {
  Context& cx = call.cx;
  const Tensor x = call.at("x"), b = call.at("B");
  SsdScanArgs args;
  SsdScanOptions& options = args.options;
  options.n_heads = x.shape[2];
  options.head_dim = x.shape[3];
  options.n_groups = b.shape[2];
  options.d_state = b.shape[3];
  options.chunk_size = int64_t(call.number("chunk_size", 128));
  options.dt_min = call.number("dt_limit_min", 0);
  options.dt_max = call.number("dt_limit_max", options.dt_max);
  args.x = merged(cx, x);
  args.dt = call.at("dt_raw");
  args.b = merged(cx, b);
  args.c = merged(cx, call.at("C"));
  args.a_log = call.at("A_log");
  args.d = call.at("D");
  args.dt_bias = call.at("dt_bias");
  args.initial_state = call.at("initial_state");
  args.final_state = cx.track(
      cx.alloc({x.shape[0], options.n_heads, options.head_dim, options.d_state}, cx.accum_dtype()));
  call.out["y"] = cx.reshape(ssd_scan(cx, args), x.shape);
  call.out["final_state"] = args.final_state;
}

STRATA_NAMED_OP("ssd_scan", run_ssd_scan)

}  // namespace
}  // namespace strata::mamba2
